//! Decisions that are not durable yet, and the effects that wait for them.

use std::mem;
use std::sync::Arc;
use std::time::Instant;

use crate::model::{Catalog, Durability, Event, HandlerEvent, HandlerName, Priority, Reservation, TaskChange};
use crate::pool::{Batch, Ticket, WorkerLink};
use crate::runners::remote::Token;
use crate::runners::{Runner, Runners};
use crate::scheduler::core::PoolView;
use crate::scheduler::message::PendingReply;
use crate::scheduler::refusal::Refusal;
use crate::store::{COMMIT_BYTES_MAX, Commit};

/// An open commit.
#[derive(Default)]
pub(super) struct Pending {
    pub events: Vec<Event>,
    /// As [`Commit::bytes`] counts them.
    pub bytes: usize,
    /// Whether an event other than `Started` is among them.
    is_urgent: bool,
    requires_sync: bool,
    /// When events that are not urgent were first seen.
    pub since: Option<Instant>,
    pub effects: Effects,
    /// How many effects wait for the events so far. Later ones belong to the next decision.
    staged: Staged,
}

#[derive(Clone, Copy, Default)]
struct Staged {
    replies: usize,
    changes: usize,
    settled: usize,
    memory: usize,
}

/// What events release once they are durable.
#[derive(Default)]
pub(super) struct Effects {
    /// By index of the pool: attempts, and by priority whether others are held back.
    pub dispatches: Vec<(u16, Batch, [bool; Priority::COUNT])>,
    pub confirms: Vec<Ticket>,
    pub changes: Vec<Changed>,
    pub replies: Vec<PendingReply>,
    /// Ended attempts of remote workers.
    pub settled: Vec<(Arc<WorkerLink>, Token)>,
    /// The memory of large results.
    pub memory: Vec<Reservation>,
}

/// A change of something that the server uses outside of the core, which has to follow.
pub(super) struct Changed {
    pub what: Change,
    /// `None` if the caller was refused because the store refused the first write.
    pub reply: Option<PendingReply>,
}

pub(super) enum Change {
    /// Index and new settings of a pool.
    Pool(u16, PoolView),
    /// Registrations, uploads and deletions, and the runner of an upload.
    Handlers(Vec<HandlerEvent>, Option<(HandlerName, Arc<dyn Runner>)>),
    Configuration(Box<NewConfiguration>),
}

/// A configuration that the core uses already.
pub(super) struct NewConfiguration {
    pub runners: Runners,
    /// With the registered handlers.
    pub catalog: Catalog,
    /// By index in the core; `None` for a pool that is not configured.
    pub pools: Vec<Option<PoolView>>,
}

/// A commit that changes no more, until it is durable.
pub(super) struct ClosedCommit {
    pub commit: Arc<Commit>,
    pub effects: Effects,
    /// When its last append began.
    pub began: Instant,
}

impl Pending {
    pub fn is_empty(&self) -> bool {
        let Effects { dispatches, changes, replies, settled, .. } = &self.effects;
        let is_effectless = dispatches.is_empty() && changes.is_empty() && replies.is_empty() && settled.is_empty();
        self.events.is_empty() && is_effectless
    }

    /// Whether the commit must not wait for others.
    pub fn is_urgent(&self) -> bool {
        self.is_urgent || !self.effects.confirms.is_empty() || !self.effects.replies.is_empty()
    }

    /// Adds the events of one decision, and returns what was pending before if both together would exceed the bound of a
    /// commit. Replies, changes and settled attempts that were added since the last call belong to this decision.
    pub fn add(&mut self, events: &mut Vec<Event>) -> Option<ClosedCommit> {
        let bytes = Event::all_encoded_bytes(events, self.events.last());
        let is_full = !self.events.is_empty() && self.bytes + bytes > COMMIT_BYTES_MAX;
        let full = is_full.then(|| self.close());
        self.bytes += bytes;
        self.is_urgent = self.is_urgent || events.iter().any(|event| !is_start(event));
        self.requires_sync = self.requires_sync || events.iter().any(requires_sync);
        self.events.append(events);
        let Effects { replies, changes, settled, memory, .. } = &self.effects;
        self.staged =
            Staged { replies: replies.len(), changes: changes.len(), settled: settled.len(), memory: memory.len() };
        full
    }

