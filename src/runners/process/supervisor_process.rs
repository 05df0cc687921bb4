//! The main loop of the supervisor: forks a shim for each slot that runs processes.
//!
//! The shims are copies of the supervisor, so they share its memory, and hold its lock until they exit. When the
//! server exits for any reason, the connections close and the shims kill their processes and exit. When a
//! shim is killed, its processes become children of the supervisor, which kills them. Until then it keeps the
//! connection of that shim open, so the server sees it close only when no process of the attempt is left.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{fs, io};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, kill_process, pidfd_open, set_child_subreaper};

use super::wire::{Report, receive_fork};
use super::{descendants, shim_process, sys};

/// How long shims may take to kill their processes and exit when the server is gone. A stopped one does not react.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before killed orphans are looked for again.
const SWEEP_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// The main function of `__supervise <directory>`; `args` are those after the subcommand. Stdin is the
/// connection to the server, stdout the locked file.
pub fn supervise_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let (Some(work), None) = (args.next(), args.next()) else { return ExitCode::from(2) };
    let work = PathBuf::from(work);
    sys::reset_signals();
    sys::catch_stop_signals();
    let (Ok(()), Ok(control), Ok(())) = (sys::hide_process(), take_stdin(), sys::close_inherited_files_on_exec())
    else {
        return ExitCode::FAILURE;
    };
    // Both calls fail only with invalid arguments.
    let _ = rustix::thread::set_name(c"lineshaft-super");
    let _ = set_child_subreaper(Some(getpid()));
    if let Some(socket) = supervise(control) {
        shim_process::run(&socket, &work);
        drop(socket);
        sys::exit_copy();
    }
    ExitCode::SUCCESS
}

/// Moves stdin to another descriptor, so that shims can close it.
fn take_stdin() -> io::Result<OwnedFd> {
    let control = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(fs::File::open("/dev/null")?)?;
    Ok(control)
}

/// Returns the connection to the server in a new shim, and `None` in the supervisor when the server is gone and no
/// process is left.
fn supervise(control: OwnedFd) -> Option<OwnedFd> {
    let mut control = Some(control);
    let mut shims = Shims::default();
    let mut kill_at = None;
    while control.is_some() || !shims.is_empty() {
        let Ready { control: asked, exited } = shims.wait(control.as_ref(), kill_at);
        shims.reap(&exited);
        if kill_at.is_some_and(|kill_at| kill_at <= Instant::now()) {
            shims.kill();
            kill_at = None;
        }
        shims.sweep();
        let Some(connection) = control.as_ref().filter(|_| asked) else { continue };
        let Ok(socket) = receive_fork(connection) else {
            // The server is gone.
            control = None;
            kill_at = Some(Instant::now() + EXIT_TIMEOUT);
            continue;
        };
        if let Some(socket) = socket.and_then(|socket| shims.fork(socket)) {
            return Some(socket);
        }
    }
    None
}

#[derive(Default)]
struct Shims {
    running: HashMap<Pid, Shim>,
    /// Connections of shims that were killed. Processes of their attempts may be left.
    lost: Vec<OwnedFd>,
}

struct Shim {
    /// Becomes readable when the shim exits.
    exited: OwnedFd,
    socket: OwnedFd,
}

struct Ready {
    control: bool,
    exited: Vec<Pid>,
}

impl Shims {
    fn is_empty(&self) -> bool {
        self.running.is_empty() && self.lost.is_empty()
    }

    fn wait(&self, control: Option<&OwnedFd>, until: Option<Instant>) -> Ready {
        let exits = self.running.values().map(|shim| &shim.exited);
        let mut sources: Vec<_> = exits.chain(control).map(|file| PollFd::new(file, PollFlags::IN)).collect();
        let until = until.and_then(|until| until.saturating_duration_since(Instant::now()).try_into().ok());
        let timeout = if self.lost.is_empty() { until } else { Some(SWEEP_PAUSE) };
        // Fails only if interrupted by a signal, or for lack of memory; then the caller tries again.
        let _ = poll(&mut sources, timeout.as_ref());
        let ready: Vec<bool> = sources.iter().map(|source| !source.revents().is_empty()).collect();
        let exited = self.running.keys().zip(&ready).filter(|(_, ready)| **ready).map(|(pid, _)| *pid).collect();
        Ready { control: control.is_some() && ready.last() == Some(&true), exited }
    }

    fn reap(&mut self, exited: &[Pid]) {
        for pid in exited {
            let Ok(Some((_, exit))) = sys::reap(Some(*pid), false) else { continue };
            if let Some(shim) = self.running.remove(pid)
                && !exit.status.success()
            {
                self.lost.push(shim.socket);
            }
        }
    }

    /// Kills the shims; their processes become those of this process.
    fn kill(&self) {
        for pid in self.running.keys() {
            let _ = kill_process(*pid, Signal::KILL);
        }
    }

    /// Kills the processes of lost shims, and closes the connections of these shims when none is left.
    fn sweep(&mut self) {
        if !self.lost.is_empty() && !descendants::kill_orphans(|pid| !self.running.contains_key(&pid)) {
            self.lost.clear();
        }
    }

    /// Returns the connection in the new shim.
    fn fork(&mut self, socket: OwnedFd) -> Option<OwnedFd> {
        let pid = match sys::fork() {
            Ok(Some(pid)) => pid,
            Ok(None) => return Some(socket),
            Err(error) => {
                refuse(&socket, error);
                return None;
            }
        };
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(exited) => drop(self.running.insert(pid, Shim { exited, socket })),
            Err(error) => {
                let _ = kill_process(pid, Signal::KILL);
                let _ = sys::reap(Some(pid), true);
                refuse(&socket, error.into());
            }
        }
        None
    }
}

fn refuse(socket: &OwnedFd, error: io::Error) {
    // A server that no longer reads has gone.
    let _ = rustix::io::write(socket, &Report::NoShim(error).encode());
}
