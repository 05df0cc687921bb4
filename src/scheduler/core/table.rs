//! All tasks that the scheduler remembers, by index, by id and by request id.
//!
//! A queued task costs its slot, its spec and two words of index; results and history live in the
//! store.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::model::{CancelRequest, Namespace, TaskId, TaskSpec, TaskState, Timestamp};

/// What the core must know to decide about one task.
#[derive(Debug)]
pub struct Slot {
    /// What was asked for; without the payload when memory for payloads was used up; payload and
    /// arguments are dropped once the task has ended.
    pub spec: Arc<TaskSpec>,
    /// When it was accepted.
    pub submitted_at: Timestamp,
    /// WAITING: when it becomes eligible; ended: when it ended; otherwise when it became eligible.
    pub eligible_at: Timestamp,
    /// Names the live attempt; 0 when there is none.
    pub fence: u64,
    /// A cancel that is under way.
    pub cancel: Option<Box<CancelRequest>>,
    /// Moves on with every change of place, so that entries of queues and timers go stale.
    pub generation: u32,
    /// Moves on when the slot gets another task.
    pub incarnation: u32,
    /// Current or last attempt.
    pub attempt: u32,
    /// Checksum of payload and arguments, for repeated submissions.
    pub digest: u32,
    /// Server crashes in a row while it was running.
    pub crashes: u16,
    /// Index of its pool.
    pub pool: u16,
    /// Where it stands.
    pub state: TaskState,
    /// QUEUED and handed to its pool.
    pub assigned: bool,
    /// The payload is in the store only.
    pub payload_stored: bool,
}

const _: () = assert!(size_of::<Option<Slot>>() <= 64, "a queued task has to stay small");

/// Slots that are allocated together.
const CHUNK: usize = 4_096;
/// Parts of an index, a power of two. They grow one by one.
const SHARDS: usize = 256;

/// The tasks. Nothing in it is moved as a whole when it grows: with a million tasks that would hold the
/// scheduler up for tens of milliseconds.
#[derive(Debug, Default)]
pub struct Table {
    slots: Slots,
    free: Vec<u32>,
    by_id: Index,
    by_request: Index,
    hasher: DefaultHashBuilder,
    incarnations: u32,
}

/// Slots by their number, in chunks.
#[derive(Debug, Default)]
struct Slots(Vec<Vec<Option<Slot>>>);

impl Slots {
    fn place(index: u32) -> (usize, usize) {
        (index as usize / CHUNK, index as usize % CHUNK)
    }

    fn get(&self, index: u32) -> Option<&Slot> {
        let (chunk, at) = Self::place(index);
        self.0.get(chunk)?.get(at)?.as_ref()
    }

    fn get_mut(&mut self, index: u32) -> Option<&mut Option<Slot>> {
        let (chunk, at) = Self::place(index);
        self.0.get_mut(chunk)?.get_mut(at)
    }

    /// Adds one behind the last and answers its number.
    fn push(&mut self, slot: Slot) -> u32 {
        if self.0.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.0.push(Vec::with_capacity(CHUNK));
        }
        let last = self.0.len() - 1;
        self.0[last].push(Some(slot));
        u32::try_from(last * CHUNK + self.0[last].len() - 1).unwrap_or(u32::MAX)
    }

    fn iter(&self) -> impl Iterator<Item = &Option<Slot>> {
        self.0.iter().flatten()
    }
}

/// Numbers of slots by a hash.
#[derive(Debug)]
struct Index(Box<[HashTable<u32>]>);

impl Default for Index {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| HashTable::new()).collect())
    }
}

impl Index {
    /// By bits that the shard itself does not look at.
    fn shard(hash: u64) -> usize {
        usize::try_from(hash >> 40).unwrap_or_default() % SHARDS
    }

    fn find(&self, hash: u64, is_it: impl FnMut(&u32) -> bool) -> Option<u32> {
        self.0[Self::shard(hash)].find(hash, is_it).copied()
    }

    fn insert(&mut self, hash: u64, slot: u32, rehash: impl Fn(&u32) -> u64) {
        self.0[Self::shard(hash)].insert_unique(hash, slot, rehash);
    }

    fn remove(&mut self, hash: u64, slot: u32) {
        if let Ok(entry) = self.0[Self::shard(hash)].find_entry(hash, |other| *other == slot) {
            entry.remove();
        }
    }
}

/// Checksum of what a repeated submission must have in common with the first.
pub fn digest(spec: &TaskSpec) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&spec.payload);
    for arg in &spec.extras().args {
        hasher.update(arg.as_bytes());
        hasher.update(&[0]);
    }
    hasher.finalize()
}

impl Table {
    /// The task at an index that is known to be in use.
    pub fn get(&self, slot: u32) -> Option<&Slot> {
        self.slots.get(slot)
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Slot> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// Index of the task with that id.
    pub fn find(&self, id: &TaskId) -> Option<u32> {
        let hash = self.hasher.hash_one(id);
        self.by_id.find(hash, |slot| self.get(*slot).is_some_and(|found| found.spec.id == *id))
    }

    /// Index of the task that was submitted with that request id.
    pub fn find_request(&self, namespace: &Namespace, request_id: &str) -> Option<u32> {
        let hash = self.hasher.hash_one((namespace, request_id));
        let is_it = |slot: &u32| {
            self.get(*slot).is_some_and(|found| {
                found.spec.extras().request_id.as_deref() == Some(request_id)
                    && found.spec.options.namespace == *namespace
            })
        };
        self.by_request.find(hash, is_it)
    }

    /// Adds a task; its id and request id must be new.
    pub fn insert(&mut self, mut slot: Slot) -> u32 {
        self.incarnations = self.incarnations.wrapping_add(1);
        slot.incarnation = self.incarnations;
        slot.generation = self.incarnations;
        let id_hash = self.hasher.hash_one(&slot.spec.id);
        let request_hash = request_hash(&self.hasher, &slot.spec);
        let free = self.free.pop().and_then(|index| Some((index, self.slots.get_mut(index)?)));
        let index = match free {
            Some((index, place)) => {
                *place = Some(slot);
                index
            }
            None => self.slots.push(slot),
        };
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.by_id.insert(id_hash, index, |other| slots.get(*other).map_or(0, |slot| hasher.hash_one(&slot.spec.id)));
        if let Some(hash) = request_hash {
            let rehash = |other: &u32| slots.get(*other).and_then(|slot| request_hash_of(hasher, slot)).unwrap_or(0);
            self.by_request.insert(hash, index, rehash);
        }
        index
    }

    /// Forgets a task.
    pub fn remove(&mut self, index: u32) -> Option<Slot> {
        let slot = self.slots.get_mut(index)?.take()?;
        self.by_id.remove(self.hasher.hash_one(&slot.spec.id), index);
        if let Some(hash) = request_hash(&self.hasher, &slot.spec) {
            self.by_request.remove(hash, index);
        }
        self.free.push(index);
        Some(slot)
    }

    /// All tasks.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Slot)> {
        (0..).zip(self.slots.iter()).filter_map(|(index, slot)| Some((index, slot.as_ref()?)))
    }
}

fn request_hash(hasher: &DefaultHashBuilder, spec: &TaskSpec) -> Option<u64> {
    let request_id = spec.extras().request_id.as_deref()?;
    Some(hasher.hash_one((&spec.options.namespace, request_id)))
}

fn request_hash_of(hasher: &DefaultHashBuilder, slot: &Slot) -> Option<u64> {
    request_hash(hasher, &slot.spec)
}
