//! `lineshaft demo`: runs tasks on a temporary server and checks every result.
//!
//! The demo starts a server as a child process, submits sums, prime counts, expressions, processes over real files, a
//! task that fails and two that are cancelled, watches all state changes, and compares each result with its own
//! computation. The exit code is 0 only if every check passed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tonic::Code;
use tonic::transport::Channel;

use super::output;
use super::server_process::{Result, ScratchDir, ServerProcess, task_client};
use super::signals::interrupted;
use super::time::{format_duration, to_proto};
use crate::proto::v1::system_service_client::SystemServiceClient;
use crate::proto::v1::task_service_client::TaskServiceClient;
use crate::proto::v1::watch_tasks_response::Kind;
use crate::proto::v1::{CancelTaskRequest, DrainRequest, TaskEvent, TaskState, WatchTasksRequest};

mod event_log;
mod files;
mod plan;
mod progress;
mod verify;

use event_log::EventLog;
use plan::{CANCEL_REASON, Plan};
use progress::Progress;
use verify::Checks;

/// Time limit for all tasks.
const TASKS_TIMEOUT: Duration = Duration::from_mins(2);
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// Time limit for the server's exit after the drain.
const EXIT_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Keep the temporary directory with the data and the log of the server
    #[arg(long)]
    pub keep: bool,
    /// Where to create the temporary directory [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

pub async fn run(options: Options) -> ExitCode {
    let result = tokio::select! {
        // First, so that signals are received before the server is started.
        biased;
        code = interrupted() => return code,
        result = run_demo(&options) => result,
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            output::status(format_args!("error: demo failed: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Returns whether every check passed.
async fn run_demo(options: &Options) -> Result<bool> {
    let started = Instant::now();
    let parent = options.directory.clone().unwrap_or_else(std::env::temp_dir);
    let scratch = ScratchDir::new(&parent, options.keep)?;
    let server = ServerProcess::start(&std::env::current_exe()?, scratch.path(), plan::CONFIG).await?;
    output::stdout_line(format_args!(
        "Started a temporary server on {}; its data is in {}",
        server.address(),
        scratch.path().display()
    ));
    let plan = Plan::new(&files::find()?);

    let mut checks = Checks::default();
    let log = run_tasks(&server, &plan).await?;
    verify::check_results(&log, &plan, &mut task_client(server.connect().await?), &mut checks).await?;
    verify::check_events(&log, &mut checks);
    drain(server, &mut checks).await?;

    output::stdout_line(format_args!("\n{checks}"));
    let verdict = if checks.all_passed() { "All checks passed" } else { "Some checks FAILED" };
    output::stdout_line(format_args!(
        "{verdict}: {} tasks, {} events, {}",
        plan.tasks.len(),
        log.event_count(),
        format_duration(started.elapsed())
    ));
    print_next_steps(options.keep, scratch.path());
    Ok(checks.all_passed())
}

/// Starts the watch, submits all tasks, and returns when the last one has ended.
async fn run_tasks(server: &ServerProcess, plan: &Plan) -> Result<EventLog> {
    let mut client = task_client(server.connect().await?);
    // Before the tasks are submitted, so that the watch receives all their events.
    let mut responses = client.watch_tasks(WatchTasksRequest::default()).await?.into_inner();

    let ids = plan::submit(&mut client, plan).await?;
    output::stdout_line(format_args!("Submitted {} tasks in one batch; all of them are on disk:", ids.len()));
    for (count, kind) in plan.counts() {
        output::stdout_line(format_args!("  {count:>5}  {kind}"));
    }
    output::stdout_line("\nPool activity, and the events of the tasks that fail or are cancelled:");
    let progress = Progress::new(server, plan.tasks.len()).await?;
    let mut log = EventLog::new(ids);
    let follow = async {
        while log.unfinished() > 0 {
            let response = responses.message().await?.ok_or("the watch ended before the tasks did")?;
            let Some(Kind::Event(event)) = response.kind else { continue };
            progress.event(&event, plan, &log);
            if must_cancel(&event, plan, &log) {
                cancel(&mut client, event.task_id.clone()).await?;
            }
            log.add(*event);
        }
        Result::<()>::Ok(())
    };
    let followed = tokio::time::timeout(TASKS_TIMEOUT, follow).await;
    progress.close();
    followed.map_err(|_| format!("{} tasks did not end within {TASKS_TIMEOUT:?}", log.unfinished()))??;
    Ok(log)
}

/// Whether an event is the start of a task that the demo cancels.
fn must_cancel(event: &TaskEvent, plan: &Plan, log: &EventLog) -> bool {
    let starts = event.state() == TaskState::Running && event.cancel.is_none();
    starts && log.index(&event.task_id).is_some_and(|index| plan.tasks[index].is_cancelled())
}

async fn cancel(client: &mut TaskServiceClient<Channel>, task_id: String) -> Result<()> {
    let reason = CANCEL_REASON.to_owned();
    client.cancel_task(CancelTaskRequest { task_id, reason, ..CancelTaskRequest::default() }).await?;
    Ok(())
}

/// Drains the server. An open watch must end with UNAVAILABLE, and the process with status 0.
async fn drain(server: ServerProcess, checks: &mut Checks) -> Result<()> {
    let mut watch = task_client(server.connect().await?).watch_tasks(WatchTasksRequest::default()).await?.into_inner();
    let mut system = SystemServiceClient::new(server.connect().await?);
    let running = system.drain(DrainRequest { limit: Some(to_proto(DRAIN_LIMIT)) }).await?.into_inner().running;
    checks.add("drain", running == 0, || format!("{running} tasks were still running"));
    let code = loop {
        match tokio::time::timeout(EXIT_TIMEOUT, watch.message()).await {
            Err(_) | Ok(Ok(None)) => break None,
            Ok(Ok(Some(_))) => {}
            Ok(Err(status)) => break Some(status.code()),
        }
    };
    checks.add("drain", code == Some(Code::Unavailable), || format!("the open watch ended with {code:?}"));
    // The server waits for its connections before it exits.
    drop((watch, system));
    let status = server.wait(EXIT_TIMEOUT).await?;
    checks.add("drain", status.success(), || format!("the server exited with {status}"));
    Ok(())
}

fn print_next_steps(keep: bool, directory: &Path) {
    if keep {
        output::stdout_line(format_args!(
            "\nKept {}. To start a server with this data:\n  lineshaft serve --data-dir {}",
            directory.display(),
            directory.join("data").display()
        ));
    }
}
