//! One connection of the generator.

use super::Mix;
use super::chooser::{Chooser, Rng};
use super::partitions::Partitions;
use super::report::Tally;
use super::template::{Kind, Step, Templates, begun, verdict};
use std::iter::StepBy;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use trandb_client::{Connection, ConnectionError, TcpDialer};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Between a broken connection and the next try.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// After the end, answers still count this long; then the connection is given up.
const LINGER: Duration = Duration::from_secs(12);

/// Which requests to send.
pub(crate) enum Work {
    /// Each of these keys once.
    Fill { keys: StepBy<Range<u64>> },
    /// Whatever chance says.
    Mixed { mix: Mix, chooser: Arc<Chooser>, partitions: Arc<Partitions>, rng: Rng },
}

impl Work {
    /// A kind, and the keys that it is about; most are about the first only.
    fn next(&mut self) -> Option<(Kind, [u64; 2])> {
        match self {
            Self::Fill { keys } => keys.next().map(|key| (Kind::Put, [key; 2])),
            Self::Mixed { mix, chooser, partitions, rng } => {
                let (kind, key) = (mix.choose(rng.next()), chooser.choose(rng));
                let partner = match kind {
                    Kind::Single | Kind::Cross => partitions.partner(key, kind == Kind::Single, rng),
                    Kind::Get | Kind::Put | Kind::Scan | Kind::Rmw => key,
                };
                Some((kind, [key, partner]))
            }
        }
    }
}

/// What a worker is to do, and when.
pub(crate) struct Plan {
    pub(crate) work: Work,
    /// Answers to requests from before this do not count.
    pub(crate) measured: Instant,
    /// No request is sent after this.
    pub(crate) end: Instant,
    /// When the first request is due; none without a rate.
    pub(crate) first_due: Option<Instant>,
    /// From one request to the next.
    pub(crate) gap: Option<Duration>,
}

/// A request in flight.
#[derive(Clone, Copy)]
struct Slot {
    kind: Kind,
    started: Instant,
    key: u64,
    /// How far a read-modify-write is.
    step: Step,
}

impl Slot {
    /// The step after the one that was answered by `frame`; none when the request is done.
    fn next(&self, frame: &[u8]) -> Result<Option<Step>, trandb_client::Error> {
        if self.kind != Kind::Rmw {
            return Ok(None);
        }
        Ok(match self.step {
            Step::Begin => Some(Step::Get(begun(frame)?)),
            Step::Get(txn) => Some(Step::Put(txn)),
            Step::Put(txn) => Some(Step::Commit(txn)),
            Step::Commit(_) => None,
        })
    }
}

pub(crate) struct Worker {
    addr: String,
    templates: Arc<Templates>,
    connection: Option<Connection>,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    /// Since when there has been room for a request. What was due earlier was held up by the node, and
    /// its latency counts from then; what is sent late for another reason was held up by this program's timer.
    room_since: Instant,
}

impl Worker {
    pub(crate) async fn connect(
        addr: String,
        templates: Arc<Templates>,
        pipeline: usize,
    ) -> Result<Self, ConnectionError> {
        let connection = open(&addr).await?;
        let pipeline = pipeline.min(connection.welcome().in_flight_max as usize);
        Ok(Self {
            addr,
            templates,
            connection: Some(connection),
            slots: vec![None; pipeline],
            free: (0..pipeline).collect(),
            room_since: Instant::now(),
        })
    }

    /// Carries out the plan.
    pub(crate) async fn run(mut self, mut plan: Plan) -> (Self, Tally) {
        let mut tally = Tally::default();
        let mut due = plan.first_due;
        let give_up = plan.end + LINGER;
        let mut more = true;
        loop {
            let now = Instant::now();
            if self.connection.is_none() && now < plan.end {
                self.reconnect(&mut tally, plan.end).await;
                continue;
            }
            more &= now < plan.end;
            if more {
                more = self.send(&mut plan, &mut due, now, &mut tally);
            }
            let idle = self.free.len() == self.slots.len();
            if (idle && !more) || self.connection.is_none() || now >= give_up {
                tally.lost(self.forget(), "no answer");
                return (self, tally);
            }
            // With room left, the next request wakes it; without, only an answer does.
            let wake = due.filter(|_| more && !self.free.is_empty()).unwrap_or(give_up);
            match idle {
                true => tokio::time::sleep_until(wake.min(plan.end)).await,
                false => self.receive(&plan, wake, &mut tally).await,
            }
        }
    }

