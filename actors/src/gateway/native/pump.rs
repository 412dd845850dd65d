//! One connection's bytes: a state machine that is polled by one task.
//!
//! Each turn it encodes the answers that are there, writes what the network takes, starts the requests that
//! are there, and reads. It reads only while three things have room: the requests in flight on this
//! connection, the output that the client has not taken yet, and the door's budget of request bytes. What
//! has no room stays in the client's kernel, which is the back-pressure.
//!
//! Every request that was started is answered before a `Refused` closes the connection. So a client that
//! gets one knows that its unanswered requests were not done.

use super::super::connection::{Closed, Connection, Slot, farewell};
use super::super::listen::BoxedStream;
use super::super::options::LARGE_BYTES;
use super::Native;
use super::greeting::{HELLO_BYTES_MAX, HELLO_TIMEOUT, greet};
use super::input::{Front, HEADER_BYTES, Input};
use super::output::Output;
use super::reply::{self, Answered, Job};
use super::request::{Call, Work};
use crate::txn::Used;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::PollSemaphore;
use trandb_cluster::Error;
use trandb_cluster::limits::CLIENT_FRAME_BYTES_MAX;
use trandb_cluster::wire::ServerFrame;

/// How long a frame may take from its first byte to its last: a largest one at 140 kB/s. Time in which we
/// do not read does not count.
const FRAME_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client may take nothing of the replies that wait for it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

enum Phase {
    /// The first frame must be a Hello by then.
    Greeting {
        until: Instant,
    },
    Open,
    /// Nothing is read any more; it ends when all that was started is answered.
    Closing(Closed),
}

/// See the module.
pub(super) struct Pump {
    stream: BoxedStream,
    close: oneshot::Receiver<Error>,
    native: Arc<Native>,
    phase: Phase,
    input: Input,
    output: Output,
    running: FuturesUnordered<BoxFuture<'static, Answered>>,
    in_flight: usize,
    small: PollSemaphore,
    large: PollSemaphore,
    /// Held for the large frame that is coming in.
    reserved: Option<OwnedSemaphorePermit>,
    /// When the frame that has begun must be there; none while none has or we do not read.
    frame_until: Option<Instant>,
    /// When the client must have taken something of the output; none while there is none.
    write_until: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    used: Used,
    _slot: Slot,
}

impl Drop for Pump {
    /// However it ends.
    fn drop(&mut self) {
        let left = self.used.take();
        if !left.is_empty() {
            self.native.backend.leave(left);
        }
    }
}

impl Pump {
    pub(super) fn new(connection: Connection, native: Arc<Native>) -> Self {
        let Connection { stream, close, slot } = connection;
        Self {
            stream,
            close,
            phase: Phase::Greeting { until: Instant::now() + HELLO_TIMEOUT },
            input: Input::new(HELLO_BYTES_MAX),
            output: Output::default(),
            running: FuturesUnordered::new(),
            in_flight: 0,
            small: PollSemaphore::new(Arc::clone(&native.small)),
            large: PollSemaphore::new(Arc::clone(&native.large)),
            native,
            reserved: None,
            frame_until: None,
            write_until: None,
            timer: None,
            used: Used::default(),
            _slot: slot,
        }
    }

