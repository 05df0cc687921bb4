//! `lineshaft task …`.

use std::time::Duration;

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use tonic::{Code, Streaming};
use tonic_types::StatusExt;

use crate::model::limits;
use crate::proto::v1::{self, payload::Kind, run_task_response, watch_tasks_response};

use super::Done;
use super::connect::{Client, Exit, Problem};
use super::filter::Filter;
use super::say;
use super::show::{self, Output};
use super::submit::{self, wire};

/// What can be done with tasks.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Submit a task and print its id.
    Submit {
        #[command(flatten)]
        task: submit::Task,
        /// Submit this many copies, in batches.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        count: u64,
        /// Wait for its end; the exit code tells how it ended.
        #[arg(long, conflicts_with = "count")]
        wait: bool,
    },
    /// Submit a task, follow it, and print its result.
    Run {
        #[command(flatten)]
        task: submit::Task,
    },
    /// Show one task.
    Get {
        /// Its id.
        id: String,
    },
    /// List tasks, newest first.
    List {
        #[command(flatten)]
        filter: Filter,
        /// Rows at most.
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// All rows.
        #[arg(long, conflicts_with = "limit")]
        all: bool,
    },
    /// Follow state changes until interrupted; resumes by itself after a broken connection.
    Watch {
        #[command(flatten)]
        filter: Filter,
        /// Events after this revision; default: from now on.
        #[arg(long, value_name = "REVISION")]
        after: Option<u64>,
        /// First the tasks as they stand.
        #[arg(long, conflicts_with = "after")]
        snapshot: bool,
    },
    /// Wait for a task's end; the exit code tells how it ended.
    Wait {
        /// Its id.
        id: String,
        /// How long, such as 30s; default: for ever.
        #[arg(long, value_name = "SPAN", value_parser = humantime::parse_duration)]
        timeout: Option<Duration>,
    },
    /// End a task.
    Cancel {
        /// Its id.
        id: String,
        /// For the receipt.
        #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
        reason: String,
        /// Do not ask, kill.
        #[arg(long)]
        force: bool,
        /// Time between asking and killing, such as 5s; default: the handler's.
        #[arg(long, value_name = "SPAN", value_parser = humantime::parse_duration)]
        grace: Option<Duration>,
    },
    /// Print what a task wrote.
    Output {
        /// Its id.
        id: String,
        /// Standard error instead of standard output.
        #[arg(long)]
        stderr: bool,
        /// Go on until the attempt has ended.
        #[arg(long)]
        follow: bool,
        /// First byte wanted.
        #[arg(long, default_value_t = 0)]
        offset: i64,
        /// Which attempt; 0: the current or last.
        #[arg(long, default_value_t = 0)]
        attempt: i32,
    },
    /// Forget finished tasks.
    Delete {
        #[command(flatten)]
        filter: Filter,
        /// Really all of them, when nothing narrows the choice.
        #[arg(long)]
        yes: bool,
    },
}

pub async fn run(command: Command, client: Client, out: Output) -> Done {
    match command {
        Command::Submit { task, count: 1, wait } => submit_one(task, wait, client, out).await,
        Command::Submit { task, count, .. } => submit_many(task, count, client).await,
        Command::Run { task } => follow(task, client, out).await,
        Command::Get { id } => {
            let request = v1::GetTaskRequest { task_id: id, include_payload: true };
            let answer = client.tasks().get_task(request).await?.into_inner();
            out.one(&answer.task.unwrap_or_default(), describe);
            Ok(Exit::Ok)
        }
        Command::List { filter, limit, all } => list(filter, if all { usize::MAX } else { limit }, client, out).await,
        Command::Watch { filter, after, snapshot } => watch(filter, after, snapshot, client, out).await,
        Command::Wait { id, timeout } => wait_for(id, timeout, client, out).await,
        Command::Cancel { id, reason, force, grace } => {
            let mode = if force { v1::CancelMode::Force } else { v1::CancelMode::Graceful }.into();
            let request = v1::CancelTaskRequest { task_id: id, reason, mode, grace: grace.map(wire) };
            let answer = client.tasks().cancel_task(request).await?.into_inner();
            out.one(&answer, |answer| show::state(answer.state));
            Ok(Exit::Ok)
        }
        Command::Output { id, stderr, follow, offset, attempt } => {
            let stream = if stderr { v1::OutputStream::Stderr } else { v1::OutputStream::Stdout }.into();
            let request = v1::ReadOutputRequest { task_id: id, stream, offset, follow, attempt };
            print_output(client.tasks().read_output(request).await?.into_inner(), out).await
        }
        Command::Delete { filter, yes } => {
            if filter.is_empty() && !yes {
                return Err(Problem::Usage("this forgets all finished tasks; say --yes if that is meant".to_owned()));
            }
            let request = v1::DeleteTasksRequest { filter: Some(filter.into()) };
            let answer = client.tasks().delete_tasks(request).await?.into_inner();
            out.one(&answer, |answer| format!("{} forgotten", answer.deleted));
            Ok(Exit::Ok)
        }
    }
}

