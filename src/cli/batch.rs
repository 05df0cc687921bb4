//! `lineshaft batch`.

use std::time::Duration;

use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;
use tokio::time::Instant;
use tonic::{Response, Status};

use crate::model::limits;
use crate::proto::v1::{self, BatchState};

use super::client::Client;
use super::complete;
use super::error::{CliError, CommandResult, Exit};
use super::output;
use super::printer::Printer;
use super::progress::Progress;
use super::reconnect::{GIVE_UP_AFTER, Reconnect};
use super::table::{Column, Table, TableArgs};
use super::task::{label, unique};
use super::time::{parse_duration, to_proto};
use super::view::{self, Cell, Text, View};

static COLUMNS: [Column<v1::Batch>; 8] = [
    Column::new("ID", 0, |batch, _| batch.batch_id.as_str().into()),
    Column::new("STATE", 0, |batch, _| state_name(batch).into()),
    Column::new("TOTAL", 1, |batch, _| Cell::number(batch.total)),
    Column::new("FINISHED", 1, |batch, _| Cell::number(finished(batch))),
    Column::new("FAILED", 1, |batch, _| Cell::number(counts(batch).failed)),
    Column::text("NAME", 2, |batch, _| batch.display_name.as_str().into()),
    Column::new("CREATED", 3, |batch, view| view.time(batch.created_at.as_ref())),
    Column::new("RATE", 4, |batch, _| rate(batch).into()),
];

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a batch and print its ID; tasks join it with `task submit --batch`
    Create {
        /// Batch ID [default: generated]
        #[arg(long, value_parser = NonEmptyStringValueParser::new())]
        id: Option<String>,
        /// Display name, for people
        #[arg(long)]
        name: Option<String>,
        /// Label, for filters. Can be repeated
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
        /// Finish the batch only after `batch close`
        #[arg(long)]
        open: bool,
        /// Handler of a task to submit when the batch has finished, with its report as the payload
        #[arg(long, value_name = "HANDLER", value_parser = NonEmptyStringValueParser::new(), add = complete::handlers())]
        completion: Option<String>,
        /// Argument of that task. Can be repeated
        #[arg(long = "completion-arg", value_name = "ARG", requires = "completion", allow_hyphen_values = true)]
        completion_args: Vec<String>,
        /// Namespace [default: the only namespace of the token, or "default"]
        #[arg(long, value_parser = NonEmptyStringValueParser::new())]
        namespace: Option<String>,
    },
    /// Show batches
    #[command(visible_alias = "show")]
    Get {
        /// Batch ID
        #[arg(value_name = "ID", required = true, add = complete::batches())]
        ids: Vec<String>,
    },
    /// List batches, newest first
    #[command(visible_alias = "ls")]
    List {
        /// Only batches in this state. Can be repeated
        #[arg(long = "state", value_name = "STATE", value_enum, ignore_case = true)]
        states: Vec<State>,
        /// Only batches with this label. Can be repeated: all labels must match
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
        /// Only batches of this namespace
        #[arg(long, value_parser = NonEmptyStringValueParser::new())]
        namespace: Option<String>,
        /// Maximum number of batches, at least 1
        #[arg(long, short = 'n', default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
        #[command(flatten)]
        table: TableArgs,
    },
    /// Show the progress of a batch until it has finished; the exit code reports its outcome
    Watch {
        /// Batch ID
        #[arg(add = complete::batches())]
        id: String,
    },
    /// Wait until a batch has finished; the exit code reports its outcome
    Wait {
        /// Batch ID
        #[arg(add = complete::batches())]
        id: String,
        /// Maximum time to wait, such as 30 or 1m30s; exit code 6 if the batch has not finished by then [default: no limit]
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        timeout: Option<Duration>,
    },
    /// Cancel the unfinished tasks of a batch and let it take no more
    Cancel {
        /// Batch ID
        #[arg(add = complete::batches())]
        id: String,
        /// Reason, stored with the batch and its tasks
        #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
        reason: String,
        /// Kill running tasks at once instead of asking them to stop first
        #[arg(long)]
        force: bool,
        /// Time between asking a running task to stop and killing it, such as 5s, 0s to 5m [default: the handler's
        /// grace]
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        grace: Option<Duration>,
    },
    /// Let a batch take no more tasks
    Close {
        /// Batch ID
        #[arg(add = complete::batches())]
        id: String,
    },
    /// Delete a finished batch and its tasks
    Delete {
        /// Batch ID
        #[arg(add = complete::batches())]
        id: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum State {
    Open = 1,
    Active = 2,
    Finished = 3,
}

pub async fn run(command: Command, client: Client, printer: Printer) -> CommandResult {
    match command {
        Command::Create { id, name, labels, open, completion, completion_args, namespace } => {
            let completion = completion.map(|handler| v1::SubmitTaskRequest {
                handler,
                args: completion_args,
                ..v1::SubmitTaskRequest::default()
            });
            let request = v1::CreateBatchRequest {
                batch_id: id.unwrap_or_default(),
                namespace: namespace.unwrap_or_default(),
                display_name: name.unwrap_or_default(),
                labels: unique(labels)?,
                open,
                completion,
            };
            let response = client.batches().create_batch(request).await?.into_inner();
            printer.print(&response, |response| {
                response.batch.as_ref().map(|batch| batch.batch_id.clone()).unwrap_or_default()
            });
            Ok(Exit::Success)
        }
        Command::Get { ids } => {
            let get = async |batch_id| {
                let response = client.batches().get_batch(v1::GetBatchRequest { batch_id }).await?.into_inner();
                Ok(response.batch.unwrap_or_default())
            };
            printer.print_each(ids, get, details).await
        }
        Command::List { states, labels, namespace, limit, table } => {
            let table = Table::new(&COLUMNS, &table)?;
            let request = v1::ListBatchesRequest {
                namespace: namespace.unwrap_or_default(),
                states: states.into_iter().map(|state| state as i32).collect(),
                labels: unique(labels)?,
                ..v1::ListBatchesRequest::default()
            };
            list(request, usize::try_from(limit).unwrap_or(usize::MAX), &table, &client, printer).await
        }
        Command::Watch { id } => watch(id, &client, printer).await,
        Command::Wait { id, timeout } => {
            let progress = Progress::new(None, "waiting");
            let batch = until_finished(&id, timeout, &client).await?;
            drop(progress);
            printer.print(&batch, |batch| details(batch, &printer.view()));
            Ok(exit_of(&batch))
        }
        Command::Cancel { id, reason, force, grace } => {
            let mode = if force { v1::CancelMode::Force } else { v1::CancelMode::Graceful }.into();
            let request = v1::CancelBatchRequest { batch_id: id, reason, mode, grace: grace.map(to_proto) };
            let response = client.batches().cancel_batch(request).await?.into_inner();
            print_line(response.batch, printer);
            Ok(Exit::Success)
        }
        Command::Close { id } => {
            let response = client.batches().close_batch(v1::CloseBatchRequest { batch_id: id }).await?.into_inner();
            print_line(response.batch, printer);
            Ok(Exit::Success)
        }
        Command::Delete { id } => {
            let response = client.batches().delete_batch(v1::DeleteBatchRequest { batch_id: id }).await?.into_inner();
            printer.print(&response, |response| format!("{} tasks deleted", response.deleted_tasks));
            Ok(Exit::Success)
        }
    }
}

async fn list(
    mut request: v1::ListBatchesRequest,
    limit: usize,
    table: &Table<v1::Batch>,
    client: &Client,
    printer: Printer,
) -> CommandResult {
    let mut list = v1::ListBatchesResponse::default();
    loop {
        let left = limit - list.batches.len();
        request.page_size = i32::try_from(left.min(limits::PAGE_SIZE_MAX)).unwrap_or(i32::MAX);
        let page = client.batches().list_batches(request.clone()).await?.into_inner();
        list.batches.extend(page.batches);
        (list.revision, list.next_page_token) = (page.revision, page.next_page_token);
        if list.next_page_token.is_empty() || list.batches.len() >= limit {
            break;
        }
        request.page_token.clone_from(&list.next_page_token);
    }
    printer.print_list(&mut list, table, |list| &mut list.batches);
    if !list.next_page_token.is_empty() {
        output::status("More batches match; use --limit to list them");
    }
    Ok(Exit::Success)
}

fn counts(batch: &v1::Batch) -> v1::BatchCounts {
    batch.counts.unwrap_or_default()
}

fn finished(batch: &v1::Batch) -> i64 {
    let counts = counts(batch);
    counts.completed + counts.failed + counts.cancelled
}

fn rate(batch: &v1::Batch) -> String {
    if batch.tasks_per_second > 0.0 { format!("{:.1}/s", batch.tasks_per_second) } else { String::new() }
}

fn state_name(batch: &v1::Batch) -> String {
    batch.state().as_str_name().trim_start_matches("BATCH_STATE_").to_owned()
}

/// One line for the calls that change a batch.
fn print_line(batch: Option<v1::Batch>, printer: Printer) {
    printer.print(&batch.unwrap_or_default(), |batch| {
        format!("{}, {} of {} tasks finished", state_name(batch), finished(batch), batch.total)
    });
}

fn details(batch: &v1::Batch, view: &View) -> Text {
    let counts = counts(batch);
    let labels = batch.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ");
    view::fields(
        view,
        &[
            ("id", batch.batch_id.as_str().into()),
            ("state", state_name(batch).into()),
            ("name", batch.display_name.as_str().into()),
            ("labels", labels.into()),
            ("closed", if batch.closed { "yes" } else { "no" }.into()),
            ("total", Cell::number(batch.total)),
            ("waiting", Cell::number(counts.waiting)),
            ("queued", Cell::number(counts.queued)),
            ("running", Cell::number(counts.running)),
            ("completed", Cell::number(counts.completed)),
            ("failed", Cell::number(counts.failed)),
            ("cancelled", Cell::number(counts.cancelled)),
            ("progress", format!("{:.1}%", batch.progress * 100.0).into()),
            ("rate", rate(batch).into()),
            ("estimated end", view.time(batch.estimated_end_at.as_ref())),
            ("created", view.time(batch.created_at.as_ref())),
            ("finished", view.time(batch.finished_at.as_ref())),
            ("cancel", batch.cancel_reason.as_str().into()),
            ("completion", batch.completion_task_id.as_str().into()),
        ],
    )
}

/// The outcome of all tasks together.
fn exit_of(batch: &v1::Batch) -> Exit {
    let counts = counts(batch);
    match batch.state() {
        BatchState::Finished if counts.failed > 0 => Exit::TaskFailed,
        BatchState::Finished if counts.cancelled > 0 => Exit::TaskCancelled,
        BatchState::Finished => Exit::Success,
        _ => Exit::TaskNotFinished,
    }
}

/// Waits until a batch has finished or the time is over, in calls of at most `WAIT_MAX` each, which is the server's limit.
async fn until_finished(id: &str, timeout: Option<Duration>, client: &Client) -> Result<v1::Batch, CliError> {
    let mut reconnect = Reconnect::new(GIVE_UP_AFTER);
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let call_timeout = left.unwrap_or(limits::WAIT_MAX).min(limits::WAIT_MAX);
        let request = v1::WaitBatchRequest { batch_id: id.to_owned(), timeout: Some(to_proto(call_timeout)) };
        match client.batches().wait_batch(request).await.map(Response::into_inner) {
            Ok(response) if response.finished || left.is_some_and(|left| left <= call_timeout) => {
                return Ok(response.batch.unwrap_or_default());
            }
            Ok(_) => reconnect.answered(),
            Err(status) if left.is_some_and(|left| left.is_zero()) => return Err(status.into()),
            Err(status) => reconnect.pause(status).await?,
        }
    }
}

