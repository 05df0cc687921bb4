//! Counts the unfinished tasks of each identity.
//!
//! The tracker watches events as a client would, so the scheduler does not depend on it. A submission stays
//! reserved until the tracker has seen its tasks, so an identity never exceeds its limit.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::model::key_file::KeyLimits;
use crate::model::share::Holdings;
use crate::model::{Event, Namespace, Revision, TaskChange, TaskEvent, TaskFilter, TaskId, TaskSpec, TaskState};
use crate::scheduler::{Handle, PageSize, Refusal, Watch};

use super::in_use::InUse;
use super::quota::{CommittedReservation, LimitOptions, Usage};

/// Entries of the registry; entries that are not in use are removed beyond this number.
const NAMES_MAX: usize = 10_000;
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// One page of a recount.
const PAGE: PageSize = PageSize { rows: 500, bytes: 8 << 20, results: false };

/// The usage of every identity, by its name.
pub struct UsageRegistry {
    limits: LimitOptions,
    committed: mpsc::UnboundedSender<CommittedReservation>,
    by_name: Mutex<HashMap<Box<str>, Arc<Usage>>>,
    by_namespace: Arc<InUse<Namespace, Holdings>>,
    counted: watch::Sender<Counted>,
}

/// What has to be counted because an identity has a limit on it. A count that was needed once stays needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    tasks: bool,
    bytes: bool,
}

impl Counted {
    fn and(self, limits: &LimitOptions) -> Self {
        let bytes = self.bytes || limits.live_payload_bytes.is_some();
        Self { tasks: self.tasks || limits.counts_tasks(), bytes }
    }
}

impl UsageRegistry {
    /// The receiver is for [`QuotaTracker::run`].
    pub fn new(limits: LimitOptions) -> (Self, mpsc::UnboundedReceiver<CommittedReservation>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let counted = watch::Sender::new(Counted::default().and(&limits));
        (Self { limits, committed: sender, by_name: Mutex::default(), by_namespace: Arc::default(), counted }, receiver)
    }

    pub fn of(&self, name: &str) -> Arc<Usage> {
        let mut by_name = self.by_name.lock();
        if let Some(usage) = by_name.get(name) {
            return usage.clone();
        }
        if by_name.len() >= NAMES_MAX {
            by_name.retain(|_, usage| Arc::strong_count(usage) > 1 || usage.live() != (0, 0));
        }
        let usage = Usage::new(name, &self.limits, Some(self.committed.clone()));
        let usage = Arc::new(usage.among(self.by_namespace.clone()));
        by_name.insert(name.into(), usage.clone());
        usage
    }

    /// As [`UsageRegistry::of`], and sets limits of the identity's own.
    pub fn limited(&self, name: &str, own: &KeyLimits) -> Arc<Usage> {
        let (usage, limits) = (self.of(name), self.limits.with(own));
        usage.set_limits(limits);
        self.counted.send_if_modified(|counted| {
            let before = std::mem::replace(counted, counted.and(&limits));
            *counted != before
        });
        usage
    }
}

/// Pauses between attempts to follow the events. A failure is not repeated without one.
#[derive(Default)]
struct Pauses {
    last: Option<Duration>,
}

impl Pauses {
    /// The pause after an attempt that has lasted this long. A watch that has lasted begins the pauses again.
    fn next(&mut self, lasted: Duration) -> Duration {
        let longer = self.last.filter(|_| lasted < PAUSE_MAX).map(|last| (2 * last).min(PAUSE_MAX));
        *self.last.insert(longer.unwrap_or(PAUSE_MIN))
    }
}

#[derive(Default)]
pub struct QuotaTracker {
    /// Unfinished tasks of identities, with their payload bytes.
    live: HashMap<TaskId, (Arc<Usage>, u64)>,
    /// Events up to this revision are counted.
    revision: Revision,
    /// Reservations of tasks whose events have not arrived.
    pending: Vec<CommittedReservation>,
}

