//! A cache of what was written lately.

use std::hash::Hash;

use hashbrown::{Equivalent, HashMap};

/// Size of one generation.
const GENERATION_MAX: usize = 16_384;

/// Drops its older half when it is full.
pub(super) struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<K: Hash + Eq, V> Recent<K, V> {
    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    pub(super) fn remove(&mut self, key: &(impl Hash + Equivalent<K> + ?Sized)) -> Option<V> {
        self.young.remove(key).or_else(|| self.old.remove(key))
    }
}
