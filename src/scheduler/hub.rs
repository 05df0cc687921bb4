//! Publishes durable events: keeps the recent ones for watches, and wakes callers that wait for the end of a task.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::model::{Event, MemoryAccount, ResumeToken, Revision, TaskFilter, TaskId};
use crate::store::{Commit, Journal};
use crate::telemetry::metrics::WatchMeter;

use super::journal_reads::JournalReads;
use super::watch_index::{Unseen, WatchIndex};

/// Events kept in memory for watchers that keep up.
const RING_EVENTS_MAX: usize = 65_536;
/// Bytes of payloads, results and outputs in these events.
const RING_BYTES_MAX: usize = 16 << 20;
/// Events that a watch filters in one step.
pub(super) const STEP_EVENTS: usize = 4_096;

/// Shared by the watchers and the service.
pub(super) struct Hub {
    ring: Mutex<Ring>,
    durable: watch::Sender<Revision>,
    watches: Mutex<WatchIndex>,
    /// Callers that wait for the end of a task.
    waiters: Mutex<HashMap<TaskId, Vec<oneshot::Sender<()>>>>,
    pub journal: Arc<dyn Journal>,
    pub reads: JournalReads,
    pub draining: CancellationToken,
    pub meter: Arc<WatchMeter>,
}

#[derive(Default)]
struct Ring {
    commits: VecDeque<(Arc<Commit>, usize)>,
    events: usize,
    bytes: usize,
}

impl Hub {
    pub fn new(
        journal: Arc<dyn Journal>,
        revision: Revision,
        draining: CancellationToken,
        meter: Arc<WatchMeter>,
        memory: MemoryAccount,
    ) -> Self {
        Self {
            ring: Mutex::default(),
            durable: watch::Sender::new(revision),
            watches: Mutex::default(),
            waiters: Mutex::default(),
            journal,
            reads: JournalReads::new(memory),
            draining,
            meter,
        }
    }

    /// Delivers a durable commit.
    pub fn publish(&self, commit: &Arc<Commit>) {
        let last = commit.last();
        self.ring.lock().push(commit.clone());
        {
            // Before the revision, so that a watch that has seen it has also been told of the commit.
            let mut watches = self.watches.lock();
            watches.publish(commit);
            self.durable.send_replace(last);
        }
        let mut waiters = self.waiters.lock();
        if waiters.is_empty() {
            return;
        }
        for event in commit.events.iter().filter_map(Event::task).filter(|event| event.state.is_terminal()) {
            for waiter in waiters.remove(&event.task).into_iter().flatten() {
                // Fails if the caller no longer waits.
                let _ = waiter.send(());
            }
        }
    }

    /// The newest durable revision.
    pub fn revision(&self) -> Revision {
        *self.durable.borrow()
    }

    /// Receives the newest durable revision.
    pub fn subscribe(&self) -> watch::Receiver<Revision> {
        self.durable.subscribe()
    }

    /// Adds a watch to the index, if its filter allows it. All commits after the returned revision are added to the
    /// [`Unseen`] if they may concern it.
    pub fn register(&self, filter: &TaskFilter) -> (Option<Arc<Unseen>>, Revision) {
        let mut watches = self.watches.lock();
        (watches.add(filter), self.revision())
    }

    pub fn unregister(&self, filter: &TaskFilter, unseen: &Arc<Unseen>) {
        self.watches.lock().remove(filter, unseen);
    }

    /// Some of the commits with events after `after`, in order; `None` if they are no longer in memory.
    pub fn recent(&self, after: Revision) -> Option<Vec<Arc<Commit>>> {
        self.ring.lock().after(after)
    }

    /// Token for a watch that continues after a revision.
    pub fn resume_token(&self, revision: Revision) -> ResumeToken {
        ResumeToken { store: self.journal.store_id(), revision }
    }

    /// Resolves when the task next reaches a terminal state.
    pub fn ended(&self, task: &TaskId) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut waiters = self.waiters.lock();
        let of_task = waiters.entry_ref(task).or_default();
        of_task.retain(|waiter| !waiter.is_closed());
        of_task.push(sender);
        receiver
    }

    /// Removes waiters whose callers no longer wait.
    pub fn remove_closed_waiters(&self) {
        self.waiters.lock().retain(|_, of_task| {
            of_task.retain(|waiter| !waiter.is_closed());
            !of_task.is_empty()
        });
    }
}

impl Ring {
    fn push(&mut self, commit: Arc<Commit>) {
        let bytes = commit.events.iter().map(Event::weight).sum();
        self.events += commit.events.len();
        self.bytes += bytes;
        self.commits.push_back((commit, bytes));
        while (self.events > RING_EVENTS_MAX || self.bytes > RING_BYTES_MAX)
            && let Some((oldest, bytes)) = self.commits.pop_front()
        {
            self.events -= oldest.events.len();
            self.bytes -= bytes;
        }
    }

    /// Commits with events after `after`; `None` if the ring no longer contains all of them.
    fn after(&self, after: Revision) -> Option<Vec<Arc<Commit>>> {
        let oldest = self.commits.front()?.0.first();
        if after.next() < oldest {
            return None;
        }
        let start = self.commits.partition_point(|(commit, _)| commit.last() <= after);
        let mut events = 0;
        let mut found = Vec::new();
        for (commit, _) in self.commits.range(start..) {
            if events >= STEP_EVENTS {
                break;
            }
            events += commit.events.len();
            found.push(commit.clone());
        }
        Some(found)
    }
}
