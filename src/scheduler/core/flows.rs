//! Flows that share slots by their weights: the namespaces of a band, or the fairness keys of a namespace.
//!
//! This is start-time fair queueing (Goyal, Vin and Cheng: *Start-Time Fair Queuing: A Scheduling Algorithm for Integrated
//! Services Packet Switching Networks*, IEEE/ACM Transactions on Networking 5(5), 1997). Each flow has a virtual time at which its
//! next turn starts. The flow with the smallest one is served, and its time grows by the cost divided by its weight. A flow that
//! gets tasks starts no earlier than the others are, so that it has no claim to the time in which it had none. While two flows
//! have tasks, what they have got, divided by their weights, differs by at most the cost of one task of each, divided by its weight.
//!
//! Deficit round robin (Shreedhar and Varghese, 1995) gives the same shares, but has to know the cost of a task before its
//! turn, and needs a quantum that is not smaller than any cost. The time for which a task has its slot is known when it ends, and
//! can be a microsecond or a day.
//!
//! A flow without tasks keeps its virtual time while the others catch up. At most [`IDLE_MAX`] of them are kept in addition to as
//! many as have tasks.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hash};

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::model::Weight;

use super::flow_order::FlowOrder;
use super::hash_index::HashIndex;
use super::key_queue::QueueEntry;

/// Flows without tasks that are kept in addition to as many as have some.
const IDLE_MAX: usize = 64;
/// Flows from which on the index grows in parts.
const SMALL_MAX: usize = 4_096;

/// The tasks of a flow.
pub trait FlowTasks: Default {
    /// Number of tasks.
    fn count(&self) -> usize;

    /// The entry with the smallest stamp.
    fn oldest(&mut self) -> Option<QueueEntry>;
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a place where the flow can be")]
pub struct Flow<K, T> {
    pub key: K,
    pub tasks: T,
    /// Whether the flow has all the slots that it may have, so that none of its tasks can start.
    pub is_held: bool,
    pub weight: Weight,
    /// Virtual time at which its next turn starts.
    start: u64,
    in_order: bool,
    in_ages: bool,
    in_idlers: bool,
}

#[derive(Debug)]
pub struct Flows<K, T> {
    /// Boxed, so that few bytes are moved when there are more.
    entries: Vec<Option<Box<Flow<K, T>>>>,
    free: Vec<u32>,
    by_key: KeyIndex,
    hasher: DefaultHashBuilder,
    /// The flow that was found or added last, which is often looked for again.
    last: u32,
    /// Flows by the start of their next turn: all that have tasks and are not held, and others.
    order: FlowOrder,
    /// Flows by the stamp of their oldest task: all that have some and are not held, and others.
    ages: FlowOrder,
    /// Virtual time at which the newest turn has started.
    now: u64,
    /// Flows without tasks.
    idle: usize,
    /// Weights of the flows with tasks, in thousandths.
    weights: u64,
    /// All flows without tasks, and some that have tasks again, each once, in the order in which they have lost their last task.
    idlers: VecDeque<u32>,
}

#[derive(Debug)]
enum KeyIndex {
    Small(HashTable<u32>),
    Large(HashIndex),
}

impl<K, T> Default for Flows<K, T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            by_key: KeyIndex::Small(HashTable::new()),
            hasher: DefaultHashBuilder::default(),
            last: 0,
            order: FlowOrder::default(),
            ages: FlowOrder::default(),
            now: 0,
            idle: 0,
            weights: 0,
            idlers: VecDeque::new(),
        }
    }
}

impl<K: Clone + Eq + Hash, T: FlowTasks> Flows<K, T> {
    pub fn find(&self, key: &K) -> Option<u32> {
        let is_it = |flow: &u32| self.get(*flow).is_some_and(|flow| flow.key == *key);
        if is_it(&self.last) {
            return Some(self.last);
        }
        let hash = self.hasher.hash_one(key);
        match &self.by_key {
            KeyIndex::Small(index) => index.find(hash, is_it).copied(),
            KeyIndex::Large(index) => index.find(hash, is_it),
        }
    }

    pub fn get(&self, flow: u32) -> Option<&Flow<K, T>> {
        self.entries.get(flow as usize)?.as_deref()
    }

