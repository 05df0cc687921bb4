//! The clock that times tasks: it runs with the elapsed time and is slewed towards the system clock.
//!
//! A step of the system clock therefore neither ends nor extends a delay, an expiry or the retention by more than 1 %,
//! and no time is before an earlier one. The price is that times of tasks differ from the system clock for a while
//! after a step. A restart takes over the system clock at once; then only the times in the store exist.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering, fence};
use std::time::Duration;

use super::clock::{Clock, SystemClock, Timestamp};

/// The clock gains or loses at most one microsecond in this many.
const SLEW: i64 = 100;
/// A smaller change of the system clock between two readings is not reported.
const STEP_MIN: Duration = Duration::from_secs(1);
/// A reading of both clocks that took longer is repeated: other threads ran meanwhile, and its error is half of that.
const READING_MAX: i64 = 20;

/// A step of the system clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockStep {
    pub forward: bool,
    pub by: Duration,
    /// How far the server's clock is from the system clock now, and how long it takes to reach it.
    pub difference: Duration,
    pub slew_time: Duration,
}

/// All times are microseconds; `at` is the time since the machine booted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Slew {
    start: i64,
    /// Difference between the server's clock and the time since boot at `start`.
    offset: i64,
    /// The difference that is approached: that of the system clock.
    target: i64,
}

impl Slew {
    fn offset_at(self, at: i64) -> i64 {
        let moved = (at - self.start).max(0) / SLEW;
        self.offset + (self.target - self.offset).clamp(-moved, moved)
    }

    /// Never decreases while `at` increases.
    fn time_at(self, at: i64) -> i64 {
        at + self.offset_at(at)
    }

    /// Continues towards the system clock.
    fn towards(self, at: i64, system: i64) -> Self {
        Self { start: at, offset: self.offset_at(at), target: system - at }
    }

    /// The step between the former reading and this one.
    fn step_since(self, former: Self) -> Option<ClockStep> {
        let micros = |value: i64| Duration::from_micros(value.unsigned_abs());
        let (by, difference) = (self.target - former.target, self.target - self.offset);
        let step = ClockStep {
            forward: by > 0,
            by: micros(by),
            difference: micros(difference),
            slew_time: micros(difference.saturating_mul(SLEW)),
        };
        (step.by > STEP_MIN).then_some(step)
    }
}

/// See the documentation of the module. Reading it takes no lock and writes no memory.
#[derive(Debug, Default)]
pub struct ServerClock {
    /// Odd while the slew is being replaced. A reader repeats its reading if this has changed meanwhile.
    version: AtomicU64,
    start: AtomicI64,
    offset: AtomicI64,
    target: AtomicI64,
}

impl ServerClock {
    /// Begins at the time of the system clock.
    pub fn start() -> Self {
        let (at, system) = read_both();
        let clock = Self::default();
        clock.store(Slew { start: at, offset: system - at, target: system - at });
        clock
    }

    /// Compares it with the system clock. Call it once a second, from one thread at a time. Returns a step of the system
    /// clock since the last call.
    pub fn follow(&self) -> Option<ClockStep> {
        self.follow_reading(read_both)
    }

    fn follow_reading(&self, read: impl FnOnce() -> (i64, i64)) -> Option<ClockStep> {
        let former = self.load();
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        // Not only `Release`: the store must be visible before the clocks are read. Then the former slew was used for
        // earlier times only.
        fence(Ordering::SeqCst);
        let (at, system) = read();
        let slew = former.towards(at, system);
        self.store(slew);
        self.version.store(version + 2, Ordering::Release);
        slew.step_since(former)
    }

    fn load(&self) -> Slew {
        Slew {
            start: self.start.load(Ordering::Relaxed),
            offset: self.offset.load(Ordering::Relaxed),
            target: self.target.load(Ordering::Relaxed),
        }
    }

    fn store(&self, slew: Slew) {
        self.start.store(slew.start, Ordering::Relaxed);
        self.offset.store(slew.offset, Ordering::Relaxed);
        self.target.store(slew.target, Ordering::Relaxed);
    }
}

impl Clock for ServerClock {
    fn now(&self) -> Timestamp {
        loop {
            let version = self.version.load(Ordering::Acquire);
            let (slew, at) = (self.load(), since_boot());
            fence(Ordering::Acquire);
            if version.is_multiple_of(2) && version == self.version.load(Ordering::Relaxed) {
                return Timestamp(slew.time_at(at).max(0).cast_unsigned());
            }
            std::thread::yield_now();
        }
    }
}

/// The time since boot and that of the system clock, at about the same moment.
fn read_both() -> (i64, i64) {
    let read = || {
        let (before, system, after) = (since_boot(), SystemClock.now(), since_boot());
        (after - before, before.midpoint(after), i64::try_from(system.as_micros()).unwrap_or(i64::MAX / 2))
    };
    let (mut best, mut tries) = (read(), 0);
    while best.0 > READING_MAX && tries < 10 {
        (best, tries) = (best.min(read()), tries + 1);
    }
    (best.1, best.2)
}

