//! Committing: one entry where all lies in one partition; else the others prepare, the anchor's entry decides, the others
//! resolve.
//!
//! ```text
//! others   ── Prepare ──▶ held ──────────────── Resolve ──▶ done
//! anchor                      ── Commit ──▶ done                 ── Finish ──▶ may be forgotten
//! client                                 ◀── answered
//! ```
//!
//! The client waits for two rounds of Raft, and each partition but the anchor takes two entries. What follows the answer is
//! not urgent (`partition/deferred.rs`).

use super::trace::phase;
use crate::database::{Database, RequestContext};
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::txn::{Conflict, Coordinator, Effects, Plan, Prepare, TxnApplied, TxnStep};
use trandb_cluster::wire::TraceContext;
use trandb_cluster::{Error, ErrorCode, PartitionId, Timestamp, TxnId};
use trandb_runtime::pace::{dies, reach};
use trandb_runtime::planted::{Planted, is_planted};

/// How long a commit that has begun is pursued, whoever waits for it: less than outcomes are kept in any case.
const PURSUE_MAX: Duration = Duration::from_secs(30);

/// How long a transaction tries again when one that is committing stands in its way, and may well not change what it
/// has read.
const BLOCKED_MAX: Duration = Duration::from_millis(50);

/// How long it waits before it tries again, doubled each time.
const BLOCKED_PAUSE: Duration = Duration::from_millis(2);

/// How often the anchor hears that the coordinator is alive: a third of the lease.
const EXTEND: Duration = Duration::from_secs(1);

/// How long the other partitions of a commit are told of it, before the anchor's leader takes that over.
const TELL_MAX: Duration = Duration::from_secs(10);

/// See [`Planted::ResolveWrongTimestamp`].
const WRONG_MS: u64 = 50;

/// A commit that was not done, or not surely.
#[derive(Debug)]
pub(super) struct Failed {
    /// What the client is told.
    pub(super) error: Error,
    /// Why it is surely aborted; none where that is not known.
    pub(super) aborted: Option<String>,
}

impl Failed {
    fn conflict(cause: &'static str, why: String) -> Self {
        metrics::counter!("trandb_txn_aborts_total", "cause" => cause).increment(1);
        Self { error: Error::conflict(why.clone()), aborted: Some(why) }
    }

    fn refused(database: &Database, conflict: &Conflict) -> Self {
        let (cause, key) = match conflict {
            Conflict::Changed { key, .. } => ("changed", Some(key)),
            Conflict::Blocked { key, .. } => ("blocked", Some(key)),
            Conflict::TooOld => ("too_old", None),
        };
        if let Some(key) = key {
            let keyspace = database.keyspace_name(key.keyspace());
            metrics::counter!("trandb_txn_conflicts_total", "keyspace" => keyspace, "cause" => cause)
                .increment(1);
        }
        Self::conflict(cause, conflict.to_string())
    }

    fn unknown(error: Error) -> Self {
        metrics::counter!("trandb_txn_aborts_total", "cause" => "unknown").increment(1);
        let message = format!("whether the transaction was committed is not known: {}", error.message);
        Self { error: Error::unknown(message), aborted: None }
    }
}

/// Commits; answers when. A request's deadline does not end it: what was begun is pursued to a definite end.
///
/// `again` says that another run of the same transaction may have been committed before.
pub(super) async fn commit(
    database: &Database,
    core: &Coordinator,
    again: bool,
    request: &RequestContext,
) -> Result<Timestamp, Failed> {
    let began = Instant::now();
    let request = RequestContext { deadline: began + PURSUE_MAX, trace: request.trace };
    let Some(mut plan) = database.plan(core) else {
        let error = Error::unavailable("the partition map is not known yet");
        return Err(Failed { aborted: Some(error.message.clone()), error });
    };
    if is_planted(Planted::SkipValidation) {
        skip_validation(&mut plan);
    }
    let (kind, result) = match plan {
        Plan::Nothing => ("read", Ok(core.read_at())),
        Plan::Commit { anchor, prepares, last } => {
            let kind = if prepares.is_empty() { "one" } else { "several" };
            let others = prepares.keys().copied().filter(|&id| id != anchor).collect();
            let commit = Commit { database, txn: core.txn(), anchor, others, again, request: &request };
            (kind, commit.run(prepares, last).await)
        }
    };
    if result.is_ok() {
        metrics::counter!("trandb_txn_commits_total", "kind" => kind).increment(1);
        metrics::histogram!("trandb_txn_commit_seconds", "kind" => kind)
            .record(began.elapsed().as_secs_f64());
    }
    result
}

