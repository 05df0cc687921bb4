//! Calls that are repeated while the server cannot be reached or is full.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Status;

use super::backoff::pause_after;
use super::error::may_help;

/// How long a call is repeated that waits for nothing.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// Calls again as long as that can help; until `deadline`, by default for 30 seconds.
pub async fn repeat<T, F>(deadline: Option<Instant>, mut call: impl FnMut() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<T, Status>>,
{
    let deadline = deadline.unwrap_or_else(|| Instant::now() + TIMEOUT);
    let mut pauses = 0;
    loop {
        match call().await {
            Err(status) if may_help(&status) && Instant::now() < deadline => {
                tokio::time::sleep(pause_after(pauses)).await;
                pauses += 1;
            }
            other => return other,
        }
    }
}
