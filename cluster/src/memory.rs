//! Memory as a budget: what a node holds is measured again and again, and near the limit no more is put.
//!
//! Two bounds, since what a program asked for and what the system has given it differ: *allocated* bytes stay below seven
//! eighths of the limit, and *resident* ones, with what the allocator keeps back and everything that it does not know of,
//! below the limit itself; a reserve of 48 MiB ([`RESERVE_BYTES`]) is kept from both. Between two readings values are admitted for a quarter of what is left: each is in the log's
//! buffers, in the state and on its way to the disk at the same time. So what is admitted shrinks as the bound comes near;
//! when next to nothing is left, the node is *full*, until it is well below the bound again.
//!
//! ```text
//!          admitted: a quarter of what is left, per reading            full
//! ├──────────────────────────────────────────────────────┼───────────────┤ bound
//!                                                     95 %  full no more   above 255/256
//! ```

/// What is kept free of values, or a quarter of the limit if that is less: checkpoints and requests under way need it for a
/// moment, whether there is much memory or little.
pub const RESERVE_BYTES: u64 = 48 << 20;

/// What a process uses, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// What was asked of the allocator and not given back; none where it does not count.
    pub allocated: Option<u64>,
    /// What the system has given to the process.
    pub resident: u64,
}

/// What a budget comes to with a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// No value is put any more.
    pub full: bool,
    /// Bytes of values that may be put until the next reading; zero when full.
    pub allowance: u64,
}

/// A pure state machine; the caller brings the readings and counts what it admits.
#[derive(Debug, Clone)]
pub struct Budget {
    limit: u64,
    full: bool,
}

impl Budget {
    /// With so many bytes.
    pub fn new(limit: u64) -> Self {
        Self { limit, full: false }
    }

    /// The bytes that the process may use.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Takes a reading.
    pub fn read(&mut self, usage: Usage) -> Reading {
        let reserve = RESERVE_BYTES.min(self.limit / 4);
        let allocated_max = self.limit - reserve.max(self.limit / 8);
        let bounds = [(usage.allocated.unwrap_or(0), allocated_max), (usage.resident, self.limit - reserve)];
        self.full = bounds.iter().any(|&(used, max)| {
            let stop = max - max / 256;
            let resume = max - max / 20;
            used > if self.full { resume } else { stop }
        });
        let left = bounds.iter().map(|(used, max)| max.saturating_sub(*used)).min().unwrap_or(0);
        Reading { full: self.full, allowance: if self.full { 0 } else { left / 4 } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 1 << 30;

    fn of(allocated: u64, resident: u64) -> Usage {
        Usage { allocated: Some(allocated), resident }
    }

    #[test]
    fn a_quarter_of_what_is_left_of_the_nearer_bound_is_admitted() {
        let mut budget = Budget::new(LIMIT);
        assert_eq!(budget.read(of(0, 0)), Reading { full: false, allowance: LIMIT / 8 * 7 / 4 });
        assert_eq!(budget.read(of(LIMIT / 2, LIMIT / 2)).allowance, LIMIT / 8 * 3 / 4);
        assert_eq!(budget.read(of(LIMIT / 4, LIMIT / 2)).allowance, (LIMIT / 2 - RESERVE_BYTES) / 4);
        let unknown = Usage { allocated: None, resident: LIMIT / 2 };
        assert_eq!(budget.read(unknown).allowance, (LIMIT / 2 - RESERVE_BYTES) / 4);
    }

    #[test]
    fn it_is_full_at_either_bound_and_stays_so_until_well_below() {
        for usage in
            [|part| of(LIMIT / 8 * 7 / 100 * part, 0), |part| of(0, (LIMIT - RESERVE_BYTES) / 100 * part)]
        {
            let mut budget = Budget::new(LIMIT);
            let mut full = |part| budget.read(usage(part)).full;
            let fullness = [99, 100, 97, 96, 94, 99, 100].map(&mut full);
            assert_eq!(fullness, [false, true, true, true, false, false, true]);
        }
    }

    #[test]
    fn what_is_admitted_never_passes_the_bound_and_ends_in_full() {
        let mut budget = Budget::new(LIMIT);
        let mut used = 0;
        let readings = (1..).find(|_| {
            let reading = budget.read(of(used, used));
            // Each byte admitted may cost up to four; here it is three.
            used += 3 * reading.allowance;
            assert!(used <= LIMIT / 8 * 7);
            reading.full
        });
        assert_eq!(readings, Some(6));
        assert_eq!(budget.read(of(2 * LIMIT, 2 * LIMIT)), Reading { full: true, allowance: 0 });
    }
}
