//! A run's memory stays within a bound, whatever piles up in which mailbox: those of all nodes, and all of its evidence.

use super::Evidence;

/// Memory that the whole process may have had at once. Seven nodes with large values take about a third of it.
const RESIDENT_BYTES_MAX: u64 = 1 << 30;

pub(super) fn violations(_: &Evidence<'_>) -> Vec<String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    check(highest_bytes(&status))
}

/// What the system says it was at the most; nothing where it says nothing.
fn highest_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
}

fn check(highest: Option<u64>) -> Vec<String> {
    match highest {
        Some(bytes) if bytes > RESIDENT_BYTES_MAX => {
            vec![format!("the run took {bytes} bytes of memory, the limit is {RESIDENT_BYTES_MAX}")]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_found() {
        assert_eq!(highest_bytes("VmPeak:  9 kB\nVmHWM:\t    2048 kB\n"), Some(2 << 20));
        assert!(check(highest_bytes("VmHWM: 2048 kB")).is_empty());
        assert_eq!(check(highest_bytes("VmHWM: 1048577 kB")).len(), 1);
    }
}
