//! Shares of namespaces and fairness keys: while two of them have tasks that wait, the one that was charged less, divided by its
//! weight, has its turn. So what they are given differs by no more than the cost of one task of each, and none starves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{
    Event, FairnessKey, KeyPattern, Namespace, Priority, TaskChange, TaskId, TaskOptions, TaskState, Timestamp, Weight,
    WeightRule, Weights,
};
use crate::pool::Assignment;

use super::super::state::Core;
use super::cores::handler_name;
use super::history::History;
use super::steps::HANDLERS;

/// Tasks that share slots: pool, handler if the pool is remote, and priority.
pub type Band = (u16, Option<u8>, Priority);
/// A namespace, or with `Some` one of its fairness keys.
type Flow = (Namespace, Option<Option<FairnessKey>>);

#[derive(Default)]
pub struct Fairness {
    /// Tasks that waited after the last step and could have started, by what shares the slots.
    waiting: BTreeMap<Band, BTreeMap<Flow, BTreeSet<TaskId>>>,
    leads: BTreeMap<(Band, Flow, Flow), Lead>,
    charged: BTreeMap<TaskId, Charged>,
}

/// How two flows were served since both have tasks that wait.
#[derive(Clone, Copy, Default)]
struct Lead {
    /// By how much the first one was charged more than the second one.
    now: i64,
    /// The largest lead with which the first one had a turn.
    most: Option<i64>,
    /// The smallest lead with which the second one had a turn.
    least: Option<i64>,
}

/// An attempt.
struct Charged {
    band: Band,
    flows: [Flow; 2],
    cost: u64,
    began: Option<Timestamp>,
}

pub fn fairness_key(number: Option<u8>) -> Option<FairnessKey> {
    number.map(|number| FairnessKey::parse(&format!("k{number}")).unwrap())
}

/// Of every pool.
pub fn weights() -> Arc<Weights> {
    let rule = |namespace: &str, key: Option<&str>, weight| WeightRule {
        namespace: Namespace::parse(namespace).unwrap(),
        key: key.map(|key| KeyPattern::parse(key).unwrap()),
        weight: Weight::new(weight).unwrap(),
    };
    let rules = [rule("a", None, 2.5), rule("a", Some("k1"), 0.5), rule("b", Some("k*"), 3.0)];
    Arc::new(Weights(rules.into()))
}

pub fn band(core: &Core, options: &TaskOptions) -> Band {
    let pool = core.index_of_pool(&options.pool).expect("its pool");
    let is_remote = core.pools[usize::from(pool)].is_remote();
    let handler = (0..HANDLERS).find(|number| is_remote && handler_name(*number) == options.handler);
    (pool, handler, options.priority)
}

fn flows(options: &TaskOptions) -> [Flow; 2] {
    [(options.namespace.clone(), None), (options.namespace.clone(), Some(options.fairness_key.clone()))]
}

/// What the flow is charged for a cost.
fn charge((namespace, key): &Flow, cost: u64) -> i64 {
    let weights = weights();
    let weight = match key {
        None => weights.of_namespace(namespace),
        Some(key) => weights.of_key(namespace, key.as_ref()),
    };
    weight.charge(cost).cast_signed()
}

impl Fairness {
    /// A server has ended: the shares start anew.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// An attempt that was charged for the time that was expected of it has taken another one, or has not started.
    pub fn settle(&mut self, event: &Event) {
        let Event::Task(event) = event else { return };
        let Some(charged) = self.charged.get_mut(&event.task) else { return };
        if event.state == TaskState::Running {
            charged.began.get_or_insert(event.at);
        } else if event.state != TaskState::Queued
            || event.previous == TaskState::Running
            || matches!(event.change, TaskChange::Updated { .. })
        {
            let Some(Charged { band, flows, cost, began }) = self.charged.remove(&event.task) else { return };
            let taken = began.map_or(0, |began| u64::try_from(event.at.since(began).as_micros()).unwrap().max(1));
            for ((_, one, other), lead) in self.leads.iter_mut().filter(|((of, ..), _)| *of == band) {
                for flow in &flows {
                    let more = charge(flow, taken) - charge(flow, cost);
                    lead.now += if flow == one { more } else { 0 } - if flow == other { more } else { 0 };
                }
            }
        }
    }

    /// Checks what was dispatched in a step, in its order: of two flows that wait, the one that was charged less has its turn.
    pub fn observe<'a>(&mut self, core: &Core, live: &History, dispatched: impl Iterator<Item = &'a Assignment>) {
        let mut waiting: BTreeMap<Band, BTreeMap<Flow, BTreeSet<TaskId>>> = BTreeMap::new();
        let queued =
            live.tasks.iter().filter(|(id, task)| task.state == TaskState::Queued && core.ticket(id).is_none());
        for (id, task) in queued {
            let options = &task.spec.options;
            let pool = &core.pools[usize::from(core.index_of_pool(&options.pool).expect("its pool"))];
            if !pool.queues.is_full(&options.namespace) {
                let of_band = waiting.entry(band(core, options)).or_default();
                for flow in flows(options) {
                    of_band.entry(flow).or_default().insert(id.clone());
                }
            }
        }
        // A flow of which one task waited before the step and still does has waited all the time.
        let (before, nothing) = (std::mem::take(&mut self.waiting), BTreeMap::new());
        let mut leads = BTreeMap::new();
        for (band, flows) in &waiting {
            let before = before.get(band).unwrap_or(&nothing);
            let waits = |(flow, tasks): &(&Flow, &BTreeSet<TaskId>)| {
                before.get(*flow).is_some_and(|earlier| !earlier.is_disjoint(tasks))
            };
            let flows: Vec<&Flow> = flows.iter().filter(waits).map(|(flow, _)| flow).collect();
            for (place, one) in flows.iter().enumerate() {
                for other in flows[..place].iter().filter(|other| share(one, other)) {
                    let pair = (*band, Flow::clone(one), Flow::clone(other));
                    let lead = self.leads.get(&pair).copied().unwrap_or_default();
                    leads.insert(pair, lead);
                }
            }
        }
        self.leads = leads;
        for assignment in dispatched {
            let options = &assignment.spec.options;
            let (band, flows) = (band(core, options), flows(options));
            let expected = core.pools[usize::from(band.0)].expected_us.get(&assignment.ticket.index);
            let cost = expected.copied().unwrap_or(1_000_000);
            for ((of, one, other), lead) in self.leads.iter_mut().filter(|((of, ..), _)| *of == band) {
                for flow in &flows {
                    if flow == one {
                        lead.most = lead.most.max(Some(lead.now));
                        lead.now += charge(flow, cost);
                    } else if flow == other {
                        lead.least = Some(lead.least.map_or(lead.now, |least| least.min(lead.now)));
                        lead.now -= charge(flow, cost);
                    }
                }
                let in_turn = lead.most.zip(lead.least).is_none_or(|(most, least)| most <= least);
                assert!(in_turn, "{one:?} and {other:?} of {of:?}: {:?} and {:?}", lead.most, lead.least);
            }
            if expected.is_some() {
                let charged = Charged { band, flows, cost, began: None };
                self.charged.insert(assignment.spec.id.clone(), charged);
            }
        }
        self.waiting = waiting;
    }
}

/// Whether two flows share what one above them has: all namespaces do, and the keys of one namespace.
fn share(one: &Flow, other: &Flow) -> bool {
    match (&one.1, &other.1) {
        (None, None) => true,
        (Some(_), Some(_)) => one.0 == other.0,
        _ => false,
    }
}
