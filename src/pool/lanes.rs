//! Where attempts wait for a worker.
//!
//! For each priority one shared queue and one deque per worker; a worker looks into its own, then
//! into the shared one, then steals (Blumofe & Leiserson, 1999; crossbeam-deque). Which priority may
//! start is not read off the queues, where an attempt may be on its way from one to another, but
//! decided by `tally`: a worker first claims *an* attempt of the most urgent priority, then finds one.
//! It always finds one, because attempts are counted only after they were put in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_deque::{Injector, Steal, Stealer, Worker as Deque};
use parking_lot::RwLock;

use crate::model::Priority;

use super::attempt::Attempt;
use super::tally::{Counts, Tally};

/// Looks for a claimed attempt before the thread lets others run: most are found at once, the rest
/// are being moved between two queues by a thread that may need this processor.
const LOOKS_BEFORE_YIELD: u32 = 16;

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

/// An attempt that has begun, and whether it was taken from another worker.
pub(super) struct Taken {
    pub attempt: Arc<Attempt>,
    pub stolen: bool,
}

#[derive(Default)]
pub(super) struct Lanes {
    pub tally: Tally,
    shared: [Injector<Arc<Attempt>>; Priority::COUNT],
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
        let mut added: Counts = [0; Priority::COUNT];
        for attempt in attempts {
            let p = attempt.spec().options.priority.index();
            added[p] += 1;
            self.shared[p].push(attempt);
        }
        self.tally.add(added, held_back)
    }

    /// Attempts in the deques of the first `workers` workers, by number.
    pub fn queue_sizes(&self, workers: usize) -> Vec<usize> {
        let mut sizes = vec![0; workers];
        for victim in &*self.victims.read() {
            if let Some(size) = sizes.get_mut(victim.index) {
                *size += victim.deques.iter().map(Stealer::len).sum::<usize>();
            }
        }
        sizes
    }

    /// The most urgent attempt, begun: it is the caller's to run. `batch` is how many may be moved
    /// to the caller's own deque on the way.
    pub fn take(&self, local: &Local, batch: usize) -> Option<Taken> {
        loop {
            let p = self.tally.claim()?;
            let taken = self.find(p, local, batch);
            // A recalled attempt has used up its claim.
            if taken.attempt.begin() {
                return Some(taken);
            }
        }
    }

    fn find(&self, p: usize, local: &Local, batch: usize) -> Taken {
        let mut looks = 0;
        loop {
            if let Some(taken) = self.look(p, local, batch) {
                return taken;
            }
            looks += 1;
            if looks < LOOKS_BEFORE_YIELD {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }

    fn look(&self, p: usize, local: &Local, batch: usize) -> Option<Taken> {
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
