//! The dispatch queues of a pool, and which of them have changed since the last dispatch. Only these have something to
//! dispatch, or to tell the pool, so that a turn does not depend on the number of handlers.

use std::slice;

use hashbrown::HashMap;

use crate::model::{HandlerName, Namespace};

use super::dispatch_queue::DispatchQueue;

#[derive(Debug, Default)]
pub struct DispatchQueues {
    queues: Vec<DispatchQueue>,
    /// Indexes of the queues of handlers. Empty in a pool with workers of its own, whose queue has no handler.
    by_handler: HashMap<HandlerName, usize>,
    /// Indexes of the queues that have changed, each once.
    changed: Vec<usize>,
}

impl DispatchQueues {
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
        if let Some(handler) = &queue.handler {
            self.by_handler.insert(handler.clone(), index);
        }
        if let Some(other) = self.queues.first() {
            queue.ready.copy_slots(&other.ready);
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

    /// Records that an attempt of the namespace has a slot of the pool.
    pub fn take_slot(&mut self, namespace: &Namespace) {
        for index in 0..self.queues.len() {
            if self.queues[index].ready.take_slot(namespace) {
                self.mark_changed(index);
            }
        }
    }

    /// Records that an attempt of the namespace has lost its slot.
    pub fn return_slot(&mut self, namespace: &Namespace) {
        for index in 0..self.queues.len() {
            if self.queues[index].ready.return_slot(namespace) {
                self.mark_changed(index);
            }
        }
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
