//! Repeats calls that are safe to repeat.

use tonic::{Response, Status};

use crate::cli::error::CliError;
use crate::cli::reconnect::{GIVE_UP_AFTER, Reconnect};

/// Repeats a call while the server cannot be reached or is full.
pub async fn repeat<T, F: Future<Output = Result<Response<T>, Status>>>(call: impl Fn() -> F) -> Result<T, CliError> {
    let mut reconnect = Reconnect::new(GIVE_UP_AFTER);
    reconnect.answered();
    loop {
        match call().await {
            Ok(response) => return Ok(response.into_inner()),
            Err(status) => reconnect.pause(status).await?,
        }
    }
}
