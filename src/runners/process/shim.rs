//! The server's connection to a shim, the process that runs the attempts of one slot.

use std::io;

use bytes::Buf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::received::Received;
use super::wire::{self, Channel, HEADER, Report};

/// Bytes to read at once; more if a message is longer.
const READ_BYTES: usize = 4 * 1024;
/// Messages with output that are handled before anything else gets a turn.
const OUTPUTS_MAX: usize = 16;

/// Dropping it makes the shim kill the processes of its attempt and exit.
#[derive(Debug)]
pub(super) struct Shim {
    socket: UnixStream,
    /// Begins with the message that is being received.
    received: Vec<u8>,
}

impl Shim {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self { socket, received: Vec::with_capacity(READ_BYTES) }
    }

    /// Sends the message of [`wire::Start`].
    ///
    /// # Errors
    /// `BrokenPipe` if the shim no longer runs.
    pub(super) async fn start(&mut self, message: &[u8], payload: &[u8]) -> io::Result<()> {
        self.socket.write_all_buf(&mut Buf::chain(message, payload)).await
    }

    /// Sends [`wire::TERMINATE`] or [`wire::KILL`].
    pub(super) async fn order(&mut self, order: u8) {
        // A shim that no longer runs is noticed by `report`.
        let _ = self.socket.write_all(&wire::header(order, 0)).await;
    }

    /// Waits for the next report, and hands on the output that comes before it. Can be cancelled without losing
    /// anything.
    ///
    /// # Errors
    /// When the connection is closed: the shim was killed, and none of its processes is left if the supervisor runs.
    pub(super) async fn report(&mut self, received: &mut Received<'_>) -> io::Result<Report> {
        let mut outputs = 0;
        loop {
            if let Some((tag, content)) = wire::first_frame(&self.received) {
                let length = HEADER + content.len();
                let report = match Channel::of_tag(tag) {
                    Some(channel) => {
                        received.take(channel, content).await;
                        None
                    }
                    None => Some(Report::decode(tag, content)?),
                };
                self.received.drain(..length);
                if let Some(report) = report {
                    return Ok(report);
                }
                outputs += 1;
                if outputs % OUTPUTS_MAX == 0 {
                    tokio::task::yield_now().await;
                }
                continue;
            }
            self.received.reserve(wire::missing_bytes(&self.received).max(READ_BYTES));
            if self.socket.read_buf(&mut self.received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Frees the memory that a large output has needed.
    pub(super) fn shrink(&mut self) {
        self.received.shrink_to(READ_BYTES);
    }
}
