//! Stops, kills and reaps the descendants of a subreaper.
//!
//! Only children are killed, by their process id: it cannot be reused before the parent has reaped it. The
//! children of a killed process become children of the subreaper, so they are killed in the next pass.

use std::fs;
use std::process::ExitStatus;
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, kill_process, kill_process_group, pidfd_open, pidfd_send_signal,
};

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

/// Sends SIGTERM to all descendants. `program` is a child that was not reaped and leads a process group, which gets the
/// signal at once, so that none of its processes can escape by forking.
pub(super) fn terminate(program: Option<Pid>) {
    if let Some(program) = program {
        let _ = kill_process_group(program, Signal::TERM);
    }
    let own = getpid();
    let others: Vec<_> = descendants(own).into_iter().filter(|process| Some(process.group) != program).collect();
    for Process { pid, .. } in others {
        // The descriptor names one process, even if the id has been reused since; whether that is a descendant is
        // looked up again.
        if let Ok(process) = pidfd_open(pid, PidfdFlags::empty())
            && descends_from(pid, own)
        {
            let _ = pidfd_send_signal(process, Signal::TERM);
        }
    }
}

/// A process as `/proc` shows it.
#[derive(Clone, Copy)]
struct Process {
    pid: Pid,
    parent: Option<Pid>,
    group: Pid,
}

/// The children of this process, also those that have exited. The kernel's own list (`/proc/PID/task/TID/children`)
/// is an option that not all kernels are built with.
fn children() -> Vec<Pid> {
    let own = Some(getpid());
    processes().filter(|process| process.parent == own).map(|process| process.pid).collect()
}

fn descendants(ancestor: Pid) -> Vec<Process> {
    let (mut found, mut others) = (vec![], processes().collect::<Vec<_>>());
    let mut parents = vec![ancestor];
    while let Some(parent) = parents.pop() {
        let children = others.extract_if(.., |process| process.parent == Some(parent)).collect::<Vec<_>>();
        parents.extend(children.iter().map(|child| child.pid));
        found.extend(children);
    }
    found
}

fn descends_from(pid: Pid, ancestor: Pid) -> bool {
    let mut found = process(pid);
    while let Some(Process { parent: Some(parent), .. }) = found {
        if parent == ancestor {
            return true;
        }
        // A parent that has just been reaped had handed its children on before.
        found = process(parent).or_else(|| process(pid));
    }
    false
}

fn processes() -> impl Iterator<Item = Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| process(Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?))
}

fn process(pid: Pid) -> Option<Process> {
    // `pid (name) state parent group …`, where the name can contain anything.
    let stat = fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let mut fields = std::str::from_utf8(&stat[after_name..]).ok()?.split_ascii_whitespace().skip(1);
    let mut next = || fields.next()?.parse().ok();
    Some(Process { pid, parent: Pid::from_raw(next()?), group: Pid::from_raw(next()?)? })
}
