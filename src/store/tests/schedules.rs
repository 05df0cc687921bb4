//! Schedules: recovered from their rows and from events.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use super::fixtures::{id, options};
use super::stores::{append, check, open_sqlite, write};
use crate::model::schedule_rule::parse_zone;
use crate::model::schedule_state::{fold_schedule, fold_task_into_schedule};
use crate::model::{
    CronRule, DstPolicy, Event, Failure, FailureReason, Holds, Namespace, Overlap, RetryPolicy, Revision, RunKind,
    Schedule, ScheduleChange, ScheduleEvent, ScheduleId, ScheduleKey, ScheduleRule, ScheduleSpec, Scheduled,
    TaskChange, TaskEvent, TaskOptions, TaskSpec, TaskState, Timestamp,
};
use crate::store::record::{decode_commit, encode_commit};
use crate::store::traits::Commit;

fn key(name: &str) -> ScheduleKey {
    ScheduleKey { namespace: Namespace::parse("team").unwrap(), id: ScheduleId::parse(name).unwrap() }
}

fn spec(name: &str, rule: ScheduleRule) -> Arc<ScheduleSpec> {
    let options =
        TaskOptions { namespace: key(name).namespace, schedule: Some(key(name).id), batch: None, ..options(0) };
    let task = TaskSpec {
        id: ScheduleSpec::NO_TASK_ID,
        options: Arc::new(options),
        payload: b"payload".as_slice().into(),
        extras: None,
    };
    Arc::new(ScheduleSpec {
        rule,
        start_at: Some(Timestamp(5)),
        end_at: Some(Timestamp(1 << 60)),
        max_runs: Some(9),
        jitter: Duration::from_millis(3),
        catch_up_window: Duration::from_secs(60),
        overlap: Overlap::CancelOld,
        configured: true,
        task: Arc::new(task),
    })
}

/// Events with consecutive revisions.
#[derive(Default)]
struct Events(Vec<Event>);

impl Events {
    fn next(&self) -> (Revision, Timestamp) {
        let number = self.0.len() as u64 + 1;
        (Revision(number), Timestamp(number * 1_000_000))
    }

    fn schedule(&mut self, name: &str, change: ScheduleChange) {
        let (revision, at) = self.next();
        self.0.push(Event::Schedule(ScheduleEvent { revision, at, schedule: key(name), change }));
    }

    fn task(&mut self, number: u8, name: &str, kind: RunKind) -> Arc<TaskSpec> {
        let (revision, at) = self.next();
        let template = spec(name, ScheduleRule::Interval { every: Duration::from_secs(1), anchor: at }).task.clone();
        let mut extras = template.extras().clone();
        extras.scheduled = Some(Scheduled { time: at, kind });
        let spec = Arc::new(TaskSpec { id: id(number), extras: extras.boxed(), ..(*template).clone() });
        self.0.push(Event::Task(TaskEvent {
            revision,
            at,
            task: spec.id.clone(),
            options: spec.options.clone(),
            previous: TaskState::Queued,
            state: TaskState::Queued,
            attempt: 0,
            holds: Holds::NONE,
            hold: None,
            change: TaskChange::Submitted { spec: spec.clone() },
        }));
        spec
    }

    fn fail(&mut self, spec: &Arc<TaskSpec>) {
        let (revision, at) = self.next();
        let failure = Box::new(Failure::new(FailureReason::Expired, "late"));
        self.0.push(Event::Task(TaskEvent {
            revision,
            at,
            task: spec.id.clone(),
            options: spec.options.clone(),
            previous: TaskState::Queued,
            state: TaskState::Failed,
            attempt: 0,
            holds: Holds::NONE,
            hold: None,
            change: TaskChange::Failed { failure, usage: None, output: None },
        }));
    }

    fn commits(&self) -> Vec<Arc<Commit>> {
        self.0.chunks(2).map(|events| Arc::new(Commit::new(events.to_vec(), false))).collect()
    }
}

