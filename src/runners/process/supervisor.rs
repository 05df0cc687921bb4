//! Children never outlive their server, even when it is killed with signal 9.
//!
//! The server starts itself a second time as its supervisor, holding a pipe to it. When the server is
//! gone, for whatever reason, the pipe ends, and the supervisor kills what the server has left behind.
//! Until that is done it holds a lock that the next server waits for, so a task never runs twice at
//! once. (`PR_SET_PDEATHSIG` would be shorter, but it fires when the *thread* that spawned ends.)

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, fcntl_getfl, fcntl_setfl, flock};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, kill_process_group, pidfd_open, pidfd_send_signal, setsid};

use super::{INSTANCE_VARIABLE, sys};

/// The hidden subcommand that makes the server's program a supervisor.
pub const SUBCOMMAND: &str = "__supervise";

/// How long a new server waits for the children of an earlier one to be gone.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_POLL: Duration = Duration::from_millis(10);
/// Pause between two reads of the pipe, so that thousands of messages a second wake it rarely.
const READ_PAUSE: Duration = Duration::from_millis(5);
/// Passes over all processes that must find nothing before the supervisor believes it.
const QUIET_PASSES: u32 = 2;

/// The server's hold on its supervisor. Dropping it ends the supervisor, and all children with it.
#[derive(Debug)]
pub struct Supervisor {
    /// `None` only while it is being stopped.
    pipe: Option<OwnedFd>,
    process: Child,
    lost: AtomicBool,
}

impl Supervisor {
    /// Starts the supervisor of the server run `instance`, as `exe __supervise <instance> <lock path>`.
    /// First waits, at most 10 s, until an earlier server's supervisor has released the lock.
    ///
    /// # Errors
    /// `TimedOut` when the lock stays held; otherwise what opening the lock or starting `exe` says.
    pub fn start(exe: &Path, instance: &str, lock_path: &Path) -> io::Result<Self> {
        Self::start_within(LOCK_WAIT, exe, instance, lock_path)
    }

    pub(super) fn start_within(wait: Duration, exe: &Path, instance: &str, lock_path: &Path) -> io::Result<Self> {
        let lock = File::options().create(true).truncate(false).read(true).write(true).open(lock_path)?;
        take_lock(&lock, lock_path, wait)?;
        #[expect(clippy::disallowed_methods, reason = "the supervisor is the server itself, not a handler")]
        let mut command = Command::new(exe);
        command.arg(SUBCOMMAND).arg(instance).arg(lock_path);
        // Without an environment, so that the supervisor of an outer server does not count this one in.
        command.env_clear().current_dir("/");
        // The lock belongs to the open file, which the child inherits: there is no gap in holding it.
        command.stdin(Stdio::piped()).stdout(lock);
        // A session of its own: signals of the server's terminal miss it.
        sys::before_exec(&mut command, || Ok(setsid().map(drop)?));
        let mut process = command.spawn()?;
        let pipe = process.stdin.take().map(OwnedFd::from).ok_or(io::ErrorKind::BrokenPipe)?;
        // A supervisor that hangs must not make the server hang.
        fcntl_setfl(&pipe, fcntl_getfl(&pipe)? | OFlags::NONBLOCK)?;
        Ok(Self { pipe: Some(pipe), process, lost: AtomicBool::new(false) })
    }

    /// Tells it of a new process group.
    pub(super) fn watch(&self, group: Pid) {
        self.tell('+', group);
    }

    /// Tells it that a group is gone; before its number is free again.
    pub(super) fn forget(&self, group: Pid) {
        self.tell('-', group);
    }

    /// Lets go of it and waits until every child is gone.
    ///
    /// # Errors
    /// When its end cannot be waited for.
    pub fn stop(mut self) -> io::Result<()> {
        self.pipe = None;
        self.process.wait().map(drop)
    }

    fn tell(&self, sign: char, group: Pid) {
        let Some(pipe) = &self.pipe else { return };
        let message = format!("{sign}{}\n", group.as_raw_nonzero());
        // A message that does not fit is no loss: children are found by their environment, too.
        if let Err(rustix::io::Errno::PIPE) = rustix::io::write(pipe, message.as_bytes())
            && !self.lost.swap(true, Ordering::Relaxed)
        {
            tracing::error!("the supervisor is gone: should the server be killed, its processes would go on");
        }
    }
}

fn take_lock(lock: &File, path: &Path, wait: Duration) -> io::Result<()> {
    let give_up = Instant::now() + wait;
    loop {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < give_up => sleep(LOCK_POLL),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let (path, wait) = (path.display(), wait.as_secs());
                let text = format!(
                    "another server, or processes that one has left behind, still hold `{path}` after {wait} s"
                );
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// What `__supervise <instance> <lock path>` does; `args` are those after the subcommand. Its stdin is
/// the pipe from the server, its stdout the locked file.
pub fn supervise_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let (Some(instance), Some(_lock_path), None) = (args.next(), args.next(), args.next()) else {
        return ExitCode::from(2);
    };
    let Some(instance) = instance.to_str().filter(|instance| !instance.is_empty()) else {
        return ExitCode::from(2);
    };
    sys::ignore_stop_signals();
    let groups = watch_pipe(&mut io::stdin().lock());
    kill_left_behind(instance, &groups);
    ExitCode::SUCCESS
}

/// Reads what the server tells until it is gone; answers the groups that are left.
fn watch_pipe(pipe: &mut impl Read) -> HashSet<Pid> {
    let mut groups = HashSet::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut partial = Vec::new();
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return groups,
            Ok(length) => partial.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return groups,
        }
        let complete = partial.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for line in partial[..complete].split(|byte| *byte == b'\n') {
            let Some((sign, number)) = line.split_first() else { continue };
            let number = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
            // 1 would be everybody.
            let Some(group) = number.filter(|number| *number > 1).and_then(Pid::from_raw) else { continue };
            match sign {
                b'+' => groups.insert(group),
                _ => groups.remove(&group),
            };
        }
        partial.drain(..complete);
        sleep(READ_PAUSE);
    }
}

/// Kills the groups, and every process that carries the instance in its environment, until none is left.
fn kill_left_behind(instance: &str, groups: &HashSet<Pid>) {
    for group in groups {
        let _ = kill_process_group(*group, Signal::KILL);
    }
    let marks = [format!("{INSTANCE_VARIABLE}={instance}")];
    let mut quiet_passes = 0;
    let mut pause = Duration::from_millis(1);
    while quiet_passes < QUIET_PASSES {
        if kill_marked(&marks) == 0 {
            quiet_passes += 1;
        } else {
            quiet_passes = 0;
            // One that does not die is in the kernel's hands; look less and less often.
            pause = (pause * 2).min(Duration::from_millis(500));
        }
        sleep(pause);
    }
}

/// Kills every process whose environment has all of the marks (`NAME=value`); answers how many it found.
pub(super) fn kill_marked(marks: &[String]) -> usize {
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Pid::from_raw).filter(|pid| *pid != getpid() && kill_if_marked(*pid, marks)).count()
}

fn kill_if_marked(pid: Pid, marks: &[String]) -> bool {
    if !is_marked(pid, marks) {
        return false;
    }
    // Looked at again through a handle, so that the number cannot have become another process.
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    is_marked(pid, marks) && pidfd_send_signal(&handle, Signal::KILL).is_ok()
}

fn is_marked(pid: Pid, marks: &[String]) -> bool {
    let Ok(environment) = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())) else { return false };
    marks.iter().all(|mark| environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes()))
}
