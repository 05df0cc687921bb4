//! Unit tests of the promotion of tasks that wait too long behind those of higher priorities.

use std::time::Duration;

use crate::model::{Payload, PoolName, Priority, Timestamp};
use crate::runners::Outcome;

use super::decision_log::{DecisionFilter, DecisionReason};
use super::tests::{Fixture, SECOND, spec};

fn fixture(max_wait: Option<Duration>) -> Fixture {
    let mut fixture = Fixture::new();
    let pool = &mut fixture.core.pools[0];
    (pool.spec.max_wait, pool.prefetch) = (max_wait, 0);
    for (name, priority) in [("low", Priority::Low), ("normal", Priority::Normal), ("high", Priority::High)] {
        fixture.submit(0, (0..20).map(|number| spec(&format!("{name}{number}"), priority)).collect()).unwrap();
    }
    fixture
}

/// Runs attempts one after the other, the most urgent first, each for a second. Returns the first letters of their tasks.
fn starts(fixture: &mut Fixture, count: u64) -> String {
    let mut given = Vec::new();
    let mut starts = String::new();
    for now in 0..count {
        let at = Timestamp(now * SECOND);
        fixture.core.advance(at, &mut fixture.out);
        given.extend(fixture.assigned());
        given.sort_by_key(|assignment| {
            std::cmp::Reverse((assignment.urgency, std::cmp::Reverse(assignment.ticket.fence)))
        });
        let next = given.remove(0);
        fixture.core.started(next.ticket, at, "w".into(), &mut fixture.out);
        fixture.end(next.ticket, at.0 + SECOND, Outcome::Completed(Payload::default()), None);
        fixture.core.check();
        starts.push(next.spec.id.to_string().chars().next().unwrap());
    }
    starts
}

#[test]
fn a_quarter_of_the_starts_is_of_priorities_that_have_waited_too_long() {
    let mut fixture = fixture(Some(Duration::from_secs(7)));
    let starts = starts(&mut fixture, 24);
    // Of two priorities whose tasks have waited equally long, the higher one comes first.
    assert_eq!(starts, "hhhhhhhhnhhhnhhhnhhhnhhh");
    let page = fixture.core.decisions(&PoolName::parse("default").unwrap(), &DecisionFilter::default(), None, 100);
    let is_promoted = |reason| matches!(reason, DecisionReason::Promoted(_));
    let decisions = page.unwrap().decisions;
    let promoted = decisions.iter().filter(|decision| is_promoted(decision.reason));
    assert_eq!(promoted.map(|decision| decision.priority).collect::<Vec<_>>(), [Priority::Normal; 4]);
}

#[test]
fn priorities_are_strict_unless_a_bound_is_set() {
    let starts = starts(&mut fixture(None), 41);
    assert_eq!(starts, format!("{}{}l", "h".repeat(20), "n".repeat(20)));
}
