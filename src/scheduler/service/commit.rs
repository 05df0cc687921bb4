//! The path of decisions: staged, made durable, then released.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::{Durability, Event, Timestamp};
use crate::scheduler::core::{Decisions, Dispatch, Unattempted};
use crate::scheduler::message::Message;
use crate::scheduler::refusal::{Refusal, StoreUnavailable};
use crate::store::{Commit, StoreError};
use crate::telemetry::trace;

use super::state::{Pending, PoolUpdated, Service};

/// How long events that no caller waits for may wait for others, so that short tasks need one commit less.
pub(super) const LINGER: Duration = Duration::from_millis(1);
/// Largest commit, in events, that the loop appends itself. Handing over a small commit would take longer than
/// the append; a larger one is appended by the journal's thread while the core decides the next one.
const DIRECT_APPEND_MAX: usize = 256;
/// Time between attempts to write when the store refuses.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Records spans for tasks that ended without an attempt that could record them.
pub(super) fn record_unattempted(out: &mut Decisions) {
    for Unattempted { event, trace, submitted_at } in out.unattempted.drain(..) {
        if let (Some(tracer), Some(event)) = (trace::tracer(), out.events.get(event).and_then(Event::task)) {
            tracer.settle(event, &trace, submitted_at);
        }
    }
}

fn requires_sync(event: &Event) -> bool {
    event.task().is_none_or(|event| event.options.durability == Durability::Fsync)
}

impl Service {
    /// Moves decisions to [`Service::pending`]. Stops and recalls take effect at once, since they only prevent
    /// or end work.
    pub(super) fn stage(&mut self, now: Timestamp, out: &mut Decisions) {
        self.recall(now, out);
        for (ticket, cause, grace) in out.stops.drain(..) {
            if let Some(pool) = self.pool(ticket) {
                pool.stop_attempt(ticket, cause, grace);
            }
        }
        self.pending.confirms.append(&mut out.confirms);
        for Dispatch { pool: index, assignments, held_back } in out.dispatches.drain(..) {
            if let Some(pool) = self.pools.get_mut(usize::from(index)) {
                self.pending.dispatches.push((index, pool.prepare(assignments), held_back));
            }
        }
        record_unattempted(out);
        self.pending.append_events(&mut out.events);
    }

    /// Asks the pools for attempts to take back, and lets the core decide.
    pub(super) fn recall(&mut self, now: Timestamp, out: &mut Decisions) {
        while let Some(ticket) = out.recalls.pop() {
            let won = self.pool_mut(ticket).is_some_and(|pool| pool.recall(ticket));
            self.core.recalled(now, ticket, won, out);
        }
    }

    /// Appends the pending events, unless a commit is in flight, the store refuses writes, or no caller waits
    /// for the events and they are younger than [`LINGER`].
    pub(super) fn commit(&mut self) {
        if self.in_flight.is_some() || self.pending.is_empty() {
            return;
        }
        if let Some((_, retry_at)) = &self.fault
            && Instant::now() < *retry_at
        {
            return;
        }
        if self.pending.events.is_empty() {
            let pending = std::mem::take(&mut self.pending);
            return self.release(pending);
        }
        let urgent = self.pending.urgent || !self.pending.confirms.is_empty() || !self.pending.replies.is_empty();
        let since = *self.pending.since.get_or_insert_with(Instant::now);
        if !urgent && since.elapsed() < LINGER {
            return;
        }
        let mut pending = std::mem::take(&mut self.pending);
        let events = std::mem::take(&mut pending.events);
        let sync = events.iter().any(requires_sync);
        let commit = Arc::new(Commit { events, sync });
        self.observer.commit_started();
        if commit.events.len() <= DIRECT_APPEND_MAX {
            let result = self.shared.store.journal.append(&commit);
            return self.finish_commit(commit, pending, result);
        }
        self.in_flight = Some((commit.clone(), pending));
        let inbox = self.shared.inbox.clone();
        // Fails only if the service has ended.
        let done = Box::new(move |result| drop(inbox.send(Message::Committed(result))));
        self.shared.store.journal.append_in_background(commit, done);
    }

    /// The append in flight has ended.
    pub(super) fn committed(&mut self, result: Result<(), StoreError>) {
        if let Some((commit, pending)) = self.in_flight.take() {
            self.finish_commit(commit, pending, result);
        }
    }

    fn finish_commit(&mut self, commit: Arc<Commit>, pending: Pending, result: Result<(), StoreError>) {
        match result {
            Ok(()) => {
                if self.fault.take().is_some() {
                    tracing::info!("the store accepts writes again");
                }
                self.observer.commit_durable(&commit.events);
                self.shared.store.projection.apply(commit.clone());
                self.shared.hub.publish(&commit);
                self.release(pending);
            }
            Err(error) => self.requeue(commit, pending, error),
        }
    }

    /// The store has refused a commit: refuses all waiting callers, but keeps the decisions for the next try.
    fn requeue(&mut self, commit: Arc<Commit>, pending: Pending, error: StoreError) {
        if self.fault.is_none() {
            tracing::error!(%error, "the store refuses writes; nothing is accepted until it accepts writes again");
        }
        self.observer.commit_refused();
        // Before the callers learn of it, so that their next health check reports it.
        self.observer.heartbeat(true);
        let refusal = Refusal::from(StoreUnavailable { cause: error.to_string() });
        let newer = std::mem::take(&mut self.pending);
        let mut pool_updates: Vec<_> = pending.pool_updates.into_iter().chain(newer.pool_updates).collect();
        let of_pools = pool_updates.iter_mut().filter_map(|update| update.reply.take());
        for reply in pending.replies.into_iter().chain(newer.replies).chain(of_pools) {
            reply.resolve(Err(refusal.clone()));
        }
        let mut events = Arc::try_unwrap(commit).map_or_else(|shared| shared.events.clone(), |commit| commit.events);
        events.extend(newer.events);
        self.pending = Pending {
            events,
            dispatches: pending.dispatches.into_iter().chain(newer.dispatches).collect(),
            confirms: pending.confirms.into_iter().chain(newer.confirms).collect(),
            pool_updates,
            replies: Vec::new(),
            urgent: true,
            since: pending.since,
        };
        self.fault = Some((error, Instant::now() + RETRY_INTERVAL));
    }

    /// Releases the effects of durable events. Dispatches before replies, so that no caller whose submission
    /// was acknowledged can see an attempt of lower priority start.
    fn release(&mut self, pending: Pending) {
        for PoolUpdated { pool, view, reply } in pending.pool_updates {
            let applied = self.apply_pool_update(pool, view);
            if let Some(reply) = reply {
                reply.resolve(applied);
            }
        }
        for ticket in pending.confirms {
            if let Some(pool) = self.pool(ticket) {
                pool.confirm(ticket);
            }
        }
        for (index, batch, held_back) in pending.dispatches {
            if let Some(pool) = self.pools.get_mut(usize::from(index)) {
                pool.push(batch, held_back);
            }
        }
        for reply in pending.replies {
            reply.resolve(Ok(()));
        }
    }
}
