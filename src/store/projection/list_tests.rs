//! Tests of the cost of listings.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, OptionalExtension, StatementStatus, params_from_iter};

use super::candidates::{BY_BATCH, BY_ID, BY_LABEL, BY_STATE};
use super::list::{ROW_BEFORE, list};
use super::query::{Bodies, select_rows};
use super::requests::RequestTable;
use super::schema::{Meta, SCHEMA};
use super::submission_times::{NEWEST, SubmissionTimes, TIME_AT};
use super::writer::Writer;
use crate::model::{
    BatchId, CancelMode, CancelReceipt, CancelRequest, Event, HandlerName, Holds, Lease, Namespace, PoolName, Priority,
    RequestRetention, Revision, StopMethod, TaskChange, TaskEvent, TaskFilter, TaskId, TaskOptions, TaskSpec,
    TaskState, Timestamp,
};
use crate::store::page::{Page, PageCursor, PageSize};
use crate::store::record::Subjects;
use crate::store::sqlite::{connect, open_writer};
use crate::store::tests::fixtures::options;
use crate::store::traits::Commit;

/// The oldest tasks, which differ from all others in every respect.
const RARE: u64 = 5;
const PAGE: PageSize = PageSize { rows: 20, bytes: usize::MAX, results: true };

/// Tables with many tasks.
struct Tables {
    path: PathBuf,
    _directory: tempfile::TempDir,
    writer: Writer,
    times: Arc<Mutex<SubmissionTimes>>,
    /// Newest first.
    tasks: Vec<(u64, Arc<TaskOptions>, TaskState, Timestamp)>,
}

fn id(number: u64) -> TaskId {
    TaskId::parse(&format!("task-{number}")).unwrap()
}

fn labels(texts: &[(&str, &str)]) -> Box<[(Box<str>, Box<str>)]> {
    texts.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
}

/// The options of a common task: each bit decides something else.
fn common(bits: u64) -> TaskOptions {
    let choose = |bit: u64, names: [&'static str; 2]| names[usize::from(bits >> bit & 1 == 1)];
    TaskOptions {
        namespace: Namespace::parse(choose(0, ["a", "b"])).unwrap(),
        pool: PoolName::parse(choose(1, ["a", "b"])).unwrap(),
        handler: HandlerName::parse(choose(2, ["a", "b"])).unwrap(),
        priority: [Priority::Normal, Priority::High][usize::from(bits >> 3 & 1 == 1)],
        batch: BatchId::parse("common").ok(),
        labels: labels(&[("k", "common"), ("l", "common"), ("half", choose(0, ["a", "b"]))]),
        ..options(0)
    }
}

fn rare() -> TaskOptions {
    TaskOptions {
        namespace: Namespace::parse("rare").unwrap(),
        pool: PoolName::parse("rare").unwrap(),
        handler: HandlerName::parse("rare").unwrap(),
        priority: Priority::Critical,
        batch: BatchId::parse("rare").ok(),
        labels: labels(&[("k", "rare"), ("l", "rare")]),
        ..options(0)
    }
}

impl Tables {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("projection.db");
        let connection = open_writer(&path, &SCHEMA).unwrap();
        let times = Arc::<Mutex<SubmissionTimes>>::default();
        let requests = RequestTable::load(&connection, &path, RequestRetention::default()).unwrap();
        let (meta, subjects) = (Meta::default(), Subjects::default());
        let writer = Writer::new(connection, &path, meta, subjects, Arc::clone(&times), requests);
        Self { path, _directory: directory, writer, times, tasks: Vec::new() }
    }

    fn write(&mut self, events: Vec<Event>) {
        self.writer.add(&Commit::new(events, true)).unwrap();
        self.writer.store().unwrap();
    }

    fn with(count: u64) -> Self {
        let mut tables = Self::new();
        let (rare, common) = (Arc::new(rare()), (0..16).map(|bits| Arc::new(common(bits))).collect::<Vec<_>>());
        let mut revision = 0;
        for chunk in (0..count).collect::<Vec<_>>().chunks(10_000) {
            let mut events = Vec::new();
            for number in chunk {
                let common = &common[usize::try_from(number % 16).unwrap()];
                let (options, change) = match number {
                    0..RARE => (&rare, Some(cancelled())),
                    number if number / 16 % 2 == 1 => (common, Some(started())),
                    _ => (common, None),
                };
                let at = Timestamp((number + 1) * 1_000_000);
                let spec =
                    TaskSpec { id: id(*number), options: options.clone(), payload: Box::default(), extras: None };
                let submitted = TaskChange::Submitted { spec: Arc::new(spec) };
                for change in std::iter::once(submitted).chain(change) {
                    revision += 1;
                    events.push(event(revision, at, *number, options, change));
                }
                let state = events.last().unwrap().state;
                tables.tasks.push((*number, Arc::clone(options), state, at));
            }
            let events = events.into_iter().map(Event::Task).collect();
            tables.write(events);
        }
        tables.tasks.reverse();
        tables
    }

    fn first_page(&self, filter: &TaskFilter) -> Vec<TaskId> {
        let matching = self.tasks.iter().filter(|(number, options, state, at)| {
            let spec = TaskSpec { id: id(*number), options: options.clone(), payload: Box::default(), extras: None };
            filter.matches(&spec, *state, *at)
        });
        matching.take(PAGE.rows).map(|(number, ..)| id(*number)).collect()
    }
}

