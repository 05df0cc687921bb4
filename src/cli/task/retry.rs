//! `lineshaft task retry`: submits ended tasks again.

use tonic::Status;

use crate::cli::client::Client;
use crate::cli::error::{CliError, CommandResult, Exit};
use crate::cli::printer::Printer;
use crate::proto::v1;

use super::args::{self, Priority};
use super::print::is_terminal;
use super::{each, list};

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

/// Retries the tasks that match now: failed ones, unless the filter names states.
pub async fn matching(
    mut filter: v1::TaskFilter,
    request: v1::RetryTaskRequest,
    client: &Client,
    printer: Printer,
) -> CommandResult {
    if filter.states.is_empty() {
        filter.states = vec![v1::TaskState::Failed.into()];
    }
    if !filter.states.iter().all(|state| v1::TaskState::try_from(*state).is_ok_and(is_terminal)) {
        return Err(CliError::Usage("--state: only tasks that have ended can be retried".to_owned()));
    }
    let found = list::tasks(&filter, usize::MAX, client).await?;
    // In the order of their submission.
    let ids = found.tasks.into_iter().rev().map(|task| task.task_id).collect();
    named(ids, request, client, printer).await
}
