//! `lineshaft task run`: a task from its submission to its result.

use tonic::Status;

use crate::cli::client::Client;
use crate::cli::error::CommandResult;
use crate::cli::printer::Printer;
use crate::cli::reconnect::{GIVE_UP_AFTER, Reconnect};
use crate::cli::{format, output};
use crate::proto::v1::{self, run_task_response};

use super::{print, wait};

/// Submits a task, prints its events to stderr and its result to stdout. If the connection breaks after the task was
/// accepted, waits for its end over a new one.
pub async fn run(task: v1::SubmitTaskRequest, client: Client, printer: Printer) -> CommandResult {
    let request = v1::RunTaskRequest { task: Some(task) };
    let mut responses = client.tasks().run_task(request).await?.into_inner();
    let mut reconnect = Reconnect::new(GIVE_UP_AFTER);
    let mut accepted = None;
    let status = loop {
        match responses.message().await {
            Ok(None) => break Status::unavailable("the server ended the stream"),
            Err(status) => break status,
            Ok(Some(response)) => match response.kind {
                Some(run_task_response::Kind::Accepted(receipt)) => {
                    output::status(format_args!("{} accepted", receipt.task_id));
                    accepted = Some(receipt.task_id);
                }
                Some(run_task_response::Kind::Event(event)) => {
                    output::status(print::event(&event, &printer.view().uncolored()));
                }
                Some(run_task_response::Kind::Task(task)) => return Ok(print::result(&task, printer)),
                None => {}
            },
        }
        reconnect.answered();
    };
    let Some(id) = accepted else { return Err(status.into()) };
    reconnect.pause(status).await?;
    let task = wait::until_finished(&id, None, &client, reconnect).await?;
    // The events that were missed would have reported how the task ended.
    let (state, failure) = (format::task_state(task.state), format::failure(task.failure.as_ref()));
    output::status(format!("{id} {state} {failure}").trim_end());
    Ok(print::result(&task, printer))
}
