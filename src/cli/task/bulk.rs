//! Actions of the server on all tasks that match a filter.

use tonic::{Response, Status, Streaming};

use crate::cli::error::CliError;
use crate::cli::progress::Progress;

/// Options of `task cancel`, `update`, `retry` and `delete`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct DryRun {
    /// Only print how many tasks match
    #[arg(long)]
    pub dry_run: bool,
}

/// What a dry run prints.
pub fn preview(matched: i64) -> String {
    format!("{matched} match")
}

/// Reads the stream to its end and returns its last message. `step` handles each message, and returns how many tasks were done so far,
/// and of how many.
pub async fn follow<T: Default>(
    stream: Result<Response<Streaming<T>>, Status>,
    done: &'static str,
    step: impl Fn(&T) -> (i64, i64),
) -> Result<T, CliError> {
    let mut stream = stream?.into_inner();
    let progress = Progress::new(None, done);
    let mut last = T::default();
    while let Some(message) = stream.message().await? {
        let (done, total) = progress.suspend(|| step(&message));
        progress.set(done.try_into().unwrap_or(0), Some(total.try_into().unwrap_or(0)));
        last = message;
    }
    Ok(last)
}
