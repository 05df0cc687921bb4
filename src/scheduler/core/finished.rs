//! The finished tasks of each namespace, in the order in which they ended.
//!
//! The order is that of the revisions, which a restart reproduces. A deleted task leaves its queue entry behind;
//! such entries are skipped, and compaction keeps their number within a constant factor of the live ones.

use std::collections::{BTreeSet, VecDeque};

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
    /// Of all lists.
    bytes: u64,
    /// Each list that is not empty, once, with a lower bound of the time of its oldest end.
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

#[derive(Debug, Default)]
struct List {
    queue: VecDeque<FinishedTask>,
    live: usize,
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

    /// Records that a task with these stored bytes was removed from the table.
    pub fn remove(&mut self, namespace: &Namespace, bytes: u32, tasks: &TaskTable) {
        let Some(slot) = self.by_namespace.get(namespace).copied() else { return };
        let list = &mut self.lists[slot as usize];
        list.live -= 1;
        list.bytes -= u64::from(bytes);
        self.bytes -= u64::from(bytes);
        if list.live == 0 {
            list.queue = VecDeque::new();
            self.by_age.remove(&(list.oldest, slot));
            self.by_namespace.remove(namespace);
            self.free.push(slot);
        } else if list.queue.len() > 2 * list.live + STALE_MAX {
            list.queue.retain(|task| task.is_live(tasks));
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
            list.oldest = list.front(tasks, self.restored).map_or(list.oldest, |(_, at)| at);
            self.by_age.insert((list.oldest, slot));
        }
    }

    /// Number of tasks added since the last call.
    pub fn take_added(&mut self) -> usize {
        std::mem::take(&mut self.added)
    }

    /// Takes a task out of a list that exceeds the count or the bytes: the oldest of the next such list.
    pub fn pop_over(&mut self, retention: &Retention, tasks: &TaskTable) -> Option<u32> {
        while let Some(slot) = self.over.pop_front() {
            let list = &mut self.lists[slot as usize];
            if retention.is_exceeded_by(list.live, list.bytes) && list.front(tasks, self.restored).is_some() {
                self.over.push_back(slot);
                return list.queue.pop_front().map(|task| task.index);
            }
            list.is_over = false;
        }
        None
    }

    /// Takes out a task that ended at `until` or before and is the oldest of its namespace.
    pub fn pop_aged(&mut self, until: Timestamp, tasks: &TaskTable) -> Option<u32> {
        while let Some((oldest, slot)) = self.by_age.first().copied().filter(|(oldest, _)| *oldest <= until) {
            let list = &mut self.lists[slot as usize];
            let (task, at) = list.front(tasks, self.restored)?;
            if at <= until {
                list.queue.pop_front();
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
    /// stale.
    pub fn range(&self, list: u32, after: Revision, until: Revision, limit: usize) -> Vec<FinishedTask> {
        let Some(list) = self.lists.get(list as usize) else { return Vec::new() };
        let start = list.queue.partition_point(|task| task.ended <= after);
        list.queue.range(start..).take(limit).take_while(|task| task.ended <= until).copied().collect()
    }

    /// Compares the counts with the tasks.
    #[cfg(test)]
    pub fn check(&self, tasks: &TaskTable) {
        let (mut live, mut bytes) = (0, 0);
        for (namespace, slot) in &self.by_namespace {
            let list = &self.lists[*slot as usize];
            let entries = || list.queue.iter().filter(|task| task.is_live(tasks));
            let count = entries().count();
            assert_eq!(list.live, count, "finished tasks of {namespace}");
            let sizes = entries().filter_map(|task| Some(u64::from(tasks.get(task.index)?.stored_bytes)));
            assert_eq!(list.bytes, sizes.sum::<u64>(), "bytes of finished tasks of {namespace}");
            bytes += list.bytes;
            assert!(list.queue.len() <= 2 * list.live + STALE_MAX, "stale entries of {namespace} are bounded");
            assert!(
                list.queue.iter().is_sorted_by_key(|task| task.ended),
                "finished tasks of {namespace} are in order"
            );
            assert!(self.by_age.contains(&(list.oldest, *slot)), "{namespace} has an age");
            live += count;
        }
        assert_eq!(self.bytes, bytes, "bytes of all finished tasks");
        assert_eq!(self.by_age.len(), self.by_namespace.len(), "only namespaces with finished tasks have an age");
        let finished = tasks.iter().filter(|(_, task)| task.state.is_terminal()).count();
        assert_eq!(live, finished, "every finished task is in the list of its namespace");
    }
}

impl List {
    /// The oldest task and when it ended. Removes stale entries before it.
    fn front(&mut self, tasks: &TaskTable, restored: Restored) -> Option<(FinishedTask, Timestamp)> {
        while let Some(task) = self.queue.front().copied() {
            match tasks.get(task.index).filter(|entry| entry.submission == task.submission) {
                Some(entry) if task.ended <= restored.revision => return Some((task, entry.since.min(restored.at))),
                Some(entry) => return Some((task, entry.since)),
                None => self.queue.pop_front(),
            };
        }
        None
    }
}
