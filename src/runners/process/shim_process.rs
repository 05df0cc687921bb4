//! The main loop of a shim: the parent of an attempt's program, and the subreaper of everything that it starts.
//!
//! Orphaned descendants of the program become children of the shim, wherever they have moved (`setsid`, `env -i`, a
//! double fork). So the shim has no children exactly when no process of the attempt is left. It runs one
//! attempt at a time; all its system calls may block.

use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, kill_process_group, pidfd_open, set_child_subreaper};

use super::descendants::Reaped;
use super::sys::Exit;
use super::wire::{Ended, Order, Report, StartOrder, receive_order};

/// No other user may read a working directory.
pub(super) const DIRECTORY_MODE: u32 = 0o700;

/// Runs attempts until the server closes the connection; then kills what is left.
pub(super) fn run(socket: &OwnedFd, work: &Path) {
    // Both calls fail only with invalid arguments.
    let _ = rustix::thread::set_name(c"lineshaft-shim");
    let _ = set_child_subreaper(Some(getpid()));
    let mut shim = ShimProcess { socket, directories: Directories { work, created: 0, empty: None } };
    while let Some(order) = shim.next_order() {
        // An order to stop that comes now is for the attempt before.
        if let Order::Start(start) = order {
            let report = start.map_or_else(Report::NoProgram, |start| shim.attempt(*start));
            shim.report(&report);
        }
    }
}

struct ShimProcess<'a> {
    socket: &'a OwnedFd,
    directories: Directories<'a>,
}

/// What ends the wait for a program.
enum Wait {
    Exited,
    Kill,
}

impl ShimProcess<'_> {
    /// `None` when the server has closed the connection. A message that cannot be read counts as that, too.
    fn next_order(&self) -> Option<Order> {
        receive_order(self.socket).ok().flatten()
    }

    fn report(&self, report: &Report) {
        // A server that no longer reads has closed the connection, which ends the loop.
        let _ = rustix::io::write(self.socket, &report.encode());
    }

    fn attempt(&mut self, start: StartOrder) -> Report {
        let StartOrder { mut command, has_directory } = start;
        let directory = match (!has_directory).then(|| self.directories.take()).transpose() {
            Ok(directory) => directory,
            Err(error) => return Report::NoDirectory(error),
        };
        if let Some(directory) = &directory {
            command.current_dir(directory);
        }
        let report = match spawn(&mut command) {
            Ok((program, exit)) => {
                drop(command);
                self.supervise(program, &exit)
            }
            Err(error) => Err(error),
        };
        let not_removed = directory.and_then(|directory| self.directories.put_back(directory).err());
        match report {
            Ok(exit) => Report::Ended(Ended { exit, not_removed }),
            Err(error) => Report::NoProgram(error),
        }
    }

    /// Waits for the program; returns when no process of the attempt is left.
    fn supervise(&self, program: Pid, exited: &OwnedFd) -> io::Result<Exit> {
        let mut reaped = Reaped::new(program);
        match self.wait_for_program(program, exited) {
            // The program still exists, so the id of its group is not reused.
            Wait::Kill => drop(kill_process_group(program, Signal::KILL)),
            Wait::Exited if reaped.reap_exited() => {}
            Wait::Exited => {
                self.report(&Report::ProgramEnded);
                self.wait_for_kill();
            }
        }
        reaped.kill_all();
        reaped.exit().ok_or_else(|| io::Error::from_raw_os_error(libc::ECHILD))
    }

    fn wait_for_program(&self, program: Pid, exited: &OwnedFd) -> Wait {
        loop {
            let mut sources = [PollFd::new(exited, PollFlags::IN), PollFd::new(self.socket, PollFlags::IN)];
            match poll(&mut sources, None) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return Wait::Kill,
                Ok(_) => {}
            }
            if !sources[0].revents().is_empty() {
                return Wait::Exited;
            }
            match self.next_order() {
                Some(Order::Terminate) => drop(kill_process_group(program, Signal::TERM)),
                Some(Order::Kill | Order::Start(_)) | None => return Wait::Kill,
            }
        }
    }

    /// Waits until the processes that the program has left behind are to be killed.
    fn wait_for_kill(&self) {
        while let Some(Order::Terminate) = self.next_order() {}
    }
}

/// Starts the program. The file becomes readable when it exits.
fn spawn(command: &mut Command) -> io::Result<(Pid, OwnedFd)> {
    let process = command.spawn()?;
    let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => Ok((pid, pidfd)),
        Err(error) => {
            let _ = kill_process_group(pid, Signal::KILL);
            Reaped::new(pid).kill_all();
            Err(error.into())
        }
    }
}

/// The working directories of the attempts of one shim.
struct Directories<'a> {
    work: &'a Path,
    created: u64,
    /// An unchanged one is used again: creating a directory can cost more than starting a process.
    empty: Option<PathBuf>,
}

impl Directories<'_> {
    fn take(&mut self) -> io::Result<PathBuf> {
        if let Some(path) = self.empty.take() {
            return Ok(path);
        }
        let path = self.work.join(format!("{}-{}", getpid().as_raw_nonzero(), self.created));
        self.created += 1;
        DirBuilder::new().mode(DIRECTORY_MODE).create(&path)?;
        Ok(path)
    }

    /// Removes the directory with its contents, or keeps an unchanged one.
    fn put_back(&mut self, path: PathBuf) -> io::Result<()> {
        if is_unchanged(&path) {
            self.empty = Some(path);
            return Ok(());
        }
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for Directories<'_> {
    fn drop(&mut self) {
        if let Some(path) = &self.empty {
            // If that fails, the next server removes it.
            let _ = fs::remove_dir(path);
        }
    }
}

fn is_unchanged(path: &Path) -> bool {
    let same = |file: Metadata| file.is_dir() && file.permissions().mode() & 0o7777 == DIRECTORY_MODE;
    fs::symlink_metadata(path).is_ok_and(same) && fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}
