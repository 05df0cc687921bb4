//! Durable commits that wait to be written to the projection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::unwritten::{Location, Search, Unwritten};
use crate::model::{Revision, TaskId};
use crate::store::error::StoreError;
use crate::store::traits::Commit;

/// How long events wait unless a caller flushes. Many are superseded in that time and are never written.
const WRITE_DELAY: Duration = Duration::from_secs(2);
/// How long the queue must be empty to count as idle.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Receives the result of a checkpoint.
pub(super) type CheckpointReply = SyncSender<Result<Revision, StoreError>>;

/// Bounds of a queue.
#[derive(Clone, Copy)]
struct Bounds {
    /// Bytes of the commits in memory.
    bytes: usize,
    /// Events that are searchable.
    events: usize,
}

pub(super) struct CommitQueue {
    bounds: Bounds,
    state: Mutex<State>,
    /// Notified when the writing thread has something to do.
    ready: Condvar,
}

enum Waiting {
    /// With the bytes that it occupies.
    Commit(Arc<Commit>, usize),
    /// Commits that did not fit into memory, up to this revision.
    Gap(Revision),
}

/// What is to be written after the commits that were taken.
pub(super) enum Next {
    /// What may come.
    Later,
    /// The commits up to this revision, which must be read from the journal.
    Gap(Revision),
    /// Nothing: the queue is closed.
    End,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// Number of [`Waiting::Gap`].
    gaps: usize,
    /// Bytes of the waiting commits and of those that are being written.
    bytes: usize,
    /// Bytes of the commits that are being written.
    taken_bytes: usize,
    /// The waiting commits, and those that are being written.
    unwritten: Unwritten,
    /// Set while events up to here are missing in `unwritten`, since they are too many.
    unsearchable_to: Option<Revision>,
    /// When the oldest waiting commit arrived.
    since: Option<Instant>,
    flush: bool,
    /// The last revision that arrived.
    applied: Revision,
    /// Each waits until the revision is written.
    checkpoints: Vec<(Revision, CheckpointReply)>,
    closed: bool,
    /// Set permanently when the file is damaged.
    failure: Option<StoreError>,
}

impl CommitQueue {
    /// `memory` is about the number of bytes that the queue may occupy.
    pub(super) fn new(revision: Revision, memory: usize) -> Self {
        let for_search = memory / 4;
        let bounds = Bounds { bytes: memory - for_search, events: for_search / size_of::<u32>() };
        Self { bounds, state: Mutex::new(State { applied: revision, ..State::default() }), ready: Condvar::new() }
    }

    pub(super) fn push(&self, commit: Arc<Commit>) {
        let bytes = commit.memory_bytes();
        let mut state = self.state.lock();
        if state.failure.is_some() {
            return;
        }
        state.applied = commit.last();
        let kept = state.has_room(bytes, self.bounds).then_some(bytes);
        if state.unsearchable_to.is_some() || state.unwritten.events() >= self.bounds.events {
            state.unsearchable_to = Some(commit.last());
        } else {
            state.unwritten.add(&commit, kept);
        }
        let (was_empty, was_due) = (state.waiting.is_empty(), state.is_due(self.bounds));
        state.since.get_or_insert_with(Instant::now);
        match (kept, state.waiting.back_mut()) {
            (Some(bytes), _) => {
                state.bytes += bytes;
                state.waiting.push_back(Waiting::Commit(commit, bytes));
            }
            (None, Some(Waiting::Gap(end))) => *end = commit.last(),
            (None, _) => {
                state.gaps += 1;
                state.waiting.push_back(Waiting::Gap(commit.last()));
            }
        }
        // The thread must start its delay, or end it.
        let wake = was_empty || (!was_due && state.is_due(self.bounds));
        drop(state);
        if wake {
            self.ready.notify_one();
        }
    }

    /// Makes the thread write the waiting commits without delay.
    pub(super) fn flush(&self) {
        let mut state = self.state.lock();
        if !state.waiting.is_empty() && !std::mem::replace(&mut state.flush, true) {
            self.ready.notify_one();
        }
    }

    /// The reply is sent once every commit received so far is durable.
    pub(super) fn request_checkpoint(&self) -> Result<Receiver<Result<Revision, StoreError>>, StoreError> {
        let (reply, done) = sync_channel(1);
        {
            let mut state = self.state.lock();
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            let revision = state.applied;
            state.checkpoints.push((revision, reply));
        }
        self.ready.notify_one();
        Ok(done)
    }