/// See [`Planted::SkipValidation`].
fn skip_validation(plan: &mut Plan) {
    let Plan::Commit { prepares, last, .. } = plan else { return };
    let all = prepares.values_mut().flatten().chain([last]);
    for effects in all {
        effects.reads.clear();
        effects.ranges.clear();
    }
}

/// Whether it helps to try again soon: the transaction in the way has only read, or nothing that was read is checked.
fn may_pass(conflict: &Conflict, effects: &Effects) -> bool {
    match conflict {
        Conflict::Blocked { writes: false, .. } => true,
        Conflict::Blocked { key, .. } => {
            effects.writes.iter().any(|write| write.key == *key && write.since == Timestamp::MAX)
        }
        _ => false,
    }
}

/// Takes a step until it is answered with more than that something stands in the way for the moment.
async fn pass(
    database: &Database,
    partition: PartitionId,
    step: TxnStep,
    effects: &Effects,
    request: &RequestContext,
) -> Result<TxnApplied, Error> {
    let until = Instant::now() + BLOCKED_MAX;
    let mut pause = BLOCKED_PAUSE;
    loop {
        let answer = database.txn_step(partition, step.clone(), request).await?;
        match &answer {
            TxnApplied::Refused(conflict) if may_pass(conflict, effects) && Instant::now() < until => {
                metrics::counter!("trandb_txn_retries_total", "kind" => "step").increment(1);
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            _ => return Ok(answer),
        }
    }
}

/// What partitions are told after a decision, as part of that trace.
fn telling(trace: Option<TraceContext>) -> RequestContext {
    RequestContext { deadline: Instant::now() + TELL_MAX, trace }
}

/// Nothing more is heard of a coordinator that has died.
fn dead() -> Failed {
    Failed::unknown(Error::unknown("its coordinator died"))
}

/// What came of preparing in all partitions. What was committed before is in the way of its own second run, which others
/// may refuse then.
fn together(done: Vec<Result<Option<Timestamp>, Failed>>) -> Result<Option<Timestamp>, Failed> {
    let before = done.iter().find_map(|one| one.as_ref().ok().copied().flatten());
    match before {
        Some(at) => Ok(Some(at)),
        None => done.into_iter().try_for_each(|one| one.map(drop)).map(|()| None),
    }
}

/// A commit.
struct Commit<'a> {
    database: &'a Database,
    txn: TxnId,
    anchor: PartitionId,
    /// The other partitions.
    others: Vec<PartitionId>,
    /// It may have been committed before, under the same name.
    again: bool,
    request: &'a RequestContext,
}

