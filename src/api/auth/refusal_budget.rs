//! Limits how many refused calls the audit log describes one by one.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// Refusals beyond this rate are counted instead of logged.
const REFUSALS_PER_SECOND: NonZeroU32 = NonZeroU32::new(20).unwrap();

/// The budget of one identity, or of all callers without one.
pub struct RefusalBudget {
    rate: DefaultDirectRateLimiter,
    suppressed: AtomicU64,
}

impl Default for RefusalBudget {
    fn default() -> Self {
        Self { rate: RateLimiter::direct(Quota::per_second(REFUSALS_PER_SECOND)), suppressed: AtomicU64::new(0) }
    }
}

impl RefusalBudget {
    /// The number of refusals that were not logged since the last one that was; `None` if this one is not logged either.
    pub fn take(&self) -> Option<u64> {
        if self.rate.check().is_ok() {
            return Some(self.suppressed.swap(0, Ordering::Relaxed));
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }
}
