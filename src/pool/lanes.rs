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

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::SeqCst;

    use super::super::tests;
    use super::*;

    fn attempt(fence: u64, priority: Priority) -> Arc<Attempt> {
        tests::attempt(fence, "h", "t", priority, b"", false)
    }

    fn fence(taken: &Taken) -> u64 {
        taken.attempt.ticket().fence
    }

    #[test]
    fn what_one_worker_moved_to_its_deque_another_steals_and_a_leaver_hands_back() {
        let lanes = Lanes::default();
        let (rich, thief) = (lanes.join(0), lanes.join(1));
        lanes.push((0..32).map(|n| attempt(n, Priority::Normal)).collect(), [false; 4]);
        assert_eq!(lanes.take(&rich, 16).map(|taken| fence(&taken)), Some(0));
        assert_eq!(lanes.queue_sizes(2), [15, 0]);
        let taken: Vec<_> = (0..20).filter_map(|_| lanes.take(&thief, 1)).collect();
        assert_eq!(taken.iter().map(fence).collect::<Vec<_>>(), (16..32).chain(1..5).collect::<Vec<_>>());
        assert!(taken.iter().map(|taken| taken.stolen).eq((0..20).map(|n| n >= 16)));
        lanes.leave(&rich);
        let rest: Vec<_> = std::iter::from_fn(|| lanes.take(&thief, 1)).collect();
        assert_eq!(rest.iter().map(fence).collect::<Vec<_>>(), (5..16).collect::<Vec<_>>());
        assert!(rest.iter().all(|taken| !taken.stolen));
    }

    /// A start, with the time before and after the take that made it.
    struct Start {
        fence: u64,
        p: usize,
        before: u64,
        after: u64,
    }

    /// Starts everything that pushers of all priorities put in meanwhile. Answers the starts, and by
    /// fence when the push had returned.
    fn rush(workers: usize, total: u64) -> (Vec<Start>, Vec<u64>) {
        let (lanes, clock, left) = (Lanes::default(), AtomicU64::new(1), AtomicU64::new(total));
        let pushed: Vec<AtomicU64> = (0..total).map(|_| AtomicU64::new(0)).collect();
        let push = |pusher: u64| {
            for first in (pusher * 8..total).step_by(16) {
                let fences = first..(first + 8).min(total);
                let priority = Priority::DESCENDING[usize::try_from(first / 8 % 7 % 4).unwrap_or(0)];
                lanes.push(fences.clone().map(|n| attempt(n, priority)).collect(), [false; 4]);
                let at = clock.fetch_add(1, SeqCst);
                fences.for_each(|n| pushed[usize::try_from(n).unwrap_or(0)].store(at, SeqCst));
            }
        };
        let start = |index: usize| {
            let (local, mut starts) = (lanes.join(index), Vec::new());
            while left.load(SeqCst) > 0 {
                let before = clock.fetch_add(1, SeqCst);
                let batch = if index % 2 == 0 { 16 } else { 1 };
                let Some(taken) = lanes.take(&local, batch) else {
                    std::thread::yield_now();
                    continue;
                };
                let after = clock.fetch_add(1, SeqCst);
                left.fetch_sub(1, SeqCst);
                let p = taken.attempt.spec().options.priority.index();
                starts.push(Start { fence: fence(&taken), p, before, after });
            }
            lanes.leave(&local);
            starts
        };
        let starts = std::thread::scope(|scope| {
            let (push, start) = (&push, &start);
            let threads: Vec<_> = (0..workers).map(|index| scope.spawn(move || start(index))).collect();
            (0..2).for_each(|pusher| drop(scope.spawn(move || push(pusher))));
            threads.into_iter().flat_map(|thread| thread.join().expect("no worker panics")).collect()
        });
        (starts, pushed.into_iter().map(AtomicU64::into_inner).collect())
    }

    #[test]
    fn nothing_starts_while_something_more_urgent_that_was_pushed_before_is_unclaimed() {
        const TOTAL: u64 = 20_000;
        let (starts, pushed) = rush(6, TOTAL);
        let mut fences: Vec<_> = starts.iter().map(|start| start.fence).collect();
        fences.sort_unstable();
        assert_eq!(fences, (0..TOTAL).collect::<Vec<_>>(), "each starts once");
        // A claim is of any attempt of its priority, so claims are counted and not named: of each higher
        // priority, as many takes must have begun as attempts had been pushed.
        for urgent in 1..Priority::COUNT {
            let of_it = || starts.iter().filter(|start| start.p == urgent);
            let mut pushed: Vec<_> = of_it().map(|start| pushed[usize::try_from(start.fence).unwrap_or(0)]).collect();
            let mut begun: Vec<_> = of_it().map(|start| start.before).collect();
            pushed.sort_unstable();
            begun.sort_unstable();
            for start in starts.iter().filter(|start| start.p < urgent) {
                let waiting = pushed.partition_point(|at| *at < start.before);
                let claimed = begun.partition_point(|at| *at < start.after);
                assert!(
                    waiting <= claimed,
                    "{} started before {} of priority {urgent}",
                    start.fence,
                    waiting - claimed
                );
            }
        }
    }
}
