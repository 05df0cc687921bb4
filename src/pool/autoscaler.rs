//! How many workers a pool has that grows and shrinks with its work.
//!
//! It grows while attempts wait for a slot and the CPU has room: more workers help those that wait for something else, such as a
//! program, the network or a disk, and those that compute as long as cores are idle. It doubles at each step, so that a burst is
//! answered within about a second. It shrinks to what it has needed at most in the last half minute, so that the pauses of a
//! regular load do not make its size swing.

use std::time::Duration;

use crate::model::{Autoscale, Timestamp};

use super::run_queue::Load;

/// The pool grows when an attempt has waited longer.
const WAIT_MAX: Duration = Duration::from_millis(200);
/// Share of the CPU in use from which more workers would only share it.
const CPU_MAX: f64 = 0.9;
/// The pool shrinks when it has not needed all workers for so long.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// What a decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub now: Timestamp,
    pub load: Load,
    /// Share of the CPU that is in use of what the server may use, 0 to 1.
    pub cpu: f64,
}

/// The decisions about one pool.
#[derive(Debug, Default)]
pub struct Autoscaler {
    /// Since when not all workers were needed, and the most that were since then.
    idle: Option<(Timestamp, usize)>,
}

impl Autoscaler {
    /// The number of workers that the pool should have, within `bounds`.
    pub fn target(&mut self, Autoscale { min, max }: Autoscale, sample: Sample) -> usize {
        let Sample { now, load: Load { slots, taken, waiting, oldest }, cpu } = sample;
        let needed = taken + waiting;
        let target = if needed >= slots {
            self.idle = None;
            let is_late = oldest.is_some_and(|since| now.since(since) > WAIT_MAX);
            let grows = taken >= slots && is_late && cpu < CPU_MAX;
            if grows { slots + waiting.min(slots) } else { slots }
        } else {
            let (since, most) = self.idle.get_or_insert((now, 0));
            *most = needed.max(*most);
            if now.since(*since) < IDLE_MAX {
                slots
            } else {
                let most = *most;
                self.idle = None;
                most
            }
        };
        target.clamp(min, max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STEP: Duration = Duration::from_millis(250);
    const BOUNDS: Autoscale = Autoscale { min: 2, max: 32 };

    /// A pool that is given work, and its samples at each step.
    struct Simulation {
        autoscaler: Autoscaler,
        bounds: Autoscale,
        now: Timestamp,
        size: usize,
        /// Attempts that have not ended, and since when the oldest waits.
        work: usize,
        since: Option<Timestamp>,
        /// Cores that each running attempt uses, of four.
        cores: f64,
    }

    impl Simulation {
        fn new(cores: f64) -> Self {
            let (autoscaler, now) = (Autoscaler::default(), Timestamp(1_000_000_000));
            Self { autoscaler, bounds: BOUNDS, now, size: BOUNDS.min, work: 0, since: None, cores }
        }

        #[expect(clippy::cast_precision_loss, reason = "few")]
        fn sample(&self) -> Sample {
            let taken = self.work.min(self.size);
            let load = Load { slots: self.size, taken, waiting: self.work - taken, oldest: self.since };
            Sample { now: self.now, load, cpu: (taken as f64 * self.cores / 4.0).min(1.0) }
        }

        /// A step with so many attempts that have not ended.
        fn step(&mut self, work: usize) -> usize {
            self.work = work;
            self.since = if work > self.size { self.since.or(Some(self.now)) } else { None };
            self.now = self.now.after(STEP);
            self.size = self.autoscaler.target(self.bounds, self.sample());
            self.size
        }

        fn steps(&mut self, work: usize, time: Duration) -> Vec<usize> {
            let count = time.as_millis() / STEP.as_millis();
            (0..count).map(|_| self.step(work)).collect()
        }
    }

    #[test]
    fn a_pool_doubles_until_nothing_waits_and_shrinks_when_that_much_was_not_needed_for_half_a_minute() {
        let mut pool = Simulation::new(0.0);
        assert_eq!(pool.steps(20, Duration::from_millis(1_250)), [4, 8, 16, 20, 20], "as many as there are attempts");
        assert!(pool.steps(1, Duration::from_secs(30)).iter().all(|size| *size == 20));
        assert_eq!(pool.step(1), 2, "and no fewer");
    }

    #[test]
    fn it_keeps_what_it_has_needed_at_most_in_the_last_half_minute() {
        let mut pool = Simulation::new(0.0);
        pool.steps(32, Duration::from_secs(3));
        for work in [3, 11, 0, 5] {
            assert!(pool.steps(work, Duration::from_secs(7)).iter().all(|size| *size == 32));
        }
        let sizes = pool.steps(0, Duration::from_secs(3));
        assert_eq!(sizes.last(), Some(&11));
    }

    #[test]
    fn bursts_that_return_within_half_a_minute_do_not_change_its_size() {
        let mut pool = Simulation::new(0.0);
        pool.steps(32, Duration::from_secs(3));
        for _ in 0..20 {
            assert!(pool.steps(0, Duration::from_secs(29)).iter().all(|size| *size == 32));
            assert!(pool.steps(40, Duration::from_millis(500)).iter().all(|size| *size == 32));
        }
    }

    #[test]
    fn attempts_that_compute_get_more_workers_only_until_the_cores_are_used() {
        let mut pool = Simulation::new(1.0);
        assert_eq!(pool.steps(1_000, Duration::from_secs(2)).last(), Some(&4));
        let mut half = Simulation::new(0.5);
        assert_eq!(half.steps(1_000, Duration::from_secs(2)).last(), Some(&8));
    }

    #[test]
    fn short_waits_and_attempts_that_a_slot_does_not_help_do_not_let_it_grow() {
        let mut autoscaler = Autoscaler::default();
        let now = Timestamp(1_000_000_000);
        let mut target = |taken, waiting, waited_ms: u64| {
            let oldest = Some(Timestamp(now.0 - waited_ms * 1_000));
            autoscaler.target(BOUNDS, Sample { now, load: Load { slots: 4, taken, waiting, oldest }, cpu: 0.0 })
        };
        assert_eq!(target(4, 100, 200), 4, "has not waited for long");
        assert_eq!(target(3, 100, 900), 4, "a slot is free");
        assert_eq!(target(4, 100, 201), 8);
        assert_eq!(target(4, 1, 900), 5);
    }

    #[test]
    fn a_size_outside_of_the_bounds_is_corrected_at_once() {
        let load = |slots| Load { slots, taken: 1, ..Load::default() };
        let target =
            |slots| Autoscaler::default().target(BOUNDS, Sample { now: Timestamp(9), load: load(slots), cpu: 1.0 });
        assert_eq!((target(1), target(40)), (2, 32));
    }

    proptest! {
        #[test]
        fn its_size_is_within_the_bounds_grows_only_for_what_waits_and_shrinks_only_below_what_was_needed(
            bounds in (1..20_usize, 0..50_usize).prop_map(|(min, more)| Autoscale { min, max: min + more }),
            loads in prop::collection::vec((0..80_usize, 1..120_u32, 0.0..1.2_f64), 1..60),
        ) {
            let mut pool = Simulation::new(0.0);
            (pool.bounds, pool.size) = (bounds, bounds.min);
            let mut needed: Vec<(Timestamp, usize)> = Vec::new();
            for (work, steps, cores) in loads {
                pool.cores = cores;
                for _ in 0..steps {
                    let before = pool.size;
                    pool.step(work);
                    needed.push((pool.now, work));
                    prop_assert!((bounds.min..=bounds.max).contains(&pool.size));
                    prop_assert!(pool.size <= before || (work > before && pool.size <= work && pool.size <= 2 * before));
                    let recent = needed.iter().rev().take_while(|(at, _)| pool.now.since(*at) <= IDLE_MAX);
                    let most = recent.map(|(_, work)| *work).max().unwrap_or(0);
                    prop_assert!(pool.size >= before || pool.size >= most.min(before), "{most} were needed");
                }
            }
        }

        #[test]
        fn under_a_steady_load_it_changes_in_one_direction_and_then_no_more(
            size in 2..=32_usize,
            work in 0..60_usize,
            cores in 0.0..1.2_f64,
        ) {
            let mut pool = Simulation::new(cores);
            pool.size = size;
            let sizes = pool.steps(work, Duration::from_mins(5));
            prop_assert!(sizes.is_sorted() || sizes.iter().rev().is_sorted(), "{sizes:?}");
            prop_assert!(sizes[sizes.len() / 2..].windows(2).all(|pair| pair[0] == pair[1]), "{sizes:?}");
        }
    }
}
