//! What one process may use, enforced by the kernel (`setrlimit`), not by watching.

use std::io;
use std::process::Command;

use rustix::process::{Resource, Rlimit, setrlimit};

use super::sys;

/// Limits of every process of an attempt; `None` leaves the server's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Address space in bytes.
    pub memory_bytes: Option<u64>,
    /// Processor time in seconds.
    pub cpu_seconds: Option<u64>,
    /// Open files.
    pub open_files: Option<u64>,
    /// Size of each file that it writes, in bytes.
    pub file_bytes: Option<u64>,
}

impl Limits {
    /// Whether anything is limited. Without limits a process starts on a faster path.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }

    /// Makes the process begin with these limits.
    pub(super) fn apply_to(self, command: &mut Command) {
        if self.any() {
            sys::before_exec(command, move || self.set());
        }
    }

    /// Runs between fork and exec: system calls only.
    fn set(self) -> io::Result<()> {
        if let Some(bytes) = self.memory_bytes {
            set(Resource::As, bytes, 0)?;
        }
        if let Some(seconds) = self.cpu_seconds {
            // At the hard limit the kernel kills without saying why; a second earlier it sends SIGXCPU.
            set(Resource::Cpu, seconds, 1)?;
        }
        if let Some(files) = self.open_files {
            set(Resource::Nofile, files, 0)?;
        }
        if let Some(bytes) = self.file_bytes {
            set(Resource::Fsize, bytes, 0)?;
        }
        Ok(())
    }
}

fn set(resource: Resource, soft: u64, margin: u64) -> io::Result<()> {
    let hard = Some(soft.saturating_add(margin));
    Ok(setrlimit(resource, Rlimit { current: Some(soft), maximum: hard })?)
}
