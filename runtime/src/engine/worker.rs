//! Who calls the engine: calls block, so they must not run where actors do.

use crate::engine::{Engine, EngineError};
use crate::priority::can_wait;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Jobs that may wait for the thread. A partition has one at a time, so this only delays whoever asks when
/// very many partitions have something to do; each job holds at most one chunk of a checkpoint.
const JOBS_MAX: usize = 64;

type Job = Box<dyn FnOnce(&dyn Engine) + Send>;

/// Runs closures on an engine, one after the other, in the order in which they were asked for.
#[derive(Clone)]
pub struct Worker {
    mode: Mode,
}

#[derive(Clone)]
enum Mode {
    Threaded(mpsc::Sender<Task>),
    Inline(Arc<dyn Engine>),
}

enum Task {
    Run(Job),
    /// The last task: the thread lets go of the engine, then says so.
    Stop(oneshot::Sender<()>),
}

impl Worker {
    /// A worker with a thread of its own. The thread ends when the last clone goes, or at
    /// [`Worker::stop`].
    #[allow(clippy::disallowed_methods, reason = "this is the door: the simulation uses `inline`")]
    pub fn threaded(engine: Arc<dyn Engine>) -> Self {
        let (tasks, queue) = mpsc::channel(JOBS_MAX);
        let spawned = std::thread::Builder::new().name("trandb-engine".into()).spawn(move || {
            can_wait();
            serve(engine, queue);
        });
        if let Err(error) = spawned {
            // The queue went with the closure, so every call says that the thread has gone.
            tracing::error!(%error, "the storage engine's thread could not be started");
        }
        Self { mode: Mode::Threaded(tasks) }
    }

    /// A worker that blocks its caller: for the simulation, where threads would not be reproducible.
    pub fn inline(engine: Arc<dyn Engine>) -> Self {
        Self { mode: Mode::Inline(engine) }
    }

    /// Runs `job` and hands back what it answers. Waits while the queue is full. If the future is dropped, a
    /// job that was queued runs all the same.
    ///
    /// # Errors
    /// The job's own, or [`EngineError::Failed`] when it panicked or the thread has gone.
    pub async fn run<T, E>(
        &self,
        job: impl FnOnce(&dyn Engine) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<EngineError> + Send + 'static,
    {
        match &self.mode {
            Mode::Inline(engine) => job(&**engine),
            Mode::Threaded(tasks) => {
                let (reply, answer) = oneshot::channel();
                let task = Task::Run(Box::new(move |engine| {
                    // Whoever asked may have gone.
                    let _ = reply.send(job(engine));
                }));
                let gone = || EngineError::failed("its thread has gone");
                tasks.send(task).await.map_err(|_| gone())?;
                answer.await.map_err(|_| EngineError::failed("a job panicked or came after the stop"))?
            }
        }
    }

    /// Lets the jobs that are queued run, then ends the thread and lets go of the engine; later jobs fail.
    /// Does nothing inline.
    pub async fn stop(&self) {
        if let Mode::Threaded(tasks) = &self.mode {
            let (done, stopped) = oneshot::channel();
            if tasks.send(Task::Stop(done)).await.is_ok() {
                // An error says that another stop was faster.
                let _ = stopped.await;
            }
        }
    }
}

fn serve(engine: Arc<dyn Engine>, mut queue: mpsc::Receiver<Task>) {
    while let Some(task) = queue.blocking_recv() {
        match task {
            Task::Run(job) => {
                // A job that panics fails its own caller; the engine guards its own state.
                if catch_unwind(AssertUnwindSafe(|| job(&*engine))).is_err() {
                    tracing::error!("a job on the storage engine panicked");
                }
            }
            Task::Stop(done) => {
                drop(engine);
                let _ = done.send(());
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::MemoryEngine;
    use trandb_cluster::PartitionId;

    async fn commits_and_reads_back(worker: &Worker) {
        let partition = PartitionId(3);
        worker.run(move |engine| engine.commit(partition, b"meta")).await.expect("commits");
        let meta: std::io::Result<_> = worker.run(move |engine| Ok(engine.meta(partition)?)).await;
        assert_eq!(meta.expect("reads").expect("is there"), "meta");
    }

    #[tokio::test]
    async fn both_kinds_run_jobs_in_order() {
        for worker in
            [Worker::inline(Arc::new(MemoryEngine::new())), Worker::threaded(Arc::new(MemoryEngine::new()))]
        {
            commits_and_reads_back(&worker).await;
            let error = worker
                .run(|_| Err::<(), _>(EngineError::failed("as asked")))
                .await
                .expect_err("the job's own error");
            assert_eq!(error.to_string(), "the storage engine failed: as asked");
        }
    }

    #[tokio::test]
    async fn a_job_that_panics_fails_alone() {
        let worker = Worker::threaded(Arc::new(MemoryEngine::new()));
        let result: Result<(), EngineError> = worker.run(|_| panic!("on purpose")).await;
        assert!(matches!(result, Err(EngineError::Failed { .. })));
        commits_and_reads_back(&worker).await;
    }

    #[tokio::test]
    async fn stopping_runs_what_is_queued_and_lets_go_of_the_engine() {
        let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
        let worker = Worker::threaded(engine.clone());
        let other = worker.clone();
        commits_and_reads_back(&worker).await;
        worker.stop().await;
        assert_eq!(Arc::strong_count(&engine), 1);
        assert!(engine.meta(PartitionId(3)).expect("reads").is_some());
        let late = other.run(|engine| engine.meta(PartitionId(3))).await;
        assert!(matches!(late, Err(EngineError::Failed { .. })));
        other.stop().await;
    }
}
