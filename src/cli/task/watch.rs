//! `lineshaft task watch`: events until interrupted, across broken connections and restarts of the server.

use std::time::Duration;

use tonic::{Status, Streaming};
use tonic_types::StatusExt;

use crate::cli::client::Client;
use crate::cli::error::{CommandResult, Exit, is_connection_error};
use crate::cli::format::{self, Printer};
use crate::cli::output;
use crate::proto::v1::{self, watch_tasks_response::Kind};

use super::filter::Filter;
use super::print;

const RECONNECT_DELAY: Duration = Duration::from_secs(1);
/// Reason of the error with which a watch ends when the server drains.
const DRAINING: &str = "DRAINING";

pub async fn run(
    filter: Filter,
    after: Option<u64>,
    snapshot: bool,
    client: Client,
    printer: Printer,
) -> CommandResult {
    let mut request = v1::WatchTasksRequest {
        filter: Some(filter.into()),
        after_revision: after,
        include_snapshot: snapshot,
        progress_interval: None,
    };
    loop {
        let watched = async {
            let mut responses = client.tasks().watch_tasks(request.clone()).await?.into_inner();
            print_events(&mut responses, &mut request, printer).await
        };
        let result = tokio::select! {
            result = watched => result,
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Success),
        };
        let Err(status) = result else { continue };
        // An incomplete snapshot is requested again from the start.
        if let Some(revision) = drain_revision(&status).filter(|_| !request.include_snapshot) {
            request.after_revision = Some(revision);
        }
        // Without a revision to resume after, events could be missed.
        let resumable = drained(&status) || is_connection_error(&status);
        let (true, Some(after)) = (resumable, request.after_revision) else { return Err(status.into()) };
        output::status(format_args!("connection lost ({}); resuming after revision {after}", status.message()));
        tokio::time::sleep(RECONNECT_DELAY).await;
    }
}

fn drained(status: &Status) -> bool {
    status.get_error_details().error_info().is_some_and(|info| info.reason == DRAINING)
}

/// The revision to resume after, which a draining server puts into the error.
fn drain_revision(status: &Status) -> Option<u64> {
    let details = status.get_error_details();
    let info = details.error_info().filter(|info| info.reason == DRAINING)?;
    info.metadata.get("revision")?.parse().ok()
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
                printer.print(&task, |task| format!("{} {}", task.task_id, format::task_state(task.state)));
            }
            Some(Kind::SnapshotComplete(complete)) => {
                request.after_revision = Some(complete.revision);
                request.include_snapshot = false;
            }
            Some(Kind::Event(event)) => {
                // The end of the snapshot sets the revision; an event before it does not.
                if !request.include_snapshot {
                    request.after_revision = Some(event.revision);
                }
                printer.print(&event, print::event);
            }
            Some(Kind::Progress(progress)) => request.after_revision = Some(progress.revision),
            None => {}
        }
    }
    Ok(())
}
