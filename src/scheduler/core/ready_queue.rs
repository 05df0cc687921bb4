//! The ready queue of a pool: the order in which its QUEUED tasks are dispatched.
//!
//! Four bands by priority. In a band the namespaces share the slots by their weights, and in a namespace its fairness keys do (see
//! [`super::flows`]). So a namespace gets no larger share by using many keys. Inside a key first in, first out, interrupted
//! tasks before all others. A namespace that has all the slots it may have is held: the others are served as if it had no tasks.
//!
//! When a task leaves the queue other than by `pop`, its entry becomes stale. Stale entries at the front of a lane
//! are removed at once, and compaction keeps the number of others within a constant factor of the live ones.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{Charge, FairnessKey, Namespace, Priority, TaskOptions, Weights};

use super::flows::{FlowTasks, Flows};
use super::key_queue::{KeyQueue, QueueEntry};
use super::mean::{Mean, micros};

#[derive(Debug, Default)]
pub struct ReadyQueue {
    bands: [Band; Priority::COUNT],
    weights: Arc<Weights>,
    /// Average time for which attempts had their slots, where that is charged.
    mean: Mean,
}

/// Stale entries that a band may have in addition to as many as live entries.
const STALE_MAX: usize = 1024;
/// Cost of a task, and of a second of slot time.
const TASK: u64 = 1_000_000;

#[derive(Debug, Default)]
struct Band {
    namespaces: Flows<Namespace, NamespaceTasks>,
    live: usize,
    /// Live entries of namespaces that are held.
    held: usize,
    /// Live and stale entries.
    entries: usize,
}

#[derive(Debug, Default)]
struct NamespaceTasks {
    /// Tasks without a key are one of the flows.
    keys: Flows<Option<FairnessKey>, KeyQueue>,
    live: usize,
}

impl FlowTasks for KeyQueue {
    fn count(&self) -> usize {
        self.live
    }

    fn oldest(&mut self) -> Option<QueueEntry> {
        let fronts = [self.interrupted.front(), self.others.front()];
        fronts.into_iter().flatten().min_by_key(|entry| entry.stamp).copied()
    }
}

impl FlowTasks for NamespaceTasks {
    fn count(&self) -> usize {
        self.live
    }

    fn oldest(&mut self) -> Option<QueueEntry> {
        let key = self.keys.oldest()?;
        self.keys.get_mut(key)?.tasks.oldest()
    }
}

/// The next task of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Popped {
    pub entry: QueueEntry,
    pub rivals: Rivals,
    /// What its namespace and its key were charged.
    pub cost: u64,
}

/// What a task shares the slots with, of those with the same priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rivals {
    /// Other namespaces with tasks.
    pub namespaces: u32,
    /// Other fairness keys of the namespace with tasks.
    pub keys: u32,
}

impl Rivals {
    /// Of so many namespaces and keys with tasks, one is that of the task itself.
    fn of(namespaces: usize, keys: usize) -> Self {
        let others = |count: usize| u32::try_from(count.saturating_sub(1)).unwrap_or(u32::MAX);
        Self { namespaces: others(namespaces), keys: others(keys) }
    }
}

impl ReadyQueue {
    pub fn set_weights(&mut self, weights: Arc<Weights>) {
        for band in &mut self.bands {
            band.namespaces.set_weights(|namespace| weights.of_namespace(namespace));
            for flow in band.namespaces.iter_mut() {
                flow.tasks.keys.set_weights(|key| weights.of_key(&flow.key, key.as_ref()));
            }
        }
        self.weights = weights;
    }

    /// From now on no task of the namespace can start, since it has all the slots that it may have. Returns whether there are some.
    pub fn hold(&mut self, namespace: &Namespace) -> bool {
        self.bands.iter_mut().map(|band| usize::from(band.hold(namespace))).sum::<usize>() > 0
    }

    /// Tasks of the namespace can start again. Returns whether there are some.
    pub fn release(&mut self, namespace: &Namespace) -> bool {
        self.bands.iter_mut().map(|band| usize::from(band.release(namespace))).sum::<usize>() > 0
    }

    /// Whether there are tasks of the namespace.
    pub fn has(&self, namespace: &Namespace) -> bool {
        self.bands.iter().any(|band| band.tasks_of(namespace).is_some_and(|tasks| tasks.live > 0))
    }