fn event(revision: u64, at: Timestamp, number: u64, options: &Arc<TaskOptions>, change: TaskChange) -> TaskEvent {
    let state = match change {
        TaskChange::Submitted { .. } => TaskState::Queued,
        TaskChange::Started { .. } => TaskState::Running,
        _ => TaskState::Cancelled,
    };
    let (revision, task, options) = (Revision(revision), id(number), Arc::clone(options));
    TaskEvent {
        revision,
        at,
        task,
        options,
        previous: TaskState::Queued,
        state,
        attempt: 0,
        holds: Holds::NONE,
        hold: None,
        change,
    }
}

/// Reads pages and counts the instructions of SQLite.
struct Reader<'a> {
    tables: &'a Tables,
    connection: Connection,
    instructions: Arc<AtomicU64>,
}

impl<'a> Reader<'a> {
    fn new(tables: &'a Tables) -> Self {
        let instructions = Arc::<AtomicU64>::default();
        let counter = Arc::clone(&instructions);
        let mut connection = Connection::open(&tables.path).unwrap();
        connection.set_prepared_statement_cache_capacity(64);
        let count = move || {
            counter.fetch_add(1, Ordering::Relaxed);
            false
        };
        connection.progress_handler(1, Some(count)).unwrap();
        Self { tables, connection, instructions }
    }

    fn page(&self, filter: &TaskFilter, after: Option<PageCursor>) -> (Page, u64) {
        self.instructions.store(0, Ordering::Relaxed);
        let page = list(&self.connection, &self.tables.path, &self.tables.times, filter, PAGE, after).unwrap();
        (page, self.instructions.load(Ordering::Relaxed))
    }
}

/// Every combination of these conditions.
fn combinations(full: &TaskFilter) -> impl Iterator<Item = TaskFilter> {
    (0..1 << 11).map(move |chosen: u32| {
        let has = |bit: u32| chosen >> bit & 1 == 1;
        let mut filter = full.clone();
        if !has(0) {
            filter.ids.clear();
        }
        filter.labels.truncate(usize::from(has(1)) + usize::from(has(2)));
        if !has(3) {
            filter.states.clear();
        }
        if !has(4) {
            filter.namespaces.clear();
        }
        if !has(5) {
            filter.priorities.clear();
        }
        filter.batch = filter.batch.filter(|_| has(6));
        filter.pool = filter.pool.filter(|_| has(7));
        filter.handler = filter.handler.filter(|_| has(8));
        filter.submitted_from = filter.submitted_from.filter(|_| has(9));
        filter.submitted_until = filter.submitted_until.filter(|_| has(10));
        filter
    })
}

/// Filters that match few old tasks, and filters that match a part of all tasks.
fn filters(count: u64) -> Vec<TaskFilter> {
    let filter = |options: TaskOptions, ids: Vec<u64>, states: Vec<TaskState>, period: (u64, u64)| TaskFilter {
        ids: ids.into_iter().map(id).collect(),
        batch: options.batch,
        labels: options.labels.iter().take(2).cloned().collect(),
        states,
        pool: Some(options.pool),
        handler: Some(options.handler),
        namespaces: vec![options.namespace],
        priorities: vec![options.priority],
        submitted_from: Some(Timestamp(period.0 * 1_000_000)),
        submitted_until: Some(Timestamp(period.1 * 1_000_000)),
        failure_group: None,
        texts: Vec::new(),
    };
    let few = filter(rare(), vec![0, 3, count - 1], vec![TaskState::Cancelled], (2, 5));
    let states = vec![TaskState::Queued, TaskState::Running];
    let many = filter(common(0), vec![0, 3, count - 1], states, (count / 2, count - 100));
    combinations(&few).chain(combinations(&many)).collect()
}

#[test]
fn the_cost_of_a_page_does_not_depend_on_the_number_of_tasks() {
    let (few, many) = (Tables::with(1_000), Tables::with(100_000));
    let readers = (Reader::new(&few), Reader::new(&many));
    for (for_few, filter) in filters(1_000).into_iter().zip(filters(100_000)) {
        let (page, small) = readers.0.page(&for_few, None);
        let found: Vec<_> = page.tasks.iter().map(|task| task.spec.id.clone()).collect();
        assert_eq!(found, few.first_page(&for_few), "{for_few:?}");
        let (_, large) = readers.1.page(&filter, None);
        // The search for the begin and the end of a period takes seven more steps each.
        assert!(large <= small + 500, "{large} instructions instead of {small}: {filter:?}");
        assert!(large <= 20_000, "{large} instructions: {filter:?}");
    }
}

