//! The way of what was decided: gathered, made durable, and only then let out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::{Change, Durability, Event, Timestamp};
use crate::pool::Attempt;
use crate::store::{Commit, StoreError};
use crate::telemetry::trace;

use super::{LINGER, Service};
use crate::scheduler::core::{Dispatch, Output, Unattempted};
use crate::scheduler::message::{Message, PendingReply};
use crate::scheduler::refusal::{Refusal, StoreUnavailable};

/// Events of a commit that is written by the loop itself: to hand it over would take longer than the
/// loop could do anything useful meanwhile. A larger one is written while the next is decided.
const WRITTEN_HERE_MAX: usize = 256;
/// Time between attempts to write when the store refuses.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Decided and not yet durable.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) events: Vec<Event>,
    pub(super) dispatches: Vec<(u16, Vec<Arc<Attempt>>, [bool; 4])>,
    pub(super) confirms: Vec<Arc<Attempt>>,
    pub(super) answers: Vec<PendingReply>,
    /// Somebody waits for it.
    pub(super) urgent: bool,
    pub(super) since: Option<Instant>,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.dispatches.is_empty() && self.answers.is_empty()
    }
}

/// Shows in their traces how tasks ended that no attempt tells about.
pub(super) fn tell(out: &mut Output) {
    for Unattempted { event, trace, submitted_at } in out.unattempted.drain(..) {
        if let (Some(tracer), Some(event)) = (trace::tracer(), out.events.get(event)) {
            tracer.settle(event, &trace, submitted_at);
        }
    }
}

impl Service {
    /// Moves what the core decided to where it waits to be durable; tells stops at once, since they
    /// only end work.
    pub(super) fn absorb(&mut self, now: Timestamp, out: &mut Output) {
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
        for Dispatch { pool, assignments, held_back } in out.dispatches.drain(..) {
            let mut attempts = Vec::with_capacity(assignments.len());
            for assignment in assignments {
                let slot = assignment.ticket.index as usize;
                let attempt = Attempt::new(assignment);
                if self.attempts.len() <= slot {
                    self.attempts.resize(slot + 1, None);
                }
                self.attempts[slot] = Some(attempt.clone());
                attempts.push(attempt);
            }
            self.pending.dispatches.push((pool, attempts, held_back));
        }
        tell(out);
        self.pending.urgent |= out.events.iter().any(|event| !matches!(event.change, Change::Started { .. }));
        self.pending.events.append(&mut out.events);
    }

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
        let urgent = self.pending.urgent || !self.pending.confirms.is_empty() || !self.pending.answers.is_empty();
        let since = *self.pending.since.get_or_insert_with(Instant::now);
        if !urgent && since.elapsed() < LINGER {
            return;
        }
        let mut pending = std::mem::take(&mut self.pending);
        let events = std::mem::take(&mut pending.events);
        let sync = events.iter().any(|event| event.options.durability == Durability::Fsync);
        let commit = Arc::new(Commit { events, sync });
        self.observer.commit_begins();
        if commit.events.len() <= WRITTEN_HERE_MAX {
            let result = self.shared.store.journal.append(&commit);
            return self.finish_commit(commit, pending, result);
        }
        self.in_flight = Some((commit.clone(), pending));
        let inbox = self.shared.inbox.clone();
        // The receiver is gone only after the service has ended.
        let done = Box::new(move |result| drop(inbox.send(Message::Committed(result))));
        self.shared.store.journal.append_in_background(commit, done);
    }

    /// The commit in flight is durable, or has failed.
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
                self.observer.durable(&commit.events);
                self.shared.store.projection.apply(commit.clone());
                self.shared.hub.publish(&commit);
                self.release(pending);
            }
            Err(error) => self.keep(commit, pending, error),
        }
    }

    /// The store refuses: whoever waits is told, what was decided stays decided and is tried again.
    fn keep(&mut self, commit: Arc<Commit>, pending: Pending, error: StoreError) {
        if self.fault.is_none() {
            tracing::error!(%error, "the store refuses writes; nothing is accepted until it does again");
        }
        self.observer.refused();
        let refusal = Refusal::from(StoreUnavailable { cause: error.to_string() });
        let newer = std::mem::take(&mut self.pending);
        for answer in pending.answers.into_iter().chain(newer.answers) {
            answer.refuse(refusal.clone());
        }
        let mut events = Arc::try_unwrap(commit).map_or_else(|shared| shared.events.clone(), |commit| commit.events);
        events.extend(newer.events);
        self.pending = Pending {
            events,
            dispatches: pending.dispatches.into_iter().chain(newer.dispatches).collect(),
            confirms: pending.confirms.into_iter().chain(newer.confirms).collect(),
            answers: Vec::new(),
            urgent: true,
            since: pending.since,
        };
        self.fault = Some((error, Instant::now() + RETRY_INTERVAL));
    }

    /// Its events are durable: let the effects out. Attempts first, so that nobody who was answered
    /// can see a lower priority start.
    fn release(&mut self, pending: Pending) {
        for attempt in pending.confirms {
            attempt.confirm();
        }
        for (index, attempts, held_back) in pending.dispatches {
            if let Some(pool) = self.pools.get(usize::from(index)).and_then(Option::as_ref) {
                pool.push(attempts, held_back);
            }
        }
        for answer in pending.answers {
            answer.send();
        }
    }
}
