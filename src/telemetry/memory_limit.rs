//! The memory that this process may use, as its control groups limit it, and what is left of it.

use std::fs;
use std::path::Path;

use super::control_groups::{ControlGroups, number, number_of};

/// A control group with a limit of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupMemory {
    pub limit: u64,
    /// Without caches that can be dropped at once.
    pub used: u64,
    /// What its processes can still take, without those caches that the kernel drops first.
    pub unused: u64,
}

/// The memory of the group with the lowest limit; `None` without a limit.
pub fn group_memory() -> Option<GroupMemory> {
    own_groups().into_iter().min_by_key(|group| group.limit)
}

fn own_groups() -> Vec<GroupMemory> {
    read(&ControlGroups::of_this_process())
}

/// Bytes of memory that the process may use: the limit of its control groups, or the machine's memory if that is less.
/// `None` on a platform where neither is known.
pub fn available_memory() -> Option<u64> {
    let machine = meminfo_value("MemTotal:");
    group_memory().map(|group| group.limit).into_iter().chain(machine).min()
}

/// Bytes of memory that this process and those that it starts can take before the machine swaps or a control group is at its limit.
/// `None` on a platform where that is not known.
pub fn unused_memory() -> Option<u64> {
    own_groups().into_iter().map(|group| group.unused).chain(meminfo_value("MemAvailable:")).min()
}

fn meminfo_value(name: &str) -> Option<u64> {
    meminfo(&fs::read_to_string("/proc/meminfo").ok()?, name)
}

fn meminfo(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
}

/// The files of one version of control groups.
struct Version {
    limit: &'static str,
    used: &'static str,
    /// In `memory.stat`, the bytes that can be dropped, those of files that were not used lately first.
    caches: &'static [&'static str],
}

const VERSION_1: Version = Version {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    caches: &["total_inactive_file", "total_active_file"],
};
const VERSION_2: Version = Version {
    limit: "memory.max",
    used: "memory.current",
    caches: &["inactive_file", "active_file", "slab_reclaimable"],
};

fn read(groups: &ControlGroups) -> Vec<GroupMemory> {
    let older = groups.version_1("memory").filter_map(|group| VERSION_1.read(&group));
    groups.version_2().filter_map(|group| VERSION_2.read(&group)).chain(older).collect()
}

impl Version {
    /// `None` if the group is not visible or has no limit: `max` in version 2, about 2^63 in version 1.
    fn read(&self, group: &Path) -> Option<GroupMemory> {
        let limit = number(&group.join(self.limit)).filter(|limit| *limit < 1 << 60)?;
        let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let cache = |name: &&str| number_of(&stat, name).unwrap_or(0);
        let used = number(&group.join(self.used)).unwrap_or(0);
        let kept = used.saturating_sub(self.caches.iter().map(cache).sum());
        let used = used.saturating_sub(self.caches.first().map_or(0, cache));
        Some(GroupMemory { limit, used, unused: limit.saturating_sub(kept) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::control_groups::write;
    use super::*;

    fn of(root: &Path, groups: &str) -> Vec<GroupMemory> {
        read(&ControlGroups::new(root, groups))
    }

    #[test]
    fn the_limits_of_the_group_and_of_those_around_it_are_read() {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            &[
                ("a.slice/memory.max", "1000\n"),
                ("a.slice/memory.current", "700\n"),
                ("a.slice/memory.stat", "anon 1\ninactive_file 200\nactive_file 90\nslab_reclaimable 10\n"),
                ("a.slice/b.service/memory.max", "max\n"),
                ("a.slice/c.service/memory.max", "900\n"),
                ("a.slice/c.service/memory.current", "100\n"),
            ],
        );
        let outer = GroupMemory { limit: 1_000, used: 500, unused: 600 };
        assert_eq!(of(root.path(), "0::/a.slice/b.service\n"), [outer]);
        let inner = GroupMemory { limit: 900, used: 100, unused: 800 };
        assert_eq!(of(root.path(), "0::/a.slice/c.service\n"), [inner, outer]);
        assert_eq!(of(root.path(), "0::/\n"), []);
    }

    #[test]
    fn version_1_is_read_also_where_a_container_sees_only_its_own_group() {
        let root = tempfile::tempdir().unwrap();
        let files = [("memory/memory.limit_in_bytes", "2000\n"), ("memory/memory.usage_in_bytes", "50\n")];
        write(root.path(), &files);
        let groups = "5:devices:/\n4:cpu,memory:/docker/1234\n0::/\n";
        assert_eq!(of(root.path(), groups), [GroupMemory { limit: 2_000, used: 50, unused: 1_950 }]);
        write(root.path(), &[("memory/memory.limit_in_bytes", "9223372036854771712\n")]);
        assert_eq!(of(root.path(), groups), []);
    }

    #[test]
    fn the_memory_of_the_machine_is_read() {
        let text = "MemTotal:       24684420 kB\nMemFree: 1 kB\nMemAvailable: 7 kB\n";
        assert_eq!(
            (meminfo(text, "MemTotal:"), meminfo(text, "MemAvailable:")),
            (Some(24_684_420 << 10), Some(7 << 10))
        );
        assert!(available_memory().is_some_and(|bytes| bytes > 1 << 20));
        assert!(unused_memory().is_some_and(|bytes| bytes < available_memory().unwrap()));
    }
}
