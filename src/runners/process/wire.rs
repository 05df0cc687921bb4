//! Messages between the server, its supervisor and the shims, on Unix stream sockets.
//!
//! | from | to | message |
//! |---|---|---|
//! | server | supervisor | [`FORK`] with the socket of the new shim |
//! | server | shim | [`Start`] with the payload; later [`TERMINATE`], [`KILL`] |
//! | shim | server | output of the program; [`Report`] |
//!
//! All but [`FORK`] are frames: a tag, the length of the content (4 bytes, little-endian), and the content.

use std::ffi::{CStr, OsStr};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

use super::account::Account;
use super::limits::Limits;
use super::sys::Exit;
use crate::model::limits::PayloadLimit;

/// Asks the supervisor to fork a shim.
pub(super) const FORK: u8 = b'F';
/// Tag of a [`Start`].
pub(super) const START: u8 = b'S';
/// Sends SIGTERM to all processes of the attempt.
pub(super) const TERMINATE: u8 = b'T';
/// Kills all processes of the attempt.
pub(super) const KILL: u8 = b'K';

/// Directory with the results of the parents of the task, in the working directory of an attempt.
pub(super) const PARENTS_DIRECTORY: &str = "parents";

/// Bytes before the content of a frame: tag and length.
pub(super) const HEADER: usize = 5;

/// The header of a frame.
pub(super) fn header(tag: u8, length: usize) -> [u8; HEADER] {
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    [tag, a, b, c, d]
}

/// The tag and the content of the first frame, if `bytes` contains it completely.
pub(super) fn first_frame(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
    Some((header[0], rest.get(..content_length(*header))?))
}

/// How many bytes of the first frame are missing in `bytes`, as far as that is known.
pub(super) fn missing_bytes(bytes: &[u8]) -> usize {
    let length = bytes.first_chunk().map_or(0, |header| content_length(*header));
    (HEADER + length).saturating_sub(bytes.len())
}

fn content_length([_, length @ ..]: [u8; HEADER]) -> usize {
    usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX)
}

/// Encodes what a shim needs to start an attempt. Items that are equal for all attempts of a handler are encoded once.
/// Each item is a frame, and texts end with a zero byte, as the kernel wants them.
#[derive(Clone, Debug)]
pub(super) struct Start(Vec<u8>);

impl Start {
    pub(super) fn new(program: &OsStr, limits: &Limits) -> Self {
        let mut start = Self(header(START, 0).to_vec());
        start.item(b'P', &[program.as_bytes(), b"\0"]);
        for (tag, limit) in [
            (b'm', limits.memory_bytes),
            (b'c', limits.cpu_seconds),
            (b'f', limits.open_files),
            (b's', limits.file_bytes),
            (b'p', limits.processes),
        ] {
            if let Some(limit) = limit {
                start.item(tag, &[&limit.to_le_bytes()]);
            }
        }
        start
    }

    pub(super) fn argument(&mut self, argument: &OsStr) {
        self.item(b'A', &[argument.as_bytes(), b"\0"]);
    }

    /// `name` must not contain `=`. A later variable replaces an earlier one of the same name.
    pub(super) fn variable(&mut self, name: &OsStr, value: &OsStr) {
        self.item(b'E', &[name.as_bytes(), b"=", value.as_bytes(), b"\0"]);
    }

    /// Time that the processes that the program leaves behind have, in milliseconds.
    pub(super) fn grace(&mut self, grace: Duration) {
        let millis = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.item(b'g', &[&millis.to_le_bytes()]);
    }

    pub(super) fn nice(&mut self, nice: u8) {
        self.item(b'n', &[&u64::from(nice).to_le_bytes()]);
    }

    /// The payload goes to this file of the directory, and not to stdin.
    pub(super) fn payload_file(&mut self, name: &str) {
        self.item(b'i', &[name.as_bytes(), b"\0"]);
    }

