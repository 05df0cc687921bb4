//! The attempts of a remote pool that have not started, the workers that could run them, and their free slots, under one
//! lock.
//!
//! Invariants, each of which holds whenever the lock is free:
//! - no worker has more attempts than slots, unless it has connected again with fewer;
//! - no attempt waits that a connected worker with a free slot offers to run, unless the pool is paused or the scheduler
//!   holds back more urgent attempts: the step that adds an attempt, frees a slot or lifts an obstacle also gives
//!   the slot to such an attempt;
//! - a free slot goes to the highest priority that its worker offers to run, and within a priority to an attempt that was
//!   suspended before one that has not started, and to the oldest.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::model::{HandlerName, Priority};
use crate::pool::attempt::{Attempt, SlotState, Ticket};
use crate::runners::sync::Mutex;

use super::groups::{Group, GroupKey, Groups, QueueHead};
use super::worker::{RemoteWorker, WorkerKey};

/// What a change of the queue lets workers do.
#[derive(Default)]
pub(super) struct Granted {
    /// Attempts that start, with the worker that has a slot for each.
    pub starts: Vec<(Arc<RemoteWorker>, Arc<Attempt>)>,
    /// Suspended attempts that have a slot again.
    pub resumed: Vec<(Arc<RemoteWorker>, Arc<Attempt>)>,
}

impl Granted {
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty() && self.resumed.is_empty()
    }
}

/// What becomes of the slot of a running attempt.
#[derive(Clone, Copy, Debug)]
pub(super) enum SlotChange {
    /// The attempt has ended.
    Returned,
    /// It waits for others.
    Suspended,
    /// It wants to go on.
    Wanted,
}

#[derive(Default)]
pub(super) struct RemoteQueue {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    handlers: HashMap<HandlerName, HandlerQueue>,
    workers: HashMap<WorkerKey, WorkerSlots>,
    /// Of the workers that are connected and take attempts.
    groups: Groups,
    /// Handlers whose attempts were pushed last.
    pushed: Vec<HandlerName>,
    paused: bool,
    /// Groups and workers that were looked at.
    #[cfg(test)]
    steps: usize,
}

#[derive(Default)]
struct HandlerQueue {
    /// By priority index, oldest first.
    attempts: [VecDeque<Arc<Attempt>>; Priority::COUNT],
    /// By priority index: the scheduler has more eligible tasks of the handler than it has dispatched.
    held_back: [bool; Priority::COUNT],
    /// Of the workers that offer it and take attempts.
    groups: Vec<GroupKey>,
}

struct WorkerSlots {
    worker: Arc<RemoteWorker>,
    slots: usize,
    taken: usize,
    /// `None` if it is not connected or takes no attempts.
    group: Option<GroupKey>,
    /// Whether it is in the line of its group.
    is_in_line: bool,
    /// Suspended attempts that want to go on, by priority index, oldest first.
    resuming: [Vec<Arc<Attempt>>; Priority::COUNT],
}

impl RemoteQueue {
    /// Adds a worker that takes no attempts yet.
    pub fn add_worker(&self, worker: Arc<RemoteWorker>) {
        let key = worker.key;
        let resuming = Default::default();
        let slots = WorkerSlots { worker, slots: 0, taken: 0, group: None, is_in_line: false, resuming };
        self.state.lock().workers.insert(key, slots);
    }

    /// Opens a worker for attempts of these handlers, and returns those that it gets.
    pub fn open(&self, key: WorkerKey, handlers: &[HandlerName], slots: usize) -> Granted {
        self.change(|state, granted| {
            state.close(key);
            state.open(key, handlers, slots);
            state.fill(key, granted);
        })
    }

    /// The worker gets no further attempts until it is opened again.
    pub fn close(&self, key: WorkerKey) {
        self.state.lock().close(key);
    }

    pub fn remove_worker(&self, key: WorkerKey) {
        let mut state = self.state.lock();
        state.close(key);
        state.workers.remove(&key);
    }

    /// Adds attempts of one handler, the oldest of each priority first. They start with [`start_pushed`](Self::start_pushed),
    /// which follows when those of all handlers are pushed, so that the most urgent one is first.
    pub fn push(
        &self,
        handler: &HandlerName,
        attempts: impl IntoIterator<Item = Arc<Attempt>>,
        held_back: [bool; Priority::COUNT],
    ) {
        let mut state = self.state.lock();
        state.change_queue(handler, |queue| {
            queue.held_back = held_back;
            for attempt in attempts.into_iter().filter(|attempt| !attempt.is_recalled()) {
                queue.attempts[attempt.urgency().index()].push_back(attempt);
            }
        });
        state.pushed.push(handler.clone());
    }

    /// Returns the pushed attempts that start.
    pub fn start_pushed(&self) -> Granted {
        self.change(|state, granted| {
            for handler in std::mem::take(&mut state.pushed) {
                state.fill_handler(&handler, granted);
            }
        })
    }

