//! The unfinished tasks with a unique key.

use std::hash::BuildHasher;

use hashbrown::DefaultHashBuilder;

use crate::model::TaskSpec;

use super::hash_index::HashIndex;
use super::table::{TaskEntry, TaskTable};

/// Several tasks can have the same key: one that has started, and the one that was to replace it.
#[derive(Debug, Default)]
pub(super) struct UniqueKeys {
    by_key: HashIndex,
    hasher: DefaultHashBuilder,
}

impl UniqueKeys {
    /// Adds an unfinished task of the table.
    pub fn add(&mut self, tasks: &TaskTable, index: u32) {
        let Self { by_key, hasher } = self;
        let hash_of = |index: u32| hash(hasher, &tasks.get(index)?.spec);
        if let Some(hash) = hash_of(index) {
            by_key.insert(hash, index, |other| hash_of(*other).unwrap_or(0));
        }
    }

    /// Removes a task that ends.
    pub fn remove(&mut self, index: u32, spec: &TaskSpec) {
        if let Some(hash) = hash(&self.hasher, spec) {
            self.by_key.remove(hash, index);
        }
    }

    /// The tasks with the unique key of a new one, in the order of submission.
    pub fn with_key_of<'a>(&self, tasks: &'a TaskTable, spec: &TaskSpec) -> Vec<(u32, &'a TaskEntry)> {
        let Some(hash) = hash(&self.hasher, spec) else { return Vec::new() };
        let namespace = &spec.options.namespace;
        let has_key =
            |entry: &TaskEntry| entry.spec.options.namespace == *namespace && key_of(&entry.spec) == key_of(spec);
        let found = self.by_key.all(hash).filter_map(|index| Some((index, tasks.get(index)?)));
        let mut found: Vec<_> = found.filter(|(_, entry)| has_key(entry)).collect();
        found.sort_unstable_by_key(|(_, entry)| entry.submission);
        found
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }
}

/// `None` if the task has no unique key.
fn hash(hasher: &DefaultHashBuilder, spec: &TaskSpec) -> Option<u64> {
    Some(hasher.hash_one((&spec.options.namespace, key_of(spec)?)))
}

fn key_of(spec: &TaskSpec) -> Option<&str> {
    spec.extras().unique.as_deref().map(|unique| &*unique.key)
}
