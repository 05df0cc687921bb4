//! `lineshaft task`.

mod args;
mod filter;
mod list;
mod output;
mod print;
mod submit;
mod watch;

use std::time::Duration;

use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;

use crate::proto::v1;

use super::client::Client;
use super::error::{CliError, CommandResult, Exit};
use super::format::Printer;
use super::time::to_proto;
use args::TaskArgs;
use filter::Filter;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Submit a task and print its ID
    Submit {
        #[command(flatten)]
        task: TaskArgs,
        /// Submit this many copies in batches of up to 1000, and print the batch IDs
        #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        count: u64,
        /// Wait until the task ends; the exit code reports its outcome
        #[arg(long, conflicts_with = "count")]
        wait: bool,
    },
    /// Submit a task, follow its state changes, and print its result
    Run {
        #[command(flatten)]
        task: TaskArgs,
    },
    /// Show one task
    Get {
        /// Task ID
        id: String,
    },
    /// List tasks, newest first
    List {
        #[command(flatten)]
        filter: Filter,
        /// Maximum number of tasks, at least 1
        #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
        /// List all matching tasks
        #[arg(long, conflicts_with = "limit")]
        all: bool,
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
    /// Wait until a task ends; the exit code reports its outcome
    Wait {
        /// Task ID
        id: String,
        /// Maximum time to wait, such as 30s; exit code 6 if the task has not ended by then [default: no limit]
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        timeout: Option<Duration>,
    },
    /// Cancel a task
    Cancel {
        /// Task ID
        id: String,
        /// Reason, stored with the task
        #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
        reason: String,
        /// Kill a running task at once instead of asking it to stop first
        #[arg(long)]
        force: bool,
        /// Time between asking a running task to stop and killing it, such as 5s, 0s to 5m [default: the
        /// handler's grace]
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        grace: Option<Duration>,
    },
    /// Print the output of a task
    Output {
        /// Task ID
        id: String,
        /// Print stderr instead of stdout
        #[arg(long)]
        stderr: bool,
        /// Continue until the attempt ends
        #[arg(long)]
        follow: bool,
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
        /// Confirm the deletion of all finished tasks; required if no filter is given
        #[arg(long)]
        yes: bool,
    },
}

pub async fn run(command: Command, client: Client, printer: Printer) -> CommandResult {
    match command {
        Command::Submit { task, count: 1, wait } => submit::one(task, wait, client, printer).await,
        Command::Submit { task, count, .. } => submit::many(task, count, client, printer).await,
        Command::Run { task } => submit::and_follow(task, client, printer).await,
        Command::Get { id } => {
            let request = v1::GetTaskRequest { task_id: id, include_payload: true };
            let response = client.tasks().get_task(request).await?.into_inner();
            printer.print(&response.task.unwrap_or_default(), print::details);
            Ok(Exit::Success)
        }
        Command::List { filter, limit, all } => {
            let limit = usize::try_from(if all { u64::MAX } else { limit }).unwrap_or(usize::MAX);
            list::run(filter, limit, client, printer).await
        }
        Command::Watch { filter, after, snapshot } => watch::run(filter, after, snapshot, client, printer).await,
        Command::Wait { id, timeout } => submit::wait(id, timeout, client, printer).await,
        Command::Cancel { id, reason, force, grace } => {
            let mode = if force { v1::CancelMode::Force } else { v1::CancelMode::Graceful }.into();
            let request = v1::CancelTaskRequest { task_id: id, reason, mode, grace: grace.map(to_proto) };
            let response = client.tasks().cancel_task(request).await?.into_inner();
            printer.print(&response, print::cancel);
            Ok(Exit::Success)
        }
        Command::Output { id, stderr, follow, offset, attempt } => {
            let stream = if stderr { v1::OutputStream::Stderr } else { v1::OutputStream::Stdout }.into();
            let attempt = attempt.unwrap_or_default();
            let request = v1::ReadOutputRequest { task_id: id, stream, offset, follow, attempt };
            output::run(request, client, printer).await
        }
        Command::Delete { filter, yes } => delete(filter, yes, client, printer).await,
    }
}

async fn delete(filter: Filter, confirmed: bool, client: Client, printer: Printer) -> CommandResult {
    if filter.is_empty() && !confirmed {
        let text = "this deletes all finished tasks; pass --yes to confirm";
        return Err(CliError::Usage(text.to_owned()));
    }
    let request = v1::DeleteTasksRequest { filter: Some(filter.try_into()?) };
    let response = client.tasks().delete_tasks(request).await?.into_inner();
    printer.print(&response, |response| format!("{} deleted", response.deleted));
    Ok(Exit::Success)
}
