//! Queries that the projection and the event hub answer: get, list, wait, watch, output.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::model::limits::{OUTPUT_KEPT_BYTES, PayloadLimit};
use crate::model::{
    Event, MemoryPart, OutputExcerpt, PoolName, ResumeToken, Revision, Share, StoreId, Task, TaskFilter, TaskId,
    TaskState, TaskStatus,
};
use crate::runners::ParentRead;
use crate::store::{Page, PageCursor, PageSize, Projection, StoreError, fold};

use super::core::{DecisionFilter, DecisionPage, Explanation, LimitFilter, LimitPage};
use super::handle::Handle;
use super::message::Request;
use super::refusal::{Draining, Internal, Refusal, TaskNotFound};
use super::timeouts::{MEMORY_TIMEOUT, PROJECTION_STALL_TIMEOUT, QUERY_TIMEOUT, wait_for_revision};
use super::views::{OutputSource, TaskParts, TaskSnapshot};
use super::watch::Watch;

/// Bytes of a task besides its payload and result.
const TASK_BYTES_BESIDES: usize = 512 << 10;
/// Bytes of the payload and the result of a task that is not larger than usual.
const BODY_BYTES: u64 = 2 * *PayloadLimit::RANGE.start() as u64;
/// Bytes of the stored output of an attempt, which is read for its excerpt: head and tail of both streams.
const OUTPUT_BYTES: u64 = 4 * OUTPUT_KEPT_BYTES as u64;
/// Delay between attempts to read a payload.
const PAYLOAD_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Memory for reading a task whose payload and result have `bodies` bytes, and sending it: once as they are and once encoded.
const fn response_bytes(bodies: u64) -> u64 {
    2 * (bodies + TASK_BYTES_BESIDES as u64)
}

fn body_bytes(task: &Task, with_payload: bool) -> u64 {
    let payload = if with_payload { task.spec.payload.len() } else { 0 };
    (payload + task.status.result.as_ref().map_or(0, |result| result.data.len())) as u64
}

/// Counts a task that was read and is larger than usual, whatever the limit: it is in memory already.
fn count_task(memory: &mut Share, task: &Task, with_payload: bool) {
    let bodies = body_bytes(task, with_payload);
    if bodies > BODY_BYTES {
        memory.resize(response_bytes(bodies));
    }
}

/// What the loop has answered; `None` if it does not respond in time.
fn if_responsive<T>(answer: Result<Option<T>, Refusal>) -> Result<Option<T>, Refusal> {
    match answer {
        Err(Refusal::SchedulerUnresponsive(_)) => Ok(None),
        answer => answer,
    }
}