    /// The namespaces with tasks, those with tasks of several priorities more than once.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        let flows = self.bands.iter().flat_map(|band| band.namespaces.iter());
        flows.filter(|flow| flow.tasks.live > 0).map(|flow| &flow.key)
    }

    /// Adds a task behind those with the same priority and key, except that an interrupted task goes before all that were
    /// not interrupted. Returns whether it is the first of its namespace and priority. `is_held` is whether the namespace is.
    pub fn push(&mut self, options: &TaskOptions, entry: QueueEntry, interrupted: bool, is_held: bool) -> bool {
        self.bands[options.priority.index()].push(options, &self.weights, entry, interrupted, is_held)
    }

    /// Orders the entries of each key by their stamps, and keys and namespaces by their first entries. Call it when tasks were
    /// restored in another order, and nothing was popped.
    pub fn order_restored(&mut self, is_live: impl Fn(QueueEntry) -> bool) {
        self.bands.iter_mut().for_each(|band| band.order_restored(&is_live));
    }

    /// Records that the entry of a task with these options has become stale.
    pub fn mark_stale(&mut self, options: &TaskOptions, is_live: impl Fn(QueueEntry) -> bool) {
        self.bands[options.priority.index()].mark_stale(options, is_live);
    }

    /// Removes and returns the next task of this priority whose namespace is not held.
    pub fn pop(&mut self, priority: Priority, charge: Charge, is_live: impl Fn(QueueEntry) -> bool) -> Option<Popped> {
        let expected = match charge {
            Charge::Tasks => None,
            // Until one is measured, a second.
            Charge::SlotTime => Some(self.mean.us().unwrap_or(TASK)),
        };
        self.bands[priority.index()].pop(expected, is_live)
    }

    /// The attempt of a task with these options, for which its key was charged, has had its slot for a time, or has not started.
    pub fn settle(&mut self, options: &TaskOptions, charged: u64, taken: Option<Duration>) {
        if let Some(taken) = taken {
            self.mean.add(taken);
        }
        self.bands[options.priority.index()].settle(options, charged, taken);
    }

    /// Number of queued tasks of this priority.
    pub fn len(&self, priority: Priority) -> usize {
        self.bands[priority.index()].live
    }

    /// Number of queued tasks of this priority whose namespace is not held.
    pub fn startable(&self, priority: Priority) -> usize {
        let band = &self.bands[priority.index()];
        band.live - band.held
    }

    /// Number of live entries of the same key before `entry`, and whether `entry` was found. Looks at no more than `max` entries.
    pub fn before(
        &self,
        options: &TaskOptions,
        entry: QueueEntry,
        max: usize,
        is_live: impl Fn(QueueEntry) -> bool,
    ) -> (usize, bool) {
        let tasks = self.bands[options.priority.index()].tasks_of_key(options);
        let mut before = 0;
        for other in tasks.into_iter().flat_map(KeyQueue::iter).take(max) {
            if other == entry {
                return (before, true);
            }
            before += usize::from(is_live(other));
        }
        (before, false)
    }

    /// What a queued task with these options shares the slots with.
    pub fn rivals(&self, options: &TaskOptions) -> Rivals {
        let band = &self.bands[options.priority.index()];
        let keys = band.tasks_of(&options.namespace).map_or(0, |tasks| tasks.keys.active());
        Rivals::of(band.namespaces.active(), keys)
    }

    /// Number of tasks of this priority that start while `count` tasks with these options do, if the others have enough tasks.
    pub fn starts_with(&self, options: &TaskOptions, count: u64) -> u64 {
        let band = &self.bands[options.priority.index()];
        let namespace = self.weights.of_namespace(&options.namespace);
        let key = self.weights.of_key(&options.namespace, options.fairness_key.as_ref());
        let keys = band.tasks_of(&options.namespace).map_or(0, |tasks| tasks.keys.weights());
        let of_namespace = u128::from(count) * u128::from(keys.max(key.thousandths())) / u128::from(key.thousandths());
        let weights = band.namespaces.weights().max(namespace.thousandths());
        let all = of_namespace * u128::from(weights) / u128::from(namespace.thousandths());
        u64::try_from(all).unwrap_or(u64::MAX)
    }

    /// The entries of this priority with their namespaces and keys, those of each key in order. Some may be stale.
    #[cfg(test)]
    pub fn entries(
        &self,
        priority: Priority,
    ) -> impl Iterator<Item = ((&Namespace, Option<&FairnessKey>), QueueEntry)> {
        let namespaces = self.bands[priority.index()].namespaces.iter();
        let keys = namespaces.flat_map(|flow| flow.tasks.keys.iter().map(move |key| (&flow.key, key)));
        keys.flat_map(|(namespace, flow)| flow.tasks.iter().map(move |entry| ((namespace, flow.key.as_ref()), entry)))
    }

    /// Namespaces and keys with tasks of this priority that can start, in the order of their next turns.
    #[cfg(test)]
    pub fn turns(&self, priority: Priority) -> Vec<(Namespace, Option<FairnessKey>)> {
        let namespaces = self.bands[priority.index()].namespaces.turns();
        let keys = namespaces.flat_map(|flow| flow.tasks.keys.turns().map(|key| (flow.key.clone(), key.key.clone())));
        keys.collect()
    }

    /// Compares all counts with the entries, and which namespaces are held.
    #[cfg(test)]
    pub fn check(&self, is_held: impl Fn(&Namespace) -> bool, is_live: impl Fn(QueueEntry) -> bool) {
        for band in &self.bands {
            let (mut live, mut held, mut entries) = (0, 0, 0);
            band.namespaces.check();
            for flow in band.namespaces.iter() {
                flow.tasks.keys.check();
                for key in flow.tasks.keys.iter() {
                    let found = key.tasks.iter().filter(|entry| is_live(*entry)).count();
                    assert_eq!(key.tasks.live, found, "live entries of {:?} in {}", key.key, flow.key);
                    entries += key.tasks.len();
                }
                let of_keys: usize = flow.tasks.keys.iter().map(|key| key.tasks.live).sum();
                assert_eq!(flow.tasks.live, of_keys, "live entries of {}", flow.key);
                assert!(of_keys == 0 || flow.is_held == is_held(&flow.key), "whether {} is held", flow.key);
                live += of_keys;
                held += if flow.is_held { of_keys } else { 0 };
            }
            assert_eq!((band.live, band.held, band.entries), (live, held, entries));
        }
    }

    /// The oldest task of this priority whose namespace is not held.
    pub fn oldest_startable(&mut self, priority: Priority) -> Option<QueueEntry> {
        let namespaces = &mut self.bands[priority.index()].namespaces;
        let oldest = namespaces.oldest()?;
        namespaces.get_mut(oldest)?.tasks.oldest()
    }

    /// The first entries of this priority, among which is the one that has waited longest: the oldest of each namespace. They are live.
    pub fn oldest(&mut self, priority: Priority) -> impl Iterator<Item = QueueEntry> {
        self.bands[priority.index()].namespaces.iter_mut().filter_map(|flow| flow.tasks.oldest())
    }
}

