//! Shares of a resource. When it is scarce, callers take turns, and one caller has at most half of it.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

/// `W` stands for one waiter.
#[derive(Debug)]
pub struct Turns<W> {
    limit: u64,
    used: u64,
    /// Callers that use something or wait.
    callers: HashMap<Arc<str>, Shares<W>>,
    /// Callers that wait, in the order of their turns.
    order: VecDeque<Arc<str>>,
}

#[derive(Debug)]
struct Shares<W> {
    used: u64,
    /// With the amount that each waits for.
    waiting: VecDeque<(u64, W)>,
}

impl<W> Turns<W> {
    pub fn new(limit: u64) -> Self {
        Self { limit, used: 0, callers: HashMap::new(), order: VecDeque::new() }
    }

    /// What all callers use. Can exceed the limit.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Adds a waiter, which [`Turns::next`] returns when its turn has come.
    pub fn wait(&mut self, caller: &Arc<str>, amount: u64, waiter: W) {
        let shares = self.of(caller);
        shares.waiting.push_back((amount, waiter));
        if shares.waiting.len() == 1 {
            self.order.push_back(caller.clone());
        }
    }

    /// Removes waiters of a caller that match, now and then: their number stays below twice that of the others.
    pub fn remove_waiters_if(&mut self, caller: &Arc<str>, is_gone: impl Fn(&W) -> bool) {
        if let Some(shares) = self.callers.get_mut(caller)
            && shares.waiting.len().is_power_of_two()
        {
            // The first one stays, because the caller has a turn.
            let mut is_first = true;
            shares.waiting.retain(|(_, waiter)| std::mem::take(&mut is_first) || !is_gone(waiter));
        }
    }

    /// Changes what a caller uses, whatever the limit.
    pub fn resize(&mut self, caller: &Arc<str>, from: u64, to: u64) {
        self.used = self.used - from + to;
        let shares = self.of(caller);
        shares.used = shares.used - from + to;
        self.remove_idle(caller);
    }

    /// The next waiter whose amount is free, which is used from now on; `None` if no waiter can have its amount.
    pub fn next(&mut self, is_gone: impl Fn(&W) -> bool) -> Option<(Arc<str>, u64, W)> {
        // Callers that have their half are passed over.
        for _ in 0..self.order.len() {
            let caller = self.order.pop_front()?;
            let shares = self.callers.get_mut(&caller)?;
            while shares.waiting.front().is_some_and(|(_, waiter)| is_gone(waiter)) {
                shares.waiting.pop_front();
            }
            let Some((amount, _)) = shares.waiting.front() else {
                self.remove_idle(&caller);
                continue;
            };
            if shares.used + amount > self.limit / 2 {
                self.order.push_back(caller);
            } else if self.used + amount > self.limit {
                // Waits at the front, so that those who want less do not overtake it.
                self.order.push_front(caller);
                return None;
            } else {
                let (amount, waiter) = shares.waiting.pop_front()?;
                shares.used += amount;
                self.used += amount;
                if !shares.waiting.is_empty() {
                    self.order.push_back(caller.clone());
                }
                return Some((caller, amount, waiter));
            }
        }
        None
    }

    fn of(&mut self, caller: &Arc<str>) -> &mut Shares<W> {
        self.callers.entry(caller.clone()).or_insert_with(|| Shares { used: 0, waiting: VecDeque::new() })
    }

    fn remove_idle(&mut self, caller: &Arc<str>) {
        if self.callers.get(caller).is_some_and(|shares| shares.used == 0 && shares.waiting.is_empty()) {
            self.callers.remove(caller);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn next(turns: &mut Turns<u32>) -> Option<u32> {
        turns.next(|_| false).map(|(_, _, waiter)| waiter)
    }

    #[test]
    fn callers_take_turns_and_one_has_at_most_half() {
        let mut turns = Turns::new(100);
        let [many, few, third] = ["many", "few", "third"].map(Arc::from);
        (0..10).for_each(|n| turns.wait(&many, 20, n));
        assert_eq!([(); 3].map(|()| next(&mut turns)), [Some(0), Some(1), None]);
        turns.wait(&few, 40, 100);
        turns.wait(&third, 30, 200);
        turns.wait(&third, 1, 201);
        assert_eq!(next(&mut turns), Some(100), "another caller finds room");
        assert_eq!(
            (next(&mut turns), turns.used()),
            (None, 80),
            "a small one does not overtake a large one of its turn"
        );
        turns.resize(&many, 20, 0);
        assert_eq!([(); 4].map(|()| next(&mut turns)), [Some(200), None, None, None]);
        turns.resize(&few, 40, 0);
        assert_eq!([(); 4].map(|()| next(&mut turns)), [Some(2), Some(201), None, None]);
    }

    proptest! {
        /// Everyone who waits gets a turn, and what is free is used.
        #[test]
        fn no_waiter_is_forgotten(steps in prop::collection::vec((0_usize..4, 1_u64..=50, any::<bool>()), 0..200)) {
            let callers = ["a", "b", "c", "d"].map(Arc::<str>::from);
            let (mut turns, mut held, mut waiting) = (Turns::new(100), Vec::new(), 0);
            for (caller, amount, gives) in steps {
                if gives && !held.is_empty() {
                    let (caller, amount): (Arc<str>, u64) = held.remove(caller % held.len());
                    turns.resize(&caller, amount, 0);
                } else {
                    turns.wait(&callers[caller], amount, ());
                    waiting += 1;
                }
                while let Some((caller, amount, ())) = turns.next(|()| false) {
                    held.push((caller, amount));
                    waiting -= 1;
                }
                prop_assert_eq!(turns.used(), held.iter().map(|(_, amount)| amount).sum::<u64>());
                prop_assert!(turns.used() <= 100);
            }
            while let Some((caller, amount)) = held.pop() {
                turns.resize(&caller, amount, 0);
                while let Some((caller, amount, ())) = turns.next(|()| false) {
                    held.push((caller, amount));
                    waiting -= 1;
                }
            }
            prop_assert_eq!((waiting, turns.used(), turns.callers.len(), turns.order.len()), (0, 0, 0, 0));
        }
    }
}
