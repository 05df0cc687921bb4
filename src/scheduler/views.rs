//! Arguments and results of `Handle`.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    Batch, BatchKey, CancelMode, Catalog, Output, OutputExcerpt, PoolSpec, Revision, Task, TaskId, Timestamp,
};
use crate::pool::{PoolStats, WorkerStats};
use crate::runners::{OutputBuffer, Runners};

use super::core::{PoolSnapshot, UnfinishedParents};

/// What a reload of the configuration replaces.
pub struct Configuration {
    /// In the order of the file.
    pub pools: Vec<PoolSpec>,
    /// The configured handlers and pools.
    pub catalog: Arc<Catalog>,
    pub runners: Runners,
}

/// What is in use of what the server may use.
#[derive(Clone, Copy, Debug)]
pub struct Resources {
    /// Share of the CPU, 0 to 1.
    pub cpu: f64,
    /// Whether so much of the memory is that no more work should start.
    pub memory_low: bool,
}

#[derive(Clone, Debug)]
pub struct CancelCommand {
    pub id: TaskId,
    /// Free text for the receipt.
    pub reason: Box<str>,
    /// Peer address or identity of the caller.
    pub by: Box<str>,
    pub mode: CancelMode,
    /// Time between the request to stop and the kill; `None`: the grace period of the handler.
    pub grace: Option<Duration>,
}

#[derive(Clone, Debug)]
pub struct CancelBatchCommand {
    pub key: BatchKey,
    /// As in [`CancelCommand`].
    pub reason: Box<str>,
    pub by: Box<str>,
    pub mode: CancelMode,
    pub grace: Option<Duration>,
}

/// A batch at a revision.
#[derive(Clone, Debug)]
pub struct BatchSnapshot {
    pub batch: Batch,
    pub revision: Revision,
}

/// What a response contains besides a task and its result.
#[derive(Clone, Copy, Debug, Default)]
pub struct TaskParts {
    pub payload: bool,
    /// The first and the last part of its output.
    pub output: bool,
}

/// A task at a revision.
#[derive(Clone, Debug)]
pub struct TaskSnapshot {
    pub task: Task,
    /// Progress of a RUNNING task, 0 to 1, and a note of the handler.
    pub progress: (f32, String),
    /// What a WAITING task waits for, if that is known.
    pub unfinished_parents: Option<UnfinishedParents>,
    /// If it is wanted, and the current or last attempt has written something that can be read.
    pub output: Option<OutputExcerpt>,
    pub revision: Revision,
}

/// Where the output of an attempt can be read.
#[derive(Clone, Debug)]
pub enum OutputSource {
    /// The attempt is running.
    Live { attempt: u32, buffer: Arc<OutputBuffer> },
    /// The attempt has ended.
    Stored { attempt: u32, output: Output },
    /// There is no output.
    Empty,
}

#[derive(Clone, Debug)]
pub struct PoolMetrics {
    pub at: Timestamp,
    pub snapshot: PoolSnapshot,
    pub stats: PoolStats,
    /// Empty unless workers were requested.
    pub workers: Vec<WorkerStats>,
}
