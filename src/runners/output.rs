//! The output of an attempt: head and tail of each stream are kept, and can be read while it runs.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::model::limits::OUTPUT_KEPT_BYTES;
use crate::model::{Captured, Output, OutputStream};

/// Stdout and stderr of one attempt, bounded in memory. Allocates only when something is written.
#[derive(Debug, Default)]
pub struct OutputBuffer {
    streams: Mutex<Streams>,
    changed: Notify,
}

/// Result of [`OutputBuffer::read`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// The kept bytes from `offset` on; empty if there are none yet.
    pub data: Vec<u8>,
    /// Offset of the first byte of `data`. Larger than requested if the bytes in between were not kept.
    pub offset: u64,
}

impl OutputBuffer {
    pub fn write(&self, stream: OutputStream, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.streams.lock().get_mut(stream).push(bytes);
        self.changed.notify_waiters();
    }

    /// Reads one stream from `offset` on. If bytes between head and tail were not kept, a read ends with
    /// the head and the next one begins with the tail.
    pub fn read(&self, stream: OutputStream, offset: u64) -> Chunk {
        self.streams.lock().get(stream).read(offset)
    }

    /// The number of bytes written to both streams, kept or not.
    pub fn total(&self) -> u64 {
        self.streams.lock().total()
    }

    /// Waits until more than `seen` bytes have been written in total, or the buffer is closed. Returns
    /// false if it is closed and there are no further bytes.
    pub async fn changed(&self, seen: u64) -> bool {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Enabled before the check, so that a write in between is not missed.
            changed.as_mut().enable();
            {
                let streams = self.streams.lock();
                if streams.total() > seen {
                    return true;
                }
                if streams.closed {
                    return false;
                }
            }
            changed.await;
        }
    }

    /// Ends the output; readers can still read the kept bytes.
    pub fn close(&self) {
        self.streams.lock().closed = true;
        self.changed.notify_waiters();
    }

    /// The kept bytes of both streams; `None` if nothing was written.
    pub fn captured(&self) -> Option<Output> {
        let streams = self.streams.lock();
        (streams.total() > 0).then(|| Output { stdout: streams.stdout.captured(), stderr: streams.stderr.captured() })
    }

    /// The last `bytes_max` bytes of one stream as text, for messages.
    pub fn last_text(&self, stream: OutputStream, bytes_max: usize) -> String {
        let bytes = self.streams.lock().get(stream).last(bytes_max);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[derive(Debug, Default)]
struct Streams {
    stdout: StreamBuffer,
    stderr: StreamBuffer,
    closed: bool,
}

impl Streams {
    fn get(&self, stream: OutputStream) -> &StreamBuffer {
        match stream {
            OutputStream::Stdout => &self.stdout,
            OutputStream::Stderr => &self.stderr,
        }
    }

    fn get_mut(&mut self, stream: OutputStream) -> &mut StreamBuffer {
        match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        }
    }

    fn total(&self) -> u64 {
        self.stdout.total + self.stderr.total
    }
}

/// One stream: the head is filled first, then the tail keeps the most recent bytes.
#[derive(Debug, Default)]
struct StreamBuffer {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    total: u64,
}

