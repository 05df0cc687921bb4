//! The main loop of a shim: the parent of an attempt's program, and the subreaper of everything that it starts.
//!
//! Orphaned descendants of the program become children of the shim, wherever they have moved (`setsid`, `env -i`, a
//! double fork). So the shim has no children exactly when no process of the attempt is left. It runs one
//! attempt at a time; all its system calls may block.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpid, kill_process_group, set_child_subreaper};

use super::descendants::{self, Reaped};
use super::directories::Directories;
use super::environment::{DEFAULT_PATH, find_program};
use super::files::AttemptFiles;
use super::nice;
use super::orders::{Order, Orders};
use super::pipes::Pipes;
use super::sys::{self, Program, Spawner};
use super::wire::{Ended, Report, StartOrder};

/// How long to read on when no process of the attempt is left. Only a process that is not of the attempt and was sent a
/// pipe can still hold it.
const FOREIGN_PIPE_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs attempts until the server closes the connection; then kills what is left.
pub(super) fn run(socket: &OwnedFd, work: &Path) {
    // Both calls fail only with invalid arguments.
    let _ = rustix::thread::set_name(c"lineshaft-shim");
    let _ = set_child_subreaper(Some(getpid()));
    sys::catch_child_exits();
    let mut shim = ShimProcess {
        orders: Orders::new(socket),
        frames: Vec::new(),
        spawner: Spawner::new(),
        directories: Directories::new(work),
    };
    while let Some(order) = shim.orders.next() {
        // An order to stop that comes now is for the attempt before.
        if let Order::Start(start) = order {
            let report = StartOrder::decode(&start).map_or_else(Report::NoProgram, |start| shim.attempt(&start));
            shim.frames.extend_from_slice(&report.encode());
            shim.send();
        }
    }
}

struct ShimProcess<'a> {
    orders: Orders<'a>,
    /// Messages to the server that were not sent yet.
    frames: Vec<u8>,
    spawner: Spawner,
    directories: Directories<'a>,
}

