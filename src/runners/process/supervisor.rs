//! The supervisor process kills the children of a server that has died, even by SIGKILL.
//!
//! The server starts its own binary a second time as the supervisor and holds a pipe to it. When the server
//! exits for any reason, the pipe closes and the supervisor kills all processes that the server has left.
//! Until then it holds a lock that the next server waits for, so a task never runs twice at the same time.
//! (`PR_SET_PDEATHSIG` would be shorter, but it fires when the *thread* that spawned the child ends.)

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

use super::environment::INSTANCE_VARIABLE;
use super::sys;

/// The hidden subcommand that runs the server's binary as a supervisor.
pub const SUBCOMMAND: &str = "__supervise";

/// How long a new server waits until the children of an earlier one have been killed.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
const LOCK_POLL: Duration = Duration::from_millis(10);
/// Pause between two reads of the pipe, so that many messages cause few wake-ups.
const READ_PAUSE: Duration = Duration::from_millis(5);
/// Consecutive passes over all processes that must find none before the supervisor exits.
const QUIET_PASSES: u32 = 2;

/// The server's handle to its supervisor. Dropping it makes the supervisor kill all children and exit.
#[derive(Debug)]
pub struct Supervisor {
    /// `None` only while the supervisor is being stopped.
    pipe: Option<OwnedFd>,
    process: Child,
    lost: AtomicBool,
}

impl Supervisor {
    /// Starts the supervisor of server run `instance` as `exe __supervise <instance> <lock path>`. Before
    /// that it waits up to 10 s until an earlier server's supervisor has released the lock.
    ///
    /// # Errors
    /// `TimedOut` when the lock stays held; other errors when the lock cannot be opened or `exe` not started.
    pub fn start(exe: &Path, instance: &str, lock_path: &Path) -> io::Result<Self> {
        Self::start_within(LOCK_TIMEOUT, exe, instance, lock_path)
    }

    pub(super) fn start_within(timeout: Duration, exe: &Path, instance: &str, lock_path: &Path) -> io::Result<Self> {
        let lock = File::options().create(true).truncate(false).read(true).write(true).open(lock_path)?;
        take_lock(&lock, lock_path, timeout)?;
        #[expect(clippy::disallowed_methods, reason = "the supervisor is the server itself, not a handler")]
        let mut command = Command::new(exe);
        command.arg(SUBCOMMAND).arg(instance).arg(lock_path);
        // Without an environment, so that the supervisor of an outer server does not kill this one.
        command.env_clear().current_dir("/");
        // The lock belongs to the open file, which the child inherits, so it is held without a gap.
        command.stdin(Stdio::piped()).stdout(lock);
        // A separate session, so that signals from the server's terminal do not reach it.
        sys::before_exec(&mut command, || Ok(setsid().map(drop)?));
        let mut process = command.spawn()?;
        let pipe = process.stdin.take().map(OwnedFd::from).ok_or(io::ErrorKind::BrokenPipe)?;
        // Non-blocking, so that a supervisor that hangs does not block the server.
        fcntl_setfl(&pipe, fcntl_getfl(&pipe)? | OFlags::NONBLOCK)?;
        Ok(Self { pipe: Some(pipe), process, lost: AtomicBool::new(false) })
    }

    /// Adds a process group to kill when the server dies.
    pub(super) fn watch(&self, group: Pid) {
        self.send('+', group);
    }

    /// Removes a process group. Call it before the leader is reaped, because its id may be reused after that.
    pub(super) fn unwatch(&self, group: Pid) {
        self.send('-', group);
    }

    /// Makes the supervisor kill all children and exit, and waits for that.
    ///
    /// # Errors
    /// When waiting fails.
    pub fn stop(mut self) -> io::Result<()> {
        self.pipe = None;
        self.process.wait().map(drop)
    }

    fn send(&self, sign: char, group: Pid) {
        let Some(pipe) = &self.pipe else { return };
        let message = format!("{sign}{}\n", group.as_raw_nonzero());
        // A full pipe loses the message, which is harmless: children are also found by their environment.
        if let Err(rustix::io::Errno::PIPE) = rustix::io::write(pipe, message.as_bytes())
            && !self.lost.swap(true, Ordering::Relaxed)
        {
            tracing::error!("the supervisor has exited: if the server is killed, its child processes keep running");
        }
    }
}

fn take_lock(lock: &File, path: &Path, timeout: Duration) -> io::Result<()> {
    let deadline = Instant::now() + timeout;
    loop {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => sleep(LOCK_POLL),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let (path, timeout) = (path.display(), timeout.as_secs());
                let text = format!(
                    "`{path}` is still locked after {timeout} s by another server or by processes that one left behind"
                );
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The main function of `__supervise <instance> <lock path>`; `args` are those after the subcommand. Stdin
/// is the pipe from the server, stdout the locked file.
pub fn supervise_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let (Some(instance), Some(_lock_path), None) = (args.next(), args.next(), args.next()) else {
        return ExitCode::from(2);
    };
    let Some(instance) = instance.to_str().filter(|instance| !instance.is_empty()) else {
        return ExitCode::from(2);
    };
    sys::ignore_stop_signals();
    let groups = read_groups(&mut io::stdin().lock());
    kill_left_behind(instance, &groups);
    ExitCode::SUCCESS
}

/// Reads messages until the pipe closes. Returns the groups that are still watched.
fn read_groups(pipe: &mut impl Read) -> HashSet<Pid> {
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
            // Killing group 1 would kill every process.
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

/// Kills the groups and every process that has the instance in its environment, until none is left.
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
            // A killed process that stays is blocked in the kernel; check it less and less often.
            pause = (pause * 2).min(Duration::from_millis(500));
        }
        sleep(pause);
    }
}

/// Kills every process whose environment contains all marks (`NAME=value`). Returns how many it found.
pub(super) fn kill_marked(marks: &[String]) -> usize {
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Pid::from_raw).filter(|pid| *pid != getpid() && kill_if_marked(*pid, marks)).count()
}

fn kill_if_marked(pid: Pid, marks: &[String]) -> bool {
    if !is_marked(pid, marks) {
        return false;
    }
    // Checked again after a handle is open, because the id may have been reused by another process.
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    is_marked(pid, marks) && pidfd_send_signal(&handle, Signal::KILL).is_ok()
}

fn is_marked(pid: Pid, marks: &[String]) -> bool {
    let Ok(environment) = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())) else { return false };
    marks.iter().all(|mark| environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes()))
}
