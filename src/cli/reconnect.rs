//! When and how soon a command calls again after its connection broke.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Status;
use tonic_types::StatusExt;

use super::output;
use crate::client::{LONGEST_PAUSE, may_help, pause_after};

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
        let pause = pause_after(self.pauses).max(asked.min(LONGEST_PAUSE));
        self.pauses += 1;
        if self.pauses == 1 {
            output::status(format_args!("connection lost ({}); resuming", status.message()));
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic_types::ErrorDetails;

    use super::*;

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
