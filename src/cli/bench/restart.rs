//! Scenario `restart`: a crash with a long queue, and the time until the restarted server starts the first task.

use std::time::{Duration, Instant};

use super::report::{Report, Row};
use super::server::{self, PAUSED_POOL, Server, config};
use super::settings::Settings;
use crate::cli::server_process::{Result, ServerProcess, task_client};
use crate::cli::time::unix_micros;
use crate::proto::v1::watch_tasks_response::Kind;
use crate::proto::v1::{TaskFilter, TaskState, WatchTasksRequest};

/// Time limit for the first start after the server is ready.
const FIRST_START_TIMEOUT: Duration = Duration::from_mins(1);

/// Queues a million tasks, kills the server, and starts it again with the pool active.
pub async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let count = if settings.quick { 100_000 } else { 1_000_000 };
    let Server { process, scratch } = Server::start(settings).await?;
    let mut client = task_client(process.connect().await?);
    let started = Instant::now();
    let resume_token = server::submit_many(&mut client, &server::queued_task(), count).await?;
    let filling = started.elapsed().as_secs_f64();
    process.kill().await?;

    let process = ServerProcess::start(&settings.program, scratch.path(), &config(false, None)).await?;
    let spawned_at = i64::try_from(process.spawned_at().as_micros())?;
    let started_at = first_start(&process, resume_token).await?;
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a restart are far below 2^52")]
    let seconds = (started_at - spawned_at) as f64 / 1e6;
    let row = Row::new("restart", &format!("kill -9 with {count} queued tasks → first start"), seconds, "s");
    // The target is for the long queue only.
    report.add(if settings.quick { row.lower_is_better() } else { row.at_most(3.0) });
    let row = Row::new("restart", "time to fill the queue, one connection", filling, "s");
    report.add(row.lower_is_better());
    process.kill().await
}

/// Wall time of the first start of a task in the events after a token, in microseconds.
async fn first_start(process: &ServerProcess, resume_token: String) -> Result<i64> {
    let mut client = task_client(process.connect().await?);
    let filter =
        TaskFilter { pool: PAUSED_POOL.to_owned(), states: vec![TaskState::Running.into()], ..TaskFilter::default() };
    let request = WatchTasksRequest { filter: Some(filter), resume_token, ..Default::default() };
    let mut responses = client.watch_tasks(request).await?.into_inner();
    let first = async {
        loop {
            if let Some(Kind::Event(event)) = responses.message().await?.ok_or("the watch has ended")?.kind {
                return Result::Ok(unix_micros(event.time.as_ref()));
            }
        }
    };
    let first = tokio::time::timeout(FIRST_START_TIMEOUT, first).await;
    first.map_err(|_| format!("no task was started within {FIRST_START_TIMEOUT:?} after the server was ready"))?
}
