//! Serving the requests of callers.

use std::time::Duration;

use crate::model::limits::GRACE_DEFAULT;
use crate::model::{
    CancelMode, CancelRequest, Durability, HandlerName, PoolName, Revision, TaskId, TaskState, TaskUpdate, Timestamp,
};
use crate::scheduler::core::{Decisions, PoolView, Submission, Submitted, Verdict};
use crate::scheduler::message::{PendingReply, Reply, Request, send};
use crate::scheduler::refusal::{Internal, Refusal, StoreUnavailable, TaskStarted};
use crate::scheduler::views::{CancelCommand, PoolMetrics};

use super::pending::{Change, Changed};
use super::state::Service;

/// Whether a refusal reports the state of a task, batch, schedule, handler or pool, which may not be durable yet.
///
/// A full queue is reported at once, although a crash may empty it: the caller tries again in any case, and a server
/// under overload must not keep the calls that it refuses.
fn depends_on_state(refusal: &Refusal) -> bool {
    use Refusal::{
        BatchClosed, BatchExists, BatchFinished, BatchNotFinished, BatchNotFound, EtagMismatch, HandlerNotUploaded,
        ParentNotFound, RequestIdReused, ScheduleBusy, ScheduleConfigured, ScheduleExists, ScheduleNotFound,
        TaskFinished, TaskNotFound, TaskStarted, TooManySchedules, UniqueKeyTaken, UnknownHandler,
    };
    matches!(
        refusal,
        TaskFinished(_)
            | TaskStarted(_)
            | RequestIdReused(_)
            | UniqueKeyTaken(_)
            | ParentNotFound(_)
            | TaskNotFound(_)
            | EtagMismatch(_)
            | BatchNotFound(_)
            | BatchExists(_)
            | BatchClosed(_)
            | BatchFinished(_)
            | BatchNotFinished(_)
            | ScheduleNotFound(_)
            | ScheduleExists(_)
            | ScheduleBusy(_)
            | ScheduleConfigured(_)
            | TooManySchedules(_)
            | HandlerNotUploaded(_)
            | UnknownHandler(_)
    )
}

impl Service {
    pub(super) fn serve(&mut self, now: Timestamp, request: Request, out: &mut Decisions) {
        match request {
            Request::Submit { submission, reply } => {
                let result = self.check_store().and_then(|()| self.submit(now, submission, out));
                self.reply_when_durable(reply, result);
            }
            Request::SubmitEach { submission, reply } => {
                let result = self.check_store();
                let result = result.map(|()| submission.split().map(|one| self.submit(now, one, out)).collect());
                self.reply_when_durable(reply, result);
            }
            Request::Cancel { cancel, reply } => {
                let result = self.check_store().and_then(|()| self.cancel(now, cancel, out));
                self.reply_when_durable(reply, result);
            }
            Request::CancelEach { cancels, reply } => {
                self.each(now, cancels, |service, cancel, out| service.cancel(now, cancel, out), reply, out);
            }
            Request::UpdateEach { tasks, update, reply } => {
                self.each(now, tasks, |service, id, out| service.update_task(now, &id, &update, out), reply, out);
            }
            Request::Update { task, update, reply } => {
                let result = self.check_store().and_then(|()| self.update_task(now, &task, &update, out));
                self.reply_when_durable(reply, result);
            }
            Request::Delete { filter, reply } => self.delete(filter, reply),
            Request::Batch(request) => self.serve_batch(now, request, out),
            Request::Schedule(request) => self.serve_schedule(now, *request, out),
            Request::UpdatePool { update, reply } => {
                match self.check_store().and_then(|()| self.core.update_pool(now, &update, out)) {
                    Ok((pool, view)) => {
                        let reply = Some(PendingReply::new(reply, Ok((view.clone(), self.core.revision()))));
                        self.pending.effects.changes.push(Changed { what: Change::Pool(pool, view), reply });
                    }
                    Err(refusal) => self.reply_when_durable(reply, Err(refusal)),
                }
            }
            Request::RegisterHandlers { pool, handlers, reply } => {
                self.register_handlers(now, &pool, &handlers, reply, out);
            }
            Request::PutHandler { upload, module, runner, reply } => {
                self.put_handler(now, *upload, module, runner, reply, out);
            }
            Request::DeleteHandler { name, reply } => self.delete_handler(now, name, reply, out),
            Request::Reconfigure { configuration, reply } => self.reconfigure(now, *configuration, reply, out),
            Request::ResetCounters { pool, reply } => send(reply, self.reset_counters(now, &pool)),
            Request::Pools { reply } => {
                let views = self.pool_views.iter().flatten().cloned().collect();
                send(reply, Ok((views, self.shared.hub.revision())));
            }
            Request::PoolMetrics { pools, workers, reply } => {
                let result = self.pool_metrics(now, pools, workers);
                send(reply, result.map(|metrics| (metrics, self.shared.hub.revision())));
            }
            Request::LiveAttempt { task, reply } => send(reply, Ok(self.live_attempt(&task))),
            Request::UnstoredOutput { task, attempt, reply } => send(reply, Ok(self.unstored_output(&task, attempt))),
            Request::UnfinishedParents { task, reply } => send(reply, Ok(self.core.unfinished_parents(&task))),
            Request::Explain { task, reply } => send(reply, Ok(self.core.explain(now, &task))),
            Request::Limits { filter, from, count, reply } => {
                let page = self.core.list_limits(now, &filter, from, count);
                send(reply, Ok((page, self.shared.hub.revision())));
            }
            Request::Decisions { pool, filter, before, count, reply } => {
                let page = self.core.decisions(&pool, &filter, before, count);
                send(reply, page.map(|page| (page, self.shared.hub.revision())));
            }
            Request::RunningCount { reply } => send(reply, Ok(self.core.running())),
            Request::StoreFault { reply } => send(reply, Ok(self.fault.as_ref().map(|(error, _)| error.to_string()))),
            Request::Drain { limit } => self.drain(limit),
        }
    }

