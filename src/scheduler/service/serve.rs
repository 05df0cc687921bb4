//! What callers ask of the service, one after the other.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    CancelMode, CancelRequest, Durability, PoolName, PoolSpec, Revision, TaskId, TaskSpec, TaskState, Timestamp,
};
use crate::pool::{Attempt, Ticket};
use crate::store::{PoolOverride, PoolSettings};

use super::{INTERRUPT_GRACE, Service};
use crate::scheduler::core::{Output, PoolUpdate, PoolView, Submitted};
use crate::scheduler::message::{PendingReply, Reply, Request};
use crate::scheduler::refusal::{Internal, Refusal, StoreUnavailable};
use crate::scheduler::views::{Cancel, PoolMetrics};

impl Service {
    pub(super) fn serve(&mut self, now: Timestamp, request: Request, out: &mut Output) {
        match request {
            Request::Submit { specs, reply } => self.submit(now, specs, reply, out),
            Request::SubmitEach { specs, reply } => {
                if let Some(refusal) = self.store_refusal() {
                    return drop(reply.send(Err(refusal)));
                }
                let answers = specs.into_iter().map(|spec| self.accept(now, vec![spec], out)).collect();
                self.pending.answers.push(PendingReply::SubmittedEach(reply, answers));
            }
            Request::Cancel { cancel, reply } => self.cancel(now, cancel, reply, out),
            Request::Delete { filter, reply } => {
                if let Some(refusal) = self.store_refusal() {
                    return drop(reply.send(Err(refusal)));
                }
                let deleted = self.core.delete_matching(now, &filter, out);
                self.pending.answers.push(PendingReply::Deleted(reply, (deleted, self.core.revision())));
            }
            Request::Pools { reply } => {
                drop(reply.send(Ok((self.core.pool_views(), self.shared.hub.revision()))));
            }
            Request::UpdatePool { update, reply } => {
                let updated = self.update_pool(&update);
                drop(reply.send(updated.map(|view| (view, self.shared.hub.revision()))));
            }
            Request::ReadPools { pools, workers, reply } => {
                let read = self.read_pools(now, pools, workers);
                drop(reply.send(read.map(|metrics| (metrics, self.shared.hub.revision()))));
            }
            Request::ResetCounters { pool, reply } => drop(reply.send(self.reset_counters(now, &pool))),
            Request::LiveAttempt { task, reply } => drop(reply.send(Ok(self.live_attempt(&task)))),
            Request::Running { reply } => drop(reply.send(Ok(self.core.running()))),
            Request::StoreFault { reply } => {
                drop(reply.send(Ok(self.fault.as_ref().map(|(error, _)| error.to_string()))));
            }
            Request::Drain { limit } => self.drain(limit),
        }
    }

    fn submit(&mut self, now: Timestamp, specs: Vec<TaskSpec>, reply: Reply<Submitted>, out: &mut Output) {
        if let Some(refusal) = self.store_refusal() {
            return drop(reply.send(Err(refusal)));
        }
        match self.accept(now, specs, out) {
            Ok(submitted) => self.pending.answers.push(PendingReply::Submitted(reply, submitted)),
            Err(refusal) => drop(reply.send(Err(refusal))),
        }
    }

    /// Submits, and names the durability that will be reached.
    fn accept(&mut self, now: Timestamp, specs: Vec<TaskSpec>, out: &mut Output) -> Result<Submitted, Refusal> {
        let submitted = self.core.submit(now, specs, out)?;
        let durability = match self.shared.store.journal.durability() {
            Durability::Memory => Durability::Memory,
            Durability::Fsync => submitted.durability,
        };
        Ok(Submitted { durability, ..submitted })
    }

