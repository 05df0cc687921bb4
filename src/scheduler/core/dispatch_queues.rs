//! The dispatch queues of a pool, and which of them have changed since the last dispatch. Only these have something to
//! dispatch, or to tell the pool, so that a turn does not depend on the number of handlers.

use std::slice;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::model::{HandlerName, Namespace, TaskOptions, Weights};

use super::dispatch_queue::DispatchQueue;
use super::key_queue::QueueEntry;
use super::namespace_slots::NamespaceSlots;
use super::ready_queue::ReadyQueue;

#[derive(Debug, Default)]
pub struct DispatchQueues {
    queues: Vec<DispatchQueue>,
    /// Indexes of the queues of handlers. Empty in a pool with workers of its own, whose queue has no handler.
    by_handler: HashMap<HandlerName, usize>,
    /// Indexes of the queues that have changed, each once.
    changed: Vec<usize>,
    slots: NamespaceSlots,
    weights: Arc<Weights>,
    /// Queues that were looked at because a namespace has got its last slot, or has one again.
    #[cfg(test)]
    pub visits: usize,
}

impl DispatchQueues {
    /// `max`: slots of the pool that a namespace may have at once.
    pub fn new(max: Option<usize>, weights: Arc<Weights>) -> Self {
        Self { slots: NamespaceSlots::new(max), weights, ..Self::default() }
    }

    pub fn len(&self) -> usize {
        self.queues.len()
    }

