//! The task table: every task that the scheduler has in memory, by index and by ID.
//!
//! A queued task needs its entry, its spec and two words of index. Results and history are in the store only.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashMap};

use crate::model::{CancelRequest, Holds, Revision, TaskId, TaskSpec, TaskState, Timestamp};

use super::hash_index::HashIndex;

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "there is one byte of each task for each")]
pub struct TaskEntry {
    /// Without the payload if the payload budget was used up. Payload, arguments and trace context are dropped
    /// when the task ends.
    pub spec: Arc<TaskSpec>,
    /// Revision of the submission. It identifies the task, and is never used again, unlike its index and its ID.
    pub submission: Revision,
    pub submitted_at: Timestamp,
    /// When the present state began, or in it the wait for a limit.
    pub since: Timestamp,
    /// Drawn anew from a counter of the core when the task enters a queue, waits for a timer or is dispatched, so that
    /// every earlier queue entry, timer and attempt is outdated. The fence of the live attempt, if there is one.
    pub stamp: u64,
    /// A cancel that has not finished.
    pub cancel: Option<Box<CancelRequest>>,
    /// Bytes of everything of variable size that the store keeps of the task, as [`TaskEvent::content_bytes`] counts them.
    ///
    /// [`TaskEvent::content_bytes`]: crate::model::TaskEvent::content_bytes
    pub stored_bytes: u32,
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
    /// Whether an attempt has ever started, also one that does not count.
    pub has_started: bool,
    /// The task fails at a certain time if it has not started; there is a timer.
    pub expires: bool,
    /// The payload is in the store only.
    pub payload_stored: bool,
}

impl TaskEntry {
    /// Counts bytes that the store keeps. All that a task may have is far less than 4 GiB.
    pub fn add_stored(&mut self, bytes: u64) {
        self.stored_bytes = self.stored_bytes.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

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
/// Grows in parts: moving a million tasks at once would stop the scheduler for tens of milliseconds.
#[derive(Debug, Default)]
pub struct TaskTable {
    entries: Chunks,
    free: Vec<u32>,
    by_id: HashIndex,
    hasher: DefaultHashBuilder,
    /// Stamps of the timers of tasks whose expiry was updated, by index; other tasks have the revision of the submission instead.
    expiry_stamps: HashMap<u32, u64>,
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

    /// Every index is smaller.
    pub fn end(&self) -> u32 {
        let Chunks(chunks) = &self.entries;
        let last = chunks.last().map_or(0, |last| (chunks.len() - 1) * CHUNK + last.len());
        u32::try_from(last).unwrap_or(u32::MAX)
    }

    /// Index of the task with this ID.
    pub fn find(&self, id: &TaskId) -> Option<u32> {
        let hash = self.hasher.hash_one(id);
        self.by_id.find(hash, |index| self.get(*index).is_some_and(|entry| entry.spec.id == *id))
    }

    /// The key of the timer that lets a task expire.
    pub fn expiry_key(&self, index: u32) -> Option<u64> {
        let task = self.get(index).filter(|task| task.expires)?;
        // The lowest bit keeps stamps and revisions apart.
        Some(self.expiry_stamps.get(&index).map_or(task.submission.0 << 1, |stamp| stamp << 1 | 1))
    }

    /// Lets a task expire by a new timer, and returns its key.
    pub fn renew_expiry(&mut self, index: u32, stamp: u64) -> Option<u64> {
        self.get_mut(index)?.expires = true;
        self.expiry_stamps.insert(index, stamp);
        self.expiry_key(index)
    }

    /// The task does not expire any more.
    pub fn remove_expiry(&mut self, index: u32) {
        self.expiry_stamps.remove(&index);
        if let Some(task) = self.get_mut(index) {
            task.expires = false;
        }
    }

    /// Adds a task, whose ID must be new, and returns its index.
    pub fn insert(&mut self, entry: TaskEntry) -> u32 {
        let id_hash = self.hasher.hash_one(&entry.spec.id);
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
        index
    }

    pub fn remove(&mut self, index: u32) -> Option<TaskEntry> {
        let entry = self.entries.get_mut(index)?.take()?;
        self.by_id.remove(self.hasher.hash_one(&entry.spec.id), index);
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
