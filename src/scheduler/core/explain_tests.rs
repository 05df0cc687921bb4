//! What keeps a task from starting.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    BlockerKind, Dependencies, Event, HandlerName, Hold, LimitCause, LimitHold, LimitRule, LimitSource, Namespace,
    OnParentFailure, Parent, Payload, PoolKind, PoolName, PoolSpec, Priority, TaskExtras, TaskId, TaskLimit,
    TaskOptions, TaskSpec, TaskState, Timestamp,
};
use crate::runners::Outcome;

use super::tests::{Fixture, SECOND, attempt_end, failed, options, spec};
use super::{Blocker, Core, Estimate, Explanation, PoolUpdate, Position, UnfinishedParents};

fn id(text: &str) -> TaskId {
    TaskId::parse(text).unwrap()
}

fn task(name: &str) -> TaskSpec {
    spec(name, Priority::Normal)
}

fn with_options(name: &str, change: impl FnOnce(&mut TaskOptions)) -> TaskSpec {
    let basis = task(name);
    let mut options = (*basis.options).clone();
    change(&mut options);
    TaskSpec { options: Arc::new(options), ..basis }
}

fn explain(fixture: &Fixture, at: u64, name: &str) -> Explanation {
    fixture.core.explain(Timestamp(at), &id(name)).unwrap()
}

/// The kinds of blockers of the tasks of the only pool, and the numbers of these tasks.
fn blocked(fixture: &Fixture) -> Vec<(&'static str, u64)> {
    let blocked = fixture.core.blocked();
    let counts = BlockerKind::ALL.into_iter().map(BlockerKind::name).zip(blocked[0].counts);
    counts.filter(|(_, count)| *count > 0).collect()
}

fn pause(fixture: &mut Fixture, paused: bool) {
    let name = PoolName::parse("default").unwrap();
    let update = PoolUpdate { name, size: None, paused: Some(paused), queue_limit: None, etag: None };
    fixture.core.update_pool(Timestamp(0), &update, &mut fixture.out).unwrap();
}

/// Runs tasks of two seconds.
fn run(fixture: &mut Fixture, count: u64) {
    for number in 0..count {
        fixture.submit(number, vec![task(&format!("ran{number}"))]).unwrap();
        let ticket = fixture.start(number);
        let mut end = attempt_end(ticket, number, Outcome::Completed(Payload::default()), None);
        end.usage.run_time = Duration::from_secs(2);
        fixture.core.ended(end, &mut fixture.out);
    }
}

#[test]
fn every_hold_is_named_together_with_what_keeps_the_pool_from_starting() {
    let mut fixture = Fixture::new();
    pause(&mut fixture, true);
    fixture.submit(0, vec![task("parent")]).unwrap();
    let parents = [Parent { id: id("parent"), place: None }].into();
    let dependencies = Dependencies { parents, on_parent_failure: OnParentFailure::Fail };
    let extras = TaskExtras {
        delay: Some(Duration::from_secs(5)),
        dependencies: Some(Arc::new(dependencies)),
        ..TaskExtras::default()
    };
    fixture.submit(0, vec![TaskSpec { extras: extras.boxed(), ..task("child") }]).unwrap();
    let child = explain(&fixture, 0, "child");
    let parents = Blocker::Parents(UnfinishedParents { count: 1, ids: vec![id("parent")] });
    assert_eq!(child.blockers, [Blocker::Delay, parents, Blocker::PoolPaused]);
    assert_eq!((child.position, child.estimate), (None, None));
    let event = fixture.out.events.last().and_then(Event::task).unwrap();
    assert_eq!(event.holds.iter().collect::<Vec<_>>(), [Hold::Delay, Hold::Parents]);
    assert_eq!(blocked(&fixture), [("delay", 1), ("parents", 1), ("paused_pool", 1)]);
    let parent = explain(&fixture, 0, "parent");
    assert_eq!((parent.blockers, parent.estimate), (vec![Blocker::PoolPaused], None));
    pause(&mut fixture, false);
    fixture.core.set_memory_low(true);
    assert!(fixture.assigned().is_empty(), "nothing is given to the pool");
    let parent = explain(&fixture, 0, "parent");
    assert_eq!((parent.blockers, parent.estimate), (vec![Blocker::LowMemory], None));
    assert_eq!(blocked(&fixture), [("delay", 1), ("parents", 1), ("low_memory", 1)]);
    fixture.core.set_memory_low(false);
    let ticket = fixture.start(1);
    let running = Explanation { state: TaskState::Running, blockers: Vec::new(), position: None, estimate: None };
    assert_eq!(explain(&fixture, 1, "parent"), running);
    fixture.end(ticket, 2, failed(), None);
    let retried = explain(&fixture, 2, "parent");
    assert_eq!((retried.blockers, retried.estimate), (vec![Blocker::BackOff], Some(Estimate::AfterTimer)));
    assert_eq!(blocked(&fixture), [("delay", 1), ("back_off", 1), ("parents", 1)]);
    fixture.core.drain();
    let retried = explain(&fixture, 2, "parent");
    assert_eq!((retried.blockers, retried.estimate), (vec![Blocker::BackOff, Blocker::Draining], None));
    assert!(fixture.core.explain(Timestamp(2), &id("none")).is_none());
}

