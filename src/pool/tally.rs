//! What a pool may start next, in one word of memory.
//!
//! The word holds, for each priority, how many attempts wait, and whether the scheduler holds more of
//! them back; and whether the pool is paused. A worker claims an attempt by lowering the count of its
//! priority with a compare-and-swap of the whole word. So in the very moment of a claim no attempt of
//! higher priority waits, and the pool is not paused: there is no time between looking and taking.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use parking_lot::Mutex;

use crate::model::Priority;

/// Bits of one count.
const COUNT_BITS: usize = 15;
/// Attempts of one priority that the word can count; the others wait in `spilled` to be counted.
const COUNT_MAX: usize = (1 << COUNT_BITS) - 1;
/// A bit for each priority but the lowest, which holds nothing back.
const HELD_SHIFT: usize = Priority::COUNT * COUNT_BITS;
const HELD: u64 = 0b111 << HELD_SHIFT;
const PAUSED: u64 = 1 << 63;

/// Counts by priority index.
pub(super) type Counts = [usize; Priority::COUNT];

#[derive(Default)]
pub(super) struct Tally {
    word: AtomicU64,
    /// What did not fit into the word.
    spilled: Mutex<Counts>,
    /// Whether anything is there, to be looked at without the lock.
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
    // The bit of NORMAL comes first.
    p > 0 && (word >> (HELD_SHIFT + p - 1)) & 1 == 1
}

/// The priority that may start.
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

impl Tally {
    /// Claims one attempt of the most urgent priority that waits, and answers the priority's index.
    /// The attempt itself is then somewhere in the lanes.
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

    /// Whether a claim would find something now.
    pub fn has_startable(&self) -> bool {
        startable(self.word.load(SeqCst)).is_some()
    }

    /// Counts attempts that are in the lanes, and says of which priorities the scheduler has more:
    /// both in one step. Answers whether a priority is no longer held back.
    pub fn add(&self, added: Counts, held_back: [bool; Priority::COUNT]) -> bool {
        let held = (1..Priority::COUNT).fold(0, |bits, p| bits | (u64::from(held_back[p]) << (HELD_SHIFT + p - 1)));
        let mut counted = added;
        let mut word = self.word.load(SeqCst);
        loop {
            if (0..Priority::COUNT).any(|p| count(word, p) + counted[p] > COUNT_MAX) {
                // What was held back stays so until the attempts are counted.
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

    /// Counts in the word what fits. Every claim does so while anything has spilled, so that a count
    /// is far from zero as long as there is more of its priority.
    fn refill(&self, spilled: &mut Counts) {
        // Before the word is read: a claim that comes later sees it and tries again.
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

    /// Whether claims are refused from now on.
    pub fn set_paused(&self, paused: bool) {
        if paused {
            self.word.fetch_or(PAUSED, SeqCst);
        } else {
            self.word.fetch_and(!PAUSED, SeqCst);
        }
    }

    /// Attempts that have not been claimed.
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
    fn the_most_urgent_is_claimed_first_and_nothing_below_what_is_held_back() {
        let tally = Tally::default();
        tally.add([2, 0, 1, 0], [false, true, false, false]);
        assert_eq!(tally.claim(), Some(2));
        assert_eq!(tally.claim(), None, "NORMAL is held back");
        assert!(tally.add([0, 1, 0, 0], NONE), "it no longer is");
        assert_eq!([tally.claim(), tally.claim(), tally.claim(), tally.claim()], [Some(1), Some(0), Some(0), None]);
    }

    #[test]
    fn a_paused_pool_claims_nothing_and_forgets_nothing() {
        let tally = Tally::default();
        tally.set_paused(true);
        tally.add([1, 0, 0, 1], NONE);
        assert_eq!((tally.claim(), tally.has_startable()), (None, false));
        tally.set_paused(false);
        assert_eq!((tally.claim(), tally.claim(), tally.claim()), (Some(3), Some(0), None));
    }

    #[test]
    fn more_than_the_word_can_count_is_counted_all_the_same() {
        let tally = Tally::default();
        let many = 3 * COUNT_MAX + 7;
        tally.add([5, many, 0, 0], [false, false, true, false]);
        assert_eq!(tally.counts(), [5, many, 0, 0]);
        assert_eq!(tally.claim(), None, "HIGH is held back");
        tally.add([0; 4], NONE);
        for _ in 0..many {
            assert_eq!(tally.claim(), Some(1));
        }
        assert_eq!((tally.claim(), tally.counts()), (Some(0), [4, 0, 0, 0]));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Add(Counts, [bool; 4]),
        Claim,
        Pause(bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        let counts = prop::array::uniform4(prop_oneof![4 => 0..3_usize, 1 => 0..40_000_usize]);
        let held = prop::array::uniform4(prop::bool::weighted(0.2));
        prop_oneof![
            2 => (counts, held).prop_map(|(counts, held)| Step::Add(counts, held)),
            6 => Just(Step::Claim),
            1 => any::<bool>().prop_map(Step::Pause),
        ]
    }

    proptest! {
        #[test]
        fn it_answers_as_four_plain_counters_would(steps in prop::collection::vec(step(), 1..60)) {
            let tally = Tally::default();
            let (mut counts, mut held_back, mut paused) = ([0; 4], NONE, false);
            for step in steps {
                match step {
                    Step::Add(added, held) => {
                        tally.add(added, held);
                        held_back = held;
                        (0..4).for_each(|p| counts[p] += added[p]);
                    }
                    Step::Pause(wanted) => {
                        tally.set_paused(wanted);
                        paused = wanted;
                    }
                    Step::Claim => {
                        let first = (0..4).rev().find(|p| counts[*p] > 0 || (*p > 0 && held_back[*p]));
                        let expected = first.filter(|p| !paused && counts[*p] > 0);
                        prop_assert_eq!(tally.claim(), expected);
                        expected.inspect(|p| counts[*p] -= 1);
                    }
                }
                prop_assert_eq!(tally.counts(), counts);
            }
        }
    }
}
