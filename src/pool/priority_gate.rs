//! Decides which priority of a pool may start next, with one atomic word.
//!
//! The word holds, for each priority, the number of queued attempts and whether the scheduler holds more
//! of them back; and whether the pool is paused. A worker claims an attempt by decrementing the count of
//! its priority with a compare-and-swap of the whole word. So at the moment of a claim no attempt of a
//! higher priority is queued and the pool is not paused: the check and the claim are one step.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use parking_lot::Mutex;

use crate::model::Priority;

/// Bits of one count.
const COUNT_BITS: usize = 15;
/// The most attempts of one priority that the word can count; `spilled` counts the others.
const COUNT_MAX: usize = (1 << COUNT_BITS) - 1;
/// One bit for each priority but the lowest, which has nothing below it to hold back.
const HELD_SHIFT: usize = Priority::COUNT * COUNT_BITS;
const HELD: u64 = 0b111 << HELD_SHIFT;
const PAUSED: u64 = 1 << 63;

/// Counts by priority index.
pub(super) type Counts = [usize; Priority::COUNT];

#[derive(Default)]
pub(super) struct PriorityGate {
    word: AtomicU64,
    /// Counts that do not fit into the word.
    spilled: Mutex<Counts>,
    /// Whether `spilled` is not zero; read without its lock.
    has_spilled: AtomicBool,
}

#[expect(clippy::cast_possible_truncation, reason = "15 bits are left")]
const fn count(word: u64, p: usize) -> usize {
    (word >> (p * COUNT_BITS)) as usize & COUNT_MAX
}

const fn one(p: usize) -> u64 {
    1 << (p * COUNT_BITS)
}

const fn is_held_back(word: u64, p: usize) -> bool {
    // The first bit is that of NORMAL.
    p > 0 && (word >> (HELD_SHIFT + p - 1)) & 1 == 1
}

/// The index of the priority that may start.
fn startable(word: u64) -> Option<usize> {
    if word & PAUSED != 0 {
        return None;
    }
    for priority in Priority::DESCENDING {
        let p = priority.index();
        if count(word, p) > 0 {
            return Some(p);
        }
        if is_held_back(word, p) {
            return None;
        }
    }
    None
}

impl PriorityGate {
    /// Claims one attempt of the most urgent priority and returns the priority's index. The attempt itself
    /// is then in one of the run queue's deques, or a worker is moving it between two of them.
    pub fn claim(&self) -> Option<usize> {
        let mut word = self.word.load(SeqCst);
        loop {
            let p = startable(word)?;
            match self.word.compare_exchange_weak(word, word - one(p), SeqCst, SeqCst) {
                Ok(_) => {
                    if self.has_spilled.load(SeqCst) {
                        self.refill(&mut self.spilled.lock());
                    }
                    return Some(p);
                }
                Err(now) => word = now,
            }
        }
    }

    /// Claims all attempts of one priority and returns their number. Until the next `add`, lower priorities are held
    /// back.
    pub fn claim_all(&self, p: usize) -> usize {
        let held = if p > 0 { 1 << (HELD_SHIFT + p - 1) } else { 0 };
        let mut spilled = self.spilled.lock();
        let more = std::mem::take(&mut spilled[p]);
        let mut word = self.word.load(SeqCst);
        loop {
            let counted = count(word, p);
            match self.word.compare_exchange_weak(word, (word - one(p) * counted as u64) | held, SeqCst, SeqCst) {
                Ok(_) => return counted + more,
                Err(now) => word = now,
            }
        }
    }

    /// Whether a claim would succeed now.
    pub fn has_startable(&self) -> bool {
        startable(self.word.load(SeqCst)).is_some()
    }

    /// Counts attempts that have been pushed, and records in the same step which priorities the scheduler
    /// holds back. Returns true if a priority is no longer held back.
    pub fn add(&self, added: Counts, held_back: [bool; Priority::COUNT]) -> bool {
        let held = (1..Priority::COUNT).fold(0, |bits, p| bits | (u64::from(held_back[p]) << (HELD_SHIFT + p - 1)));
        let mut counted = added;
        let mut word = self.word.load(SeqCst);
        loop {
            if (0..Priority::COUNT).any(|p| count(word, p) + counted[p] > COUNT_MAX) {
                // The held-back bits stay unchanged until the attempts are counted.
                self.spill(std::mem::take(&mut counted));
                word = self.word.load(SeqCst);
            }
            let sum = counted.iter().enumerate().fold(0, |sum, (p, n)| sum + one(p) * *n as u64);
            match self.word.compare_exchange_weak(word, ((word & !HELD) | held) + sum, SeqCst, SeqCst) {
                Ok(before) => return before & HELD & !held != 0,
                Err(now) => word = now,
            }
        }
    }

    fn spill(&self, added: Counts) {
        let mut spilled = self.spilled.lock();
        for (sum, n) in spilled.iter_mut().zip(added) {
            *sum += n;
        }
        self.refill(&mut spilled);
    }

