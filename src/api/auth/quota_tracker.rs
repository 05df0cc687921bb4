//! Counts, for each identity, the tasks that have not ended.
//!
//! It follows the events as any watcher does, so the scheduler knows nothing of it. A submission stays
//! reserved until the ledger has seen its tasks: an identity never has more than its limit.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::model::key_file::KeyLimits;
use crate::model::{Change, Event, Revision, TaskFilter, TaskId, TaskSpec, TaskState};
use crate::scheduler::{Handle, PageSize, Refusal, Watch};

use super::quota::{CommittedReservation, LimitOptions, Usage};

/// Names of identities that are remembered beyond those in use.
const NAMES_MAX: usize = 10_000;
/// One page when tasks are counted anew.
const PAGE: PageSize = PageSize { rows: 500, bytes: 8 << 20, results: false };

/// The usage of every identity, by its name.
pub struct UsageRegistry {
    limits: LimitOptions,
    committed: mpsc::UnboundedSender<CommittedReservation>,
    known: Mutex<HashMap<Box<str>, Arc<Usage>>>,
    wanted: watch::Sender<Wanted>,
}

/// What has to be counted, because some identity is bounded by it. It never becomes less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wanted {
    tasks: bool,
    bytes: bool,
}

impl Wanted {
    fn and(self, limits: &LimitOptions) -> Self {
        let bytes = self.bytes || limits.live_payload_bytes.is_some();
        Self { tasks: self.tasks || limits.counts_tasks(), bytes }
    }
}

impl UsageRegistry {
    /// Nobody is known yet. The receiver is for [`QuotaTracker::run`].
    pub fn new(limits: LimitOptions) -> (Self, mpsc::UnboundedReceiver<CommittedReservation>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let wanted = watch::Sender::new(Wanted::default().and(&limits));
        (Self { limits, committed: sender, known: Mutex::default(), wanted }, receiver)
    }

    /// What that identity has under way.
    pub fn of(&self, name: &str) -> Arc<Usage> {
        let mut known = self.known.lock();
        if let Some(usage) = known.get(name) {
            return usage.clone();
        }
        if known.len() >= NAMES_MAX {
            known.retain(|_, usage| Arc::strong_count(usage) > 1 || usage.live() != (0, 0));
        }
        let usage = Arc::new(Usage::new(name, &self.limits, Some(self.committed.clone())));
        known.insert(name.into(), usage.clone());
        usage
    }

    /// The same, bounded by limits of its own from now on.
    pub fn limited(&self, name: &str, own: &KeyLimits) -> Arc<Usage> {
        let (usage, limits) = (self.of(name), self.limits.with(own));
        usage.bound(limits);
        self.wanted.send_if_modified(|wanted| {
            let before = std::mem::replace(wanted, wanted.and(&limits));
            *wanted != before
        });
        usage
    }
}

/// Every task of an identity that has not ended.
#[derive(Default)]
pub struct QuotaTracker {
    live: HashMap<TaskId, (Arc<Usage>, u64)>,
    reached: Revision,
    waiting: Vec<CommittedReservation>,
}

impl QuotaTracker {
    /// Counts until the server drains; begins when something is to be counted.
    pub async fn run(
        usages: Arc<UsageRegistry>,
        handle: Handle,
        mut committed: mpsc::UnboundedReceiver<CommittedReservation>,
    ) {
        let mut ledger = Self::default();
        let mut wanted = usages.wanted.subscribe();
        let begin = async { wanted.wait_for(|wanted| wanted.tasks).await.is_ok() };
        tokio::select! {
            () = handle.draining().cancelled_owned() => return,
            _ = begin => {}
        }
        loop {
            match ledger.follow(&usages, &handle, &mut committed, &mut wanted).await {
                // More than before: what is live is looked at again.
                Ok(()) => {}
                Err(Refusal::Draining(_) | Refusal::WatchDrained(_)) => return,
                Err(error) => tracing::warn!(%error, "tasks of identities are counted anew"),
            }
        }
    }

