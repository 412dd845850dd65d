//! Memory: how much this machine lets the process have, and how much it takes. A door to `/proc` and `/sys`.
//!
//! A container's memory is its control group's, not the machine's, and a group has no more than those around it. So the
//! least counts of the machine's memory and the limits of all groups that the process is in, in either version of the
//! kernel's interface.

use std::path::Path;
use trandb_cluster::memory::Usage;

/// Says what the process uses.
pub trait Meter: Send + Sync + 'static {
    /// As of now; none where that is not known, and then nothing is limited.
    fn usage(&self) -> Option<Usage>;
}

/// Knows nothing: for the simulation, in whose process several nodes live, and for tests.
#[derive(Debug, Default, Clone, Copy)]
pub struct NoMeter;

impl Meter for NoMeter {
    fn usage(&self) -> Option<Usage> {
        None
    }
}

/// What the system says of this process, for programs whose allocator keeps no count.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemMeter;

impl Meter for SystemMeter {
    fn usage(&self) -> Option<Usage> {
        Some(Usage { allocated: None, resident: crate::telemetry::resident_bytes()? })
    }
}

/// Bytes of memory that this process may have by its machine and its control groups; none where neither says.
pub fn available() -> Option<u64> {
    available_by(|path| std::fs::read_to_string(path).ok())
}

/// The same, from files that `read` has.
fn available_by(read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let machine = read(Path::new("/proc/meminfo")).and_then(|text| total_of(&text));
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let group = groups.lines().filter_map(Group::of).filter_map(|group| group.limit(&read)).min();
    machine.into_iter().chain(group).min()
}

/// `MemTotal` of `/proc/meminfo`, which counts in KiB.
fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// A control group that limits memory.
#[derive(Debug, PartialEq, Eq)]
struct Group<'a> {
    /// Where groups of that version are shown.
    root: &'static str,
    /// The file with the limit.
    file: &'static str,
    /// The group's path below the root. Within a container it may be one that is not shown there: then the root is what
    /// counts, which is the container's own group.
    path: &'a str,
}

impl<'a> Group<'a> {
    /// Of a line of `/proc/self/cgroup`: `0::/path` in version 2, `7:cpu,memory:/path` in version 1.
    fn of(line: &'a str) -> Option<Self> {
        let mut fields = line.splitn(3, ':');
        let (hierarchy, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        if hierarchy == "0" && controllers.is_empty() {
            return Some(Self { root: "/sys/fs/cgroup", file: "memory.max", path });
        }
        let memory = controllers.split(',').any(|controller| controller == "memory");
        memory.then_some(Self { root: "/sys/fs/cgroup/memory", file: "memory.limit_in_bytes", path })
    }

    /// The least limit of the group and those around it. `max`, and what version 1 says instead, limit nothing: as
    /// much as that no machine has.
    fn limit(&self, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
        let within = Path::new(self.path.trim_start_matches('/'));
        let limits = within.ancestors().filter_map(|at| read(&Path::new(self.root).join(at).join(self.file)));
        limits.filter_map(|text| text.trim().parse().ok()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn available(files: &[(&str, &str)]) -> Option<u64> {
        available_by(|path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path)?;
            Some(found.1.to_owned())
        })
    }

    const MACHINE: (&str, &str) =
        ("/proc/meminfo", "MemTotal:        8388608 kB\nMemFree:          100 kB\n");

    #[test]
    fn the_machine_counts_where_no_group_says_less() {
        assert_eq!(available(&[]), None);
        assert_eq!(available(&[MACHINE]), Some(8 * GIB));
        assert_eq!(available(&[("/proc/meminfo", "MemTotal: some\n")]), None);
        let group = ("/proc/self/cgroup", "0::/a/b\n");
        assert_eq!(available(&[MACHINE, group, ("/sys/fs/cgroup/a/b/memory.max", "max\n")]), Some(8 * GIB));
        let more = ("/sys/fs/cgroup/a/b/memory.max", "17179869184\n");
        assert_eq!(available(&[MACHINE, group, more]), Some(8 * GIB));
    }

    #[test]
    fn the_least_of_a_group_and_those_around_it_counts() {
        let group = ("/proc/self/cgroup", "0::/a/b\n");
        let (own, around) = ("/sys/fs/cgroup/a/b/memory.max", "/sys/fs/cgroup/a/memory.max");
        assert_eq!(available(&[MACHINE, group, (own, "1073741824\n")]), Some(GIB));
        assert_eq!(available(&[MACHINE, group, (own, "max\n"), (around, "2147483648\n")]), Some(2 * GIB));
        // A container that sees its own group as the root, whatever it is called outside.
        assert_eq!(available(&[MACHINE, group, ("/sys/fs/cgroup/memory.max", "1073741824\n")]), Some(GIB));
        assert_eq!(available(&[group, (own, "1073741824\n")]), Some(GIB), "the machine says nothing");
    }

    #[test]
    fn version_one_has_a_hierarchy_for_memory() {
        let groups = ("/proc/self/cgroup", "9:cpu,cpuacct:/c\n4:memory:/docker/x:y\n0::/\n");
        let own = "/sys/fs/cgroup/memory/docker/x:y/memory.limit_in_bytes";
        assert_eq!(available(&[MACHINE, groups, (own, "536870912\n")]), Some(GIB / 2));
        assert_eq!(available(&[MACHINE, groups, (own, "9223372036854771712\n")]), Some(8 * GIB), "no limit");
        let cpu = "/sys/fs/cgroup/memory/c/memory.limit_in_bytes";
        assert_eq!(available(&[MACHINE, groups, (cpu, "1\n")]), Some(8 * GIB), "not a group of this process");
    }

    #[test]
    fn this_machine_has_some_and_this_process_uses_some_of_it() {
        let available = super::available().expect("tests run on Linux");
        let resident = SystemMeter.usage().expect("tests run on Linux").resident;
        assert!(
            available > 64 << 20 && resident > 100_000 && resident < available,
            "{resident} of {available}"
        );
    }
}
