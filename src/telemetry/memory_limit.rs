//! The memory that this process may use, as its control groups limit it.
//!
//! A container sees its own group as the root, a systemd unit sees its path. So the group of the process and all that
//! contain it are read, as far as they are visible.

use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

/// A control group with a limit of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupMemory {
    pub limit: u64,
    /// Without caches that can be dropped.
    pub used: u64,
}

/// The memory of the group with the lowest limit; `None` without a limit.
pub fn group_memory() -> Option<GroupMemory> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    read(Path::new(ROOT), &groups)
}

/// Bytes of memory that the process may use: the limit of its control groups, or the machine's memory if that is less.
/// `None` on a platform where neither is known.
pub fn available_memory() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| machine_memory(&text));
    group_memory().map(|group| group.limit).into_iter().chain(machine).min()
}

fn machine_memory(meminfo: &str) -> Option<u64> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(total.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
}

/// The files of one version of control groups.
struct Version {
    directory: PathBuf,
    limit: &'static str,
    used: &'static str,
    /// Line of `memory.stat` with the bytes that can be dropped.
    inactive: &'static str,
}

fn read(root: &Path, groups: &str) -> Option<GroupMemory> {
    let lowest = groups.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let version = match controllers {
            "" => Version {
                directory: root.into(),
                limit: "memory.max",
                used: "memory.current",
                inactive: "inactive_file ",
            },
            _ if controllers.split(',').any(|name| name == "memory") => Version {
                directory: root.join("memory"),
                limit: "memory.limit_in_bytes",
                used: "memory.usage_in_bytes",
                inactive: "total_inactive_file ",
            },
            _ => return None,
        };
        let ancestors = Path::new(path.trim_start_matches('/')).ancestors();
        ancestors.filter_map(|group| version.read(&version.directory.join(group))).min_by_key(|group| group.limit)
    });
    lowest.min_by_key(|group| group.limit)
}

impl Version {
    /// `None` if the group is not visible or has no limit: `max` in version 2, about 2^63 in version 1.
    fn read(&self, group: &Path) -> Option<GroupMemory> {
        let number = |file| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
        let limit = number(self.limit).filter(|limit| *limit < 1 << 60)?;
        let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let inactive = stat.lines().find_map(|line| line.strip_prefix(self.inactive)?.parse().ok()).unwrap_or(0);
        Some(GroupMemory { limit, used: number(self.used).unwrap_or(0).saturating_sub(inactive) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn the_lowest_limit_of_the_group_and_those_around_it_applies() {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            &[
                ("a.slice/memory.max", "1000\n"),
                ("a.slice/memory.current", "700\n"),
                ("a.slice/memory.stat", "anon 1\ninactive_file 200\n"),
                ("a.slice/b.service/memory.max", "max\n"),
            ],
        );
        let expected = Some(GroupMemory { limit: 1_000, used: 500 });
        assert_eq!(read(root.path(), "0::/a.slice/b.service\n"), expected);
        assert_eq!(read(root.path(), "0::/\n"), None);
    }

    #[test]
    fn version_1_is_read_also_where_a_container_sees_only_its_own_group() {
        let root = tempfile::tempdir().unwrap();
        let files = [("memory/memory.limit_in_bytes", "2000\n"), ("memory/memory.usage_in_bytes", "50\n")];
        write(root.path(), &files);
        let groups = "5:devices:/\n4:cpu,memory:/docker/1234\n0::/\n";
        assert_eq!(read(root.path(), groups), Some(GroupMemory { limit: 2_000, used: 50 }));
        write(root.path(), &[("memory/memory.limit_in_bytes", "9223372036854771712\n")]);
        assert_eq!(read(root.path(), groups), None);
    }

    #[test]
    fn the_memory_of_the_machine_is_read() {
        assert_eq!(machine_memory("MemTotal:       24684420 kB\nMemFree: 1 kB\n"), Some(24_684_420 << 10));
        assert!(available_memory().is_some_and(|bytes| bytes > 1 << 20));
    }
}
