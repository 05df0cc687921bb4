//! Crash with a long queue, restart, first start of a task.

use std::time::{Duration, Instant};

use super::Plan;
use super::report::{Report, Row};
use super::server::{self, PARKED, Server, config};
use crate::cli::server_process::{Result, ServerProcess, task_client};
use crate::cli::time::unix_micros;
use crate::proto::v1::watch_tasks_response::Kind;
use crate::proto::v1::{TaskFilter, TaskState, WatchTasksRequest};

/// How long the first start may take after the server is ready.
const START_WITHIN: Duration = Duration::from_mins(1);

/// Queues a million tasks, kills the server, and starts it again without the pause.
pub async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let count = if plan.quick { 100_000 } else { 1_000_000 };
    let Server { child, scratch } = Server::start(plan).await?;
    let mut client = task_client(child.connect().await?);
    let began = Instant::now();
    let revision = server::queue(&mut client, &server::parked(), count).await?;
    let filling = began.elapsed().as_secs_f64();
    child.kill().await?;

    let child = ServerProcess::start(scratch.path(), &config(false, None)).await?;
    let spawned_at = i64::try_from(child.spawned_at().as_micros())?;
    let started_at = first_start(&child, revision).await?;
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a restart are far below 2^52")]
    let seconds = (started_at - spawned_at) as f64 / 1e6;
    let what = format!("kill -9 with {count} queued → first start");
    let row = Row::new("restart", &what, seconds, "s");
    // The target is for the long queue; it does not shrink with the queue, and says nothing of a short one.
    report.add(if plan.quick { row.lower() } else { row.at_most(3.0) });
    report.add(Row::new("restart", "filling the queue before, one connection", filling, "s").lower());
    child.kill().await
}

/// Wall time of the first start after a revision, in microseconds.
async fn first_start(child: &ServerProcess, revision: u64) -> Result<i64> {
    let mut client = task_client(child.connect().await?);
    let filter =
        TaskFilter { pool: PARKED.to_owned(), states: vec![TaskState::Running.into()], ..TaskFilter::default() };
    let request = WatchTasksRequest { filter: Some(filter), after_revision: Some(revision), ..Default::default() };
    let mut events = client.watch_tasks(request).await?.into_inner();
    let found = async {
        loop {
            if let Some(Kind::Event(event)) = events.message().await?.ok_or("the watch has ended")?.kind {
                return Result::Ok(unix_micros(event.time.as_ref()));
            }
        }
    };
    let found = tokio::time::timeout(START_WITHIN, found).await;
    found.map_err(|_| format!("no task was started within {START_WITHIN:?} of being ready"))?
}