impl Commit<'_> {
    async fn run(
        self,
        prepares: BTreeMap<PartitionId, Vec<Effects>>,
        last: Effects,
    ) -> Result<Timestamp, Failed> {
        let node = self.database.node();
        if prepares.is_empty() {
            let (_span, request) = phase("txn commit", node, Some(self.txn), self.request);
            return self.decide(last, false, &request).await;
        }
        // Chosen once: who is to die and does not must have prepared all.
        let dies_preparing = dies(node, "preparing");
        let prepares = match dies_preparing {
            true => prepares.into_iter().take(1).collect(),
            false => prepares,
        };
        let began = Instant::now();
        let (span, request) = phase("txn prepare", node, Some(self.txn), self.request);
        let prepared = self.prepare(prepares, &request).await;
        drop(span);
        metrics::histogram!("trandb_txn_prepare_seconds").record(began.elapsed().as_secs_f64());
        if dies_preparing || dies(node, "prepared") {
            return Err(dead());
        }
        let began = Instant::now();
        let (span, request) = phase("txn decide", node, Some(self.txn), self.request);
        let decided = match prepared {
            Ok(None) => self.decide(last, true, &request).await,
            Ok(Some(at)) => Ok(at),
            Err(failed) if self.again => self.abort_unless_done(failed).await,
            Err(failed) => {
                self.abort(failed.error.message.clone());
                Err(failed)
            }
        };
        drop(span);
        metrics::histogram!("trandb_txn_decide_seconds").record(began.elapsed().as_secs_f64());
        let committed = match &decided {
            Ok(at) => Some(*at),
            Err(Failed { aborted: Some(_), .. }) => None,
            // Whoever meets it finds out.
            Err(_) => return decided,
        };
        let Self { database, txn, anchor, others, .. } = self;
        let database = database.clone();
        if dies(node, "decided") {
            return Err(dead());
        }
        if dies(node, "telling") {
            drop(database.tell(txn, &others[..others.len().min(1)], committed, &telling(None)).await);
            return Err(dead());
        }
        let request = telling(self.request.trace);
        tokio::spawn(async move {
            let (_span, request) = phase("txn resolve", node, Some(txn), &request);
            match committed {
                Some(at) => {
                    let wrong = is_planted(Planted::ResolveWrongTimestamp);
                    let at = if wrong { at.plus_millis(WRONG_MS) } else { at };
                    database.finish_commit(txn, anchor, others, at, &request).await;
                }
                None => drop(database.tell(txn, &others, None, &request).await),
            }
        });
        decided
    }

    /// Has every partition prepare its parts, one after the other, all partitions at once. When it was committed, should
    /// its anchor know that it was, by an earlier run of the same named batch.
    async fn prepare(
        &self,
        prepares: BTreeMap<PartitionId, Vec<Effects>>,
        request: &RequestContext,
    ) -> Result<Option<Timestamp>, Failed> {
        let anchor = self.anchor;
        let all = prepares.into_iter().map(|(partition, parts)| async move {
            for (part, effects) in (0..).zip(parts) {
                let prepare = Prepare { txn: self.txn, anchor, part, effects: effects.clone() };
                let step = TxnStep::Prepare(prepare);
                let refused = match pass(self.database, partition, step, &effects, request).await {
                    Ok(TxnApplied::Prepared) => {
                        reach("one-prepared");
                        continue;
                    }
                    Ok(TxnApplied::Committed(at)) => return Ok(Some(at)),
                    Ok(TxnApplied::Refused(conflict)) => Failed::refused(self.database, &conflict),
                    Ok(TxnApplied::Aborted(why)) => Failed::conflict("aborted", why),
                    Ok(other) => Failed::conflict("aborted", format!("{partition} answered {other:?}")),
                    // Only this coordinator could have decided to commit, and now it will not.
                    Err(error) => {
                        let error =
                            Error::unavailable(format!("{partition} did not prepare: {}", error.message));
                        metrics::counter!("trandb_txn_aborts_total", "cause" => "unavailable").increment(1);
                        Failed { aborted: Some(error.message.clone()), error }
                    }
                };
                return Err(refused);
            }
            Ok(None)
        });
        // All, also when one refuses: what is still under way would prepare after it was told to let go.
        let all = join_all(all);
        tokio::pin!(all);
        let mut extend = tokio::time::interval_at(Instant::now() + EXTEND, EXTEND);
        loop {
            tokio::select! {
                biased;
                done = &mut all => return together(done),
                _ = extend.tick() => {
                    let (database, txn) = (self.database.clone(), self.txn);
                    let request = RequestContext { deadline: Instant::now() + EXTEND, trace: None };
                    tokio::spawn(async move {
                        // The next one makes up for one that fails.
                        let _ = database.txn_step(anchor, TxnStep::Extend { txn, anchor }, &request).await;
                    });
                }
            }
        }
    }

    /// Has the anchor commit, all else being prepared, if there is more.
    async fn decide(
        &self,
        last: Effects,
        prepared: bool,
        request: &RequestContext,
    ) -> Result<Timestamp, Failed> {
        let txn = self.txn;
        let step = TxnStep::Commit { txn, participants: self.others.clone(), effects: last.clone() };
        let mut answer = pass(self.database, self.anchor, step, &last, request).await;
        // What stood in the way goes, and the same message may still come a second time, late: it must not pass then.
        if let Ok(TxnApplied::Refused(conflict @ Conflict::Blocked { .. })) = &answer {
            let step = TxnStep::Abort { txn, why: conflict.to_string() };
            answer = self.database.txn_step(self.anchor, step, request).await;
        }
        match answer {
            Ok(TxnApplied::Committed(at)) => Ok(at),
            Ok(TxnApplied::Refused(conflict)) => {
                // It would be refused again; this is for those who meet what is prepared.
                if prepared {
                    self.abort(conflict.to_string());
                }
                Err(Failed::refused(self.database, &conflict))
            }
            Ok(TxnApplied::Aborted(why)) => Err(Failed::conflict("aborted", why)),
            Ok(other) => {
                Err(Failed::unknown(Error::internal(format!("a commit was answered with {other:?}"))))
            }
            Err(error) => Err(Failed::unknown(error)),
        }
    }

    /// Aborts at the anchor before anybody lets go of what is prepared, which may be from a run that was committed.
    async fn abort_unless_done(&self, failed: Failed) -> Result<Timestamp, Failed> {
        let step = TxnStep::Abort { txn: self.txn, why: failed.error.message.clone() };
        match self.database.txn_step(self.anchor, step, self.request).await {
            Ok(TxnApplied::Committed(at)) => Ok(at),
            Ok(TxnApplied::Aborted(_)) => Err(failed),
            Ok(other) => {
                Err(Failed::unknown(Error::internal(format!("an abort was answered with {other:?}"))))
            }
            Err(error) => Err(Failed::unknown(error)),
        }
    }

    /// Tells the anchor, so that whoever meets what is prepared need not wait for the lease.
    fn abort(&self, why: String) {
        let (database, txn, anchor) = (self.database.clone(), self.txn, self.anchor);
        tokio::spawn(async move {
            let request = telling(None);
            // When the anchor cannot be told, the lease ends it.
            let _ = database.txn_step(anchor, TxnStep::Abort { txn, why }, &request).await;
        });
    }
}

