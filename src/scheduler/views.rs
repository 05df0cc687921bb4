//! What callers hand in, and what answers show.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{CancelMode, Output, Revision, Task, TaskId, Timestamp};
use crate::pool::{PoolStats, WorkerStats};
use crate::runners::OutputBuffer;

use super::core::PoolSnapshot;

/// A cancel to carry out.
#[derive(Clone, Debug)]
pub struct Cancel {
    /// Which task.
    pub id: TaskId,
    /// For the receipt.
    pub reason: Box<str>,
    /// Peer address or identity.
    pub by: Box<str>,
    /// Ask or force.
    pub mode: CancelMode,
    /// Time between asking and forcing; `None`: the handler's.
    pub grace: Option<Duration>,
}

/// A task as an answer shows it.
#[derive(Clone, Debug)]
pub struct TaskSnapshot {
    /// The task; with its result when it has one.
    pub task: Task,
    /// RUNNING: how far it is (0 to 1), and a note.
    pub progress: (f32, String),
    /// Revision at which this is true.
    pub revision: Revision,
}

/// Where the output of an attempt is to be had.
#[derive(Clone, Debug)]
pub enum OutputSource {
    /// It runs and can be followed.
    Live {
        /// Which attempt.
        attempt: u32,
        /// What it has written.
        buffer: Arc<OutputBuffer>,
    },
    /// It has ended.
    Kept {
        /// Which attempt.
        attempt: u32,
        /// What was kept.
        output: Output,
    },
    /// Nothing was written, or nothing ran.
    Empty,
}

/// How a pool does.
#[derive(Clone, Debug)]
pub struct PoolMetrics {
    /// When.
    pub at: Timestamp,
    /// What waits in it and runs, and what was counted.
    pub reading: PoolSnapshot,
    /// Its workers in numbers.
    pub stats: PoolStats,
    /// A row per worker, when asked for.
    pub workers: Vec<WorkerStats>,
}

/// How long finished tasks are kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Tasks per namespace.
    pub count: u64,
    /// Time since they ended.
    pub age: Duration,
}
