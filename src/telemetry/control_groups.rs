//! The control groups of this process: where their files are.
//!
//! A container sees its own group as the root, a systemd unit sees its path. So the group of the process and all that contain it are
//! looked at, as far as they are visible.

use std::fs;
use std::path::{Path, PathBuf};

pub(super) struct ControlGroups {
    root: PathBuf,
    /// The groups of the process as `/proc/self/cgroup` has them.
    groups: String,
}

impl ControlGroups {
    pub fn of_this_process() -> Self {
        Self { root: "/sys/fs/cgroup".into(), groups: fs::read_to_string("/proc/self/cgroup").unwrap_or_default() }
    }

    #[cfg(test)]
    pub fn new(root: &Path, groups: &str) -> Self {
        Self { root: root.into(), groups: groups.to_owned() }
    }

    /// The directories of version 2: that of the group of the process, and of those that contain it.
    pub fn version_2(&self) -> impl Iterator<Item = PathBuf> {
        self.directories(self.root.clone(), str::is_empty)
    }

    /// The same of version 1, for a controller.
    pub fn version_1(&self, controller: &'static str) -> impl Iterator<Item = PathBuf> {
        self.directories(self.root.join(controller), move |names| names.split(',').any(|name| name == controller))
    }

    fn directories(&self, root: PathBuf, is_it: impl Fn(&str) -> bool) -> impl Iterator<Item = PathBuf> {
        let path = self.groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            is_it(controllers).then(|| path.trim_start_matches('/'))
        });
        path.into_iter().flat_map(|path| Path::new(path).ancestors()).map(move |group| root.join(group))
    }
}

/// `None` if the file is not there, or has another text such as `max`.
pub(super) fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The number behind a name in a file with a name and a number in each line.
pub(super) fn number_of(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// The most processes and threads that the groups of this process may have; `None` without a limit.
pub fn processes_max() -> Option<u64> {
    lowest_processes_max(&ControlGroups::of_this_process())
}

fn lowest_processes_max(groups: &ControlGroups) -> Option<u64> {
    groups.version_2().chain(groups.version_1("pids")).filter_map(|group| number(&group.join("pids.max"))).min()
}

#[cfg(test)]
pub(super) fn write(root: &Path, files: &[(&str, &str)]) {
    for (path, text) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_of_processes_counts_also_that_of_a_group_further_out() {
        let root = tempfile::tempdir().unwrap();
        let files = [("a/pids.max", "300\n"), ("a/b/pids.max", "max\n"), ("a/c/pids.max", "200\n")];
        write(root.path(), &files);
        let lowest = |groups| lowest_processes_max(&ControlGroups::new(root.path(), groups));
        assert_eq!(lowest("0::/a/b\n"), Some(300));
        assert_eq!(lowest("0::/a/c\n"), Some(200));
        assert_eq!(lowest("0::/\n"), None);
        write(root.path(), &[("pids/docker/pids.max", "50\n")]);
        assert_eq!(lowest("9:cpu:/\n8:pids:/docker/17\n0::/a/b\n"), Some(50), "version 1");
    }
}
