//! One call for each of many tasks.

use futures_util::{StreamExt, stream};
use tonic::Status;

use crate::cli::error::{CliError, Exit};
use crate::cli::printer::CALLS_AT_ONCE;
use crate::cli::progress::Progress;

/// Calls for each task and hands over the responses in the order of the IDs. `done` names a task in the progress bar.
/// Where the server refuses one, the others are called.
///
/// # Errors
/// The server is unreachable.
pub async fn call<T>(
    ids: Vec<String>,
    done: &'static str,
    call: impl AsyncFn(String) -> Result<T, Status>,
    mut take: impl FnMut(Result<T, CliError>),
) -> Result<(), CliError> {
    let progress = Progress::new(Some(ids.len() as u64), done);
    let mut responses = stream::iter(ids).map(|id| call(id)).buffered(CALLS_AT_ONCE);
    while let Some(response) = responses.next().await {
        match response.map_err(CliError::from) {
            Err(error) if error.exit() == Exit::Unreachable => return Err(error),
            response => progress.suspend(|| take(response)),
        }
        progress.add(1);
    }
    Ok(())
}
