//! Tokens that were checked for nothing, by the address that they came from.
//!
//! A signature costs time to check, and whoever forges one pays nothing. So an address that has shown too
//! many that do not fit has to wait before another of its tokens is looked at. Tokens that are known already
//! are not asked, nor are API keys: those cost a hash.

use std::net::IpAddr;
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Checks that may fail at once.
const BURST: f64 = 200.0;
/// Checks that may fail a second, beyond that.
pub const A_SECOND: u32 = 20;
/// Addresses that are remembered.
const ADDRESSES_MAX: usize = 10_000;

/// Counts checks that failed.
#[derive(Default)]
pub struct FailureLimiter {
    addresses: Mutex<HashMap<IpAddr, Level>>,
}

/// FailureLimiter of an address; they are forgiven as time passes.
#[derive(Clone, Copy)]
struct Level {
    failed: f64,
    at: Instant,
}

impl Level {
    fn now(self, now: Instant) -> f64 {
        let forgiven = now.duration_since(self.at).as_secs_f64() * f64::from(A_SECOND);
        (self.failed - forgiven).max(0.0)
    }
}

impl FailureLimiter {
    /// How long that address has to wait before a token of it is checked; `None`: not at all.
    pub fn wait(&self, address: IpAddr) -> Option<Duration> {
        let level = *self.addresses.lock().get(&address)?;
        let over = level.now(Instant::now()) - BURST;
        (over >= 0.0).then(|| Duration::from_secs_f64((over + 1.0) / f64::from(A_SECOND)))
    }

    /// That many checks for that address have failed.
    pub fn note(&self, address: IpAddr, checks: u32) {
        let now = Instant::now();
        let mut addresses = self.addresses.lock();
        if addresses.len() >= ADDRESSES_MAX && !addresses.contains_key(&address) {
            addresses.retain(|_, level| level.now(now) > 0.0);
            if addresses.len() >= ADDRESSES_MAX {
                addresses.clear();
            }
        }
        let level = addresses.entry(address).or_insert(Level { failed: 0.0, at: now });
        *level = Level { failed: level.now(now) + f64::from(checks), at: now };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_forges_too_often_has_to_wait_and_nobody_else() {
        let failures = FailureLimiter::default();
        let (forger, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        failures.note(forger, 199);
        assert_eq!(failures.wait(forger), None);
        failures.note(forger, 21);
        let wait = failures.wait(forger).unwrap();
        assert_eq!((wait.as_millis(), failures.wait(other)), (1_050, None));
        tokio::time::advance(wait).await;
        assert_eq!(failures.wait(forger), None, "the time that was told is enough");
        failures.note(forger, 1);
        assert!(failures.wait(forger).is_some());
        tokio::time::advance(Duration::from_hours(1)).await;
        failures.note(forger, 199);
        assert_eq!(failures.wait(forger), None, "everything was forgiven");
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_are_forgotten_before_memory_is() {
        let failures = FailureLimiter::default();
        for number in 0..25_000_u32 {
            failures.note(IpAddr::from(number.to_be_bytes()), 1);
        }
        assert!(failures.addresses.lock().len() <= ADDRESSES_MAX);
    }
}
