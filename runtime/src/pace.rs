//! Slows kinds of actors of a node down, or lets its coordinators die at a step, so that the simulation can show what then
//! becomes of those that wait for them.
//!
//! Actors ask for their [`pace`] before each message, coordinators before each step whether one of them [`dies`] there.
//! What is chosen is so for the whole process, by node: a simulation is the only thing in its process. Where the process
//! is one node, all of it can be made to end at a step. A release build has none of it.

use trandb_cluster::NodeId;

/// Actors that can be slow, by the names that they ask with; and, beside a partition's actor, who proposes its batches to Raft and
/// who brings it what is committed.
pub const ACTORS: &[&str] =
    &["partition", "group", "oracle", "router", "coordinators", "proposers", "appliers"];

/// Steps of a commit over several partitions that a coordinator can die at: when one of them has prepared, when all have,
/// when it is decided, and when one of the others knows.
pub const DEATHS: &[&str] = &["preparing", "prepared", "decided", "telling"];

/// Steps that a whole node can end at: as a coordinator, as a partition's leader that takes a step up or
/// has applied it, and as the oracle's leader that is asked for timestamps, has given them out and not answered, and is
/// about to reserve more or has done so. At the last one it has sent a part of a snapshot and is about to send the next.
pub const ENDS: &[&str] = &[
    "one-prepared",
    "prepared",
    "decided",
    "telling",
    "commit-taken",
    "commit-applied",
    "prepare-taken",
    "prepare-applied",
    "decide-taken",
    "decide-applied",
    "resolve-taken",
    "resolve-applied",
    "finish-taken",
    "finish-applied",
    "grant",
    "granted",
    "reserving",
    "reserved",
    "snapshot-going",
];

/// The place in [`ENDS`], from one on, of the step that this process ends at.
#[cfg(debug_assertions)]
static END_AT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// The same of the step that it stands still at, once, and for how many milliseconds.
#[cfg(debug_assertions)]
static HOLD_AT: std::sync::Mutex<Option<(usize, u64)>> = std::sync::Mutex::new(None);

#[cfg(debug_assertions)]
fn place(step: &str) -> Option<usize> {
    ENDS.iter().position(|known| *known == step)
}

/// Makes the process end when it comes to that step, without a farewell; false if there is no such step.
#[cfg(debug_assertions)]
pub fn end_at(step: &str) -> bool {
    let place = place(step);
    if let Some(place) = place {
        END_AT.store(place + 1, std::sync::atomic::Ordering::Relaxed);
    }
    place.is_some()
}

/// Makes whoever comes to that step next stand still for a while, so that others can end meanwhile; false if there is no
/// such step. None at any step from now on, should it be of no time.
#[cfg(debug_assertions)]
pub fn hold_at(step: &str, for_ms: u64) -> bool {
    let place = place(step);
    let hold = place.filter(|_| for_ms > 0).map(|place| (place, for_ms));
    *HOLD_AT.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = hold;
    place.is_some()
}

/// Comes to a step, and no further if the process is to end there.
#[cfg(debug_assertions)]
pub fn reach(step: &str) {
    let end = END_AT.load(std::sync::atomic::Ordering::Relaxed);
    if end.checked_sub(1).is_some_and(|place| ENDS[place] == step) {
        std::process::abort();
    }
    hold(step);
}

#[cfg(debug_assertions)]
#[allow(clippy::disallowed_methods, reason = "not in a simulation: only a process that is one node is held")]
fn hold(step: &str) {
    let held = {
        let mut hold = HOLD_AT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        hold.take_if(|(place, _)| ENDS[*place] == step)
    };
    if let Some((_, for_ms)) = held {
        // The thread's other tasks go on elsewhere: the node is well otherwise.
        tokio::task::block_in_place(|| std::thread::sleep(std::time::Duration::from_millis(for_ms)));
    }
}

/// No process of a release build ends so.
#[cfg(not(debug_assertions))]
pub const fn reach(_: &str) {}

#[cfg(debug_assertions)]
mod slow {
    use std::sync::{Mutex, PoisonError};
    use std::time::Duration;
    use trandb_cluster::NodeId;

