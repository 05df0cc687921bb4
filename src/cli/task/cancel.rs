//! `lineshaft task cancel`: named tasks, or those that match a filter.

use tonic::Status;

use crate::cli::client::Client;
use crate::cli::error::{CliError, CommandResult, Exit};
use crate::cli::printer::Printer;
use crate::cli::terminal;
use crate::cli::view::{Cell, Text};
use crate::proto::v1;

use super::{bulk, each};

/// Cancels tasks. Where the server refuses one, the others are cancelled.
pub async fn named(ids: &[String], request: v1::CancelTaskRequest, client: &Client, printer: Printer) -> CommandResult {
    let mut exit = Exit::Success;
    for_each(ids.to_vec(), &request, client, printer, |error| {
        exit = exit.worse(error.report(printer.is_json()));
    })
    .await?;
    Ok(exit)
}

/// Cancels the unfinished tasks that match, with the options of the request.
pub async fn matching(
    filter: v1::TaskFilter,
    request: v1::CancelTaskRequest,
    dry_run: bool,
    client: &Client,
    printer: Printer,
) -> CommandResult {
    let v1::CancelTaskRequest { reason, mode, grace, .. } = request;
    let request = v1::CancelTasksRequest { filter: Some(filter), reason, mode, grace, validate_only: dry_run };
    let stream = client.tasks().cancel_tasks(request).await;
    let last =
        bulk::follow(stream, "cancelled", |message| (message.cancelled + message.skipped, message.matched)).await?;
    printer.print(&last, |last| {
        let v1::CancelTasksResponse { matched, cancelled, stopping, skipped } = *last;
        let parts = [(stopping, "asked to stop"), (skipped, "had ended before")];
        let parts = parts.map(|(count, text)| if count > 0 { format!(", {count} {text}") } else { String::new() });
        if dry_run { bulk::preview(matched) } else { format!("{} cancelled{}", cancelled - stopping, parts.concat()) }
    });
    Ok(Exit::Success)
}

/// Cancels each task and prints its state.
///
/// # Errors
/// The server is unreachable.
async fn for_each(
    ids: Vec<String>,
    request: &v1::CancelTaskRequest,
    client: &Client,
    printer: Printer,
    mut refused: impl FnMut(CliError),
) -> Result<(), CliError> {
    let cancel = async |id: String| {
        let request = v1::CancelTaskRequest { task_id: id.clone(), ..request.clone() };
        let response = client.tasks().cancel_task(request).await?.into_inner();
        Ok::<_, Status>((id, response))
    };
    each::call(ids, "cancelled", cancel, |response| match response {
        Ok((id, response)) => printer.print_named(&id, &response, |_| shown(&id, &response, printer)),
        Err(error) => refused(error),
    })
    .await
}

/// A running task has only been asked to stop.
fn shown(id: &str, response: &v1::CancelTaskResponse, printer: Printer) -> Text {
    let state = Cell::state(response.state);
    let state = printer.view().paint(&state.text, state.color);
    let is_stopping = response.state() == v1::TaskState::Running;
    let stopping = if is_stopping { ", asked to stop" } else { "" };
    Text::from_safe(format!("{} {state}{stopping}", terminal::line(id)))
}
