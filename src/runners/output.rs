//! What an attempt writes: head and tail are kept, and can be read while it runs.

use crate::model::{Output, OutputStream};

/// Bounded memory of both streams of one running attempt.
#[derive(Debug, Default)]
pub struct OutputBuffer {}

/// What [`OutputBuffer::read`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// The bytes from `offset` on, as far as they were kept; empty when nothing is there yet.
    pub data: Vec<u8>,
    /// Offset of the first byte of `data`; later than asked for when bytes in between were not kept.
    pub offset: u64,
}

impl OutputBuffer {
    /// Adds what the attempt wrote.
    pub fn write(&self, _stream: OutputStream, _bytes: &[u8]) {
        todo!()
    }

    /// Bytes of one stream from `offset` on.
    pub fn read(&self, _stream: OutputStream, _offset: u64) -> Chunk {
        todo!()
    }

    /// Bytes written to both streams so far, kept or not.
    pub fn total(&self) -> u64 {
        todo!()
    }

    /// Waits until something was written after `seen` bytes in all, or the attempt has ended.
    /// Answers false when it has ended and nothing more will come.
    pub async fn changed(&self, _seen: u64) -> bool {
        todo!()
    }

    /// The attempt has ended; readers get what is left.
    pub fn close(&self) {
        todo!()
    }

    /// What is kept, for the record; `None` when nothing was written.
    pub fn captured(&self) -> Option<Output> {
        todo!()
    }
}
