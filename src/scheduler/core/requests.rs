//! The request IDs of the newest submissions, which the store may not have in its table yet.
//!
//! A request ID is looked up in the store before its submission comes to the core. What the store had written by then is
//! decided by what it found; everything later must be here. So few are kept, however many the store remembers.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::DefaultHashBuilder;

use crate::model::{
    Namespace, RequestKey, Revision, SubmissionDigest, TaskEvent, TaskId, TaskOptions, TaskSpec, Timestamp,
};

use super::hash_index::HashIndex;

/// Request IDs that are kept although the store has written them, since a submission may be on its way that was looked
/// up before.
const SPARE: usize = if cfg!(test) { 2 } else { 16_384 };
/// Request IDs that are kept at most. Submissions with a request ID wait for the store when it has written fewer.
pub(super) const LENGTH_MAX: usize = if cfg!(test) { 64 } else { 262_144 };

#[derive(Debug, Default)]
pub(super) struct RecentRequests {
    /// In the order of submission.
    entries: VecDeque<RecentRequest>,
    /// Position of the first entry; positions are not used again, unless they overflow.
    first: u32,
    /// Positions of the newest entry of each request ID.
    by_id: HashIndex,
    hasher: DefaultHashBuilder,
    /// No submission after this revision is missing.
    complete_after: Revision,
}

#[derive(Debug)]
pub(super) struct RecentRequest {
    /// For the namespace.
    options: Arc<TaskOptions>,
    key: Arc<RequestKey>,
    pub digest: SubmissionDigest,
    pub task: TaskId,
    pub submission: Revision,
    pub at: Timestamp,
}

impl RecentRequests {
    /// Begins with a store that has written everything up to `revision`.
    pub fn begin_after(&mut self, revision: Revision) {
        *self = Self { complete_after: revision, ..Self::default() };
    }

    /// Adds a submission, if it has a request ID.
    pub fn add(&mut self, event: &TaskEvent, spec: &TaskSpec) {
        let Some((key, digest)) = spec.request_with_digest() else { return };
        if self.entries.len() >= LENGTH_MAX {
            self.remove_first();
        }
        let hash = self.hash(&spec.options.namespace, &key.id);
        if let Some(older) = self.position(hash, &spec.options.namespace, &key.id) {
            self.by_id.remove(hash, older);
        }
        let position = self.first.wrapping_add(u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
        let (options, key) = (spec.options.clone(), key.clone());
        let (task, submission, at) = (event.task.clone(), event.revision, event.at);
        self.entries.push_back(RecentRequest { options, key, digest, task, submission, at });
        let (entries, hasher, first) = (&self.entries, &self.hasher, self.first);
        let rehash = |position: &u32| {
            let entry = entries.get(position.wrapping_sub(first) as usize);
            entry.map_or(0, |entry| hasher.hash_one((&entry.options.namespace, &*entry.key.id)))
        };
        self.by_id.insert(hash, position, rehash);
    }

    /// The newest submission with this request ID, and the number of later ones.
    pub fn find(&self, namespace: &Namespace, id: &str) -> Option<(&RecentRequest, u64)> {
        let position = self.position(self.hash(namespace, id), namespace, id)?;
        let index = position.wrapping_sub(self.first) as usize;
        Some((self.entries.get(index)?, (self.entries.len() - 1 - index) as u64))
    }

    /// The store must have written everything up to here before a submission with an unknown request ID is decided.
    pub fn complete_after(&self) -> Revision {
        self.complete_after
    }

    /// Number of request IDs of later submissions.
    pub fn count_after(&self, revision: Revision) -> u64 {
        let older = self.entries.partition_point(|entry| entry.submission <= revision);
        (self.entries.len() - older) as u64
    }

    /// Removes what the store has written, except for the newest.
    pub fn remove_stored(&mut self, revision: Revision) {
        while self.entries.len() > SPARE && self.entries.front().is_some_and(|entry| entry.submission <= revision) {
            self.remove_first();
        }
    }

    fn remove_first(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.by_id.remove(self.hash(&entry.options.namespace, &entry.key.id), self.first);
        self.first = self.first.wrapping_add(1);
        self.complete_after = entry.submission;
    }

    fn hash(&self, namespace: &Namespace, id: &str) -> u64 {
        self.hasher.hash_one((namespace, id))
    }

    fn position(&self, hash: u64, namespace: &Namespace, id: &str) -> Option<u32> {
        let is_match = |position: &u32| {
            let entry = self.at(*position);
            entry.is_some_and(|entry| *entry.key.id == *id && entry.options.namespace == *namespace)
        };
        self.by_id.find(hash, is_match)
    }

    fn at(&self, position: u32) -> Option<&RecentRequest> {
        self.entries.get(position.wrapping_sub(self.first) as usize)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[cfg(test)]
    pub fn check(&self) {
        assert!(self.entries.len() <= LENGTH_MAX);
        assert!(self.entries.iter().all(|entry| entry.submission > self.complete_after));
    }
}
