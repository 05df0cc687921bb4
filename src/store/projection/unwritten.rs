//! The durable commits that the tables lack, searchable by task and by revision. So a question about one task does not
//! wait for the tables.
//!
//! Commits are collected into segments. The index of a segment is built when it is first searched, by the thread that
//! searches: commits that no query asks for cost nothing.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::{Arc, OnceLock};

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::model::{Event, Revision, Task, TaskChange, TaskEvent, TaskId};
use crate::store::record::fold;
use crate::store::traits::Commit;

/// Number of events after which a segment is full. Segments that are not full are searched event by event.
const SEGMENT_EVENTS: usize = if cfg!(test) { 4 } else { 4_096 };
/// Bytes of payloads, results and outputs after which a segment ends, since it stays in memory until all of it is written.
const SEGMENT_BYTES: usize = 1 << 20;

/// Consecutive commits: all that the tables lack, and maybe earlier ones.
#[derive(Default)]
pub(super) struct Unwritten {
    full: VecDeque<Arc<Segment>>,
    /// The newest commits; fewer than [`SEGMENT_EVENTS`] events and [`SEGMENT_BYTES`].
    open: Vec<Arc<Commit>>,
    open_events: usize,
    open_bytes: usize,
}

impl Unwritten {
    /// Adds a commit with `bytes` of payloads, results and outputs.
    pub(super) fn add(&mut self, commit: Arc<Commit>, bytes: usize) {
        self.open_events += commit.events.len();
        self.open_bytes += bytes;
        self.open.push(commit);
        if self.open_events >= SEGMENT_EVENTS || self.open_bytes >= SEGMENT_BYTES {
            (self.open_events, self.open_bytes) = (0, 0);
            self.full.push_back(Arc::new(Segment::new(std::mem::take(&mut self.open))));
        }
    }

    /// Removes commits that the tables contain, and returns them: freeing them takes long, and must not happen under the
    /// lock of the queue.
    pub(super) fn remove_written(&mut self, written: Revision) -> impl Sized + use<> {
        let full = self.full.partition_point(|segment| segment.last() <= written);
        let open = self.open.partition_point(|commit| commit.last() <= written);
        let removed = (self.full.drain(..full).collect::<Vec<_>>(), self.open.drain(..open).collect::<Vec<_>>());
        self.open_events = self.open.iter().map(|commit| commit.events.len()).sum();
        self.open_bytes = self.open.iter().flat_map(|commit| &commit.events).map(Event::weight).sum();
        removed
    }

    /// A copy to search without a lock.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot { full: self.full.iter().cloned().collect(), open: Segment::new(self.open.clone()) }
    }
}

pub(super) struct Snapshot {
    full: Vec<Arc<Segment>>,
    open: Segment,
}

impl Snapshot {
    /// The events of a task that decide its state, in order.
    pub(super) fn history(&self, id: &TaskId) -> History<'_> {
        let mut history = History { events: Vec::new(), complete: false };
        history.add_older(self.open.scan(id));
        for segment in self.full.iter().rev() {
            if history.complete {
                break;
            }
            history.add_older(segment.look_up(id));
        }
        history.events.reverse();
        history
    }

    /// The event with this revision.
    pub(super) fn event(&self, revision: Revision) -> Option<&Event> {
        let after = self.full.partition_point(|segment| segment.last() < revision);
        self.full.get(after).map_or(&self.open, |segment| &**segment).event(revision)
    }
}

/// The newest events of one task, in order. They begin with the last submission or deletion, if there is one.
pub(super) struct History<'a> {
    events: Vec<&'a TaskEvent>,
    complete: bool,
}

impl<'a> History<'a> {
    /// Whether the events alone determine the task, without the row in the tables.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Brings a row up to date that was read after the history. It may contain some of the events already.
    pub(super) fn advance(&self, task: &mut Option<Task>) {
        for event in &self.events {
            if task.as_ref().is_none_or(|task| task.status.revision < event.revision) {
                fold(task, event);
            }
        }
    }

    /// Adds earlier events, newest first, up to the one that begins a task or ends it.
    fn add_older(&mut self, events: impl IntoIterator<Item = &'a TaskEvent>) {
        for event in events {
            self.events.push(event);
            if matches!(event.change, TaskChange::Submitted { .. } | TaskChange::Deleted) {
                self.complete = true;
                return;
            }
        }
    }
}

struct Segment {
    commits: Vec<Arc<Commit>>,
    index: OnceLock<TaskIndex>,
}

impl Segment {
    fn new(commits: Vec<Arc<Commit>>) -> Self {
        Self { commits, index: OnceLock::new() }
    }

    fn last(&self) -> Revision {
        self.commits.last().map_or_else(Revision::default, |commit| commit.last())
    }

