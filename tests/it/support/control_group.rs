//! A control group with a memory limit, for a server under test.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A control group with a memory limit; removed when dropped.
pub struct ControlGroup {
    path: PathBuf,
    /// The file that counts processes killed for memory, and the word before the count.
    kills: (&'static str, &'static str),
}

impl ControlGroup {
    /// `None` where this process may not create one; then only the measured memory is compared with the limit.
    pub fn create(limit: u64) -> Option<Self> {
        let kinds = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", ("memory.oom_control", "oom_kill ")),
            ("/sys/fs/cgroup", "memory.max", ("memory.events", "oom_kill ")),
        ];
        kinds.into_iter().find_map(|(root, file, kills)| {
            static CREATED: AtomicUsize = AtomicUsize::new(0);
            let number = CREATED.fetch_add(1, Ordering::Relaxed);
            let path = Path::new(root).join(format!("lineshaft-test-{}-{number}", std::process::id()));
            std::fs::create_dir(&path).ok()?;
            let group = Self { path, kills };
            // Without the memory controller the file is missing and cannot be created.
            std::fs::write(group.path.join(file), limit.to_string()).ok()?;
            Some(group)
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Processes in it that were killed for memory.
    pub fn killed(&self) -> u64 {
        let text = std::fs::read_to_string(self.path.join(self.kills.0)).unwrap();
        let count = text.lines().find_map(|line| line.strip_prefix(self.kills.1)).unwrap();
        count.parse().unwrap()
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // Fails while a process is still in it; then the directory stays, and nothing else.
        let _ = std::fs::remove_dir(&self.path);
    }
}
