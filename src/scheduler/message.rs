//! Messages to the scheduler's loop, and how it replies.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use tokio::sync::oneshot;

use crate::model::{
    BatchId, BatchKey, BatchSpec, HandlerName, ModuleDigest, Namespace, PoolName, Reservation, Revision, Schedule,
    ScheduleKey, ScheduleSpec, TaskFilter, TaskId, TaskState, TaskUpdate,
};
use crate::pool::{Attempt, Report};
use crate::runners::Runner;
use crate::store::AppendError;

use super::core::{
    BatchFilter, BatchPage, DecisionFilter, DecisionPage, Explanation, LimitFilter, LimitPage, NewUpload, PoolUpdate,
    PoolView, ScheduleFilter, SchedulePage, ScheduleUpdate, Submission, UnfinishedParents, Verdict,
};
use super::refusal::Refusal;
use super::views::{
    BatchSnapshot, CancelBatchCommand, CancelCommand, Configuration, OutputSource, PoolMetrics, Resources,
};

pub(super) enum Message {
    Request(Request),
    /// From a pool.
    Report(Report),
    /// What the server has of the machine, at intervals.
    Resources(Resources),
    /// From the journal: the append of the commit that ends here has ended.
    Committed(Revision, Result<(), AppendError>),
}

/// Where the result goes. Holds the memory of the request until it is sent, also if the caller no longer waits for it.
pub(super) struct Reply<T> {
    sender: oneshot::Sender<Result<T, Refusal>>,
    _memory: Option<Reservation>,
}

impl<T> Reply<T> {
    pub fn new(memory: Option<Reservation>) -> (Self, oneshot::Receiver<Result<T, Refusal>>) {
        let (sender, receiver) = oneshot::channel();
        (Self { sender, _memory: memory }, receiver)
    }

    /// Whether the caller no longer waits.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

pub(super) enum Request {
    Submit {
        submission: Submission,
        reply: Reply<Verdict>,
    },
    SubmitEach {
        submission: Submission,
        reply: Reply<Vec<Result<Verdict, Refusal>>>,
    },
    Cancel {
        cancel: CancelCommand,
        reply: Reply<(TaskState, Revision)>,
    },
    CancelEach {
        cancels: Vec<CancelCommand>,
        reply: Reply<Vec<Result<TaskState, Refusal>>>,
    },
    Update {
        task: TaskId,
        update: Box<TaskUpdate>,
        reply: Reply<(TaskState, Revision)>,
    },
    UpdateEach {
        tasks: Vec<TaskId>,
        update: Box<TaskUpdate>,
        reply: Reply<Vec<Result<TaskState, Refusal>>>,
    },
    Delete {
        filter: TaskFilter,
        reply: Reply<(u64, Revision)>,
    },
    Batch(BatchRequest),
    Schedule(Box<ScheduleRequest>),
    Pools {
        reply: Reply<(Vec<PoolView>, Revision)>,
    },
    RegisterHandlers {
        pool: PoolName,
        handlers: Vec<(HandlerName, Box<str>)>,
        reply: Reply<()>,
    },
    PutHandler {
        upload: Box<NewUpload>,
        module: ModuleDigest,
        runner: Arc<dyn Runner>,
        reply: Reply<()>,
    },
    DeleteHandler {
        name: HandlerName,
        reply: Reply<()>,
    },
    Reconfigure {
        configuration: Box<Configuration>,
        reply: Reply<()>,
    },
    UpdatePool {
        update: PoolUpdate,
        reply: Reply<(PoolView, Revision)>,
    },
    PoolMetrics {
        pools: Vec<PoolName>,
        workers: bool,
        reply: Reply<(Vec<PoolMetrics>, Revision)>,
    },
    ResetCounters {
        pool: PoolName,
        reply: Reply<Revision>,
    },
    LiveAttempt {
        task: TaskId,
        reply: Reply<Option<Arc<Attempt>>>,
    },
    UnstoredOutput {
        task: TaskId,
        attempt: u32,
        reply: Reply<Option<OutputSource>>,
    },
    UnfinishedParents {
        task: TaskId,
        reply: Reply<Option<UnfinishedParents>>,
    },
    Explain {
        task: TaskId,
        reply: Reply<Option<Explanation>>,
    },
    Limits {
        filter: LimitFilter,
        from: u64,
        count: usize,
        reply: Reply<(LimitPage, Revision)>,
    },
    Decisions {
        pool: PoolName,
        filter: DecisionFilter,
        before: Option<u64>,
        count: usize,
        reply: Reply<(DecisionPage, Revision)>,
    },
    RunningCount {
        reply: Reply<u64>,
    },
    StoreFault {
        reply: Reply<Option<String>>,
    },
    Drain {
        limit: Duration,
    },
}

pub(super) enum BatchRequest {
    Create {
        key: BatchKey,
        spec: BatchSpec,
        reply: Reply<(BatchSnapshot, bool)>,
    },
    Get {
        key: BatchKey,
        reply: Reply<BatchSnapshot>,
    },
    /// The oldest batch with this UUID in a namespace that `is_it`.
    WithUuid {
        id: BatchId,
        is_it: Box<dyn Fn(&Namespace) -> bool + Send>,
        reply: Reply<Option<BatchSnapshot>>,
    },
    List {
        filter: BatchFilter,
        before: Option<Revision>,
        count: usize,
        bytes: usize,
        reply: Reply<(BatchPage, Revision)>,
    },
    /// Replies when the batch has finished.
    Ended {
        key: BatchKey,
        reply: Reply<BatchSnapshot>,
    },
    Close {
        key: BatchKey,
        reply: Reply<BatchSnapshot>,
    },
    /// Replies when every task was asked to stop that has not ended.
    Cancel {
        cancel: CancelBatchCommand,
        reply: Reply<BatchSnapshot>,
    },
    /// Replies when the batch and its tasks are deleted.
    Delete {
        key: BatchKey,
        reply: Reply<(u64, Revision)>,
    },
}

pub(super) enum ScheduleRequest {
    Create {
        key: ScheduleKey,
        spec: ScheduleSpec,
        reply: Reply<((Schedule, bool), Revision)>,
    },
    Configure {
        schedules: HashMap<ScheduleKey, ScheduleSpec>,
        reply: Reply<()>,
    },
    Get {
        key: ScheduleKey,
        reply: Reply<(Schedule, Revision)>,
    },
    List {
        filter: ScheduleFilter,
        before: Option<Revision>,
        count: usize,
        bytes: usize,
        reply: Reply<(SchedulePage, Revision)>,
    },
    Update {
        key: ScheduleKey,
        update: ScheduleUpdate,
        etag: Option<String>,
        reply: Reply<(Schedule, Revision)>,
    },
    Trigger {
        key: ScheduleKey,
        overlap: bool,
        reply: Reply<((Schedule, TaskId), Revision)>,
    },
}

/// A reply that waits for its events to become durable.
pub(super) struct PendingReply(Box<dyn FnOnce(Result<(), Refusal>) + Send>);

impl PendingReply {
    pub fn new<T: Send + 'static>(reply: Reply<T>, result: Result<T, Refusal>) -> Self {
        Self(Box::new(move |committed| send(reply, committed.and(result))))
    }

    /// Sends the result, or the refusal if the events did not become durable.
    pub fn resolve(self, committed: Result<(), Refusal>) {
        (self.0)(committed);
    }
}

/// Sends a result; does nothing if the caller no longer waits for it.
pub(super) fn send<T>(reply: Reply<T>, result: Result<T, Refusal>) {
    let _ = reply.sender.send(result);
}