fn history() -> Events {
    let mut events = Events::default();
    let interval = |seconds| ScheduleRule::Interval { every: Duration::from_secs(seconds), anchor: Timestamp(7) };
    let zone = parse_zone("Europe/Berlin").unwrap();
    let cron = ScheduleRule::Cron(CronRule::new("0 30 2 L * *", zone, DstPolicy::WallClock).unwrap());
    events.schedule("every", ScheduleChange::Created { spec: spec("every", interval(1)) });
    events.schedule("cron", ScheduleChange::Created { spec: spec("cron", cron) });
    events.schedule("gone", ScheduleChange::Created { spec: spec("gone", interval(2)) });
    let first = events.task(1, "every", RunKind::OnTime);
    events.schedule("every", ScheduleChange::Held { time: Timestamp(9_000_000) });
    events.schedule("cron", ScheduleChange::Paused);
    events.fail(&first);
    events.task(2, "every", RunKind::Waited);
    events.schedule("every", ScheduleChange::Skipped { time: Timestamp(11_000_000) });
    let missed = ScheduleChange::Missed { until: Timestamp(20_000_000), count: 3, cause: "the pool is full".into() };
    events.schedule("every", missed);
    events.task(3, "cron", RunKind::Triggered);
    events.schedule("cron", ScheduleChange::Resumed);
    events.schedule("gone", ScheduleChange::Deleted);
    events.schedule("every", ScheduleChange::Updated { spec: spec("every", interval(3)) });
    events.schedule("gone", ScheduleChange::Created { spec: spec("gone", interval(4)) });
    events
}

/// The schedules after the events, in the order of creation.
fn fold_all(events: &[Event]) -> Vec<Schedule> {
    let mut schedules = std::collections::BTreeMap::<ScheduleKey, Option<Schedule>>::new();
    for event in events {
        match event {
            Event::Schedule(event) => fold_schedule(schedules.entry(event.schedule.clone()).or_default(), event),
            Event::Task(event) => {
                let name = key(event.options.schedule.as_ref().unwrap().as_str());
                if let Some(Some(schedule)) = schedules.get_mut(&name) {
                    fold_task_into_schedule(schedule, event);
                }
            }
            _ => {}
        }
    }
    let mut schedules: Vec<_> = schedules.into_values().flatten().collect();
    schedules.sort_by_key(|schedule| schedule.created);
    schedules
}

#[test]
fn schedules_are_recovered_from_their_rows_after_the_journal_is_trimmed() {
    let events = history();
    let commits = events.commits();
    for projected in 0..=commits.len() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = open_sqlite(directory.path()).unwrap();
        for commit in &commits {
            append(&store, commit).unwrap();
        }
        for commit in &commits[..projected] {
            store.projection.apply(commit.clone());
        }
        let reached = store.projection.checkpoint().unwrap();
        store.journal.trim(reached).unwrap();
        drop(store);
        check(directory.path()).unwrap();
        let (_, recovery) = open_sqlite(directory.path()).unwrap();
        let reached = usize::try_from(recovery.revision.0).unwrap();
        let (before, after) = events.0.split_at(reached);
        assert_eq!(recovery.schedules, fold_all(before), "{projected} commits");
        assert_eq!(recovery.events, after);
    }
    let [every, cron, gone] = <[Schedule; 3]>::try_from(fold_all(&events.0)).unwrap();
    assert_eq!((every.runs, every.skipped, every.missed, every.errors, every.unfinished.len()), (2, 1, 3, 1, 1));
    assert_eq!((cron.triggered, cron.paused, gone.created), (1, false, Revision(15)));
}

#[test]
fn events_of_schedules_are_encoded_without_loss() {
    let events = history().0;
    let mut bytes = Vec::new();
    encode_commit(&events, &mut bytes);
    assert_eq!(decode_commit(Revision(1), &bytes).unwrap(), events);
}