/// Shows a bar on stderr, or with JSON every message on stdout.
async fn watch(id: String, client: &Client, printer: Printer) -> CommandResult {
    let progress = Progress::new(None, "finished");
    let mut reconnect = Reconnect::new(Duration::MAX);
    loop {
        let watched = async {
            let request = v1::WatchBatchRequest { batch_id: id.clone(), interval: None };
            let mut messages = client.batches().watch_batch(request).await?.into_inner();
            let mut last = None;
            while let Some(message) = messages.message().await? {
                reconnect.answered();
                if printer.is_json() {
                    progress.suspend(|| printer.print(&message, |_| Text::default()));
                }
                if let Some(batch) = message.batch {
                    show(&progress, &batch);
                    last = Some(batch);
                }
            }
            Ok::<_, Status>(last)
        };
        let status = match watched.await {
            Ok(Some(last)) if last.state() == BatchState::Finished => {
                drop(progress);
                if !printer.is_json() {
                    printer.print(&last, |batch| details(batch, &printer.view()));
                }
                return Ok(exit_of(&last));
            }
            Ok(_) => Status::unavailable("the server ended the watch"),
            Err(status) => status,
        };
        reconnect.pause(status).await?;
    }
}

fn show(progress: &Progress, batch: &v1::Batch) {
    let counts = counts(batch);
    let failed = if counts.failed > 0 { format!(", {} failed", counts.failed) } else { String::new() };
    let unsigned = |count| u64::try_from(count).unwrap_or_default();
    progress.set(unsigned(finished(batch)), Some(unsigned(batch.total)));
    progress.describe(format!("finished, {} running{failed}, {:.1}/s", counts.running, batch.tasks_per_second));
}
