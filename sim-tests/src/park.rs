//! Where the nodes of a simulation park the listeners that `ractor_cluster` insists on opening. Nothing connects to them, but
//! their ports are in what nodes tell each other, and so in the trace: they have to be the same in every run, while others run
//! beside it.

use crate::plan::NODES_MAX;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

/// Port of the first node; the others have the next ones. Below those that the system hands out.
const PORT: u16 = 21_000;

/// The last port that is looked at where all processes have to share one address.
const PORT_MAX: u16 = 29_000;

/// Addresses of its own that a process tries.
const TRIES: u32 = 64;

/// An address for the first node, where as many ports in a row are free as a cluster may have nodes. Its address is one of
/// those of the loopback that no other process has; on a system that has but one such address, its port is what differs, and
/// with it the trace. None if nothing is free.
pub fn address() -> Option<SocketAddr> {
    let process = std::process::id();
    let own = (0..TRIES).map(|other| SocketAddr::new(own_address(process.wrapping_add(other)), PORT));
    let places = (PORT_MAX - PORT) / NODES_MAX as u16;
    let shared = (0..places).map(|other| {
        let place = (process as u16).wrapping_add(other) % places;
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT + place * NODES_MAX as u16)
    });
    own.chain(shared).find(|first| (0..NODES_MAX).all(|node| TcpListener::bind(of(*first, node)).is_ok()))
}

/// Where the node in that place parks, if the first one does so at `first`.
pub fn of(first: SocketAddr, node: usize) -> SocketAddr {
    SocketAddr::new(first.ip(), first.port() + node as u16)
}

/// One of the addresses 127.64.0.0 to 127.127.255.255; processes that live at the same time have different ones.
fn own_address(process: u32) -> IpAddr {
    let [_, high, middle, low] = process.to_be_bytes();
    Ipv4Addr::new(127, 64 | high & 63, middle, low).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_taken_is_passed_over() {
        let first = address().expect("some place is free");
        let _taken = TcpListener::bind(of(first, NODES_MAX - 1)).expect("it was free");
        let second = address().expect("another place is free");
        assert_ne!(first, second);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_ports_are_always_the_same() {
        assert_eq!(address().expect("some place is free").port(), PORT);
    }
}