    /// Moves as much as fits from `spilled` to the word. Every claim does so while anything is spilled, so
    /// the count of a priority stays far from zero as long as more of it is spilled.
    fn refill(&self, spilled: &mut Counts) {
        // Set before the word is read, so that every later claim sees it and refills again.
        self.has_spilled.store(true, SeqCst);
        let mut word = self.word.load(SeqCst);
        loop {
            let fits: Counts = std::array::from_fn(|p| spilled[p].min(COUNT_MAX - count(word, p)));
            let sum = fits.iter().enumerate().fold(0, |sum, (p, n)| sum + one(p) * *n as u64);
            match self.word.compare_exchange_weak(word, word + sum, SeqCst, SeqCst) {
                Ok(_) => {
                    for (rest, n) in spilled.iter_mut().zip(fits) {
                        *rest -= n;
                    }
                    self.has_spilled.store(*spilled != [0; Priority::COUNT], SeqCst);
                    return;
                }
                Err(now) => word = now,
            }
        }
    }

    /// While paused, every claim fails.
    pub fn set_paused(&self, paused: bool) {
        if paused {
            self.word.fetch_or(PAUSED, SeqCst);
        } else {
            self.word.fetch_and(!PAUSED, SeqCst);
        }
    }

    /// The number of unclaimed attempts.
    pub fn counts(&self) -> Counts {
        let spilled = self.spilled.lock();
        let word = self.word.load(SeqCst);
        std::array::from_fn(|p| count(word, p) + spilled[p])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONE: [bool; 4] = [false; 4];

    #[test]
    fn higher_priorities_are_claimed_first_and_none_below_one_held_back() {
        let gate = PriorityGate::default();
        gate.add([2, 0, 1, 0], [false, true, false, false]);
        assert_eq!(gate.claim(), Some(2));
        assert_eq!(gate.claim(), None, "NORMAL is held back");
        assert!(gate.add([0, 1, 0, 0], NONE), "NORMAL is no longer held back");
        assert_eq!([gate.claim(), gate.claim(), gate.claim(), gate.claim()], [Some(1), Some(0), Some(0), None]);
    }

    #[test]
    fn a_paused_gate_refuses_claims_and_keeps_its_counts() {
        let gate = PriorityGate::default();
        gate.set_paused(true);
        gate.add([1, 0, 0, 1], NONE);
        assert_eq!((gate.claim(), gate.has_startable()), (None, false));
        gate.set_paused(false);
        assert_eq!((gate.claim(), gate.claim(), gate.claim()), (Some(3), Some(0), None));
    }

    #[test]
    fn counts_beyond_the_word_are_kept() {
        let gate = PriorityGate::default();
        let many = 3 * COUNT_MAX + 7;
        gate.add([5, many, 0, 0], [false, false, true, false]);
        assert_eq!(gate.counts(), [5, many, 0, 0]);
        assert_eq!(gate.claim(), None, "HIGH is held back");
        gate.add([0; 4], NONE);
        for _ in 0..many {
            assert_eq!(gate.claim(), Some(1));
        }
        assert_eq!((gate.claim(), gate.counts()), (Some(0), [4, 0, 0, 0]));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Add(Counts, [bool; 4]),
        Claim,
        ClaimAll(usize),
        Pause(bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        let counts = prop::array::uniform4(prop_oneof![4 => 0..3_usize, 1 => 0..40_000_usize]);
        let held = prop::array::uniform4(prop::bool::weighted(0.2));
        prop_oneof![
            2 => (counts, held).prop_map(|(counts, held)| Step::Add(counts, held)),
            6 => Just(Step::Claim),
            1 => (0..4_usize).prop_map(Step::ClaimAll),
            1 => any::<bool>().prop_map(Step::Pause),
        ]
    }

    proptest! {
        #[test]
        fn it_behaves_like_four_plain_counters(steps in prop::collection::vec(step(), 1..60)) {
            let gate = PriorityGate::default();
            let (mut counts, mut held_back, mut paused) = ([0; 4], NONE, false);
            for step in steps {
                match step {
                    Step::Add(added, held) => {
                        gate.add(added, held);
                        held_back = held;
                        (0..4).for_each(|p| counts[p] += added[p]);
                    }
                    Step::ClaimAll(p) => {
                        prop_assert_eq!(gate.claim_all(p), std::mem::take(&mut counts[p]));
                        held_back[p] = true;
                    }
                    Step::Pause(wanted) => {
                        gate.set_paused(wanted);
                        paused = wanted;
                    }
                    Step::Claim => {
                        let first = (0..4).rev().find(|p| counts[*p] > 0 || (*p > 0 && held_back[*p]));
                        let expected = first.filter(|p| !paused && counts[*p] > 0);
                        prop_assert_eq!(gate.claim(), expected);
                        expected.inspect(|p| counts[*p] -= 1);
                    }
                }
                prop_assert_eq!(gate.counts(), counts);
            }
        }
    }
}