    /// Which actors of which nodes take how much longer, and at which steps coordinators die.
    static SLOW: Mutex<Vec<(NodeId, &'static str, Duration)>> = Mutex::new(Vec::new());

    /// Says of a message whether it waits, and for how long.
    pub(super) type Stumbles = Box<dyn Fn() -> Option<Duration> + Send>;

    /// Asked before each message of the actors of all nodes.
    static STUMBLES: Mutex<Option<Stumbles>> = Mutex::new(None);

    pub(super) fn let_stumble(asked: Option<Stumbles>) {
        *STUMBLES.lock().unwrap_or_else(PoisonError::into_inner) = asked;
    }

    pub(super) fn stumble() -> Option<Duration> {
        STUMBLES.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?()
    }

    /// Nodes of which some partition's actor panics at its next message.
    static PANICS: Mutex<Vec<NodeId>> = Mutex::new(Vec::new());

    pub(super) fn let_panic(node: NodeId) {
        PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(node);
    }

    pub(super) fn panics(node: NodeId, actor: &str) -> bool {
        let mut panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
        let place = panics.iter().position(|&chosen| chosen == node).filter(|_| actor == "partition");
        place.map(|place| panics.swap_remove(place)).is_some()
    }

    pub(super) fn set(node: NodeId, actor: &'static str, by: Option<Duration>) {
        let mut slow = SLOW.lock().unwrap_or_else(PoisonError::into_inner);
        slow.retain(|&(slowed, kind, _)| (slowed, kind) != (node, actor));
        slow.extend(by.map(|by| (node, actor, by)));
    }

    pub(super) fn get(node: NodeId, actor: &str) -> Option<Duration> {
        let slow = SLOW.lock().unwrap_or_else(PoisonError::into_inner);
        slow.iter().find(|&&(slowed, kind, _)| slowed == node && kind == actor).map(|&(_, _, by)| by)
    }
}

/// Makes these actors of this node take that much longer for every message, or not any more.
#[cfg(debug_assertions)]
pub fn slow_down(node: NodeId, actor: &'static str, by: Option<std::time::Duration>) {
    slow::set(node, actor, by);
}

/// Nothing is slow in a release build.
#[cfg(not(debug_assertions))]
pub fn slow_down(_: NodeId, _: &'static str, _: Option<std::time::Duration>) {}

/// Asks this before each message of each actor, of all nodes, how long it waits, if at all; or nobody any more.
#[cfg(debug_assertions)]
pub fn let_stumble(asked: Option<Box<dyn Fn() -> Option<std::time::Duration> + Send>>) {
    slow::let_stumble(asked);
}

/// Nobody stumbles in a release build.
#[cfg(not(debug_assertions))]
pub fn let_stumble(_: Option<Box<dyn Fn() -> Option<std::time::Duration> + Send>>) {}

/// Makes one of the node's actors of partitions, whichever has the next message, panic on it.
#[cfg(debug_assertions)]
pub fn let_panic(node: NodeId) {
    slow::let_panic(node);
}

/// Nobody panics in a release build.
#[cfg(not(debug_assertions))]
pub fn let_panic(_: NodeId) {}

/// What those say that panic because it was asked for.
pub const ASKED_TO: &str = "asked to, by the simulation";

/// Waits for as long as this actor is slow, or stumbles over this message.
///
/// # Panics
/// If that was asked for.
#[cfg(debug_assertions)]
pub async fn pace(node: NodeId, actor: &str) {
    assert!(!slow::panics(node, actor), "{ASKED_TO}");
    if let Some(by) = slow::get(node, actor).or_else(slow::stumble) {
        tokio::time::sleep(by).await;
    }
}

/// Nothing is slow in a release build.
#[cfg(not(debug_assertions))]
#[allow(clippy::unused_async, reason = "it waits in the other builds")]
pub async fn pace(_: NodeId, _: &str) {}

/// Lets the coordinators of this node die at this step, or not any more.
#[cfg(debug_assertions)]
pub fn let_die(node: NodeId, step: &'static str, die: bool) {
    slow::set(node, step, die.then_some(std::time::Duration::ZERO));
}

/// Nobody dies in a release build.
#[cfg(not(debug_assertions))]
pub fn let_die(_: NodeId, _: &'static str, _: bool) {}

/// Whether a coordinator of this node dies at this step.
#[cfg(debug_assertions)]
pub fn dies(node: NodeId, step: &str) -> bool {
    reach(step);
    slow::get(node, step).is_some()
}

/// Nobody dies in a release build.
#[cfg(not(debug_assertions))]
pub const fn dies(_: NodeId, _: &str) -> bool {
    false
}
