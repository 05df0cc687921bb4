//! `lineshaft task submit`: one task, copies of it, or the tasks of a file.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, stdin};

use prost::Message;

use crate::cli::client::Client;
use crate::cli::error::{CliError, CommandResult, Exit};
use crate::cli::output;
use crate::cli::printer::Printer;
use crate::cli::progress::Progress;
use crate::model::limits;
use crate::proto::{json, v1};

use super::args::TaskArgs;
use super::wait;

/// Tasks per call.
const BATCH_SIZE: usize = 1_000;
/// Bytes of the tasks of a call; the rest of a message is left for its other fields.
const BATCH_BYTES: usize = limits::MESSAGE_BYTES_MAX - 1_024;
/// Bytes of tag and length of a task in a batch, at most.
const TASK_OVERHEAD: usize = 6;

pub async fn one(
    request: v1::SubmitTaskRequest,
    wait_for_end: bool,
    client: Client,
    printer: Printer,
) -> CommandResult {
    let response = client.tasks().submit_task(request).await?.into_inner();
    if response.duplicate {
        output::status("Nothing was added: this is the task of an earlier submission");
    }
    if wait_for_end {
        output::status(&response.task_id);
        return wait::one(response.task_id, None, &client, printer).await;
    }
    printer.print(&response, |response| response.task_id.clone());
    Ok(Exit::Success)
}

/// How to submit many tasks.
#[derive(Debug)]
pub struct Options {
    /// Generated if it is not given.
    pub batch_id: Option<String>,
    pub wait: bool,
}

pub async fn copies(
    task: TaskArgs,
    handler: String,
    count: u64,
    options: Options,
    client: Client,
    printer: Printer,
) -> CommandResult {
    let request = task.request(handler)?;
    if !request.task_id.is_empty() || !request.request_id.is_empty() {
        return Err(CliError::Usage("--id and --request-id cannot be used with --count".to_owned()));
    }
    let mut batch = Batch::new(options, Some(count), client, printer);
    for _ in 0..count {
        batch.add(request.clone()).await?;
    }
    batch.finish().await
}

/// Submits the tasks of a file, one on each line, in the JSON form of `SubmitTaskRequest`.
pub async fn file(path: &str, options: Options, client: Client, printer: Printer) -> CommandResult {
    let failed = |error: std::io::Error| CliError::Usage(format!("failed to read `{path}`: {error}"));
    let lines: Box<dyn BufRead> = match path {
        "-" => Box::new(BufReader::new(stdin())),
        path => Box::new(BufReader::new(File::open(path).map_err(failed)?)),
    };
    let mut batch = Batch::new(options, None, client, printer);
    for (index, line) in lines.lines().enumerate() {
        let line = line.map_err(failed)?;
        if line.trim().is_empty() {
            continue;
        }
        let number = index + 1;
        let task = json::decode_submission(&line).map_err(|error| {
            let submitted = batch.submitted;
            CliError::Usage(format!("{path}: line {number}: {error}; the {submitted} tasks before were submitted"))
        });
        match task {
            Ok(task) => batch.add_line(number, task).await?,
            Err(error) => {
                batch.send().await?;
                return Err(error);
            }
        }
    }
    batch.finish().await
}

/// Tasks that are submitted in calls of many tasks.
struct Batch {
    id: String,
    wait: bool,
    client: Client,
    printer: Printer,
    progress: Progress,
    tasks: Vec<v1::SubmitTaskRequest>,
    bytes: usize,
    /// Numbers of the lines of `tasks`, if they are from a file.
    lines: Vec<usize>,
    /// Whether tasks name others by their places, so that all have to be in one call.
    has_places: bool,
    submitted: usize,
    /// Tasks to wait for, and the token of a watch for their ends.
    waiting: HashSet<String>,
    repeated: Vec<String>,
    resume_token: String,
}

