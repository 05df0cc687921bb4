//! Restarts from a real store, in both ways: from the rows of its projection and the later events, and from the journal
//! alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::{
    Batch, Event, LimitId, Namespace, PoolName, RecoveredTask, Revision, Schedule, Task, TaskFilter, TaskId, TaskState,
    Timestamp,
};
use crate::store::{self, Commit, Options, PageSize, Recover, Store};

use super::super::{Core, Decisions};
use super::answers::Answers;
use super::cores::{POOLS, begin_core, new_core, read_journal};
use super::remote::adoptions;

/// Receives the content of a store as the service does.
struct Received(Core);

impl Recover for Received {
    fn begin(&mut self, revision: Revision, subjects: &[Event]) {
        self.0 = begin_core(revision, subjects);
    }

    fn restore_batch(&mut self, batch: Batch) {
        self.0.restore_batch(batch);
    }

    fn restore_schedule(&mut self, schedule: Schedule) {
        self.0.restore_schedule(schedule);
    }

    fn restore_bucket(&mut self, limit: LimitId, full_at: u64) {
        self.0.restore_bucket(&limit, full_at);
    }

    fn restore(&mut self, task: RecoveredTask, payload: &[u8]) {
        self.0.restore(task, payload);
    }

    fn replay(&mut self, event: &Event) -> bool {
        self.0.replay(event)
    }
}

/// Opens the store, and starts a server with its content.
fn open(directory: Option<&Path>, now: Timestamp) -> (Store, Core, Decisions) {
    let options = Options { directory: directory.map(PathBuf::from), ..Options::default() };
    let mut received = Received(new_core());
    let (store, _) = store::open(&options, &mut received).expect("a sound store");
    let (core, out) = recovered(received.0, now);
    (store, core, out)
}

fn recovered(mut core: Core, now: Timestamp) -> (Core, Decisions) {
    let running = core.tasks.iter().filter(|(_, task)| task.state == TaskState::Running).count();
    assert!(core.remote_workers.len() <= running, "only of running attempts");
    let mut out = Decisions::default();
    core.begin_epoch(7);
    core.recover(now, &mut out);
    core.check();
    (core, out)
}

/// Writes the events, of which the rows contain the first `projected`, and closes the store.
fn write(directory: &Path, journal: &[Event], projected: usize) {
    let (store, ..) = open(Some(directory), Timestamp::ZERO);
    for (number, events) in journal.chunks(5).enumerate() {
        let commit = Arc::new(Commit::new(events.to_vec(), false));
        store.journal.append(&commit).expect("a writable store");
        if number * 5 < projected {
            store.projection.apply(commit);
        }
    }
    store.projection.checkpoint().expect("a writable projection");
}

/// What the calls for tasks answer.
fn listed(store: &Store) -> Vec<Vec<Task>> {
    let list = |filter: &TaskFilter| {
        let size = PageSize { rows: 1_000, bytes: usize::MAX, results: true };
        let (mut tasks, mut next) = (Vec::new(), None);
        loop {
            let page = store.projection.list(filter, size, next).expect("a readable projection");
            tasks.extend(page.tasks);
            next = page.next;
            if next.is_none() {
                return tasks;
            }
        }
    };
    let mut filters = vec![TaskFilter::default()];
    let one = TaskFilter::default;
    filters.extend(TaskState::ALL.map(|state| TaskFilter { states: vec![state], ..one() }));
    filters.extend(POOLS.map(|pool| TaskFilter { pool: Some(PoolName::parse(pool).unwrap()), ..one() }));
    filters
        .extend(["a", "b", "c"].map(|name| TaskFilter { namespaces: vec![Namespace::parse(name).unwrap()], ..one() }));
    let mut answers: Vec<_> = filters.iter().map(list).collect();
    let id = |number: u8| TaskId::parse(&format!("t{number}")).unwrap();
    let get = |number| store.projection.get(&id(number), true).expect("a readable projection");
    answers.push((0..14).filter_map(get).collect());
    answers
}

/// Compares the servers that start from a store with one that has read the events from memory.
pub fn restarts_change_no_answer(journal: &[Event], projected: usize, now: Timestamp) {
    let (memory, ..) = open(None, now);
    if !journal.is_empty() {
        memory.projection.apply(Arc::new(Commit::new(journal.to_vec(), false)));
    }
    let (core, out) = recovered(read_journal(journal), now);
    let (expected, tasks) = (Answers::of(&core), listed(&memory));
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), journal, projected);
    for from in ["rows and events", "events"] {
        if from == "events" {
            std::fs::remove_file(directory.path().join("projection.db")).expect("a projection");
        }
        let (store, core, decided) = open(Some(directory.path()), now);
        Answers::of(&core).assert_same(&expected, from);
        assert_eq!(decided.events, out.events, "decisions from {from}");
        assert_eq!(adoptions(&decided), adoptions(&out), "attempts that go on, from {from}");
        store.projection.checkpoint().expect("a writable projection");
        assert_eq!(listed(&store), tasks, "tasks from {from}");
    }
}