    /// Adds events of which each is a decision of its own, and returns what was pending before and all commits that are
    /// full.
    pub fn add_each(&mut self, events: &mut Vec<Event>) -> Vec<ClosedCommit> {
        let mut full = Vec::new();
        loop {
            let mut bytes = 0;
            let fits = |at: &usize| {
                bytes += events[*at].encoded_bytes(at.checked_sub(1).map(|before| &events[before]));
                bytes <= COMMIT_BYTES_MAX
            };
            let count = (0..events.len()).take_while(fits).count().max(1);
            if count >= events.len() {
                full.extend(self.add(events));
                return full;
            }
            let rest = events.split_off(count);
            full.extend(self.add(events));
            *events = rest;
        }
    }

    /// Closes the commit. What belongs to the next decision stays.
    pub fn close(&mut self) -> ClosedCommit {
        let Staged { replies, changes, settled, memory } = self.staged;
        let mut next = Self::default();
        next.effects.replies = self.effects.replies.split_off(replies);
        next.effects.changes = self.effects.changes.split_off(changes);
        next.effects.settled = self.effects.settled.split_off(settled);
        next.effects.memory = self.effects.memory.split_off(memory);
        let Self { events, bytes, requires_sync: sync, effects, .. } = mem::replace(self, next);
        ClosedCommit { commit: Arc::new(Commit { events, sync, bytes }), effects, began: Instant::now() }
    }

    /// As [`Effects::refuse`].
    pub fn refuse(&mut self, refusal: &Refusal) {
        self.effects.refuse(refusal);
        self.staged.replies = 0;
    }
}

impl Effects {
    /// Adds effects that are released later.
    pub fn append(&mut self, mut later: Self) {
        self.dispatches.append(&mut later.dispatches);
        self.confirms.append(&mut later.confirms);
        self.changes.append(&mut later.changes);
        self.replies.append(&mut later.replies);
        self.settled.append(&mut later.settled);
        self.memory.append(&mut later.memory);
    }

    /// Refuses all waiting callers. The other effects stay.
    pub fn refuse(&mut self, refusal: &Refusal) {
        let of_changes = self.changes.iter_mut().filter_map(|change| change.reply.take());
        for reply in self.replies.drain(..).chain(of_changes) {
            reply.resolve(Err(refusal.clone()));
        }
    }
}

fn is_start(event: &Event) -> bool {
    event.task().is_some_and(|event| matches!(event.change, TaskChange::Started { .. }))
}

fn requires_sync(event: &Event) -> bool {
    event.task().is_none_or(|event| event.options.durability == Durability::Fsync)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PoolChange, PoolEvent, PoolName, PoolSettings, Revision, Timestamp};

    #[test]
    fn events_that_stand_alone_fill_one_commit_after_another() {
        let settings = PoolSettings { size: 1, queue_limit: 1, paused: false };
        let change = PoolChange::Updated { configured: settings, set: settings };
        let pool = PoolName::parse("p").unwrap();
        let event = |revision| {
            let (revision, at) = (Revision(revision), Timestamp(1));
            Event::Pool(PoolEvent { revision, at, pool: pool.clone(), change })
        };
        let count = 5 * COMMIT_BYTES_MAX as u64 / (2 * event(1).encoded_bytes(None) as u64);
        let mut pending = Pending::default();
        assert!(pending.add(&mut vec![event(1)]).is_none());
        let mut commits = pending.add_each(&mut (2..=count).map(event).collect());
        commits.push(pending.close());
        assert_eq!(commits.len(), 4);
        let mut end = Revision(0);
        for ClosedCommit { commit, .. } in commits {
            assert!(commit.bytes <= COMMIT_BYTES_MAX && commit.first() == end.next());
            end = commit.last();
        }
        assert_eq!(end, Revision(count));
    }
}