/// Includes the time for which the machine was suspended, unlike `Instant`: for a user that is time that has passed.
#[expect(unsafe_code, reason = "the standard library does not read this clock")]
fn since_boot() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live local of the right type. It fails only for unknown clocks.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    time.tv_sec * 1_000_000 + time.tv_nsec / 1_000
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000;

    fn synchronized(system: i64) -> Slew {
        Slew { start: 0, offset: system, target: system }
    }

    fn seconds(value: i64) -> Duration {
        Duration::from_micros(value.unsigned_abs())
    }

    #[test]
    fn a_step_forward_is_reported_once_and_followed_at_one_percent() {
        let before = synchronized(1_000 * SECOND);
        let stepped = before.towards(SECOND, 1_061 * SECOND);
        let step = stepped.step_since(before).unwrap();
        assert!(step.forward);
        assert_eq!((step.by, step.difference), (seconds(60 * SECOND), seconds(60 * SECOND)));
        assert_eq!(step.slew_time, Duration::from_secs(6_000));
        assert_eq!(stepped.towards(2 * SECOND, 1_062 * SECOND).step_since(stepped), None);
        assert_eq!(stepped.time_at(SECOND), 1_001 * SECOND, "no jump");
        assert_eq!(stepped.time_at(101 * SECOND), 1_102 * SECOND);
        // It stops at the system clock without being told.
        assert_eq!(stepped.time_at(6_001 * SECOND), 7_061 * SECOND);
        assert_eq!(stepped.time_at(9_001 * SECOND), 10_061 * SECOND);
    }

    #[test]
    fn a_step_back_slows_the_clock_down_by_one_percent() {
        let before = synchronized(10_000 * SECOND);
        let stepped = before.towards(SECOND, 6_401 * SECOND);
        let step = stepped.step_since(before).unwrap();
        assert_eq!((step.forward, step.by), (false, Duration::from_hours(1)));
        assert_eq!(stepped.time_at(101 * SECOND), 10_100 * SECOND);
        assert_eq!(stepped.time_at(360_001 * SECOND), 366_401 * SECOND);
    }

    #[test]
    fn a_second_step_that_undoes_the_first_ends_the_slew() {
        let before = synchronized(0);
        let away = before.towards(SECOND, 3_601 * SECOND);
        let back = away.towards(2 * SECOND, 2 * SECOND);
        assert!(!back.step_since(away).unwrap().forward);
        assert_eq!(back.step_since(away).unwrap().difference, seconds(SECOND / SLEW));
        assert_eq!(back.time_at(4 * SECOND), 4 * SECOND);
    }

    #[test]
    fn the_slew_of_a_time_service_is_not_a_step() {
        let before = synchronized(0);
        let slewed = before.towards(SECOND, SECOND + 500);
        assert_eq!(slewed.step_since(before), None);
        assert_eq!(slewed.time_at(2 * SECOND), 2 * SECOND + 500);
    }

    proptest! {
        #[test]
        fn it_never_runs_back_and_no_duration_is_off_by_more_than_one_percent(
            readings in prop::collection::vec((1..2_000_000_i64, -90_000_000_000..90_000_000_000_i64), 1..50),
        ) {
            let mut slew = synchronized(1_700_000_000 * SECOND);
            let (mut at, mut latest) = (0, slew.time_at(0));
            for (elapsed, change) in readings {
                for part in [elapsed / 3, elapsed] {
                    let now = slew.time_at(at + part);
                    prop_assert!(now >= latest);
                    latest = now;
                }
                at += elapsed;
                slew = slew.towards(at, slew.target + at + change);
                prop_assert_eq!(slew.time_at(at), latest, "a reading changes no time");
            }
            let (passed, counted) = (at, latest - 1_700_000_000 * SECOND);
            prop_assert!((passed - counted).abs() <= passed / SLEW + 1, "{} instead of {}", counted, passed);
        }
    }

    #[test]
    fn it_begins_at_the_system_clock_and_never_runs_back_between_threads() {
        let clock = ServerClock::start();
        assert!(clock.now().since(SystemClock.now()) < Duration::from_secs(5));
        assert!(SystemClock.now().since(clock.now()) < Duration::from_secs(5));
        let latest = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let seen = latest.load(Ordering::SeqCst);
                        let now = clock.now().as_micros();
                        assert!(now >= seen, "{now} after {seen}");
                        latest.fetch_max(now, Ordering::SeqCst);
                    }
                });
            }
            scope.spawn(|| {
                for n in 0..2_000 {
                    clock.follow_reading(|| {
                        let (at, system) = read_both();
                        (at, system + if n % 2 == 0 { 3_600 * SECOND } else { -3_600 * SECOND })
                    });
                }
            });
        });
    }
}