impl QuotaTracker {
    /// Counts until the server drains. Starts when the first identity has a limit.
    pub async fn run(
        usages: Arc<UsageRegistry>,
        handle: Handle,
        mut committed: mpsc::UnboundedReceiver<CommittedReservation>,
    ) {
        let mut tracker = Self::default();
        let mut counted = usages.counted.subscribe();
        let begin = async { counted.wait_for(|counted| counted.tasks).await.is_ok() };
        tokio::select! {
            () = handle.draining().cancelled_owned() => return,
            _ = begin => {}
        }
        let mut pauses = Pauses::default();
        loop {
            let attempted = Instant::now();
            match tracker.follow(&usages, &handle, &mut committed, &mut counted).await {
                // More has to be counted than before: recount.
                Ok(()) => {}
                Err(Refusal::Draining(_) | Refusal::WatchDrained(_)) => return,
                Err(error) => {
                    let pause = pauses.next(attempted.elapsed());
                    tracing::warn!(%error, ?pause, "lost the watch on events; recounting unfinished tasks after a pause");
                    tokio::select! {
                        () = handle.draining().cancelled_owned() => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
    }

    async fn follow(
        &mut self,
        usages: &UsageRegistry,
        handle: &Handle,
        committed: &mut mpsc::UnboundedReceiver<CommittedReservation>,
        counted: &mut watch::Receiver<Counted>,
    ) -> Result<(), Refusal> {
        counted.mark_unchanged();
        let mut watch = handle.watch(TaskFilter::default(), None, "".into())?;
        self.recount(usages, handle, &watch).await?;
        loop {
            tokio::select! {
                found = watch.next() => {
                    if let Some(event) = found?.as_deref().and_then(Event::task) {
                        self.apply(usages, event);
                    }
                    self.advance(watch.reached());
                }
                Ok(()) = counted.changed() => return Ok(()),
                Some(submission) = committed.recv() => {
                    self.pending.push(submission);
                    self.advance(watch.reached());
                }
            }
        }
    }

    /// Counts the unfinished tasks at the start of a watch. Events may report some of them again.
    async fn recount(&mut self, usages: &UsageRegistry, handle: &Handle, watch: &Watch) -> Result<(), Refusal> {
        for (_, (usage, bytes)) in self.live.drain() {
            usage.remove(1, bytes);
        }
        let states = vec![TaskState::Waiting, TaskState::Queued, TaskState::Running];
        let filter = TaskFilter { states, ..TaskFilter::default() };
        let mut after = None;
        loop {
            let page = handle.list(filter.clone(), PAGE, after).await?;
            for task in &page.tasks {
                if !usages.counted.borrow().bytes || !is_identity(&task.spec.options.submitted_by) {
                    self.begin(usages, &task.spec);
                    continue;
                }
                // Pages contain no payloads. A task that was deleted meanwhile does not count.
                match handle.get_with_payload(&task.spec.id).await {
                    Ok(found) if !found.task.status.state.is_terminal() => self.begin(usages, &found.task.spec),
                    Ok(_) | Err(Refusal::TaskNotFound(_)) => {}
                    Err(refusal) => return Err(refusal),
                }
            }
            after = page.next;
            if after.is_none() {
                self.advance(watch.reached());
                return Ok(());
            }
        }
    }

    fn apply(&mut self, usages: &UsageRegistry, event: &TaskEvent) {
        match &event.change {
            TaskChange::Submitted { spec } => self.begin(usages, spec),
            _ if event.state.is_terminal() => {
                if let Some((usage, bytes)) = self.live.remove(&event.task) {
                    usage.remove(1, bytes);
                }
            }
            _ => {}
        }
    }

    fn begin(&mut self, usages: &UsageRegistry, spec: &TaskSpec) {
        let by = &spec.options.submitted_by;
        if !is_identity(by) || self.live.contains_key(&spec.id) {
            return;
        }
        let (usage, bytes) = (usages.of(by), spec.payload.len() as u64);
        usage.add(1, bytes);
        self.live.insert(spec.id.clone(), (usage, bytes));
    }

    /// Releases the reservations of tasks that are now counted.
    fn advance(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
        self.pending.retain(|reservation| reservation.revision > self.revision);
    }
}

/// Whether the name is that of an identity and not a network address.
fn is_identity(name: &str) -> bool {
    ["key:", "jwt:", "cert:"].iter().any(|kind| name.starts_with(kind))
}

#[cfg(test)]
mod tests {
    use super::super::test_support::spec;
    use super::*;
    use crate::model::{Holds, Timestamp};

    fn event(revision: u64, spec: &TaskSpec, change: TaskChange, state: TaskState) -> TaskEvent {
        TaskEvent {
            revision: Revision(revision),
            at: Timestamp::ZERO,
            task: spec.id.clone(),
            options: spec.options.clone(),
            previous: state,
            state,
            attempt: 0,
            holds: Holds::NONE,
            hold: None,
            change,
        }
    }

    #[test]
    fn the_pauses_after_failures_grow_and_begin_again_after_a_watch_that_lasted() {
        let mut pauses = Pauses::default();
        let first: Vec<_> = (0..4).map(|_| pauses.next(Duration::ZERO).as_millis()).collect();
        assert_eq!(first, [100, 200, 400, 800]);
        assert_eq!((0..9).map(|_| pauses.next(Duration::ZERO)).max(), Some(PAUSE_MAX));
        assert_eq!(pauses.next(PAUSE_MAX), PAUSE_MIN);
    }

    #[test]
    fn a_task_counts_once_from_its_submission_to_its_end() {
        let limits = LimitOptions { live_tasks: Some(9), ..LimitOptions::default() };
        let (usages, mut committed) = UsageRegistry::new(limits);
        let mut tracker = QuotaTracker::default();
        let (mine, open) = (spec("a", "key:ci", 5), spec("b", "127.0.0.1:5", 5));
        let usage = usages.of("key:ci");
        let reservation = Usage::reserve(&usage, std::slice::from_ref(&mine)).unwrap().unwrap();
        let submitted = |spec: &TaskSpec| TaskChange::Submitted { spec: Arc::new(spec.clone()) };
        tracker.apply(&usages, &event(1, &mine, submitted(&mine), TaskState::Queued));
        tracker.apply(&usages, &event(1, &mine, submitted(&mine), TaskState::Queued));
        tracker.apply(&usages, &event(2, &open, submitted(&open), TaskState::Queued));
        reservation.commit(Revision(2));
        tracker.pending.push(committed.try_recv().unwrap());
        tracker.advance(Revision(1));
        assert_eq!(usage.live(), (2, 10), "reserved and counted at the same time");
        tracker.advance(Revision(2));
        assert_eq!(usage.live(), (1, 5));
        tracker.apply(&usages, &event(3, &mine, TaskChange::Eligible, TaskState::Queued));
        tracker.apply(&usages, &event(4, &mine, TaskChange::Deleted, TaskState::Completed));
        tracker.apply(&usages, &event(5, &mine, TaskChange::Deleted, TaskState::Completed));
        assert_eq!(usage.live(), (0, 0));
    }

    #[test]
    fn the_number_of_unused_entries_is_bounded() {
        let (usages, _committed) = UsageRegistry::new(LimitOptions::default());
        let kept = usages.of("jwt:kept");
        for number in 0..2 * NAMES_MAX {
            usages.of(&format!("jwt:{number}"));
        }
        assert!(usages.by_name.lock().len() <= NAMES_MAX + 1);
        assert!(Arc::ptr_eq(&kept, &usages.of("jwt:kept")));
    }
}
