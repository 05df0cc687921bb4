//! The queues in which attempts wait for a worker.
//!
//! Each priority has one shared queue and one deque per worker. A worker looks into its own deque, then
//! into the shared queue, then steals from the other deques (Blumofe & Leiserson, 1999; crossbeam-deque).
//!
//! The lengths of the queues do not show which priority may start, because a worker may be moving an attempt from
//! one queue to another. `priority_gate` decides: a worker first claims *any* attempt of the most urgent priority, then
//! searches for one. The search always succeeds, because attempts are counted only after they were pushed.
//!
//! The entry of a recalled attempt stays and uses up a claim. `purge` removes such entries before they outnumber the
//! others.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use crossbeam_deque::{Injector, Steal, Stealer, Worker as Deque};
use parking_lot::RwLock;

use crate::model::Priority;

use super::attempt::Attempt;
use super::priority_gate::{Counts, PriorityGate};

/// Failed searches for a claimed attempt before the thread yields. Most attempts are found at once; the
/// others are being moved between two queues by a thread that may need this processor.
const SPINS_BEFORE_YIELD: u32 = 16;
/// Entries of recalled attempts that one priority may have in addition to as many as it has others.
const RECALLED_MAX: usize = 64;

/// An entry; outdated if the attempt was recalled.
type Entry = Weak<Attempt>;

/// The deques of one worker; only their owner pushes to them.
pub(super) struct LocalQueue {
    pub index: usize,
    /// Never reused, unlike the index.
    id: u64,
    deques: [Deque<Entry>; Priority::COUNT],
}

/// The stealing ends of one worker's deques.
struct StealTarget {
    id: u64,
    index: usize,
    deques: [Stealer<Entry>; Priority::COUNT],
}

/// An attempt that the caller has claimed and must run.
pub(super) struct Claimed {
    pub attempt: Arc<Attempt>,
    /// Whether it came from another worker's deque.
    pub stolen: bool,
}

#[derive(Default)]
pub(super) struct RunQueue {
    pub gate: PriorityGate,
    shared: [Injector<Entry>; Priority::COUNT],
    /// Number of entries of recalled attempts.
    recalled: [AtomicUsize; Priority::COUNT],
    steal_targets: RwLock<Vec<StealTarget>>,
    ids: AtomicU64,
}

impl RunQueue {
    /// Creates the deques of a new worker.
    pub fn add_worker(&self, index: usize) -> LocalQueue {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let local = LocalQueue { index, id, deques: std::array::from_fn(|_| Deque::new_fifo()) };
        let deques = std::array::from_fn(|p| local.deques[p].stealer());
        self.steal_targets.write().push(StealTarget { id, index, deques });
        local
    }

    /// Removes a worker and moves the attempts in its deques back to the shared queues.
    pub fn remove_worker(&self, local: &LocalQueue) {
        self.steal_targets.write().retain(|target| target.id != local.id);
        for (deque, shared) in local.deques.iter().zip(&self.shared) {
            while let Some(attempt) = deque.pop() {
                shared.push(attempt);
            }
        }
    }

    /// Adds attempts to the shared queues, except those that were recalled. Returns true if a priority is no longer
    /// held back.
    pub fn push(&self, attempts: impl IntoIterator<Item = Weak<Attempt>>, held_back: [bool; Priority::COUNT]) -> bool {
        let mut added: Counts = [0; Priority::COUNT];
        for entry in attempts {
            if let Some(attempt) = entry.upgrade().filter(|attempt| attempt.enqueue()) {
                let p = attempt.spec().options.priority.index();
                added[p] += 1;
                self.shared[p].push(entry);
            }
        }
        self.gate.add(added, held_back)
    }

    /// Records that an entry of priority `p` belongs to a recalled attempt. Returns true if all entries of that
    /// priority were taken out and those of live attempts put back. Call it only from the thread that pushes;
    /// `held_back` is that of its last push.
    pub fn mark_recalled(&self, p: usize, held_back: [bool; Priority::COUNT]) -> bool {
        // A worker may have met the entry, and counted it off, a moment ago.
        let recalled = self.recalled[p].fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let many = recalled > RECALLED_MAX && 2 * recalled > self.gate.counts()[p];
        if many {
            self.purge(p, held_back);
        }
        many
    }

    /// Claims all entries of a priority, as a worker claims one, and puts those back that were not recalled.
    fn purge(&self, p: usize, held_back: [bool; Priority::COUNT]) {
        let claimed = self.gate.claim_all(p);
        let mut left = Vec::with_capacity(claimed);
        for _ in 0..claimed {
            let entry = find(|| self.steal_deques(p, None).or_else(|| retry(|| self.shared[p].steal())));
            match entry.upgrade().filter(|attempt| attempt.is_queued()) {
                Some(attempt) => left.push(attempt),
                None => self.forget_recalled(p),
            }
        }
        // The order of dispatch; the deques of several workers have none among each other.
        left.sort_unstable_by_key(|attempt| attempt.ticket().fence);
        let mut added: Counts = [0; Priority::COUNT];
        added[p] = left.len();
        for attempt in left {
            self.shared[p].push(Arc::downgrade(&attempt));
        }
        self.gate.add(added, held_back);
    }

