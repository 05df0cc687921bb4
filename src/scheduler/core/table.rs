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
    /// What was asked for; payload and arguments are dropped once the task has ended.
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
}

const _: () = assert!(size_of::<Option<Slot>>() <= 64, "a queued task has to stay small");

/// The tasks.
#[derive(Debug, Default)]
pub struct Table {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    by_id: HashTable<u32>,
    by_request: HashTable<u32>,
    hasher: DefaultHashBuilder,
    incarnations: u32,
}

/// Checksum of what a repeated submission must have in common with the first.
pub fn digest(spec: &TaskSpec) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&spec.payload);
    for arg in &spec.args {
        hasher.update(arg.as_bytes());
        hasher.update(&[0]);
    }
    hasher.finalize()
}

impl Table {
    /// The task at an index that is known to be in use.
    pub fn get(&self, slot: u32) -> Option<&Slot> {
        self.slots.get(slot as usize)?.as_ref()
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Slot> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// Index of the task with that id.
    pub fn find(&self, id: &TaskId) -> Option<u32> {
        let hash = self.hasher.hash_one(id);
        self.by_id.find(hash, |slot| self.get(*slot).is_some_and(|found| found.spec.id == *id)).copied()
    }

    /// Index of the task that was submitted with that request id.
    pub fn find_request(&self, namespace: &Namespace, request_id: &str) -> Option<u32> {
        let hash = self.hasher.hash_one((namespace, request_id));
        let is_it = |slot: &u32| {
            self.get(*slot).is_some_and(|found| {
                found.spec.request_id.as_deref() == Some(request_id) && found.spec.options.namespace == *namespace
            })
        };
        self.by_request.find(hash, is_it).copied()
    }

    /// Adds a task; its id and request id must be new.
    pub fn insert(&mut self, mut slot: Slot) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        self.incarnations = self.incarnations.wrapping_add(1);
        slot.incarnation = self.incarnations;
        slot.generation = self.incarnations;
        let id_hash = self.hasher.hash_one(&slot.spec.id);
        let request_hash = request_hash(&self.hasher, &slot.spec);
        self.slots[index as usize] = Some(slot);
        let (slots, hasher) = (&self.slots, &self.hasher);
        let rehash = |other: &u32| slots[*other as usize].as_ref().map_or(0, |s| hasher.hash_one(&s.spec.id));
        self.by_id.insert_unique(id_hash, index, rehash);
        if let Some(hash) = request_hash {
            let rehash =
                |other: &u32| slots[*other as usize].as_ref().and_then(|s| request_hash_of(hasher, s)).unwrap_or(0);
            self.by_request.insert_unique(hash, index, rehash);
        }
        index
    }

    /// Forgets a task.
    pub fn remove(&mut self, index: u32) -> Option<Slot> {
        let slot = self.slots.get_mut(index as usize)?.take()?;
        if let Ok(entry) = self.by_id.find_entry(self.hasher.hash_one(&slot.spec.id), |other| *other == index) {
            entry.remove();
        }
        if let Some(hash) = request_hash(&self.hasher, &slot.spec)
            && let Ok(entry) = self.by_request.find_entry(hash, |other| *other == index)
        {
            entry.remove();
        }
        self.free.push(index);
        Some(slot)
    }

    /// All tasks.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Slot)> {
        (0..).zip(&self.slots).filter_map(|(index, slot)| Some((index, slot.as_ref()?)))
    }
}

fn request_hash(hasher: &DefaultHashBuilder, spec: &TaskSpec) -> Option<u64> {
    let request_id = spec.request_id.as_deref()?;
    Some(hasher.hash_one((&spec.options.namespace, request_id)))
}

fn request_hash_of(hasher: &DefaultHashBuilder, slot: &Slot) -> Option<u64> {
    request_hash(hasher, &slot.spec)
}
