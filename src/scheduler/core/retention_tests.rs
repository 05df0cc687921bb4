//! Tests of retention and of the deletion of finished tasks.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use crate::model::{
    Captured, Event, Namespace, Output, Payload, Priority, RecoveredTask, RetryPolicy, Task, TaskChange, TaskFilter,
    TaskId, TaskOptions, TaskSpec, Timestamp,
};
use crate::pool::{Assignment, Ticket};
use crate::runners::Outcome;
use crate::store::fold;

use super::tests::{SECOND, attempt_end, failed, options, spec};
use super::{AttemptEnd, Core, CoreOptions, Decisions};

const SPARE: usize = 256;

fn of_namespace(id: &str, namespace: &str) -> TaskSpec {
    let spec = spec(id, Priority::Normal);
    let options = TaskOptions { namespace: Namespace::parse(namespace).unwrap(), ..(*spec.options).clone() };
    TaskSpec { options: Arc::new(options), ..spec }
}

fn id(text: &str) -> TaskId {
    TaskId::parse(text).unwrap()
}

/// A core, and the tasks as the projection stores them.
struct World {
    core: Core,
    out: Decisions,
    now: u64,
    journal: Vec<Event>,
    assigned: Vec<Assignment>,
    running: BTreeMap<TaskId, Ticket>,
}

impl World {
    fn new(options: CoreOptions) -> Self {
        Self {
            core: Core::new(options),
            out: Decisions::default(),
            now: SECOND,
            journal: Vec::new(),
            assigned: Vec::new(),
            running: BTreeMap::new(),
        }
    }

    fn keeping(count: usize) -> Self {
        let mut options = CoreOptions { payload_bytes_max: u64::MAX, ..options() };
        options.retention.count = count;
        options.pools[0].queue_limit = usize::MAX;
        Self::new(options)
    }

    fn at(&self) -> Timestamp {
        Timestamp(self.now)
    }

    fn submit(&mut self, spec: TaskSpec) {
        self.core.submit(Timestamp(self.now), vec![spec], &mut self.out).unwrap();
    }

    /// Starts all tasks that can start.
    fn start(&mut self) {
        loop {
            self.core.dispatch(&mut self.out);
            self.assigned.extend(self.out.dispatches.drain(..).flat_map(|dispatch| dispatch.assignments));
            if self.assigned.is_empty() {
                return;
            }
            for assignment in std::mem::take(&mut self.assigned) {
                self.core.started(assignment.ticket, Timestamp(self.now), "w".into(), &mut self.out);
                self.running.insert(assignment.spec.id.clone(), assignment.ticket);
            }
        }
    }

    fn end(&mut self, id: &TaskId) {
        self.end_with(id, 0);
    }

    /// Ends an attempt with a result of this size.
    fn end_with(&mut self, id: &TaskId, bytes: usize) {
        let ticket = self.running.remove(id).unwrap();
        let result = Payload { data: vec![1; bytes].into(), ..Payload::default() };
        self.core.ended(attempt_end(ticket, self.now, Outcome::Completed(result), None), &mut self.out);
    }

    fn finish(&mut self, spec: TaskSpec) {
        self.finish_with(spec, 0);
    }

    fn finish_with(&mut self, spec: TaskSpec, bytes: usize) {
        let id = spec.id.clone();
        self.submit(spec);
        self.start();
        self.end_with(&id, bytes);
        self.now += 1;
    }

    fn delete(&mut self, filter: &TaskFilter) -> u64 {
        self.core.delete_matching(self.at(), filter, &mut self.out)
    }

    fn delete_ids(&mut self, ids: impl IntoIterator<Item = String>) -> u64 {
        let ids = ids.into_iter().map(|text| id(&text)).collect();
        self.delete(&TaskFilter { ids, ..TaskFilter::default() })
    }

    /// Sweeps until nothing is due, and returns the deleted tasks in order.
    fn sweep(&mut self) -> Vec<String> {
        self.record();
        let before = self.journal.len();
        while self.core.sweep(self.at(), SPARE, &mut self.out) {}
        self.record();
        let events = self.journal[before..].iter().filter_map(Event::task);
        events.inspect(|event| assert_eq!(event.change, TaskChange::Deleted)).map(|e| e.task.to_string()).collect()
    }