    fn forget_recalled(&self, p: usize) {
        self.recalled[p].fetch_sub(1, Ordering::Relaxed);
    }

    /// The number of attempts in the deques of the first `workers` workers, by worker number.
    pub fn queue_sizes(&self, workers: usize) -> Vec<usize> {
        let mut sizes = vec![0; workers];
        for target in &*self.steal_targets.read() {
            if let Some(size) = sizes.get_mut(target.index) {
                *size += target.deques.iter().map(Stealer::len).sum::<usize>();
            }
        }
        sizes
    }

    /// Claims the most urgent attempt. Up to `batch` attempts may be moved from the shared queue to the
    /// caller's deque on the way.
    pub fn claim(&self, local: &LocalQueue, batch: usize) -> Option<Claimed> {
        loop {
            let p = self.gate.claim()?;
            let (entry, stolen) = find(|| self.try_find(p, local, batch));
            if let Some(attempt) = entry.upgrade().filter(|attempt| attempt.claim()) {
                return Some(Claimed { attempt, stolen });
            }
            // A recalled attempt uses up its claim of the gate.
            self.forget_recalled(p);
        }
    }

    fn try_find(&self, p: usize, local: &LocalQueue, batch: usize) -> Option<(Entry, bool)> {
        if let Some(entry) = local.deques[p].pop() {
            return Some((entry, false));
        }
        let shared = || {
            if batch > 1 {
                self.shared[p].steal_batch_with_limit_and_pop(&local.deques[p], batch)
            } else {
                self.shared[p].steal()
            }
        };
        if let Some(entry) = retry(shared) {
            return Some((entry, false));
        }
        self.steal_deques(p, Some(local)).map(|entry| (entry, true))
    }

    /// Steals from the deque of any worker but `own`.
    fn steal_deques(&self, p: usize, own: Option<&LocalQueue>) -> Option<Entry> {
        let targets = self.steal_targets.read();
        // Every worker starts at a different deque, so that they do not all contend for the same one.
        let (before, after) = targets.split_at(own.map_or(0, |own| own.index.min(targets.len())));
        let mut others = after.iter().chain(before).filter(|target| own.is_none_or(|own| target.id != own.id));
        others.find_map(|target| retry(|| target.deques[p].steal()))
    }
}

