//! What callers ask of the service, and how the answers go back.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::model::{PoolName, Revision, TaskFilter, TaskId, TaskSpec, TaskState};
use crate::pool::{Attempt, Report};
use crate::store::StoreError;

use super::core::{PoolUpdate, PoolView, Submitted};
use super::refusal::Refusal;
use super::views::{Cancel, PoolMetrics};

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// One thing that wakes the service.
pub(super) enum Message {
    Request(Request),
    Report(Report),
    Committed(Result<(), StoreError>),
}

/// What callers ask.
pub(super) enum Request {
    Submit { specs: Vec<TaskSpec>, reply: Reply<Submitted> },
    SubmitEach { specs: Vec<TaskSpec>, reply: Reply<Vec<Result<Submitted, Refusal>>> },
    Cancel { cancel: Cancel, reply: Reply<(TaskState, Revision)> },
    Delete { filter: TaskFilter, reply: Reply<(u64, Revision)> },
    Pools { reply: Reply<(Vec<PoolView>, Revision)> },
    UpdatePool { update: PoolUpdate, reply: Reply<(PoolView, Revision)> },
    ReadPools { pools: Vec<PoolName>, workers: bool, reply: Reply<(Vec<PoolMetrics>, Revision)> },
    ResetCounters { pool: PoolName, reply: Reply<Revision> },
    LiveAttempt { task: TaskId, reply: Reply<Option<Arc<Attempt>>> },
    Running { reply: Reply<u64> },
    StoreFault { reply: Reply<Option<String>> },
    Drain { limit: Duration },
}

/// An answer that has to wait until its events are durable.
pub(super) enum PendingReply {
    Submitted(Reply<Submitted>, Submitted),
    SubmittedEach(Reply<Vec<Result<Submitted, Refusal>>>, Vec<Result<Submitted, Refusal>>),
    Cancelled(Reply<(TaskState, Revision)>, (TaskState, Revision)),
    Deleted(Reply<(u64, Revision)>, (u64, Revision)),
}

impl PendingReply {
    /// The events are durable. A caller that has gone does not mind.
    pub fn send(self) {
        match self {
            Self::Submitted(reply, answer) => drop(reply.send(Ok(answer))),
            Self::SubmittedEach(reply, answers) => drop(reply.send(Ok(answers))),
            Self::Cancelled(reply, answer) => drop(reply.send(Ok(answer))),
            Self::Deleted(reply, answer) => drop(reply.send(Ok(answer))),
        }
    }

    /// The events cannot be made durable for now.
    pub fn refuse(self, refusal: Refusal) {
        match self {
            Self::Submitted(reply, _) => drop(reply.send(Err(refusal))),
            Self::SubmittedEach(reply, _) => drop(reply.send(Err(refusal))),
            Self::Cancelled(reply, _) => drop(reply.send(Err(refusal))),
            Self::Deleted(reply, _) => drop(reply.send(Err(refusal))),
        }
    }
}
