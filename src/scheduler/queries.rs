//! Queries that the projection and the event hub answer: get, list, wait, watch, output.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::model::limits::PayloadLimit;
use crate::model::{Event, MemoryPart, ResumeToken, Revision, Share, StoreId, Task, TaskFilter, TaskId, TaskState};
use crate::store::{Page, PageCursor, PageSize, Projection, StoreError, fold};

use super::handle::Handle;
use super::message::Request;
use super::refusal::{Draining, Internal, Refusal, TaskNotFound};
use super::timeouts::{MEMORY_TIMEOUT, PROJECTION_STALL_TIMEOUT, QUERY_TIMEOUT, wait_for_revision};
use super::views::{OutputSource, TaskSnapshot};
use super::watch::Watch;

/// Bytes of a task besides its payload and result.
const TASK_BYTES_BESIDES: usize = 512 << 10;
/// Memory for reading one task and sending it, unless its payload or result is larger than usual: its payload, its result and
/// the rest, once as they are and once encoded.
pub const TASK_BYTES: u64 = 2 * (2 * *PayloadLimit::RANGE.start() + TASK_BYTES_BESIDES) as u64;
/// Delay between attempts to read a payload.
const PAYLOAD_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Counts a task that was read and is larger than [`TASK_BYTES`] contains, whatever the limit: it is in memory already.
pub fn count_task(memory: &mut Share, task: &Task) {
    let result = task.status.result.as_ref().map_or(0, |result| result.data.len());
    let bytes = 2 * (task.spec.payload.len() + result + TASK_BYTES_BESIDES) as u64;
    if bytes > TASK_BYTES {
        memory.resize(bytes);
    }
}

/// What the loop has answered; `None` if it does not respond in time.
fn if_responsive<T>(answer: Result<Option<T>, Refusal>) -> Result<Option<T>, Refusal> {
    match answer {
        Err(Refusal::SchedulerUnresponsive(_)) => Ok(None),
        answer => answer,
    }
}

impl Handle {
    /// The newest durable revision.
    pub fn revision(&self) -> Revision {
        self.inner.hub.revision()
    }

    /// Identity of the store to which the revisions belong.
    pub fn store_id(&self) -> StoreId {
        self.inner.store.journal.store_id()
    }

    /// Token for a watch that continues after a revision.
    pub fn resume_token(&self, revision: Revision) -> ResumeToken {
        ResumeToken { store: self.store_id(), revision }
    }

    /// The oldest revision after which a watch can start.
    pub fn oldest_revision(&self) -> Revision {
        self.inner.store.journal.oldest()
    }

    /// Waits for the memory of a response, in turn with other callers. Comes before what the response contains is read.
    ///
    /// # Errors
    /// `MemoryFull` after [`MEMORY_TIMEOUT`].
    pub async fn reserve_response(&self, caller: &Arc<str>, bytes: u64) -> Result<Share, Refusal> {
        let memory = self.memory();
        let share = memory.share_in_turn(MemoryPart::Responses, caller, bytes);
        let in_time = tokio::time::timeout(MEMORY_TIMEOUT, share).await;
        in_time.map_err(|_| memory.full(MemoryPart::Responses).into())
    }

    /// Waits for the memory of what a stream reads from the store, in turn with other callers.
    pub async fn reserve_stream_read(&self, caller: &Arc<str>, bytes: u64) -> Share {
        self.memory().share_in_turn(MemoryPart::StreamReads, caller, bytes).await
    }

    /// # Errors
    /// [`TaskNotFound`], `ProjectionUnavailable`.
    pub async fn get(&self, id: &TaskId) -> Result<TaskSnapshot, Refusal> {
        let (task, revision) = self.get_within(PROJECTION_STALL_TIMEOUT, id).await?;
        let (mut progress, mut unfinished_parents) = ((0.0, String::new()), None);
        // The durable part of the snapshot is still correct without the answers of the loop.
        match task.status.state {
            TaskState::Running => {
                let attempt = if_responsive(self.live_attempt(id).await)?;
                progress = attempt.map_or(progress, |attempt| attempt.progress());
            }
            TaskState::Waiting if task.spec.extras().dependencies.is_some() => {
                let request = |reply| Request::UnfinishedParents { task: id.clone(), reply };
                unfinished_parents = if_responsive(self.query_loop(QUERY_TIMEOUT, request).await)?;
            }
            _ => {}
        }
        Ok(TaskSnapshot { task, progress, unfinished_parents, revision })
    }

    /// One page of tasks, newest submission first.
    ///
    /// # Errors
    /// `ProjectionUnavailable`, [`Internal`].
    pub async fn list(&self, filter: TaskFilter, size: PageSize, after: Option<PageCursor>) -> Result<Page, Refusal> {
        let query = move |projection: &dyn Projection| projection.list(&filter, size, after);
        let (page, _) = self.read_current(PROJECTION_STALL_TIMEOUT, query).await?;
        Ok(page)
    }

    /// Waits until a task has ended or `timeout` has passed. Returns its snapshot without the payload, and the memory for
    /// a response with it. Holds no payload while it waits.
    ///
    /// # Errors
    /// [`TaskNotFound`], [`Draining`], `MemoryFull`.
    pub async fn wait(
        &self,
        id: &TaskId,
        timeout: Duration,
        caller: &Arc<str>,
    ) -> Result<(TaskSnapshot, Share), Refusal> {
        let ended = self.inner.hub.ended(id);
        let mut memory = self.reserve_response(caller, TASK_BYTES).await?;
        let mut snapshot = self.get(id).await?;
        count_task(&mut memory, &snapshot.task);
        snapshot.task.spec = Arc::new(snapshot.task.spec.without_payload());
        if snapshot.task.status.state.is_terminal() {
            return Ok((snapshot, memory));
        }
        drop(memory);
        tokio::select! {
            _ = ended => {}
            () = tokio::time::sleep(timeout) => {}
            () = self.inner.draining.cancelled() => return Err(Draining.into()),
        }
        let mut memory = self.reserve_response(caller, TASK_BYTES).await?;
        let snapshot = match self.get(id).await {
            // Retention deleted the task as soon as it ended: its events still contain the result.
            Err(Refusal::TaskNotFound(_)) => self.final_snapshot(snapshot, caller).await?,
            result => result?,
        };
        count_task(&mut memory, &snapshot.task);
        Ok((snapshot, memory))
    }

