//! The slots of a pool that each namespace has, if their number is limited.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use crate::model::Namespace;

#[derive(Debug, Default)]
pub struct NamespaceSlots {
    /// Slots that a namespace may have at once; `None`: any number, and they are not counted.
    max: Option<usize>,
    by_namespace: HashMap<Namespace, Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    taken: usize,
    /// Indexes of the queues that may have tasks of the namespace: all that have some are among them.
    queues: BTreeSet<usize>,
}

impl NamespaceSlots {
    pub fn new(max: Option<usize>) -> Self {
        Self { max, ..Self::default() }
    }

    pub fn is_limited(&self) -> bool {
        self.max.is_some()
    }

    /// Changes how many slots a namespace may have at once. `taken` are those of each namespace that has any.
    pub fn limit(&mut self, max: Option<usize>, taken: HashMap<Namespace, usize>) {
        let slots = |(namespace, taken)| (namespace, Slots { taken, ..Slots::default() });
        *self = Self { max, by_namespace: taken.into_iter().filter(|_| max.is_some()).map(slots).collect() };
    }

    /// 0 if the number is not limited.
    pub fn taken(&self, namespace: &Namespace) -> usize {
        self.by_namespace.get(namespace).map_or(0, |slots| slots.taken)
    }

    /// Whether the namespace has all the slots that it may have.
    pub fn is_full(&self, namespace: &Namespace) -> bool {
        self.max.is_some_and(|max| self.taken(namespace) >= max)
    }

    /// Records that a queue has tasks of the namespace.
    pub fn add_queue(&mut self, namespace: &Namespace, queue: usize) {
        if self.is_limited() {
            self.by_namespace.entry_ref(namespace).or_default().queues.insert(queue);
        }
    }

    /// Records that an attempt has a slot. Returns whether the namespace has just got its last one.
    pub fn take(&mut self, namespace: &Namespace) -> bool {
        let Some(max) = self.max else { return false };
        let slots = self.by_namespace.entry_ref(namespace).or_default();
        slots.taken += 1;
        slots.taken == max
    }

    /// Records that an attempt has lost its slot. Returns whether the namespace had all of them.
    pub fn give_back(&mut self, namespace: &Namespace) -> bool {
        let (Some(max), Some(slots)) = (self.max, self.by_namespace.get_mut(namespace)) else { return false };
        slots.taken -= 1;
        slots.taken + 1 == max
    }

    /// Calls `visit` with each queue that may have tasks of the namespace. One for which it returns false has none.
    pub fn visit_queues(&mut self, namespace: &Namespace, mut visit: impl FnMut(usize) -> bool) {
        let Some(slots) = self.by_namespace.get_mut(namespace) else { return };
        slots.queues.retain(|queue| visit(*queue));
        if slots.taken == 0 && slots.queues.is_empty() {
            self.by_namespace.remove(namespace);
        }
    }

    /// Number of namespaces that need memory.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.by_namespace.len()
    }
}