    /// Sends the result when the events so far are durable; at once if it is a refusal that no crash can undo.
    pub(super) fn reply_when_durable<T: Send + 'static>(&mut self, reply: Reply<T>, result: Result<T, Refusal>) {
        match result {
            Err(refusal) if !depends_on_state(&refusal) => send(reply, Err(refusal)),
            result => self.pending.effects.replies.push(PendingReply::new(reply, result)),
        }
    }

    /// Makes a decision about each task, which may belong to another commit. Replies when all of them are durable.
    fn each<C, T: Send + 'static>(
        &mut self,
        now: Timestamp,
        commands: Vec<C>,
        decide: impl Fn(&mut Self, C, &mut Decisions) -> Result<(T, Revision), Refusal>,
        reply: Reply<Vec<Result<T, Refusal>>>,
        out: &mut Decisions,
    ) {
        let result = self.check_store().map(|()| {
            let decide = |command| {
                let result = decide(self, command, out);
                self.stage(now, out);
                result.map(|(done, _)| done)
            };
            commands.into_iter().map(decide).collect()
        });
        self.reply_when_durable(reply, result);
    }

    /// Refuses changes while the store refuses writes.
    pub(super) fn check_store(&self) -> Result<(), Refusal> {
        match &self.fault {
            Some((error, _)) => Err(StoreUnavailable { cause: error.to_string() }.into()),
            None => Ok(()),
        }
    }

    fn submit(&mut self, now: Timestamp, submission: Submission, out: &mut Decisions) -> Result<Verdict, Refusal> {
        let submitted = match self.core.submit(now, submission, out)? {
            Verdict::Accepted(submitted) => submitted,
            other => return Ok(other),
        };
        // A store in memory reaches less than the tasks require.
        let durability = match self.shared.store.journal.durability() {
            Durability::Memory => Durability::Memory,
            Durability::Fsync => submitted.durability,
        };
        Ok(Verdict::Accepted(Submitted { durability, ..submitted }))
    }

    /// How long an attempt of the handler may take to stop before it is killed.
    pub(super) fn grace_of(&self, handler: &HandlerName) -> Duration {
        self.shared.catalog.load().grace_of(handler)
    }

    fn cancel(
        &mut self,
        now: Timestamp,
        cancel: CancelCommand,
        out: &mut Decisions,
    ) -> Result<(TaskState, Revision), Refusal> {
        let options = self.core.task(&cancel.id).map(|(_, options)| options);
        let handler_grace = || options.map_or(GRACE_DEFAULT, |options| self.grace_of(&options.handler));
        let grace = cancel.grace.unwrap_or_else(handler_grace);
        let request = CancelRequest {
            requested_at: now,
            reason: cancel.reason,
            requested_by: cancel.by,
            mode: cancel.mode,
            grace: if cancel.mode == CancelMode::Force { Duration::ZERO } else { grace },
        };
        let state = self.core.cancel(&cancel.id, request, out)?;
        let state = state.unwrap_or_else(|| {
            self.recall(now, out);
            match self.core.task(&cancel.id) {
                Some((TaskState::Cancelled, _)) => TaskState::Cancelled,
                // To the caller a task whose start is not reported yet is running.
                _ => TaskState::Running,
            }
        });
        Ok((state, self.core.revision()))
    }

    fn update_task(
        &mut self,
        now: Timestamp,
        id: &TaskId,
        update: &TaskUpdate,
        out: &mut Decisions,
    ) -> Result<(TaskState, Revision), Refusal> {
        let shared = self.shared.clone();
        let intern = |options| shared.options.lock().intern(options);
        if let Some(state) = self.core.update_task(now, id, update, intern, out)? {
            return Ok((state, self.core.revision()));
        }
        let before = self.core.revision();
        self.recall(now, out);
        match self.core.task(id) {
            Some((state, _)) if self.core.revision() > before => Ok((state, self.core.revision())),
            // The worker that has started it has not reported that yet.
            _ => Err(TaskStarted { task: id.clone(), state: TaskState::Running }.into()),
        }
    }

    /// Lets the workers of a pool follow its durable settings.
    ///
    /// # Errors
    /// If workers cannot be started. The pool then has those that it could start.
    pub(super) fn apply_pool_update(&mut self, index: u16, mut view: PoolView) -> Result<(), Refusal> {
        if !view.spec.has_fixed_size() {
            // It has followed the workers, or the load, since the decision.
            view.spec.size = self.core.pool_size(index);
        }
        let index = usize::from(index);
        let Some(Some(pool)) = self.pools.get(index) else { return Ok(()) };
        pool.set_paused(self.starts_nothing(&view.spec));
        let resized = pool.resize(view.spec.size);
        let name = view.spec.name.clone();
        if let Some(stored) = self.pool_views.get_mut(index) {
            *stored = Some(view);
        }
        resized.map_err(|error| {
            tracing::error!(pool = %name, %error, "failed to start the workers of a pool");
            let cause = format!("the settings are stored, but workers of pool `{name}` cannot be started: {error}");
            Internal { cause }.into()
        })
    }

    fn pool_metrics(
        &mut self,
        now: Timestamp,
        pools: Vec<PoolName>,
        workers: bool,
    ) -> Result<Vec<PoolMetrics>, Refusal> {
        let names = if pools.is_empty() {
            self.pool_views.iter().flatten().map(|view| view.spec.name.clone()).collect()
        } else {
            pools
        };
        let mut metrics = Vec::new();
        for name in names {
            let (index, snapshot) = self.core.pool_snapshot(now, &name)?;
            let Some(Some(pool)) = self.pools.get(usize::from(index)) else { continue };
            let workers = if workers { pool.workers() } else { Vec::new() };
            metrics.push(PoolMetrics { at: now, snapshot, stats: pool.stats(), workers });
        }
        Ok(metrics)
    }

    fn reset_counters(&mut self, now: Timestamp, pool: &PoolName) -> Result<Revision, Refusal> {
        let index = self.core.reset_counters(now, pool)?;
        if let Some(Some(pool)) = self.pools.get(usize::from(index)) {
            pool.reset_counters();
        }
        Ok(self.shared.hub.revision())
    }
}
