//! `lineshaft task submit`, `run` and `wait`.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::client::Client;
use crate::cli::error::{CliError, CommandResult, Exit};
use crate::cli::format::Printer;
use crate::cli::output;
use crate::cli::time::to_proto;
use crate::model::limits;
use crate::proto::v1::{self, run_task_response};

use super::args::TaskArgs;
use super::print;

/// Tasks per batch of `--count`.
const BATCH_SIZE: u64 = 1_000;

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
    let mut left = count;
    while left > 0 {
        let size = left.min(BATCH_SIZE);
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

/// Submits a task, prints its events to stderr and its result to stdout.
pub async fn and_follow(task: TaskArgs, client: Client, printer: Printer) -> CommandResult {
    let request = v1::RunTaskRequest { task: Some(task.request()?) };
    let mut responses = client.tasks().run_task(request).await?.into_inner();
    while let Some(response) = responses.message().await? {
        match response.kind {
            Some(run_task_response::Kind::Accepted(accepted)) => {
                output::status(format_args!("{} accepted", accepted.task_id));
            }
            Some(run_task_response::Kind::Event(event)) => output::status(print::event(&event)),
            Some(run_task_response::Kind::Task(task)) => return Ok(print::result(&task, printer)),
            None => {}
        }
    }
    Ok(Exit::TaskNotFinished)
}

/// Waits in calls of at most `WAIT_MAX` each, which is the server's limit.
pub async fn wait(id: String, timeout: Option<Duration>, client: Client, printer: Printer) -> CommandResult {
    let deadline = timeout.and_then(|timeout| tokio::time::Instant::now().checked_add(timeout));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(tokio::time::Instant::now()));
        let call_timeout = left.unwrap_or(limits::WAIT_MAX).min(limits::WAIT_MAX);
        let request = v1::WaitTaskRequest { task_id: id.clone(), timeout: Some(to_proto(call_timeout)) };
        let response = client.tasks().wait_task(request).await?.into_inner();
        if response.finished || left.is_some_and(|left| left <= call_timeout) {
            let task = response.task.unwrap_or_default();
            printer.print(&task, print::details);
            return Ok(print::exit_of(task.state));
        }
    }
}
