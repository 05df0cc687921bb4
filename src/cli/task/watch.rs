//! `lineshaft task watch`: events until interrupted, across broken connections and restarts of the server.

use std::time::Duration;

use tonic::{Status, Streaming};
use tonic_types::StatusExt;

use crate::cli::client::Client;
use crate::cli::error::{CommandResult, Exit, is_connection_error};
use crate::cli::format::{self, Printer};
use crate::cli::{output, terminal};
use crate::proto::v1::{self, watch_tasks_response::Kind};

use super::filter::Filter;
use super::print;

const RECONNECT_DELAY: Duration = Duration::from_secs(1);
/// Reason of the error with which a watch ends when the server drains.
const DRAINING: &str = "DRAINING";

pub async fn run(
    filter: Filter,
    after: Option<String>,
    snapshot: bool,
    client: Client,
    printer: Printer,
) -> CommandResult {
    let mut request = v1::WatchTasksRequest {
        filter: Some(filter.into()),
        resume_token: after.unwrap_or_default(),
        include_snapshot: snapshot,
        progress_interval: None,
    };
    loop {
        let watched = async {
            let mut responses = client.tasks().watch_tasks(request.clone()).await?.into_inner();
            print_events(&mut responses, &mut request, printer).await
        };
        let result = tokio::select! {
            result = watched => Some(result),
            _ = tokio::signal::ctrl_c() => None,
        };
        let status = match result {
            None => {
                if !request.resume_token.is_empty() {
                    output::status(format_args!("to continue this watch: --after {}", request.resume_token));
                }
                return Ok(Exit::Success);
            }
            Some(Ok(())) => continue,
            Some(Err(status)) => status,
        };
        if let Some(token) = drain_token(&status) {
            request.resume_token = token;
        }
        // Without a token to resume with, events could be missed.
        let resumable = drained(&status) || is_connection_error(&status);
        if !resumable || request.resume_token.is_empty() {
            return Err(status.into());
        }
        output::status(format_args!("connection lost ({}); resuming", status.message()));
        tokio::time::sleep(RECONNECT_DELAY).await;
    }
}

fn drained(status: &Status) -> bool {
    status.get_error_details().error_info().is_some_and(|info| info.reason == DRAINING)
}

/// The token to resume with, which a draining server puts into the error unless a snapshot is incomplete.
fn drain_token(status: &Status) -> Option<String> {
    let details = status.get_error_details();
    let info = details.error_info().filter(|info| info.reason == DRAINING)?;
    info.metadata.get("resume_token").cloned()
}

/// Prints until the stream ends, and keeps in `request` where to resume.
async fn print_events(
    responses: &mut Streaming<v1::WatchTasksResponse>,
    request: &mut v1::WatchTasksRequest,
    printer: Printer,
) -> Result<(), Status> {
    while let Some(response) = responses.message().await? {
        match response.kind {
            Some(Kind::SnapshotEntry(task)) => {
                let text =
                    |task: &v1::Task| format!("{} {}", terminal::line(&task.task_id), format::task_state(task.state));
                printer.print(&task, text);
            }
            Some(Kind::SnapshotComplete(complete)) => {
                request.resume_token = complete.resume_token;
                request.include_snapshot = false;
            }
            Some(Kind::Event(event)) => {
                // Empty before the end of the snapshot.
                request.resume_token.clone_from(&event.resume_token);
                printer.print(&event, print::event);
            }
            Some(Kind::Progress(progress)) => request.resume_token = progress.resume_token,
            None => {}
        }
    }
    Ok(())
}
