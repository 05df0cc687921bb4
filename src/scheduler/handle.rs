//! What the rest of the house holds of the scheduler.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashSet;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::model::{
    Catalog, Clock, PoolName, Revision, Task, TaskFilter, TaskId, TaskOptions, TaskSpec, TaskState, Timestamp,
};
use crate::pool::Attempt;
use crate::store::{Page, PageCursor, PageSize, Projection, Store, StoreError, fold};
use crate::telemetry::liveness::Liveness;

use super::core::{PoolUpdate, PoolView, Submitted};
use super::hub::{Hub, Watch};
use super::message::{Message, Reply, Request};
use super::refusal::{DrainPending, Draining, Internal, Refusal, TaskNotFound, UnknownPool};
use super::timeouts::{PROJECTION_STALL_TIMEOUT, QUERY_TIMEOUT, wait_for_revision, wait_until_writable};
use super::views::{Cancel, OutputSource, PoolMetrics, Retention, TaskSnapshot};

/// Cheap to clone; all clones speak to the same service.
#[derive(Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub inbox: mpsc::Sender<Message>,
    pub catalog: Arc<Catalog>,
    pub clock: Arc<dyn Clock>,
    pub hub: Arc<Hub>,
    pub liveness: Arc<Liveness>,
    pub store: Store,
    pub retention: Retention,
    pub draining: CancellationToken,
    pub drain_limit: Duration,
    pub options: Mutex<Interned>,
}

/// Options that tasks share, so that a queued task costs little memory.
#[derive(Default)]
pub(super) struct Interned {
    known: HashSet<Arc<TaskOptions>, hashbrown::DefaultHashBuilder>,
    sweep_at: usize,
}

impl Interned {
    fn intern(&mut self, options: Arc<TaskOptions>) -> Arc<TaskOptions> {
        if let Some(known) = self.known.get(&options) {
            return known.clone();
        }
        if self.known.len() >= self.sweep_at {
            self.known.retain(|options| Arc::strong_count(options) > 1);
            self.sweep_at = 1_024 + 2 * self.known.len();
        }
        self.known.insert(options.clone());
        options
    }
}

