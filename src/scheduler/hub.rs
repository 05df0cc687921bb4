//! Delivery of durable events to watchers.
//!
//! A watcher is a cursor over one shared, bounded ring of recent commits. It has no buffer, so a watcher that
//! never reads costs nothing. A cursor that has fallen behind the ring reads the journal.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::model::{Event, ResumeToken, Revision, TaskChange, TaskEvent, TaskFilter, TaskId};
use crate::store::{Commit, Journal, StoreError};
use crate::telemetry::metrics::WatchMeter;

use super::refusal::{Internal, Refusal, RevisionCompacted, RevisionInFuture, WatchDrained};

/// Events kept in memory for watchers that keep up.
const RING_EVENTS_MAX: usize = 65_536;
/// Bytes of payloads, results and outputs in these events.
const RING_BYTES_MAX: usize = 16 << 20;
/// Events filtered in one step of a watch.
const STEP_EVENTS: usize = 4_096;
/// Bytes of payloads, results and outputs after which a step of a watch ends, since a watcher that reads slowly keeps
/// its step in memory.
const STEP_BYTES: usize = 1 << 20;

/// Shared by the watchers and the service.
pub(super) struct Hub {
    ring: Mutex<Ring>,
    durable: watch::Sender<Revision>,
    /// Callers that wait for the end of a task.
    waiters: Mutex<HashMap<TaskId, Vec<oneshot::Sender<()>>>>,
    journal: Arc<dyn Journal>,
    draining: CancellationToken,
    meter: Arc<WatchMeter>,
}

#[derive(Default)]
struct Ring {
    commits: VecDeque<(Arc<Commit>, usize)>,
    events: usize,
    bytes: usize,
}

/// A durable event; keeps its commit alive.
#[derive(Clone, Debug)]
pub struct EventRef {
    commit: Arc<Commit>,
    index: usize,
}

impl Deref for EventRef {
    type Target = Event;

    fn deref(&self) -> &Event {
        &self.commit.events[self.index]
    }
}

impl Hub {
    pub fn new(
        journal: Arc<dyn Journal>,
        revision: Revision,
        draining: CancellationToken,
        meter: Arc<WatchMeter>,
    ) -> Self {
        Self {
            ring: Mutex::default(),
            durable: watch::Sender::new(revision),
            waiters: Mutex::default(),
            journal,
            draining,
            meter,
        }
    }

    /// Delivers a durable commit.
    pub fn publish(&self, commit: &Arc<Commit>) {
        let last = commit.last();
        self.ring.lock().push(commit.clone());
        self.durable.send_replace(last);
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
        let (mut events, mut bytes) = (0, 0);
        let mut found = Vec::new();
        for (commit, weight) in self.commits.range(start..) {
            if events >= STEP_EVENTS || bytes >= STEP_BYTES {
                break;
            }
            events += commit.events.len();
            bytes += weight;
            found.push(commit.clone());
        }
        Some(found)
    }
}

/// A watcher: a filter and a position in the event log.
pub struct Watch {
    hub: Arc<Hub>,
    filter: TaskFilter,
    reached: Revision,
    durable: watch::Receiver<Revision>,
}

impl Watch {
    pub(super) fn new(hub: Arc<Hub>, filter: TaskFilter, after: Option<Revision>) -> Result<Self, Refusal> {
        let newest = hub.revision();
        let reached = after.unwrap_or(newest);
        if reached > newest {
            return Err(RevisionInFuture { wanted: reached, newest }.into());
        }
        let durable = hub.durable.subscribe();
        hub.meter.open.fetch_add(1, Ordering::Relaxed);
        Ok(Self { hub, filter, reached, durable })
    }

    /// All matching events up to this revision were returned.
    pub fn reached(&self) -> Revision {
        self.reached
    }

    /// Token for a watch that continues after a revision.
    pub fn resume_token(&self, revision: Revision) -> ResumeToken {
        self.hub.resume_token(revision)
    }

    /// Waits for events after [`Watch::reached`] and returns the matching ones in order. The result is empty if
    /// none of the new events match.
    ///
    /// # Errors
    /// [`WatchDrained`] when the server shuts down; [`RevisionCompacted`] if the events were deleted.
    pub async fn next(&mut self) -> Result<Vec<EventRef>, Refusal> {
        loop {
            if self.hub.draining.is_cancelled() {
                return Err(self.drained().into());
            }
            if self.reached < *self.durable.borrow_and_update() {
                return self.step().await;
            }
            tokio::select! {
                biased;
                changed = self.durable.changed() => changed.map_err(|_| self.drained())?,
                () = self.hub.draining.cancelled() => {}
            }
        }
    }

    fn drained(&self) -> WatchDrained {
        WatchDrained { resume: self.resume_token(self.reached) }
    }

    async fn step(&mut self) -> Result<Vec<EventRef>, Refusal> {
        let recent = self.hub.ring.lock().after(self.reached);
        let commits = match recent {
            Some(commits) => commits,
            None => self.read_journal().await?,
        };
        let mut found = Vec::new();
        for commit in commits {
            for (index, event) in commit.events.iter().enumerate() {
                if event.revision() > self.reached && event.task().is_some_and(|event| self.filter.matches_event(event))
                {
                    found.push(EventRef { commit: commit.clone(), index });
                }
            }
            self.reached = self.reached.max(commit.last());
        }
        self.hub.meter.events.fetch_add(found.len() as u64, Ordering::Relaxed);
        Ok(found)
    }

    async fn read_journal(&self) -> Result<Vec<Arc<Commit>>, Refusal> {
        self.hub.meter.catch_ups.fetch_add(1, Ordering::Relaxed);
        let (journal, after) = (self.hub.journal.clone(), self.reached);
        let read = tokio::task::spawn_blocking(move || journal.read(after, STEP_EVENTS));
        let events = read.await.map_err(Internal::from_error)?;
        match events {
            Ok(events) if events.is_empty() => Ok(Vec::new()),
            Ok(mut events) => {
                events.iter_mut().for_each(drop_payload);
                Ok(vec![Arc::new(Commit { events, sync: true })])
            }
            Err(StoreError::Compacted { oldest }) => Err(RevisionCompacted { oldest }.into()),
            Err(error) => Err(Refusal::of_read(&error)),
        }
    }
}

/// Watchers need no payloads. Events in the ring share theirs with the scheduler, but those of a read are copies.
fn drop_payload(event: &mut Event) {
    if let Event::Task(TaskEvent { change: TaskChange::Submitted { spec }, .. }) = event
        && !spec.payload.is_empty()
    {
        *spec = Arc::new(spec.without_payload());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.hub.meter.open.fetch_sub(1, Ordering::Relaxed);
    }
}
