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
use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::HashMap;
use tokio::sync::oneshot;

use crate::model::{HandlerName, Priority};
use crate::pool::attempt::{Attempt, Ticket};
use crate::pool::sync::Mutex;

use super::worker::{RemoteWorker, WorkerKey};

/// Whether a running attempt has a slot of its worker. Changed under the lock of the queue only.
#[derive(Debug)]
pub(super) struct HeldSlot(AtomicBool);

impl HeldSlot {
    pub fn taken() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(true)))
    }

    /// Returns the previous value.
    fn set(&self, is_held: bool) -> bool {
        self.0.swap(is_held, Ordering::Relaxed)
    }
}

/// Attempts, with the worker that has a slot for each.
pub(super) type Started = Vec<(Arc<RemoteWorker>, Arc<Attempt>)>;

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
    resuming: [Vec<Resuming>; Priority::COUNT],
}

struct Resuming {
    fence: u64,
    slot: Arc<HeldSlot>,
    granted: oneshot::Sender<()>,
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
    pub fn open(&self, key: WorkerKey, handlers: Arc<[HandlerName]>, slots: usize) -> Started {
        self.change(|state| {
            state.close(key);
            let Some(worker) = state.workers.get_mut(&key) else { return Vec::new() };
            (worker.handlers, worker.slots, worker.is_open) = (handlers.clone(), slots, true);
            for handler in &*handlers {
                state.handlers.entry_ref(handler).or_default().workers.push_back(key);
            }
            state.fill(key)
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
    pub fn start_pushed(&self) -> Started {
        self.change(|state| {
            let pushed = std::mem::take(&mut state.pushed);
            pushed.iter().flat_map(|handler| state.fill_handler(handler)).collect()
        })
    }

    /// While paused, no attempt starts. One that was suspended can still take a slot again.
    pub fn set_paused(&self, paused: bool) -> Started {
        self.change(|state| {
            state.paused = paused;
            let keys: Vec<_> = state.workers.keys().copied().collect();
            keys.into_iter().flat_map(|key| state.fill(key)).collect()
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
    pub fn take_slot(&self, key: WorkerKey) {
        if let Some(worker) = self.state.lock().workers.get_mut(&key) {
            worker.taken += 1;
        }
    }

    /// Gives the slot of an attempt back, unless the attempt has none, and returns the attempts that start with it.
    pub fn return_slot(&self, key: WorkerKey, slot: &HeldSlot) -> Started {
        self.change(|state| {
            if slot.set(false)
                && let Some(worker) = state.workers.get_mut(&key)
            {
                worker.taken -= 1;
            }
            state.fill(key)
        })
    }

    /// An attempt wants to go on. The receiver resolves when it has a slot of its worker, at once if it has one; if the
    /// receiver is dropped before that, the slot goes to others.
    pub fn resume(&self, key: WorkerKey, attempt: &Attempt, slot: &Arc<HeldSlot>) -> (oneshot::Receiver<()>, Started) {
        let (granted, receiver) = oneshot::channel();
        let started = self.change(|state| {
            if slot.0.load(Ordering::Relaxed) {
                // The receiver has just been made.
                let _ = granted.send(());
            } else if let Some(worker) = state.workers.get_mut(&key) {
                let (p, fence) = (attempt.spec().options.priority.index(), attempt.ticket().fence);
                worker.resuming[p].push(Resuming { fence, slot: slot.clone(), granted });
                worker.resuming[p].sort_unstable_by_key(|resuming| resuming.fence);
            }
            state.fill(key)
        });
        (receiver, started)
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

    fn change(&self, change: impl FnOnce(&mut State) -> Started) -> Started {
        change(&mut self.state.lock())
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
    fn fill(&mut self, key: WorkerKey) -> Started {
        std::iter::from_fn(|| self.start_next(key)).collect()
    }

    /// Fills the free slots of the workers that offer a handler, in turn.
    fn fill_handler(&mut self, handler: &HandlerName) -> Started {
        let mut started = Vec::new();
        let mut passed = 0;
        while let Some(queue) = self.handlers.get_mut(handler)
            && passed < queue.workers.len()
        {
            queue.workers.rotate_left(1);
            let Some(key) = queue.workers.back().copied() else { break };
            match self.start_next(key) {
                Some(start) => {
                    started.push(start);
                    passed = 0;
                }
                None => passed += 1,
            }
        }
        started
    }

    /// Takes the next attempt for a free slot of the worker, and the slot. Slots for suspended attempts are given on
    /// the way.
    fn start_next(&mut self, key: WorkerKey) -> Option<(Arc<RemoteWorker>, Arc<Attempt>)> {
        loop {
            let worker = self.workers.get_mut(&key)?;
            if worker.taken >= worker.slots {
                return None;
            }
            let fresh = if worker.is_open && !self.paused { best(&self.handlers, &worker.handlers) } else { None };
            let resuming = (0..Priority::COUNT).rev().find(|p| !worker.resuming[*p].is_empty());
            if let Some(p) = resuming.filter(|p| fresh.as_ref().is_none_or(|(fresh, _)| p >= fresh)) {
                let Resuming { slot, granted, .. } = worker.resuming[p].remove(0);
                // Fails if the attempt has ended meanwhile, or asks a second time.
                let is_new = granted.send(()).is_ok() && !slot.set(true);
                worker.taken += usize::from(is_new);
                continue;
            }
            let (p, handler) = fresh?;
            let attempt = self.handlers.get_mut(&handler)?.attempts[p].pop_front()?;
            // Fails if it was recalled.
            if attempt.claim() {
                worker.taken += 1;
                return Some((worker.worker.clone(), attempt));
            }
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
