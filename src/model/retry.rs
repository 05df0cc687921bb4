//! Retry policy of a task.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::hash::{Hash, Hasher};
use std::time::Duration;

use super::id::TaskId;

/// Exponential back-off with a cap and jitter.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Maximum number of attempts, including the first. 1 to 100; 1 means no retry.
    pub attempts_max: u32,
    /// Delay before the second attempt.
    pub delay: Duration,
    /// Factor between one delay and the next. 1 to 10.
    pub factor: f64,
    /// Maximum delay, before jitter.
    pub delay_max: Duration,
    /// Maximum jitter as a fraction of the delay. 0 to 1.
    pub jitter: f64,
}

// Equality is reflexive: the factor and the jitter are validated and never NaN.
impl Eq for RetryPolicy {}

impl Hash for RetryPolicy {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { attempts_max, delay, factor, delay_max, jitter } = self;
        // -0 equals 0.
        let bits = [factor, jitter].map(|number| (number + 0.0).to_bits());
        (attempts_max, delay, delay_max, bits).hash(state);
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts_max: 3,
            delay: Duration::from_secs(10),
            factor: 2.0,
            delay_max: Duration::from_mins(10),
            jitter: 0.2,
        }
    }
}

impl RetryPolicy {
    /// Delay after a failed attempt; `attempt` is 1 for the first.
    ///
    /// The jitter is a hash of the task ID and the attempt, so that the scheduler core needs no randomness and a
    /// replay computes the same delay.
    pub fn delay_after(&self, task: &TaskId, attempt: u32) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.delay.as_secs_f64() * self.factor.powi(exponent);
        let capped = grown.min(self.delay_max.as_secs_f64());
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((task, attempt));
        #[expect(clippy::cast_precision_loss, reason = "53 bits of jitter are sufficient")]
        let share = (hash >> 11) as f64 / (1_u64 << 53) as f64;
        Duration::try_from_secs_f64(capped * (1.0 + self.jitter * share)).unwrap_or(self.delay_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_by_the_factor_up_to_the_cap_plus_jitter() {
        let policy = RetryPolicy { delay_max: Duration::from_secs(30), ..RetryPolicy::default() };
        let task = TaskId::parse("t").unwrap();
        for (attempt, base) in [(1, 10.0), (2, 20.0), (3, 30.0), (50, 30.0)] {
            let delay = policy.delay_after(&task, attempt);
            let seconds = delay.as_secs_f64();
            assert!((base..=base * 1.2).contains(&seconds), "attempt {attempt} waits {seconds}");
            assert_eq!(policy.delay_after(&task, attempt), delay, "the delay is deterministic");
        }
    }
}
