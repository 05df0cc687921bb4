//! `lineshaft map`: a task for each line of the input, and their results in the order of the lines or of their ends.
//!
//! The tasks are a batch, and each has a request ID made of the batch and its line. So a command that was interrupted goes
//! on when it is given the batch and the same input: what was submitted before is recognized.

mod ends;
mod input;
mod repeat;
mod results;
mod resume;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use tokio::sync::mpsc;
use tonic::Status;
use uuid::Uuid;

use crate::proto::v1;

use super::client::Client;
use super::complete;
use super::error::{CliError, CommandResult, Exit};
use super::output;
use super::printer::Printer;
use super::progress::Progress;
use super::task::{Priority, label, unique};
use super::time::{parse_duration, to_proto};
use input::Line;
use repeat::repeat;
use results::{Results, fetch};

/// Lines that may be submitted and not printed, so that the memory of the command does not grow with the input. Fewer than
/// the finished tasks that a server keeps by default.
const WINDOW: usize = 8_000;
/// Tasks whose results are read with one call.
const FETCHED_MAX: usize = 500;
/// Bytes of a batch ID, which is a part of the request IDs.
const BATCH_ID_MAX: usize = 40;

#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[derive(Clone, Debug, Args)]
pub struct MapArgs {
    /// Handler name; `lineshaft handler list` lists the handlers
    #[arg(add = complete::handlers())]
    handler: String,
    /// File with one payload per line [default: stdin]
    #[arg(long, value_name = "PATH")]
    input: Option<PathBuf>,
    /// The lines are JSON
    #[arg(long, conflicts_with = "args")]
    json: bool,
    /// Each line is the argument of its task instead of its payload
    #[arg(long)]
    args: bool,
    /// Print each result when its task ends, after the number of its line and a tab
    #[arg(long)]
    unordered: bool,
    /// Cancel all tasks when one has failed
    #[arg(long)]
    fail_fast: bool,
    /// Batch to create or to continue, at most 40 characters [default: generated]
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new(), add = complete::batches())]
    batch: Option<String>,
    /// Do not print the results of the first N lines: an interrupted command has printed them
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, conflicts_with = "unordered")]
    after: u64,
    /// Order in which the tasks of a pool start
    #[arg(long, value_enum, default_value_t)]
    priority: Priority,
    /// Pool, one of those that the handler allows [default: the handler's pool]
    #[arg(long, value_parser = NonEmptyStringValueParser::new(), add = complete::pools())]
    pool: Option<String>,
    /// Label, for filters. Can be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Timeout of each attempt, such as 30s or 1h30m, 1ms to 24h [default: the handler's timeout]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Maximum number of attempts, 1 to 100; 1 means no retry [default: the handler's setting]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    attempts: Option<i32>,
    /// Namespace [default: the only namespace of the token, or "default"]
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    namespace: Option<String>,
}

pub async fn run(args: MapArgs, client: Client, printer: Printer) -> CommandResult {
    let batch_name = args.batch.clone().unwrap_or_else(|| Uuid::now_v7().to_string());
    if batch_name.len() > BATCH_ID_MAX {
        return Err(CliError::Usage(format!(
            "--batch has {} characters, at most {BATCH_ID_MAX} are allowed",
            batch_name.len()
        )));
    }
    let task = task_of(&args)?;
    let lines = input::read(args.input.clone(), args.json, args.args).await?;
    let request = v1::CreateBatchRequest {
        batch_id: batch_name.clone(),
        namespace: task.namespace.clone(),
        display_name: format!("map {}", args.handler).chars().take(64).collect(),
        open: true,
        ..v1::CreateBatchRequest::default()
    };
    let created = client.batches().create_batch(request).await?.into_inner();
    let batch_id = created.batch.unwrap_or_default().batch_id;
    let progress = Progress::new(None, "finished");
    progress.describe(format!("finished, batch {batch_id}"));
    let mut map = Map {
        results: Results::new(!args.unordered, args.after, printer),
        fail_fast: args.fail_fast,
        batch_name: batch_name.clone(),
        batch_id,
        client,
        task,
        progress: Some(progress),
        submitted: 0,
        finished: 0,
        pending: HashMap::new(),
    };
    tokio::select! {
        done = map.run(lines, created.resume_token) => {
            drop(map.progress.take());
            if done.is_err() && map.submitted == 0 {
                map.discard().await;
            }
            done?;
            Ok(if map.results.failed > 0 { Exit::TaskFailed } else { Exit::Success })
        }
        _ = tokio::signal::ctrl_c() => {
            drop(map.progress.take());
            let words = std::env::args().skip(1).collect();
            let command = resume::command(words, &batch_name, map.results.printed());
            output::status("interrupted; the tasks continue");
            output::status(format_args!("to continue, with the same input: {command}"));
            output::status(format_args!("to stop the tasks: lineshaft batch cancel {}", map.batch_id));
            Ok(Exit::TaskNotFinished)
        }
    }
}