    pub fn iter(&self) -> slice::Iter<'_, DispatchQueue> {
        self.queues.iter()
    }

    pub fn get(&self, index: usize) -> Option<&DispatchQueue> {
        self.queues.get(index)
    }

    pub fn index_of(&self, handler: &HandlerName) -> Option<usize> {
        self.by_handler.get(handler).copied()
    }

    pub fn add(&mut self, mut queue: DispatchQueue) -> usize {
        let index = self.queues.len();
        queue.ready.set_weights(self.weights.clone());
        if let Some(handler) = &queue.handler {
            self.by_handler.insert(handler.clone(), index);
        }
        self.queues.push(queue);
        self.mark_changed(index);
        index
    }

    /// For a change after which there may be something to dispatch.
    pub fn change(&mut self, index: usize) -> Option<&mut DispatchQueue> {
        self.mark_changed(index);
        self.queues.get_mut(index)
    }

    /// For the dispatch itself, and for what makes no difference to it.
    pub fn get_mut(&mut self, index: usize) -> Option<&mut DispatchQueue> {
        self.queues.get_mut(index)
    }

    /// Records that every queue has changed.
    pub fn mark_all_changed(&mut self) {
        (0..self.queues.len()).for_each(|index| self.mark_changed(index));
    }

    /// For what makes no difference to a dispatch.
    pub fn iter_mut(&mut self) -> slice::IterMut<'_, DispatchQueue> {
        self.queues.iter_mut()
    }

    /// Sets the slots of all queues: those of the given handlers, and none for the others.
    pub fn set_slots(&mut self, slots: &[(HandlerName, usize)], add: impl Fn(&HandlerName) -> DispatchQueue) {
        let mut by_index = vec![0; self.queues.len()];
        for (handler, slots) in slots {
            let index = self.index_of(handler).unwrap_or_else(|| self.add(add(handler)));
            by_index.resize(self.queues.len(), 0);
            by_index[index] = *slots;
        }
        for (index, slots) in by_index.into_iter().enumerate() {
            if std::mem::replace(&mut self.queues[index].slots, slots) != slots {
                self.mark_changed(index);
            }
        }
    }

    /// Adds a task to a queue.
    pub fn push(&mut self, index: usize, options: &TaskOptions, entry: QueueEntry, interrupted: bool) {
        let is_full = self.slots.is_full(&options.namespace);
        let Some(queue) = self.change(index) else { return };
        if queue.ready.push(options, entry, interrupted, is_full) {
            self.slots.add_queue(&options.namespace, index);
        }
    }

    /// Slots of the namespace; 0 if the number is not limited.
    #[cfg(test)]
    pub fn slots_of(&self, namespace: &Namespace) -> usize {
        self.slots.taken(namespace)
    }

    /// Whether the namespace has all the slots that it may have.
    pub fn is_full(&self, namespace: &Namespace) -> bool {
        self.slots.is_full(namespace)
    }

    /// Records that an attempt of the namespace has a slot of the pool.
    pub fn take_slot(&mut self, namespace: &Namespace) {
        if self.slots.take(namespace) {
            self.visit_queues(namespace, ReadyQueue::hold);
        }
    }

    /// Records that an attempt of the namespace has lost its slot.
    pub fn return_slot(&mut self, namespace: &Namespace) {
        if self.slots.give_back(namespace) {
            self.visit_queues(namespace, ReadyQueue::release);
        } else if self.slots.is_limited() && self.slots.taken(namespace) == 0 {
            // Queues that have no more tasks of the namespace are forgotten.
            self.visit_queues(namespace, |_, _| false);
        }
    }

    /// Sets the weights of namespaces and fairness keys.
    pub fn set_weights(&mut self, weights: &Arc<Weights>) {
        self.weights.clone_from(weights);
        self.queues.iter_mut().for_each(|queue| queue.ready.set_weights(weights.clone()));
    }

    /// Changes how many slots a namespace may have at once. `taken` are those of each namespace that has any.
    pub fn limit_slots(&mut self, max: Option<usize>, taken: HashMap<Namespace, usize>) {
        self.slots.limit(max, taken);
        for (index, queue) in self.queues.iter_mut().enumerate() {
            let namespaces: Vec<Namespace> = queue.ready.namespaces().cloned().collect();
            for namespace in namespaces {
                self.slots.add_queue(&namespace, index);
                if self.slots.is_full(&namespace) {
                    queue.ready.hold(&namespace);
                } else {
                    queue.ready.release(&namespace);
                }
            }
        }
    }

    /// Changes the queues that have tasks of the namespace. `change` returns whether something can be dispatched differently.
    fn visit_queues(&mut self, namespace: &Namespace, change: impl Fn(&mut ReadyQueue, &Namespace) -> bool) {
        let Self { queues, changed, slots, .. } = self;
        #[cfg(test)]
        let visits = &mut self.visits;
        slots.visit_queues(namespace, |index| {
            #[cfg(test)]
            {
                *visits += 1;
            }
            let Some(queue) = queues.get_mut(index) else { return false };
            if change(&mut queue.ready, namespace) && !std::mem::replace(&mut queue.is_changed, true) {
                changed.push(index);
            }
            queue.ready.has(namespace)
        });
    }

    fn mark_changed(&mut self, index: usize) {
        if let Some(queue) = self.queues.get_mut(index)
            && !std::mem::replace(&mut queue.is_changed, true)
        {
            self.changed.push(index);
        }
    }

    /// Indexes of the queues that have changed.
    pub fn changed(&self) -> &[usize] {
        &self.changed
    }

    /// Forgets the changes.
    pub fn clear_changed(&mut self) {
        for index in self.changed.drain(..) {
            self.queues[index].is_changed = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Charge;

    const ENTRY: QueueEntry = QueueEntry { index: 0, stamp: 0 };

    /// Queues of this many handlers, in a pool of which a namespace may have two slots.
    fn queues(count: usize) -> DispatchQueues {
        let mut queues = DispatchQueues::new(Some(2), Arc::default());
        for number in 0..count {
            queues.add(DispatchQueue::new(Some(HandlerName::parse(&format!("h{number}")).unwrap())));
        }
        queues.clear_changed();
        queues
    }

    fn options(namespace: &str) -> TaskOptions {
        TaskOptions { namespace: Namespace::parse(namespace).unwrap(), ..TaskOptions::sample() }
    }

    fn startable(queues: &DispatchQueues, index: usize, options: &TaskOptions) -> usize {
        queues.get(index).unwrap().ready.startable(options.priority)
    }

    #[test]
    fn the_last_slot_of_a_namespace_holds_its_tasks_in_all_queues_until_one_is_returned() {
        let mut queues = queues(3);
        let (loud, quiet) = (options("loud"), options("quiet"));
        queues.push(0, &loud, ENTRY, false);
        queues.push(1, &quiet, ENTRY, false);
        queues.clear_changed();
        queues.take_slot(&loud.namespace);
        assert!(queues.changed().is_empty(), "it may have another slot");
        queues.take_slot(&loud.namespace);
        assert_eq!((queues.changed(), startable(&queues, 0, &loud)), (&[0][..], 0));
        queues.push(2, &loud, ENTRY, false);
        assert_eq!((startable(&queues, 2, &loud), startable(&queues, 1, &quiet)), (0, 1));
        queues.clear_changed();
        queues.return_slot(&loud.namespace);
        assert_eq!(queues.changed(), [0, 2]);
        assert_eq!((startable(&queues, 0, &loud), startable(&queues, 2, &loud)), (1, 1));
    }

    #[test]
    fn a_slot_concerns_only_the_queues_with_tasks_of_its_namespace() {
        let mut queues = queues(1_000);
        let (loud, quiet) = (options("loud"), options("quiet"));
        for index in 0..1_000 {
            queues.push(index, &quiet, ENTRY, false);
        }
        queues.push(7, &loud, ENTRY, false);
        for _ in 0..100 {
            queues.take_slot(&loud.namespace);
            queues.take_slot(&loud.namespace);
            queues.return_slot(&loud.namespace);
            queues.return_slot(&loud.namespace);
        }
        assert_eq!(
            queues.visits, 300,
            "queue 7 when the last slot is taken, when it is returned, and when there are none"
        );
        let mut pop = || queues.get_mut(7).unwrap().ready.pop(loud.priority, Charge::Tasks, |_| true);
        assert!(pop().is_some() && pop().is_some());
        queues.take_slot(&loud.namespace);
        queues.return_slot(&loud.namespace);
        assert_eq!(queues.slots.len(), 1, "a namespace without slots and tasks needs no memory");
    }

    #[test]
    fn a_new_limit_holds_and_releases_the_tasks_that_it_concerns() {
        let mut queues = queues(2);
        let loud = options("loud");
        queues.push(1, &loud, ENTRY, false);
        queues.limit_slots(Some(1), [(loud.namespace.clone(), 1)].into_iter().collect());
        assert_eq!(startable(&queues, 1, &loud), 0);
        queues.return_slot(&loud.namespace);
        assert_eq!(startable(&queues, 1, &loud), 1, "the queue is known");
        queues.take_slot(&loud.namespace);
        queues.limit_slots(None, HashMap::new());
        assert_eq!((startable(&queues, 1, &loud), queues.slots.len()), (1, 0));
    }
}