impl ShimProcess<'_> {
    fn send(&mut self) {
        // A server that no longer reads has closed the connection, which is the next order.
        let _ = self.orders.send(&self.frames);
        self.frames.clear();
    }

    /// Sends what the server takes now. It takes no output while there is no memory for a result.
    fn try_send(&mut self) {
        if self.orders.try_send(&mut self.frames).is_err() {
            self.frames.clear();
        }
    }

    fn attempt(&mut self, start: &StartOrder<'_>) -> Report {
        let directory =
            match start.directory.is_none().then(|| self.directories.take(start.owner, start.account)).transpose() {
                Ok(directory) => directory,
                Err(error) => return Report::NoDirectory(error),
            };
        let files = directory.as_deref().map(|directory| AttemptFiles { directory, start });
        if let Some(Err(error)) = files.as_ref().map(AttemptFiles::write) {
            // The error of the first step counts.
            let _ = directory.map(|directory| self.directories.put_back(directory, start.owner));
            return Report::NoDirectory(error);
        }
        let mut ended = self
            .spawn(start, directory.as_deref())
            .and_then(|(program, pipes)| self.supervise(program, pipes, start.grace));
        if let (Ok(ended), Some(files)) = (&mut ended, files)
            && ended.exit.status.success()
        {
            ended.no_result = files.read_result(|frame| self.orders.send(frame)).err();
        }
        // The next server removes the directory; it waits for this process to exit.
        let directory = directory.filter(|_| !self.orders.is_closed());
        let not_removed = directory.and_then(|directory| self.directories.put_back(directory, start.owner).err());
        match ended {
            Ok(ended) => Report::Ended(Ended { not_removed, ..ended }),
            Err(error) => Report::NoProgram(error),
        }
    }

    fn spawn<'p>(&mut self, start: &StartOrder<'p>, directory: Option<&Path>) -> io::Result<(Pid, Pipes<'p>)> {
        let created = directory.map(|directory| CString::new(directory.as_os_str().as_bytes())).transpose()?;
        let found = find(start)?;
        let input = if start.payload_file.is_some() { &[] } else { start.payload };
        let (pipes, stdio) = Pipes::new(input, start.account, start.has_reports)?;
        let program = self.spawner.spawn(&Program {
            path: found.as_deref().unwrap_or(start.program),
            args: &start.args,
            env: &start.env,
            directory: created.as_deref().or(start.directory).ok_or(io::ErrorKind::InvalidInput)?,
            stdio: stdio.files(),
            reports: stdio.report_files(),
            limits: start.limits,
            nice: start.nice,
            account: start.account,
        })?;
        if start.nice > 0 {
            nice::apply_to_session(program, start.account);
        }
        Ok((program, pipes))
    }

    /// Waits for the program; returns when no process of the attempt is left. Processes that the program has left behind are
    /// killed after `grace`, unless the server has ordered to stop: then it also orders when to kill.
    fn supervise(&mut self, program: Pid, mut pipes: Pipes<'_>, grace: Duration) -> io::Result<Ended> {
        let mut reaped = Reaped::new(program);
        let (mut ended_at, mut is_stopping, mut output_incomplete) = (None, false, false);
        loop {
            let left = ended_at.filter(|_| !is_stopping).map(|at: Instant| grace.saturating_sub(at.elapsed()));
            let has_order =
                self.orders.is_buffered() || pipes.transfer(Some(self.orders.socket().as_fd()), left, &mut self.frames);
            if reaped.reap_exited() {
                break;
            }
            let has_exited = reaped.exit().is_some();
            if has_exited && !pipes.are_open() {
                // The processes that are left cannot contribute anything.
                break;
            }
            if has_exited && ended_at.is_none() {
                ended_at = Some(Instant::now());
                self.frames.extend_from_slice(&Report::ProgramEnded.encode());
            }
            if has_order {
                let running = (!has_exited).then_some(program);
                match self.orders.next() {
                    Some(Order::Terminate) => {
                        is_stopping = true;
                        descendants::terminate(running);
                    }
                    Some(Order::Kill | Order::Start(_)) | None => {
                        if let Some(program) = running {
                            // It was not reaped, so the id of its group is not reused.
                            let _ = kill_process_group(program, Signal::KILL);
                        }
                        output_incomplete = has_exited;
                        break;
                    }
                }
            }
            if left.is_some_and(|left| left.is_zero()) {
                output_incomplete = true;
                break;
            }
            self.try_send();
        }
        reaped.kill_all();
        output_incomplete |= !self.send_rest(pipes);
        let exit = reaped.exit().ok_or_else(|| io::Error::from_raw_os_error(libc::ECHILD))?;
        Ok(Ended { exit, output_incomplete, no_result: None, not_removed: None })
    }

    /// Reads the output that is left. Returns false if another process can still write to the pipes.
    fn send_rest(&mut self, mut pipes: Pipes<'_>) -> bool {
        self.send();
        pipes.transfer(None, Some(Duration::ZERO), &mut self.frames);
        let deadline = Instant::now() + FOREIGN_PIPE_TIMEOUT;
        while pipes.are_open() {
            self.send();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            pipes.transfer(None, Some(left), &mut self.frames);
        }
        true
    }
}

/// The path of a program that was given as a name: it may have been installed since the server was started.
fn find(start: &StartOrder<'_>) -> io::Result<Option<CString>> {
    if start.program.to_bytes().contains(&b'/') {
        return Ok(None);
    }
    let name = String::from_utf8_lossy(start.program.to_bytes());
    let path = find_program(&name, start.variable("PATH").unwrap_or(OsStr::new(DEFAULT_PATH)));
    if path.as_os_str().as_bytes() == start.program.to_bytes() {
        return Err(io::Error::from_raw_os_error(libc::ENOENT));
    }
    Ok(Some(CString::new(path.into_os_string().into_vec())?))
}