impl Batch {
    fn new(options: Options, total: Option<u64>, client: Client, printer: Printer) -> Self {
        Self {
            id: options.batch_id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string()),
            wait: options.wait,
            client,
            printer,
            progress: Progress::new(total, "submitted"),
            tasks: Vec::new(),
            bytes: 0,
            lines: Vec::new(),
            has_places: false,
            submitted: 0,
            waiting: HashSet::new(),
            repeated: Vec::new(),
            resume_token: String::new(),
        }
    }

    async fn add_line(&mut self, number: usize, task: v1::SubmitTaskRequest) -> Result<(), CliError> {
        self.has_places |= task.dependencies.as_ref().is_some_and(|parents| !parents.batch_indices.is_empty());
        if self.has_places && self.submitted > 0 {
            let text = "names a parent by its place, which has to be among the tasks of the same call";
            let submitted = self.submitted;
            return Err(CliError::Usage(format!(
                "line {number} {text}: name parents by `taskIds`; the {submitted} tasks before were submitted"
            )));
        }
        self.make_room(&task).await?;
        self.lines.push(number);
        self.add(task).await
    }

    async fn add(&mut self, task: v1::SubmitTaskRequest) -> Result<(), CliError> {
        self.make_room(&task).await?;
        self.bytes += task.encoded_len() + TASK_OVERHEAD;
        self.tasks.push(task);
        Ok(())
    }

    /// A task that does not fit into a message is sent alone: the server then names what is too large.
    async fn make_room(&mut self, task: &v1::SubmitTaskRequest) -> Result<(), CliError> {
        let tasks_max = if self.has_places { limits::BATCH_TASKS_MAX } else { BATCH_SIZE };
        let is_full = self.tasks.len() == tasks_max || self.bytes + task.encoded_len() + TASK_OVERHEAD > BATCH_BYTES;
        if is_full && self.has_places {
            let text = "tasks that name parents by their places must fit into one call";
            return Err(CliError::Usage(format!("{text} of {tasks_max} tasks and 16 MiB; nothing was submitted")));
        }
        if is_full { self.send().await } else { Ok(()) }
    }

    async fn send(&mut self) -> Result<(), CliError> {
        let tasks = std::mem::take(&mut self.tasks);
        let lines = std::mem::take(&mut self.lines);
        self.bytes = 0;
        if tasks.is_empty() {
            return Ok(());
        }
        let count = tasks.len();
        let request = v1::BatchSubmitTasksRequest { tasks, batch_id: self.id.clone() };
        let response = match self.client.tasks().batch_submit_tasks(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => {
                if let (Some(first), Some(last)) = (lines.first(), lines.last()) {
                    let text = format!("lines {first} to {last} were refused: tasks[0] is line {first}");
                    output::status(format_args!("{text}; {} tasks before were submitted", self.submitted));
                }
                return Err(status.into());
            }
        };
        let is_first = self.submitted == 0;
        self.submitted += count;
        self.progress.add(count as u64);
        if self.wait {
            self.wait_for(response, is_first);
        } else if is_first || self.printer.is_json() {
            self.progress.suspend(|| self.printer.print(&response, |response| response.batch_id.clone()));
        }
        Ok(())
    }

    fn wait_for(&mut self, response: v1::BatchSubmitTasksResponse, is_first: bool) {
        if is_first {
            self.resume_token = response.resume_token;
            self.progress.suspend(|| output::status(&self.id));
        }
        let mut duplicates = response.duplicates.into_iter();
        for id in response.task_ids {
            // A watch of this batch has no events of tasks of other batches.
            if duplicates.next() == Some(true) {
                self.repeated.push(id);
            } else {
                self.waiting.insert(id);
            }
        }
    }

    async fn finish(mut self) -> CommandResult {
        self.send().await?;
        if !self.wait {
            return Ok(Exit::Success);
        }
        drop(self.progress);
        let filter = v1::TaskFilter { batch_id: self.id, ..v1::TaskFilter::default() };
        let watched = wait::Watched { filter, resume_token: self.resume_token, ids: self.waiting };
        wait::all(watched, self.repeated, None, &self.client, self.printer).await
    }
}