impl Handle {
    /// What the operator registered.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.shared.catalog
    }

    /// How long finished tasks are kept.
    pub fn limits(&self) -> Retention {
        self.shared.retention
    }

    /// The present moment by the server's clock.
    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// A new UUIDv7.
    pub fn new_task_id(&self) -> TaskId {
        Uuid::now_v7().into()
    }

    /// The shared copy of these options.
    pub fn intern(&self, options: Arc<TaskOptions>) -> Arc<TaskOptions> {
        self.shared.options.lock().intern(options)
    }

    /// Submits all of these tasks or none. Sends at once; the future resolves when they are durable.
    pub fn submit(
        &self,
        specs: Vec<TaskSpec>,
    ) -> impl Future<Output = Result<Submitted, Refusal>> + Send + 'static + use<> {
        let answer = self.ask(|reply| Request::Submit { specs, reply });
        async move { answer.await.map_err(|_| Draining)? }
    }

    /// Submits each of these tasks by itself. Sends at once; the future resolves, with an answer for each,
    /// when all that were accepted are durable.
    pub fn submit_each(
        &self,
        specs: Vec<TaskSpec>,
    ) -> impl Future<Output = Result<Vec<Result<Submitted, Refusal>>, Refusal>> + Send + 'static + use<> {
        let answer = self.ask(|reply| Request::SubmitEach { specs, reply });
        async move { answer.await.map_err(|_| Draining)? }
    }

    pub(super) fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> oneshot::Receiver<Result<T, Refusal>> {
        let (reply, answer) = oneshot::channel();
        // A service that has gone drops the reply, which the receiver sees.
        let _ = self.shared.inbox.send(Message::Request(request(reply)));
        answer
    }

    /// Has something changed: waits for its commit, as long as the caller does.
    async fn change<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Refusal> {
        self.ask(request).await.map_err(|_| Draining)?
    }

    /// One task as it stands.
    ///
    /// # Errors
    /// [`TaskNotFound`], `ProjectionUnavailable`.
    pub async fn get(&self, id: &TaskId) -> Result<TaskSnapshot, Refusal> {
        let (task, revision) = self.get_within(PROJECTION_STALL_TIMEOUT, id).await?;
        let mut progress = (0.0, String::new());
        if task.status.state == TaskState::Running {
            match self.live_attempt(id).await {
                Ok(attempt) => progress = attempt.map_or(progress, |attempt| attempt.progress()),
                // How far it is can be left out; what is durable is known.
                Err(Refusal::SchedulerUnresponsive(_)) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(TaskSnapshot { task, progress, revision })
    }

    /// The payload of a task whose attempt does not carry it. Waits for as long as it takes: an attempt must not
    /// fail because a disk is slow or full.
    pub(super) async fn payload(&self, id: &TaskId) -> Result<Bytes, Refusal> {
        // A payload never changes: tables that are behind have it as well, if they have the task.
        let wanted = id.clone();
        if let Some(task) = self.look_up(move |projection| projection.get(&wanted)).await? {
            return Ok(TaskSpec::payload_of(&task.spec));
        }
        loop {
            match self.get_within(Duration::MAX, id).await {
                Err(Refusal::ProjectionUnavailable(_)) => wait_until_writable(&*self.shared.store.projection).await,
                found => return Ok(TaskSpec::payload_of(&found?.0.spec)),
            }
        }
    }

    async fn get_within(&self, patience: Duration, id: &TaskId) -> Result<(Task, Revision), Refusal> {
        let wanted = id.clone();
        let (task, revision) = self.query_within(patience, move |projection| projection.get(&wanted)).await?;
        Ok((task.ok_or_else(|| TaskNotFound { task: id.clone() })?, revision))
    }

    /// One page of tasks, newest submission first.
    ///
    /// # Errors
    /// `ProjectionUnavailable`, [`Internal`].
    pub async fn list(&self, filter: TaskFilter, size: PageSize, after: Option<PageCursor>) -> Result<Page, Refusal> {
        let (page, _) = self.query(move |projection| projection.list(&filter, size, after)).await?;
        Ok(page)
    }

    async fn query<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Projection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<(T, Revision), Refusal> {
        self.query_within(PROJECTION_STALL_TIMEOUT, question).await
    }

    /// Asks the projection, once it has caught up with what is durable now.
    async fn query_within<T: Send + 'static>(
        &self,
        patience: Duration,
        question: impl FnOnce(&dyn Projection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<(T, Revision), Refusal> {
        let wanted = self.shared.hub.revision();
        wait_for_revision(&*self.shared.store.projection, wanted, patience).await?;
        Ok((self.look_up(question).await?, wanted))
    }

    /// Asks the projection as it is.
    async fn look_up<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Projection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let projection = self.shared.store.projection.clone();
        let asked = tokio::task::spawn_blocking(move || question(&*projection)).await;
        let answer = asked.map_err(|error| Internal { cause: error.to_string() })?;
        answer.map_err(|error| Internal { cause: error.to_string() }.into())
    }

    /// Waits until a task has ended, or until `timeout`; answers how it stands then.
    ///
    /// # Errors
    /// [`TaskNotFound`], [`Draining`].
    pub async fn wait(&self, id: &TaskId, timeout: Duration) -> Result<TaskSnapshot, Refusal> {
        let ending = self.shared.hub.ending(id);
        let found = self.get(id).await?;
        if found.task.status.state.is_terminal() {
            return Ok(found);
        }
        tokio::select! {
            _ = ending => {}
            () = tokio::time::sleep(timeout) => {}
            () = self.shared.draining.cancelled() => return Err(Draining.into()),
        }
        match self.get(id).await {
            // It has ended and was forgotten at once: its events still tell how.
            Err(Refusal::TaskNotFound(_)) => self.end_of(found).await,
            answer => answer,
        }
    }

    /// How a task that was found earlier has ended, from its events.
    async fn end_of(&self, mut found: TaskSnapshot) -> Result<TaskSnapshot, Refusal> {
        let id = found.task.spec.id.clone();
        let only = TaskFilter { ids: vec![id.clone()], ..TaskFilter::default() };
        let mut watch = self.watch(only, Some(found.revision))?;
        let mut task = Some(found.task);
        let runs = |task: &Option<Task>| task.as_ref().is_some_and(|task| !task.status.state.is_terminal());
        while runs(&task) {
            for event in watch.next().await? {
                if runs(&task) {
                    fold(&mut task, &event);
                }
            }
        }
        found.task = task.ok_or(TaskNotFound { task: id })?;
        found.progress = (0.0, String::new());
        found.revision = found.task.status.revision;
        Ok(found)
    }

    /// Follows events that match, after a revision or from now on.
    ///
    /// # Errors
    /// `RevisionInFuture`.
    pub fn watch(&self, filter: TaskFilter, after: Option<Revision>) -> Result<Watch, Refusal> {
        Watch::new(self.shared.hub.clone(), filter, after)
    }

    /// Ends a task; answers the state reached.
    ///
    /// # Errors
    /// [`TaskNotFound`], `TaskFinished`, `StoreUnavailable`.
    pub async fn cancel(&self, cancel: Cancel) -> Result<(TaskState, Revision), Refusal> {
        self.change(|reply| Request::Cancel { cancel, reply }).await
    }

    /// Forgets finished tasks that match; answers how many.
    ///
    /// # Errors
    /// `StoreUnavailable`.
    pub async fn delete(&self, filter: TaskFilter) -> Result<(u64, Revision), Refusal> {
        self.change(|reply| Request::Delete { filter, reply }).await
    }

    /// What an attempt wrote; 0: the current or last.
    ///
    /// # Errors
    /// [`TaskNotFound`], `SchedulerUnresponsive`.
    pub async fn output(&self, id: &TaskId, attempt: u32) -> Result<OutputSource, Refusal> {
        if let Some(live) = self.live_attempt(id).await?
            && (attempt == 0 || attempt == live.number())
            && let Some(buffer) = live.output()
        {
            return Ok(OutputSource::Live { attempt: live.number(), buffer });
        }
        self.get(id).await?;
        let wanted = id.clone();
        let (kept, _) = self.query(move |projection| projection.output(&wanted, attempt)).await?;
        Ok(kept.map_or(OutputSource::Empty, |(attempt, output)| OutputSource::Kept { attempt, output }))
    }

    async fn live_attempt(&self, id: &TaskId) -> Result<Option<Arc<Attempt>>, Refusal> {
        let task = id.clone();
        self.ask_within(QUERY_TIMEOUT, |reply| Request::LiveAttempt { task, reply }).await
    }

    /// The newest durable revision.
    pub fn revision(&self) -> Revision {
        self.shared.hub.revision()
    }

    /// The oldest revision that a watch can be resumed at.
    pub fn oldest_revision(&self) -> Revision {
        self.shared.store.journal.oldest()
    }

    /// All pools.
    ///
    /// # Errors
    /// [`Draining`], `SchedulerUnresponsive`.
    pub async fn pools(&self) -> Result<(Vec<PoolView>, Revision), Refusal> {
        self.ask_within(QUERY_TIMEOUT, |reply| Request::Pools { reply }).await
    }

    /// Resizes, pauses, resumes or bounds a pool, also for the servers after this one.
    ///
    /// # Errors
    /// `UnknownPool`, `EtagMismatch`, `StoreUnavailable`, [`Internal`] when workers cannot be started.
    pub async fn update_pool(&self, update: PoolUpdate) -> Result<(PoolView, Revision), Refusal> {
        self.change(|reply| Request::UpdatePool { update, reply }).await
    }

    /// How pools do; none named: all.
    ///
    /// # Errors
    /// `UnknownPool`, `SchedulerUnresponsive`.
    pub async fn pool_metrics(
        &self,
        pools: Vec<PoolName>,
        workers: bool,
    ) -> Result<(Vec<PoolMetrics>, Revision), Refusal> {
        self.ask_within(QUERY_TIMEOUT, |reply| Request::ReadPools { pools, workers, reply }).await
    }

    /// How one pool does.
    ///
    /// # Errors
    /// [`UnknownPool`], `SchedulerUnresponsive`.
    pub async fn pool_metrics_of(&self, pool: PoolName, workers: bool) -> Result<(PoolMetrics, Revision), Refusal> {
        let (metrics, revision) = self.pool_metrics(vec![pool.clone()], workers).await?;
        let metrics = metrics.into_iter().next().ok_or(UnknownPool { pool })?;
        Ok((metrics, revision))
    }

    /// Counting begins anew.
    ///
    /// # Errors
    /// `UnknownPool`.
    pub async fn reset_counters(&self, pool: PoolName) -> Result<Revision, Refusal> {
        self.change(|reply| Request::ResetCounters { pool, reply }).await
    }

    /// Begins a graceful shutdown; `None`: the configured limit. Idempotent.
    pub fn drain(&self, limit: Option<Duration>) {
        let limit = limit.unwrap_or(self.shared.drain_limit);
        // A service that has gone has drained.
        let _ = self.shared.inbox.send(Message::Request(Request::Drain { limit }));
    }

    /// The same, and how many tasks were running then.
    ///
    /// # Errors
    /// [`DrainPending`]: it begins later.
    pub async fn drain_and_count_running(&self, limit: Option<Duration>) -> Result<u64, Refusal> {
        let running = self.ask_within(QUERY_TIMEOUT, |reply| Request::Running { reply });
        self.drain(limit);
        match running.await {
            Err(Refusal::SchedulerUnresponsive(silent)) => Err(DrainPending(silent).into()),
            Err(Refusal::Draining(_)) => Ok(0),
            answer => answer,
        }
    }

    /// Cancelled when a drain begins.
    pub fn draining(&self) -> CancellationToken {
        self.shared.draining.clone()
    }

    /// `sqlite` or `memory`.
    pub fn store_kind(&self) -> &'static str {
        self.shared.store.kind
    }

    /// How far the projection is, for tests and health.
    pub fn projection_reached(&self) -> watch::Receiver<Revision> {
        self.shared.store.projection.revision()
    }
}
