//! The durable commits that the tables lack, searchable by task and by revision. So a question about one task does not
//! wait for the tables.
//!
//! Each event has a tag of four bytes, part of the hash of its task. A search compares the tags, newest first: to keep them
//! costs next to nothing, unlike an index. Commits that do not fit into memory leave their tags; their events are read from
//! the journal.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::DefaultHashBuilder;

use crate::model::{Event, Revision, Task, TaskChange, TaskEvent, TaskId};
use crate::store::record::fold;
use crate::store::traits::Commit;

/// Number of events after which a segment is full.
const SEGMENT_EVENTS: usize = if cfg!(test) { 4 } else { 16_384 };
/// Bytes of commits after which a segment is full, since it stays in memory until all of it is written.
const SEGMENT_BYTES: usize = 4 << 20;
/// Tags that are compared together.
const STEP_TAGS: usize = 64;

/// Consecutive commits: all that the tables lack, and maybe earlier ones.
#[derive(Default)]
pub(super) struct Unwritten {
    full: VecDeque<Arc<Segment>>,
    /// The newest commits.
    open: Segment,
    /// Bytes of the commits in `open`.
    open_bytes: usize,
    /// In all segments.
    events: usize,
    hasher: DefaultHashBuilder,
}

/// Consecutive commits that are all in memory, or all only in the journal.
#[derive(Default)]
struct Segment {
    first: Revision,
    /// One for each event; that of an event of no task has no meaning.
    tags: Vec<u32>,
    /// `None` if they are only in the journal.
    commits: Option<Vec<Arc<Commit>>>,
}

/// Where an event is.
#[derive(Clone, Debug)]
pub(super) enum Location {
    /// Position in a commit.
    Memory(Arc<Commit>, usize),
    Journal(Revision),
}

impl Unwritten {
    pub(super) fn events(&self) -> usize {
        self.events
    }

    /// Adds the next commit: with its bytes if it stays in memory, otherwise with its tags only.
    pub(super) fn add(&mut self, commit: &Arc<Commit>, kept: Option<usize>) {
        if self.open.commits.is_some() != kept.is_some() {
            self.close_segment();
        }
        if self.open.tags.is_empty() {
            self.open.first = commit.first();
            self.open.commits = kept.is_some().then(Vec::new);
        }
        let tags = commit.events.iter().map(|event| event.task().map_or(0, |event| tag(&self.hasher, &event.task)));
        self.open.tags.extend(tags);
        self.events += commit.events.len();
        if let (Some(commits), Some(bytes)) = (&mut self.open.commits, kept) {
            commits.push(Arc::clone(commit));
            self.open_bytes += bytes;
        }
        if self.open.tags.len() >= SEGMENT_EVENTS || self.open_bytes >= SEGMENT_BYTES {
            self.close_segment();
        }
    }

    fn close_segment(&mut self) {
        self.open_bytes = 0;
        let segment = std::mem::take(&mut self.open);
        if !segment.tags.is_empty() {
            self.full.push_back(Arc::new(segment));
        }
    }

    /// Removes the segments that the tables contain, and returns them: freeing them takes long, and must not happen under
    /// the lock of the queue.
    pub(super) fn remove_written(&mut self, written: Revision) -> impl Sized + use<> {
        if self.open.last() <= written {
            self.close_segment();
        }
        let count = self.full.partition_point(|segment| segment.last() <= written);
        let removed: Vec<_> = self.full.drain(..count).collect();
        self.events -= removed.iter().map(|segment| segment.tags.len()).sum::<usize>();
        removed
    }

    /// A search that needs the lock no longer.
    pub(super) fn search(&self, id: &TaskId) -> Search {
        let tag = tag(&self.hasher, id);
        Search {
            task: id.clone(),
            tag,
            full: self.full.iter().cloned().collect(),
            open: self.open.places(tag).collect(),
        }
    }

    /// Where the event with this revision is.
    pub(super) fn find(&self, revision: Revision) -> Option<Location> {
        let after = self.full.partition_point(|segment| segment.last() < revision);
        let segment = self.full.get(after).map_or(&self.open, |segment| &**segment);
        let is_inside = !segment.tags.is_empty() && (segment.first..=segment.last()).contains(&revision);
        is_inside.then(|| segment.place(revision))
    }
}

