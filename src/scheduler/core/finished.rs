//! The finished tasks of each namespace, in the order in which they ended.
//!
//! The order is that of the revisions, which a restart reproduces. A deleted task leaves its queue entry behind;
//! such entries are skipped, and compaction keeps their number within a constant factor of the live ones.
//!
//! A task on which unfinished tasks depend is pinned: it is not counted, and it is skipped. Its entry is taken out of the queue
//! when it is the oldest, and is put beside the queue when the task is unpinned.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use hashbrown::HashMap;

use crate::model::{Namespace, Retention, Revision, Timestamp};

use super::table::TaskTable;

/// A finished task. The entry is stale if the entry of the table is that of another submission.
#[derive(Clone, Copy, Debug)]
pub(super) struct FinishedTask {
    /// Revision of the end.
    pub ended: Revision,
    pub index: u32,
    pub submission: Revision,
}

impl FinishedTask {
    pub fn is_live(&self, tasks: &TaskTable) -> bool {
        tasks.get(self.index).is_some_and(|task| task.submission == self.submission)
    }
}

#[derive(Debug, Default)]
pub(super) struct FinishedTasks {
    by_namespace: HashMap<Namespace, u32>,
    /// A list that became empty is reused for another namespace.
    lists: Vec<List>,
    free: Vec<u32>,
    /// Lists that may exceed the count or the bytes of the retention, each once. Served in turn.
    over: VecDeque<u32>,
    /// Of all lists, with those of pinned tasks.
    bytes: u64,
    /// Pinned tasks by index, with their entries if those were taken out of their queues.
    pinned: HashMap<u32, Option<FinishedTask>>,
    /// Each list with tasks that are not pinned, once, with a lower bound of the time of their oldest end.
    by_age: BTreeSet<(Timestamp, u32)>,
    /// Tasks added since the last call of [`FinishedTasks::take_added`].
    added: usize,
    /// Whether restored tasks were added in another order than that of their ends.
    unordered: bool,
    restored: Restored,
}

/// When the server started, and the revision at that time. An end up to this revision was not later, whatever its time:
/// the clock may have been ahead.
#[derive(Clone, Copy, Debug, Default)]
struct Restored {
    revision: Revision,
    at: Timestamp,
}

impl Restored {
    fn end_time(self, ended: Revision, at: Timestamp) -> Timestamp {
        if ended <= self.revision { at.min(self.at) } else { at }
    }
}

#[derive(Debug, Default)]
struct List {
    queue: VecDeque<FinishedTask>,
    /// Tasks that were pinned when they were the oldest, and are no longer, by their ends.
    unpinned: BTreeMap<Revision, FinishedTask>,
    /// Tasks that are not pinned.
    live: usize,
    pinned: usize,
    /// Stored bytes of the live tasks.
    bytes: u64,
    /// Its key in [`FinishedTasks::by_age`].
    oldest: Timestamp,
    /// Whether it is in [`FinishedTasks::over`].
    is_over: bool,
}

/// Entries of deleted tasks that a list may have in addition to as many as live ones.
const STALE_MAX: usize = 64;

impl FinishedTasks {
    /// Adds a task that ended at `at`, with its stored bytes. Tasks must be added in the order of their ends, except
    /// restored ones.
    pub fn push(
        &mut self,
        namespace: &Namespace,
        task: FinishedTask,
        at: Timestamp,
        bytes: u32,
        retention: &Retention,
    ) {
        let slot = self.slot(namespace);
        let list = &mut self.lists[slot as usize];
        if list.live == 0 {
            list.oldest = at;
            self.by_age.insert((at, slot));
        }
        self.unordered |= list.queue.back().is_some_and(|newest| newest.ended > task.ended);
        list.queue.push_back(task);
        list.live += 1;
        list.bytes += u64::from(bytes);
        self.bytes += u64::from(bytes);
        if retention.is_exceeded_by(list.live, list.bytes) && !list.is_over {
            list.is_over = true;
            self.over.push_back(slot);
        }
        self.added += 1;
    }