    /// Queues what is due, as far as there is room. False when the work is done.
    fn send(&mut self, plan: &mut Plan, due: &mut Option<Instant>, now: Instant, tally: &mut Tally) -> bool {
        let Some(connection) = &mut self.connection else { return true };
        while let Some(slot) = self.free.last().copied() {
            if due.is_some_and(|due| due > now) {
                return true;
            }
            let Some((kind, keys)) = plan.work.next() else { return false };
            if let Err(error) = connection.queue_encoded(self.templates.request(kind, slot, keys)) {
                tally.lost(1, &error.to_string());
                return false;
            }
            self.free.pop();
            let started = due.filter(|due| *due < self.room_since).unwrap_or(now);
            self.slots[slot] = Some(Slot { kind, started, key: keys[0], step: Step::Begin });
            if let (Some(at), Some(gap)) = (due.as_mut(), plan.gap) {
                *at += gap;
            }
        }
        true
    }

    /// Waits for an answer, not beyond `wake`, and takes in all that have come.
    async fn receive(&mut self, plan: &Plan, wake: Instant, tally: &mut Tally) {
        let Some(connection) = &mut self.connection else { return };
        let mut frame = match timeout_at(wake, connection.receive_encoded()).await {
            Err(_) => return,
            Ok(Ok(frame)) => Some(frame),
            Ok(Err(error)) => return self.broken(&error.to_string(), tally),
        };
        let now = Instant::now();
        if self.free.is_empty() {
            self.room_since = now;
        }
        while let Some(bytes) = frame {
            let (slot, result) = match verdict(&bytes) {
                Ok(verdict) => verdict,
                Err(error) => return self.broken(&error.to_string(), tally),
            };
            let Some(asked) = self.slots.get_mut(slot).and_then(Option::take) else {
                return self.broken("an answer to no request", tally);
            };
            let next = match result.is_ok().then(|| asked.next(&bytes)).transpose() {
                Ok(next) => next.flatten(),
                Err(error) => return self.broken(&error.to_string(), tally),
            };
            let Some(connection) = &mut self.connection else { return };
            if let Some(step) = next {
                self.slots[slot] = Some(Slot { step, ..asked });
                if let Err(error) = connection.queue_encoded(self.templates.step(step, slot, asked.key)) {
                    return self.broken(&error.to_string(), tally);
                }
                frame = match connection.buffered() {
                    Ok(frame) => frame,
                    Err(error) => return self.broken(&error.to_string(), tally),
                };
                continue;
            }
            let Slot { kind, started, .. } = asked;
            self.free.push(slot);
            if started >= plan.measured && now <= plan.end {
                match result {
                    Ok(()) => tally.done(kind, now - started),
                    Err(error) => tally.failed(kind, error.code),
                }
            }
            frame = match connection.buffered() {
                Ok(frame) => frame,
                Err(error) => return self.broken(&error.to_string(), tally),
            };
        }
    }

    fn broken(&mut self, reason: &str, tally: &mut Tally) {
        self.connection = None;
        let lost = self.forget();
        tally.lost(lost.max(1), reason);
    }

    /// Frees all slots; answers how many were taken.
    fn forget(&mut self) -> u64 {
        let taken = self.slots.iter_mut().filter_map(Option::take).count();
        self.free = (0..self.slots.len()).collect();
        taken as u64
    }

    async fn reconnect(&mut self, tally: &mut Tally, end: Instant) {
        match open(&self.addr).await {
            Ok(connection) => {
                self.connection = Some(connection);
                self.room_since = Instant::now();
            }
            Err(_) => {
                tally.reconnect_failed();
                tokio::time::sleep_until((Instant::now() + RECONNECT_PAUSE).min(end)).await;
            }
        }
    }
}

async fn open(addr: &str) -> Result<Connection, ConnectionError> {
    Connection::open(&TcpDialer, addr, concat!("trandb-bench/", env!("CARGO_PKG_VERSION")), CONNECT_TIMEOUT)
        .await
}