    fn cancel(&mut self, now: Timestamp, cancel: Cancel, reply: Reply<(TaskState, Revision)>, out: &mut Output) {
        if let Some(refusal) = self.store_refusal() {
            return drop(reply.send(Err(refusal)));
        }
        let attempt = self.live_attempt(&cancel.id);
        let recalled = attempt.as_ref().is_some_and(|attempt| attempt.recall());
        let registered = attempt.as_ref().and_then(|a| self.shared.catalog.handlers.get(&a.spec().options.handler));
        let grace = cancel.grace.or_else(|| registered.map(|handler| handler.grace)).unwrap_or(INTERRUPT_GRACE);
        let request = CancelRequest {
            requested_at: now,
            reason: cancel.reason,
            requested_by: cancel.by,
            mode: cancel.mode,
            grace: if cancel.mode == CancelMode::Force { Duration::ZERO } else { grace },
        };
        match self.core.cancel(&cancel.id, request, recalled, out) {
            Ok(state) => {
                let answer = (state, self.core.revision());
                self.pending.answers.push(PendingReply::Cancelled(reply, answer));
            }
            Err(refusal) => drop(reply.send(Err(refusal))),
        }
    }

    fn update_pool(&mut self, update: &PoolUpdate) -> Result<PoolView, Refusal> {
        if let Some(refusal) = self.store_refusal() {
            return Err(refusal);
        }
        let before = self.core.pool_views().into_iter().find(|view| view.spec.name == update.name);
        let (index, view) = self.core.update_pool(update)?;
        let changed = self.resize(index, view.spec.size).and_then(|()| self.keep_pool(index, &view.spec));
        if let (Err(_), Some(PoolView { spec, .. })) = (&changed, before) {
            let back = PoolUpdate {
                name: spec.name,
                size: Some(spec.size),
                paused: Some(spec.paused),
                queue_limit: Some(spec.queue_limit),
                etag: None,
            };
            self.core.update_pool(&back)?;
            self.resize(index, spec.size)?;
        }
        changed?;
        if let Some(pool) = self.pools.get(usize::from(index)).and_then(Option::as_ref) {
            pool.set_paused(view.spec.paused);
        }
        Ok(view)
    }

    fn resize(&self, index: u16, size: usize) -> Result<(), Refusal> {
        let Some(pool) = self.pools.get(usize::from(index)).and_then(Option::as_ref) else { return Ok(()) };
        pool.resize(size).map_err(|error| Internal { cause: error.to_string() }.into())
    }

    /// Waits for the disk: operators do this, and seldom.
    fn keep_pool(&self, index: u16, spec: &PoolSpec) -> Result<(), Refusal> {
        let Some(configured) = self.configured.get(usize::from(index)).copied() else { return Ok(()) };
        let kept = PoolOverride { name: spec.name.clone(), configured, set: PoolSettings::of(spec) };
        let written = self.shared.store.journal.save_pool_override(&kept);
        written.map_err(|error| StoreUnavailable { cause: error.to_string() }.into())
    }

    fn read_pools(&mut self, now: Timestamp, pools: Vec<PoolName>, workers: bool) -> Result<Vec<PoolMetrics>, Refusal> {
        let names = if pools.is_empty() {
            self.core.pool_views().into_iter().map(|view| view.spec.name).collect()
        } else {
            pools
        };
        let mut metrics = Vec::new();
        for name in names {
            let (index, reading) = self.core.read_pool(now, &name)?;
            let Some(pool) = self.pools.get(usize::from(index)).and_then(Option::as_ref) else { continue };
            let rows = if workers { pool.workers() } else { Vec::new() };
            metrics.push(PoolMetrics { at: now, reading, stats: pool.stats(), workers: rows });
        }
        Ok(metrics)
    }

    fn reset_counters(&mut self, now: Timestamp, pool: &PoolName) -> Result<Revision, Refusal> {
        let index = self.core.reset_counters(now, pool)?;
        if let Some(pool) = self.pools.get(usize::from(index)).and_then(Option::as_ref) {
            pool.reset_counters();
        }
        Ok(self.shared.hub.revision())
    }

    pub(super) fn live_attempt(&self, task: &TaskId) -> Option<Arc<Attempt>> {
        self.attempt(self.core.ticket(task)?)
    }

    pub(super) fn attempt(&self, ticket: Ticket) -> Option<Arc<Attempt>> {
        let attempt = self.attempts.get(ticket.index as usize)?.as_ref()?;
        (attempt.ticket() == ticket).then(|| attempt.clone())
    }

    fn store_refusal(&self) -> Option<Refusal> {
        let (error, _) = self.fault.as_ref()?;
        Some(StoreUnavailable { cause: error.to_string() }.into())
    }
}