#[test]
fn the_tasks_before_a_dispatched_one_and_their_run_times_give_its_start() {
    let mut fixture = Fixture::new();
    run(&mut fixture, 10);
    fixture.expect_run_time(Duration::ZERO);
    fixture.submit(20, vec![task("next")]).unwrap();
    assert_eq!(explain(&fixture, 20, "next").estimate, Some(Estimate::Now));
    fixture.start(20);
    let more = [spec("urgent", Priority::High)].into_iter().chain((0..10).map(|number| task(&format!("t{number}"))));
    fixture.submit(20, more.collect()).unwrap();
    assert_eq!(fixture.assigned().len(), 11);
    let third = explain(&fixture, 20, "t3");
    let position = Position { more_urgent: 1, before: 3, at_least: false, namespaces: 0, keys: 0, is_dispatched: true };
    assert_eq!((&third.blockers[..], third.position), (&[Blocker::PoolFull { slots: 1 }][..], Some(position)));
    assert_eq!(blocked(&fixture), [("pool_slots", 11)]);
    let Some(Estimate::ByRunTimes(Timestamp(at))) = third.estimate else { panic!("{third:?}") };
    assert!((9 * SECOND..11 * SECOND).contains(&at), "five tasks of two seconds have to end: {at}");
    let last = explain(&fixture, 20, "t9");
    assert_eq!((last.position.unwrap().before, last.position.unwrap().at_least), (8, true));
    assert_eq!(last.estimate, None);
}

#[test]
fn without_enough_ended_attempts_there_is_no_estimate() {
    let mut fixture = Fixture::new();
    run(&mut fixture, 9);
    fixture.submit(20, vec![task("running"), task("next")]).unwrap();
    fixture.start(20);
    assert_eq!(explain(&fixture, 20, "next").estimate, None);
}

#[test]
fn namespaces_take_turns_before_tasks_that_are_not_dispatched() {
    let mut fixture = Fixture::new();
    fixture.core.pools[0].prefetch = 0;
    let of_team = |name: &str| with_options(name, |options| options.namespace = Namespace::parse("team").unwrap());
    let own = (0..4).map(|number| task(&format!("t{number}")));
    fixture.submit(0, own.chain([of_team("team/a"), of_team("team/b")]).collect()).unwrap();
    assert_eq!(fixture.assigned().len(), 2, "one of each namespace");
    let last = explain(&fixture, 0, "t3").position.unwrap();
    let expected =
        Position { more_urgent: 0, before: 4, at_least: false, namespaces: 1, keys: 0, is_dispatched: false };
    assert_eq!(last, expected);
}

#[test]
fn an_answer_does_not_read_more_of_a_longer_queue() {
    let mut fixture = Fixture::new();
    fixture.core.pools[0].prefetch = 0;
    fixture.submit(0, (0..5_000).map(|number| task(&format!("t{number}"))).collect()).unwrap();
    fixture.assigned();
    let before = fixture.core.tasks.reads();
    let last = explain(&fixture, 0, "t4999").position.unwrap();
    assert!(last.at_least && last.before >= 8, "{last:?}");
    assert!(fixture.core.tasks.reads() - before < 20, "{} reads", fixture.core.tasks.reads() - before);
}

#[test]
fn missing_workers_and_taken_slots_of_the_namespace_are_named() {
    let mut options = options();
    let pool =
        PoolSpec { kind: PoolKind::Remote, size: 0, max_running_per_namespace: Some(1), ..options.pools[0].clone() };
    options.pools = vec![pool];
    let mut fixture = Fixture { core: Core::new(options), ..Fixture::new() };
    let handler = |name: &str| HandlerName::parse(name).unwrap();
    fixture.core.set_slots(0, 2, &[(handler("known"), 2)]);
    let of = |name: &str, of: &str| with_options(name, |options| options.handler = handler(of));
    fixture.submit(0, vec![of("first", "known"), of("second", "known"), of("other", "unknown")]).unwrap();
    assert_eq!(explain(&fixture, 0, "other").blockers, [Blocker::NoWorker]);
    let ticket = fixture.start(1);
    let second = explain(&fixture, 1, "second");
    assert_eq!((second.blockers, second.estimate), (vec![Blocker::NamespaceFull { slots: 1 }], None));
    fixture.core.quarantine.barrier = Some((ticket, Timestamp(SECOND)));
    assert!(explain(&fixture, 1, "second").blockers.contains(&Blocker::Trial));
}

#[test]
fn a_task_that_waits_for_limits_names_all_that_would_not_let_it_pass() {
    let mut fixture = Fixture::new();
    fixture.core.options.attached_bytes_max = 1 << 20;
    let limit = |key: &str, max| {
        let rule = LimitRule { max_running: Some(max), rate: None };
        TaskLimit { source: LimitSource::Own(rule), key: key.into() }
    };
    let of = |name: &str, limits: &[TaskLimit]| with_options(name, |options| options.limits = limits.into());
    let both = [limit("a", 1), limit("b", 1)];
    fixture.submit(0, vec![of("first", &both), of("second", &both), of("third", &both[..1])]).unwrap();
    let blocker = |limit, before| Blocker::Limit {
        hold: LimitHold { limit, cause: LimitCause::Places { taken: 1, max: 1 } },
        before,
        at_least: false,
    };
    assert_eq!(explain(&fixture, 0, "first").blockers, []);
    assert_eq!(explain(&fixture, 0, "second").blockers, [blocker(0, 0), blocker(1, 0)]);
    assert_eq!(explain(&fixture, 0, "third").blockers, [blocker(0, 1)]);
    fixture.submit(0, (0..9).map(|number| of(&format!("more{number}"), &both[..1])).collect()).unwrap();
    let [Blocker::Limit { before: 8, at_least: true, .. }] = explain(&fixture, 0, "more8").blockers[..] else {
        panic!("only the first are looked at");
    };
}