/// Repeats a search that succeeds in the end.
fn find<T>(search: impl Fn() -> Option<T>) -> T {
    let mut spins = 0;
    loop {
        if let Some(found) = search() {
            return found;
        }
        spins += 1;
        if spins < SPINS_BEFORE_YIELD {
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

fn retry(mut steal: impl FnMut() -> Steal<Entry>) -> Option<Entry> {
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

    use super::*;
    use crate::pool::Assignment;

    fn attempt(fence: u64, priority: Priority) -> Arc<Attempt> {
        Attempt::new(Assignment::sample(fence, "h", "t", priority, b"", false))
    }

    fn entries(attempts: &[Arc<Attempt>]) -> Vec<Entry> {
        attempts.iter().map(Arc::downgrade).collect()
    }

    fn fence(claimed: &Claimed) -> u64 {
        claimed.attempt.ticket().fence
    }

    fn fences(claimed: &[Claimed]) -> Vec<u64> {
        claimed.iter().map(fence).collect()
    }

    /// Worker 0 has started attempt 0 of 32 and holds 1 to 15 in its deque.
    fn half_moved_to_a_deque() -> (RunQueue, LocalQueue, LocalQueue, Vec<Arc<Attempt>>) {
        let queue = RunQueue::default();
        let (owner, thief) = (queue.add_worker(0), queue.add_worker(1));
        let attempts: Vec<_> = (0..32).map(|n| attempt(n, Priority::Normal)).collect();
        queue.push(entries(&attempts), [false; 4]);
        assert_eq!(queue.claim(&owner, 16).map(|claimed| fence(&claimed)), Some(0));
        assert_eq!(queue.queue_sizes(2), [15, 0]);
        (queue, owner, thief, attempts)
    }

    #[test]
    fn an_idle_worker_takes_from_the_shared_queue_then_steals_from_another_deque() {
        let (queue, _owner, thief, _attempts) = half_moved_to_a_deque();
        let claimed: Vec<_> = (0..20).filter_map(|_| queue.claim(&thief, 1)).collect();
        assert_eq!(fences(&claimed), (16..32).chain(1..5).collect::<Vec<_>>());
        assert!(claimed.iter().map(|claimed| claimed.stolen).eq((0..20).map(|n| n >= 16)));
    }

    #[test]
    fn a_leaving_worker_returns_its_attempts() {
        let (queue, owner, thief, _attempts) = half_moved_to_a_deque();
        queue.remove_worker(&owner);
        let claimed: Vec<_> = std::iter::from_fn(|| queue.claim(&thief, 1)).collect();
        assert_eq!(fences(&claimed), (16..32).chain(1..16).collect::<Vec<_>>());
        assert!(claimed.iter().all(|claimed| !claimed.stolen));
    }

    #[test]
    fn a_purge_keeps_the_order_of_dispatch_over_all_deques() {
        let (queue, _owner, thief, attempts) = half_moved_to_a_deque();
        for attempt in attempts.iter().filter(|attempt| attempt.ticket().fence % 3 == 0) {
            queue.recalled[1].fetch_add(usize::from(attempt.recall().is_some()), SeqCst);
        }
        queue.purge(1, [false; 4]);
        assert_eq!(queue.gate.counts(), [0, 21, 0, 0], "attempt 0 has started");
        assert_eq!(queue.recalled[1].load(SeqCst), 0);
        let claimed: Vec<_> = std::iter::from_fn(|| queue.claim(&thief, 1)).collect();
        assert_eq!(fences(&claimed), (1..32).filter(|fence| fence % 3 != 0).collect::<Vec<_>>());
    }

    /// A start, with the logical time before and after the claim that made it.
    struct Start {
        fence: u64,
        p: usize,
        before: u64,
        after: u64,
    }

    /// Two threads push attempts of all priorities while workers claim them. Returns the starts, and
    /// for each fence the time at which its push had returned.
    fn push_and_claim_concurrently(workers: usize, total: u64) -> (Vec<Start>, Vec<u64>) {
        let (queue, clock, left) = (RunQueue::default(), AtomicU64::new(1), AtomicU64::new(total));
        let pushed: Vec<AtomicU64> = (0..total).map(|_| AtomicU64::new(0)).collect();
        let priority = |n: u64| Priority::DESCENDING[usize::try_from(n / 8 % 7 % 4).unwrap_or(0)];
        let attempts: Vec<_> = (0..total).map(|n| attempt(n, priority(n))).collect();
        let push = |pusher: u64| {
            for first in (pusher * 8..total).step_by(16) {
                let fences = first..(first + 8).min(total);
                let of = |n: u64| Arc::downgrade(&attempts[usize::try_from(n).unwrap_or(0)]);
                queue.push(fences.clone().map(of), [false; 4]);
                let at = clock.fetch_add(1, SeqCst);
                fences.for_each(|n| pushed[usize::try_from(n).unwrap_or(0)].store(at, SeqCst));
            }
        };
        let start = |index: usize| {
            let (local, mut starts) = (queue.add_worker(index), Vec::new());
            while left.load(SeqCst) > 0 {
                let before = clock.fetch_add(1, SeqCst);
                let batch = if index.is_multiple_of(2) { 16 } else { 1 };
                let Some(claimed) = queue.claim(&local, batch) else {
                    std::thread::yield_now();
                    continue;
                };
                let after = clock.fetch_add(1, SeqCst);
                left.fetch_sub(1, SeqCst);
                let p = claimed.attempt.spec().options.priority.index();
                starts.push(Start { fence: fence(&claimed), p, before, after });
            }
            queue.remove_worker(&local);
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
    fn no_attempt_starts_while_a_more_urgent_one_pushed_earlier_is_unclaimed() {
        const TOTAL: u64 = 20_000;
        let (starts, pushed) = push_and_claim_concurrently(6, TOTAL);
        let mut fences: Vec<_> = starts.iter().map(|start| start.fence).collect();
        fences.sort_unstable();
        assert_eq!(fences, (0..TOTAL).collect::<Vec<_>>(), "each starts once");
        // A claim is for any attempt of its priority, so attempts are counted instead of compared one by
        // one: of each higher priority, at least as many claims must have begun as attempts were pushed.
        for urgent in 1..Priority::COUNT {
            let urgent_starts = || starts.iter().filter(|start| start.p == urgent);
            let mut pushed: Vec<_> =
                urgent_starts().map(|start| pushed[usize::try_from(start.fence).unwrap_or(0)]).collect();
            let mut claimed: Vec<_> = urgent_starts().map(|start| start.before).collect();
            pushed.sort_unstable();
            claimed.sort_unstable();
            for start in starts.iter().filter(|start| start.p < urgent) {
                let waiting = pushed.partition_point(|at| *at < start.before);
                let claimed = claimed.partition_point(|at| *at < start.after);
                let fence = start.fence;
                assert!(waiting <= claimed, "{fence} started before {} of priority {urgent}", waiting - claimed);
            }
        }
    }
}