    /// Serves the connection to its end.
    pub(super) async fn run(mut self) -> Closed {
        let closed = poll_fn(|cx| self.poll(cx)).await;
        if let Closed::Ordered(error) | Closed::Fault(error) = &closed {
            self.output.push(&ServerFrame::Refused(error.clone()));
            farewell(&mut self.stream, self.output.rest()).await;
        }
        closed
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        loop {
            self.poll_close(cx);
            self.poll_answers(cx);
            let held_back = self.output.is_full();
            if let Poll::Ready(Err(error)) = self.poll_write(cx) {
                return Poll::Ready(Closed::Io(error));
            }
            if held_back && !self.output.is_full() {
                // Answers that had no room were not polled, so nothing would wake us for them.
                continue;
            }
            if let Phase::Closing(_) = self.phase {
                if self.running.is_empty() && self.output.is_empty() {
                    return Poll::Ready(self.take_reason());
                }
            } else {
                match self.poll_requests(cx) {
                    Poll::Ready(Ok(())) => continue,
                    Poll::Ready(Err(closed)) => {
                        self.phase = Phase::Closing(closed);
                        self.frame_until = None;
                        continue;
                    }
                    Poll::Pending => {}
                }
            }
            match self.poll_timer(cx) {
                Poll::Ready(closed @ Closed::Io(_)) => return Poll::Ready(closed),
                Poll::Ready(closed) => {
                    self.phase = Phase::Closing(closed);
                    self.frame_until = None;
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn take_reason(&mut self) -> Closed {
        match std::mem::replace(&mut self.phase, Phase::Open) {
            Phase::Closing(closed) => closed,
            Phase::Greeting { .. } | Phase::Open => Closed::ByClient,
        }
    }

    /// Takes the order to close.
    fn poll_close(&mut self, cx: &mut Context<'_>) {
        if matches!(self.phase, Phase::Closing(_)) {
            return;
        }
        if let Poll::Ready(order) = Pin::new(&mut self.close).poll(cx) {
            let reason = order.unwrap_or_else(|_| Error::unavailable("the session has ended"));
            self.phase = Phase::Closing(Closed::Ordered(reason));
            self.frame_until = None;
        }
    }

    /// Encodes the answers that are there, as long as the output has room.
    fn poll_answers(&mut self, cx: &mut Context<'_>) {
        while !self.output.is_full() && !self.running.is_empty() {
            let Poll::Ready(Some(answered)) = self.running.poll_next_unpin(cx) else { break };
            self.in_flight -= answered.len();
            answered.write(&mut self.output, &self.native.metrics);
        }
    }

    /// Writes until the network takes no more.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while !self.output.is_empty() {
            let keep = !self.running.is_empty();
            match self.output.poll_write(&mut self.stream, keep, cx) {
                Poll::Ready(Ok(_)) => self.write_until = None,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.write_until.get_or_insert_with(|| Instant::now() + WRITE_TIMEOUT);
                    return Poll::Pending;
                }
            }
        }
        self.write_until = None;
        Poll::Ready(Ok(()))
    }

    /// Starts what is there and reads. Ready: something has happened.
    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        let room = match self.phase {
            Phase::Open => (self.native.options.in_flight_max as usize).saturating_sub(self.in_flight),
            Phase::Greeting { .. } | Phase::Closing(_) => 1,
        };
        if self.output.is_full() || room == 0 {
            self.frame_until = None;
            return Poll::Pending;
        }
        match self.input.front(room).map_err(Closed::Fault)? {
            Front::Whole { frames, bytes } => {
                // A large frame comes alone; small ones may be as many bytes together.
                let large = frames == 1 && bytes > LARGE_BYTES;
                let permit = ready!(self.poll_budget(bytes, large, cx));
                let result = self.start(frames, permit);
                self.input.consume(bytes);
                self.frame_until = None;
                Poll::Ready(result)
            }
            Front::PartialLarge { bytes } if self.reserved.is_none() => {
                let permit = ready!(self.poll_budget(bytes, true, cx));
                self.reserved = Some(permit);
                self.input.reserve_large(bytes);
                Poll::Ready(Ok(()))
            }
            Front::Empty | Front::Partial | Front::PartialLarge { .. } => self.poll_read(cx),
        }
    }

