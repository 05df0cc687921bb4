//! Limits of tasks: order, places, tokens, and what they cost.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    BatchId, BatchKey, BatchSpec, Catalog, LimitCause, LimitName, LimitRule, LimitSource, Namespace, Payload, Priority,
    StartRate, TaskId, TaskLimit, TaskOptions, TaskSpec, TaskState, Timestamp,
};
use crate::pool::Ticket;
use crate::runners::Outcome;
use crate::scheduler::refusal::Refusal;

use super::limit_list::LimitFilter;
use super::state::Core;
use super::tests::{Fixture, SECOND, spec};

fn places(key: &str, max: u32) -> TaskLimit {
    TaskLimit { source: LimitSource::Own(LimitRule { max_running: Some(max), rate: None }), key: key.into() }
}

fn rate(key: &str, starts: u32, burst: u32) -> TaskLimit {
    let rate = Some(StartRate { starts, interval: Duration::from_secs(1), burst });
    TaskLimit { source: LimitSource::Own(LimitRule { max_running: None, rate }), key: key.into() }
}

fn task(id: &str, priority: Priority, limits: &[TaskLimit]) -> TaskSpec {
    let basis = spec(id, priority);
    let options = TaskOptions { limits: limits.into(), ..(*basis.options).clone() };
    TaskSpec { options: Arc::new(options), payload: Box::default(), ..basis }
}

/// With memory for limits.
fn fixture() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.core.options.attached_bytes_max = 1 << 30;
    fixture
}

impl Fixture {
    fn add(&mut self, at: u64, id: &str, limits: &[TaskLimit]) -> TaskState {
        let submitted = self.submit(at, vec![task(id, Priority::Normal, limits)]).unwrap();
        submitted.accepted[0].state.unwrap()
    }

    /// Starts everything that was dispatched.
    fn start_all(&mut self, at: u64) -> Vec<Ticket> {
        let assigned = self.assigned();
        for assignment in &assigned {
            self.core.started(assignment.ticket, Timestamp(at), "default/PoolWorker-0".into(), &mut self.out);
        }
        assigned.into_iter().map(|assignment| assignment.ticket).collect()
    }

    fn finish_attempt(&mut self, ticket: Ticket, at: u64) {
        self.end(ticket, at, Outcome::Completed(Payload::default()), None);
    }

    fn advance(&mut self, at: u64) {
        self.core.advance(Timestamp(at), &mut self.out);
    }

    fn hold(&self, id: &str) -> Option<LimitCause> {
        let id = TaskId::parse(id).unwrap();
        let mut events = self.out.events.iter().rev().filter_map(|event| event.task());
        events.find(|event| event.task == id).unwrap().hold.as_ref().map(|hold| hold.cause)
    }
}

#[test]
fn a_place_goes_to_the_highest_priority_and_then_to_the_oldest_task() {
    let mut fixture = fixture();
    let limits = [places("k", 1)];
    assert_eq!(fixture.add(0, "first", &limits), TaskState::Queued);
    for (id, priority) in [("old", Priority::Normal), ("new", Priority::Normal), ("urgent", Priority::High)] {
        let submitted = fixture.submit(0, vec![task(id, priority, &limits)]).unwrap();
        assert_eq!(submitted.accepted[0].state, Some(TaskState::Waiting));
        assert_eq!(fixture.hold(id), Some(LimitCause::Places { taken: 1, max: 1 }));
    }
    let mut order = Vec::new();
    for at in 1..5 {
        let tickets = fixture.start_all(at);
        assert_eq!(tickets.len(), 1, "one has a place");
        order.push(fixture.last_event().task.to_string());
        fixture.finish_attempt(tickets[0], at);
        fixture.core.check();
    }
    assert_eq!(order, ["first", "urgent", "old", "new"]);
    assert_eq!(fixture.core.limits.iter().count(), 0, "a limit without tasks needs no memory");
}

#[test]
fn a_task_that_waits_for_a_limit_holds_back_no_other() {
    let mut fixture = fixture();
    fixture.add(0, "a", &[places("k", 1)]);
    fixture.submit(0, vec![task("b", Priority::Critical, &[places("k", 1)])]).unwrap();
    fixture.submit(0, vec![task("free", Priority::Low, &[]), task("other", Priority::Low, &[places("l", 1)])]).unwrap();
    let assigned: Vec<_> = fixture.assigned().into_iter().map(|one| one.spec.id.to_string()).collect();
    assert_eq!(assigned, ["a", "free", "other"]);
}

#[test]
fn a_task_with_several_limits_keeps_no_place_while_it_waits() {
    let mut fixture = fixture();
    fixture.add(0, "a", &[places("k", 1)]);
    fixture.add(0, "b", &[places("l", 1)]);
    fixture.add(0, "both", &[places("k", 1), places("l", 1)]);
    let tickets = fixture.start_all(1);
    fixture.finish_attempt(tickets[0], 2);
    assert_eq!(fixture.state("both"), TaskState::Waiting, "it waits for the other limit");
    assert_eq!(fixture.add(3, "c", &[places("k", 1)]), TaskState::Queued);
    fixture.finish_attempt(tickets[1], 4);
    assert_eq!(fixture.state("both"), TaskState::Waiting);
    let tickets = fixture.start_all(5);
    fixture.finish_attempt(tickets[0], 6);
    assert_eq!(fixture.state("both"), TaskState::Queued);
    fixture.core.check();
}