    fn record(&mut self) {
        self.journal.append(&mut self.out.events);
    }

    /// The state after a restart: the projection contains the first `projected` events, the journal the others.
    fn restarted(&mut self, projected: usize) -> Self {
        self.record();
        let mut fresh = Self::new(self.core.options.clone());
        let mut tasks: BTreeMap<TaskId, (usize, Option<Task>)> = BTreeMap::new();
        for (order, event) in self.journal[..projected].iter().enumerate() {
            let Event::Task(event) = event else { continue };
            let (_, task) = tasks.entry(event.task.clone()).or_insert((order, None));
            if task.is_none() {
                tasks.insert(event.task.clone(), (order, None));
            }
            fold(&mut tasks.get_mut(&event.task).unwrap().1, event);
        }
        let mut rows: Vec<_> = tasks.into_values().filter_map(|(order, task)| Some((order, task?))).collect();
        rows.sort_by_key(|(order, _)| *order);
        let revision = projected.checked_sub(1).map(|last| self.journal[last].revision()).unwrap_or_default();
        fresh.core.restore_revision(revision);
        for (_, task) in rows {
            let payload = task.spec.payload.clone();
            let spec = Arc::new(task.spec.without_payload());
            fresh.core.restore(RecoveredTask::from(Task { spec, ..task }), &payload);
        }
        for event in &self.journal[projected..] {
            fresh.core.replay(event);
        }
        fresh.now = self.now + 1;
        fresh.core.recover(fresh.at(), &mut fresh.out);
        fresh.journal.clone_from(&self.journal);
        fresh.record();
        fresh
    }
}

#[test]
fn a_task_that_ended_by_an_earlier_clock_is_due_when_the_one_before_it_is_gone() {
    let mut world = World::keeping(10);
    world.now = 2_000 * SECOND;
    world.finish(spec("a", Priority::Normal));
    world.now = 1_000 * SECOND;
    world.finish(spec("b", Priority::Normal));
    // The retention is an hour.
    world.now = 4_600 * SECOND;
    assert!(world.sweep().is_empty(), "the oldest goes first");
    assert_eq!(world.delete_ids(["a".to_owned()]), 1);
    assert_eq!(world.sweep(), ["b"]);
}

#[test]
fn tasks_that_a_request_deleted_do_not_count_toward_the_retention_count() {
    let mut world = World::keeping(10);
    for n in 0..10 {
        world.finish(spec(&format!("t{n}"), Priority::Normal));
    }
    assert_eq!(world.delete_ids((5..10).map(|n| format!("t{n}"))), 5);
    for n in 10..15 {
        world.finish(spec(&format!("t{n}"), Priority::Normal));
    }
    assert!(world.sweep().is_empty(), "ten tasks are kept");
    world.finish(spec("t15", Priority::Normal));
    assert_eq!(world.sweep(), ["t0"]);
    world.core.check();
}

#[test]
fn the_oldest_end_is_deleted_first_also_after_a_restart() {
    let mut world = World::keeping(1);
    for name in ["a", "b", "c"] {
        world.submit(spec(name, Priority::Normal));
    }
    world.start();
    for name in ["c", "a", "b"] {
        world.end(&id(name));
        world.now += 1;
    }
    world.record();
    for projected in 0..=world.journal.len() {
        assert_eq!(world.restarted(projected).sweep(), ["c", "a"], "{projected} events in the projection");
    }
    assert_eq!(world.sweep(), ["c", "a"]);
}

/// Bytes of a task of these tests without a result: its payload and names.
fn spec_bytes() -> u64 {
    let spec = spec("t", Priority::Normal);
    (spec.payload.len() + spec.attached_bytes()) as u64
}