    /// While paused, no attempt starts. One that was suspended can still take a slot again.
    pub fn set_paused(&self, paused: bool) -> Granted {
        self.change(|state, granted| {
            state.paused = paused;
            let keys: Vec<_> = state.workers.keys().copied().collect();
            for key in keys {
                state.fill(key, granted);
            }
        })
    }

    /// The number of attempts that have not started, by priority index.
    pub fn counts(&self) -> [usize; Priority::COUNT] {
        let state = self.state.lock();
        std::array::from_fn(|p| state.handlers.values().map(|queue| queue.attempts[p].len()).sum())
    }

    /// Removes an attempt that has not started, so that its payload is freed.
    pub fn remove(&self, handler: &HandlerName, priority: Priority, ticket: Ticket) {
        let mut state = self.state.lock();
        let removed = state.change_queue(handler, |queue| {
            let attempts = &mut queue.attempts[priority.index()];
            let found = attempts.binary_search_by_key(&ticket.fence, |attempt| attempt.ticket().fence);
            found.ok().and_then(|at| attempts.remove(at))
        });
        drop(state);
        // After the lock is released, because a large payload takes a while to free.
        drop(removed);
    }

    /// An attempt that an earlier server has started takes a slot of its worker.
    pub fn take_slot(&self, key: WorkerKey, attempt: &Attempt) {
        let mut state = self.state.lock();
        attempt.set_slot(SlotState::Held);
        if let Some(worker) = state.workers.get_mut(&key) {
            worker.taken += 1;
        }
    }

    /// Changes slots of running attempts of a worker, in order, and then fills the free ones. A suspended attempt gets a slot
    /// before attempts of its priority that have not started, and at once if it has one.
    pub fn change_slots(
        &self,
        key: WorkerKey,
        changes: impl IntoIterator<Item = (Arc<Attempt>, SlotChange)>,
    ) -> Granted {
        self.change(|state, granted| {
            let Some(worker) = state.workers.get_mut(&key) else { return };
            for (attempt, change) in changes {
                worker.change_slot(attempt, change, granted);
            }
            state.fill(key, granted);
        })
    }

    /// The number of slots of the workers that take attempts.
    pub fn slots(&self) -> usize {
        self.state.lock().groups.slots()
    }

    /// Calls `report` with the slots of the workers that take attempts: all, and those of each handler that has some. The
    /// calls have the order of the changes.
    pub fn report_slots(&self, report: impl FnOnce(usize, Vec<(HandlerName, usize)>)) {
        let state = self.state.lock();
        let slots_of = |key: &GroupKey| state.groups.get(*key).map_or(0, Group::slots);
        let by_handler = state.handlers.iter().filter(|(_, queue)| !queue.groups.is_empty());
        let by_handler = by_handler.map(|(name, queue)| (name.clone(), queue.groups.iter().map(slots_of).sum()));
        report(state.groups.slots(), by_handler.collect());
    }

    fn change(&self, change: impl FnOnce(&mut State, &mut Granted)) -> Granted {
        let mut granted = Granted::default();
        change(&mut self.state.lock(), &mut granted);
        granted
    }
}

impl State {
    /// Changes the queue of a handler, and what the groups that offer it know of it.
    fn change_queue<T>(&mut self, handler: &HandlerName, change: impl FnOnce(&mut HandlerQueue) -> T) -> T {
        let queue = self.handlers.entry_ref(handler).or_default();
        let before = queue.head();
        let result = change(queue);
        let after = queue.head();
        if before != after {
            for key in &queue.groups {
                self.groups.update(*key, handler, &before, &after);
            }
        }
        result
    }

    fn open(&mut self, key: WorkerKey, handlers: &[HandlerName], slots: usize) {
        let Some(worker) = self.workers.get_mut(&key) else { return };
        let (group, added) = self.groups.join(handlers, slots);
        (worker.slots, worker.group) = (slots, Some(group));
        for handler in added.iter().flat_map(|handlers| handlers.iter()) {
            let queue = self.handlers.entry_ref(handler).or_default();
            queue.groups.push(group);
            self.groups.update(group, handler, &QueueHead::default(), &queue.head());
        }
    }

    fn close(&mut self, key: WorkerKey) {
        let Some(worker) = self.workers.get_mut(&key) else { return };
        let Some(group) = worker.group.take() else { return };
        worker.is_in_line = false;
        let left = self.groups.leave(group, key, worker.slots);
        for handler in left.iter().flat_map(|handlers| handlers.iter()) {
            if let Some(queue) = self.handlers.get_mut(handler) {
                queue.groups.retain(|other| *other != group);
            }
        }
    }

    /// Fills the free slots of a worker.
    fn fill(&mut self, key: WorkerKey, granted: &mut Granted) {
        while self.start_next(key, granted) {}
        self.put_in_line(key);
    }

    /// A worker that still has a free slot waits in the line of its group.
    fn put_in_line(&mut self, key: WorkerKey) {
        if let Some(worker) = self.workers.get_mut(&key)
            && let Some(group) = worker.group.filter(|_| worker.has_free_slot())
            && !std::mem::replace(&mut worker.is_in_line, true)
        {
            self.groups.put_in_line(group, key);
        }
    }

