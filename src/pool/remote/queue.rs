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
    /// Handlers whose attempts were pushed last.
    pushed: Vec<HandlerName>,
    paused: bool,
}

#[derive(Default)]
struct HandlerQueue {
    /// By priority index, oldest first.
    attempts: [VecDeque<Arc<Attempt>>; Priority::COUNT],
    /// By priority index: the scheduler has more eligible tasks of the handler than it has dispatched.
    held_back: [bool; Priority::COUNT],
    /// The workers that offer it and take attempts. The next free slot is looked for from the front.
    workers: VecDeque<WorkerKey>,
}

struct WorkerSlots {
    worker: Arc<RemoteWorker>,
    handlers: Arc<[HandlerName]>,
    slots: usize,
    taken: usize,
    /// Whether it is connected and takes attempts.
    is_open: bool,
    /// Suspended attempts that want to go on, by priority index, oldest first.
    resuming: [Vec<Arc<Attempt>>; Priority::COUNT],
}

impl RemoteQueue {
    /// Adds a worker that takes no attempts yet.
    pub fn add_worker(&self, worker: Arc<RemoteWorker>) {
        let key = worker.key;
        let handlers = Arc::default();
        let slots = WorkerSlots { worker, handlers, slots: 0, taken: 0, is_open: false, resuming: Default::default() };
        self.state.lock().workers.insert(key, slots);
    }

    /// Opens a worker for attempts of these handlers, and returns those that it gets.
    pub fn open(&self, key: WorkerKey, handlers: Arc<[HandlerName]>, slots: usize) -> Granted {
        self.change(|state, granted| {
            state.close(key);
            let Some(worker) = state.workers.get_mut(&key) else { return };
            (worker.handlers, worker.slots, worker.is_open) = (handlers.clone(), slots, true);
            for handler in &*handlers {
                state.handlers.entry_ref(handler).or_default().workers.push_back(key);
            }
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
        let queue = state.handlers.entry_ref(handler).or_default();
        queue.held_back = held_back;
        for attempt in attempts.into_iter().filter(|attempt| !attempt.is_recalled()) {
            queue.attempts[attempt.spec().options.priority.index()].push_back(attempt);
        }
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
        let Some(queue) = state.handlers.get_mut(handler) else { return };
        let attempts = &mut queue.attempts[priority.index()];
        let found = attempts.binary_search_by_key(&ticket.fence, |attempt| attempt.ticket().fence);
        let removed = found.ok().and_then(|at| attempts.remove(at));
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
        self.state.lock().slots()
    }

    /// Calls `report` with the slots of the workers that take attempts: all, and those of each handler that has some. The
    /// calls have the order of the changes.
    pub fn report_slots(&self, report: impl FnOnce(usize, Vec<(HandlerName, usize)>)) {
        let state = self.state.lock();
        let slots_of = |key: &WorkerKey| state.workers.get(key).map_or(0, |worker| worker.slots);
        let by_handler = state.handlers.iter().filter(|(_, queue)| !queue.workers.is_empty());
        let by_handler = by_handler.map(|(name, queue)| (name.clone(), queue.workers.iter().map(slots_of).sum()));
        report(state.slots(), by_handler.collect());
    }

    fn change(&self, change: impl FnOnce(&mut State, &mut Granted)) -> Granted {
        let mut granted = Granted::default();
        change(&mut self.state.lock(), &mut granted);
        granted
    }
}

impl State {
    fn slots(&self) -> usize {
        self.workers.values().filter(|worker| worker.is_open).map(|worker| worker.slots).sum()
    }

    fn close(&mut self, key: WorkerKey) {
        let Some(worker) = self.workers.get_mut(&key) else { return };
        worker.is_open = false;
        for handler in &*worker.handlers {
            if let Some(queue) = self.handlers.get_mut(handler) {
                queue.workers.retain(|other| *other != key);
            }
        }
    }

    /// Fills the free slots of a worker.
    fn fill(&mut self, key: WorkerKey, granted: &mut Granted) {
        while self.start_next(key, granted) {}
    }

    /// Fills the free slots of the workers that offer a handler, in turn.
    fn fill_handler(&mut self, handler: &HandlerName, granted: &mut Granted) {
        let mut passed = 0;
        while let Some(queue) = self.handlers.get_mut(handler)
            && passed < queue.workers.len()
        {
            queue.workers.rotate_left(1);
            let Some(key) = queue.workers.back().copied() else { break };
            passed = if self.start_next(key, granted) { 0 } else { passed + 1 };
        }
    }

    /// Gives a free slot of the worker to the next attempt. Slots for suspended attempts are given on the way. Returns false if
    /// no attempt starts.
    fn start_next(&mut self, key: WorkerKey, granted: &mut Granted) -> bool {
        loop {
            let Some(worker) = self.workers.get_mut(&key).filter(|worker| worker.taken < worker.slots) else {
                return false;
            };
            let fresh = if worker.is_open && !self.paused { best(&self.handlers, &worker.handlers) } else { None };
            let resuming = (0..Priority::COUNT).rev().find(|p| !worker.resuming[*p].is_empty());
            if let Some(p) = resuming.filter(|p| fresh.as_ref().is_none_or(|(fresh, _)| p >= fresh)) {
                let attempt = worker.resuming[p].remove(0);
                attempt.set_slot(SlotState::Held);
                worker.taken += 1;
                granted.resumed.push((worker.worker.clone(), attempt));
                continue;
            }
            let Some((p, handler)) = fresh else { return false };
            let queue = self.handlers.get_mut(&handler);
            let Some(attempt) = queue.and_then(|queue| queue.attempts[p].pop_front()) else { return false };
            // Fails if it was recalled.
            if attempt.claim() {
                attempt.set_slot(SlotState::Held);
                worker.taken += 1;
                granted.starts.push((worker.worker.clone(), attempt));
                return true;
            }
        }
    }
}

impl WorkerSlots {
    /// A change that comes after the end of the attempt, or a second time, has no effect.
    fn change_slot(&mut self, attempt: Arc<Attempt>, change: SlotChange, granted: &mut Granted) {
        let (slot, p) = (attempt.slot(), attempt.spec().options.priority.index());
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

/// The priority index and handler of the attempt that a worker with these handlers has to start next.
fn best(queues: &HashMap<HandlerName, HandlerQueue>, handlers: &[HandlerName]) -> Option<(usize, HandlerName)> {
    for p in Priority::DESCENDING.map(Priority::index) {
        let offered = || handlers.iter().filter_map(|name| Some((name, queues.get(name)?)));
        let age = |queue: &HandlerQueue| queue.attempts[p].front().map(|attempt| attempt.ticket().fence);
        let oldest = offered().filter_map(|(name, queue)| Some((age(queue)?, name))).min_by_key(|(age, _)| *age);
        if let Some((_, name)) = oldest {
            return Some((p, name.clone()));
        }
        // Nothing is below the lowest priority.
        if p > 0 && offered().any(|(_, queue)| queue.held_back[p]) {
            return None;
        }
    }
    None
}