impl StreamBuffer {
    fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let (head, rest) = bytes.split_at(bytes.len().min(OUTPUT_KEPT_BYTES - self.head.len()));
        self.head.extend_from_slice(head);
        let rest = &rest[rest.len().saturating_sub(OUTPUT_KEPT_BYTES)..];
        let surplus = (self.tail.len() + rest.len()).saturating_sub(OUTPUT_KEPT_BYTES);
        self.tail.drain(..surplus);
        self.tail.extend(rest);
    }

    fn read(&self, offset: u64) -> Chunk {
        let head_end = self.head.len() as u64;
        let tail_start = self.total - self.tail.len() as u64;
        let mut data = Vec::new();
        if offset < head_end {
            data.extend_from_slice(&self.head[index(offset)..]);
            if tail_start == head_end {
                self.copy_tail(0, &mut data);
            }
            return Chunk { data, offset };
        }
        let offset = offset.max(tail_start);
        if offset < self.total {
            self.copy_tail(index(offset - tail_start), &mut data);
        }
        Chunk { data, offset }
    }

    fn copy_tail(&self, from: usize, into: &mut Vec<u8>) {
        let (first, second) = self.tail.as_slices();
        if from < first.len() {
            into.extend_from_slice(&first[from..]);
        }
        into.extend_from_slice(&second[from.saturating_sub(first.len())..]);
    }

    fn last(&self, bytes_max: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let from_tail = bytes_max.min(self.tail.len());
        // Head and tail are contiguous only if nothing is missing between them.
        if self.total == (self.head.len() + self.tail.len()) as u64 {
            let from_head = (bytes_max - from_tail).min(self.head.len());
            bytes.extend_from_slice(&self.head[self.head.len() - from_head..]);
        }
        self.copy_tail(self.tail.len() - from_tail, &mut bytes);
        bytes
    }

    fn captured(&self) -> Captured {
        let mut tail = Vec::with_capacity(self.tail.len());
        self.copy_tail(0, &mut tail);
        Captured { head: Bytes::copy_from_slice(&self.head), tail: Bytes::from(tail), total: self.total }
    }
}

/// Converts an offset within the kept bytes.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use OutputStream::{Stderr, Stdout};

    #[test]
    fn an_unused_buffer_captures_nothing() {
        let output = OutputBuffer::default();
        output.write(Stdout, b"");
        assert_eq!(output.captured(), None);
        assert_eq!(output.read(Stdout, 7), Chunk { data: Vec::new(), offset: 7 });
    }

    #[test]
    fn a_late_reader_skips_from_the_head_to_the_tail() {
        let output = OutputBuffer::default();
        let written: Vec<u8> = (0..300_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        for part in written.chunks(7_000) {
            output.write(Stdout, part);
        }
        let head = output.read(Stdout, 10);
        assert_eq!((head.offset, &head.data[..]), (10, &written[10..OUTPUT_KEPT_BYTES]));
        let tail = output.read(Stdout, OUTPUT_KEPT_BYTES as u64);
        let tail_start = written.len() - OUTPUT_KEPT_BYTES;
        assert_eq!((tail.offset, &tail.data[..]), (tail_start as u64, &written[tail_start..]));
        let captured = output.captured().unwrap().stdout;
        assert_eq!(captured.total, written.len() as u64);
        assert_eq!((&captured.head[..], &captured.tail[..]), (&written[..OUTPUT_KEPT_BYTES], &written[tail_start..]));
    }

    #[test]
    fn last_text_spans_head_and_tail() {
        let output = OutputBuffer::default();
        output.write(Stderr, &vec![b'a'; OUTPUT_KEPT_BYTES]);
        output.write(Stderr, b"bc");
        assert_eq!(output.last_text(Stderr, 4), "aabc");
        assert_eq!(output.last_text(Stdout, 4), "");
    }

    #[tokio::test]
    async fn a_reader_is_woken_by_a_write_and_by_close() {
        let output = Arc::new(OutputBuffer::default());
        let reader = tokio::spawn({
            let output = Arc::clone(&output);
            async move { (output.changed(0).await, output.changed(3).await) }
        });
        tokio::task::yield_now().await;
        output.write(Stderr, b"one");
        tokio::task::yield_now().await;
        output.close();
        assert_eq!(reader.await.unwrap(), (true, false));
    }

    proptest! {
        #[test]
        fn reading_a_stream_that_fits_returns_every_byte_once(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9_000), 0..12)) {
            let output = OutputBuffer::default();
            let (mut read, mut all) = (Vec::new(), Vec::new());
            for part in parts {
                output.write(Stdout, &part);
                all.extend_from_slice(&part);
                let chunk = output.read(Stdout, read.len() as u64);
                prop_assert_eq!(chunk.offset, read.len() as u64);
                read.extend(chunk.data);
            }
            prop_assert_eq!(read, all);
        }
    }
}
