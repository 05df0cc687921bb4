//! The batches in memory, and which of them need a decision.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;

use crate::model::batch::BatchKeyRef;
use crate::model::batch_state::{batch_of, fold_batch, fold_task_into_batch};
use crate::model::{Batch, BatchEvent, BatchId, BatchKey, Revision, TaskChange, TaskEvent, Timestamp};

#[derive(Debug, Default)]
pub(super) struct BatchTable {
    by_creation: BTreeMap<Revision, Batch>,
    by_key: HashMap<BatchKey, Revision>,
    /// Those whose ID is a UUID, which is enough to name them. A call whose tasks are in several namespaces creates a batch in each of
    /// them. In the order of creation.
    by_uuid: HashMap<BatchId, Vec<Revision>>,
    /// Batches without a task, by the time of their last change.
    empty: BTreeSet<(Timestamp, Revision)>,
    /// Batches that have finished or were finished, since they were taken, and whether they have lost their last task.
    changed: Vec<(Revision, bool)>,
    /// Of all batches.
    bytes: u64,
}

impl BatchTable {
    pub fn get(&self, created: Revision) -> Option<&Batch> {
        self.by_creation.get(&created)
    }

    pub fn find(&self, key: BatchKeyRef<'_>) -> Option<&Batch> {
        self.by_creation.get(&self.creation(key)?)
    }

    fn creation(&self, key: BatchKeyRef<'_>) -> Option<Revision> {
        self.by_key.get(&key).copied()
    }

    /// The batches with this UUID in any namespace, in the order of creation.
    pub fn with_uuid(&self, id: &BatchId) -> impl Iterator<Item = &Batch> {
        self.by_uuid.get(id).into_iter().flatten().filter_map(|created| self.get(*created))
    }

    /// In the order of creation.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Batch> {
        self.by_creation.values()
    }

    /// Batches that were created before `before`, the newest first.
    pub fn newest_before(&self, before: Revision) -> impl Iterator<Item = &Batch> {
        self.by_creation.range(..before).rev().map(|(_, batch)| batch)
    }

    /// About the memory of all batches.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a batch from the store's projection.
    pub fn restore(&mut self, batch: Batch) {
        self.insert(batch);
    }

    pub fn apply(&mut self, event: &BatchEvent) {
        let BatchKey { namespace, id } = &event.batch;
        let existing = self.creation(BatchKeyRef { namespace, id }).and_then(|created| self.remove(created));
        let had_finished = existing.as_ref().is_some_and(|batch| batch.finished_at.is_some());
        let mut batch = existing;
        fold_batch(&mut batch, event);
        if let Some(batch) = batch {
            let created = batch.created;
            self.insert(batch);
            self.note_end(created, had_finished, false);
        }
    }

    /// Applies an event of a task. The only place where the counts of a batch change while the server runs.
    pub fn apply_task(&mut self, event: &TaskEvent) {
        let Some(key) = batch_of(event) else { return };
        let Some(created) = self.creation(key) else {
            let mut batch = None;
            fold_task_into_batch(&mut batch, event);
            return batch.into_iter().for_each(|batch| self.insert(batch));
        };
        let Some(batch) = self.by_creation.get_mut(&created) else { return };
        let (was_empty, had_finished) = (batch.present == 0, batch.finished_at.is_some());
        let (changed_at, had_completion) = (batch.changed_at, batch.completion.is_some());
        batch.apply_task(event);
        if batch.completion.is_some() && !had_completion {
            self.bytes -= batch.spec.reserved_bytes() as u64;
        }
        if was_empty {
            self.empty.remove(&(changed_at, created));
        }
        if batch.present == 0 {
            self.empty.insert((batch.changed_at, created));
        }
        let lost_last = matches!(event.change, TaskChange::Deleted) && batch.present == 0;
        self.note_end(created, had_finished, lost_last);
    }

    fn note_end(&mut self, created: Revision, had_finished: bool, lost_last: bool) {
        let Some(batch) = self.by_creation.get(&created) else { return };
        if batch.finished_at.is_some() && (!had_finished || lost_last) {
            self.changed.push((created, lost_last));
        }
    }

    /// A batch that has finished, or a finished one that has lost its last task, which the second value tells.
    pub fn pop_changed(&mut self) -> Option<(Revision, bool)> {
        self.changed.pop()
    }

    /// Takes all batches for those that have just finished.
    pub fn mark_all_changed(&mut self) {
        self.changed = self.by_creation.keys().rev().map(|created| (*created, false)).collect();
    }

    /// The batch without tasks whose last change was at `until` or before and is the oldest.
    pub fn empty_since(&self, until: Timestamp) -> Option<&Batch> {
        let (_, created) = self.empty.first().filter(|(at, _)| *at <= until)?;
        self.get(*created)
    }

    fn insert(&mut self, batch: Batch) {
        let created = batch.created;
        self.bytes += batch.bytes() as u64;
        if batch.present == 0 {
            self.empty.insert((batch.changed_at, created));
        }
        self.by_key.insert(batch.key.clone(), created);
        if batch.key.id.is_uuid() {
            let same_id = self.by_uuid.entry_ref(&batch.key.id).or_default();
            same_id.insert(same_id.partition_point(|other| *other < created), created);
        }
        self.by_creation.insert(created, batch);
    }

    fn remove(&mut self, created: Revision) -> Option<Batch> {
        let batch = self.by_creation.remove(&created)?;
        self.bytes -= batch.bytes() as u64;
        self.empty.remove(&(batch.changed_at, created));
        self.by_key.remove(&batch.key);
        if let Some(same_id) = self.by_uuid.get_mut(&batch.key.id) {
            if let Ok(place) = same_id.binary_search(&created) {
                same_id.remove(place);
            }
            if same_id.is_empty() {
                self.by_uuid.remove(&batch.key.id);
            }
        }
        Some(batch)
    }

    #[cfg(test)]
    pub fn check(&self, tasks: &super::table::TaskTable) {
        use crate::model::TaskState;

        let mut present: BTreeMap<BatchKey, [u64; 6]> = BTreeMap::new();
        for (_, task) in tasks.iter() {
            if let Some(id) = &task.spec.options.batch {
                let key = BatchKey { namespace: task.spec.options.namespace.clone(), id: id.clone() };
                present.entry(key).or_default()[task.state as usize - 1] += 1;
            }
        }
        for batch in self.iter() {
            let counts = present.remove(&batch.key).unwrap_or_default();
            assert_eq!(batch.present, counts.iter().sum::<u64>(), "tasks of {}", batch.key);
            for state in TaskState::ALL {
                let (counted, found) = (batch.counts.of(state), counts[state as usize - 1]);
                assert!(counted == found || state.is_terminal() && counted > found, "{state:?} tasks of {}", batch.key);
            }
            assert!(!batch.is_due(), "the completion of {} is submitted", batch.key);
            assert_eq!(self.empty.contains(&(batch.changed_at, batch.created)), batch.present == 0, "{}", batch.key);
        }
        assert_eq!(present.len(), 0, "every task has its batch");
        assert_eq!(self.empty.len(), self.iter().filter(|batch| batch.present == 0).count(), "batches without tasks");
        assert_eq!(self.bytes, self.iter().map(|batch| batch.bytes() as u64).sum::<u64>(), "bytes of batches");
        assert_eq!(self.by_key.len(), self.by_creation.len(), "batches by their keys");
        let with_uuid = self.iter().filter(|batch| batch.key.id.is_uuid()).count();
        assert_eq!(self.by_uuid.values().map(Vec::len).sum::<usize>(), with_uuid, "batches by their UUIDs");
        assert!(self.changed.is_empty());
    }
}
