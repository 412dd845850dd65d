//! Proposals in flight, told apart by the actor that made them: they outlive it.

use std::sync::{Arc, Mutex, Weak};

/// What the proposals of each actor of a replica hold, of all that still have some.
#[derive(Default)]
pub(super) struct Flights(Mutex<Vec<Weak<()>>>);

/// The proposals of the actors before one.
pub(super) struct Orphans(Vec<Weak<()>>);

impl Flights {
    /// A new actor begins: what each of its proposals is to hold while it is in flight, and those of the actors before.
    pub(super) fn begin(&self) -> (Arc<()>, Orphans) {
        let mut flights = self.0.lock().expect("no holder of the lock panics");
        flights.retain(|flight| flight.strong_count() > 0);
        let (flight, orphans) = (Arc::new(()), Orphans(flights.clone()));
        flights.push(Arc::downgrade(&flight));
        (flight, orphans)
    }
}

impl Orphans {
    /// Whether any is still in flight.
    pub(super) fn any(&self) -> bool {
        self.0.iter().any(|flight| flight.strong_count() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orphans_are_those_of_all_actors_before_until_the_last_has_ended() {
        let flights = Flights::default();
        let (first, none) = flights.begin();
        let proposal = first.clone();
        assert!(!none.any(), "its own are none");
        drop(first);
        let (second, orphans) = flights.begin();
        let another = second.clone();
        drop(second);
        let (_third, more) = flights.begin();
        assert!(orphans.any() && more.any());
        drop(proposal);
        assert!(!orphans.any());
        assert!(more.any(), "the second one's is still in flight");
        drop(another);
        assert!(!more.any());
    }
}
