//! How long a client waits before it calls a server again that it could not reach.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
pub const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Doubles from pause to pause, and varies by a half, so that clients that lost the same server come back one by one.
/// `pauses` is the number of earlier pauses since the last answer.
pub fn pause_after(pauses: u32) -> Duration {
    pause(pauses, RandomState::new().hash_one(()))
}

fn pause(pauses: u32, random: u64) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(pauses)).min(LONGEST_PAUSE);
    longest / 2 + longest / 2 * u32::try_from(random % 1_001).unwrap_or(0) / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit_and_vary_by_a_half() {
        let millis = |pauses, random| pause(pauses, random).as_millis();
        assert_eq!([0, 1, 2, 3].map(|pauses| millis(pauses, 1_000)), [200, 400, 800, 1_600]);
        assert_eq!([0, 1, 2, 3].map(|pauses| millis(pauses, 0)), [100, 200, 400, 800]);
        assert_eq!([7, 30, u32::MAX].map(|pauses| millis(pauses, 1_000)), [10_000; 3]);
    }
}