    fn slot(&mut self, namespace: &Namespace) -> u32 {
        if let Some(slot) = self.by_namespace.get(namespace) {
            return *slot;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.lists.push(List::default());
            u32::try_from(self.lists.len() - 1).unwrap_or(u32::MAX)
        });
        self.by_namespace.insert(namespace.clone(), slot);
        slot
    }

    /// Keeps a finished task with these stored bytes until it is unpinned.
    pub fn pin(&mut self, index: u32, namespace: &Namespace, bytes: u32) {
        let Some(slot) = self.by_namespace.get(namespace).copied() else { return };
        self.pinned.insert(index, None);
        let list = &mut self.lists[slot as usize];
        list.live -= 1;
        list.pinned += 1;
        list.bytes -= u64::from(bytes);
        self.oldest_may_be_gone(slot);
    }

    /// A task of the list is gone that may have been the oldest. The next one may have an earlier time, if the clock was set
    /// back between them; [`FinishedTasks::pop_aged`] looks.
    fn oldest_may_be_gone(&mut self, slot: u32) {
        let list = &mut self.lists[slot as usize];
        if list.live == 0 {
            self.by_age.remove(&(list.oldest, slot));
        } else if list.oldest > Timestamp::ZERO {
            self.by_age.remove(&(list.oldest, slot));
            list.oldest = Timestamp::ZERO;
            self.by_age.insert((list.oldest, slot));
        }
    }

    /// Lets the retention decide about a pinned task again, which ended at `at`.
    pub fn unpin(&mut self, index: u32, namespace: &Namespace, at: Timestamp, bytes: u32, retention: &Retention) {
        let Some(slot) = self.by_namespace.get(namespace).copied() else { return };
        let Some(entry) = self.pinned.remove(&index) else { return };
        let list = &mut self.lists[slot as usize];
        let at = at.min(self.restored.at);
        if list.live == 0 || at < list.oldest {
            self.by_age.remove(&(list.oldest, slot));
            list.oldest = at;
            self.by_age.insert((at, slot));
        }
        list.live += 1;
        list.pinned -= 1;
        list.bytes += u64::from(bytes);
        list.unpinned.extend(entry.map(|task| (task.ended, task)));
        if retention.is_exceeded_by(list.live, list.bytes) && !list.is_over {
            list.is_over = true;
            self.over.push_back(slot);
        }
        self.added += 1;
    }

    /// Whether the task is kept because unfinished tasks depend on it.
    pub fn is_pinned(&self, index: u32) -> bool {
        self.pinned.contains_key(&index)
    }

    /// Records that a task with these stored bytes was removed from the table.
    pub fn remove(&mut self, namespace: &Namespace, bytes: u32, tasks: &TaskTable) {
        let Some(slot) = self.by_namespace.get(namespace).copied() else { return };
        let list = &mut self.lists[slot as usize];
        list.live -= 1;
        list.bytes -= u64::from(bytes);
        self.bytes -= u64::from(bytes);
        self.oldest_may_be_gone(slot);
        let list = &mut self.lists[slot as usize];
        if list.live + list.pinned == 0 {
            (list.queue, list.unpinned) = (VecDeque::new(), BTreeMap::new());
            self.by_namespace.remove(namespace);
            self.free.push(slot);
        } else if list.queue.len() + list.unpinned.len() > 2 * (list.live + list.pinned) + STALE_MAX {
            list.queue.retain(|task| task.is_live(tasks));
            list.unpinned.retain(|_, task| task.is_live(tasks));
        }
    }

    /// Orders restored tasks by their ends. Call it when all tasks were restored and all events replayed.
    pub fn order_restored(&mut self, tasks: &TaskTable, revision: Revision, now: Timestamp) {
        self.restored = Restored { revision, at: now };
        let ahead = self.by_age.last().is_some_and(|(oldest, _)| *oldest > now);
        if !std::mem::take(&mut self.unordered) && !ahead {
            return;
        }
        for (slot, list) in (0..).zip(&mut self.lists).filter(|(_, list)| list.live > 0) {
            list.queue.make_contiguous().sort_unstable_by_key(|task| task.ended);
            self.by_age.remove(&(list.oldest, slot));
            list.oldest = list.front(tasks, self.restored, &mut self.pinned).map_or(list.oldest, |(_, at)| at);
            self.by_age.insert((list.oldest, slot));
        }
    }

    /// When a task ended whose last event was at `since`.
    pub fn end_time(&self, ended: Revision, since: Timestamp) -> Timestamp {
        self.restored.end_time(ended, since)
    }

    /// Number of tasks added since the last call.
    pub fn take_added(&mut self) -> usize {
        std::mem::take(&mut self.added)
    }

    /// Takes a task out of a list that exceeds the count or the bytes: the oldest of the next such list.
    pub fn pop_over(&mut self, retention: &Retention, tasks: &TaskTable) -> Option<u32> {
        while let Some(slot) = self.over.pop_front() {
            let list = &mut self.lists[slot as usize];
            if retention.is_exceeded_by(list.live, list.bytes)
                && let Some((task, _)) = list.front(tasks, self.restored, &mut self.pinned)
            {
                self.over.push_back(slot);
                list.pop(task);
                return Some(task.index);
            }
            list.is_over = false;
        }
        None
    }

    /// Takes out a task that ended at `until` or before and is the oldest of its namespace.
    pub fn pop_aged(&mut self, until: Timestamp, tasks: &TaskTable) -> Option<u32> {
        while let Some((oldest, slot)) = self.by_age.first().copied().filter(|(oldest, _)| *oldest <= until) {
            let list = &mut self.lists[slot as usize];
            let (task, at) = list.front(tasks, self.restored, &mut self.pinned)?;
            if at <= until {
                list.pop(task);
                return Some(task.index);
            }
            self.by_age.remove(&(oldest, slot));
            list.oldest = at;
            self.by_age.insert((at, slot));
        }
        None
    }

    /// Stored bytes of all finished tasks.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of lists, including empty ones.
    pub fn lists(&self) -> u32 {
        u32::try_from(self.lists.len()).unwrap_or(u32::MAX)
    }

    /// The list of a namespace that has finished tasks.
    pub fn list_of(&self, namespace: &Namespace) -> Option<u32> {
        self.by_namespace.get(namespace).copied()
    }

    /// Up to `limit` entries of a list that ended after `after` and not after `until`, in this order. Some may be
    /// stale or pinned, and pinned ones may be missing.
    pub fn range(&self, list: u32, after: Revision, until: Revision, limit: usize) -> Vec<FinishedTask> {
        let Some(list) = self.lists.get(list as usize) else { return Vec::new() };
        let start = list.queue.partition_point(|task| task.ended <= after);
        let queued = list.queue.range(start..).take(limit).take_while(|task| task.ended <= until);
        let mut tasks: Vec<_> = queued.copied().collect();
        let range = (Bound::Excluded(after), Bound::Included(until));
        if after < until && !list.unpinned.is_empty() {
            tasks.extend(list.unpinned.range(range).take(limit).map(|(_, task)| *task));
            tasks.sort_unstable_by_key(|task| task.ended);
            tasks.truncate(limit);
        }
        tasks
    }

    /// Compares the counts with the tasks.
    #[cfg(test)]
    pub fn check(&self, tasks: &TaskTable) {
        let (mut live, mut pinned, mut bytes) = (0, 0, 0);
        for (namespace, slot) in &self.by_namespace {
            let list = &self.lists[*slot as usize];
            let entries = || list.queue.iter().chain(list.unpinned.values()).filter(|task| task.is_live(tasks));
            let deletable = || entries().filter(|task| !self.is_pinned(task.index));
            assert_eq!(list.live, deletable().count(), "finished tasks of {namespace}");
            let size = |index: u32| tasks.get(index).map(|task| u64::from(task.stored_bytes));
            let deletable_bytes: u64 = deletable().filter_map(|task| size(task.index)).sum();
            assert_eq!(list.bytes, deletable_bytes, "bytes of finished tasks of {namespace}");
            let of_namespace =
                |index: &u32| tasks.get(*index).is_some_and(|task| task.spec.options.namespace == *namespace);
            let own_pinned: Vec<u32> = self.pinned.keys().copied().filter(|index| of_namespace(index)).collect();
            assert_eq!(list.pinned, own_pinned.len(), "pinned tasks of {namespace}");
            bytes += list.bytes + own_pinned.into_iter().filter_map(size).sum::<u64>();
            let entry_count = list.queue.len() + list.unpinned.len();
            assert!(
                entry_count <= 2 * (list.live + list.pinned) + STALE_MAX,
                "stale entries of {namespace} are bounded"
            );
            assert!(
                list.queue.iter().is_sorted_by_key(|task| task.ended),
                "finished tasks of {namespace} are in order"
            );
            assert_eq!(self.by_age.contains(&(list.oldest, *slot)), list.live > 0, "the age of {namespace}");
            live += list.live;
            pinned += list.pinned;
        }
        assert_eq!(self.bytes, bytes, "bytes of all finished tasks");
        let with_age = self.by_namespace.values().filter(|slot| self.lists[**slot as usize].live > 0).count();
        assert_eq!(self.by_age.len(), with_age, "only namespaces with finished tasks have an age");
        assert_eq!(pinned, self.pinned.len(), "every pinned task is in the list of its namespace");
        let finished = tasks.iter().filter(|(_, task)| task.state.is_terminal()).count();
        assert_eq!(live + pinned, finished, "every finished task is in the list of its namespace");
    }

    /// Number of pinned tasks.
    #[cfg(test)]
    pub fn pinned(&self) -> usize {
        self.pinned.len()
    }
}

impl List {
    /// The oldest task that is not pinned, and when it ended. Removes stale entries before it, and moves those of pinned tasks.
    fn front(
        &mut self,
        tasks: &TaskTable,
        restored: Restored,
        pinned: &mut HashMap<u32, Option<FinishedTask>>,
    ) -> Option<(FinishedTask, Timestamp)> {
        loop {
            let unpinned = self.unpinned.first_key_value().map(|(_, task)| *task);
            let task = self.queue.front().copied().into_iter().chain(unpinned).min_by_key(|task| task.ended)?;
            let entry = tasks.get(task.index).filter(|entry| entry.submission == task.submission);
            match (entry, pinned.get_mut(&task.index)) {
                (Some(_), Some(kept)) => *kept = Some(task),
                (Some(entry), None) => return Some((task, restored.end_time(task.ended, entry.since))),
                (None, _) => {}
            }
            self.pop(task);
        }
    }

    /// Removes the entry of the oldest task.
    fn pop(&mut self, task: FinishedTask) {
        if self.unpinned.remove(&task.ended).is_none() {
            self.queue.pop_front();
        }
    }
}
