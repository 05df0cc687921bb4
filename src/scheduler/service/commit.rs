//! The path of decisions: staged, made durable, then released.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::{Event, Revision, Timestamp};
use crate::scheduler::core::{Decisions, Dispatch, Unattempted};
use crate::scheduler::message::Message;
use crate::scheduler::refusal::{Refusal, StoreUnavailable};
use crate::store::{AppendError, StoreError};
use crate::telemetry::{fatal, trace};

use super::pending::{Change, Changed, ClosedCommit, Effects};
use super::state::Service;

/// How long events that no caller waits for may wait for others, so that short tasks need one commit less.
const LINGER: Duration = Duration::from_millis(1);
/// Largest commit, in events, that the loop appends itself. Handing over a small commit would take longer than
/// the append; a larger one is appended by the journal's thread while the core decides the next one.
const DIRECT_APPEND_MAX: usize = 256;
/// Appends of full commits in flight. The journal writes one while the core fills the next.
const FULL_APPENDS_MAX: usize = 4;
/// Time between attempts to write when the store refuses.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Records spans for tasks that ended without an attempt that could record them.
pub(super) fn record_unattempted(out: &mut Decisions) {
    for Unattempted { event, trace, submitted_at } in out.unattempted.drain(..) {
        if let (Some(tracer), Some(event)) = (trace::tracer(), out.events.get(event).and_then(Event::task)) {
            tracer.settle(event, trace.as_ref(), submitted_at);
        }
    }
}

impl Service {
    /// Moves decisions to [`Service::pending`]. Stops and recalls take effect at once, since they only prevent
    /// or end work.
    pub(super) fn stage(&mut self, now: Timestamp, out: &mut Decisions) {
        self.recall(now, out);
        record_unattempted(out);
        let full = self.pending.add(&mut out.events);
        self.closed.extend(full);
        self.stage_effects(out);
    }

    /// Like [`Service::stage`] for decisions of timers, whose events can become durable separately.
    pub(super) fn stage_timers(&mut self, now: Timestamp, out: &mut Decisions) {
        self.recall(now, out);
        record_unattempted(out);
        let full = self.pending.add_each(&mut out.events);
        self.closed.extend(full);
        self.stage_effects(out);
    }

    fn stage_effects(&mut self, out: &mut Decisions) {
        for (ticket, cause, grace) in out.stops.drain(..) {
            if let Some(pool) = self.pool(ticket) {
                pool.stop_attempt(ticket, cause, grace);
            }
        }
        self.wake_batch_waiters(out);
        let effects = &mut self.pending.effects;
        effects.confirms.append(&mut out.confirms);
        for Dispatch { pool: index, handler, assignments, held_back } in out.dispatches.drain(..) {
            if let Some(Some(pool)) = self.pools.get_mut(usize::from(index)) {
                effects.dispatches.push((index, pool.prepare(assignments, handler), held_back));
            }
        }
    }

    /// Asks the pools for attempts to take back, and lets the core decide.
    pub(super) fn recall(&mut self, now: Timestamp, out: &mut Decisions) {
        while let Some(ticket) = out.recalls.pop() {
            let won = self.pool_mut(ticket).is_some_and(|pool| pool.recall(ticket));
            self.core.recalled(now, ticket, won, out);
        }
    }

    /// Appends as many commits as may be in flight. While the store refuses writes, tries the oldest again from time to
    /// time.
    pub(super) fn commit(&mut self) {
        if let Some((_, retry_at)) = &self.fault
            && (self.in_flight > 0 || Instant::now() < *retry_at)
        {
            return;
        }
        let appends_max = FULL_APPENDS_MAX.max(self.shared.store.journal.appends_in_flight());
        while self.in_flight < self.closed.len().min(appends_max) {
            self.append_next();
            if self.fault.is_some() {
                return;
            }
        }
        if self.in_flight == self.closed.len() {
            self.commit_pending();
        }
    }

    /// Appends the pending events, unless enough appends are in flight, or no caller waits for the events and they are
    /// younger than [`LINGER`].
    fn commit_pending(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        if self.pending.events.is_empty() {
            let effects = mem::take(&mut self.pending).effects;
            // They may rest on the commits in flight.
            return match self.closed.back_mut() {
                Some(last) => last.effects.append(effects),
                None => self.release(effects),
            };
        }
        if self.in_flight >= self.shared.store.journal.appends_in_flight() {
            return;
        }
        let since = *self.pending.since.get_or_insert_with(Instant::now);
        if self.pending.is_urgent() || since.elapsed() >= LINGER {
            let closed = self.pending.close();
            self.closed.push_back(closed);
            self.append_next();
        }
    }

