//! `lineshaft task cancel`: named tasks, or those that match a filter.

use tonic::{Code, Status};

use crate::cli::client::Client;
use crate::cli::error::{CliError, CommandResult, Exit};
use crate::cli::printer::Printer;
use crate::cli::view::{Cell, Text};
use crate::cli::{output, terminal};
use crate::proto::v1;

use super::wait::UNFINISHED;
use super::{each, list};

/// Cancels tasks. Where the server refuses one, the others are cancelled.
pub async fn named(ids: &[String], request: v1::CancelTaskRequest, client: &Client, printer: Printer) -> CommandResult {
    let mut exit = Exit::Success;
    for_each(ids.to_vec(), &request, client, printer, |error| {
        exit = exit.worse(error.report(printer.is_json()));
    })
    .await?;
    Ok(exit)
}

/// Cancels the unfinished tasks that match. Tasks that end meanwhile are no error.
pub async fn matching(
    filter: v1::TaskFilter,
    request: v1::CancelTaskRequest,
    client: &Client,
    printer: Printer,
) -> CommandResult {
    let is_wanted = |state: &i32| filter.states.is_empty() || filter.states.contains(state);
    let unfinished: Vec<i32> = UNFINISHED.into_iter().filter(is_wanted).collect();
    if unfinished.is_empty() {
        return Err(CliError::Usage("--state: only waiting, queued and running tasks can be cancelled".to_owned()));
    }
    let found = list::tasks(&v1::TaskFilter { states: unfinished, ..filter }, usize::MAX, client).await?;
    let ids = found.tasks.into_iter().map(|task| task.task_id).collect();
    let (mut exit, mut ended) = (Exit::Success, 0_u64);
    for_each(ids, &request, client, printer, |error| match &error {
        CliError::Status(status) if matches!(status.code(), Code::FailedPrecondition | Code::NotFound) => ended += 1,
        error => exit = exit.worse(error.report(printer.is_json())),
    })
    .await?;
    if ended > 0 {
        output::status(format_args!("{ended} tasks had ended before"));
    }
    Ok(exit)
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