    pub fn get_mut(&mut self, flow: u32) -> Option<&mut Flow<K, T>> {
        self.entries.get_mut(flow as usize)?.as_deref_mut()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Flow<K, T>> {
        self.entries.iter().filter_map(Option::as_deref)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Flow<K, T>> {
        self.entries.iter_mut().filter_map(Option::as_deref_mut)
    }

    fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Number of flows with tasks.
    pub fn active(&self) -> usize {
        self.len() - self.idle
    }

    /// Sum of the weights of the flows with tasks, in thousandths.
    pub fn weights(&self) -> u64 {
        self.weights
    }

    /// Adds a flow without tasks if there is none with the key.
    pub fn find_or_add(&mut self, key: &K, weight: impl FnOnce() -> Weight) -> u32 {
        self.last = self.find(key).unwrap_or_else(|| self.add(key, weight()));
        self.last
    }

    fn add(&mut self, key: &K, weight: Weight) -> u32 {
        let flow = Flow {
            key: key.clone(),
            tasks: T::default(),
            is_held: false,
            weight,
            start: 0,
            in_order: false,
            in_ages: false,
            in_idlers: false,
        };
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
        });
        self.entries[index as usize] = Some(Box::new(flow));
        self.idle += 1;
        let hash = self.hasher.hash_one(key);
        let (flows, hasher) = (&self.entries, &self.hasher);
        let hash_of = |other: &u32| flows[*other as usize].as_ref().map_or(0, |flow| hasher.hash_one(&flow.key));
        if let KeyIndex::Small(index) = &mut self.by_key
            && index.len() >= SMALL_MAX
        {
            let mut large = HashIndex::default();
            index.drain().for_each(|flow| large.insert(hash_of(&flow), flow, hash_of));
            self.by_key = KeyIndex::Large(large);
        }
        match &mut self.by_key {
            KeyIndex::Small(by_key) => drop(by_key.insert_unique(hash, index, hash_of)),
            KeyIndex::Large(by_key) => by_key.insert(hash, index, hash_of),
        }
        index
    }

    /// Call it when a flow has got its first task, or is held no more.
    pub fn wake(&mut self, flow: u32, had_tasks: bool) {
        if let Some((_, start)) = self.first() {
            self.now = self.now.max(start);
        }
        let (now, count) = (self.now, self.len());
        let Some(woken) = self.entries[flow as usize].as_deref_mut() else { return };
        if !had_tasks {
            self.idle -= 1;
            self.weights += woken.weight.thousandths();
        }
        woken.start = woken.start.max(now);
        if !std::mem::replace(&mut woken.in_order, true) {
            self.order.add(flow, woken.start, count);
        }
        if !std::mem::replace(&mut woken.in_ages, true)
            && let Some(oldest) = woken.tasks.oldest()
        {
            self.ages.add(flow, oldest.stamp, count);
        }
    }

    /// Call it when a flow has lost its last task.
    pub fn sleep(&mut self, flow: u32) {
        self.idle += 1;
        let Some(asleep) = self.entries[flow as usize].as_deref_mut() else { return };
        self.weights -= asleep.weight.thousandths();
        if !std::mem::replace(&mut asleep.in_idlers, true) {
            self.idlers.push_back(flow);
        }
        if self.active() == 0 && self.entries.len() > SMALL_MAX {
            // Gives back the memory of a great many flows.
            *self = Self::default();
        }
        while self.idle > self.active() + IDLE_MAX
            && let Some(index) = self.idlers.pop_front()
        {
            let Some(idler) = self.get_mut(index) else { continue };
            idler.in_idlers = false;
            if idler.tasks.count() == 0 {
                self.remove(index as usize);
            }
        }
    }

    fn remove(&mut self, flow: usize) {
        let Some(removed) = self.entries[flow].take() else { return };
        let index = u32::try_from(flow).unwrap_or(u32::MAX);
        let hash = self.hasher.hash_one(&removed.key);
        match &mut self.by_key {
            KeyIndex::Small(by_key) => {
                if let Ok(entry) = by_key.find_entry(hash, |other| *other == index) {
                    entry.remove();
                }
            }
            KeyIndex::Large(by_key) => by_key.remove(hash, index),
        }
        self.idle -= 1;
        self.free.push(index);
    }