    /// The snapshot of a task at its end, computed from an earlier snapshot and the events after it.
    async fn final_snapshot(&self, mut snapshot: TaskSnapshot, caller: &Arc<str>) -> Result<TaskSnapshot, Refusal> {
        let id = snapshot.task.spec.id.clone();
        let only_this = TaskFilter { ids: vec![id.clone()], ..TaskFilter::default() };
        let mut watch = self.watch(only_this, Some(snapshot.revision), caller.clone())?;
        let mut task = Some(snapshot.task);
        let is_live = |task: &Option<Task>| task.as_ref().is_some_and(|task| !task.status.state.is_terminal());
        while is_live(&task) {
            if let Some(event) = watch.next().await?.as_deref().and_then(Event::task) {
                fold(&mut task, event);
            }
        }
        snapshot.task = task.ok_or(TaskNotFound { task: id })?;
        snapshot.progress = (0.0, String::new());
        snapshot.unfinished_parents = None;
        snapshot.revision = snapshot.task.status.revision;
        Ok(snapshot)
    }

    /// Watches matching events after a revision, or from now on. `caller` is whose turn it is when the watch has to read
    /// the journal.
    ///
    /// # Errors
    /// `RevisionInFuture`.
    pub fn watch(&self, filter: TaskFilter, after: Option<Revision>, caller: Arc<str>) -> Result<Watch, Refusal> {
        Watch::new(self.inner.hub.clone(), filter, after, caller)
    }

    /// Output of an attempt; of the current or last one if `attempt` is 0.
    ///
    /// # Errors
    /// [`TaskNotFound`], `SchedulerUnresponsive`.
    pub async fn output(&self, id: &TaskId, attempt: u32) -> Result<OutputSource, Refusal> {
        let task = id.clone();
        let request = |reply| Request::UnstoredOutput { task, attempt, reply };
        if let Some(source) = self.query_loop(QUERY_TIMEOUT, request).await? {
            return Ok(source);
        }
        self.get(id).await?;
        let id = id.clone();
        let stored = self.read(move |projection| projection.output(&id, attempt)).await?;
        Ok(stored.map_or(OutputSource::Empty, |(attempt, output)| OutputSource::Stored { attempt, output }))
    }

    /// The payload of the task that was submitted at a revision, for an attempt that does not carry it. Waits without a
    /// time limit while the store cannot be read or is behind: an attempt must not fail because of a disk.
    ///
    /// # Errors
    /// [`Internal`] if the payload is damaged in the store, or the store does not have it.
    pub(super) async fn payload(&self, submission: Revision) -> Result<Bytes, Refusal> {
        let projection = &*self.inner.store.projection;
        loop {
            let reached = projection.task_revision();
            let retry_now = match self.query(move |projection| projection.payload(submission)).await? {
                Ok(Some(payload)) => return Ok(payload),
                Ok(None) if reached >= submission => {
                    let cause = format!("the store has no task that was submitted at revision {submission}");
                    return Err(Internal { cause }.into());
                }
                Ok(None) => wait_for_revision(projection, submission, Duration::MAX).await.is_ok(),
                Err(error) if error.is_damage() => return Err(Internal::from_error(error).into()),
                Err(error) => {
                    tracing::warn!(%submission, %error, "failed to read a payload; the attempt waits");
                    false
                }
            };
            if !retry_now {
                tokio::time::sleep(PAYLOAD_RETRY_DELAY).await;
            }
        }
    }

    pub(super) async fn get_within(&self, stall_timeout: Duration, id: &TaskId) -> Result<(Task, Revision), Refusal> {
        let revision = self.inner.hub.revision();
        let projection = &*self.inner.store.projection;
        if projection.task_revision() < revision {
            wait_for_revision(projection, revision, stall_timeout).await?;
        } else if let Some(task) = projection.recent(id) {
            let revision = revision.max(task.status.revision);
            return Ok((task, revision));
        }
        let wanted = id.clone();
        let task = self.read(move |projection| projection.get(&wanted)).await?;
        let task = task.ok_or_else(|| TaskNotFound { task: id.clone() })?;
        let revision = revision.max(task.status.revision);
        Ok((task, revision))
    }

    /// Reads the projection once it has reached the present revision, which is returned too.
    async fn read_current<T: Send + 'static>(
        &self,
        stall_timeout: Duration,
        query: impl FnOnce(&dyn Projection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<(T, Revision), Refusal> {
        let revision = self.inner.hub.revision();
        wait_for_revision(&*self.inner.store.projection, revision, stall_timeout).await?;
        Ok((self.read(query).await?, revision))
    }

    /// Reads the projection, which may be behind.
    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&dyn Projection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.query(query).await?.map_err(|error| {
            tracing::warn!(%error, "failed to read the store");
            Refusal::of_read(&error)
        })
    }

    async fn query<T: Send + 'static>(
        &self,
        query: impl FnOnce(&dyn Projection) -> T + Send + 'static,
    ) -> Result<T, Internal> {
        let projection = Arc::clone(&self.inner.store.projection);
        tokio::task::spawn_blocking(move || query(&*projection)).await.map_err(Internal::from_error)
    }
}
