//! Limits how often one address may send tokens that turn out to be invalid.
//!
//! Checking a signature costs time, and forging one costs nothing. An address that sent too many invalid
//! tokens has to wait before its next token is checked. Tokens in the cache and API keys are exempt:
//! looking them up costs one hash.

use std::net::IpAddr;
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Failed checks of one address that are free.
const BURST: f64 = 200.0;
/// Failed checks per second beyond the burst.
pub const FAILURES_PER_SECOND: u32 = 20;
const ADDRESSES_MAX: usize = 10_000;

#[derive(Default)]
pub struct FailureLimiter {
    addresses: Mutex<HashMap<IpAddr, Level>>,
}

/// A leaky bucket of failed checks.
#[derive(Clone, Copy)]
struct Level {
    failures: f64,
    at: Instant,
}

impl Level {
    fn now(self, now: Instant) -> f64 {
        let leaked = now.duration_since(self.at).as_secs_f64() * f64::from(FAILURES_PER_SECOND);
        (self.failures - leaked).max(0.0)
    }
}

impl FailureLimiter {
    /// How long the address has to wait before its next token is checked; `None`: not at all.
    pub fn wait(&self, address: IpAddr) -> Option<Duration> {
        let level = *self.addresses.lock().get(&address)?;
        let excess = level.now(Instant::now()) - BURST;
        (excess >= 0.0).then(|| Duration::from_secs_f64((excess + 1.0) / f64::from(FAILURES_PER_SECOND)))
    }

    pub fn record(&self, address: IpAddr, failures: u32) {
        let now = Instant::now();
        let mut addresses = self.addresses.lock();
        if addresses.len() >= ADDRESSES_MAX && !addresses.contains_key(&address) {
            addresses.retain(|_, level| level.now(now) > 0.0);
            if addresses.len() >= ADDRESSES_MAX {
                addresses.clear();
            }
        }
        let level = addresses.entry(address).or_insert(Level { failures: 0.0, at: now });
        *level = Level { failures: level.now(now) + f64::from(failures), at: now };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    #[tokio::test(start_paused = true)]
    async fn an_address_with_too_many_failures_has_to_wait_and_no_other_address() {
        let limiter = FailureLimiter::default();
        limiter.record(FORGER, 199);
        assert_eq!(limiter.wait(FORGER), None);
        limiter.record(FORGER, 21);
        let wait = limiter.wait(FORGER).unwrap();
        assert_eq!((wait.as_millis(), limiter.wait(IpAddr::from([10, 0, 0, 2]))), (1_050, None));
        tokio::time::advance(wait).await;
        assert_eq!(limiter.wait(FORGER), None, "the returned delay is enough");
        limiter.record(FORGER, 1);
        assert!(limiter.wait(FORGER).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_leak_away_with_time() {
        let limiter = FailureLimiter::default();
        limiter.record(FORGER, 220);
        tokio::time::advance(Duration::from_hours(1)).await;
        limiter.record(FORGER, 199);
        assert_eq!(limiter.wait(FORGER), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_addresses_is_bounded() {
        let limiter = FailureLimiter::default();
        for number in 0..25_000_u32 {
            limiter.record(IpAddr::from(number.to_be_bytes()), 1);
        }
        assert!(limiter.addresses.lock().len() <= ADDRESSES_MAX);
    }
}
