//! What an attempt wrote, and what it cost.

use std::time::Duration;

use bytes::Bytes;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OutputStream {
    Stdout = 1,
    /// Standard error, and the log of built-in handlers.
    Stderr = 2,
}

/// The stored part of one stream: its head and its tail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// The first bytes.
    pub head: Bytes,
    /// The last bytes; empty if the head holds everything.
    pub tail: Bytes,
    /// Bytes written in total; `total - head - tail` bytes were discarded.
    pub total: u64,
}

/// Both streams of one attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    pub stdout: Captured,
    pub stderr: Captured,
}

/// Cost of one attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceUsage {
    /// Time between becoming eligible and the start of this attempt.
    pub queue_time: Duration,
    /// Time between start and end.
    pub run_time: Duration,
    /// Processor time, if the runner can measure it.
    pub cpu_time: Option<Duration>,
    /// Peak resident set size, if the runner can measure it.
    pub peak_memory_bytes: Option<u64>,
    /// Bytes written to stdout and stderr, including discarded ones.
    pub output_bytes: u64,
    pub result_bytes: u64,
    /// Processes that the program left behind were killed while they could still write.
    pub output_incomplete: bool,
}