    pub(super) fn check_failure(&self) -> Result<(), StoreError> {
        self.state.lock().failure.clone().map_or(Ok(()), Err)
    }

    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.ready.notify_one();
    }

    /// Waits until there is work, or for [`IDLE_TIMEOUT`]. Returns true in the latter case.
    pub(super) fn wait_until_idle(&self) -> bool {
        let mut state = self.state.lock();
        let until = Instant::now() + IDLE_TIMEOUT;
        while state.write_at(self.bounds).is_none() {
            if self.ready.wait_until(&mut state, until).timed_out() {
                return state.write_at(self.bounds).is_none();
            }
        }
        false
    }

    /// Whether there is no work.
    pub(super) fn is_idle(&self) -> bool {
        self.state.lock().write_at(self.bounds).is_none()
    }

    /// Waits until commits are due, and moves all up to the next gap to `group`. A group that could not be written stays as
    /// it is: while writing fails, only the queue grows, up to its bounds.
    pub(super) fn take(&self, group: &mut Vec<Arc<Commit>>) -> Next {
        let mut state = self.state.lock();
        if group.is_empty() {
            loop {
                match state.write_at(self.bounds) {
                    Some(until) if until <= Instant::now() => break,
                    Some(until) => drop(self.ready.wait_until(&mut state, until)),
                    None => self.ready.wait(&mut state),
                }
            }
            while let Some(Waiting::Commit(commit, bytes)) =
                state.waiting.pop_front_if(|next| matches!(next, Waiting::Commit(..)))
            {
                state.taken_bytes += bytes;
                group.push(commit);
            }
            if state.waiting.is_empty() {
                state.since = None;
                state.flush = false;
            }
        }
        match state.waiting.front() {
            // The next start reads from the journal what is missing.
            _ if state.closed => Next::End,
            Some(Waiting::Gap(end)) => Next::Gap(*end),
            _ => Next::Later,
        }
    }

    /// Must be called when the commits of the last group are written and dropped.
    pub(super) fn release_taken(&self) {
        let mut state = self.state.lock();
        state.bytes -= std::mem::take(&mut state.taken_bytes);
    }

    /// Searches the commits that the tables may lack. Read the tables afterwards: then no event is missing in both, up to
    /// [`CommitQueue::searchable_to`].
    pub(super) fn search(&self, id: &TaskId) -> Search {
        self.state.lock().unwritten.search(id)
    }

    /// Where the event with this revision is, if the tables may lack it.
    pub(super) fn find(&self, revision: Revision) -> Option<Location> {
        self.state.lock().unwritten.find(revision)
    }

    /// The last revision up to which every event is found by its task here or in the tables; `None` while that is only so
    /// in the tables.
    pub(super) fn searchable_to(&self) -> Option<Revision> {
        let state = self.state.lock();
        state.unsearchable_to.is_none().then_some(state.applied)
    }

    /// Must be called after everything up to `written` was written.
    pub(super) fn set_written(&self, written: Revision) {
        let mut state = self.state.lock();
        while state.waiting.pop_front_if(|next| matches!(next, Waiting::Gap(end) if *end <= written)).is_some() {
            state.gaps -= 1;
        }
        if state.unsearchable_to.is_some_and(|end| end <= written) {
            state.unsearchable_to = None;
        }
        let removed = state.unwritten.remove_written(written);
        drop(state);
        drop(removed);
    }

    /// Removes the checkpoints whose revision is written.
    pub(super) fn take_checkpoints(&self, written: Revision) -> Vec<CheckpointReply> {
        let mut state = self.state.lock();
        let due = state.checkpoints.extract_if(.., |(revision, _)| *revision <= written);
        due.map(|(_, reply)| reply).collect()
    }

    /// Fails all waiting checkpoints, and if the file is damaged, everything that comes later.
    pub(super) fn fail(&self, error: &StoreError) {
        let mut state = self.state.lock();
        for (_, reply) in state.checkpoints.drain(..) {
            let _ = reply.send(Err(error.clone()));
        }
        if error.is_damage() {
            state.failure = Some(error.clone());
            state.waiting.clear();
            state.gaps = 0;
            state.unwritten = Unwritten::default();
        }
    }

    /// Waits for `delay`, or shorter when the queue changes.
    pub(super) fn wait(&self, delay: Duration) {
        self.ready.wait_for(&mut self.state.lock(), delay);
    }
}

impl State {
    /// Whether a commit fits into memory, as one that is alone always does. After one that did not, only once half of the memory is free: many short gaps
    /// would need many reads of the journal.
    fn has_room(&self, bytes: usize, bounds: Bounds) -> bool {
        let follows_gap = matches!(self.waiting.back(), Some(Waiting::Gap(_)));
        let most = if follows_gap { bounds.bytes / 2 } else { bounds.bytes };
        self.bytes == 0 || self.bytes + bytes <= most
    }

    /// Whether there is so much to write that it must not wait.
    fn is_due(&self, bounds: Bounds) -> bool {
        self.gaps > 0 || self.bytes - self.taken_bytes >= bounds.bytes / 2
    }

    /// When the thread must write next: `None` when there is nothing to write, a time in the past when something is due.
    fn write_at(&self, bounds: Bounds) -> Option<Instant> {
        let urgent = self.flush || self.closed || !self.checkpoints.is_empty() || self.is_due(bounds);
        if urgent { Some(Instant::now()) } else { self.since.map(|since| since + WRITE_DELAY) }
    }
}