#[test]
fn a_page_ends_when_conditions_have_few_tasks_in_common() {
    let tables = Tables::with(20_000);
    let reader = Reader::new(&tables);
    let label = |key: &str, value: &str| (key.into(), value.into());
    // Every second task has the label, and the other tasks are in the namespace.
    let filter = TaskFilter {
        labels: vec![label("half", "a"), label("k", "common")],
        namespaces: vec![Namespace::parse("b").unwrap()],
        ..TaskFilter::default()
    };
    let (mut after, mut pages) = (None, 0);
    loop {
        let (page, instructions) = reader.page(&filter, after);
        assert!(page.tasks.is_empty() && instructions < 30_000, "{instructions} instructions");
        pages += 1;
        assert!(page.next.is_none_or(|next| after.is_none_or(|PageCursor(after)| next.0 < after)));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert!(pages > 20, "{pages} pages");
}

#[test]
fn a_page_ends_when_few_tasks_have_a_text() {
    let tables = Tables::with(20_000);
    let reader = Reader::new(&tables);
    let filter = TaskFilter { texts: vec!["rare".into()], ..TaskFilter::default() };
    let (mut after, mut pages, mut found) = (None, 0, 0);
    loop {
        let (page, instructions) = reader.page(&filter, after);
        assert!(instructions < 60_000, "{instructions} instructions");
        (pages, found, after) = (pages + 1, found + page.tasks.len(), page.next);
        if after.is_none() {
            break;
        }
    }
    assert!(found == usize::try_from(RARE).unwrap() && pages > 10, "{found} tasks on {pages} pages");
}

#[test]
fn every_statement_of_a_listing_uses_an_index() {
    let tables = Tables::new();
    let connection = Connection::open(&tables.path).unwrap();
    let mut statements = [BY_ID, BY_BATCH, BY_LABEL, BY_STATE, TIME_AT, NEWEST].map(str::to_owned).to_vec();
    for (payloads, results) in [(false, false), (false, true), (true, false), (true, true)] {
        let conditions = [ROW_BEFORE, "t.id = ?1", "t.seq = ?1"];
        statements.extend(conditions.map(|condition| select_rows(Bodies { payloads, results }, condition)));
    }
    for sql in statements {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().unwrap() {
            let step: String = row.get("detail").unwrap();
            let finds_row = step.contains("SEARCH") && (step.contains("USING") || sql == NEWEST);
            assert!(finds_row, "{step}: {sql}");
        }
    }
}

#[test]
fn a_statement_of_a_listing_is_planned_once_whatever_its_values() {
    let tables = Tables::new();
    let connection = connect(&tables.path, OpenFlags::default()).unwrap();
    for (sql, values) in [(BY_BATCH, 2), (BY_LABEL, 3), (BY_STATE, 3)] {
        let mut statement = connection.prepare(sql).unwrap();
        for value in 0..5 {
            let values = params_from_iter(vec![value; values]);
            statement.query_row(values, |_| Ok(())).optional().unwrap();
        }
        assert_eq!(statement.get_status(StatementStatus::RePrepare), 0, "{sql}");
    }
}

#[test]
fn kinds_without_tasks_are_removed() {
    let mut tables = Tables::new();
    let mut revision = 0;
    for number in 0..200 {
        let namespace = Namespace::parse(&format!("namespace-{number}")).unwrap();
        let options = Arc::new(TaskOptions { namespace, ..options(0) });
        let spec = TaskSpec { id: id(number), options: options.clone(), payload: Box::default(), extras: None };
        let mut write = |change| {
            revision += 1;
            let event = Event::Task(event(revision, Timestamp(revision), number, &options, change));
            tables.write(vec![event]);
        };
        write(TaskChange::Submitted { spec: Arc::new(spec) });
        if number % 50 > 0 {
            write(TaskChange::Eligible);
            write(TaskChange::Deleted);
        }
    }
    let count = |table: &str| -> u32 {
        let sql = format!("SELECT count(*) FROM {table}");
        tables.writer.connection.query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    assert_eq!((count("tasks"), count("task_states")), (4, 4));
    assert!((4..=9).contains(&count("kinds")), "{} kinds", count("kinds"));
}

fn started() -> TaskChange {
    TaskChange::Started { worker: "a/PoolWorker-0".into(), lease: Lease::Local { epoch: 1 }, charges: Box::default() }
}

fn cancelled() -> TaskChange {
    let request = CancelRequest {
        requested_at: Timestamp(1),
        reason: Box::default(),
        requested_by: Box::default(),
        mode: CancelMode::Graceful,
        grace: Duration::ZERO,
    };
    let receipt = CancelReceipt { request, stopped_at: Timestamp(1), method: StopMethod::NeverStarted };
    TaskChange::Cancelled { receipt: Box::new(receipt), usage: None, output: None }
}
