//! The unfinished tasks with a unique key, and the completed ones whose results can be used again.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::ops::RangeInclusive;

use hashbrown::DefaultHashBuilder;

use crate::model::{Revision, TaskSpec};

use super::hash_index::HashIndex;
use super::table::{TaskEntry, TaskTable};

/// Several tasks can have the same key: one that has started, and the one that was to replace it.
#[derive(Debug, Default)]
pub(super) struct UniqueKeys {
    by_key: HashIndex,
    /// Completed tasks by the hash of their key and the revision of their end.
    results: BTreeMap<(u64, Revision), u32>,
    hasher: DefaultHashBuilder,
}

impl UniqueKeys {
    /// Adds an unfinished task of the table.
    pub fn add(&mut self, tasks: &TaskTable, index: u32) {
        let Self { by_key, hasher, .. } = self;
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

    /// Adds a task of the table that has ended, if it has kept its key for its result.
    pub fn add_result(&mut self, tasks: &TaskTable, index: u32, ended: Revision) {
        if let Some(hash) = tasks.get(index).and_then(|task| hash(&self.hasher, &task.spec)) {
            self.results.insert((hash, ended), index);
        }
    }

    /// Removes a finished task that is deleted.
    pub fn remove_result(&mut self, index: u32, spec: &TaskSpec) {
        let Some(hash) = hash(&self.hasher, spec) else { return };
        // Mostly the first one: the retention deletes the oldest.
        let found = self.results.range(of_hash(hash)).find(|(_, other)| **other == index).map(|(key, _)| *key);
        if let Some(key) = found {
            self.results.remove(&key);
        }
    }

    /// The newest result for the unique key of a new task, and the revision of its end.
    pub fn result_for<'a>(&self, tasks: &'a TaskTable, spec: &TaskSpec) -> Option<(&'a TaskEntry, Revision)> {
        let results = self.results.range(of_hash(hash(&self.hasher, spec)?)).rev();
        let mut results = results.filter_map(|((_, ended), index)| Some((tasks.get(*index)?, *ended)));
        results.find(|(task, _)| have_same_key(&task.spec, spec))
    }

    /// The tasks with the unique key of a new one, in the order of submission.
    pub fn with_key_of<'a>(&self, tasks: &'a TaskTable, spec: &TaskSpec) -> Vec<(u32, &'a TaskEntry)> {
        let Some(hash) = hash(&self.hasher, spec) else { return Vec::new() };
        let found = self.by_key.all(hash).filter_map(|index| Some((index, tasks.get(index)?)));
        let mut found: Vec<_> = found.filter(|(_, entry)| have_same_key(&entry.spec, spec)).collect();
        found.sort_unstable_by_key(|(_, entry)| entry.submission);
        found
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    #[cfg(test)]
    pub fn results(&self) -> impl Iterator<Item = u32> {
        self.results.values().copied()
    }
}

fn of_hash(hash: u64) -> RangeInclusive<(u64, Revision)> {
    (hash, Revision(0))..=(hash, Revision(u64::MAX))
}

fn have_same_key(one: &TaskSpec, other: &TaskSpec) -> bool {
    one.options.namespace == other.options.namespace && key_of(one) == key_of(other)
}

/// `None` if the task has no unique key.
fn hash(hasher: &DefaultHashBuilder, spec: &TaskSpec) -> Option<u64> {
    Some(hasher.hash_one((&spec.options.namespace, key_of(spec)?)))
}

fn key_of(spec: &TaskSpec) -> Option<&str> {
    spec.extras().unique.as_deref().map(|unique| &*unique.key)
}