    /// The flow whose turn it is: with tasks and not held.
    pub fn next(&mut self) -> Option<u32> {
        if self.active() == 1
            && let Some(only) = self.get(self.last).filter(|flow| flow.tasks.count() > 0 && !flow.is_held)
        {
            self.now = self.now.max(only.start);
            return Some(self.last);
        }
        let (flow, start) = self.first()?;
        self.now = self.now.max(start);
        Some(flow)
    }

    /// The flow with the earliest start, and the start.
    fn first(&mut self) -> Option<(u32, u64)> {
        let flows = &mut self.entries;
        self.order.first(|flow| {
            let flow = flows[flow as usize].as_deref_mut()?;
            flow.in_order = !flow.is_held && flow.tasks.count() > 0;
            flow.in_order.then_some(flow.start)
        })
    }

    /// The flow with the oldest task of those that are not held.
    pub fn oldest(&mut self) -> Option<u32> {
        let flows = &mut self.entries;
        let oldest = self.ages.first(|flow| {
            let flow = flows[flow as usize].as_deref_mut()?;
            let oldest = if flow.is_held { None } else { flow.tasks.oldest() };
            flow.in_ages = oldest.is_some();
            oldest.map(|entry| entry.stamp)
        });
        oldest.map(|(flow, _)| flow)
    }

    /// Charges a flow for a task.
    pub fn charge(&mut self, flow: u32, cost: u64) {
        if let Some(flow) = self.get_mut(flow) {
            flow.start = flow.start.saturating_add(flow.weight.charge(cost));
        }
    }

    /// Replaces what a flow was charged for a task by another cost.
    pub fn recharge(&mut self, flow: u32, charged: u64, cost: u64) {
        let count = self.len();
        let Some(found) = self.entries.get_mut(flow as usize).and_then(Option::as_deref_mut) else { return };
        let before = found.start;
        found.start = before.saturating_add(found.weight.charge(cost)).saturating_sub(found.weight.charge(charged));
        if found.start < before && found.in_order {
            self.order.add(flow, found.start, count);
        }
    }

    /// Sets the weights of all flows.
    pub fn set_weights(&mut self, weight_of: impl Fn(&K) -> Weight) {
        self.weights = 0;
        for flow in self.entries.iter_mut().filter_map(Option::as_deref_mut) {
            flow.weight = weight_of(&flow.key);
            self.weights += if flow.tasks.count() > 0 { flow.weight.thousandths() } else { 0 };
        }
    }

    /// Lets all flows start anew, in the order of their oldest tasks.
    pub fn start_anew(&mut self) {
        self.order.clear();
        self.ages.clear();
        self.idlers.clear();
        self.now = 0;
        let mut order = Vec::new();
        for index in 0..self.entries.len() {
            let Some(flow) = self.entries[index].as_deref_mut() else { continue };
            let Some(oldest) = flow.tasks.oldest() else {
                self.remove(index);
                continue;
            };
            (flow.start, flow.in_order, flow.in_ages, flow.in_idlers) = (0, true, true, false);
            order.push((oldest.stamp, u32::try_from(index).unwrap_or(u32::MAX)));
        }
        order.sort_unstable();
        for (stamp, flow) in order {
            self.order.add(flow, 0, self.entries.len());
            self.ages.add(flow, stamp, self.entries.len());
        }
    }

    /// Flows with tasks that are not held, in the order of their next turns.
    #[cfg(test)]
    pub fn turns(&self) -> impl Iterator<Item = &Flow<K, T>> {
        let flows = self.order.flows().filter_map(|flow| self.get(flow));
        flows.filter(|flow| !flow.is_held && flow.tasks.count() > 0)
    }

