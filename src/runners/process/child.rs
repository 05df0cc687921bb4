//! A process that leads its own group, and signals to the whole group.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::thread;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, test_kill_process_group};
use tokio::io::unix::AsyncFd;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};

use super::sys::{self, Exit};

/// A running process, the leader of its group. Dropping it without [`Child::reap`] kills the group.
///
/// It is reaped as late as possible: until then the kernel does not reuse the ids of process and group, so
/// a signal to the group cannot hit another process.
#[derive(Debug)]
pub(super) struct Child {
    pid: Pid,
    reaped: bool,
}

/// The server's ends of the pipes, and a handle that becomes readable when the process exits.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: ChildStdout,
    pub(super) stderr: ChildStderr,
    pub(super) exit: AsyncFd<OwnedFd>,
}

impl Child {
    /// Starts the command, which must pipe stdout and stderr and start its own process group.
    pub(super) fn spawn(command: &mut Command) -> io::Result<(Self, Streams)> {
        let mut process = command.spawn()?;
        let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        // From here on, dropping the child kills the group if anything fails.
        let child = Self { pid, reaped: false };
        let (Some(stdout), Some(stderr)) = (process.stdout.take(), process.stderr.take()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        let streams = Streams {
            stdin: process.stdin.take().map(ChildStdin::from_std).transpose()?,
            stdout: ChildStdout::from_std(stdout)?,
            stderr: ChildStderr::from_std(stderr)?,
            exit: sys::register_pidfd(pidfd)?,
        };
        Ok((child, streams))
    }

    /// The id of the process and of its group.
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Signals the whole group. An empty group is no error.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.pid, signal);
    }

    /// Waits for the leader and returns its exit status.
    pub(super) fn reap(&mut self) -> io::Result<Exit> {
        let exit = sys::reap(self.pid, true);
        self.reaped = true;
        exit
    }

    /// Whether the group still has a process. Call it after [`Child::reap`].
    pub(super) fn group_exists(&self) -> bool {
        test_kill_process_group(self.pid).is_ok()
    }
}

/// Waits until the process of [`Streams::exit`] has exited.
pub(super) async fn wait_for_exit(exit: &AsyncFd<OwnedFd>) {
    // An error means that the runtime is shutting down; then dropping the child kills the group.
    let _ = exit.readable().await;
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        self.signal(Signal::KILL);
        let pid = self.pid;
        if sys::reap(pid, false).is_err() {
            // A killed process takes a moment to exit; the worker does not wait for it.
            let _ = thread::Builder::new().name("reaper".to_owned()).spawn(move || sys::reap(pid, true));
        }
    }
}
