//! Messages between the server, its supervisor and the shims, on Unix stream sockets.
//!
//! | from | to | message |
//! |---|---|---|
//! | server | supervisor | [`FORK`] with the socket of the new shim |
//! | server | shim | [`START`] with the encoded [`Start`] and the pipes; later [`TERMINATE`], [`KILL`] |
//! | shim | server | [`Report`] |

use std::ffi::OsStr;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

use super::limits::Limits;
use super::sys::Exit;

/// Asks the supervisor to fork a shim.
pub(super) const FORK: u8 = b'F';
/// Starts an attempt.
const START: u8 = b'S';
/// Sends SIGTERM to the process group of the attempt.
pub(super) const TERMINATE: u8 = b'T';
/// Kills all processes of the attempt.
pub(super) const KILL: u8 = b'K';

/// Files that one message can carry: stdout, stderr, stdin.
const FILES_MAX: usize = 3;
/// Bytes before the items of [`START`]: the message and the length of all items.
const START_HEADER: usize = 5;

/// Encodes what a shim needs to start an attempt. Items that are equal for all attempts of a handler are encoded once.
#[derive(Clone, Debug)]
pub(super) struct Start(Vec<u8>);

impl Start {
    pub(super) fn new(program: &OsStr, limits: &Limits) -> Self {
        let mut start = Self(vec![START, 0, 0, 0, 0]);
        start.item(b'P', program.as_bytes());
        for (tag, limit) in [
            (b'm', limits.memory_bytes),
            (b'c', limits.cpu_seconds),
            (b'f', limits.open_files),
            (b's', limits.file_bytes),
        ] {
            if let Some(limit) = limit {
                start.item(tag, &limit.to_le_bytes());
            }
        }
        start
    }

    pub(super) fn argument(&mut self, argument: &OsStr) {
        self.item(b'A', argument.as_bytes());
    }

    /// `name` must not contain `=`.
    pub(super) fn variable(&mut self, name: &OsStr, value: &OsStr) {
        let (name, value) = (name.as_bytes(), value.as_bytes());
        self.header(b'E', name.len() + 1 + value.len());
        self.0.extend_from_slice(name);
        self.0.push(b'=');
        self.0.extend_from_slice(value);
    }

    /// Without one, the shim creates a directory for the attempt.
    pub(super) fn directory(&mut self, directory: &OsStr) {
        self.item(b'D', directory.as_bytes());
    }

    /// The message to send.
    pub(super) fn message(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len() - START_HEADER).unwrap_or(u32::MAX);
        self.0[1..START_HEADER].copy_from_slice(&length.to_le_bytes());
        self.0
    }

    fn item(&mut self, tag: u8, bytes: &[u8]) {
        self.header(tag, bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn header(&mut self, tag: u8, length: usize) {
        self.0.push(tag);
        self.0.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    }
}

/// What a shim was asked to do.
pub(super) enum Order {
    /// An error if the message is malformed or its files are missing.
    Start(io::Result<Box<StartOrder>>),
    Terminate,
    Kill,
}

/// A decoded [`Start`].
pub(super) struct StartOrder {
    pub(super) command: Command,
    /// Whether the server has chosen the working directory.
    pub(super) has_directory: bool,
}

/// Waits for the next order; `None` when the server has closed the connection.
///
/// # Errors
/// When receiving fails or the message is unknown.
pub(super) fn receive_order(socket: &OwnedFd) -> io::Result<Option<Order>> {
    let (message, files) = receive(socket)?;
    match message {
        None => Ok(None),
        Some(START) => {
            let mut length = [0; START_HEADER - 1];
            read_exact(socket, &mut length)?;
            let mut items = vec![0; usize::try_from(u32::from_le_bytes(length)).map_err(|_| malformed())?];
            read_exact(socket, &mut items)?;
            Ok(Some(Order::Start(decode_start(&items, files))))
        }
        Some(TERMINATE) => Ok(Some(Order::Terminate)),
        Some(KILL) => Ok(Some(Order::Kill)),
        Some(_) => Err(malformed()),
    }
}

fn decode_start(mut items: &[u8], files: Vec<OwnedFd>) -> io::Result<Box<StartOrder>> {
    let (_, program) = next_item(&mut items)?.filter(|(tag, _)| *tag == b'P').ok_or_else(malformed)?;
    #[expect(clippy::disallowed_methods, reason = "this is the module that others must use instead")]
    let mut command = Command::new(OsStr::from_bytes(program));
    command.env_clear().process_group(0);
    let (mut limits, mut has_directory) = (Limits::default(), false);
    while let Some((tag, bytes)) = next_item(&mut items)? {
        let number = || bytes.try_into().map(u64::from_le_bytes).map_err(|_| malformed());
        match tag {
            b'A' => drop(command.arg(OsStr::from_bytes(bytes))),
            b'E' => {
                let at = bytes.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
                command.env(OsStr::from_bytes(&bytes[..at]), OsStr::from_bytes(&bytes[at + 1..]));
            }
            b'D' => {
                command.current_dir(OsStr::from_bytes(bytes));
                has_directory = true;
            }
            b'm' => limits.memory_bytes = Some(number()?),
            b'c' => limits.cpu_seconds = Some(number()?),
            b'f' => limits.open_files = Some(number()?),
            b's' => limits.file_bytes = Some(number()?),
            _ => return Err(malformed()),
        }
    }
    limits.apply_to(&mut command);
    let mut files = files.into_iter();
    // Files are missing if the shim has no descriptors left.
    let (Some(stdout), Some(stderr)) = (files.next(), files.next()) else {
        return Err(io::Error::from_raw_os_error(libc::EMFILE));
    };
    command.stdout(stdout).stderr(stderr).stdin(files.next().map_or_else(Stdio::null, Stdio::from));
    Ok(Box::new(StartOrder { command, has_directory }))
}

fn next_item<'a>(items: &mut &'a [u8]) -> io::Result<Option<(u8, &'a [u8])>> {
    let Some((tag, rest)) = items.split_first() else { return Ok(None) };
    let (length, rest) = rest.split_first_chunk().ok_or_else(malformed)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| malformed())?;
    let (item, rest) = rest.split_at_checked(length).ok_or_else(malformed)?;
    *items = rest;
    Ok(Some((*tag, item)))
}