#[test]
fn the_oldest_tasks_of_a_namespace_are_deleted_when_it_has_too_many_bytes() {
    let mut world = World::keeping(100);
    world.core.options.retention.bytes = 3_000 + 3 * spec_bytes();
    world.finish_with(of_namespace("other", "other"), 2_900);
    for n in 0..3 {
        world.finish_with(spec(&format!("result{n}"), Priority::Normal), 1_000);
    }
    assert!(world.sweep().is_empty(), "exactly as many as allowed");
    world.finish_with(TaskSpec { payload: vec![1; 1_100].into(), ..spec("payload", Priority::Normal) }, 0);
    assert_eq!(world.sweep(), ["result0", "result1"]);
    assert_eq!(world.restarted(world.journal.len()).sweep(), [""; 0]);
    world.delete_ids(["result2".to_owned()]);
    world.finish_with(spec("more", Priority::Normal), 1_800);
    assert!(world.sweep().is_empty(), "what a request deleted does not count");
    world.core.check();
}

#[test]
fn a_task_with_more_bytes_than_its_namespace_may_have_is_kept_until_the_next_ends() {
    let mut world = World::keeping(100);
    world.core.options.retention.bytes = 1_000;
    world.finish(spec("small", Priority::Normal));
    world.finish_with(spec("huge", Priority::Normal), 5_000);
    assert_eq!(world.sweep(), ["small"]);
    assert!(world.restarted(0).sweep().is_empty());
    world.finish(spec("next", Priority::Normal));
    assert_eq!(world.sweep(), ["huge"]);
}

#[test]
fn output_and_failures_of_all_attempts_count() {
    let mut world = World::keeping(100);
    world.core.options.retention.bytes = 10_000;
    let retry = RetryPolicy { attempts_max: 3, delay: std::time::Duration::ZERO, ..RetryPolicy::default() };
    let retried = spec("retried", Priority::Normal);
    let options = Arc::new(TaskOptions { retry, ..(*retried.options).clone() });
    world.submit(TaskSpec { options, ..retried });
    for _ in 0..3 {
        world.start();
        let ticket = world.running.remove(&id("retried")).unwrap();
        let stdout = Captured { head: vec![1; 2_000].into(), tail: vec![2; 1_000].into(), total: 1 << 30 };
        let output = Some(Box::new(Output { stdout, ..Output::default() }));
        let end = AttemptEnd { output, ..attempt_end(ticket, world.now, failed(), None) };
        world.core.ended(end, &mut world.out);
        world.now += 1;
    }
    let kept = world.core.retained_bytes();
    assert_eq!(kept, spec_bytes() + 3 * (3_000 + "failed".len() as u64));
    world.record();
    for projected in 0..=world.journal.len() {
        assert_eq!(world.restarted(projected).core.retained_bytes(), kept, "{projected} events in the projection");
    }
}

#[test]
fn the_age_is_counted_from_the_end_of_the_task() {
    let mut world = World::keeping(10);
    world.submit(spec("long", Priority::Normal));
    world.start();
    world.finish(spec("short", Priority::Normal));
    world.now += 3_000 * SECOND;
    world.end(&id("long"));
    world.now += 600 * SECOND;
    assert_eq!(world.sweep(), ["short"]);
    world.now += 3_000 * SECOND;
    assert_eq!(world.sweep(), ["long"]);
}

#[test]
fn each_namespace_has_its_own_count_and_gets_its_share_of_a_sweep() {
    let mut world = World::keeping(2);
    for n in 0..600 {
        world.finish(of_namespace(&format!("loud{n}"), "loud"));
    }
    for n in 0..4 {
        world.finish(of_namespace(&format!("quiet{n}"), "quiet"));
    }
    world.record();
    world.core.sweep(world.at(), 0, &mut world.out);
    let swept: Vec<_> = world.out.events.iter().filter_map(Event::task).map(|event| event.task.to_string()).collect();
    assert!(swept.contains(&"quiet0".to_owned()), "the backlog of a namespace does not delay the others");
    world.sweep();
    assert_eq!(world.delete(&TaskFilter::default()), 4, "two of each are kept");
}

