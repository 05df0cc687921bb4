//! The pipes of a program: its payload goes in, its output comes out as frames for the server.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags, fcntl_setfl, open};
use rustix::pipe::{PipeFlags, pipe_with};

use super::account::Account;
use super::read_rate::ReadRate;
use super::sys::{self, FileRights};
use super::wire::{self, Channel, HEADER};

/// The largest output that is read at once: what a pipe can hold.
const CHUNK_BYTES: usize = 64 * 1024;

/// Files of the program below this number are fixed.
const FREE_NUMBERS: i32 = 10;

/// The shim's ends.
pub(super) struct Pipes<'a> {
    /// `None` when the payload was written, or the program does not read it.
    stdin: Option<OwnedFd>,
    /// The rest of the payload.
    payload: &'a [u8],
    /// As [`Channel::ALL`]; `None` when no process can write to it any more.
    outputs: [Option<OwnedFd>; 4],
    rate: ReadRate,
}

/// The program's ends.
pub(super) struct Stdio {
    /// stdin, stdout, stderr.
    files: [OwnedFd; 3],
    /// For [`Channel::Report`] and [`Channel::Result`].
    reports: Option<[OwnedFd; 2]>,
}

impl Stdio {
    pub(super) fn files(&self) -> [BorrowedFd<'_>; 3] {
        self.files.each_ref().map(AsFd::as_fd)
    }

    pub(super) fn report_files(&self) -> Option<[BorrowedFd<'_>; 2]> {
        self.reports.as_ref().map(|files| files.each_ref().map(AsFd::as_fd))
    }
}

impl<'a> Pipes<'a> {
    /// Without a payload stdin is `/dev/null`. The pipes belong to the user of the program, who may open them again as
    /// `/dev/stdout`.
    ///
    /// # Errors
    /// As the system calls.
    pub(super) fn new(payload: &'a [u8], account: Option<Account>, has_reports: bool) -> io::Result<(Self, Stdio)> {
        let _rights = account.map(FileRights::of);
        let (stdin, our_stdin) = if payload.is_empty() {
            (open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?, None)
        } else {
            let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
            fcntl_setfl(&ours, OFlags::NONBLOCK)?;
            (theirs, Some(ours))
        };
        let (our_stdout, stdout) = output_pipe()?;
        let (our_stderr, stderr) = output_pipe()?;
        let (mut outputs, mut reports) = ([Some(our_stdout), Some(our_stderr), None, None], None);
        if has_reports {
            let ((our_report, report), (our_result, result)) = (output_pipe()?, output_pipe()?);
            (outputs[2], outputs[3]) = (Some(our_report), Some(our_result));
            reports = Some([with_free_number(&report)?, with_free_number(&result)?]);
        }
        let mut pipes = Self { stdin: our_stdin, payload, outputs, rate: ReadRate::new(Instant::now()) };
        pipes.write_payload();
        Ok((pipes, Stdio { files: [stdin, stdout, stderr], reports }))
    }

    /// Whether there may be more output.
    pub(super) fn are_open(&self) -> bool {
        self.outputs.iter().any(Option::is_some)
    }

    /// Waits for the server to send something, for the pipes, and for a child to exit; writes payload, and appends output
    /// to `frames`, unless it has to pause, see [`ReadRate`]. While the server has not taken the frames, waits for that instead
    /// of reading output. Returns whether the server has sent something.
    pub(super) fn transfer(
        &mut self,
        server: Option<BorrowedFd<'_>>,
        timeout: Option<Duration>,
        frames: &mut Vec<u8>,
    ) -> bool {
        let is_behind = !frames.is_empty();
        let reads = self.are_open() && !is_behind;
        let pause = if reads { self.rate.pause(Instant::now()) } else { Duration::ZERO };
        let may_read = reads && pause.is_zero();
        let timeout = if pause.is_zero() { timeout } else { Some(timeout.map_or(pause, |timeout| timeout.min(pause))) };
        let outputs = self.outputs.each_ref().map(|file| file.as_ref().filter(|_| may_read).map(AsFd::as_fd));
        let [stdout, stderr, report, result] = outputs.map(|file| (file, PollFlags::IN));
        let stdin = (self.stdin.as_ref().map(AsFd::as_fd), PollFlags::OUT);
        let server = (server, if is_behind { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN });
        let sources = [server, stdin, stdout, stderr, report, result];
        let [server, stdin, outputs @ ..] = sys::wait(sources, timeout);
        if !stdin.is_empty() {
            self.write_payload();
        }
        if outputs.iter().any(|ready| !ready.is_empty()) {
            self.rate.add(Instant::now());
        }
        for ((output, ready), channel) in self.outputs.iter_mut().zip(outputs).zip(Channel::ALL) {
            if output.as_ref().is_some_and(|pipe| !ready.is_empty() && !read(pipe, ready, channel, frames)) {
                *output = None;
            }
        }
        !server.difference(PollFlags::OUT).is_empty()
    }

    /// Errors are ignored, because a program need not read its payload.
    fn write_payload(&mut self) {
        while let Some(stdin) = &self.stdin {
            match rustix::io::write(stdin, self.payload) {
                Ok(written) if written < self.payload.len() => self.payload = &self.payload[written..],
                Err(rustix::io::Errno::AGAIN) => return,
                Err(rustix::io::Errno::INTR) => {}
                Ok(_) | Err(_) => self.stdin = None,
            }
        }
    }
}

fn output_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    // A process that opens it, too, could take what `poll` has announced.
    fcntl_setfl(&ours, OFlags::NONBLOCK)?;
    Ok((ours, theirs))
}

fn with_free_number(file: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(file, FREE_NUMBERS)?)
}

/// Appends output to `frames`. Returns whether there may be more.
fn read(pipe: &OwnedFd, ready: PollFlags, channel: Channel, frames: &mut Vec<u8>) -> bool {
    if !ready.contains(PollFlags::IN) {
        // No process holds the other end, and the pipe is empty.
        return false;
    }
    let start = frames.len();
    frames.extend_from_slice(&[0; HEADER]);
    frames.reserve_exact(CHUNK_BYTES);
    match rustix::io::read(pipe, spare_capacity(frames)) {
        Ok(1..) => {
            let length = frames.len() - start - HEADER;
            frames[start..start + HEADER].copy_from_slice(&wire::header(channel as u8, length));
            !ready.contains(PollFlags::HUP) || length >= CHUNK_BYTES
        }
        result => {
            frames.truncate(start);
            matches!(result, Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR))
        }
    }
}