async fn submit_one(task: submit::Task, wait: bool, client: Client, out: Output) -> Done {
    let answer = client.tasks().submit_task(task.request()?).await?.into_inner();
    if answer.duplicate {
        say::talk("this was submitted before; nothing was added");
    }
    if wait {
        say::talk(&answer.task_id);
        return wait_for(answer.task_id, None, client, out).await;
    }
    out.one(&answer, |answer| answer.task_id.clone());
    Ok(Exit::Ok)
}

async fn submit_many(task: submit::Task, count: u64, client: Client) -> Done {
    let request = task.request()?;
    if !request.task_id.is_empty() || !request.request_id.is_empty() {
        return Err(Problem::Usage("--id and --request-id name one task, not --count of them".to_owned()));
    }
    let bar = ProgressBar::new(count).with_style(
        ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} submitted, {per_sec}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let mut left = count;
    while left > 0 {
        let size = left.min(1_000);
        let tasks = (0..size).map(|_| request.clone()).collect();
        let batch = v1::BatchSubmitTasksRequest { tasks, batch_id: String::new() };
        let answer = client.tasks().batch_submit_tasks(batch).await?.into_inner();
        say::line(&answer.batch_id);
        bar.inc(size);
        left -= size;
    }
    bar.finish();
    Ok(Exit::Ok)
}

async fn follow(task: submit::Task, client: Client, out: Output) -> Done {
    let request = v1::RunTaskRequest { task: Some(task.request()?) };
    let mut steps = client.tasks().run_task(request).await?.into_inner();
    while let Some(step) = steps.message().await? {
        match step.kind {
            Some(run_task_response::Kind::Accepted(accepted)) => {
                say::talk(format_args!("{} accepted", accepted.task_id));
            }
            Some(run_task_response::Kind::Event(event)) => say::talk(event_line(&event)),
            Some(run_task_response::Kind::Task(task)) => return Ok(show_result(task, out)),
            None => {}
        }
    }
    Ok(Exit::NotFinished)
}

/// The result's bytes, or why there are none.
fn show_result(task: v1::Task, out: Output) -> Exit {
    let exit = exit_of(task.state);
    if exit == Exit::Ok
        && let Some(v1::Payload { kind: Some(Kind::Data(data)), .. }) = &task.result
    {
        say::bytes(data);
        if !data.ends_with(b"\n") && !data.is_empty() {
            say::line("");
        }
    } else {
        out.one(&task, |task| format!("{} {}", show::state(task.state), show::failure(task.failure.as_ref())));
    }
    exit
}

fn exit_of(state: i32) -> Exit {
    match v1::TaskState::try_from(state) {
        Ok(v1::TaskState::Completed) => Exit::Ok,
        Ok(v1::TaskState::Failed) => Exit::TaskFailed,
        Ok(v1::TaskState::Cancelled) => Exit::TaskCancelled,
        _ => Exit::NotFinished,
    }
}

async fn wait_for(id: String, timeout: Option<Duration>, client: Client, out: Output) -> Done {
    let until = timeout.map(|timeout| tokio::time::Instant::now() + timeout);
    loop {
        let left = until.map(|until| until.saturating_duration_since(tokio::time::Instant::now()));
        let step = left.unwrap_or(limits::WAIT_MAX).min(limits::WAIT_MAX);
        let request = v1::WaitTaskRequest { task_id: id.clone(), timeout: Some(wire(step)) };
        let answer = client.tasks().wait_task(request).await?.into_inner();
        if answer.finished || left.is_some_and(|left| left <= step) {
            let task = answer.task.unwrap_or_default();
            out.one(&task, describe);
            return Ok(exit_of(task.state));
        }
    }
}

async fn list(filter: Filter, limit: usize, client: Client, out: Output) -> Done {
    let filter = v1::TaskFilter::from(filter);
    let mut rows = v1::ListTasksResponse::default();
    loop {
        let left = limit - rows.tasks.len();
        let request = v1::ListTasksRequest {
            filter: Some(filter.clone()),
            page_size: i32::try_from(left.min(limits::PAGE_SIZE_MAX)).unwrap_or(i32::MAX),
            page_token: std::mem::take(&mut rows.next_page_token),
            include_results: false,
        };
        let page = client.tasks().list_tasks(request).await?.into_inner();
        rows.tasks.extend(page.tasks);
        rows.next_page_token = page.next_page_token;
        rows.revision = page.revision;
        if rows.next_page_token.is_empty() || rows.tasks.len() >= limit {
            break;
        }
    }
    out.one(&rows, |rows| {
        let row = |task: &v1::Task| {
            [
                task.task_id.clone(),
                show::state(task.state),
                show::priority(task.priority),
                task.handler.clone(),
                task.pool.clone(),
                task.attempt.to_string(),
                show::moment(task.submitted_at.as_ref()),
            ]
        };
        let shown: Vec<_> = rows.tasks.iter().map(row).collect();
        show::table(["ID", "STATE", "PRIORITY", "HANDLER", "POOL", "ATTEMPT", "SUBMITTED"], &shown)
    });
    if !rows.next_page_token.is_empty() {
        say::talk("there are more; --all shows them");
    }
    Ok(Exit::Ok)
}

