//! `lineshaft task wait`, and `--wait` of other commands.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use serde_json::json;
use tokio::time::Instant;
use tonic::{Response, Status};

use crate::cli::client::Client;
use crate::cli::error::{CliError, CommandResult, Exit};
use crate::cli::output;
use crate::cli::printer::{CALLS_AT_ONCE, Printer};
use crate::cli::progress::Progress;
use crate::cli::reconnect::{GIVE_UP_AFTER, Reconnect};
use crate::cli::table::Table;
use crate::cli::time::to_proto;
use crate::model::limits;
use crate::proto::v1::{self, TaskState, watch_tasks_response::Kind};

use super::list;
use super::print::{self, exit_of};

/// States of a task that has not ended.
pub const UNFINISHED: [i32; 3] = [TaskState::Waiting as i32, TaskState::Queued as i32, TaskState::Running as i32];

pub async fn one(id: String, timeout: Option<Duration>, client: &Client, printer: Printer) -> CommandResult {
    let progress = Progress::new(None, "ended");
    let task = until_finished(&id, timeout, client, Reconnect::new(GIVE_UP_AFTER)).await?;
    drop(progress);
    printer.print(&task, |task| print::details(task, &printer.view()));
    Ok(exit_of(task.state))
}

/// Waits for tasks and prints them as a table. One that the server refuses does not keep the others from being printed.
pub async fn several(ids: &[String], timeout: Option<Duration>, client: &Client, printer: Printer) -> CommandResult {
    let progress = Progress::new(Some(ids.len() as u64), "ended");
    let wait = async |id: &String| {
        let result = until_finished(id, timeout, client, Reconnect::new(GIVE_UP_AFTER)).await;
        progress.add(1);
        result
    };
    // Each has its own call, as many as the server permits: a time-out counts from the start for all.
    let results: Vec<_> = stream::iter(ids).map(wait).buffered(ids.len().max(1)).collect().await;
    drop(progress);
    let (mut tasks, mut exit) = (Vec::new(), Exit::Success);
    for result in results {
        match result {
            Ok(task) => {
                exit = exit.worse(exit_of(task.state));
                tasks.push(task);
            }
            Err(error) => exit = exit.worse(error.report(printer.is_json())),
        }
    }
    let mut list = v1::ListTasksResponse { tasks, ..v1::ListTasksResponse::default() };
    printer.print_list(&mut list, &Table::plain(&list::COLUMNS), |list| &mut list.tasks);
    Ok(exit)
}

/// Waits for the tasks that match a filter and have not ended.
pub async fn matching(
    filter: v1::TaskFilter,
    timeout: Option<Duration>,
    client: &Client,
    printer: Printer,
) -> CommandResult {
    let states: Vec<i32> =
        UNFINISHED.into_iter().filter(|state| filter.states.is_empty() || filter.states.contains(state)).collect();
    let unfinished = v1::TaskFilter { states: states.clone(), ..filter.clone() };
    let found = if states.is_empty() {
        v1::ListTasksResponse::default()
    } else {
        list::tasks(&unfinished, usize::MAX, client).await?
    };
    if found.tasks.is_empty() {
        require_batch(&filter, client).await?;
        output::status("No unfinished task matches");
    }
    let ids = found.tasks.into_iter().map(|task| task.task_id).collect();
    // The end has another state and other texts than the task has now, and an update can change its labels and priority.
    let filter = v1::TaskFilter {
        states: Vec::new(),
        texts: Vec::new(),
        labels: BTreeMap::default(),
        priorities: Vec::new(),
        submitted_after: None,
        submitted_before: None,
        ..filter
    };
    all(Watched { filter, resume_token: found.resume_token, ids }, Vec::new(), timeout, client, printer).await
}

/// Returns the refusal of the server if the filter names a batch that does not exist.
async fn require_batch(filter: &v1::TaskFilter, client: &Client) -> Result<(), CliError> {
    let v1::TaskFilter { batch_id, namespace, .. } = filter.clone();
    if batch_id.is_empty() {
        return Ok(());
    }
    let named = if namespace.is_empty() || batch_id.contains('/') {
        batch_id.clone()
    } else {
        format!("{namespace}/{batch_id}")
    };
    // Without a namespace, the tasks of a filter can be in other ones than that of the caller.
    let of_batch = v1::TaskFilter { batch_id, namespace, ..v1::TaskFilter::default() };
    if list::tasks(&of_batch, 1, client).await?.tasks.is_empty() {
        client.batches().get_batch(v1::GetBatchRequest { batch_id: named }).await?;
    }
    Ok(())
}