#[test]
fn a_sweep_keeps_pace_with_any_number_of_ends_between_two_sweeps() {
    let mut world = World::keeping(10);
    for n in 0..2_000 {
        world.finish(spec(&format!("t{n}"), Priority::Normal));
    }
    world.record();
    world.core.sweep(world.at(), SPARE, &mut world.out);
    assert_eq!(world.out.events.len(), 1_990);
}

#[test]
fn without_a_backlog_a_sweep_deletes_no_more_than_its_bound() {
    let mut world = World::keeping(usize::MAX);
    for n in 0..1_000 {
        world.finish(spec(&format!("t{n}"), Priority::Normal));
    }
    world.core.sweep(world.at(), SPARE, &mut world.out);
    world.record();
    world.now += 7_200 * SECOND;
    assert!(world.core.sweep(world.at(), SPARE, &mut world.out), "more are due");
    assert_eq!(world.out.events.len(), SPARE);
}

#[derive(Clone, Debug)]
enum Step {
    Submit { namespace: u8 },
    End { pick: usize, bytes: usize },
    Delete { pick: usize },
    Wait { seconds: u64 },
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_u8).prop_map(|namespace| Step::Submit { namespace }),
        5 => (any::<usize>(), 0..600_usize).prop_map(|(pick, bytes)| Step::End { pick, bytes }),
        2 => any::<usize>().prop_map(|pick| Step::Delete { pick }),
        1 => (0..1_200_u64).prop_map(|seconds| Step::Wait { seconds }),
        1 => Just(Step::Sweep),
    ]
}

impl World {
    fn execute(&mut self, step: &Step, submitted: usize) {
        match step {
            Step::Submit { namespace } => {
                self.submit(of_namespace(&format!("n{namespace}/t{submitted}"), &format!("n{namespace}")));
                self.start();
            }
            Step::End { pick, bytes } => {
                let picked = self.running.keys().nth(pick % self.running.len().max(1)).cloned();
                if let Some(id) = picked {
                    self.end_with(&id, *bytes);
                }
            }
            Step::Delete { pick } => {
                self.delete_ids([format!("n{}/t{}", pick % 3, pick % submitted.max(1))]);
            }
            Step::Wait { seconds } => self.now += seconds * SECOND,
            Step::Sweep => drop(self.sweep()),
        }
    }
}

proptest! {
    /// The naive rule: per namespace the newest ends within the age, no more than the count and the bytes.
    #[test]
    fn retention_is_the_rule_for_any_history_with_deletes_and_restarts(
        steps in proptest::collection::vec(step(), 1..80),
        projected in any::<usize>(),
    ) {
        let mut world = World::keeping(3);
        world.core.options.retention.bytes = 1_000;
        for (n, step) in steps.iter().enumerate() {
            world.execute(step, n);
        }
        world.record();
        // Per namespace the finished tasks that exist, in the order of their ends.
        let mut finished: BTreeMap<Namespace, Vec<(TaskId, u64, u64)>> = BTreeMap::new();
        for event in world.journal.iter().filter_map(Event::task) {
            let of_namespace = finished.entry(event.options.namespace.clone()).or_default();
            of_namespace.retain(|(id, ..)| *id != event.task);
            if event.state.is_terminal() && event.change != TaskChange::Deleted {
                of_namespace.push((event.task.clone(), event.at.0, spec_bytes() + event.weight() as u64));
            }
        }
        let age = world.core.options.retention.age.as_micros();
        // A restart takes place one microsecond later.
        world.now += 1;
        let mut expected = Vec::new();
        for ends in finished.values() {
            let mut newer = 0;
            let fits = ends.iter().rev().take_while(|(.., bytes)| {
                newer += bytes;
                newer <= 1_000
            });
            let over = ends.len().saturating_sub(fits.count().clamp(1, 3));
            let due = ends.iter().enumerate().filter(|(n, (_, at, _))| *n < over || u128::from(world.now - at) >= age);
            expected.extend(due.map(|(_, (id, ..))| id.to_string()));
        }
        expected.sort();
        world.now -= 1;
        let mut restarted = world.restarted(projected % (world.journal.len() + 1));
        world.now += 1;
        // There is no order between namespaces.
        let by_namespace = |mut swept: Vec<String>| {
            swept.sort_by(|a, b| a[..2].cmp(&b[..2]));
            swept
        };
        let mut swept = by_namespace(restarted.sweep());
        prop_assert_eq!(&by_namespace(world.sweep()), &swept, "a restart changes nothing");
        swept.sort();
        prop_assert_eq!(swept, expected);
        world.core.check();
        restarted.core.check();
    }
}