async fn watch(filter: Filter, after: Option<u64>, snapshot: bool, client: Client, out: Output) -> Done {
    let mut request = v1::WatchTasksRequest {
        filter: Some(filter.into()),
        after_revision: after,
        include_snapshot: snapshot,
        progress_interval: None,
    };
    loop {
        let watched = async {
            let mut steps = client.tasks().watch_tasks(request.clone()).await?.into_inner();
            follow_events(&mut steps, &mut request, out).await
        };
        let ended = tokio::select! {
            ended = watched => ended,
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Ok),
        };
        let Err(status) = ended else { continue };
        // A snapshot that is not complete begins anew.
        if let Some(told) = told_revision(&status).filter(|_| !request.include_snapshot) {
            request.after_revision = Some(told);
        }
        // Only a watch that knows where it was can go on without missing anything.
        if request.after_revision.is_none() || !may_resume(&status) {
            return Err(status.into());
        }
        let after = request.after_revision.unwrap_or_default();
        say::talk(format_args!("connection lost ({}); resuming after revision {after}", status.message()));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// What a server that ends tells a watch to resume after.
fn told_revision(status: &tonic::Status) -> Option<u64> {
    let details = status.get_error_details();
    let info = details.error_info().filter(|info| info.reason == "DRAINING")?;
    info.metadata.get("revision")?.parse().ok()
}

fn may_resume(status: &tonic::Status) -> bool {
    let reason = status.get_error_details().error_info().map(|info| info.reason.clone());
    match reason.as_deref() {
        Some("DRAINING") => true,
        Some(_) => false,
        None => matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal),
    }
}

async fn follow_events(
    steps: &mut Streaming<v1::WatchTasksResponse>,
    request: &mut v1::WatchTasksRequest,
    out: Output,
) -> Result<(), tonic::Status> {
    while let Some(step) = steps.message().await? {
        match step.kind {
            Some(watch_tasks_response::Kind::SnapshotEntry(task)) => {
                out.one(&task, |task| format!("{} {}", task.task_id, show::state(task.state)));
            }
            Some(watch_tasks_response::Kind::SnapshotComplete(complete)) => {
                request.after_revision = Some(complete.revision);
                request.include_snapshot = false;
            }
            Some(watch_tasks_response::Kind::Event(event)) => {
                // Within a snapshot it does not tell where to go on: the snapshot does, at its end.
                if !request.include_snapshot {
                    request.after_revision = Some(event.revision);
                }
                out.one(&event, event_line);
            }
            Some(watch_tasks_response::Kind::Progress(progress)) => request.after_revision = Some(progress.revision),
            None => {}
        }
    }
    Ok(())
}

fn event_line(event: &v1::TaskEvent) -> String {
    let mut line = format!("{:>8} {} {}", event.revision, event.task_id, show::state(event.state));
    let stops = event.cancel.as_ref().is_some_and(|cancel| cancel.stopped_at.is_none());
    let stops = if stops { "asked to stop" } else { "" };
    for extra in [event.worker.clone(), show::failure(event.failure.as_ref()), stops.to_owned()] {
        if !extra.is_empty() {
            line = format!("{line} {extra}");
        }
    }
    if event.deleted { format!("{line} forgotten") } else { line }
}

async fn print_output(mut pieces: Streaming<v1::ReadOutputResponse>, out: Output) -> Done {
    while let Some(piece) = pieces.message().await? {
        if piece.skipped > 0 {
            say::talk(format_args!("[{} bytes were not kept]", piece.skipped));
        }
        if out.is_json() {
            out.one(&piece, |_| String::new());
        } else {
            say::bytes(&piece.data);
        }
    }
    Ok(Exit::Ok)
}

fn describe(task: &v1::Task) -> String {
    let result = match &task.result {
        Some(v1::Payload { kind: Some(Kind::Data(data)), .. }) => String::from_utf8_lossy(data).into_owned(),
        _ => String::new(),
    };
    let labels = task.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ");
    let run_time = task.resource_usage.as_ref().map(|usage| show::span(usage.run_time.as_ref())).unwrap_or_default();
    show::fields(&[
        ("id", task.task_id.clone()),
        ("state", show::state(task.state)),
        ("handler", task.handler.clone()),
        ("pool", task.pool.clone()),
        ("priority", show::priority(task.priority)),
        ("name", task.display_name.clone()),
        ("labels", labels),
        ("batch", task.batch_id.clone()),
        ("attempt", task.attempt.to_string()),
        ("submitted", show::moment(task.submitted_at.as_ref())),
        ("started", show::moment(task.started_at.as_ref())),
        ("finished", show::moment(task.finished_at.as_ref())),
        ("run time", run_time),
        ("worker", task.worker.clone()),
        ("failure", show::failure(task.failure.as_ref())),
        ("detail", task.failure.as_ref().map(|failure| failure.detail.clone()).unwrap_or_default()),
        ("result", result),
    ])
}
