//! Starting one process in a group of its own, and ending the whole group.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::thread;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, test_kill_process_group};
use tokio::io::unix::AsyncFd;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};

use super::sys::{self, Exit};

/// A running process, the leader of its group. Dropped without [`Child::reap`], the group is killed.
///
/// The exit status is taken as late as possible: until then the kernel keeps the number of process and
/// group reserved, so a signal to the group can never hit a stranger.
#[derive(Debug)]
pub(super) struct Child {
    pid: Pid,
    reaped: bool,
}

/// Its ends of the pipes, and the news of its end.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: ChildStdout,
    pub(super) stderr: ChildStderr,
    pub(super) ended: AsyncFd<OwnedFd>,
}

impl Child {
    /// Starts the command, which must have stdout and stderr piped and begin its own group.
    pub(super) fn spawn(command: &mut Command) -> io::Result<(Self, Ends)> {
        let mut process = command.spawn()?;
        let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        // From here on the guard ends the group, whatever fails.
        let child = Self { pid, reaped: false };
        let (Some(stdout), Some(stderr)) = (process.stdout.take(), process.stderr.take()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        let ends = Ends {
            stdin: process.stdin.take().map(ChildStdin::from_std).transpose()?,
            stdout: ChildStdout::from_std(stdout)?,
            stderr: ChildStderr::from_std(stderr)?,
            ended: sys::watch_end(pidfd)?,
        };
        Ok((child, ends))
    }

    /// Number of the process and of its group.
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Signals the whole group. That nobody is left to hear it is no error.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.pid, signal);
    }

    /// Takes the exit status of the ended leader.
    pub(super) fn reap(&mut self) -> io::Result<Exit> {
        let exit = sys::reap(self.pid, true);
        self.reaped = true;
        exit
    }

    /// Whether a process of the group is left; asked after [`Child::reap`].
    pub(super) fn group_lives(&self) -> bool {
        test_kill_process_group(self.pid).is_ok()
    }
}

/// Waits until the process behind [`Ends::ended`] has ended.
pub(super) async fn ended(news: &AsyncFd<OwnedFd>) {
    // An error means that the runtime shuts down; then the guard of the child ends it.
    let _ = news.readable().await;
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        self.signal(Signal::KILL);
        let pid = self.pid;
        if sys::reap(pid, false).is_err() {
            // Dying takes a moment; a worker should not wait for it.
            let _ = thread::Builder::new().name("reaper".to_owned()).spawn(move || sys::reap(pid, true));
        }
    }
}