/// Table entries read by each command, with `tasks` others in the table and in as many namespaces.
fn reads_per_command(tasks: usize) -> Vec<(&'static str, u64)> {
    let mut world = World::keeping(tasks);
    world.core.options.retention.count = usize::MAX;
    for n in 0..tasks {
        world.submit(of_namespace(&format!("done{n}"), &format!("n{}", n % (tasks / 2))));
        if n % 1_000 == 999 {
            world.start();
            while let Some(id) = world.running.keys().next().cloned() {
                world.end(&id);
            }
            world.out.events.clear();
        }
    }
    world.core.sweep(world.at(), 0, &mut world.out);
    let queued = (0..tasks).map(|n| spec(&format!("queued{n}"), Priority::Low)).collect::<Vec<_>>();
    world.core.submit(world.at(), queued, &mut world.out).unwrap();
    world.core.dispatch(&mut world.out);
    world.out = Decisions::default();
    let mut reads = Vec::new();
    let mut measure = |name, world: &mut World, command: &mut dyn FnMut(&mut World)| {
        let before = world.core.tasks.reads();
        command(world);
        reads.push((name, world.core.tasks.reads() - before));
    };
    measure("submit", &mut world, &mut |world| world.submit(spec("new", Priority::High)));
    measure("dispatch", &mut world, &mut |world| world.core.dispatch(&mut world.out));
    measure("start and end", &mut world, &mut |world| {
        let assignment = world.out.dispatches.pop().unwrap().assignments.pop().unwrap();
        world.core.started(assignment.ticket, world.at(), "w".into(), &mut world.out);
        let end = attempt_end(assignment.ticket, world.now, Outcome::Completed(Payload::default()), None);
        world.core.ended(end, &mut world.out);
    });
    measure("sweep", &mut world, &mut |world| assert!(!world.core.sweep(world.at(), SPARE, &mut world.out)));
    measure("delete by id", &mut world, &mut |world| {
        assert_eq!(world.delete_ids(["done1".to_owned(), "queued1".to_owned(), "missing".to_owned()]), 1);
    });
    measure("delete in one namespace", &mut world, &mut |world| {
        let namespaces = vec![Namespace::parse("n7").unwrap()];
        assert_eq!(world.delete(&TaskFilter { namespaces, ..TaskFilter::default() }), 2);
    });
    measure("metrics", &mut world, &mut |world| drop(world.core.loads(world.at())));
    reads
}

#[test]
fn the_cost_of_a_command_does_not_depend_on_the_number_of_tasks() {
    let (few, many) = (reads_per_command(1_000), reads_per_command(100_000));
    for ((command, few), (_, many)) in few.into_iter().zip(many) {
        // Two entries can have the same hash.
        assert!(many <= few + 4, "{command} reads {few} entries among 1,000 tasks and {many} among 100,000");
    }
}

#[test]
fn metrics_do_not_read_cancelled_tasks_at_the_front_of_a_queue_again() {
    let mut world = World::keeping(usize::MAX);
    let many: Vec<_> = (0..3_000).map(|n| spec(&format!("t{n}"), Priority::Normal)).collect();
    world.core.submit(world.at(), many, &mut world.out).unwrap();
    world.core.dispatch(&mut world.out);
    for n in 1_000..1_900 {
        world.core.cancel(&id(&format!("t{n}")), super::tests::request(world.now), &mut world.out).unwrap();
    }
    for n in 514..1_000 {
        world.core.cancel(&id(&format!("t{n}")), super::tests::request(world.now), &mut world.out).unwrap();
    }
    let before = world.core.tasks.reads();
    world.core.loads(world.at());
    let reads = world.core.tasks.reads() - before;
    assert!(reads < 10, "{reads} entries were read");
}
