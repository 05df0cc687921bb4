//! Kills and reaps all descendants of a subreaper.
//!
//! Only children are killed, by their process id: it cannot be reused before the parent has reaped it. The
//! children of a killed process become children of the subreaper, so they are killed in the next pass.

use std::fs;
use std::process::ExitStatus;
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, getpid, kill_process};

use super::sys::{self, Exit};

/// Pause before `/proc` is read again if it shows none of the children that exist.
const UNSEEN_PAUSE: Duration = Duration::from_millis(1);

/// What the reaped processes of an attempt have used.
#[derive(Debug)]
pub(super) struct Reaped {
    program: Pid,
    status: Option<ExitStatus>,
    cpu_time: Duration,
    peak_memory_bytes: Option<u64>,
}

impl Reaped {
    pub(super) fn new(program: Pid) -> Self {
        Self { program, status: None, cpu_time: Duration::ZERO, peak_memory_bytes: None }
    }

    /// Reaps the children that have exited. Returns whether none is left.
    pub(super) fn reap_exited(&mut self) -> bool {
        loop {
            match sys::reap(None, false) {
                Ok(Some((pid, exit))) => self.add(pid, exit),
                Ok(None) => return false,
                // There is no child.
                Err(_) => return true,
            }
        }
    }

    /// Returns when no descendant is left. A process that is blocked in the kernel delays that.
    pub(super) fn kill_all(&mut self) {
        while !self.reap_exited() {
            let children = children();
            for child in &children {
                let _ = kill_process(*child, Signal::KILL);
            }
            for child in &children {
                if let Ok(Some((pid, exit))) = sys::reap(Some(*child), true) {
                    self.add(pid, exit);
                }
            }
            if children.is_empty() {
                sleep(UNSEEN_PAUSE);
            }
        }
    }

    /// The exit of the program, with the usage of all its descendants; `None` before it was reaped.
    pub(super) fn exit(&self) -> Option<Exit> {
        let Self { status, cpu_time, peak_memory_bytes, .. } = *self;
        Some(Exit { status: status?, cpu_time, peak_memory_bytes })
    }

    fn add(&mut self, pid: Pid, exit: Exit) {
        if pid == self.program {
            self.status = Some(exit.status);
        }
        self.cpu_time += exit.cpu_time;
        self.peak_memory_bytes = self.peak_memory_bytes.max(exit.peak_memory_bytes);
    }
}

/// Kills and reaps the children for which `is_orphan` is true, without waiting. Returns whether there was one.
pub(super) fn kill_orphans(is_orphan: impl Fn(Pid) -> bool) -> bool {
    let mut found = false;
    for child in children().into_iter().filter(|child| is_orphan(*child)) {
        found = true;
        let _ = kill_process(child, Signal::KILL);
        let _ = sys::reap(Some(child), false);
    }
    found
}

/// The children of this process, also those that have exited. The kernel's own list (`/proc/PID/task/TID/children`)
/// is an option that not all kernels are built with.
fn children() -> Vec<Pid> {
    let parent = getpid().as_raw_nonzero().get();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).filter_map(Pid::from_raw).collect()
}

fn parent_of(pid: i32) -> Option<i32> {
    // `pid (name) state parent …`, where the name can contain anything.
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let fields = std::str::from_utf8(&stat[after_name..]).ok()?;
    fields.split_ascii_whitespace().nth(1)?.parse().ok()
}