impl Band {
    fn tasks_of(&self, namespace: &Namespace) -> Option<&NamespaceTasks> {
        Some(&self.namespaces.get(self.namespaces.find(namespace)?)?.tasks)
    }

    fn tasks_of_key(&self, options: &TaskOptions) -> Option<&KeyQueue> {
        let keys = &self.tasks_of(&options.namespace)?.keys;
        Some(&keys.get(keys.find(&options.fairness_key)?)?.tasks)
    }

    fn push(
        &mut self,
        options: &TaskOptions,
        weights: &Weights,
        entry: QueueEntry,
        interrupted: bool,
        is_held: bool,
    ) -> bool {
        let TaskOptions { namespace, fairness_key, .. } = options;
        self.live += 1;
        self.held += usize::from(is_held);
        self.entries += 1;
        let index = self.namespaces.find_or_add(namespace, || weights.of_namespace(namespace));
        let Some(flow) = self.namespaces.get_mut(index) else { return false };
        let keys = &mut flow.tasks.keys;
        let key = keys.find_or_add(fairness_key, || weights.of_key(namespace, fairness_key.as_ref()));
        if let Some(of_key) = keys.get_mut(key) {
            let tasks = &mut of_key.tasks;
            if interrupted { &mut tasks.interrupted } else { &mut tasks.others }.push_back(entry);
            tasks.live += 1;
            if tasks.live == 1 {
                keys.wake(key, false);
            }
        }
        flow.tasks.live += 1;
        let is_first = flow.tasks.live == 1;
        if is_first {
            flow.is_held = is_held;
            self.namespaces.wake(index, false);
        }
        is_first
    }

    /// Returns whether the band has tasks of the namespace that could start.
    fn hold(&mut self, namespace: &Namespace) -> bool {
        let found = self.namespaces.find(namespace).and_then(|index| self.namespaces.get_mut(index));
        let Some(flow) = found.filter(|flow| !flow.is_held) else { return false };
        flow.is_held = true;
        self.held += flow.tasks.live;
        flow.tasks.live > 0
    }

