//! What the server and a remote worker tell each other.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::model::{OutputStream, Reservation, TaskId, TaskOptions, TraceContext, limits};
use crate::runners::{RunReport, StopCause};

/// Identifies an attempt in all messages about it: its fence, in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

impl Token {
    /// `None` if the text is not a token.
    pub fn parse(text: &str) -> Option<Self> {
        let is_token = (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        u64::from_str_radix(text, 16).ok().filter(|_| is_token).map(Self)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A message to a worker.
#[derive(Clone, Debug)]
pub enum Command {
    Assign(Arc<Assigned>),
    /// Stop an attempt; again with less time, or for a stronger cause.
    Cancel {
        token: Token,
        cause: StopCause,
        grace: Duration,
    },
    /// The attempt is not the worker's any more.
    Stale(Token),
    /// The ends of these attempts are durable.
    Settle(Vec<Token>),
    /// A suspended attempt has a slot again.
    Resumed(Token),
    /// The last message of a stream.
    Close(CloseReason),
}

/// A part of a payload or of a result.
#[derive(Clone, Debug)]
pub struct Chunk {
    pub token: Token,
    /// Bytes before it.
    pub offset: usize,
    pub data: Bytes,
}

/// Why the server ends the stream of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Another stream has introduced itself with the same worker ID.
    Replaced,
    /// The worker was silent for longer than its lease.
    Silent,
    /// The worker has not acknowledged a cancel within its lease.
    CancelIgnored,
}

/// An attempt, for a worker.
#[derive(Clone, Debug)]
pub struct Assigned {
    pub token: Token,
    pub task: TaskId,
    pub options: Arc<TaskOptions>,
    /// 1 for the first attempt.
    pub attempt: u32,
    pub payload: Bytes,
    pub trace: Option<Arc<TraceContext>>,
    /// Memory of a payload that was read from the store, until the worker has accepted the attempt.
    #[expect(dead_code, reason = "its release on drop is what counts")]
    pub memory: Option<Arc<OwnedSemaphorePermit>>,
}

impl Assigned {
    /// Whether the payload travels in chunks after the message.
    pub fn is_chunked(&self) -> bool {
        self.payload.len() > limits::INLINE_BYTES_MAX
    }
}

/// A message of a worker.
#[derive(Debug)]
pub enum WorkerReport {
    Accepted(Token),
    /// As a fraction, 0 to 1, and a note.
    Progress(Token, f32, String),
    Output(Token, OutputStream, Bytes),
    /// Memory of a large result is held until the end is durable.
    Finished(Token, RunReport, Option<Box<Reservation>>),
    CancelAcknowledged(Token),
    Suspended(Token),
    Resuming(Token),
}

#[cfg(test)]
mod tests {
    use super::Token;

    #[test]
    fn a_token_is_read_as_it_was_written_and_other_text_is_none() {
        for number in [0, 7, 0x1a_0000_0000, u64::MAX] {
            assert_eq!(Token::parse(&Token(number).to_string()), Some(Token(number)));
        }
        for text in ["", "+1", "-1", "g", "11111111111111111", "0x1", " 1", "é"] {
            assert_eq!(Token::parse(text), None, "{text}");
        }
    }
}