/// The length of a commit with an event of each of two tasks, of which the journal gives back what was written.
fn encoded_bytes(one: &TaskOptions, other: &TaskOptions) -> usize {
    let event = |(number, options): (u8, &TaskOptions)| {
        Event::Task(TaskEvent {
            revision: Revision(number.into()),
            at: Timestamp(5),
            task: id(number),
            options: Arc::new(options.clone()),
            previous: TaskState::Waiting,
            state: TaskState::Queued,
            attempt: 0,
            holds: Holds::NONE,
            hold: None,
            change: TaskChange::Eligible,
        })
    };
    let events: Vec<_> = [(1, one), (2, other)].map(event).into();
    let mut bytes = Vec::new();
    encode_commit(&events, &mut bytes);
    assert_eq!(decode_commit(Revision(1), &bytes).unwrap(), events);
    bytes.len()
}

#[test]
fn options_that_resemble_others_of_a_commit_have_only_what_differs() {
    let base = options(1);
    let apart = encoded_bytes(&base, &TaskOptions { submitted_by: "other".into(), ..base.clone() });
    let fairness_key = options(0).fairness_key;
    assert!(base.schedule.is_none() && base.batch.is_some() && base.fairness_key.is_none() && fairness_key.is_some());
    for alike in [
        TaskOptions { schedule: Some(key("nightly").id), ..base.clone() },
        TaskOptions { batch: None, ..base.clone() },
        TaskOptions { limits: Box::default(), ..base.clone() },
        TaskOptions { labels: Box::default(), ..base.clone() },
        TaskOptions { display_name: "".into(), ..base.clone() },
        TaskOptions { fairness_key, ..base.clone() },
    ] {
        let bytes = encoded_bytes(&base, &alike);
        assert!(bytes + 40 < apart, "{bytes} bytes instead of {apart}: {alike:?}");
    }
    let retry = RetryPolicy { attempts_max: 9, ..base.retry.clone() };
    for different in [
        TaskOptions { namespace: options(0).namespace, ..base.clone() },
        TaskOptions { handler: options(2).handler, ..base.clone() },
        TaskOptions { pool: options(2).pool, ..base.clone() },
        TaskOptions { priority: options(2).priority, ..base.clone() },
        TaskOptions { timeout: Duration::from_secs(9), ..base.clone() },
        TaskOptions { retry, ..base.clone() },
        TaskOptions { at_most_once: true, ..base.clone() },
        TaskOptions { durability: options(2).durability, ..base.clone() },
        TaskOptions { content_type: "text/plain".into(), ..base.clone() },
    ] {
        encoded_bytes(&base, &different);
    }
}

fn execute(directory: &Path, sql: &str) {
    Connection::open(directory.join("projection.db")).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn a_changed_row_of_a_schedule_is_reported_as_corrupt() {
    for sql in ["UPDATE schedules SET body = x'00' WHERE seq = 1", "UPDATE schedules SET id = 'other' WHERE seq = 1"] {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = open_sqlite(directory.path()).unwrap();
        write(&store, &history().commits());
        drop(store);
        execute(directory.path(), sql);
        let error = check(directory.path()).unwrap_err().to_string();
        assert!(error.contains("table schedules, row 1"), "{sql}: {error}");
    }
}

#[test]
fn a_store_of_the_version_before_schedules_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open_sqlite(directory.path()).unwrap();
    drop(store);
    execute(directory.path(), "DROP TABLE schedules; DROP TABLE limit_tokens; PRAGMA user_version = 5");
    check(directory.path()).unwrap();
    let (store, recovery) = open_sqlite(directory.path()).unwrap();
    assert!(recovery.notes.is_empty(), "{:?}", recovery.notes);
    write(&store, &history().commits());
    drop(store);
    check(directory.path()).unwrap();
    assert_eq!(open_sqlite(directory.path()).unwrap().1.schedules, fold_all(&history().0));
}
