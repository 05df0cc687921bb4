//! `lineshaft task watch`: events until interrupted, across broken connections and restarts of the server.

use std::time::Duration;

use tonic::{Status, Streaming};
use tonic_types::StatusExt;

use crate::cli::client::Client;
use crate::cli::error::{CommandResult, Exit};
use crate::cli::printer::Printer;
use crate::cli::reconnect::Reconnect;
use crate::cli::view::{Cell, Text};
use crate::cli::{output, terminal};
use crate::proto::v1::{self, watch_tasks_response::Kind};

use super::print;

/// Reason of the error with which a watch ends when the server drains.
const DRAINING: &str = "DRAINING";

pub async fn run(
    filter: v1::TaskFilter,
    after: Option<String>,
    snapshot: bool,
    client: Client,
    printer: Printer,
) -> CommandResult {
    let mut request = v1::WatchTasksRequest {
        filter: Some(filter),
        resume_token: after.unwrap_or_default(),
        include_snapshot: snapshot,
        progress_interval: None,
    };
    tokio::select! {
        status = watch(&mut request, &client, printer) => return Err(status.into()),
        _ = tokio::signal::ctrl_c() => {}
    }
    if !request.resume_token.is_empty() {
        output::status(format_args!("to continue this watch: --after {}", request.resume_token));
    }
    Ok(Exit::Success)
}

/// Watches until calling again does not help.
async fn watch(request: &mut v1::WatchTasksRequest, client: &Client, printer: Printer) -> Status {
    let mut reconnect = Reconnect::new(Duration::MAX);
    loop {
        let watched = async {
            let mut responses = client.tasks().watch_tasks(request.clone()).await?.into_inner();
            print_events(&mut responses, request, &mut reconnect, printer).await
        };
        let status = watched.await.err().unwrap_or_else(|| Status::unavailable("the server ended the watch"));
        if let Some(token) = drain_token(&status) {
            request.resume_token = token;
            reconnect.answered();
        }
        // Without a token to resume with, events could be missed.
        if request.resume_token.is_empty() {
            return status;
        }
        if let Err(status) = reconnect.pause(status).await {
            return status;
        }
    }
}

/// The token to resume with, which a draining server puts into the error unless a snapshot is incomplete.
pub fn drain_token(status: &Status) -> Option<String> {
    let details = status.get_error_details();
    let info = details.error_info().filter(|info| info.reason == DRAINING)?;
    info.metadata.get("resume_token").cloned()
}

/// Prints until the stream ends, and keeps in `request` where to resume.
async fn print_events(
    responses: &mut Streaming<v1::WatchTasksResponse>,
    request: &mut v1::WatchTasksRequest,
    reconnect: &mut Reconnect,
    printer: Printer,
) -> Result<(), Status> {
    while let Some(response) = responses.message().await? {
        reconnect.answered();
        match response.kind {
            Some(Kind::SnapshotEntry(task)) => {
                let state = Cell::state(task.state);
                let state = printer.view().paint(&state.text, state.color);
                printer.print(&*task, |task| Text::from_safe(format!("{} {state}", terminal::line(&task.task_id))));
            }
            Some(Kind::SnapshotComplete(complete)) => {
                request.resume_token = complete.resume_token;
                request.include_snapshot = false;
            }
            Some(Kind::Event(event)) => {
                // Empty before the end of the snapshot.
                request.resume_token.clone_from(&event.resume_token);
                printer.print(&*event, |event| print::event(event, &printer.view()));
            }
            Some(Kind::Progress(progress)) => request.resume_token = progress.resume_token,
            None => {}
        }
    }
    Ok(())
}
