//! The task table: every task that the scheduler has in memory, by index, by ID and by request ID.
//!
//! A queued task needs its entry, its spec and two words of index. Results and history are in the store only.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::model::{CancelRequest, Namespace, Revision, TaskId, TaskSpec, TaskState, Timestamp};

use super::holds::Holds;

#[derive(Debug)]
pub struct TaskEntry {
    /// Without the payload if the payload budget was used up. Payload, arguments and trace context are dropped
    /// when the task ends.
    pub spec: Arc<TaskSpec>,
    /// Revision of the submission. It identifies the task, and is never used again, unlike its index and its ID.
    pub submission: Revision,
    pub submitted_at: Timestamp,
    /// When the present state began.
    pub since: Timestamp,
    /// Drawn anew from a counter of the core when the task enters a queue, waits for a timer or is dispatched, so that
    /// every earlier queue entry, timer and attempt is outdated. The fence of the live attempt, if there is one.
    pub stamp: u64,
    /// A cancel that has not finished.
    pub cancel: Option<Box<CancelRequest>>,
    /// Checksum of payload and arguments, to recognise repeated submissions.
    pub digest: u32,
    /// The current or last attempt.
    pub attempt: u16,
    /// Consecutive server crashes while the task was running.
    pub crashes: u16,
    /// Index of the pool.
    pub pool: u16,
    pub state: TaskState,
    pub holds: Holds,
    /// QUEUED and dispatched to the pool, or RUNNING, and not on a server before a restart.
    pub has_attempt: bool,
    /// The task fails at a certain time if it has not started; there is a timer.
    pub expires: bool,
    /// The payload is in the store only.
    pub payload_stored: bool,
}

impl TaskEntry {
    /// Whether an attempt was dispatched whose start was not reported.
    pub fn is_dispatched(&self) -> bool {
        self.state == TaskState::Queued && self.has_attempt
    }

    /// The last time at which the task changed.
    pub fn changed_at(&self) -> Timestamp {
        self.cancel.as_ref().map_or(self.since, |cancel| self.since.max(cancel.requested_at))
    }
}

const _: () = assert!(size_of::<Option<TaskEntry>>() <= 64, "a queued task has to stay small");

/// Entries that are allocated together.
const CHUNK: usize = 4_096;
/// Parts of a hash index, a power of two. They grow independently.
const SHARDS: usize = 256;

/// Grows in parts: moving a million tasks at once would stop the scheduler for tens of milliseconds.
#[derive(Debug, Default)]
pub struct TaskTable {
    entries: Chunks,
    free: Vec<u32>,
    by_id: HashIndex,
    by_request: HashIndex,
    hasher: DefaultHashBuilder,
    /// Entries read so far, to show that the cost of a command does not grow with the number of tasks.
    #[cfg(test)]
    reads: std::cell::Cell<u64>,
}

/// Entries by index.
#[derive(Debug, Default)]
struct Chunks(Vec<Vec<Option<TaskEntry>>>);

impl Chunks {
    fn position(index: u32) -> (usize, usize) {
        (index as usize / CHUNK, index as usize % CHUNK)
    }

    fn get(&self, index: u32) -> Option<&TaskEntry> {
        let (chunk, at) = Self::position(index);
        self.0.get(chunk)?.get(at)?.as_ref()
    }

    fn get_mut(&mut self, index: u32) -> Option<&mut Option<TaskEntry>> {
        let (chunk, at) = Self::position(index);
        self.0.get_mut(chunk)?.get_mut(at)
    }

    /// Appends an entry and returns its index.
    fn push(&mut self, entry: TaskEntry) -> u32 {
        if self.0.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.0.push(Vec::with_capacity(CHUNK));
        }
        let last = self.0.len() - 1;
        self.0[last].push(Some(entry));
        u32::try_from(last * CHUNK + self.0[last].len() - 1).unwrap_or(u32::MAX)
    }

    fn iter(&self) -> impl Iterator<Item = &Option<TaskEntry>> {
        self.0.iter().flatten()
    }
}

/// Indices of entries, by hash.
#[derive(Debug)]
struct HashIndex(Box<[HashTable<u32>]>);

impl Default for HashIndex {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| HashTable::new()).collect())
    }
}