    /// This file of the directory is the result. It is read up to one byte beyond the limit.
    pub(super) fn result_file(&mut self, name: &str, PayloadLimit(limit): PayloadLimit) {
        self.item(b'l', &[&(limit as u64).to_le_bytes()]);
        self.item(b'r', &[name.as_bytes(), b"\0"]);
    }

    /// Without one, the program runs as the server's user.
    pub(super) fn account(&mut self, account: Account) {
        self.item(b'U', &[&account.uid.to_le_bytes(), &account.gid.to_le_bytes()]);
    }

    /// Without one, the shim creates a directory for the attempt.
    pub(super) fn directory(&mut self, directory: &OsStr) {
        self.item(b'D', &[directory.as_bytes(), b"\0"]);
    }

    /// Attempts of different owners never have the same directory.
    pub(super) fn owner(&mut self, parts: &[&[u8]]) {
        self.item(b'O', parts);
    }

    /// A file in [`PARENTS_DIRECTORY`] of the directory that the shim creates.
    pub(super) fn parent(&mut self, name: &str, content: &[u8]) {
        self.item(b'F', &[name.as_bytes(), b"\0", content]);
    }

    /// The program gets pipes for [`Channel::Report`] and [`Channel::Result`].
    pub(super) fn reports(&mut self) {
        self.item(b'R', &[]);
    }

    /// The message to send, which is followed by a payload of this length.
    pub(super) fn message(mut self, payload_bytes: usize) -> Vec<u8> {
        self.0.extend_from_slice(&header(b'I', payload_bytes));
        let length = self.0.len() - HEADER + payload_bytes;
        self.0[..HEADER].copy_from_slice(&header(START, length));
        self.0
    }

    fn item(&mut self, tag: u8, parts: &[&[u8]]) {
        self.0.extend_from_slice(&header(tag, parts.iter().map(|part| part.len()).sum()));
        for part in parts {
            self.0.extend_from_slice(part);
        }
    }
}

/// A decoded [`Start`].
#[derive(Debug, Default)]
pub(super) struct StartOrder<'a> {
    /// An absolute path, or a name to search for in `PATH`.
    pub(super) program: &'a CStr,
    pub(super) args: Vec<&'a CStr>,
    pub(super) env: Vec<&'a CStr>,
    pub(super) limits: Limits,
    pub(super) grace: Duration,
    pub(super) nice: u8,
    pub(super) account: Option<Account>,
    /// `None` if the shim is to create one.
    pub(super) directory: Option<&'a CStr>,
    /// Whose directories the attempt may get.
    pub(super) owner: &'a [u8],
    pub(super) has_reports: bool,
    /// `None`: stdin.
    pub(super) payload_file: Option<&'a CStr>,
    /// `None`: stdout.
    pub(super) result_file: Option<&'a CStr>,
    /// Bytes that a result may have.
    pub(super) result_bytes_max: u64,
    /// Names and contents of files in [`PARENTS_DIRECTORY`].
    pub(super) parents: Vec<(&'a OsStr, &'a [u8])>,
    pub(super) payload: &'a [u8],
}

