//! What a shim was told to do, as read from the connection to the server.

use std::io;
use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::net::{SendFlags, send};

use super::wire::{self, HEADER, KILL, START, TERMINATE};

/// Bytes to read at once; more if a message is longer.
const READ_BYTES: usize = 4 * 1024;

pub(super) enum Order {
    /// The message, for [`wire::StartOrder::decode`].
    Start(Vec<u8>),
    Terminate,
    Kill,
}

/// The shim's end of the connection.
pub(super) struct Orders<'a> {
    socket: &'a OwnedFd,
    received: Vec<u8>,
    is_closed: bool,
}

impl<'a> Orders<'a> {
    pub(super) fn new(socket: &'a OwnedFd) -> Self {
        Self { socket, received: Vec::new(), is_closed: false }
    }

    pub(super) fn socket(&self) -> &'a OwnedFd {
        self.socket
    }

    /// Whether [`Self::next`] returns without reading.
    pub(super) fn is_buffered(&self) -> bool {
        wire::first_frame(&self.received).is_some()
    }

    /// Whether the server is known to have closed the connection.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Waits for the next order; `None` when the server has closed the connection or sent something else.
    pub(super) fn next(&mut self) -> Option<Order> {
        loop {
            if let Some((tag, content)) = wire::first_frame(&self.received) {
                let length = HEADER + content.len();
                let rest = self.received.split_off(length);
                let message = std::mem::replace(&mut self.received, rest);
                return match tag {
                    START => Some(Order::Start(message)),
                    TERMINATE => Some(Order::Terminate),
                    KILL => Some(Order::Kill),
                    _ => None,
                };
            }
            self.received.reserve(wire::missing_bytes(&self.received).max(READ_BYTES));
            match rustix::io::read(self.socket, spare_capacity(&mut self.received)) {
                Ok(1..) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) | Err(_) => {
                    self.is_closed = true;
                    return None;
                }
            }
        }
    }

    /// Sends as much of the messages as the server takes without a wait, and removes it.
    ///
    /// # Errors
    /// As the system call.
    pub(super) fn try_send(&self, frames: &mut Vec<u8>) -> io::Result<()> {
        while !frames.is_empty() {
            match send(self.socket, frames, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => drop(frames.drain(..sent)),
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Sends messages to the server. Waits while its buffer is full.
    ///
    /// # Errors
    /// As the system call.
    pub(super) fn send(&self, mut frames: &[u8]) -> io::Result<()> {
        while !frames.is_empty() {
            match rustix::io::write(self.socket, frames) {
                Ok(written) => frames = &frames[written..],
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
