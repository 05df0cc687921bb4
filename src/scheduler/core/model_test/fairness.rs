//! Shares of namespaces and fairness keys: while two of them have tasks that wait, what they are given differs by no more than
//! the cost of one task of each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{
    FairnessKey, KeyPattern, Namespace, Priority, TaskId, TaskOptions, TaskState, Weight, WeightRule, Weights,
};

use super::super::state::Core;
use super::cores::handler_name;
use super::history::History;
use super::steps::HANDLERS;

/// Tasks that share slots: pool, handler if the pool is remote, and priority.
type Band = (u16, Option<u8>, Priority);
/// A namespace, or with `Some` one of its fairness keys.
type Flow = (Namespace, Option<Option<FairnessKey>>);

#[derive(Default)]
pub struct Fairness {
    /// Tasks that waited after the last step and could have started, by what shares the slots.
    waiting: BTreeMap<Band, BTreeMap<Flow, BTreeSet<TaskId>>>,
    /// By how much the first of two flows was charged more than the second one since both wait: now, least and most.
    leads: BTreeMap<(Band, Flow, Flow), [i64; 3]>,
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

fn band(core: &Core, options: &TaskOptions) -> Band {
    let pool = core.index_of_pool(&options.pool).expect("its pool");
    let is_remote = core.pools[usize::from(pool)].is_remote();
    let handler = (0..HANDLERS).find(|number| is_remote && handler_name(*number) == options.handler);
    (pool, handler, options.priority)
}

fn flows(options: &TaskOptions) -> [Flow; 2] {
    [(options.namespace.clone(), None), (options.namespace.clone(), Some(options.fairness_key.clone()))]
}

/// What the flow is charged for a task.
fn charge((namespace, key): &Flow) -> i64 {
    let weights = weights();
    let weight = match key {
        None => weights.of_namespace(namespace),
        Some(key) => weights.of_key(namespace, key.as_ref()),
    };
    weight.charge(1_000_000).cast_signed()
}

impl Fairness {
    /// A server has ended: the shares start anew.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Checks what was dispatched in a step, in its order.
    pub fn observe<'a>(&mut self, core: &Core, live: &History, dispatched: impl Iterator<Item = &'a TaskOptions>) {
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
        for options in dispatched {
            for ((of, one, other), [now, least, most]) in &mut self.leads {
                if *of != band(core, options) {
                    continue;
                }
                for flow in flows(options) {
                    *now += if flow == *one { charge(one) } else { 0 } - if flow == *other { charge(other) } else { 0 };
                }
                (*least, *most) = (*now.min(least), *now.max(most));
                let bound = charge(one) + charge(other);
                assert!(*most - *least <= bound, "{one:?} and {other:?} of {of:?}: {} exceeds {bound}", *most - *least);
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
