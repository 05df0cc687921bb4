//! `lineshaft task submit`, `run` and `wait`.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use prost::Message;
use tokio::time::Instant;
use tonic::{Response, Status};

use crate::cli::client::Client;
use crate::cli::error::{CliError, CommandResult, Exit};
use crate::cli::format::Printer;
use crate::cli::output;
use crate::cli::reconnect::{GIVE_UP_AFTER, Reconnect};
use crate::cli::time::to_proto;
use crate::model::limits;
use crate::proto::v1::{self, run_task_response};

use super::args::TaskArgs;
use super::print;

/// Tasks per batch of `--count`.
const BATCH_SIZE: usize = 1_000;
/// Bytes of a batch; the rest of a message is left for its other fields.
const BATCH_BYTES: usize = limits::MESSAGE_BYTES_MAX - 1_024;
/// Bytes of tag and length of a task in a batch, at most.
const TASK_OVERHEAD: usize = 6;

pub async fn one(task: TaskArgs, wait_for_end: bool, client: Client, printer: Printer) -> CommandResult {
    let response = client.tasks().submit_task(task.request()?).await?.into_inner();
    if response.duplicate {
        output::status("Duplicate submission: this task was already accepted");
    }
    if wait_for_end {
        output::status(&response.task_id);
        return wait(response.task_id, None, client, printer).await;
    }
    printer.print(&response, |response| response.task_id.clone());
    Ok(Exit::Success)
}

pub async fn many(task: TaskArgs, count: u64, client: Client, printer: Printer) -> CommandResult {
    let request = task.request()?;
    if !request.task_id.is_empty() || !request.request_id.is_empty() {
        return Err(CliError::Usage("--id and --request-id cannot be used with --count".to_owned()));
    }
    let bar = ProgressBar::new(count).with_style(
        ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} submitted, {per_sec}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let batch_size = batch_size(&request);
    let mut left = count;
    while left > 0 {
        let size = left.min(batch_size);
        let tasks = (0..size).map(|_| request.clone()).collect();
        let batch = v1::BatchSubmitTasksRequest { tasks, batch_id: String::new() };
        let response = client.tasks().batch_submit_tasks(batch).await?.into_inner();
        printer.print(&response, |response| response.batch_id.clone());
        bar.inc(size);
        left -= size;
    }
    bar.finish();
    Ok(Exit::Success)
}

/// How many copies of a task a batch can have. At least 1: the server then names what is too large.
fn batch_size(task: &v1::SubmitTaskRequest) -> u64 {
    (BATCH_BYTES / (task.encoded_len() + TASK_OVERHEAD)).clamp(1, BATCH_SIZE) as u64
}

/// Submits a task, prints its events to stderr and its result to stdout. If the connection breaks after the task was
/// accepted, waits for its end over a new one.
pub async fn and_follow(task: TaskArgs, client: Client, printer: Printer) -> CommandResult {
    let request = v1::RunTaskRequest { task: Some(task.request()?) };
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
                Some(run_task_response::Kind::Event(event)) => output::status(print::event(&event)),
                Some(run_task_response::Kind::Task(task)) => return Ok(print::result(&task, printer)),
                None => {}
            },
        }
        reconnect.answered();
    };
    let Some(id) = accepted else { return Err(status.into()) };
    reconnect.pause(status).await?;
    Ok(print::result(&until_finished(&id, None, &client, reconnect).await?, printer))
}

pub async fn wait(id: String, timeout: Option<Duration>, client: Client, printer: Printer) -> CommandResult {
    let task = until_finished(&id, timeout, &client, Reconnect::new(GIVE_UP_AFTER)).await?;
    printer.print(&task, print::details);
    Ok(print::exit_of(task.state))
}

/// Waits until a task has finished or the time is over, in calls of at most `WAIT_MAX` each, which is the server's limit.
async fn until_finished(
    id: &str,
    timeout: Option<Duration>,
    client: &Client,
    mut reconnect: Reconnect,
) -> Result<v1::Task, CliError> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let call_timeout = left.unwrap_or(limits::WAIT_MAX).min(limits::WAIT_MAX);
        let request = v1::WaitTaskRequest { task_id: id.to_owned(), timeout: Some(to_proto(call_timeout)) };
        match client.tasks().wait_task(request).await.map(Response::into_inner) {
            Ok(response) if response.finished || left.is_some_and(|left| left <= call_timeout) => {
                return Ok(response.task.unwrap_or_default());
            }
            Ok(_) => reconnect.answered(),
            Err(status) if left.is_some_and(|left| left.is_zero()) => return Err(status.into()),
            Err(status) => reconnect.pause(status).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_fits_into_a_message() {
        for bytes in [0, 1, 100, 10_000, 16_000, 17_000, 100_000, 1 << 20, 40 << 20] {
            let kind = Some(v1::payload::Kind::Data(vec![b'x'; bytes].into()));
            let payload = Some(v1::Payload { kind, content_type: String::new() });
            let task = v1::SubmitTaskRequest { payload, ..v1::SubmitTaskRequest::default() };
            let size = usize::try_from(batch_size(&task)).unwrap();
            let batch = v1::BatchSubmitTasksRequest { tasks: vec![task; size], batch_id: String::new() };
            let fits = batch.encoded_len() <= limits::MESSAGE_BYTES_MAX;
            assert!((1..=BATCH_SIZE).contains(&size) && (fits || size == 1), "{bytes}: {size}");
            assert!(size == BATCH_SIZE || batch.encoded_len() > limits::MESSAGE_BYTES_MAX / 2, "{bytes}: {size}");
        }
    }
}