#[test]
fn tasks_start_as_often_as_the_rate_allows_however_late_they_start() {
    let mut fixture = fixture();
    let limits = [rate("k", 10, 3)];
    fixture.advance(SECOND);
    for number in 0..8 {
        let state = fixture.add(SECOND, &format!("t{number}"), &limits);
        assert_eq!(state, if number < 3 { TaskState::Queued } else { TaskState::Waiting });
    }
    assert_eq!(fixture.hold("t3"), Some(LimitCause::Rate { until: None }), "all tokens are reserved");
    // The pool is busy for a while, so that the bucket is full when they start.
    fixture.advance(2 * SECOND);
    assert_eq!(fixture.start_all(2 * SECOND).len(), 3);
    assert_eq!(fixture.core.next_due(), Some(Timestamp(2 * SECOND + SECOND / 10)));
    let mut starts = Vec::new();
    for step in 0..10 {
        let at = 2 * SECOND + step * SECOND / 20;
        fixture.advance(at);
        starts.extend(fixture.start_all(at).iter().map(|_| step));
        fixture.core.check();
    }
    assert_eq!(starts, [2, 4, 6, 8], "one each 100 ms");
}

#[test]
fn a_cancelled_task_gives_its_place_and_its_token_back() {
    let mut fixture = fixture();
    let limits = [places("k", 1), rate("r", 1, 1)];
    fixture.add(0, "a", &limits);
    fixture.add(0, "b", &limits);
    fixture.add(0, "c", &limits);
    assert_eq!(fixture.cancel("b", 1, true).unwrap(), TaskState::Cancelled);
    assert_eq!(fixture.cancel("a", 1, true).unwrap(), TaskState::Cancelled);
    assert_eq!(fixture.state("c"), TaskState::Queued, "nothing has started");
    fixture.core.check();
}

#[test]
fn a_failed_task_waits_for_a_place_after_its_back_off() {
    let mut fixture = fixture();
    let limits = [places("k", 1)];
    fixture.add(0, "a", &limits);
    fixture.add(0, "b", &limits);
    let ticket = fixture.start_all(1)[0];
    fixture.end(ticket, 2, super::tests::failed(), None);
    assert_eq!((fixture.state("a"), fixture.state("b")), (TaskState::Waiting, TaskState::Queued));
    fixture.advance(100 * SECOND);
    assert_eq!(fixture.hold("a"), Some(LimitCause::Places { taken: 1, max: 1 }), "the back-off has passed");
    let ticket = fixture.start_all(100 * SECOND)[0];
    fixture.finish_attempt(ticket, 101 * SECOND);
    assert_eq!(fixture.state("a"), TaskState::Queued);
    fixture.core.check();
}

#[test]
fn a_changed_limit_concerns_the_tasks_that_wait_for_it() {
    let mut fixture = fixture();
    let name = LimitName::parse("api").unwrap();
    let set = |fixture: &mut Fixture, max: Option<u32>| {
        let limits =
            max.map(|max| (name.clone(), LimitRule { max_running: Some(max), rate: None })).into_iter().collect();
        let pools = fixture.core.options.pools.clone();
        fixture.core.reconfigure(pools, Arc::new(Catalog { limits, ..Catalog::default() }));
        fixture.advance(1);
    };
    set(&mut fixture, Some(1));
    let limit = TaskLimit { source: LimitSource::Configured(LimitName::parse("api").unwrap()), key: "".into() };
    let states: Vec<_> =
        (0..4).map(|number| fixture.add(0, &format!("t{number}"), std::slice::from_ref(&limit))).collect();
    assert_eq!(states, [TaskState::Queued, TaskState::Waiting, TaskState::Waiting, TaskState::Waiting]);
    set(&mut fixture, Some(3));
    assert_eq!(fixture.start_all(2).len(), 3);
    set(&mut fixture, None);
    assert_eq!(fixture.state("t3"), TaskState::Waiting);
    assert_eq!(fixture.add(3, "t4", &[limit]), TaskState::Waiting);
    assert_eq!(fixture.hold("t4"), Some(LimitCause::NotConfigured));
    set(&mut fixture, Some(5));
    assert_eq!((fixture.state("t3"), fixture.state("t4")), (TaskState::Queued, TaskState::Queued));
    fixture.core.check();
}

