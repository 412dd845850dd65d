//! What the operating system says about this process. The door to `/proc`.

/// Ticks per second in `/proc/self/stat`. Part of Linux's interface to programs on every architecture we run on
/// (`USER_HZ`), whatever the kernel's own clock does.
const TICKS_PER_SECOND: f64 = 100.0;

/// Use of memory, processor and file descriptors.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct ProcessUsage {
    /// Memory that is really there.
    pub resident_bytes: u64,
    /// User and system time of all threads since the start, in seconds.
    pub cpu_seconds: f64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// How many there may be.
    pub max_fds: u64,
    /// Threads.
    pub threads: u64,
}

impl ProcessUsage {
    /// Reads it now. None where there is no `/proc`.
    pub fn read() -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
        let open_fds = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
        Some(Self {
            resident_bytes: number_after(&status, "VmRSS:")? * 1024,
            cpu_seconds: cpu_seconds(&stat)?,
            // The directory that is being listed holds one itself.
            open_fds: open_fds.saturating_sub(1),
            max_fds: number_after(&limits, "Max open files")?,
            threads: number_after(&status, "Threads:")?,
        })
    }
}

/// Memory that is really there, as [`ProcessUsage::resident_bytes`].
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    Some(number_after(&status, "VmRSS:")? * 1024)
}

/// The first number of the line that starts with `name`.
fn number_after(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Fields 14 and 15 of `/proc/self/stat`. The second field is the program's name in brackets and may hold
/// spaces and brackets itself, so counting starts after the last bracket.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some((ticks()? + ticks()?) as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_program_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 900 0 0 0 250 50 0 0 20 0 9 0 1 2 3";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(number_after("VmPeak: 9 kB\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12));
    }

    #[test]
    fn this_process_uses_something() {
        let usage = ProcessUsage::read().expect("tests run on Linux");
        assert!(usage.resident_bytes > 100_000, "{usage:?}");
        assert!(usage.open_fds >= 3 && usage.max_fds >= usage.open_fds && usage.threads >= 1, "{usage:?}");
    }
}
