//! The handle to the scheduler: commands, and queries that the scheduler's loop answers.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use arc_swap::Guard;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::artifacts::ArtifactStore;
use crate::model::{
    Catalog, Clock, HandlerName, MemoryAccount, MemoryFull, MemoryPart, PoolName, Reservation, Retention, Revision,
    SharedCatalog, Sharer, TaskFilter, TaskId, TaskOptions, TaskSpec, TaskState, TaskUpdate, Timestamp,
};
use crate::pool::{Attempt, RemoteWorkers, WeakRemoteWorkers};
use crate::runners::Modules;
use crate::runners::remote::Token;
use crate::store::Store;
use crate::telemetry::liveness::{Component, Liveness, NotReady};

use super::core::{PoolUpdate, PoolView};
use super::hub::Hub;
use super::interner::OptionsInterner;
use super::message::{Message, Reply, Request};
use super::refusal::{DrainPending, Draining, NotRemotePool, Refusal, SchedulerUnresponsive, UnknownPool};
use super::request_lookup::RequestLookup;
use super::timeouts::QUERY_TIMEOUT;
use super::views::{CancelCommand, Configuration, PoolMetrics, Resources};

/// Cheap to clone; all clones refer to the same scheduler.
#[derive(Clone)]
pub struct Handle {
    pub(super) inner: Arc<HandleInner>,
    /// The caller whose share of the memory for requests is used.
    pub(super) sharer: Option<Arc<Sharer>>,
}

pub(super) struct HandleInner {
    pub inbox: mpsc::Sender<Message>,
    pub catalog: SharedCatalog,
    pub clock: Arc<dyn Clock>,
    pub hub: Arc<Hub>,
    pub liveness: Arc<Liveness>,
    pub store: Store,
    pub retention: Retention,
    pub draining: CancellationToken,
    pub drain_limit: Duration,
    pub options: Mutex<OptionsInterner>,
    pub memory: MemoryAccount,
    pub request_lookup: Arc<RequestLookup>,
    /// Of the configured remote pools, in the order of the configuration; those that were added later come last.
    pub remote_workers: Mutex<Vec<WeakRemoteWorkers>>,
    pub modules: Arc<Modules>,
    pub artifacts: ArtifactStore,
    /// Held by the upload whose module is being compiled, and by a deletion.
    pub upload_turn: tokio::sync::Mutex<()>,
}

/// Memory of a request besides its parts of variable size: the message, its events and the reply.
const REQUEST_BYTES: u64 = 512;

/// As [`REQUEST_BYTES`], of each task of a request for several.
const EACH_BYTES: usize = 384;

pub(super) fn request_bytes(spec: &TaskSpec) -> u64 {
    REQUEST_BYTES + (spec.payload.len() + spec.attached_bytes()) as u64
}

impl Handle {
    /// A handle whose requests count toward the caller's share of the memory.
    #[must_use]
    pub fn used_by(&self, sharer: Option<Arc<Sharer>>) -> Self {
        Self { inner: self.inner.clone(), sharer }
    }

    /// The handlers and pools at present. Cheap; do not keep it for longer than a call.
    pub fn catalog(&self) -> Guard<Arc<Catalog>> {
        self.inner.catalog.load()
    }

    pub fn retention(&self) -> Retention {
        self.inner.retention
    }

    /// The memory that callers can make the server hold.
    pub fn memory(&self) -> &MemoryAccount {
        &self.inner.memory
    }

    /// The files that tasks have left.
    pub fn artifacts(&self) -> &ArtifactStore {
        &self.inner.artifacts
    }

    /// Time of the server's clock.
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// A new UUIDv7.
    pub fn new_task_id() -> TaskId {
        Uuid::now_v7().into()
    }