fn tag(hasher: &DefaultHashBuilder, id: &TaskId) -> u32 {
    let [a, b, c, d, ..] = hasher.hash_one(id).to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

impl Segment {
    fn last(&self) -> Revision {
        Revision((self.first.0 + self.tags.len() as u64).saturating_sub(1))
    }

    /// Of an event of this segment.
    fn place(&self, revision: Revision) -> Location {
        let in_memory = self.commits.as_ref().and_then(|commits| {
            let commit = commits.get(commits.partition_point(|commit| commit.last() < revision))?;
            let position = usize::try_from(revision.0.checked_sub(commit.first().0)?).ok()?;
            Some(Location::Memory(Arc::clone(commit), position))
        });
        in_memory.unwrap_or(Location::Journal(revision))
    }

    /// Of the events with this tag, newest first.
    fn places(&self, tag: u32) -> impl Iterator<Item = Location> {
        let steps = self.tags.rchunks(STEP_TAGS).enumerate().filter(move |(_, step)| step.contains(&tag));
        let positions = steps.flat_map(move |(number, step)| {
            let start = self.tags.len() - number * STEP_TAGS - step.len();
            let matching = step.iter().enumerate().rev().filter(move |(_, other)| **other == tag);
            matching.map(move |(position, _)| start + position)
        });
        positions.map(|position| self.place(Revision(self.first.0 + position as u64)))
    }
}

/// A search for the events of one task.
pub(super) struct Search {
    task: TaskId,
    tag: u32,
    full: Vec<Arc<Segment>>,
    /// In the open segment, newest first.
    open: Vec<Location>,
}

impl Search {
    /// The events that decide the task's state, if they are all in memory and no row of the tables is needed. Does not look
    /// behind commits that are only in the journal: there can be very many.
    pub(super) fn in_memory(&self) -> Option<History> {
        let segments = self.full.iter().rev().take_while(|segment| segment.commits.is_some());
        self.collect(segments, |_| Err(())).ok().filter(|history| history.complete)
    }

    /// The events that decide the task's state. `read` returns an event of the journal, or `None` if the journal has it no
    /// longer: then the tables contain it and all before.
    pub(super) fn history<E>(&self, read: impl Fn(Revision) -> Result<Option<Event>, E>) -> Result<History, E> {
        self.collect(self.full.iter().rev(), read)
    }

    /// `full` are segments, newest first.
    fn collect<'a, E>(
        &self,
        full: impl Iterator<Item = &'a Arc<Segment>>,
        read: impl Fn(Revision) -> Result<Option<Event>, E>,
    ) -> Result<History, E> {
        let mut history = History { events: Vec::new(), complete: false };
        let older = full.flat_map(|segment| segment.places(self.tag));
        for place in self.open.iter().cloned().chain(older) {
            let event = match place {
                Location::Memory(commit, position) => commit.events.get(position).and_then(|event| self.own(event)),
                Location::Journal(revision) => match read(revision)? {
                    Some(event) => self.own(&event),
                    None => break,
                },
            };
            let Some(event) = event else { continue };
            history.complete = matches!(event.change, TaskChange::Submitted { .. } | TaskChange::Deleted);
            history.events.push(event);
            if history.complete {
                break;
            }
        }
        history.events.reverse();
        Ok(history)
    }

    /// Another task may have the same tag.
    fn own(&self, event: &Event) -> Option<TaskEvent> {
        event.task().filter(|event| event.task == self.task).cloned()
    }
}

/// The newest events of one task, in order. They begin with the last submission or deletion, if there is one.
pub(super) struct History {
    pub(super) events: Vec<TaskEvent>,
    complete: bool,
}

impl History {
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
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

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
            kept in proptest::collection::vec(any::<bool>(), 200),
            written in any::<prop::sample::Index>(),
            read in any::<prop::sample::Index>(),
            trimmed in any::<prop::sample::Index>(),
        ) {
            let events = Events::of(&seed);
            let written = written.index(events.events.len() + 1);
            // The row is read after the search began, so it may be newer, and the journal may be trimmed up to there.
            let read = written + read.index(events.events.len() + 1 - written);
            let trimmed = trimmed.index(read + 1);
            let mut unwritten = Unwritten::default();
            for (commit, kept) in events.commits(commit_events).iter().zip(&kept) {
                unwritten.add(commit, kept.then_some(1));
            }
            drop(unwritten.remove_written(Revision(written as u64)));
            let of_journal = |revision: Revision| {
                let index = usize::try_from(revision.0).unwrap() - 1;
                Ok::<_, Infallible>((index >= trimmed).then(|| events.events[index].clone()))
            };
            for number in 0..24 {
                let (id, row) = (id(number), after(&events.events[..read], &id(number)));
                let search = unwritten.search(&id);
                let Ok(history) = search.history(of_journal);
                let mut task = if history.is_complete() { None } else { row };
                history.advance(&mut task);
                prop_assert_eq!(&task, &after(&events.events, &id));
                if let Some(history) = search.in_memory() {
                    let mut alone = None;
                    history.advance(&mut alone);
                    prop_assert_eq!(alone, task);
                }
            }
            for event in &events.events[written..] {
                match unwritten.find(event.revision()) {
                    Some(Location::Memory(commit, position)) => prop_assert_eq!(&commit.events[position], event),
                    Some(Location::Journal(revision)) => prop_assert_eq!(revision, event.revision()),
                    None => prop_assert!(false, "{} is missing", event.revision()),
                }
            }
            prop_assert!(unwritten.find(Revision(events.events.len() as u64 + 1)).is_none());
        }
    }

    #[test]
    fn written_commits_are_released() {
        let events = Events::of(&[(1, 0, 1), (2, 0, 1), (3, 0, 1), (4, 0, 1), (5, 0, 1), (6, 0, 1)]);
        let mut unwritten = Unwritten::default();
        let commits = events.commits(1);
        for commit in &commits {
            unwritten.add(commit, Some(1));
        }
        drop(unwritten.remove_written(events.events.last().unwrap().revision()));
        assert!(commits.iter().all(|commit| Arc::strong_count(commit) == 1));
        assert!(unwritten.search(&id(1)).in_memory().is_none());
        assert_eq!(unwritten.events(), 0);
    }
}