impl HashIndex {
    /// Uses bits of the hash that `HashTable` does not use.
    fn shard(hash: u64) -> usize {
        usize::try_from(hash >> 40).unwrap_or_default() % SHARDS
    }

    fn find(&self, hash: u64, is_match: impl FnMut(&u32) -> bool) -> Option<u32> {
        self.0[Self::shard(hash)].find(hash, is_match).copied()
    }

    fn insert(&mut self, hash: u64, index: u32, rehash: impl Fn(&u32) -> u64) {
        self.0[Self::shard(hash)].insert_unique(hash, index, rehash);
    }

    fn remove(&mut self, hash: u64, index: u32) {
        if let Ok(entry) = self.0[Self::shard(hash)].find_entry(hash, |other| *other == index) {
            entry.remove();
        }
    }
}

/// Checksum of the payload and arguments of a submission.
pub fn digest(payload: &[u8], args: &[Box<str>]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(payload);
    for arg in args {
        hasher.update(arg.as_bytes());
        hasher.update(&[0]);
    }
    hasher.finalize()
}

impl TaskTable {
    pub fn get(&self, index: u32) -> Option<&TaskEntry> {
        #[cfg(test)]
        self.count_read();
        self.entries.get(index)
    }

    pub fn get_mut(&mut self, index: u32) -> Option<&mut TaskEntry> {
        #[cfg(test)]
        self.count_read();
        self.entries.get_mut(index)?.as_mut()
    }

    #[cfg(test)]
    fn count_read(&self) {
        self.reads.set(self.reads.get() + 1);
    }

    #[cfg(test)]
    pub fn reads(&self) -> u64 {
        self.reads.get()
    }

    /// Index of the task with this ID.
    pub fn find(&self, id: &TaskId) -> Option<u32> {
        let hash = self.hasher.hash_one(id);
        self.by_id.find(hash, |index| self.get(*index).is_some_and(|entry| entry.spec.id == *id))
    }

    /// Index of the task that was submitted with this request ID.
    pub fn find_request(&self, namespace: &Namespace, request_id: &str) -> Option<u32> {
        let hash = self.hasher.hash_one((namespace, request_id));
        let is_match = |index: &u32| {
            self.get(*index).is_some_and(|entry| {
                entry.spec.extras().request_id.as_deref() == Some(request_id)
                    && entry.spec.options.namespace == *namespace
            })
        };
        self.by_request.find(hash, is_match)
    }

    /// Adds a task, whose ID and request ID must be new, and returns its index.
    pub fn insert(&mut self, entry: TaskEntry) -> u32 {
        let id_hash = self.hasher.hash_one(&entry.spec.id);
        let request_hash = request_hash(&self.hasher, &entry.spec);
        let free = self.free.pop().and_then(|index| Some((index, self.entries.get_mut(index)?)));
        let index = match free {
            Some((index, place)) => {
                *place = Some(entry);
                index
            }
            None => self.entries.push(entry),
        };
        let (entries, hasher) = (&self.entries, &self.hasher);
        let rehash = |other: &u32| entries.get(*other).map_or(0, |entry| hasher.hash_one(&entry.spec.id));
        self.by_id.insert(id_hash, index, rehash);
        if let Some(hash) = request_hash {
            let rehash = |other: &u32| {
                entries.get(*other).and_then(|entry| self::request_hash(hasher, &entry.spec)).unwrap_or(0)
            };
            self.by_request.insert(hash, index, rehash);
        }
        index
    }

    pub fn remove(&mut self, index: u32) -> Option<TaskEntry> {
        let entry = self.entries.get_mut(index)?.take()?;
        self.by_id.remove(self.hasher.hash_one(&entry.spec.id), index);
        if let Some(hash) = request_hash(&self.hasher, &entry.spec) {
            self.by_request.remove(hash, index);
        }
        self.free.push(index);
        Some(entry)
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, &TaskEntry)> {
        let entries = self.entries.iter();
        #[cfg(test)]
        let entries = entries.inspect(|_| self.count_read());
        (0..).zip(entries).filter_map(|(index, entry)| Some((index, entry.as_ref()?)))
    }
}

fn request_hash(hasher: &DefaultHashBuilder, spec: &TaskSpec) -> Option<u64> {
    let request_id = spec.extras().request_id.as_deref()?;
    Some(hasher.hash_one((&spec.options.namespace, request_id)))
}
