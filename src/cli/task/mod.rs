//! `lineshaft task`.

mod args;
mod bulk;
mod cancel;
mod delete;
mod each;
mod explain;
pub mod failures;
mod filter;
pub mod limit;
pub mod list;
mod output;
pub mod print;
mod retry;
mod run;
mod submit;
mod update;
mod wait;
mod watch;

use std::time::Duration;

use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;

use crate::proto::v1;

use super::client::Client;
use super::complete;
use super::error::{CliError, CommandResult};
use super::printer::Printer;
use super::table::TableArgs;
use super::time::{parse_duration, to_proto};
pub use args::{Priority, TaskArgs, check_json, label, payload, unique};
pub use print::is_terminal;
pub use watch::drain_token;

use bulk::DryRun;
use filter::{Filter, Period};
use update::Changes;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Submit tasks and print their IDs
    Submit {
        /// Handler name; `lineshaft handler list` lists the handlers
        #[arg(required_unless_present = "file", add = complete::handlers())]
        handler: Option<String>,
        #[command(flatten)]
        task: TaskArgs,
        /// Submit this many copies as a batch, and print its ID
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
        /// Submit the tasks of a file as a batch, and print its ID; - for stdin. Each line is a task in the JSON form of
        /// SubmitTaskRequest, such as {"handler":"io","payload":{"json":1}}
        #[arg(long, value_name = "PATH", conflicts_with_all = ["handler", "count", "TaskArgs"])]
        file: Option<String>,
        /// Batch that the task joins; with --count and --file it is created unless it exists [default: generated for
        /// --count and --file]
        #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new(), add = complete::batches())]
        batch: Option<String>,
        /// Wait until the tasks end; the exit code reports their outcome
        #[arg(long)]
        wait: bool,
    },
    /// Submit a task, follow its state changes, and print its result
    Run {
        /// Handler name; `lineshaft handler list` lists the handlers
        #[arg(add = complete::handlers())]
        handler: String,
        #[command(flatten)]
        task: TaskArgs,
    },
    /// Show tasks with their results and the ends of their output: named ones, or those that match, newest first
    #[command(visible_alias = "show")]
    Get {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        period: Period,
    },
    /// Show why tasks have not started
    ///
    /// Prints everything that keeps each task from starting, the tasks before it in the queue, and an estimated start if the
    /// server can tell.
    Explain {
        /// Task ID
        #[arg(value_name = "ID", required = true, add = complete::tasks())]
        ids: Vec<String>,
    },
    /// List tasks, newest first
    #[command(visible_aliases = ["ls", "ps"])]
    List {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        period: Period,
        /// Maximum number of tasks, at least 1
        #[arg(long, short = 'n', default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
        /// List all matching tasks
        #[arg(long, conflicts_with = "limit")]
        all: bool,
        /// Refresh the table every second until interrupted
        #[arg(long)]
        watch: bool,
        #[command(flatten)]
        table: TableArgs,
    },
    /// Group failed tasks by their cause
    ///
    /// Tasks of one handler are one group if their failures differ only in numbers and quoted texts. Use --failure-group to list,
    /// retry or delete a group.
    Failures {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        period: Period,
        #[command(flatten)]
        table: TableArgs,
    },
    /// Print state changes until interrupted; reconnects and continues after a broken connection
    Watch {
        #[command(flatten)]
        filter: Filter,
        /// Continue after this resume token, as an interrupted watch, `-o json` and `lineshaft system info` print
        /// it [default: new state changes only]
        #[arg(long, value_name = "TOKEN", value_parser = NonEmptyStringValueParser::new())]
        after: Option<String>,
        /// Print the matching tasks first
        #[arg(long, conflicts_with = "after")]
        snapshot: bool,
    },
    /// Wait until tasks end; the exit code reports their outcome
    ///
    /// With IDs, prints these tasks. With a filter, waits for the tasks that match now and prints how many ended how. If
    /// outcomes differ, the exit code is that of failed tasks, then of cancelled ones.
    Wait {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        period: Period,
        /// Maximum time to wait, such as 30 or 1m30s; exit code 6 if a task has not ended by then [default: no limit]
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        timeout: Option<Duration>,
    },
    /// Cancel tasks
    Cancel {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        period: Period,
        /// Confirm the cancellation of all unfinished tasks; required if no task and no filter is given
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        preview: DryRun,
        /// Reason, stored with the tasks
        #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
        reason: String,
        /// Kill running tasks at once instead of asking them to stop first
        #[arg(long)]
        force: bool,
        /// Time between asking a running task to stop and killing it, such as 5s, 0s to 5m [default: the
        /// handler's grace]
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        grace: Option<Duration>,
    },
    /// Change tasks that have not started
    ///
    /// A queued task is queued anew, behind the others of its priority. With a filter, those that match now.
    Update {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        period: Period,
        /// Confirm the update of all tasks that have not started; required if no task and no filter is given
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        preview: DryRun,
        #[command(flatten)]
        changes: Changes,
    },
    /// Submit ended tasks again, as new tasks, and print their IDs
    ///
    /// The new tasks have the same handler, payload and options. With a filter, those that have failed and match now.
    Retry {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        period: Period,
        /// Confirm the retry of all failed tasks; required if no task and no filter is given
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        preview: DryRun,
        /// Payload of the new tasks, as JSON [default: that of the ended task]
        #[arg(long, value_name = "JSON")]
        json: Option<String>,
        /// Priority of the new tasks [default: that of the ended task]
        #[arg(long = "with-priority", value_enum, value_name = "PRIORITY")]
        with_priority: Option<Priority>,
    },
    /// Print the output of a task
    #[command(visible_alias = "logs")]
    Output {
        /// Task ID
        #[arg(add = complete::tasks())]
        id: String,
        /// Print stderr instead of stdout
        #[arg(long)]
        stderr: bool,
        /// Continue until the attempt ends
        #[arg(long, short)]
        follow: bool,
        /// Start with the last N lines
        #[arg(long, value_name = "N", conflicts_with = "offset")]
        tail: Option<usize>,
        /// Start at this byte
        #[arg(long, default_value_t = 0, value_name = "BYTES", value_parser = clap::value_parser!(i64).range(0..))]
        offset: i64,
        /// Number of the attempt [default: the latest; with --follow, also those after it]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
        attempt: Option<i32>,
    },
    /// Delete finished tasks
    Delete {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        period: Period,
        /// Confirm the deletion of all finished tasks; required if no task and no filter is given
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        preview: DryRun,
    },
}