impl Database {
    /// Takes a step of a transaction at the leader of a partition, again and again until it is answered: to take one
    /// twice is the same as once.
    ///
    /// # Errors
    /// When the deadline has passed; it may have been taken all the same.
    pub(crate) async fn txn_step(
        &self,
        partition: PartitionId,
        step: TxnStep,
        request: &RequestContext,
    ) -> Result<TxnApplied, Error> {
        let step = std::sync::Arc::new(step);
        loop {
            let error = match self.txn_step_once(partition, &step, request).await {
                Ok(applied) => return Ok(applied),
                Err(error) => error,
            };
            let again =
                matches!(error.code, ErrorCode::Unavailable | ErrorCode::Unknown | ErrorCode::Overloaded);
            if !again || Instant::now() + BLOCKED_PAUSE >= request.deadline {
                return Err(error);
            }
            tokio::time::sleep(BLOCKED_PAUSE * 10).await;
        }
    }

    /// Tells the other partitions of a commit, and the anchor when all know it.
    pub(crate) async fn finish_commit(
        &self,
        txn: TxnId,
        anchor: PartitionId,
        others: Vec<PartitionId>,
        at: Timestamp,
        request: &RequestContext,
    ) {
        if others.is_empty() {
            return;
        }
        if self.tell(txn, &others, Some(at), request).await.is_ok() {
            // The anchor's leader looks after what was not finished.
            let _ = self.txn_step(anchor, TxnStep::Finish { txn }, request).await;
        }
    }

    /// Has the partitions resolve.
    pub(super) async fn tell(
        &self,
        txn: TxnId,
        partitions: &[PartitionId],
        committed: Option<Timestamp>,
        request: &RequestContext,
    ) -> Result<(), Error> {
        let steps = partitions
            .iter()
            .map(|&partition| self.txn_step(partition, TxnStep::Resolve { txn, committed }, request));
        join_all(steps).await.into_iter().try_for_each(|told| told.map(drop))
    }
}