impl<'a> StartOrder<'a> {
    /// # Errors
    /// When the message is malformed, or a text contains a zero byte.
    pub(super) fn decode(message: &'a [u8]) -> io::Result<Self> {
        let mut start = Self::default();
        let (_, mut content) = first_frame(message).ok_or_else(malformed)?;
        while !content.is_empty() {
            let (tag, item) = first_frame(content).ok_or_else(malformed)?;
            content = &content[HEADER + item.len()..];
            let text = || CStr::from_bytes_with_nul(item).map_err(|_| malformed());
            let number = || item.try_into().map(u64::from_le_bytes).map_err(|_| malformed());
            match tag {
                b'P' => start.program = text()?,
                b'A' => start.args.push(text()?),
                b'E' => start.set_variable(text()?),
                b'D' => start.directory = Some(text()?),
                b'O' => start.owner = item,
                b'm' => start.limits.memory_bytes = Some(number()?),
                b'c' => start.limits.cpu_seconds = Some(number()?),
                b'f' => start.limits.open_files = Some(number()?),
                b's' => start.limits.file_bytes = Some(number()?),
                b'p' => start.limits.processes = Some(number()?),
                b'g' => start.grace = Duration::from_millis(number()?),
                b'n' => start.nice = u8::try_from(number()?).map_err(|_| malformed())?,
                b'i' => start.payload_file = Some(text()?),
                b'l' => start.result_bytes_max = number()?,
                b'r' => start.result_file = Some(text()?),
                b'U' => start.account = Some(account(number()?)),
                b'R' => start.has_reports = true,
                b'F' => start.parents.push(file(item)?),
                b'I' => start.payload = item,
                _ => return Err(malformed()),
            }
        }
        Ok(start)
    }

    /// The value of a variable of the program.
    pub(super) fn variable(&self, name: &str) -> Option<&'a OsStr> {
        let values = self.env.iter().map(|variable| variable.to_bytes().split_at(name_length(variable)));
        let mut values = values.filter(|(found, _)| *found == name.as_bytes());
        values.next().map(|(_, value)| OsStr::from_bytes(&value[1..]))
    }

    fn set_variable(&mut self, variable: &'a CStr) {
        let name = &variable.to_bytes()[..=name_length(variable)];
        match self.env.iter_mut().find(|earlier| earlier.to_bytes().starts_with(name)) {
            Some(earlier) => *earlier = variable,
            None => self.env.push(variable),
        }
    }
}

/// A name and a content.
fn file(item: &[u8]) -> io::Result<(&OsStr, &[u8])> {
    let end = item.iter().position(|byte| *byte == 0).ok_or_else(malformed)?;
    Ok((OsStr::from_bytes(&item[..end]), &item[end + 1..]))
}

/// The number has the user in its lower half.
fn account(number: u64) -> Account {
    let [a, b, c, d, group @ ..] = number.to_le_bytes();
    Account { uid: u32::from_le_bytes([a, b, c, d]), gid: u32::from_le_bytes(group) }
}

fn name_length(variable: &CStr) -> usize {
    variable.to_bytes().iter().position(|byte| *byte == b'=').unwrap_or(0)
}

/// A pipe that the program writes to. The number is the tag of a frame with output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Channel {
    Stdout = b'1',
    Stderr = b'2',
    Report = b'3',
    Result = b'4',
}

impl Channel {
    pub(super) const ALL: [Self; 4] = [Self::Stdout, Self::Stderr, Self::Report, Self::Result];

    /// `None` if the frame is a report of the shim.
    pub(super) fn of_tag(tag: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|channel| *channel as u8 == tag)
    }
}

/// What a shim reports. After all but the first and [`Report::ProgramEnded`] it is ready for the next attempt.
#[derive(Debug)]
pub(super) enum Report {
    /// The supervisor could not fork the shim.
    NoShim(io::Error),
    NoDirectory(io::Error),
    /// The program could not be started.
    NoProgram(io::Error),
    /// The program has ended, but processes that it started still run and can write output.
    ProgramEnded,
    /// No process of the attempt is left, and all output was sent.
    Ended(Ended),
}

#[derive(Debug)]
pub(super) struct Ended {
    /// The exit of the program, with the usage of all its descendants.
    pub(super) exit: Exit,
    /// See [`crate::runners::RunReport::output_incomplete`].
    pub(super) output_incomplete: bool,
    /// Why the file of the result was not read.
    pub(super) no_result: Option<io::Error>,
    /// Why the working directory was not removed.
    pub(super) not_removed: Option<io::Error>,
}

/// Content of a frame with a [`Report`]: wait status or error, error of the removal, CPU time (µs), peak memory (bytes), whether
/// output is incomplete, error of the file of the result.
const REPORT_BYTES: usize = 29;

