//! Values by name that exist as long as they are in use.

use std::hash::Hash;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;

/// Entries that may remain when they are no longer in use.
const UNUSED_MAX: usize = 10_000;

pub struct InUse<K, V>(Mutex<Entries<K, V>>);

struct Entries<K, V> {
    by_key: HashMap<K, Arc<V>>,
    /// The number of entries at which those that are not in use are removed.
    max: usize,
}

impl<K, V> Default for InUse<K, V> {
    fn default() -> Self {
        Self(Mutex::new(Entries { by_key: HashMap::new(), max: UNUSED_MAX }))
    }
}

impl<K: Hash + Eq + Clone, V: Default> InUse<K, V> {
    /// The value of this key.
    pub fn of(&self, key: &K) -> Arc<V> {
        let Entries { by_key, max } = &mut *self.0.lock();
        if let Some(value) = by_key.get(key) {
            return value.clone();
        }
        if by_key.len() >= *max {
            by_key.retain(|_, value| Arc::strong_count(value) > 1);
            *max = by_key.len() + UNUSED_MAX;
        }
        by_key.entry(key.clone()).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_in_use_stay_and_the_number_of_others_is_bounded() {
        let values = InUse::<usize, u8>::default();
        let used: Vec<_> = (0..20_000).map(|key| values.of(&key)).collect();
        for key in 20_000..100_000 {
            values.of(&key);
        }
        assert!(values.0.lock().by_key.len() <= 30_000);
        assert!(Arc::ptr_eq(&used[7], &values.of(&7)));
    }
}
