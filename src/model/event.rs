//! One state change of one task: the unit of truth, of the journal, and of every watch.

use std::sync::Arc;

use super::cancel::{CancelReceipt, CancelRequest};
use super::clock::Timestamp;
use super::failure::Failure;
use super::id::{Revision, TaskId};
use super::output::{Output, ResourceUsage};
use super::spec::{Payload, TaskOptions, TaskSpec};
use super::task::TaskState;

/// A numbered change. Everything that the scheduler knows can be rebuilt from these.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its place in the one sequence of the server; no number is left out.
    pub revision: Revision,
    /// When it happened.
    pub at: Timestamp,
    /// The task that changed.
    pub task: TaskId,
    /// What filters look at, so that a watch needs no look-up.
    pub options: Arc<TaskOptions>,
    /// State before; equal to `state` when only a detail changed, and for `Submitted`.
    pub previous: TaskState,
    /// State after.
    pub state: TaskState,
    /// Current attempt after the change; 0 before the first.
    pub attempt: u32,
    /// The change.
    pub change: Change,
}

/// Why a running attempt was taken back without spending it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum InterruptCause {
    /// The server was shut down in an orderly way.
    Drain = 1,
    /// The server was found to have crashed.
    Crash = 2,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Accepted, as WAITING or QUEUED.
    Submitted {
        /// What was asked for.
        spec: Arc<TaskSpec>,
    },
    /// WAITING → QUEUED: its time has come.
    Eligible,
    /// QUEUED → RUNNING.
    Started {
        /// `pool/PoolWorker-N`.
        worker: Arc<str>,
    },
    /// RUNNING → COMPLETED.
    Completed {
        /// What the handler returned.
        result: Payload,
        /// What it cost.
        usage: Box<ResourceUsage>,
        /// What it wrote; `None` when nothing.
        output: Option<Box<Output>>,
    },
    /// RUNNING → WAITING (or QUEUED when there is no delay): the attempt failed, another follows.
    Retrying {
        /// What went wrong.
        failure: Box<Failure>,
        /// When the next attempt may start.
        not_before: Timestamp,
        /// What it cost.
        usage: Box<ResourceUsage>,
        /// What it wrote.
        output: Option<Box<Output>>,
    },
    /// → FAILED.
    Failed {
        /// What went wrong; `attempt` 0 when none ran.
        failure: Box<Failure>,
        /// What the last attempt cost, when this failure ended one.
        usage: Option<Box<ResourceUsage>>,
        /// What it wrote.
        output: Option<Box<Output>>,
    },
    /// RUNNING → QUEUED, the attempt is not spent.
    Interrupted {
        /// Why.
        cause: InterruptCause,
    },
    /// A running task was asked to stop; the state stays RUNNING.
    CancelRequested {
        /// Who, when and how.
        request: Box<CancelRequest>,
    },
    /// → CANCELLED.
    Cancelled {
        /// The proof.
        receipt: Box<CancelReceipt>,
        /// What the attempt cost, when one ran.
        usage: Option<Box<ResourceUsage>>,
        /// What it wrote.
        output: Option<Box<Output>>,
    },
    /// A finished task was forgotten: retention, or `DeleteTasks`. The state stays what it was.
    Deleted,
}

impl Event {
    /// Bytes of payload, result and output that it holds.
    pub fn weight(&self) -> usize {
        let written = |output: &Option<Box<Output>>| {
            output.as_ref().map_or(0, |output| {
                [&output.stdout, &output.stderr].iter().map(|kept| kept.head.len() + kept.tail.len()).sum()
            })
        };
        match &self.change {
            Change::Submitted { spec } => spec.payload.len(),
            Change::Completed { result, output, .. } => result.data.len() + written(output),
            Change::Retrying { output, .. } | Change::Failed { output, .. } | Change::Cancelled { output, .. } => {
                written(output)
            }
            _ => 0,
        }
    }
}