#[test]
fn a_namespace_uses_a_bounded_number_of_keys() {
    let mut fixture = fixture();
    let of = |from: u64, to: u64| {
        (from..to).map(|key| task(&format!("t{key}"), Priority::Low, &[places(&format!("k{key}"), 1)]))
    };
    fixture.submit(0, of(0, 3).collect::<Vec<_>>()).unwrap();
    let Err(Refusal::TooManyLimitKeys(refused)) = fixture.submit(0, of(3, 5).collect::<Vec<_>>()) else {
        panic!("5 keys are too many");
    };
    assert_eq!(&*refused.key, "k4");
    fixture.submit(0, of(3, 4).collect::<Vec<_>>()).unwrap();
    fixture.submit(0, vec![task("again", Priority::Low, &[places("k0", 1)])]).unwrap();
    fixture.cancel("t1", 0, true).unwrap();
    fixture.submit(0, of(4, 5).collect::<Vec<_>>()).unwrap();
    fixture.core.check();
}

#[test]
fn the_memory_of_a_completion_is_reserved_until_it_is_submitted() {
    let mut fixture = fixture();
    let key = BatchKey { namespace: Namespace::default(), id: BatchId::parse("b").unwrap() };
    let limits: Vec<_> = (0..4).map(|number| places(&format!("k{number}"), 1)).collect();
    let completion = Some(Arc::new(task("end", Priority::Normal, &limits)));
    let batch = BatchSpec { completion, ..BatchSpec::default() };
    fixture.core.create_batch(Timestamp(0), key.clone(), batch, &mut fixture.out).unwrap();
    let reserved = fixture.core.attached_in_memory();
    fixture.core.close_batch(Timestamp(0), &key, &mut fixture.out).unwrap();
    assert_eq!(fixture.state("end"), TaskState::Queued);
    let used = fixture.core.attached_in_memory();
    assert!(used <= reserved, "{used} bytes, {reserved} are reserved");
    fixture.core.check();
}

#[test]
fn the_cost_of_an_end_does_not_depend_on_the_number_of_tasks_that_wait() {
    let cost = |waiting: u64| {
        let mut fixture = fixture();
        let limits = [places("k", 1)];
        for number in 0..waiting {
            fixture.add(0, &format!("t{number}"), &limits);
        }
        let ticket = fixture.start_all(1)[0];
        let before = fixture.core.tasks.reads();
        fixture.finish_attempt(ticket, 2);
        let ticket = fixture.start_all(3)[0];
        fixture.finish_attempt(ticket, 4);
        fixture.core.tasks.reads() - before
    };
    assert_eq!(cost(10), cost(10_000));
}

#[test]
fn a_list_is_read_in_pages_that_cost_the_same_however_many_limits_there_are() {
    let mut fixture = fixture();
    let name = LimitName::parse("api").unwrap();
    let rate = StartRate { starts: 1, interval: Duration::from_secs(1), burst: 3 };
    let rule = LimitRule { max_running: Some(2), rate: Some(rate) };
    let catalog = Catalog { limits: [(name.clone(), rule)].into(), ..(*fixture.core.options.catalog).clone() };
    fixture.core.options.catalog = Arc::new(catalog);
    let shared = TaskLimit { source: LimitSource::Configured(name), key: "".into() };
    for number in 0..30 {
        let key = places(&format!("k{number}"), 1);
        for (name, limits) in [("a", &[key.clone(), shared.clone()][..]), ("b", &[key])] {
            let spec = task(&format!("{name}{number}"), Priority::Normal, limits);
            let namespace = Namespace::parse(&format!("n{}", number / 4)).unwrap();
            let options = Arc::new(TaskOptions { namespace, ..(*spec.options).clone() });
            fixture.submit(0, vec![TaskSpec { options, ..spec }]).unwrap();
        }
    }
    let list = |core: &Core, filter: &LimitFilter| {
        let (mut found, mut from, mut pages) = (Vec::new(), 0, 0);
        loop {
            let page = core.list_limits(Timestamp(0), filter, from, 5);
            assert!(page.limits.len() <= 5);
            found.extend(page.limits);
            pages += 1;
            match page.next {
                Some(next) => from = next,
                None => return (found, pages),
            }
        }
    };
    let (all, _) = list(&fixture.core, &LimitFilter::default());
    assert_eq!(all.len(), 31, "each once");
    let api = &all[0];
    assert_eq!((api.rule, api.tasks, api.taken, api.waiting), (Some(rule), 30, 2, 28));
    assert_eq!((api.tokens, api.next_token), (Some(1), None), "two of three are reserved");
    let keys = all[1..].iter().map(|key| (key.rule.unwrap().max_running, key.tasks));
    assert!(keys.into_iter().all(|key| key == (Some(1), 2)));
    let other = LimitFilter { namespaces: vec![Namespace::parse("other").unwrap()], only_waiting: false };
    let (found, pages) = list(&fixture.core, &other);
    assert_eq!((found.as_slice(), pages), (&all[..1], 4), "8 limits are looked at for each page");
    let (waiting, _) = list(&fixture.core, &LimitFilter { only_waiting: true, ..LimitFilter::default() });
    assert_eq!(
        waiting.iter().map(|limit| limit.waiting).sum::<usize>(),
        30,
        "28 for the shared one, and one for each of two keys"
    );
    assert_eq!(waiting.len(), 3);
}