    /// When [`Service::commit`] has something to do if nothing happens before.
    pub(super) fn commit_due(&self) -> Option<Instant> {
        if let Some((_, retry_at)) = &self.fault {
            return (self.in_flight == 0).then_some(*retry_at);
        }
        let may_append = self.in_flight < self.shared.store.journal.appends_in_flight();
        let due = self.pending.since.map_or_else(Instant::now, |since| since + LINGER);
        (may_append && !self.pending.is_empty()).then_some(due)
    }

    /// Whether every decision is durable and its effects are released, or cannot be at present.
    pub(super) fn is_committed(&self) -> bool {
        let is_done = self.closed.is_empty() && self.pending.is_empty();
        self.in_flight == 0 && (is_done || self.fault.is_some())
    }

    /// Appends the oldest commit that is not in flight.
    fn append_next(&mut self) {
        let Some(closed) = self.closed.get_mut(self.in_flight) else { return };
        closed.began = Instant::now();
        let commit = closed.commit.clone();
        let end = commit.last();
        self.in_flight += 1;
        let journal = &self.shared.store.journal;
        let is_small = commit.events.len() <= DIRECT_APPEND_MAX;
        if is_small && self.in_flight == 1 && journal.appends_in_flight() == 1 {
            let result = journal.append(&commit);
            return self.committed(end, result);
        }
        let inbox = self.shared.inbox.clone();
        // Fails only if the service has ended.
        let done = Box::new(move |result| drop(inbox.send(Message::Committed(end, result))));
        journal.append_in_background(commit, done);
    }

    /// The oldest append in flight, of a commit with this end, has ended.
    pub(super) fn committed(&mut self, end: Revision, result: Result<(), AppendError>) {
        self.in_flight -= 1;
        match result {
            Ok(()) => {
                let Some(ClosedCommit { commit, effects, began }) = self.closed.pop_front() else { return };
                assert_eq!(commit.last(), end, "the journal has appended a commit, but not the one before");
                if self.fault.take().is_some() {
                    tracing::info!("the store accepts writes again");
                }
                self.observer.commit_durable(&commit.events, began.elapsed());
                self.shared.store.projection.apply(commit.clone());
                self.shared.hub.publish(&commit);
                self.shared.artifacts.observe(&commit.events);
                self.release(effects);
            }
            Err(AppendError::Refused(error)) => self.refuse(error),
            Err(error @ (AppendError::Unknown(_) | AppendError::Fenced(_))) => fatal::exit(&error),
        }
    }

    /// The store has refused a commit, and will refuse those behind it that are in flight. All waiting callers are
    /// refused, but the commits are kept for the next try.
    fn refuse(&mut self, error: StoreError) {
        if self.fault.is_none() {
            tracing::error!(%error, "the store refuses writes; nothing is accepted until it accepts writes again");
        }
        self.observer.commit_refused();
        // Before the callers learn of it, so that their next health check reports it.
        self.observer.heartbeat(true);
        let refusal = Refusal::from(StoreUnavailable { cause: error.to_string() });
        for closed in &mut self.closed {
            closed.effects.refuse(&refusal);
        }
        self.pending.refuse(&refusal);
        self.fault = Some((error, Instant::now() + RETRY_INTERVAL));
    }

    /// Releases the effects of durable events. Dispatches before replies, so that no caller whose submission
    /// was acknowledged can see an attempt of lower priority start.
    fn release(&mut self, effects: Effects) {
        for Changed { what, reply } in effects.changes {
            let applied = match what {
                Change::Pool(pool, view) => self.apply_pool_update(pool, view),
                Change::Configuration(new) => self.apply_configuration(*new),
                Change::Handlers(events, runner) => {
                    self.apply_handlers(&events, runner);
                    Ok(())
                }
            };
            if let Some(reply) = reply {
                reply.resolve(applied);
            }
        }
        for ticket in effects.confirms {
            if let Some(pool) = self.pool(ticket) {
                pool.confirm(ticket);
            }
        }
        for (index, batch, held_back) in effects.dispatches {
            if let Some(Some(pool)) = self.pools.get_mut(usize::from(index)) {
                pool.push(batch, held_back);
            }
        }
        // The worker hears of these ends together with what it gets to do next.
        let settled = || effects.settled.chunk_by(|(one, _), (other, _)| Arc::ptr_eq(one, other));
        for settled in settled() {
            settled[0].0.settle(settled.iter().map(|(_, token)| *token));
        }
        for pool in self.pools.iter().flatten() {
            pool.start_pushed();
        }
        for settled in settled() {
            settled[0].0.wake();
        }
        for reply in effects.replies {
            reply.resolve(Ok(()));
        }
    }
}