    async fn follow(
        &mut self,
        usages: &UsageRegistry,
        handle: &Handle,
        committed: &mut mpsc::UnboundedReceiver<CommittedReservation>,
        wanted: &mut watch::Receiver<Wanted>,
    ) -> Result<(), Refusal> {
        wanted.mark_unchanged();
        let mut watch = handle.watch(TaskFilter::default(), None)?;
        self.recount(usages, handle, &watch).await?;
        loop {
            tokio::select! {
                found = watch.next() => {
                    for event in found? {
                        self.apply(usages, &event);
                    }
                    self.reach(watch.reached());
                }
                Ok(()) = wanted.changed() => return Ok(()),
                Some(submission) = committed.recv() => {
                    self.waiting.push(submission);
                    self.reach(watch.reached());
                }
            }
        }
    }

    /// Counts what is live as the watch begins; what follows is told by events, some of it again.
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
                if !usages.wanted.borrow().bytes || !is_identity(&task.spec.options.submitted_by) {
                    self.begin(usages, &task.spec);
                    continue;
                }
                // Pages have no payloads. A task that has gone meanwhile does not count.
                match handle.get(&task.spec.id).await {
                    Ok(found) if !found.task.status.state.is_terminal() => self.begin(usages, &found.task.spec),
                    Ok(_) | Err(Refusal::TaskNotFound(_)) => {}
                    Err(refusal) => return Err(refusal),
                }
            }
            after = page.next;
            if after.is_none() {
                self.reach(watch.reached());
                return Ok(());
            }
        }
    }

    fn apply(&mut self, usages: &UsageRegistry, event: &Event) {
        match &event.change {
            Change::Submitted { spec } => self.begin(usages, spec),
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

    /// Gives reservations back whose tasks are counted now.
    fn reach(&mut self, revision: Revision) {
        self.reached = self.reached.max(revision);
        self.waiting.retain(|committed| committed.at > self.reached);
    }
}

/// Whether somebody who is known has that name, and not an address.
fn is_identity(name: &str) -> bool {
    ["key:", "jwt:", "cert:"].iter().any(|kind| name.starts_with(kind))
}

#[cfg(test)]
mod tests {
    use super::super::quota::tests::spec;
    use super::*;
    use crate::model::Timestamp;

    fn event(revision: u64, spec: &TaskSpec, change: Change, state: TaskState) -> Event {
        Event {
            revision: Revision(revision),
            at: Timestamp::ZERO,
            task: spec.id.clone(),
            options: spec.options.clone(),
            previous: state,
            state,
            attempt: 0,
            change,
        }
    }

    #[test]
    fn tasks_count_once_from_their_submission_to_their_end() {
        let limits = LimitOptions { live_tasks: Some(9), ..LimitOptions::default() };
        let (usages, mut committed) = UsageRegistry::new(limits);
        let mut ledger = QuotaTracker::default();
        let (mine, open) = (spec("a", "key:ci", 5), spec("b", "127.0.0.1:5", 5));
        let usage = usages.of("key:ci");
        let hold = Usage::reserve(&usage, std::slice::from_ref(&mine)).unwrap().unwrap();
        let submitted = |spec: &TaskSpec| Change::Submitted { spec: Arc::new(spec.clone()) };
        ledger.apply(&usages, &event(1, &mine, submitted(&mine), TaskState::Queued));
        ledger.apply(&usages, &event(1, &mine, submitted(&mine), TaskState::Queued));
        ledger.apply(&usages, &event(2, &open, submitted(&open), TaskState::Queued));
        hold.commit(Revision(2));
        ledger.waiting.push(committed.try_recv().unwrap());
        ledger.reach(Revision(1));
        assert_eq!(usage.live(), (2, 10), "reserved and counted, never neither");
        ledger.reach(Revision(2));
        assert_eq!(usage.live(), (1, 5));
        ledger.apply(&usages, &event(3, &mine, Change::Eligible, TaskState::Queued));
        ledger.apply(&usages, &event(4, &mine, Change::Deleted, TaskState::Completed));
        ledger.apply(&usages, &event(5, &mine, Change::Deleted, TaskState::Completed));
        assert_eq!(usage.live(), (0, 0));
    }

    #[test]
    fn identities_that_nobody_uses_are_forgotten_before_memory_is() {
        let (usages, _settled) = UsageRegistry::new(LimitOptions::default());
        let kept = usages.of("jwt:kept");
        for number in 0..2 * NAMES_MAX {
            usages.of(&format!("jwt:{number}"));
        }
        assert!(usages.known.lock().len() <= NAMES_MAX + 1);
        assert!(Arc::ptr_eq(&kept, &usages.of("jwt:kept")));
    }
}