/// What all tasks have in common.
fn task_of(args: &MapArgs) -> Result<v1::SubmitTaskRequest, CliError> {
    let retry = |max_attempts| v1::RetryPolicy { max_attempts, ..v1::RetryPolicy::default() };
    Ok(v1::SubmitTaskRequest {
        handler: args.handler.clone(),
        priority: args.priority as i32,
        pool: args.pool.clone().unwrap_or_default(),
        labels: unique(args.labels.clone())?,
        timeout: args.timeout.map(to_proto),
        retry: args.attempts.map(retry),
        namespace: args.namespace.clone().unwrap_or_default(),
        ..v1::SubmitTaskRequest::default()
    })
}

struct Map {
    client: Client,
    /// As given, for request IDs and for submissions.
    batch_name: String,
    /// As in responses.
    batch_id: String,
    task: v1::SubmitTaskRequest,
    fail_fast: bool,
    /// Lines of the tasks that were submitted and whose result was not read.
    pending: HashMap<String, u64>,
    results: Results,
    /// `None` at the end.
    progress: Option<Progress>,
    submitted: u64,
    finished: u64,
}

impl Map {
    async fn run(
        &mut self,
        mut lines: mpsc::Receiver<Result<Vec<Line>, CliError>>,
        token: String,
    ) -> Result<(), CliError> {
        let (mut ended, _watch) = ends::watch(self.client.clone(), self.batch_id.clone(), token);
        let (mut has_input, mut ids) = (true, Vec::new());
        while has_input || !self.pending.is_empty() {
            let has_room = self.results.unprinted(self.pending.len()) < WINDOW;
            tokio::select! {
                biased;
                count = ended.recv_many(&mut ids, FETCHED_MAX) => {
                    if count == 0 {
                        return Err(Status::unavailable("the watch of the tasks has ended").into());
                    }
                    let ids = ids.drain(..).collect::<Result<Vec<String>, Status>>()?;
                    self.fetch(ids).await?;
                }
                chunk = lines.recv(), if has_input && has_room => {
                    if let Some(chunk) = chunk {
                        self.submit(chunk?).await?;
                    } else {
                        has_input = false;
                        self.close().await?;
                    }
                }
            }
            if self.fail_fast && self.results.failed > 0 {
                return self.cancel().await;
            }
        }
        Ok(())
    }

    /// Submits lines. Those that were submitted before may have ended before the watch began.
    async fn submit(&mut self, lines: Vec<Line>) -> Result<(), CliError> {
        let tasks = lines.iter().map(|line| v1::SubmitTaskRequest {
            payload: line.payload.clone(),
            args: line.arg.iter().cloned().collect(),
            request_id: format!("{}:{}", self.batch_name, line.number),
            ..self.task.clone()
        });
        let request = v1::BatchSubmitTasksRequest { tasks: tasks.collect(), batch_id: self.batch_name.clone() };
        let client = self.client.clone();
        let call = || async { client.tasks().batch_submit_tasks(request.clone()).await };
        let response = repeat(call).await?;
        let mut repeated = Vec::new();
        for (index, (id, line)) in response.task_ids.iter().zip(&lines).enumerate() {
            if response.duplicates.get(index).copied().unwrap_or_default() {
                repeated.push(id.clone());
            }
            self.pending.insert(id.clone(), line.number);
            self.submitted += 1;
        }
        self.show();
        for ids in repeated.chunks(FETCHED_MAX) {
            self.fetch(ids.to_vec()).await?;
        }
        Ok(())
    }

    /// Reads the results of those tasks that have ended.
    async fn fetch(&mut self, mut ids: Vec<String>) -> Result<(), CliError> {
        ids.retain(|id| self.pending.contains_key(id));
        if ids.is_empty() {
            return Ok(());
        }
        for (id, task) in fetch(&self.client, ids).await? {
            if let Some(line) = self.pending.remove(&id) {
                let results = &mut self.results;
                match &self.progress {
                    Some(progress) => progress.suspend(|| results.add(line, task)),
                    None => results.add(line, task),
                }
                self.finished += 1;
            }
        }
        self.show();
        Ok(())
    }

    fn show(&self) {
        if let Some(progress) = &self.progress {
            progress.set(self.finished, Some(self.submitted));
        }
    }

    /// Deletes the batch if nothing was submitted, such as for an unknown handler.
    async fn discard(&self) {
        let batch_id = self.batch_id.clone();
        if self.close().await.is_ok() {
            // What matters to the user is why nothing was submitted.
            let _ = self.client.batches().delete_batch(v1::DeleteBatchRequest { batch_id }).await;
        }
    }

    async fn close(&self) -> Result<(), CliError> {
        let request = v1::CloseBatchRequest { batch_id: self.batch_id.clone() };
        repeat(|| async { self.client.batches().close_batch(request.clone()).await }).await.map(drop)
    }

    async fn cancel(&self) -> Result<(), CliError> {
        let reason = "a task failed, and the command was to stop then".to_owned();
        let request = v1::CancelBatchRequest { batch_id: self.batch_id.clone(), reason, ..Default::default() };
        let cancelled = repeat(|| async { self.client.batches().cancel_batch(request.clone()).await }).await;
        match cancelled {
            // It was the last task.
            Err(CliError::Status(status)) if status.code() == tonic::Code::FailedPrecondition => Ok(()),
            cancelled => {
                output::status(format_args!("cancelled the other tasks of batch {}", self.batch_id));
                cancelled.map(drop)
            }
        }
    }
}
