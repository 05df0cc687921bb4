//! Resource limits of a process, enforced by the kernel (`setrlimit`).

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Limits of each process of an attempt; `None` keeps the server's limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Address space.
    pub memory_bytes: Option<u64>,
    /// CPU time.
    pub cpu_seconds: Option<u64>,
    pub open_files: Option<u64>,
    /// Size of each written file.
    pub file_bytes: Option<u64>,
    /// Processes and threads of the user, in all its attempts. The kernel does not count those of root.
    pub processes: Option<u64>,
}

impl Limits {
    /// Sets the limits of this process. Makes system calls only, so that it can run before exec.
    pub(super) fn set(self) -> io::Result<()> {
        if let Some(bytes) = self.memory_bytes {
            set(Resource::As, bytes, 0)?;
        }
        if let Some(seconds) = self.cpu_seconds {
            // The kernel sends SIGXCPU at the soft limit and SIGKILL at the hard limit, one second later. Only
            // the first signal names the reason.
            set(Resource::Cpu, seconds, 1)?;
        }
        if let Some(files) = self.open_files {
            set(Resource::Nofile, files, 0)?;
        }
        if let Some(bytes) = self.file_bytes {
            set(Resource::Fsize, bytes, 0)?;
        }
        if let Some(processes) = self.processes {
            let allowed = getrlimit(Resource::Nproc).maximum;
            set(Resource::Nproc, allowed.map_or(processes, |allowed| processes.min(allowed)), 0)?;
        }
        Ok(())
    }
}

fn set(resource: Resource, soft: u64, margin: u64) -> io::Result<()> {
    let hard = Some(soft.saturating_add(margin));
    Ok(setrlimit(resource, Rlimit { current: Some(soft), maximum: hard })?)
}