/// A task was not read, because its payload and result have this many bytes.
struct Larger(u64);

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

    /// A task, maybe without its payload.
    ///
    /// # Errors
    /// [`TaskNotFound`], `ProjectionUnavailable`.
    pub async fn get(&self, id: &TaskId) -> Result<TaskSnapshot, Refusal> {
        let (task, revision) = self.read_task(id, false).await?;
        self.snapshot(task, revision).await
    }

    /// # Errors
    /// As [`Handle::get`].
    pub async fn get_with_payload(&self, id: &TaskId) -> Result<TaskSnapshot, Refusal> {
        let (task, revision) = self.read_task(id, true).await?;
        self.snapshot(task, revision).await
    }

    /// A task with these parts, and the memory for a response with it. Waits for the memory before it reads the task.
    ///
    /// # Errors
    /// As [`Handle::get`], and `MemoryFull`.
    pub async fn get_for_response(
        &self,
        id: &TaskId,
        parts: TaskParts,
        caller: &Arc<str>,
    ) -> Result<(TaskSnapshot, Share), Refusal> {
        let output_bytes = if parts.output { OUTPUT_BYTES } else { 0 };
        // A payload and a result of the largest size exceed what one caller can wait for.
        let share_max = self.memory().limit(MemoryPart::Responses) / 2;
        let mut bodies_max = BODY_BYTES;
        loop {
            let bytes = response_bytes(bodies_max) + output_bytes;
            let mut memory = self.reserve_response(caller, bytes.min(share_max)).await?;
            match self.find_task(id, parts.payload, bodies_max).await? {
                Ok((task, revision)) => {
                    count_task(&mut memory, &task, parts.payload);
                    let mut snapshot = self.snapshot(task, revision).await?;
                    if parts.output {
                        snapshot.output = self.excerpt(&snapshot.task).await?;
                    }
                    return Ok((snapshot, memory));
                }
                // The memory is returned before it waits for more, so that callers never wait for each other.
                Err(Larger(bodies)) => bodies_max = bodies,
            }
        }
    }

    async fn snapshot(&self, task: Task, revision: Revision) -> Result<TaskSnapshot, Refusal> {
        let (mut progress, mut unfinished_parents) = ((0.0, String::new()), None);
        // The durable part of the snapshot is still correct without the answers of the loop.
        match task.status.state {
            TaskState::Running => {
                let attempt = if_responsive(self.live_attempt(&task.spec.id).await)?;
                progress = attempt.map_or(progress, |attempt| attempt.progress());
            }
            TaskState::Waiting if task.spec.extras().dependencies.is_some() => {
                let request = |reply| Request::UnfinishedParents { task: task.spec.id.clone(), reply };
                unfinished_parents = if_responsive(self.query_loop(QUERY_TIMEOUT, request).await)?;
            }
            _ => {}
        }
        Ok(TaskSnapshot { task, progress, unfinished_parents, output: None, revision })
    }

    /// What keeps a task from starting; `None` if the task was deleted.
    ///
    /// # Errors
    /// [`Draining`], `SchedulerUnresponsive`.
    pub async fn explain(&self, id: &TaskId) -> Result<Option<Explanation>, Refusal> {
        let task = id.clone();
        self.query_loop(QUERY_TIMEOUT, |reply| Request::Explain { task, reply }).await
    }

    /// One page of the limits that are configured or in use. `from`: 0, or where the page before ended.
    ///
    /// # Errors
    /// [`Draining`], `SchedulerUnresponsive`.
    pub async fn limits(&self, filter: LimitFilter, from: u64, count: usize) -> Result<(LimitPage, Revision), Refusal> {
        self.query_loop(QUERY_TIMEOUT, |reply| Request::Limits { filter, from, count, reply }).await
    }

    /// The newest dispatches of a pool that match; those before `before`, where the page before ended.
    ///
    /// # Errors
    /// `UnknownPool`, [`Draining`], `SchedulerUnresponsive`.
    pub async fn decisions(
        &self,
        pool: PoolName,
        filter: DecisionFilter,
        before: Option<u64>,
        count: usize,
    ) -> Result<(DecisionPage, Revision), Refusal> {
        self.query_loop(QUERY_TIMEOUT, |reply| Request::Decisions { pool, filter, before, count, reply }).await
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
        let (mut snapshot, memory) = self.get_for_response(id, TaskParts::default(), caller).await?;
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
        match self.get_for_response(id, TaskParts::default(), caller).await {
            // Retention deleted the task as soon as it ended: its events still contain the result.
            Err(Refusal::TaskNotFound(_)) => {
                let mut memory = self.reserve_response(caller, response_bytes(BODY_BYTES)).await?;
                let snapshot = self.final_snapshot(snapshot, caller).await?;
                count_task(&mut memory, &snapshot.task, false);
                Ok((snapshot, memory))
            }
            result => result,
        }
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
        if let Some(source) = self.unstored_output(id, attempt).await? {
            return Ok(source);
        }
        self.get(id).await?;
        self.stored_output(id, attempt).await
    }

    /// The first and the last part of the output of the current or last attempt.
    async fn excerpt(&self, task: &Task) -> Result<Option<OutputExcerpt>, Refusal> {
        let (id, status) = (&task.spec.id, &task.status);
        let has_ended = status.state.is_terminal();
        if has_ended && status.stdout_bytes + status.stderr_bytes == 0 {
            return Ok(None);
        }
        let unstored = if has_ended { None } else { if_responsive(self.unstored_output(id, 0).await)? };
        let source = match unstored {
            Some(source) => source,
            None => self.stored_output(id, 0).await?,
        };
        Ok(match source {
            OutputSource::Live { attempt, buffer } => buffer.captured().map(|output| output.excerpt(attempt)),
            OutputSource::Stored { attempt, output } => Some(output.excerpt(attempt)),
            OutputSource::Empty => None,
        })
    }

    /// What the projection does not have yet.
    async fn unstored_output(&self, id: &TaskId, attempt: u32) -> Result<Option<OutputSource>, Refusal> {
        let task = id.clone();
        self.query_loop(QUERY_TIMEOUT, |reply| Request::UnstoredOutput { task, attempt, reply }).await
    }

    async fn stored_output(&self, id: &TaskId, attempt: u32) -> Result<OutputSource, Refusal> {
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

    /// The result of a task that has ended, for a task that depends on it, if it has at most `bytes_max` bytes. Waits without a
    /// time limit while the store cannot be read or is behind, as [`Handle::payload`] does.
    ///
    /// # Errors
    /// [`TaskNotFound`]; [`Internal`] if the task is damaged in the store.
    pub(super) async fn parent_result(&self, id: &TaskId, bytes_max: usize) -> Result<ParentRead, Refusal> {
        loop {
            match self.find_task(id, false, bytes_max as u64).await {
                Ok(Ok((task, _))) => return Ok(ParentRead::Result(task.status.result)),
                Ok(Err(Larger(_))) => return Ok(ParentRead::Larger),
                Err(refusal @ (Refusal::StoreUnreadable(_) | Refusal::ProjectionUnavailable(_))) => {
                    tracing::warn!(task = %id, error = %refusal, "failed to read the result of a parent; the attempt waits");
                    tokio::time::sleep(PAYLOAD_RETRY_DELAY).await;
                }
                Err(refusal) => return Err(refusal),
            }
        }
    }

    /// The status of a task, without what the loop knows about a running attempt.
    ///
    /// # Errors
    /// As [`Handle::get`].
    pub async fn durable_status(&self, id: &TaskId) -> Result<TaskStatus, Refusal> {
        Ok(self.read_task(id, false).await?.0.status)
    }

    pub(super) async fn read_task(&self, id: &TaskId, with_payload: bool) -> Result<(Task, Revision), Refusal> {
        let mut bodies_max = BODY_BYTES;
        loop {
            match self.find_task(id, with_payload, bodies_max).await? {
                Ok(found) => return Ok(found),
                Err(Larger(bodies)) => bodies_max = bodies,
            }
        }
    }

    /// Reads a task, unless its result and the payload that is wanted have more than `bodies_max` bytes.
    async fn find_task(
        &self,
        id: &TaskId,
        with_payload: bool,
        bodies_max: u64,
    ) -> Result<Result<(Task, Revision), Larger>, Refusal> {
        let revision = self.inner.hub.revision();
        let projection = &*self.inner.store.projection;
        let mut recent = None;
        if projection.task_revision() < revision {
            wait_for_revision(projection, revision, PROJECTION_STALL_TIMEOUT).await?;
        } else {
            recent = projection.recent(id);
        }
        let task = if let Some(task) = recent {
            let bodies = body_bytes(&task, with_payload);
            if bodies > bodies_max {
                return Ok(Err(Larger(bodies)));
            }
            task
        } else {
            let wanted = id.clone();
            let found = self.read(move |projection| match projection.stored_bytes(&wanted, with_payload)? {
                bodies if bodies > bodies_max => Ok(Err(Larger(bodies))),
                _ => projection.get(&wanted, with_payload).map(Ok),
            });
            match found.await? {
                Err(larger) => return Ok(Err(larger)),
                Ok(task) => task.ok_or_else(|| TaskNotFound { task: id.clone() })?,
            }
        };
        let revision = revision.max(task.status.revision);
        Ok(Ok((task, revision)))
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
