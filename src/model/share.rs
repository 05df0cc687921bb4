//! Fair shares of what the server has a fixed amount of, such as places of calls and memory for requests.
//!
//! The callers of a namespace together may use at most [`FACTOR`] times what is free, and each of them [`FACTOR`] times
//! what that leaves to its namespace. So one caller that takes all it can get uses 57 % (two thirds if it has no single namespace), the next of another namespace
//! finds a quarter of everything, and what a caller may use grows and shrinks with what the others leave. These are the
//! dynamic thresholds of Choudhury and Hahne ("Dynamic queue length thresholds for shared-memory packet switches", IEEE/ACM
//! Transactions on Networking 6(2), 1998), once for namespaces and once inside of them. They need no queue and no lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many times the free amount may be used.
const FACTOR: u64 = 2;

/// What callers share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Places of calls in flight.
    Calls,
    /// Places of calls that make room, when those of other calls are used up.
    Room,
    /// Places of open watches, waits and streams.
    Streams,
    /// Bytes of small requests that submit nothing.
    SmallRequests,
    /// Bytes of other requests.
    Requests,
}

impl Resource {
    const COUNT: usize = 5;
}

/// What one caller, or all callers of a namespace, use of each resource.
#[derive(Debug, Default)]
pub struct Holdings([AtomicU64; Resource::COUNT]);

impl Holdings {
    fn of(&self, resource: Resource) -> &AtomicU64 {
        &self.0[resource as usize]
    }
}

/// A caller, and the namespace to which it belongs, if it is a single one.
#[derive(Debug, Default)]
pub struct Sharer {
    own: Arc<Holdings>,
    namespace: Option<Arc<Holdings>>,
}

impl Sharer {
    pub fn new(own: Arc<Holdings>, namespace: Option<Arc<Holdings>>) -> Self {
        Self { own, namespace }
    }

    fn holdings(&self) -> impl Iterator<Item = &Holdings> {
        [Some(&self.own), self.namespace.as_ref()].into_iter().flatten().map(|holdings| &**holdings)
    }
}

/// A fixed amount of a resource.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    used: AtomicU64,
}

/// Why nothing more can be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// All callers together use too much.
    Total { used: u64 },
    /// The caller, or its namespace, uses too much of what the others leave.
    Share { used: u64, share: u64 },
}