    /// Compares the counts with the flows.
    #[cfg(test)]
    pub fn check(&self) {
        let flows = || self.iter();
        assert_eq!(flows().count(), self.len());
        assert_eq!(flows().filter(|flow| flow.tasks.count() == 0).count(), self.idle, "flows without tasks");
        let active = || flows().filter(|flow| flow.tasks.count() > 0);
        assert_eq!(active().map(|flow| flow.weight.thousandths()).sum::<u64>(), self.weights);
        assert!(active().all(|flow| flow.is_held || flow.in_order && flow.in_ages), "each has its turn");
        assert!(flows().all(|flow| self.find(&flow.key).is_some()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Count(usize);

    impl FlowTasks for Count {
        fn count(&self) -> usize {
            self.0
        }

        fn oldest(&mut self) -> Option<QueueEntry> {
            (self.0 > 0).then_some(QueueEntry { index: 0, stamp: 0 })
        }
    }

    fn with_tasks(flows: &mut Flows<u32, Count>, key: u32, weight: f64, count: usize) -> u32 {
        let flow = flows.find_or_add(&key, || Weight::new(weight).unwrap());
        let tasks = &mut flows.get_mut(flow).unwrap().tasks;
        let had_tasks = tasks.0 > 0;
        tasks.0 += count;
        if !had_tasks {
            flows.wake(flow, had_tasks);
        }
        flow
    }

    fn serve(flows: &mut Flows<u32, Count>, cost: u64) -> Option<u32> {
        let flow = flows.next()?;
        let served = flows.get_mut(flow).unwrap();
        served.tasks.0 -= 1;
        let (key, is_last) = (served.key, served.tasks.0 == 0);
        flows.charge(flow, cost);
        if is_last {
            flows.sleep(flow);
        }
        Some(key)
    }

    const TASK: u64 = 1_000_000;

    #[test]
    fn flows_of_equal_weight_are_served_in_turn() {
        let mut flows = Flows::default();
        for key in 0..3 {
            with_tasks(&mut flows, key, 1.0, 3);
        }
        let served: Vec<_> = std::iter::from_fn(|| serve(&mut flows, TASK)).collect();
        assert_eq!(served, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn shares_follow_weights_that_differ_by_any_factor() {
        let mut flows = Flows::default();
        with_tasks(&mut flows, 0, 0.5, 1_000);
        with_tasks(&mut flows, 1, 1.0, 1_000);
        with_tasks(&mut flows, 2, 2.5, 1_000);
        let mut served = [0; 3];
        for _ in 0..800 {
            served[serve(&mut flows, TASK).unwrap() as usize] += 1;
        }
        assert_eq!(served, [100, 200, 500]);
    }

    #[test]
    fn a_flow_that_costs_more_is_served_less_often() {
        let mut flows = Flows::default();
        with_tasks(&mut flows, 0, 1.0, 1_000);
        with_tasks(&mut flows, 1, 1.0, 1_000);
        let mut served = [0; 2];
        for _ in 0..500 {
            let flow = flows.next().unwrap();
            served[flow as usize] += 1;
            flows.charge(flow, if flow == 0 { TASK } else { 4 * TASK });
        }
        assert_eq!(served, [400, 100]);
    }

    #[test]
    fn a_flow_has_no_claim_to_the_time_in_which_it_had_no_tasks() {
        let mut flows = Flows::default();
        with_tasks(&mut flows, 0, 1.0, 1_000);
        for _ in 0..500 {
            serve(&mut flows, TASK);
        }
        with_tasks(&mut flows, 1, 1.0, 10);
        let served: Vec<_> = (0..6).map_while(|_| serve(&mut flows, TASK)).collect();
        assert_eq!(served, [0, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn a_flow_that_always_has_one_task_gets_no_more_than_its_share() {
        let mut flows = Flows::default();
        with_tasks(&mut flows, 0, 1.0, 1_000);
        with_tasks(&mut flows, 1, 1.0, 1_000);
        let mut served = [0; 3];
        for _ in 0..900 {
            if flows.find(&2).is_none_or(|flow| flows.get(flow).unwrap().tasks.0 == 0) {
                with_tasks(&mut flows, 2, 1.0, 1);
            }
            served[serve(&mut flows, TASK).unwrap() as usize] += 1;
        }
        assert_eq!(served, [300, 300, 300]);
    }

    #[test]
    fn flows_without_tasks_need_bounded_memory() {
        let mut flows = Flows::default();
        for key in 0..100_000 {
            with_tasks(&mut flows, key, 1.0, 1);
        }
        assert!(matches!(flows.by_key, KeyIndex::Large(_)));
        while serve(&mut flows, TASK).is_some() {
            assert!(flows.idle <= flows.active() + IDLE_MAX + 1, "{} of {}", flows.idle, flows.len());
        }
        assert_eq!((flows.len(), flows.entries.capacity()), (0, 0));
        for key in 0..100_000 {
            with_tasks(&mut flows, key, 1.0, 1);
            serve(&mut flows, TASK);
        }
        flows.check();
        assert!(flows.len() <= IDLE_MAX + 1, "{} flows", flows.len());
    }
}
