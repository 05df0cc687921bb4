//! `lineshaft task retry`: submits ended tasks again.

use tonic::Status;

use crate::cli::client::Client;
use crate::cli::error::{CliError, CommandResult, Exit};
use crate::cli::printer::Printer;
use crate::proto::v1;

use super::args::{self, Priority};
use super::{bulk, each};

/// The changes of the new tasks.
pub fn request(json: Option<String>, priority: Option<Priority>) -> Result<v1::RetryTaskRequest, CliError> {
    let priority = priority.map_or(0, |priority| priority as i32);
    Ok(v1::RetryTaskRequest { payload: args::payload(None, json)?, priority, ..v1::RetryTaskRequest::default() })
}

/// Retries these tasks, with the changes of the request. Where the server refuses one, the others are retried.
pub async fn named(
    ids: Vec<String>,
    request: v1::RetryTaskRequest,
    client: &Client,
    printer: Printer,
) -> CommandResult {
    let retry = async |id: String| {
        let request = v1::RetryTaskRequest { task_id: id, ..request.clone() };
        let response = client.tasks().retry_task(request).await?.into_inner();
        Ok::<_, Status>(response.task.unwrap_or_default())
    };
    let mut exit = Exit::Success;
    each::call(ids, "retried", retry, |response| match response {
        Ok(task) => printer.print(&task, |task| task.task_id.clone()),
        Err(error) => exit = exit.worse(error.report(printer.is_json())),
    })
    .await?;
    Ok(exit)
}

/// Retries the tasks that match now, with the changes of the request: failed ones, unless the filter names states.
pub async fn matching(
    filter: v1::TaskFilter,
    request: v1::RetryTaskRequest,
    dry_run: bool,
    client: &Client,
    printer: Printer,
) -> CommandResult {
    let v1::RetryTaskRequest { payload, priority, .. } = request;
    let filter = Some(filter);
    let request =
        v1::RetryTasksRequest { filter, request_id: String::new(), payload, priority, validate_only: dry_run };
    let stream = client.tasks().retry_tasks(request).await;
    let last = bulk::follow(stream, "retried", |message| {
        if !message.task_ids.is_empty() {
            printer.print(message, |message| message.task_ids.join("\n"));
        }
        (message.retried + message.skipped, message.matched)
    })
    .await?;
    if dry_run {
        printer.print(&last, |last| bulk::preview(last.matched));
    }
    Ok(Exit::Success)
}
