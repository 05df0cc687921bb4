//! Where attempts wait for a worker.
//!
//! For each priority one shared queue and one deque per worker; a worker looks into its own, then
//! into the shared one, then steals (Blumofe & Leiserson, 1999; crossbeam-deque). A count per
//! priority, raised before an attempt is put in and lowered when it is claimed, makes the order
//! strict: as long as it is not zero no worker looks at a lower priority, wherever the attempt may
//! be on its way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use crossbeam_deque::{Injector, Steal, Stealer, Worker as Deque};
use parking_lot::RwLock;

use crate::model::Priority;

use super::attempt::Attempt;

/// The deques of one worker; only its owner puts in.
pub(super) struct Local {
    pub index: usize,
    /// Unlike the index never used again.
    id: u64,
    deques: [Deque<Arc<Attempt>>; Priority::COUNT],
}

/// What others may steal from.
struct Victim {
    id: u64,
    index: usize,
    deques: [Stealer<Arc<Attempt>>; Priority::COUNT],
}

/// An attempt, and whether it was taken from another worker.
pub(super) struct Taken {
    pub attempt: Arc<Attempt>,
    pub stolen: bool,
}

#[derive(Default)]
pub(super) struct Lanes {
    shared: [Injector<Arc<Attempt>>; Priority::COUNT],
    counts: [AtomicUsize; Priority::COUNT],
    /// A bit per priority: the scheduler has more of it.
    held_back: AtomicU8,
    victims: RwLock<Vec<Victim>>,
    ids: AtomicU64,
}

impl Lanes {
    /// The deques of a new worker, from which others may steal.
    pub fn join(&self, index: usize) -> Local {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let local = Local { index, id, deques: std::array::from_fn(|_| Deque::new_fifo()) };
        let deques = std::array::from_fn(|p| local.deques[p].stealer());
        self.victims.write().push(Victim { id, index, deques });
        local
    }

    /// The worker leaves; what its deques hold goes back to the shared queues.
    pub fn leave(&self, local: &Local) {
        self.victims.write().retain(|victim| victim.id != local.id);
        for (deque, shared) in local.deques.iter().zip(&self.shared) {
            while let Some(attempt) = deque.pop() {
                shared.push(attempt);
            }
        }
    }

    /// Puts attempts in. Answers whether a priority is no longer held back.
    pub fn push(&self, attempts: Vec<Arc<Attempt>>, held_back: [bool; Priority::COUNT]) -> bool {
        let bits = held_back.iter().enumerate().fold(0_u8, |bits, (p, held)| bits | (u8::from(*held) << p));
        // Raised before and lowered after the attempts are in, so that in no moment a lower priority
        // seems to be the most urgent.
        let before = self.held_back.fetch_or(bits, Ordering::SeqCst);
        for attempt in attempts {
            let p = attempt.spec().options.priority.index();
            self.counts[p].fetch_add(1, Ordering::SeqCst);
            self.shared[p].push(attempt);
        }
        self.held_back.store(bits, Ordering::SeqCst);
        before & !bits != 0
    }

    /// Attempts that have not been claimed.
    pub fn len(&self) -> usize {
        self.lengths().iter().sum()
    }

    /// The same by priority index.
    pub fn lengths(&self) -> [usize; Priority::COUNT] {
        std::array::from_fn(|p| self.counts[p].load(Ordering::SeqCst))
    }

    /// Attempts in the deques of a worker.
    pub fn queue_size(&self, worker: usize) -> usize {
        let victims = self.victims.read();
        let own = victims.iter().filter(|victim| victim.index == worker);
        own.flat_map(|victim| &victim.deques).map(Stealer::len).sum()
    }

    /// The most urgent attempt, claimed: it is the caller's to run. `batch` is how many may be moved
    /// to the caller's own deque on the way.
    pub fn take(&self, local: &Local, batch: usize) -> Option<Taken> {
        'again: loop {
            for priority in Priority::DESCENDING {
                let p = priority.index();
                // Before the count: a push raises the count before it clears this.
                let held_back = self.held_back.load(Ordering::SeqCst) & (1 << p) != 0;
                if self.counts[p].load(Ordering::SeqCst) == 0 {
                    if held_back {
                        return None;
                    }
                    continue;
                }
                if let Some(taken) = self.find(p, local, batch) {
                    let claimed = taken.attempt.begin();
                    self.counts[p].fetch_sub(1, Ordering::SeqCst);
                    if claimed {
                        return Some(taken);
                    }
                } else {
                    // On its way between two queues, or just claimed by another.
                    std::thread::yield_now();
                }
                continue 'again;
            }
            return None;
        }
    }

    fn find(&self, p: usize, local: &Local, batch: usize) -> Option<Taken> {
        if let Some(attempt) = local.deques[p].pop() {
            return Some(Taken { attempt, stolen: false });
        }
        let shared = || {
            if batch > 1 {
                self.shared[p].steal_batch_with_limit_and_pop(&local.deques[p], batch)
            } else {
                self.shared[p].steal()
            }
        };
        if let Some(attempt) = retry(shared) {
            return Some(Taken { attempt, stolen: false });
        }
        let victims = self.victims.read();
        // Everybody begins somewhere else, so that thieves do not all meet at the same victim.
        let (before, after) = victims.split_at(local.index.min(victims.len()));
        for victim in after.iter().chain(before).filter(|victim| victim.id != local.id) {
            if let Some(attempt) = retry(|| victim.deques[p].steal()) {
                return Some(Taken { attempt, stolen: true });
            }
        }
        None
    }
}

fn retry(mut steal: impl FnMut() -> Steal<Arc<Attempt>>) -> Option<Arc<Attempt>> {
    loop {
        match steal() {
            Steal::Success(attempt) => return Some(attempt),
            Steal::Empty => return None,
            Steal::Retry => std::hint::spin_loop(),
        }
    }
}