    fn event(&self, revision: Revision) -> Option<&Event> {
        let commit = self.commits.get(self.commits.partition_point(|commit| commit.last() < revision))?;
        let index = usize::try_from(revision.0.checked_sub(commit.first().0)?).ok()?;
        commit.events.get(index)
    }

    /// The events of the task, newest first.
    fn scan(&self, id: &TaskId) -> impl Iterator<Item = &TaskEvent> {
        let events = self.commits.iter().rev().flat_map(|commit| commit.events.iter().rev());
        events.filter_map(Event::task).filter(move |event| event.task == *id)
    }

    /// The events of the task, newest first, by the index.
    fn look_up(&self, id: &TaskId) -> Vec<&TaskEvent> {
        let index = self.index.get_or_init(|| TaskIndex::new(&self.commits));
        let mut events: Vec<&TaskEvent> = index.positions(id).filter_map(|position| self.at(position)).collect();
        events.retain(|event| event.task == *id);
        events.sort_unstable_by_key(|event| std::cmp::Reverse(event.revision));
        events
    }

    fn at(&self, (commit, event): Position) -> Option<&TaskEvent> {
        self.commits.get(commit as usize)?.events.get(event as usize)?.task()
    }
}

/// Index of a commit in its segment, and of an event in the commit.
type Position = (u32, u32);

/// The positions of events by their task.
struct TaskIndex {
    table: HashTable<(u64, Position)>,
    hasher: DefaultHashBuilder,
}

impl TaskIndex {
    fn new(commits: &[Arc<Commit>]) -> Self {
        let events: usize = commits.iter().map(|commit| commit.events.len()).sum();
        let mut index = Self { table: HashTable::with_capacity(events), hasher: DefaultHashBuilder::default() };
        for (at, commit) in (0..).zip(commits) {
            for (position, event) in (0..).zip(&commit.events) {
                if let Some(event) = event.task() {
                    let hash = index.hasher.hash_one(&event.task);
                    index.table.insert_unique(hash, (hash, (at, position)), |(hash, _)| *hash);
                }
            }
        }
        index
    }

    /// The positions of the task's events, in no order, and maybe some of other tasks.
    fn positions(&self, id: &TaskId) -> impl Iterator<Item = Position> {
        let wanted = self.hasher.hash_one(id);
        let entries = self.table.iter_hash(wanted).filter(move |(hash, _)| *hash == wanted);
        entries.map(|(_, position)| *position)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::tests::fixtures::{History as Events, id};

    /// The task after these events.
    fn after(events: &[Event], id: &TaskId) -> Option<Task> {
        let mut task = None;
        for event in events.iter().filter_map(Event::task).filter(|event| event.task == *id) {
            fold(&mut task, event);
        }
        task
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn a_row_of_any_age_is_brought_to_the_state_after_the_last_commit(
            seed in proptest::collection::vec(any::<(u8, u8, u8)>(), 1..200),
            commit_events in 1_usize..12,
            written in any::<prop::sample::Index>(),
            read in any::<prop::sample::Index>(),
        ) {
            let events = Events::of(&seed);
            let written = written.index(events.events.len() + 1);
            // The row is read after the commits were copied, so it may be newer.
            let read = written + read.index(events.events.len() + 1 - written);
            let mut unwritten = Unwritten::default();
            for commit in events.commits(commit_events) {
                unwritten.add(commit, 0);
            }
            drop(unwritten.remove_written(Revision(written as u64)));
            let snapshot = unwritten.snapshot();
            for number in 0..24 {
                let (id, row) = (id(number), after(&events.events[..read], &id(number)));
                let history = snapshot.history(&id);
                let mut task = if history.is_complete() { None } else { row };
                history.advance(&mut task);
                prop_assert_eq!(task, after(&events.events, &id));
            }
            for event in &events.events[written..] {
                prop_assert_eq!(snapshot.event(event.revision()), Some(event));
            }
            prop_assert_eq!(snapshot.event(Revision(events.events.len() as u64 + 1)), None);
        }
    }

    #[test]
    fn written_commits_are_released() {
        let events = Events::of(&[(1, 0, 1), (2, 0, 1), (3, 0, 1), (4, 0, 1), (5, 0, 1), (6, 0, 1)]);
        let mut unwritten = Unwritten::default();
        let commits = events.commits(1);
        for commit in &commits {
            unwritten.add(Arc::clone(commit), 0);
        }
        drop(unwritten.remove_written(events.events.last().unwrap().revision()));
        assert!(commits.iter().all(|commit| Arc::strong_count(commit) == 1));
        assert!(unwritten.snapshot().history(&id(1)).events.is_empty());
    }
}