    /// Fills the free slots of the workers that offer a handler, in turn.
    fn fill_handler(&mut self, handler: &HandlerName, granted: &mut Granted) {
        while let Some(group) = self.next_group(handler)
            && let Some(key) = self.leave_line(group)
        {
            self.start_next(key, granted);
            self.put_in_line(key);
        }
    }

    /// Of the groups that offer the handler and have something to start, the one whose first worker has waited longest.
    fn next_group(&mut self, handler: &HandlerName) -> Option<GroupKey> {
        if self.paused {
            return None;
        }
        let mut next = None;
        for at in 0..self.handlers.get(handler)?.groups.len() {
            let key = *self.handlers.get(handler)?.groups.get(at)?;
            let turn = self.first_turn(key);
            let Some(turn) = turn.filter(|_| self.groups.get(key).is_some_and(|group| group.next().is_some())) else {
                continue;
            };
            if next.is_none_or(|(first, _)| turn < first) {
                next = Some((turn, key));
            }
        }
        next.map(|(_, key)| key)
    }

    /// The turn of the first worker of a group that has a free slot. Those before it leave the line.
    fn first_turn(&mut self, group: GroupKey) -> Option<u64> {
        loop {
            self.count_step();
            let (turn, key) = self.groups.get(group)?.first_in_line()?;
            if self.workers.get(&key).is_some_and(WorkerSlots::has_free_slot) {
                return Some(turn);
            }
            self.leave_line(group);
        }
    }

    fn leave_line(&mut self, group: GroupKey) -> Option<WorkerKey> {
        let key = self.groups.take_from_line(group)?;
        if let Some(worker) = self.workers.get_mut(&key) {
            worker.is_in_line = false;
        }
        Some(key)
    }

    /// Gives a free slot of the worker to the next attempt. Slots for suspended attempts are given on the way. Returns false if
    /// no attempt starts.
    fn start_next(&mut self, key: WorkerKey, granted: &mut Granted) -> bool {
        loop {
            self.count_step();
            let Some(worker) = self.workers.get_mut(&key).filter(|worker| worker.has_free_slot()) else {
                return false;
            };
            let group = worker.group.filter(|_| !self.paused).and_then(|group| self.groups.get(group));
            let fresh = group.and_then(Group::next);
            let resuming = (0..Priority::COUNT).rev().find(|p| !worker.resuming[*p].is_empty());
            if let Some(p) = resuming.filter(|p| fresh.as_ref().is_none_or(|(fresh, _)| p >= fresh)) {
                let attempt = worker.resuming[p].remove(0);
                attempt.set_slot(SlotState::Held);
                worker.taken += 1;
                granted.resumed.push((worker.worker.clone(), attempt));
                continue;
            }
            let Some((p, handler)) = fresh.map(|(p, handler)| (p, handler.clone())) else { return false };
            let attempt = self.change_queue(&handler, |queue| queue.attempts[p].pop_front());
            let (Some(attempt), Some(worker)) = (attempt, self.workers.get_mut(&key)) else { return false };
            // Fails if it was recalled.
            if attempt.claim() {
                attempt.set_slot(SlotState::Held);
                worker.taken += 1;
                granted.starts.push((worker.worker.clone(), attempt));
                return true;
            }
        }
    }

    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "counts in tests"))]
    fn count_step(&mut self) {
        #[cfg(test)]
        {
            self.steps += 1;
        }
    }
}

impl HandlerQueue {
    fn head(&self) -> QueueHead {
        let oldest = |p: usize| self.attempts[p].front().map(|attempt| attempt.ticket().fence);
        QueueHead { oldest: std::array::from_fn(oldest), held_back: self.held_back }
    }
}

impl WorkerSlots {
    fn has_free_slot(&self) -> bool {
        self.taken < self.slots
    }

    /// A change that comes after the end of the attempt, or a second time, has no effect.
    fn change_slot(&mut self, attempt: Arc<Attempt>, change: SlotChange, granted: &mut Granted) {
        let (slot, p) = (attempt.slot(), attempt.urgency().index());
        let fence = attempt.ticket().fence;
        match change {
            SlotChange::Returned => {
                self.taken -= usize::from(slot == SlotState::Held);
                if slot == SlotState::Suspended {
                    self.resuming[p].retain(|other| other.ticket().fence != fence);
                }
                attempt.set_slot(SlotState::Returned);
            }
            SlotChange::Suspended if slot == SlotState::Held => {
                self.taken -= 1;
                attempt.set_slot(SlotState::Suspended);
            }
            SlotChange::Wanted if slot == SlotState::Held => granted.resumed.push((self.worker.clone(), attempt)),
            SlotChange::Wanted if slot == SlotState::Suspended => {
                let resuming = &mut self.resuming[p];
                if let Err(at) = resuming.binary_search_by_key(&fence, |other| other.ticket().fence) {
                    resuming.insert(at, attempt);
                }
            }
            SlotChange::Suspended | SlotChange::Wanted => {}
        }
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