    /// Returns whether the band has tasks of the namespace that were held.
    fn release(&mut self, namespace: &Namespace) -> bool {
        let Some(index) = self.namespaces.find(namespace) else { return false };
        let Some(flow) = self.namespaces.get_mut(index).filter(|flow| flow.is_held) else { return false };
        flow.is_held = false;
        let live = flow.tasks.live;
        self.held -= live;
        if live > 0 {
            self.namespaces.wake(index, true);
        }
        live > 0
    }

    /// `expected`: what a task of a key costs if its slot time is charged and that key has no average.
    fn pop(&mut self, expected: Option<u64>, is_live: impl Fn(QueueEntry) -> bool) -> Option<Popped> {
        if self.live == self.held {
            return None;
        }
        let index = self.namespaces.next()?;
        let namespaces = self.namespaces.active();
        let flow = self.namespaces.get_mut(index)?;
        let keys = &mut flow.tasks.keys;
        let rivals = Rivals::of(namespaces, keys.active());
        let key = keys.next()?;
        let tasks = &mut keys.get_mut(key)?.tasks;
        let entry = tasks.pop_front()?;
        tasks.live -= 1;
        self.entries -= 1 + tasks.remove_stale_fronts(&is_live);
        let is_last_of_key = tasks.live == 0;
        let cost = expected.map_or(TASK, |expected| tasks.mean.us().unwrap_or(expected));
        keys.charge(key, cost);
        if is_last_of_key {
            keys.sleep(key);
        }
        flow.tasks.live -= 1;
        let is_last = flow.tasks.live == 0;
        self.namespaces.charge(index, cost);
        if is_last {
            self.namespaces.sleep(index);
        }
        self.live -= 1;
        Some(Popped { entry, rivals, cost })
    }

    fn settle(&mut self, options: &TaskOptions, charged: u64, taken: Option<Duration>) {
        let cost = taken.map_or(0, micros);
        let Some(index) = self.namespaces.find(&options.namespace) else { return };
        self.namespaces.recharge(index, charged, cost);
        let Some(flow) = self.namespaces.get_mut(index) else { return };
        let keys = &mut flow.tasks.keys;
        let Some(key) = keys.find(&options.fairness_key) else { return };
        keys.recharge(key, charged, cost);
        if let (Some(of_key), Some(taken)) = (keys.get_mut(key), taken) {
            of_key.tasks.mean.add(taken);
        }
    }

    fn mark_stale(&mut self, options: &TaskOptions, is_live: impl Fn(QueueEntry) -> bool) {
        let Some(index) = self.namespaces.find(&options.namespace) else { return };
        let Some(flow) = self.namespaces.get_mut(index) else { return };
        let keys = &mut flow.tasks.keys;
        let Some(key) = keys.find(&options.fairness_key) else { return };
        let Some(of_key) = keys.get_mut(key) else { return };
        of_key.tasks.live -= 1;
        self.entries -= of_key.tasks.remove_stale_fronts(&is_live);
        if of_key.tasks.live == 0 {
            keys.sleep(key);
        }
        flow.tasks.live -= 1;
        self.live -= 1;
        self.held -= usize::from(flow.is_held);
        if flow.tasks.live == 0 {
            self.namespaces.sleep(index);
        }
        if self.entries > 2 * self.live + STALE_MAX {
            self.compact(is_live);
        }
    }

    fn compact(&mut self, is_live: impl Fn(QueueEntry) -> bool) {
        for key in self.namespaces.iter_mut().flat_map(|flow| flow.tasks.keys.iter_mut()) {
            for lane in [&mut key.tasks.interrupted, &mut key.tasks.others] {
                lane.retain(|entry| is_live(*entry));
            }
        }
        self.entries = self.live;
    }