impl Report {
    /// The frame.
    pub(super) fn encode(&self) -> [u8; HEADER + REPORT_BYTES] {
        let errno = |error: &io::Error| error.raw_os_error().unwrap_or(libc::EINVAL);
        let (tag, code) = match self {
            Self::NoShim(error) => (b'S', errno(error)),
            Self::NoDirectory(error) => (b'D', errno(error)),
            Self::NoProgram(error) => (b'P', errno(error)),
            Self::ProgramEnded => (b'L', 0),
            Self::Ended(ended) => (b'E', ended.exit.status.into_raw()),
        };
        let (mut removal, mut result, mut incomplete, mut cpu, mut peak) = (0, 0, false, 0, 0);
        if let Self::Ended(Ended { exit, output_incomplete, no_result, not_removed }) = self {
            incomplete = *output_incomplete;
            removal = not_removed.as_ref().map_or(0, errno);
            result = no_result.as_ref().map_or(0, errno);
            cpu = u64::try_from(exit.cpu_time.as_micros()).unwrap_or(u64::MAX);
            peak = exit.peak_memory_bytes.unwrap_or(0);
        }
        let mut frame = [0; HEADER + REPORT_BYTES];
        let (header_bytes, content) = frame.split_at_mut(HEADER);
        header_bytes.copy_from_slice(&header(tag, REPORT_BYTES));
        content[..4].copy_from_slice(&code.to_le_bytes());
        content[4..8].copy_from_slice(&removal.to_le_bytes());
        content[8..16].copy_from_slice(&cpu.to_le_bytes());
        content[16..24].copy_from_slice(&peak.to_le_bytes());
        content[24] = u8::from(incomplete);
        content[25..].copy_from_slice(&result.to_le_bytes());
        frame
    }

    /// # Errors
    /// When this is not the tag and the content of an encoded report.
    pub(super) fn decode(tag: u8, content: &[u8]) -> io::Result<Self> {
        let content: &[u8; REPORT_BYTES] = content.try_into().map_err(|_| malformed())?;
        let i32_at = |at: usize| i32::from_le_bytes(std::array::from_fn(|n| content[at + n]));
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|n| content[at + n]));
        let (code, removal, peak, result) = (i32_at(0), i32_at(4), u64_at(16), i32_at(25));
        let error = io::Error::from_raw_os_error;
        Ok(match tag {
            b'S' => Self::NoShim(error(code)),
            b'D' => Self::NoDirectory(error(code)),
            b'P' => Self::NoProgram(error(code)),
            b'L' => Self::ProgramEnded,
            b'E' => Self::Ended(Ended {
                exit: Exit {
                    status: ExitStatus::from_raw(code),
                    cpu_time: Duration::from_micros(u64_at(8)),
                    peak_memory_bytes: (peak > 0).then_some(peak),
                },
                output_incomplete: content[24] != 0,
                no_result: (result != 0).then(|| error(result)),
                not_removed: (removal != 0).then(|| error(removal)),
            }),
            _ => return Err(malformed()),
        })
    }
}

/// Sends [`FORK`] with the socket of the new shim.
///
/// # Errors
/// As the system call; `WouldBlock` if the socket does not block and its buffer is full.
pub(super) fn send_fork(socket: impl AsFd, shim: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files = [shim];
    if !control.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(sendmsg(socket, &[IoSlice::new(&[FORK])], &mut control, SendFlags::NOSIGNAL).map(drop)?)
}

/// Waits for [`FORK`]; returns the socket of the new shim, if there were descriptors left for it.
///
/// # Errors
/// As the system call; `UnexpectedEof` when the connection is closed.
pub(super) fn receive_fork(socket: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let received = loop {
        // One byte, because a longer read could join two messages that carry files.
        match recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            received => break received?,
        }
    };
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut shim = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            shim = received.last();
        }
    }
    Ok(shim)
}

pub(super) fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed message")
}
