//! The last dispatches of a pool, and why each was chosen. Kept in memory only.
//!
//! A dispatch costs no allocation: an entry shares names with the task, and the ring grows until it is full. It shares nothing
//! else, so that its memory is bounded whatever the tasks are.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{FairnessKey, HandlerName, Namespace, Priority, TaskId, Timestamp};
use crate::pool::{Assignment, Ticket};

use super::ready_queue::Rivals;

/// Dispatches of a pool that are kept.
pub const DECISIONS_MAX: usize = 10_000;

#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    pub at: Timestamp,
    /// Of the attempt. Larger than those of earlier dispatches.
    fence: u64,
    pub task: TaskId,
    pub handler: HandlerName,
    pub namespace: Namespace,
    pub fairness_key: Option<FairnessKey>,
    pub priority: Priority,
    pub attempt: u32,
    /// When the task could have been dispatched first.
    pub eligible_at: Timestamp,
    pub reason: DecisionReason,
    /// Microseconds that its key was charged, if that is charged for slot time; 0 otherwise.
    expected_us: u64,
    /// When the attempt has started, and its worker.
    pub start: Option<(Timestamp, Arc<str>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecisionReason {
    /// No task of higher priority could start, and of the namespaces and keys with this priority it was the turn of these.
    Turn(Rivals),
    /// Tasks of its priority had waited longer than [`PoolSpec::max_wait`], and it was the turn of these.
    ///
    /// [`PoolSpec::max_wait`]: crate::model::PoolSpec::max_wait
    Promoted(Rivals),
    /// It was suspected of having crashed the server, and runs alone.
    Trial,
}

const _: () = assert!(size_of::<Decision>() <= 152, "10,000 of them are kept for each pool");

/// Which decisions to list; an empty list means all.
#[derive(Clone, Debug, Default)]
pub struct DecisionFilter {
    pub namespaces: Vec<Namespace>,
    /// IDs that one name can mean.
    pub tasks: Vec<TaskId>,
    pub handler: Option<HandlerName>,
    pub fairness_key: Option<FairnessKey>,
}

#[derive(Debug, Default)]
pub struct DecisionPage {
    /// The newest first.
    pub decisions: Vec<Decision>,
    /// Where the next page begins.
    pub next: Option<u64>,
}

#[derive(Debug, Default)]
pub struct DecisionLog {
    entries: VecDeque<Decision>,
    /// Where the next start is looked for first: attempts start about in the order of their dispatch.
    cursor: usize,
}

impl DecisionLog {
    pub fn add(&mut self, at: Timestamp, assignment: &Assignment, reason: DecisionReason, expected_us: Option<u64>) {
        if self.entries.len() == DECISIONS_MAX {
            self.entries.pop_front();
            self.cursor = self.cursor.saturating_sub(1);
        }
        let options = &assignment.spec.options;
        self.entries.push_back(Decision {
            at,
            fence: assignment.ticket.fence,
            task: assignment.spec.id.clone(),
            handler: options.handler.clone(),
            namespace: options.namespace.clone(),
            fairness_key: options.fairness_key.clone(),
            priority: options.priority,
            attempt: assignment.attempt,
            eligible_at: assignment.eligible_at,
            reason,
            expected_us: expected_us.unwrap_or(0),
            start: None,
        });
    }

    /// Records the start of an attempt.
    pub fn start(&mut self, ticket: Ticket, at: Timestamp, worker: &Arc<str>) {
        let is_it = |entry: &Decision| entry.fence == ticket.fence;
        if !self.entries.get(self.cursor).is_some_and(is_it) {
            let Ok(found) = self.entries.binary_search_by_key(&ticket.fence, |entry| entry.fence) else { return };
            self.cursor = found;
        }
        self.entries[self.cursor].start = Some((at, worker.clone()));
        self.cursor += 1;
    }

    /// Up to `count` decisions that were made before `before`, the newest first.
    pub fn page(&self, filter: &DecisionFilter, before: u64, count: usize) -> DecisionPage {
        let end = self.entries.partition_point(|entry| entry.fence < before);
        let mut page = DecisionPage::default();
        for entry in self.entries.range(..end).rev().filter(|entry| filter.matches(entry)) {
            if page.decisions.len() == count {
                page.next = page.decisions.last().map(|last: &Decision| last.fence);
                break;
            }
            page.decisions.push(entry.clone());
        }
        page
    }
}

impl Decision {
    /// What its key was charged until the attempt has ended, if that is charged for slot time.
    pub fn expected_time(&self) -> Option<Duration> {
        (self.expected_us > 0).then(|| Duration::from_micros(self.expected_us))
    }
}

impl DecisionFilter {
    fn matches(&self, decision: &Decision) -> bool {
        (self.namespaces.is_empty() || self.namespaces.contains(&decision.namespace))
            && (self.tasks.is_empty() || self.tasks.contains(&decision.task))
            && self.handler.as_ref().is_none_or(|handler| *handler == decision.handler)
            && (self.fairness_key.is_none() || self.fairness_key == decision.fairness_key)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Fixture, spec};
    use super::*;
    use crate::model::{PoolName, TaskSpec};

    fn pool() -> PoolName {
        PoolName::parse("default").unwrap()
    }

    fn with_key(id: &str, key: &str) -> TaskSpec {
        let spec = spec(id, Priority::Normal);
        let options =
            crate::model::TaskOptions { fairness_key: FairnessKey::parse(key).ok(), ..(*spec.options).clone() };
        TaskSpec { options: Arc::new(options), ..spec }
    }

    fn names(page: &DecisionPage) -> Vec<String> {
        page.decisions.iter().map(|decision| decision.task.to_string()).collect()
    }

    #[test]
    fn a_decision_has_the_wait_the_rivals_and_later_the_start() {
        let mut fixture = Fixture::new();
        fixture.submit(10, vec![with_key("a", "one"), with_key("b", "two"), spec("c", Priority::High)]).unwrap();
        fixture.core.advance(Timestamp(30), &mut fixture.out);
        let tickets: Vec<_> = fixture.assigned().iter().map(|assignment| assignment.ticket).collect();
        let list = |fixture: &Fixture| {
            fixture.core.decisions(&pool(), &DecisionFilter::default(), None, 10).unwrap().decisions
        };
        let [b, a, c] = list(&fixture).try_into().unwrap();
        let turn = |keys| DecisionReason::Turn(Rivals { namespaces: 0, keys });
        assert_eq!([&c, &a, &b].map(|decision| decision.task.to_string()), ["c", "a", "b"]);
        assert_eq!([c.reason, a.reason, b.reason], [turn(0), turn(1), turn(0)]);
        assert_eq!((a.at, a.eligible_at, a.start), (Timestamp(30), Timestamp(10), None));
        // Not in the order of their dispatch.
        for (at, ticket) in [(40, tickets[2]), (50, tickets[0]), (60, tickets[1])] {
            fixture.core.started(ticket, Timestamp(at), "w".into(), &mut fixture.out);
        }
        let starts = list(&fixture).into_iter().map(|decision| decision.start.unwrap().0.0);
        assert_eq!(starts.collect::<Vec<_>>(), [40, 60, 50]);
    }

    #[test]
    fn pages_go_from_the_newest_to_the_oldest_that_is_kept() {
        let mut fixture = Fixture::new();
        fixture.core.pools[0].prefetch = DECISIONS_MAX;
        for start in (0..DECISIONS_MAX + 500).step_by(500) {
            let key = |number: usize| if number.is_multiple_of(2) { "even" } else { "odd" };
            let specs = (start..start + 500).map(|number| with_key(&format!("t{number}"), key(number))).collect();
            fixture.submit(0, specs).unwrap();
            for assignment in fixture.assigned() {
                fixture.core.started(assignment.ticket, Timestamp(0), "w".into(), &mut fixture.out);
            }
        }
        let pages = |filter: &DecisionFilter| {
            let (mut found, mut before) = (Vec::new(), None);
            loop {
                let page = fixture.core.decisions(&pool(), filter, before, 1_000).unwrap();
                found.extend(names(&page));
                before = page.next;
                if before.is_none() {
                    return found;
                }
            }
        };
        let all = pages(&DecisionFilter::default());
        assert_eq!((all.len(), &*all[0], &*all[DECISIONS_MAX - 1]), (DECISIONS_MAX, "t10499", "t500"));
        let odd = DecisionFilter { fairness_key: FairnessKey::parse("odd").ok(), ..DecisionFilter::default() };
        assert_eq!(pages(&odd).len(), DECISIONS_MAX / 2);
        let other =
            DecisionFilter { namespaces: vec![Namespace::parse("other").unwrap()], ..DecisionFilter::default() };
        assert!(pages(&other).is_empty());
    }
}
