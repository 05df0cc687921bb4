//! When and how soon a command calls again after its connection broke.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::error::is_connection_error;
use super::output;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A command that waits for one result gives up when the server was unreachable for this long.
pub const GIVE_UP_AFTER: Duration = Duration::from_mins(5);

/// Pauses that grow while the server stays unreachable, so that many clients do not call all at once.
#[derive(Debug)]
pub struct Reconnect {
    /// Pauses since the last answer.
    pauses: u32,
    /// When the last answer came; `None`: there was none.
    answered_at: Option<Instant>,
    give_up_after: Duration,
}

impl Reconnect {
    pub fn new(give_up_after: Duration) -> Self {
        Self { pauses: 0, answered_at: None, give_up_after }
    }

    /// Call it when the server has answered.
    pub fn answered(&mut self) {
        self.pauses = 0;
        self.answered_at = Some(Instant::now());
    }

    /// Waits before the next call.
    ///
    /// # Errors
    /// The status, if calling again cannot help, the server has never answered, or it is time to give up.
    pub async fn pause(&mut self, status: Status) -> Result<(), Status> {
        let may_help = may_help(&status) && self.answered_at.is_some_and(|at| at.elapsed() < self.give_up_after);
        if !may_help {
            return Err(status);
        }
        let asked = status.get_error_details().retry_info().and_then(|retry| retry.retry_delay).unwrap_or_default();
        let pause = pause_after(self.pauses, RandomState::new().hash_one(())).max(asked.min(LONGEST_PAUSE));
        self.pauses += 1;
        if self.pauses == 1 {
            output::status(format_args!("connection lost ({}); resuming", status.message()));
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// Whether the same call can succeed later: the connection broke, or the server asks for a pause, also because it drains.
fn may_help(status: &Status) -> bool {
    let asked = status.get_error_details().retry_info().is_some();
    is_connection_error(status) || status.code() == Code::Unavailable || asked
}

/// Doubles from pause to pause, and varies by a half, so that clients that lost the same server come back one by one.
fn pause_after(pauses: u32, random: u64) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(pauses)).min(LONGEST_PAUSE);
    longest / 2 + longest / 2 * u32::try_from(random % 1_001).unwrap_or(0) / 1_000
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit_and_vary_by_a_half() {
        let millis = |pauses, random| pause_after(pauses, random).as_millis();
        assert_eq!([0, 1, 2, 3].map(|pauses| millis(pauses, 1_000)), [200, 400, 800, 1_600]);
        assert_eq!([0, 1, 2, 3].map(|pauses| millis(pauses, 0)), [100, 200, 400, 800]);
        assert_eq!((millis(1_000, 0), millis(u32::MAX, 1_000)), (5_000, 10_000));
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_server_that_has_answered_is_called_again_until_it_is_time_to_give_up() {
        let lost = || Status::unavailable("connection refused");
        let mut reconnect = Reconnect::new(Duration::from_secs(60));
        assert!(reconnect.pause(lost()).await.is_err(), "it was never reached");
        reconnect.answered();
        let info = ErrorDetails::with_error_info("TASK_NOT_FOUND", "lineshaft.dev", []);
        let refused = Status::with_error_details(Code::NotFound, "no such task", info);
        assert!(reconnect.pause(refused).await.is_err(), "calling again does not help");
        let started = Instant::now();
        while reconnect.pause(lost()).await.is_ok() {}
        assert!((60..75).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
        reconnect.answered();
        assert!(reconnect.pause(lost()).await.is_ok());
    }
}