pub async fn run(command: Command, client: Client, printer: Printer) -> CommandResult {
    match command {
        Command::Submit { file: Some(path), batch, wait, .. } => {
            submit::file(&path, submit::Options { batch_id: batch, wait }, client, printer).await
        }
        Command::Submit { handler, task, count: Some(count), batch, wait, .. } => {
            let options = submit::Options { batch_id: batch, wait };
            submit::copies(task, handler.unwrap_or_default(), count, options, client, printer).await
        }
        Command::Submit { handler, task, batch, wait, .. } => {
            let request = task.request(handler.unwrap_or_default())?;
            let request = v1::SubmitTaskRequest { batch_id: batch.unwrap_or_default(), ..request };
            submit::one(request, wait, client, printer).await
        }
        Command::Run { handler, task } => run::run(task.request(handler)?, client, printer).await,
        Command::Get { filter, period } => get(filter.request(period)?, &client, printer).await,
        Command::Explain { ids } => explain::run(ids, client, printer).await,
        Command::List { filter, period, limit, all, watch, table } => {
            let limit = usize::try_from(if all { u64::MAX } else { limit }).unwrap_or(usize::MAX);
            let options = list::Options { filter: filter.request(period)?, limit, table, watch };
            list::run(options, client, printer).await
        }
        Command::Failures { filter, period, table } => {
            failures::run(filter.request(period)?, &table, &client, printer).await
        }
        Command::Watch { filter, after, snapshot } => {
            watch::run(filter.request(Period::default())?, after, snapshot, client, printer).await
        }
        Command::Wait { filter, period, timeout } => wait_for(filter.request(period)?, timeout, &client, printer).await,
        Command::Cancel { filter, period, yes, preview: DryRun { dry_run }, reason, force, grace } => {
            let filter = confirmed(filter.request(period)?, yes || dry_run, "cancels all unfinished tasks")?;
            let mode = if force { v1::CancelMode::Force } else { v1::CancelMode::Graceful }.into();
            let request = v1::CancelTaskRequest { task_id: String::new(), reason, mode, grace: grace.map(to_proto) };
            match &*only_ids(&filter) {
                ids if ids.is_empty() || dry_run => cancel::matching(filter, request, dry_run, &client, printer).await,
                ids => cancel::named(ids, request, &client, printer).await,
            }
        }
        Command::Update { filter, period, yes, preview: DryRun { dry_run }, changes } => {
            let effect = "updates all tasks that have not started";
            let filter = confirmed(filter.request(period)?, yes || dry_run, effect)?;
            match only_ids(&filter) {
                ids if ids.is_empty() || dry_run => {
                    update::matching(filter, changes.request()?, dry_run, &client, printer).await
                }
                ids => update::named(ids, changes.request()?, &client, printer).await,
            }
        }
        Command::Retry { filter, period, yes, preview: DryRun { dry_run }, json, with_priority } => {
            let filter = confirmed(filter.request(period)?, yes || dry_run, "retries all failed tasks")?;
            let request = retry::request(json, with_priority)?;
            match only_ids(&filter) {
                ids if ids.is_empty() || dry_run => retry::matching(filter, request, dry_run, &client, printer).await,
                ids => retry::named(ids, request, &client, printer).await,
            }
        }
        Command::Output { id, stderr, follow, tail, offset, attempt } => {
            let stream = if stderr { v1::OutputStream::Stderr } else { v1::OutputStream::Stdout }.into();
            let attempt = attempt.unwrap_or_default();
            output::run(v1::ReadOutputRequest { task_id: id, stream, offset, follow, attempt }, tail, client, printer)
                .await
        }
        Command::Delete { filter, period, yes, preview: DryRun { dry_run } } => {
            let filter = confirmed(filter.request(period)?, yes || dry_run, "deletes all finished tasks")?;
            delete::run(filter, dry_run, client, printer).await
        }
    }
}

