//! The server's handle to its supervisor, the process that is the parent of all shims.
//!
//! The server starts its own binary a second time as the supervisor, so that the processes of handlers end with the
//! server however it ends. A lock is held until all of them have ended, and the next server waits for it, so a task
//! never runs twice at the same time. (`PR_SET_PDEATHSIG` would be shorter, but it fires when the *thread* that
//! spawned the child ends, and does not reach grandchildren.)

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{getpid, setsid};
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::shim::Shim;
use super::{sys, wire};
use crate::files::open_private;

/// The hidden subcommand that runs the server's binary as a supervisor.
pub const SUBCOMMAND: &str = "__supervise";

/// How long a new server waits until the processes of an earlier one have been killed.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
const LOCK_POLL: Duration = Duration::from_millis(10);

/// Dropping it makes the supervisor and all shims kill their processes and exit.
#[derive(Debug)]
pub struct Supervisor {
    control: UnixStream,
    process: Child,
}

impl Supervisor {
    /// Starts the supervisor as `exe __supervise <work>`, where `work` is the directory that shims create working
    /// directories in. Before that it waits up to 10 s until the processes of an earlier server have ended.
    ///
    /// # Errors
    /// `TimedOut` when the lock stays held; other errors when the lock cannot be opened, `exe` not started, or `/proc`
    /// does not show the processes of this server.
    pub fn start(exe: &Path, lock: &Path, work: &Path) -> io::Result<Self> {
        Self::start_within(LOCK_TIMEOUT, exe, lock, work)
    }

    pub(super) fn start_within(timeout: Duration, exe: &Path, lock_path: &Path, work: &Path) -> io::Result<Self> {
        check_proc()?;
        let lock = open_private(lock_path)?;
        take_lock(&lock, lock_path, timeout)?;
        let (control, theirs) = UnixStream::pair()?;
        let theirs = theirs.into_std()?;
        theirs.set_nonblocking(false)?;
        #[expect(clippy::disallowed_methods, reason = "the supervisor is the server itself, not a handler")]
        let mut command = Command::new(exe);
        command.arg(SUBCOMMAND).arg(work).env_clear().current_dir("/");
        // The lock belongs to the open file, which the supervisor and the shims inherit, so it is held without a gap.
        command.stdin(OwnedFd::from(theirs)).stdout(lock);
        // A separate session, so that signals from the server's terminal do not reach it.
        sys::before_exec(&mut command, || Ok(setsid().map(drop)?));
        Ok(Self { control, process: command.spawn()? })
    }

    /// Asks for a new shim. That it could not be forked is its first report.
    ///
    /// # Errors
    /// When the server has no file descriptors left, or the supervisor has exited.
    pub(super) async fn fork_shim(&self) -> io::Result<Shim> {
        let (socket, theirs) = UnixStream::pair()?;
        let theirs = theirs.into_std()?;
        theirs.set_nonblocking(false)?;
        let control = &self.control;
        control.async_io(Interest::WRITABLE, || wire::send_fork(control, theirs.as_fd())).await?;
        Ok(Shim::new(socket))
    }

    /// Waits until the supervisor has exited. It does so only if it was killed.
    pub(super) async fn exited(&self) {
        while self.is_running() {
            // Fails only while the runtime shuts down.
            let _ = self.control.readable().await;
        }
    }

    pub(super) fn is_running(&self) -> bool {
        // It sends nothing, so only the end of the connection can be read.
        matches!(self.control.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Makes the supervisor and the shims kill all processes and exit, and waits for that.
    ///
    /// # Errors
    /// When waiting fails.
    pub fn stop(mut self) -> io::Result<()> {
        drop(self.control);
        match self.process.wait() {
            // The kernel has reaped it; see `harden_process`.
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(()),
            waited => waited.map(drop),
        }
    }
}

/// Shims find the processes to kill in `/proc`.
fn check_proc() -> io::Result<()> {
    let pid = getpid().as_raw_nonzero().to_string();
    if fs::read_link("/proc/self").is_ok_and(|own| own.as_os_str() == &*pid) {
        return Ok(());
    }
    Err(io::Error::other("`/proc` does not show the processes of this PID namespace; mount it (type `proc`)"))
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