impl Budget {
    pub fn new(limit: u64) -> Self {
        Self { limit, used: AtomicU64::new(0) }
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Sets the use of a budget whose owner enforces the limit.
    pub fn publish(&self, used: u64) {
        self.used.store(used, Ordering::Relaxed);
    }

    /// Takes an amount, or nothing if it is too much. A namespace or caller that has nothing gets whatever is free.
    ///
    /// # Errors
    /// [`Exceeded`].
    pub fn take(&self, amount: u64, sharer: Option<(&Sharer, Resource)>) -> Result<(), Exceeded> {
        let used = self.used.fetch_add(amount, Ordering::Relaxed);
        let Some(free) = self.limit.checked_sub(used.saturating_add(amount)) else {
            self.used.fetch_sub(amount, Ordering::Relaxed);
            return Err(Exceeded::Total { used });
        };
        let Some((sharer, resource)) = sharer else { return Ok(()) };
        let add = |holdings: &Holdings| holdings.of(resource).fetch_add(amount, Ordering::Relaxed);
        let mut share = free.saturating_mul(FACTOR);
        let mut exceeded = None;
        if let Some(used) = sharer.namespace.as_deref().map(add) {
            if used > 0 && used + amount > share {
                exceeded = Some(Exceeded::Share { used, share });
            }
            share = share.saturating_sub(used + amount).saturating_mul(FACTOR);
        }
        let used = add(&sharer.own);
        if used > 0 && used + amount > share {
            exceeded = exceeded.or(Some(Exceeded::Share { used, share }));
        }
        match exceeded {
            None => Ok(()),
            Some(exceeded) => {
                self.give_back(amount, Some((sharer, resource)));
                Err(exceeded)
            }
        }
    }

    pub fn give_back(&self, amount: u64, sharer: Option<(&Sharer, Resource)>) {
        self.used.fetch_sub(amount, Ordering::Relaxed);
        if let Some((sharer, resource)) = sharer {
            for holdings in sharer.holdings() {
                holdings.of(resource).fetch_sub(amount, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLACES: Resource = Resource::Calls;

    fn namespace() -> Arc<Holdings> {
        Arc::default()
    }

    fn caller(namespace: &Arc<Holdings>) -> Sharer {
        Sharer::new(Arc::default(), Some(namespace.clone()))
    }

    fn take(budget: &Budget, sharer: &Sharer) -> bool {
        budget.take(1, Some((sharer, PLACES))).is_ok()
    }

    /// Takes all that the caller can get.
    fn fill(budget: &Budget, sharer: &Sharer) -> usize {
        std::iter::repeat_with(|| take(budget, sharer)).take_while(|taken| *taken).count()
    }

    #[test]
    fn one_caller_uses_more_than_half_and_leaves_room_to_others() {
        let budget = Budget::new(7_000);
        let (loud, quiet) = (namespace(), namespace());
        assert_eq!(fill(&budget, &caller(&loud)), 4_000);
        assert_eq!(fill(&budget, &caller(&loud)), 571, "another caller of the same namespace");
        let more: usize = (0..1_000).map(|_| fill(&budget, &caller(&loud))).sum();
        assert!(more <= 96, "{more} places for a thousand more callers of the same namespace");
        assert!(fill(&budget, &caller(&quiet)) > 1_300, "another namespace");
        // One that acts in several namespaces counts by itself.
        assert!(fill(&Budget::new(9), &Sharer::default()) == 6);
    }

    #[test]
    fn shares_of_callers_become_equal_as_places_are_returned() {
        let budget = Budget::new(1_100);
        let callers: Vec<Sharer> = (0..5).map(|_| caller(&namespace())).collect();
        let mut taken = [0_usize; 5];
        taken[0] = fill(&budget, &callers[0]);
        for _ in 0..10_000 {
            for (caller, taken) in callers.iter().zip(&mut taken) {
                if *taken > 0 {
                    budget.give_back(1, Some((caller, PLACES)));
                    *taken -= 1;
                }
            }
            for (caller, taken) in callers.iter().zip(&mut taken).rev() {
                *taken += fill(&budget, caller);
            }
        }
        let (least, most) = (taken.iter().min().unwrap(), taken.iter().max().unwrap());
        assert!(most - least <= 5 && *least > 150, "{taken:?}");
    }

    #[test]
    fn the_only_place_can_be_used() {
        let budget = Budget::new(1);
        let caller = caller(&namespace());
        assert!(take(&budget, &caller));
        assert_eq!(budget.take(1, Some((&caller, PLACES))), Err(Exceeded::Total { used: 1 }));
        budget.give_back(1, Some((&caller, PLACES)));
        assert!(take(&budget, &caller));
    }

    proptest! {
        #[test]
        fn what_is_returned_can_be_taken_again_and_the_limit_holds(
            steps in prop::collection::vec((0..6_usize, 0..40_u64, any::<bool>()), 0..300),
        ) {
            let budget = Budget::new(200);
            let namespaces = [namespace(), namespace()];
            let callers: Vec<Sharer> = (0..6).map(|n| caller(&namespaces[n % 2])).collect();
            let mut held = vec![Vec::new(); 6];
            for (n, amount, takes) in steps {
                let sharer = Some((&callers[n], Resource::Requests));
                let before = budget.used();
                if !takes {
                    if let Some(amount) = held[n].pop() {
                        budget.give_back(amount, sharer);
                    }
                } else if budget.take(amount, sharer).is_ok() {
                    held[n].push(amount);
                } else {
                    prop_assert_eq!(budget.used(), before, "a refused caller holds nothing more");
                    let others = held.iter().skip(n % 2).step_by(2).all(|held| held.iter().sum::<u64>() == 0);
                    prop_assert!(!others || before + amount > 200, "a namespace that has nothing gets what is free");
                }
                let sums: Vec<u64> = held.iter().map(|held| held.iter().sum()).collect();
                prop_assert_eq!(budget.used(), sums.iter().sum::<u64>());
                prop_assert!(budget.used() <= budget.limit());
                for (caller, sum) in callers.iter().zip(&sums) {
                    prop_assert_eq!(caller.own.of(Resource::Requests).load(Ordering::Relaxed), *sum);
                }
            }
        }
    }
}
