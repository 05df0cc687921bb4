//! The server's connection to a shim, the process that runs the attempts of one slot.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use super::wire::{self, REPORT_BYTES, Report};

/// Dropping it makes the shim kill the processes of its attempt and exit.
#[derive(Debug)]
pub(super) struct Shim {
    socket: UnixStream,
    /// The part of a report that has been read.
    received: Vec<u8>,
}

impl Shim {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self { socket, received: Vec::with_capacity(REPORT_BYTES) }
    }

    /// Sends the message of [`wire::Start`] with stdout, stderr and, if the process gets a payload, stdin.
    ///
    /// # Errors
    /// `BrokenPipe` if the shim no longer runs.
    pub(super) async fn start(&mut self, message: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let socket = &self.socket;
        let sent = socket.async_io(Interest::WRITABLE, || wire::send(socket.as_fd(), message, files)).await?;
        self.socket.write_all(&message[sent..]).await
    }

    /// Sends [`wire::TERMINATE`] or [`wire::KILL`].
    pub(super) async fn order(&mut self, order: u8) {
        // A shim that no longer runs is noticed by `report`.
        let _ = self.socket.write_all(&[order]).await;
    }

    /// Waits for the next report. Can be cancelled without losing one.
    ///
    /// # Errors
    /// When the connection is closed: the shim was killed, and none of its processes is left if the supervisor runs.
    pub(super) async fn report(&mut self) -> io::Result<Report> {
        loop {
            if let Some(report) = self.received.first_chunk() {
                let report = Report::decode(report);
                self.received.clear();
                return report;
            }
            // Exactly one report: the next one comes only after another order.
            let missing = REPORT_BYTES - self.received.len();
            if (&mut self.socket).take(missing as u64).read_buf(&mut self.received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
