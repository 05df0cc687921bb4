//! Opens, fills and reads stores in tests.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;

use super::fixtures::History;
use crate::model::{Batch, Event, LimitId, RecoveredTask, Revision, Schedule, Task, TaskId};
use crate::store::backup::{self, CheckReport};
use crate::store::error::StoreError;
use crate::store::open::{self, Options, Store, open};
use crate::store::page::PageSize;
use crate::store::record::fold;
use crate::store::traits::{AppendError, Commit, Recover};

/// A fixed history with every kind of event.
pub(super) fn long_history() -> History {
    let mut state = 1_u32;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    History::of(&(0..1500).map(|_| (byte(), byte(), byte())).collect::<Vec<_>>())
}

/// A directory in memory if possible: for tests that open hundreds of stores and do not depend on syncs.
pub(super) fn temp_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Everything that a start passes on.
#[derive(Default)]
pub(super) struct Recovered {
    /// With payloads.
    pub(super) tasks: Vec<RecoveredTask>,
    pub(super) batches: Vec<Batch>,
    pub(super) schedules: Vec<Schedule>,
    pub(super) buckets: BTreeMap<LimitId, u64>,
    /// The revision of the tasks.
    pub(super) revision: Revision,
    pub(super) events: Vec<Event>,
    /// The last event of each pool and handler up to that revision.
    pub(super) subjects: Vec<Event>,
    pub(super) notes: Vec<String>,
}

impl Recover for Recovered {
    fn begin(&mut self, revision: Revision, subjects: &[Event]) {
        *self = Self { revision, subjects: subjects.to_vec(), ..Self::default() };
    }

    fn restore_batch(&mut self, batch: Batch) {
        self.batches.push(batch);
    }

    fn restore_schedule(&mut self, schedule: Schedule) {
        self.schedules.push(schedule);
    }

    fn restore_bucket(&mut self, limit: LimitId, full_at: u64) {
        self.buckets.insert(limit, full_at);
    }

    fn restore(&mut self, mut task: RecoveredTask, payload: &[u8]) {
        Arc::make_mut(&mut task.spec).payload = payload.into();
        self.tasks.push(task);
    }

    fn replay(&mut self, event: &Event) -> bool {
        self.events.push(event.clone());
        true
    }
}

pub(super) fn open_sqlite(directory: &Path) -> Result<(Store, Recovered), StoreError> {
    open_store(&Options { directory: Some(directory.to_owned()), ..Options::default() })
}

pub(super) fn open_store(options: &Options) -> Result<(Store, Recovered), StoreError> {
    let mut recovered = Recovered::default();
    let (store, notes) = open(options, &mut recovered)?;
    recovered.notes = notes;
    Ok((store, recovered))
}

/// Appends one commit at a time, on this thread.
pub(super) fn check(directory: &Path) -> Result<CheckReport, StoreError> {
    backup::check(directory, &mut |_, _, _| {})
}

pub(super) fn backup(data: &Path, to: &Path) -> Result<CheckReport, StoreError> {
    backup::backup(data, to, &mut |_, _, _| {})
}

pub(super) fn rebuild(directory: &Path) -> Result<Vec<String>, StoreError> {
    open::rebuild(directory, &mut |_, _, _| {})
}

pub(super) fn append(store: &Store, commit: &Arc<Commit>) -> Result<(), AppendError> {
    store.journal.append(commit)
}

/// Appends all commits in the background, and applies them to the projection.
pub(super) fn write(store: &Store, commits: &[Arc<Commit>]) {
    let (sender, results) = channel();
    for commit in commits {
        let sender = sender.clone();
        store.journal.append_in_background(Arc::clone(commit), Box::new(move |result| sender.send(result).unwrap()));
    }
    for commit in commits {
        results.recv().unwrap().unwrap();
        store.projection.apply(Arc::clone(commit));
    }
    store.projection.checkpoint().unwrap();
}

/// The tasks after the events, by the revision of their submission.
pub(super) fn fold_all(events: &[Event]) -> BTreeMap<u64, Task> {
    let mut by_id: BTreeMap<TaskId, (u64, Option<Task>)> = BTreeMap::new();
    let mut rows = BTreeMap::new();
    for event in events.iter().filter_map(Event::task) {
        let entry = by_id.entry(event.task.clone()).or_default();
        if entry.1.is_none() {
            entry.0 = event.revision.0;
        }
        fold(&mut entry.1, event);
        match &entry.1 {
            Some(task) => rows.insert(entry.0, task.clone()),
            None => rows.remove(&entry.0),
        };
    }
    rows
}

/// All events after `from`.
pub(super) fn read_all(store: &Store, from: Revision) -> Result<Vec<Event>, StoreError> {
    let mut events = Vec::new();
    let mut at = from;
    loop {
        let more = store.journal.read(at, 10)?;
        let Some(last) = more.last() else { return Ok(events) };
        at = last.revision();
        events.extend(more);
    }
}

/// A page that is limited by its number of tasks only, with results.
pub(super) fn page_of(rows: usize) -> PageSize {
    PageSize { rows, bytes: usize::MAX, results: true }
}

/// A task as a page contains it.
pub(super) fn listed(task: &Task) -> Task {
    let mut task = task.clone();
    Arc::make_mut(&mut task.spec).payload = Box::default();
    task
}