    /// `sqlite` or `memory`.
    pub fn store_kind(&self) -> &'static str {
        self.inner.store.kind
    }

    /// The shared copy of these options.
    pub fn intern(&self, options: TaskOptions) -> Arc<TaskOptions> {
        self.inner.options.lock().intern(options)
    }

    /// Cancels a task and returns its new state.
    ///
    /// # Errors
    /// `TaskNotFound`, `TaskFinished`, `StoreUnavailable`.
    pub async fn cancel(&self, cancel: CancelCommand) -> Result<(TaskState, Revision), Refusal> {
        self.execute(cancel.reason.len(), |reply| Request::Cancel { cancel, reply }).await
    }

    /// [`Handle::cancel`] for each of these tasks, in one message: at most a page of them.
    ///
    /// # Errors
    /// `StoreUnavailable`, `MemoryFull`.
    pub async fn cancel_each(&self, cancels: Vec<CancelCommand>) -> Result<Vec<Result<TaskState, Refusal>>, Refusal> {
        let bytes = cancels.iter().map(|cancel| EACH_BYTES + cancel.reason.len()).sum();
        self.execute(bytes, |reply| Request::CancelEach { cancels, reply }).await
    }

    /// [`Handle::update_task`] for each of these tasks, in one message: at most a page of them.
    ///
    /// # Errors
    /// `StoreUnavailable`, `MemoryFull`.
    pub async fn update_each(
        &self,
        tasks: Vec<TaskId>,
        update: TaskUpdate,
    ) -> Result<Vec<Result<TaskState, Refusal>>, Refusal> {
        let (bytes, update) = (tasks.len() * (EACH_BYTES + update.bytes()), Box::new(update));
        self.execute(bytes, |reply| Request::UpdateEach { tasks, update, reply }).await
    }

    /// Updates a task that has not started, and returns its new state.
    ///
    /// # Errors
    /// `TaskNotFound`, `TaskFinished`, `TaskStarted`, `BadField`, `MemoryFull`, `StoreUnavailable`.
    pub async fn update_task(&self, task: TaskId, update: TaskUpdate) -> Result<(TaskState, Revision), Refusal> {
        let (bytes, update) = (update.bytes(), Box::new(update));
        self.execute(bytes, |reply| Request::Update { task, update, reply }).await
    }

    /// Deletes the finished tasks that match and returns their number.
    ///
    /// # Errors
    /// `StoreUnavailable`.
    pub async fn delete(&self, filter: TaskFilter) -> Result<(u64, Revision), Refusal> {
        self.execute(filter.bytes(), |reply| Request::Delete { filter, reply }).await
    }

    /// All configured pools.
    ///
    /// # Errors
    /// [`Draining`], [`SchedulerUnresponsive`].
    pub async fn pools(&self) -> Result<(Vec<PoolView>, Revision), Refusal> {
        self.query_loop(QUERY_TIMEOUT, |reply| Request::Pools { reply }).await
    }

    /// Changes the settings of a pool. They survive a restart of the server.
    ///
    /// # Errors
    /// `UnknownPool`, `BadField`, `EtagMismatch`, `StoreUnavailable`; `Internal` if workers cannot be started.
    pub async fn update_pool(&self, update: PoolUpdate) -> Result<(PoolView, Revision), Refusal> {
        self.execute(0, |reply| Request::UpdatePool { update, reply }).await
    }

    /// Registers the handlers that a worker of the pool offers, given with their descriptions, for good. Those that are known
    /// in the pool are left as they are.
    ///
    /// # Errors
    /// `UnknownPool`, [`NotRemotePool`], `BadField`, `StoreUnavailable`.
    pub async fn register_handlers(
        &self,
        pool: PoolName,
        handlers: Vec<(HandlerName, Box<str>)>,
    ) -> Result<(), Refusal> {
        let bytes = handlers.iter().map(|(name, description)| 32 + name.as_str().len() + description.len()).sum();
        self.execute(bytes, |reply| Request::RegisterHandlers { pool, handlers, reply }).await
    }

    /// Replaces the configured handlers and pools. Completes when the new ones are in use.
    ///
    /// # Errors
    /// `BadField`, `Draining`, `StoreUnavailable`; `Internal` if workers cannot be started.
    pub async fn reconfigure(&self, configuration: Configuration) -> Result<(), Refusal> {
        let configuration = Box::new(configuration);
        self.execute(0, |reply| Request::Reconfigure { configuration, reply }).await
    }

    /// Whether a pool follows its load, so that [`Handle::report_resources`] has to be called at intervals.
    pub fn autoscales(&self) -> bool {
        self.catalog().pools.values().any(|pool| pool.autoscale.is_some())
    }

    /// Lets pools that autoscale follow their load, and those with local workers start nothing while memory is low.
    pub fn report_resources(&self, resources: Resources) {
        // Fails only if the service has ended.
        let _ = self.inner.inbox.send(Message::Resources(resources));
    }

    /// Metrics of the named pools; of all pools if `pools` is empty.
    ///
    /// # Errors
    /// `UnknownPool`, [`SchedulerUnresponsive`].
    pub async fn pool_metrics(
        &self,
        pools: Vec<PoolName>,
        workers: bool,
    ) -> Result<(Vec<PoolMetrics>, Revision), Refusal> {
        self.query_loop(QUERY_TIMEOUT, |reply| Request::PoolMetrics { pools, workers, reply }).await
    }

    /// Metrics of one pool.
    ///
    /// # Errors
    /// [`UnknownPool`], [`SchedulerUnresponsive`].
    pub async fn pool_metrics_of(&self, pool: PoolName, workers: bool) -> Result<(PoolMetrics, Revision), Refusal> {
        let (metrics, revision) = self.pool_metrics(vec![pool.clone()], workers).await?;
        let metrics = metrics.into_iter().next().ok_or(UnknownPool { pool })?;
        Ok((metrics, revision))
    }

    /// Sets the counters of a pool to zero.
    ///
    /// # Errors
    /// `UnknownPool`.
    pub async fn reset_counters(&self, pool: PoolName) -> Result<Revision, Refusal> {
        self.execute(0, |reply| Request::ResetCounters { pool, reply }).await
    }

    /// The workers of a remote pool; without a name, of the first one.
    ///
    /// # Errors
    /// [`NotRemotePool`].
    pub fn remote_workers(&self, pool: Option<&PoolName>) -> Result<RemoteWorkers, Refusal> {
        let all = self.inner.remote_workers.lock();
        let mut all = all.iter().filter_map(WeakRemoteWorkers::upgrade);
        let found = all.find(|workers| pool.is_none_or(|name| workers.pool() == name));
        found.ok_or_else(|| NotRemotePool { pool: pool.cloned() }.into())
    }

    /// Starts a drain; `None` uses the configured time limit. May be called repeatedly.
    pub fn drain(&self, limit: Option<Duration>) {
        let limit = limit.unwrap_or(self.inner.drain_limit);
        // Fails only if the service has already drained.
        let _ = self.inner.inbox.send(Message::Request(Request::Drain { limit }));
    }

    /// Starts a drain and returns the number of running tasks.
    ///
    /// # Errors
    /// [`DrainPending`]: the scheduler does not answer, so that the drain starts later.
    pub async fn drain_and_count_running(&self, limit: Option<Duration>) -> Result<u64, Refusal> {
        let running = self.query_loop(QUERY_TIMEOUT, |reply| Request::RunningCount { reply });
        self.drain(limit);
        match running.await {
            Err(Refusal::SchedulerUnresponsive(unresponsive)) => Err(DrainPending(unresponsive).into()),
            Err(Refusal::Draining(_)) => Ok(0),
            result => result,
        }
    }

    /// Cancelled when a drain starts.
    pub fn draining(&self) -> CancellationToken {
        self.inner.draining.clone()
    }

    /// The task of a remote worker's attempt that runs; `None` if the task has no attempt with this token.
    ///
    /// # Errors
    /// [`Draining`], [`SchedulerUnresponsive`].
    pub async fn task_of_attempt(&self, id: &TaskId, token: Token) -> Result<Option<Arc<TaskSpec>>, Refusal> {
        let attempt = self.live_attempt(id).await?.filter(|attempt| attempt.ticket().fence == token.0);
        let spec = attempt.map(|attempt| attempt.spec().clone());
        Ok(spec.filter(|spec| self.remote_workers(Some(&spec.options.pool)).is_ok()))
    }

    pub(super) async fn live_attempt(&self, id: &TaskId) -> Result<Option<Arc<Attempt>>, Refusal> {
        let task = id.clone();
        self.query_loop(QUERY_TIMEOUT, |reply| Request::LiveAttempt { task, reply }).await
    }

    /// Sends a request that changes something and waits for the commit without a time limit.
    /// `bytes` is the variable size of the request.
    pub(super) async fn execute<T>(
        &self,
        bytes: usize,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Result<T, Refusal> {
        let bytes = REQUEST_BYTES + bytes as u64;
        let memory = self.reserve(MemoryPart::of_request(bytes), bytes)?;
        self.send(Some(memory), request).await.map_err(|_| Draining)?
    }

    pub(super) fn reserve(&self, part: MemoryPart, bytes: u64) -> Result<Reservation, MemoryFull> {
        self.inner.memory.reserve_for(self.sharer.clone(), part, bytes)
    }

    /// Sends a request that changes nothing and waits for the reply at most `timeout`. The request is sent at
    /// once, but not if the loop is known to hang, so that its inbox does not grow.
    ///
    /// # Errors
    /// [`SchedulerUnresponsive`], [`Draining`], and those of the request.
    pub(super) fn query_loop<T: Send, R: FnOnce(Reply<T>) -> Request>(
        &self,
        timeout: Duration,
        request: R,
    ) -> impl Future<Output = Result<T, Refusal>> + Send + use<T, R> {
        let reply = match self.stall() {
            Some(unresponsive) => Err(unresponsive),
            None => Ok(self.send(None, request)),
        };
        async move {
            match tokio::time::timeout(timeout, reply?).await {
                Ok(result) => result.map_err(|_| Draining)?,
                Err(_) => Err(SchedulerUnresponsive { stalled: false, silence: timeout }.into()),
            }
        }
    }

    fn stall(&self) -> Option<SchedulerUnresponsive> {
        let liveness = &self.inner.liveness;
        let stalled = liveness.not_ready_reasons().contains(&NotReady::Stalled(Component::Scheduler));
        stalled.then(|| SchedulerUnresponsive { stalled, silence: liveness.stall_status(Component::Scheduler).0 })
    }

    pub(super) fn send<T>(
        &self,
        memory: Option<Reservation>,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> oneshot::Receiver<Result<T, Refusal>> {
        let (reply, receiver) = Reply::new(memory);
        // If the service has ended, the reply is dropped and the receiver sees that.
        let _ = self.inner.inbox.send(Message::Request(request(reply)));
        receiver
    }
}