    /// The share of the door's budget that a run of `bytes` takes.
    fn poll_budget(&mut self, bytes: usize, large: bool, cx: &mut Context<'_>) -> Poll<OwnedSemaphorePermit> {
        if let Some(permit) = self.reserved.take() {
            return Poll::Ready(permit);
        }
        self.frame_until = None;
        let budget = if large { &mut self.large } else { &mut self.small };
        let permits = u32::try_from(bytes).expect("a run is at most one largest frame");
        budget
            .poll_acquire_many(cx, permits)
            .map(|permit| permit.expect("the door's budgets are never closed"))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        let read = match self.input.poll_read(&mut self.stream, cx) {
            Poll::Ready(Ok(read)) => read,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(Closed::Io(error))),
            Poll::Pending => {
                if !self.input.is_empty() {
                    self.frame_until.get_or_insert_with(|| Instant::now() + FRAME_TIMEOUT);
                }
                return Poll::Pending;
            }
        };
        if read == 0 {
            return Poll::Ready(Err(if self.input.is_empty() {
                Closed::ByClient
            } else {
                Closed::Fault(Error::invalid("the stream ended within a frame"))
            }));
        }
        Poll::Ready(Ok(()))
    }

    /// Starts the first `frames` requests, or takes the Hello.
    fn start(&mut self, frames: usize, permit: OwnedSemaphorePermit) -> Result<(), Closed> {
        if let Phase::Greeting { .. } = self.phase {
            let hello = self.input.frames(1).next().expect("a frame is there");
            let welcome = greet(hello, &self.native).map_err(Closed::Fault)?;
            self.output.push(&ServerFrame::Welcome(welcome));
            self.input.set_frame_bytes_max(CLIENT_FRAME_BYTES_MAX - HEADER_BYTES);
            self.phase = Phase::Open;
            return Ok(());
        }
        let mut work = Work::default();
        let fault = self
            .input
            .frames(frames)
            .try_for_each(|payload| work.take(payload, &*self.native.backend))
            .map_err(Closed::Fault);
        // What stood in front of a fault is done like any other request.
        self.run_work(work, Arc::new(permit));
        fault
    }

    fn run_work(&mut self, work: Work, permit: Arc<OwnedSemaphorePermit>) {
        let native = &self.native;
        let now = Instant::now();
        for (waiting, error) in work.refused {
            reply::write(waiting, Err(error), false, &mut self.output, &native.metrics);
        }
        for batch in work.batches {
            self.in_flight += batch.ops.len();
            let job = Job::new(batch.name(), batch.terms, native, now, &permit);
            self.running.push(Box::pin(job.batch(batch)));
        }
        for (id, terms, call) in work.calls {
            self.in_flight += 1;
            if let Call::Txn(request) = &call {
                self.used.note(request);
            }
            let job = Job::new(call.kind().name(), terms, native, now, &permit);
            self.running.push(Box::pin(job.call(id, call)));
        }
    }

    /// The first of the connection's deadlines, if it has passed.
    ///
    /// Deadlines move with every frame; the timer is left where it was and looks again when it fires, so
    /// that a busy connection does not touch the timer wheel.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        let greeting = match self.phase {
            Phase::Greeting { until } => Some(until),
            Phase::Open | Phase::Closing(_) => None,
        };
        loop {
            let Some(first) = [greeting, self.frame_until, self.write_until].into_iter().flatten().min()
            else {
                self.timer = None;
                return Poll::Pending;
            };
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(first)));
            if first < timer.deadline() {
                timer.as_mut().reset(first);
            }
            ready!(timer.as_mut().poll(cx));
            let now = Instant::now();
            if now < first {
                timer.as_mut().reset(first);
                continue;
            }
            self.timer = None;
            return Poll::Ready(if greeting == Some(first) {
                Closed::Fault(Error::invalid(format!("no hello within {} s", HELLO_TIMEOUT.as_secs())))
            } else if self.frame_until == Some(first) {
                Closed::Fault(Error::invalid(format!("a frame took over {} s", FRAME_TIMEOUT.as_secs())))
            } else {
                // Nothing more can be written to it, so it is not told.
                Closed::Io(std::io::Error::new(
                    std::io::ErrorKind::TimedOut,
                    format!("no reply was taken within {} s", WRITE_TIMEOUT.as_secs()),
                ))
            });
        }
    }
}
