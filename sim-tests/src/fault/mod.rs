//! What goes wrong, one file each. A fault undoes itself before it ends, but for a node that moves. Those of one lane come one after the
//! other; the two lanes run beside each other, so that a node loses its power while another is cut off.

mod actor_panic;
mod amnesia;
mod behead;
mod blackout;
mod clock_drift;
mod clock_jump;
mod coordinator;
mod crash;
mod crash_some;
mod flap;
mod full_disk;
mod full_memory;
mod hold;
mod io_error;
mod isolate;
mod mute;
mod one_way;
mod pause;
mod power_off;
mod relocate;
mod slow;
mod slow_actor;
mod split;
mod sync_error;

use crate::cluster::Cluster;
use std::pin::Pin;
use std::time::Duration;

/// A fault at work.
pub type Work = Pin<Box<dyn Future<Output = ()>>>;

/// What a fault is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Messages between hosts.
    Network,
    /// A machine, its disk or its clock.
    Machine,
}

/// Whom a fault strikes, and how long.
#[derive(Debug, Clone, Copy)]
pub struct Strike {
    /// The node, by index.
    pub node: usize,
    /// From its beginning to its end.
    pub lasts: Duration,
    /// Whatever else there is to choose.
    pub random: u64,
}

/// A fault.
#[derive(Clone, Copy)]
pub struct Fault {
    /// Its name in plans.
    pub name: &'static str,
    /// What it does, for people.
    pub about: &'static str,
    /// What it is done to.
    pub lane: Lane,
    /// The smallest cluster in which it means something.
    pub nodes_min: usize,
    /// Does it and undoes it.
    pub inflict: fn(Cluster, Strike) -> Work,
}

/// All faults.
pub const FAULTS: &[Fault] = &[
    isolate::FAULT,
    split::FAULT,
    one_way::FAULT,
    flap::FAULT,
    behead::FAULT,
    amnesia::FAULT,
    slow::FAULT,
    hold::FAULT,
    mute::FAULT,
    pause::FAULT,
    crash::FAULT,
    crash_some::FAULT,
    blackout::FAULT,
    power_off::FAULT,
    sync_error::FAULT,
    full_disk::FAULT,
    io_error::FAULT,
    clock_jump::FAULT,
    clock_drift::FAULT,
    slow_actor::FAULT,
    actor_panic::FAULT,
    coordinator::FAULT,
    full_memory::FAULT,
    relocate::FAULT,
];