/// Tasks whose ends a watch with this filter and this token receives.
#[derive(Debug)]
pub struct Watched {
    pub filter: v1::TaskFilter,
    pub resume_token: String,
    pub ids: HashSet<String>,
}

/// Waits for watched and for other tasks, and prints how many of them ended how.
pub async fn all(
    mut watched: Watched,
    others: Vec<String>,
    timeout: Option<Duration>,
    client: &Client,
    printer: Printer,
) -> CommandResult {
    let progress = Progress::new(Some((watched.ids.len() + others.len()) as u64), "ended");
    let mut counts = Counts::default();
    let waiting = async {
        watch(&mut watched, client, &mut counts, &progress).await?;
        let mut ends = stream::iter(&others)
            .map(|id| until_finished(id, None, client, Reconnect::new(GIVE_UP_AFTER)))
            .buffer_unordered(CALLS_AT_ONCE);
        while let Some(task) = ends.next().await {
            counts.add(task?.state());
            progress.add(1);
        }
        Ok::<_, CliError>(())
    };
    match timeout {
        // Some tasks have not ended then.
        Some(timeout) => tokio::time::timeout(timeout, waiting).await.unwrap_or(Ok(()))?,
        None => waiting.await?,
    }
    drop(progress);
    counts.unfinished += watched.ids.len() as u64;
    counts.print(printer);
    Ok(counts.exit())
}

async fn watch(watched: &mut Watched, client: &Client, counts: &mut Counts, progress: &Progress) -> Result<(), Status> {
    let mut reconnect = Reconnect::new(GIVE_UP_AFTER);
    while !watched.ids.is_empty() {
        let received = receive(watched, client, counts, progress, &mut reconnect).await;
        if let Err(status) = received {
            reconnect.pause(status).await?;
        }
    }
    Ok(())
}

async fn receive(
    watched: &mut Watched,
    client: &Client,
    counts: &mut Counts,
    progress: &Progress,
    reconnect: &mut Reconnect,
) -> Result<(), Status> {
    let request = v1::WatchTasksRequest {
        filter: Some(watched.filter.clone()),
        resume_token: watched.resume_token.clone(),
        ..v1::WatchTasksRequest::default()
    };
    let mut responses = client.tasks().watch_tasks(request).await?.into_inner();
    while !watched.ids.is_empty() {
        let response = responses.message().await?;
        reconnect.answered();
        match response.and_then(|response| response.kind) {
            Some(Kind::Event(event)) => {
                if print::is_terminal(event.state()) && watched.ids.remove(&event.task_id) {
                    counts.add(event.state());
                    progress.add(1);
                }
                watched.resume_token.clone_from(&event.resume_token);
            }
            Some(Kind::Progress(progress)) => watched.resume_token = progress.resume_token,
            Some(Kind::SnapshotEntry(_) | Kind::SnapshotComplete(_)) => {}
            None => return Err(Status::unavailable("the server ended the watch")),
        }
    }
    Ok(())
}

/// How many tasks ended how.
#[derive(Debug, Default)]
struct Counts {
    completed: u64,
    failed: u64,
    cancelled: u64,
    unfinished: u64,
}

impl Counts {
    fn add(&mut self, state: TaskState) {
        match state {
            TaskState::Completed => self.completed += 1,
            TaskState::Failed => self.failed += 1,
            TaskState::Cancelled => self.cancelled += 1,
            _ => self.unfinished += 1,
        }
    }

    fn print(&self, printer: Printer) {
        let Self { completed, failed, cancelled, unfinished } = self;
        if printer.is_json() {
            let counts =
                json!({"completed": completed, "failed": failed, "cancelled": cancelled, "unfinished": unfinished});
            output::stdout_line(counts);
            return;
        }
        let counts =
            [(completed, "completed"), (failed, "failed"), (cancelled, "cancelled"), (unfinished, "not finished")];
        let present = counts.iter().filter(|(count, name)| **count > 0 || *name == "completed");
        output::stdout_line(present.map(|(count, name)| format!("{count} {name}")).collect::<Vec<_>>().join(", "));
    }

    fn exit(&self) -> Exit {
        let outcomes = [
            (self.failed, Exit::TaskFailed),
            (self.cancelled, Exit::TaskCancelled),
            (self.unfinished, Exit::TaskNotFinished),
        ];
        outcomes.into_iter().filter(|(count, _)| *count > 0).fold(Exit::Success, |exit, (_, other)| exit.worse(other))
    }
}

/// Waits until a task has finished or the time is over, in calls of at most `WAIT_MAX` each, which is the server's limit.
pub async fn until_finished(
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