/// Waits for the named tasks, or for those that match now.
async fn wait_for(
    filter: v1::TaskFilter,
    timeout: Option<Duration>,
    client: &Client,
    printer: Printer,
) -> CommandResult {
    if filter == v1::TaskFilter::default() {
        return Err(CliError::Usage(
            "name the tasks to wait for: IDs, or a filter such as --batch or --label".to_owned(),
        ));
    }
    match &*only_ids(&filter) {
        [] => wait::matching(filter, timeout, client, printer).await,
        [id] => wait::one(id.clone(), timeout, client, printer).await,
        ids => wait::several(ids, timeout, client, printer).await,
    }
}

/// Shows the named tasks, or those that match now.
async fn get(filter: v1::TaskFilter, client: &Client, printer: Printer) -> CommandResult {
    if filter == v1::TaskFilter::default() {
        return Err(CliError::Usage("name the tasks: IDs, or a filter such as --batch or --label".to_owned()));
    }
    let ids = match only_ids(&filter) {
        ids if !ids.is_empty() => ids,
        _ => {
            let found = list::tasks(&filter, usize::MAX, client).await?;
            found.tasks.into_iter().map(|task| task.task_id).collect()
        }
    };
    let get = async |task_id| {
        let request = v1::GetTaskRequest { task_id, include_payload: true, include_output: true };
        Ok(client.tasks().get_task(request).await?.into_inner().task.unwrap_or_default())
    };
    printer.print_each(ids, get, print::details).await
}

/// The IDs of a filter that has nothing else.
fn only_ids(filter: &v1::TaskFilter) -> Vec<String> {
    let ids = v1::TaskFilter { task_ids: filter.task_ids.clone(), ..v1::TaskFilter::default() };
    if *filter == ids { ids.task_ids } else { Vec::new() }
}

/// The filter, unless it matches all tasks and the user has not confirmed that.
fn confirmed(filter: v1::TaskFilter, yes: bool, effect: &str) -> Result<v1::TaskFilter, CliError> {
    if filter == v1::TaskFilter::default() && !yes {
        return Err(CliError::Usage(format!("this {effect}; pass --yes to confirm")));
    }
    Ok(filter)
}