/// What a shim reports. After all but the first and [`Report::ProgramEnded`] it is ready for the next attempt.
#[derive(Debug)]
pub(super) enum Report {
    /// The supervisor could not fork the shim.
    NoShim(io::Error),
    NoDirectory(io::Error),
    /// The program could not be started.
    NoProgram(io::Error),
    /// The program has ended, but processes that it started still run.
    ProgramEnded,
    /// No process of the attempt is left.
    Ended(Ended),
}

#[derive(Debug)]
pub(super) struct Ended {
    /// The exit of the program, with the usage of all its descendants.
    pub(super) exit: Exit,
    /// Why the working directory was not removed.
    pub(super) not_removed: Option<io::Error>,
}

/// Size of an encoded [`Report`]: kind, wait status or error, error of the removal, CPU time (µs), peak memory (bytes).
pub(super) const REPORT_BYTES: usize = 25;

impl Report {
    pub(super) fn encode(&self) -> [u8; REPORT_BYTES] {
        let errno = |error: &io::Error| error.raw_os_error().unwrap_or(libc::EINVAL);
        let (kind, code) = match self {
            Self::NoShim(error) => (1, errno(error)),
            Self::NoDirectory(error) => (2, errno(error)),
            Self::NoProgram(error) => (3, errno(error)),
            Self::ProgramEnded => (4, 0),
            Self::Ended(ended) => (5, ended.exit.status.into_raw()),
        };
        let (mut removal, mut cpu, mut peak) = (0, 0, 0);
        if let Self::Ended(Ended { exit, not_removed }) = self {
            removal = not_removed.as_ref().map_or(0, errno);
            cpu = u64::try_from(exit.cpu_time.as_micros()).unwrap_or(u64::MAX);
            peak = exit.peak_memory_bytes.unwrap_or(0);
        }
        let mut bytes = [0; REPORT_BYTES];
        bytes[0] = kind;
        bytes[1..5].copy_from_slice(&code.to_le_bytes());
        bytes[5..9].copy_from_slice(&removal.to_le_bytes());
        bytes[9..17].copy_from_slice(&cpu.to_le_bytes());
        bytes[17..].copy_from_slice(&peak.to_le_bytes());
        bytes
    }

    /// # Errors
    /// When the bytes are not those of an encoded report.
    pub(super) fn decode(bytes: &[u8; REPORT_BYTES]) -> io::Result<Self> {
        let i32_at = |at: usize| i32::from_le_bytes(std::array::from_fn(|n| bytes[at + n]));
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|n| bytes[at + n]));
        let (code, removal, peak) = (i32_at(1), i32_at(5), u64_at(17));
        let error = io::Error::from_raw_os_error;
        Ok(match bytes[0] {
            1 => Self::NoShim(error(code)),
            2 => Self::NoDirectory(error(code)),
            3 => Self::NoProgram(error(code)),
            4 => Self::ProgramEnded,
            5 => Self::Ended(Ended {
                exit: Exit {
                    status: ExitStatus::from_raw(code),
                    cpu_time: Duration::from_micros(u64_at(9)),
                    peak_memory_bytes: (peak > 0).then_some(peak),
                },
                not_removed: (removal != 0).then(|| error(removal)),
            }),
            _ => return Err(malformed()),
        })
    }
}

/// Sends the beginning of a message with files. Returns how many bytes were sent.
///
/// # Errors
/// As the system call; `WouldBlock` if the socket does not block and its buffer is full.
pub(super) fn send(socket: impl AsFd, message: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(FILES_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(sendmsg(socket, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Waits for the first byte of a message and the files that it carries; no byte when the connection is closed.
///
/// # Errors
/// As the system call.
pub(super) fn receive(socket: &OwnedFd) -> io::Result<(Option<u8>, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(FILES_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let received = loop {
        // One byte, because a longer read could join two messages of which the second carries files.
        match recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            received => break received?,
        }
    };
    let mut files = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            files.extend(received);
        }
    }
    Ok(((received.bytes > 0).then_some(byte[0]), files))
}

fn read_exact(socket: &OwnedFd, mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        match rustix::io::read(socket, &mut *buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => buffer = &mut buffer[length..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed message")
}
