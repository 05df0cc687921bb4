//! Unit tests of fair shares that are charged by slot time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::model::{Charge, FairnessKey, Payload, Priority, TaskOptions, TaskSpec, Timestamp};
use crate::pool::Assignment;
use crate::runners::Outcome;

use super::tests::{Fixture, SECOND, spec};

fn fixture(size: usize) -> Fixture {
    let mut fixture = Fixture::new();
    let pool = &mut fixture.core.pools[0];
    (pool.spec.charge, pool.spec.size, pool.prefetch) = (Charge::SlotTime, size, 0);
    fixture.core.options.payload_bytes_max = u64::MAX;
    fixture
}

fn with_key(id: &str, key: &str) -> TaskSpec {
    let spec = spec(id, Priority::Normal);
    let options = TaskOptions { fairness_key: FairnessKey::parse(key).ok(), ..(*spec.options).clone() };
    TaskSpec { options: Arc::new(options), ..spec }
}

fn submit(fixture: &mut Fixture, key: &str, count: usize) {
    let specs = (0..count).map(|number| with_key(&format!("{key}{number}"), key)).collect();
    fixture.submit(0, specs).unwrap();
}

fn key_of(assignment: &Assignment) -> String {
    assignment.spec.options.fairness_key.as_ref().unwrap().to_string()
}

/// Runs attempts until a time, each for the seconds of its key. Returns the seconds for which each key had slots.
fn run(fixture: &mut Fixture, seconds: &BTreeMap<&str, u64>, until: u64) -> BTreeMap<String, u64> {
    let size = fixture.core.pools[0].spec.size;
    let (mut given, mut running, mut taken) = (VecDeque::new(), Vec::new(), BTreeMap::new());
    for now in 0..until {
        let at = Timestamp(now * SECOND);
        fixture.core.advance(at, &mut fixture.out);
        let (ended, others): (Vec<_>, Vec<_>) = running.into_iter().partition(|(end, _)| *end == now);
        running = others;
        for (_, ticket) in ended {
            fixture.end(ticket, at.0, Outcome::Completed(Payload::default()), None);
        }
        given.extend(fixture.assigned());
        while running.len() < size
            && let Some(assignment) = given.pop_front()
        {
            fixture.core.started(assignment.ticket, at, "w".into(), &mut fixture.out);
            let key = key_of(&assignment);
            running.push((now + seconds[&*key], assignment.ticket));
            *taken.entry(key).or_default() += 1;
        }
    }
    taken.into_iter().map(|(key, count): (String, u64)| (key.clone(), count * seconds[&*key])).collect()
}

#[test]
fn keys_get_the_same_slot_time_however_long_their_tasks_run() {
    let mut fixture = fixture(4);
    submit(&mut fixture, "long", 500);
    submit(&mut fixture, "short", 5_000);
    let taken = run(&mut fixture, &[("long", 20), ("short", 1)].into(), 2_000);
    let [long, short] = [taken["long"], taken["short"]];
    assert!(long + short >= 7_900, "no slot is left free: {taken:?}");
    assert!(long.abs_diff(short) <= 200, "{taken:?}");
}

#[test]
fn what_was_charged_for_an_attempt_that_never_starts_is_returned() {
    let mut fixture = fixture(1);
    submit(&mut fixture, "a", 4);
    submit(&mut fixture, "b", 4);
    let given = fixture.assigned();
    assert_eq!(given.iter().map(key_of).collect::<Vec<_>>(), ["a", "b"], "each is charged a second");
    fixture.core.cancel(&given[0].spec.id, super::tests::request(1), &mut fixture.out).unwrap();
    fixture.core.recalled(Timestamp(1), given[0].ticket, true, &mut fixture.out);
    assert_eq!(fixture.assigned().iter().map(key_of).collect::<Vec<_>>(), ["a"]);
    fixture.core.check();
    assert_eq!(fixture.core.pools[0].expected_us.len(), 2, "of live attempts only");
}