    fn order_restored(&mut self, is_live: impl Fn(QueueEntry) -> bool) {
        for flow in self.namespaces.iter_mut() {
            for key in flow.tasks.keys.iter_mut() {
                for lane in [&mut key.tasks.interrupted, &mut key.tasks.others] {
                    lane.make_contiguous().sort_unstable_by_key(|entry| entry.stamp);
                }
                self.entries -= key.tasks.remove_stale_fronts(&is_live);
            }
            flow.tasks.keys.start_anew();
        }
        self.namespaces.start_anew();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{KeyPattern, Weight, WeightRule};

    fn namespace(name: &str) -> Namespace {
        Namespace::parse(name).unwrap()
    }

    fn task(name: &str, priority: Priority) -> TaskOptions {
        TaskOptions { namespace: namespace(name), priority, ..TaskOptions::sample() }
    }

    fn with_key(name: &str, key: &str) -> TaskOptions {
        TaskOptions { fairness_key: FairnessKey::parse(key).ok(), ..task(name, Priority::Normal) }
    }

    fn entry(index: u32) -> QueueEntry {
        QueueEntry { index, stamp: index.into() }
    }

    fn pop_all(queue: &mut ReadyQueue, priority: Priority) -> Vec<u32> {
        std::iter::from_fn(|| pop(queue, priority)).map(|entry| entry.index).collect()
    }

    fn pop(queue: &mut ReadyQueue, priority: Priority) -> Option<QueueEntry> {
        queue.pop(priority, Charge::Tasks, |_| true).map(|popped| popped.entry)
    }

    #[test]
    fn namespaces_are_served_in_turn_and_each_is_first_in_first_out() {
        let mut queue = ReadyQueue::default();
        for index in 0..4 {
            queue.push(&task("loud", Priority::Normal), entry(index), false, false);
        }
        queue.push(&task("quiet", Priority::Normal), entry(9), false, false);
        assert_eq!(pop_all(&mut queue, Priority::Normal), [0, 9, 1, 2, 3]);
        assert_eq!(queue.len(Priority::Normal), 0);
    }

    #[test]
    fn a_namespace_gets_no_larger_share_by_using_many_keys() {
        let mut queue = ReadyQueue::default();
        for index in 0..100 {
            queue.push(&with_key("loud", &format!("k{index}")), entry(index), false, false);
            queue.push(&task("quiet", Priority::Normal), entry(100 + index), false, false);
        }
        let first = &pop_all(&mut queue, Priority::Normal)[..100];
        assert_eq!(first.iter().filter(|index| **index >= 100).count(), 50);
    }

    #[test]
    fn keys_of_a_namespace_share_its_part_by_their_weights() {
        let mut queue = ReadyQueue::default();
        let gold = WeightRule {
            namespace: namespace("a"),
            key: Some(KeyPattern::parse("gold*").unwrap()),
            weight: Weight::new(3.0).unwrap(),
        };
        queue.set_weights(Arc::new(Weights([gold].into())));
        for index in 0..100 {
            queue.push(&with_key("a", "gold1"), entry(index), false, false);
            queue.push(&with_key("a", "free"), entry(100 + index), false, false);
            queue.push(&task("b", Priority::Normal), entry(200 + index), false, false);
        }
        let rivals = queue.rivals(&with_key("a", "free"));
        assert_eq!(rivals, Rivals { namespaces: 1, keys: 1 });
        assert_eq!(queue.starts_with(&with_key("a", "free"), 5), 40, "an eighth of all");
        let first = &pop_all(&mut queue, Priority::Normal)[..80];
        let count = |range: std::ops::Range<u32>| first.iter().filter(|index| range.contains(index)).count();
        assert_eq!([count(0..100), count(100..200), count(200..300)], [30, 10, 40]);
    }

    #[test]
    fn new_weights_apply_to_tasks_that_wait() {
        let mut queue = ReadyQueue::default();
        for index in 0..100 {
            queue.push(&task("a", Priority::Normal), entry(index), false, false);
            queue.push(&task("b", Priority::Normal), entry(100 + index), false, false);
        }
        let weight = Weight::new(0.25).unwrap();
        queue.set_weights(Arc::new(Weights([WeightRule { namespace: namespace("a"), key: None, weight }].into())));
        let first = &pop_all(&mut queue, Priority::Normal)[..50];
        assert_eq!(first.iter().filter(|index| **index < 100).count(), 10);
    }

    #[test]
    fn a_namespace_that_is_held_is_passed_over_until_it_is_released() {
        let mut queue = ReadyQueue::default();
        let (loud, quiet) = (namespace("loud"), namespace("quiet"));
        for index in 0..4 {
            queue.push(&task("loud", Priority::High), entry(index), false, false);
        }
        queue.push(&task("quiet", Priority::Normal), entry(9), false, false);
        for index in 0..2 {
            assert_eq!(pop(&mut queue, Priority::High), Some(entry(index)));
        }
        assert!(queue.hold(&loud));
        assert_eq!(pop(&mut queue, Priority::High), None);
        assert_eq!((queue.startable(Priority::High), queue.len(Priority::High)), (0, 2));
        assert_eq!(pop(&mut queue, Priority::Normal), Some(entry(9)));
        assert!(queue.push(&task("loud", Priority::Low), entry(7), false, true), "new in its band");
        assert_eq!(queue.startable(Priority::Low), 0, "in no band");
        assert!(queue.release(&loud));
        assert_eq!((queue.startable(Priority::High), queue.startable(Priority::Low)), (2, 1));
        assert_eq!(pop(&mut queue, Priority::High), Some(entry(2)));
        assert!(!queue.release(&quiet) && !queue.has(&quiet) && queue.has(&loud));
    }

    /// Each is looked at once, however many are held.
    #[test]
    fn namespaces_that_are_held_leave_the_order() {
        let mut queue = ReadyQueue::default();
        let names: Vec<_> = (0..10_000).map(|index| format!("k{index}")).collect();
        for name in &names {
            queue.push(&task(name, Priority::Low), entry(0), false, false);
            queue.push(&task(name, Priority::Low), entry(1), false, false);
            queue.hold(&namespace(name));
        }
        assert_eq!(pop(&mut queue, Priority::Low), None);
        queue.release(&namespace(&names[5_000]));
        assert_eq!(pop(&mut queue, Priority::Low), Some(entry(0)));
        queue.hold(&namespace(&names[5_000]));
        queue.release(&namespace(&names[9_999]));
        assert_eq!(pop(&mut queue, Priority::Low), Some(entry(0)));
        assert_eq!((queue.startable(Priority::Low), queue.len(Priority::Low)), (1, 19_998));
    }

    #[test]
    fn stale_entries_are_skipped_and_compacted() {
        let mut queue = ReadyQueue::default();
        let options = task("a", Priority::Low);
        for index in 0..10_000 {
            queue.push(&options, entry(index), false, false);
        }
        // The first one stays live, so that no stale entry is at the front.
        for last in 1..10_000 {
            queue.mark_stale(&options, |entry| entry.index == 0 || entry.index > last);
        }
        assert_eq!(queue.len(Priority::Low), 1);
        assert!(queue.bands[0].entries <= 1_026, "{} entries are kept", queue.bands[0].entries);
        assert_eq!(pop_all(&mut queue, Priority::Low)[0], 0);
    }

    #[test]
    fn the_first_entry_of_a_key_is_always_live() {
        let mut queue = ReadyQueue::default();
        let options = task("a", Priority::Low);
        for index in 0..6 {
            queue.push(&options, entry(index), false, false);
        }
        let is_live = |entry: QueueEntry| ![1, 2, 4, 5].contains(&entry.index);
        for _ in 0..4 {
            queue.mark_stale(&options, is_live);
        }
        assert_eq!(queue.pop(Priority::Low, Charge::Tasks, is_live).map(|popped| popped.entry), Some(entry(0)));
        assert_eq!(queue.oldest(Priority::Low).collect::<Vec<_>>(), [entry(3)]);
        assert_eq!(queue.bands[0].entries, 3);
    }

    #[test]
    fn the_oldest_task_is_found_among_all_keys() {
        let mut queue = ReadyQueue::default();
        for index in [7, 3, 9] {
            queue.push(&with_key("a", &format!("k{index}")), entry(index), false, false);
        }
        assert_eq!(queue.oldest(Priority::Normal).collect::<Vec<_>>(), [entry(3)]);
        queue.mark_stale(&with_key("a", "k3"), |entry| entry.index != 3);
        queue.push(&with_key("a", "k3"), entry(11), false, false);
        assert_eq!(queue.oldest(Priority::Normal).collect::<Vec<_>>(), [entry(7)]);
    }

    #[test]
    fn keys_without_live_entries_are_bounded() {
        let mut queue = ReadyQueue::default();
        for index in 0..10_000 {
            let options = with_key("a", &format!("k{index}"));
            queue.push(&options, entry(index), false, false);
            queue.mark_stale(&options, |_| false);
        }
        let keys = queue.bands[Priority::Normal.index()].tasks_of(&namespace("a")).unwrap().keys.iter().count();
        assert!(keys <= 100, "{keys} keys are kept");
        queue.push(&with_key("a", "k9999"), entry(1), false, false);
        assert_eq!(pop(&mut queue, Priority::Normal), Some(entry(1)));
        queue.check(|_| false, |_| true);
    }
}
