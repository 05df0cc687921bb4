//! Durable commits that wait to be written to the projection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::unwritten::{Snapshot, Unwritten};
use crate::model::{Event, Revision};
use crate::store::error::StoreError;
use crate::store::traits::Commit;

/// Events that may wait in memory. Further commits are dropped from the queue and read from the journal later.
const QUEUED_EVENTS_MAX: usize = if cfg!(test) { 8 } else { 400_000 };
/// Bytes of payloads, results and outputs that events may hold while they wait and while they are written.
const QUEUED_BYTES_MAX: usize = if cfg!(test) { 64 << 10 } else { 32 << 20 };
/// About the number of events that are written together.
const GROUP_EVENTS: usize = 200_000;
/// How long events wait unless a caller flushes. Many are superseded in that time and are never written.
const WRITE_DELAY: Duration = Duration::from_millis(500);
/// How long the queue must be empty to count as idle.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Receives the result of a checkpoint.
pub(super) type CheckpointReply = SyncSender<Result<Revision, StoreError>>;

pub(super) struct CommitQueue {
    state: Mutex<State>,
    /// Notified when the writing thread has something to do.
    ready: Condvar,
}

#[derive(Default)]
struct State {
    /// Each with the number of bytes that it holds.
    commits: VecDeque<(Arc<Commit>, usize)>,
    events: usize,
    /// Bytes of the waiting commits and of those that are being written.
    bytes: usize,
    /// Bytes of the commits that are being written.
    taken_bytes: usize,
    /// The waiting commits, and those that are being written.
    unwritten: Unwritten,
    /// When the oldest waiting commit arrived.
    since: Option<Instant>,
    flush: bool,
    /// The last revision that arrived.
    applied: Revision,
    /// Set while commits are missing at the end of the queue: revisions up to here are only in the journal.
    skipped_to: Option<Revision>,
    /// Each waits until the revision is written.
    checkpoints: Vec<(Revision, CheckpointReply)>,
    closed: bool,
    /// Set permanently when the file is damaged.
    failure: Option<StoreError>,
}

impl CommitQueue {
    pub(super) fn new(revision: Revision) -> Self {
        Self { state: Mutex::new(State { applied: revision, ..State::default() }), ready: Condvar::new() }
    }

    pub(super) fn push(&self, commit: Arc<Commit>) {
        let mut state = self.state.lock();
        if state.failure.is_some() {
            return;
        }
        state.applied = state.applied.max(commit.last());
        let bytes: usize = commit.events.iter().map(Event::weight).sum();
        let is_full = state.events >= QUEUED_EVENTS_MAX || (bytes > 0 && state.bytes + bytes > QUEUED_BYTES_MAX);
        if state.skipped_to.is_some() || is_full {
            state.skipped_to = Some(state.applied);
            return;
        }
        let before = state.events;
        state.events += commit.events.len();
        state.bytes += bytes;
        state.unwritten.add(Arc::clone(&commit), bytes);
        state.commits.push_back((commit, bytes));
        state.since.get_or_insert_with(Instant::now);
        // The thread must start its delay, or write a full group.
        let wake = before == 0 || (before < GROUP_EVENTS && state.events >= GROUP_EVENTS);
        drop(state);
        if wake {
            self.ready.notify_one();
        }
    }

    /// Makes the thread write the waiting commits without delay.
    pub(super) fn flush(&self) {
        let mut state = self.state.lock();
        if !state.commits.is_empty() && !std::mem::replace(&mut state.flush, true) {
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
        while state.write_at(Instant::now()).is_none() {
            if self.ready.wait_until(&mut state, until).timed_out() {
                return state.write_at(until).is_none();
            }
        }
        false
    }

    /// Waits until commits are due, and moves them to `group`. Returns whether the queue is closed. A group that could not
    /// be written stays as it is: while writing fails, only the queue grows, up to its bounds.
    pub(super) fn take(&self, group: &mut Vec<Arc<Commit>>) -> bool {
        let mut state = self.state.lock();
        if !group.is_empty() {
            return state.closed;
        }
        loop {
            let now = Instant::now();
            match state.write_at(now) {
                Some(until) if until <= now => break,
                Some(until) => drop(self.ready.wait_until(&mut state, until)),
                None => self.ready.wait(&mut state),
            }
        }
        let mut events = 0;
        while events < GROUP_EVENTS
            && let Some((commit, bytes)) = state.commits.pop_front()
        {
            events += commit.events.len();
            state.events -= commit.events.len();
            state.taken_bytes += bytes;
            group.push(commit);
        }
        if state.commits.is_empty() {
            state.since = None;
            state.flush = false;
        }
        state.closed
    }

    /// Must be called when the commits of the last group are written and dropped.
    pub(super) fn release_taken(&self) {
        let mut state = self.state.lock();
        state.bytes -= std::mem::take(&mut state.taken_bytes);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.state.lock().commits.is_empty()
    }

    /// The commits that the tables may lack. Read the tables afterwards: then none is missing in both, up to
    /// [`CommitQueue::complete_to`].
    pub(super) fn unwritten(&self) -> Snapshot {
        self.state.lock().unwritten.snapshot()
    }

    /// The last revision that is in the queue or in the tables, together with all earlier ones; `None` while later
    /// commits are missing in the queue.
    pub(super) fn complete_to(&self) -> Option<Revision> {
        let state = self.state.lock();
        state.skipped_to.is_none().then_some(state.applied)
    }

    /// The last revision that must be read from the journal, while commits are missing in the queue.
    pub(super) fn skipped_to(&self) -> Option<Revision> {
        self.state.lock().skipped_to
    }

    /// Must be called after everything up to `written` was written.
    pub(super) fn set_written(&self, written: Revision) {
        let mut state = self.state.lock();
        if state.skipped_to.is_some_and(|end| end <= written) {
            state.skipped_to = None;
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
            state.commits.clear();
            state.unwritten = Unwritten::default();
        }
    }

    /// Waits for `delay`, or shorter when the queue changes.
    pub(super) fn wait(&self, delay: Duration) {
        self.ready.wait_for(&mut self.state.lock(), delay);
    }
}

impl State {
    /// When the thread must write next: `None` when there is nothing to write, `now` when something is due.
    fn write_at(&self, now: Instant) -> Option<Instant> {
        let urgent = self.flush || self.closed || !self.checkpoints.is_empty();
        if urgent || self.events >= GROUP_EVENTS || self.skipped_to.is_some() {
            return Some(now);
        }
        self.since.map(|since| since + WRITE_DELAY)
    }
}
