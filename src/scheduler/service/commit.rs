//! The path of decisions: staged, made durable, then released.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::{Durability, Event, Timestamp};
use crate::pool::Attempt;
use crate::scheduler::core::{Decisions, Dispatch, Unattempted};
use crate::scheduler::message::Message;
use crate::scheduler::refusal::{Refusal, StoreUnavailable};
use crate::store::{Commit, StoreError};
use crate::telemetry::trace;

use super::state::{Pending, Service};

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
        for ticket in std::mem::take(&mut out.recalls) {
            if self.attempt(ticket).is_some_and(|attempt| attempt.recall()) {
                self.core.recalled_expired(now, ticket, out);
            }
        }
        for (ticket, cause, grace) in out.stops.drain(..) {
            if let Some(attempt) = self.attempt(ticket) {
                attempt.stop(cause, grace);
            }
        }
        for ticket in out.confirms.drain(..) {
            let attempt = self.attempt(ticket);
            self.pending.confirms.extend(attempt);
        }
        for dispatch in out.dispatches.drain(..) {
            self.stage_dispatch(dispatch);
        }
        record_unattempted(out);
        self.pending.append_events(&mut out.events);
    }

    fn stage_dispatch(&mut self, Dispatch { pool, assignments, held_back }: Dispatch) {
        let mut attempts = Vec::with_capacity(assignments.len());
        for assignment in assignments {
            let index = assignment.ticket.index as usize;
            let attempt = Attempt::new(assignment);
            if self.attempts.len() <= index {
                self.attempts.resize(index + 1, None);
            }
            self.attempts[index] = Some(attempt.clone());
            attempts.push(attempt);
        }
        self.pending.dispatches.push((pool, attempts, held_back));
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
        let refusal = Refusal::from(StoreUnavailable { cause: error.to_string() });
        let newer = std::mem::take(&mut self.pending);
        for reply in pending.replies.into_iter().chain(newer.replies) {
            reply.resolve(Err(refusal.clone()));
        }
        let mut events = Arc::try_unwrap(commit).map_or_else(|shared| shared.events.clone(), |commit| commit.events);
        events.extend(newer.events);
        self.pending = Pending {
            events,
            dispatches: pending.dispatches.into_iter().chain(newer.dispatches).collect(),
            confirms: pending.confirms.into_iter().chain(newer.confirms).collect(),
            replies: Vec::new(),
            urgent: true,
            since: pending.since,
        };
        self.fault = Some((error, Instant::now() + RETRY_INTERVAL));
    }

    /// Releases the effects of durable events. Dispatches before replies, so that no caller whose submission
    /// was acknowledged can see an attempt of lower priority start.
    fn release(&mut self, pending: Pending) {
        for attempt in pending.confirms {
            attempt.confirm();
        }
        for (index, attempts, held_back) in pending.dispatches {
            if let Some(pool) = self.pools.get(usize::from(index)) {
                pool.push(attempts, held_back);
            }
        }
        for reply in pending.replies {
            reply.resolve(Ok(()));
        }
    }
}
