//! From submission to completion seen on a watch, with a bounded backlog, for one watcher or many.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::Streaming;

use super::Plan;
use super::load::Window;
use super::report::{Report, Row};
use super::server::{self, BATCH, Server, Tasks};
use crate::cli::server_process::Result;
use crate::proto::v1::watch_tasks_response::Kind;
use crate::proto::v1::{
    BatchSubmitTasksRequest, SubmitTaskRequest, TaskEvent, TaskFilter, TaskState, WatchTasksRequest, WatchTasksResponse,
};

/// Tasks that are submitted and not seen completed.
pub const BACKLOG: usize = 20_000;
/// Watchers of the same tasks.
const WATCHERS: usize = 50;
/// How long the last completions may take after the last submission.
const DRAIN_WITHIN: Duration = Duration::from_secs(30);

/// A load of equal tasks in batches.
pub struct Flow {
    /// The task.
    pub task: SubmitTaskRequest,
    /// Tasks of one batch.
    pub batch: usize,
    /// Tasks that are submitted and not seen completed, at most.
    pub backlog: usize,
}

/// No-op tasks, one watcher.
pub async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let server = Server::start(plan).await?;
    let flow = Flow { task: server::no_op(), batch: BATCH, backlog: BACKLOG };
    let rate = flow.run(plan, &server).await?;
    let what = format!("no-op tasks in batches of {BATCH}, backlog {BACKLOG}");
    report.add(Row::new("end-to-end", &what, rate, "tasks/s").at_least(125_000.0));
    Ok(())
}

impl Flow {
    /// Completions per second; also checks that each submitted task was seen completed once.
    pub async fn run(&self, plan: &Plan, server: &Server) -> Result<f64> {
        Ok(self.count(plan, server).await?.0)
    }

    /// Completions per second in the window, and how many there were in all.
    pub async fn count(&self, plan: &Plan, server: &Server) -> Result<(f64, u64)> {
        let window = Window::soon(plan.span);
        let room = Arc::new(Semaphore::new(self.backlog));
        let submitted = Arc::new(AtomicU64::new(0));
        let all_submitted = Arc::new(AtomicBool::new(false));
        let completions = completions(server.tasks().await?, &self.task.handler).await?;
        let watcher = tokio::spawn(count(
            completions,
            window,
            Arc::clone(&room),
            Arc::clone(&submitted),
            Arc::clone(&all_submitted),
        ));
        let request = server::batch(&self.task, self.batch);
        let mut submitters = JoinSet::new();
        for _ in 0..plan.connections {
            let client = server.tasks().await?;
            submitters.spawn(submit(client, request.clone(), window, Arc::clone(&room), Arc::clone(&submitted)));
        }
        while let Some(ended) = submitters.join_next().await {
            ended??;
        }
        all_submitted.store(true, Ordering::SeqCst);
        let in_window = tokio::time::timeout(DRAIN_WITHIN, watcher).await;
        let in_window =
            in_window.map_err(|_| format!("not every task was seen completed within {DRAIN_WITHIN:?}"))??;
        Ok((window.rate(in_window?), submitted.load(Ordering::SeqCst)))
    }
}

async fn submit(
    mut client: Tasks,
    request: BatchSubmitTasksRequest,
    window: Window,
    room: Arc<Semaphore>,
    submitted: Arc<AtomicU64>,
) -> Result<()> {
    let size = u32::try_from(request.tasks.len())?;
    while !window.is_over() {
        room.acquire_many(size).await?.forget();
        submitted.fetch_add(size.into(), Ordering::SeqCst);
        client.batch_submit_tasks(request.clone()).await?;
    }
    Ok(())
}

/// Sees completions until there are as many as submissions; answers how many came in the window.
async fn count(
    mut completions: Completions,
    window: Window,
    room: Arc<Semaphore>,
    submitted: Arc<AtomicU64>,
    all_submitted: Arc<AtomicBool>,
) -> Result<u64> {
    let (mut seen, mut in_window) = (0, 0);
    loop {
        if all_submitted.load(Ordering::SeqCst) && seen >= submitted.load(Ordering::SeqCst) {
            return Ok(in_window);
        }
        // A quiet stream still tells its progress, so that the end above is noticed.
        if completions.next().await?.is_some() {
            seen += 1;
            in_window += u64::from(window.is_open());
            room.add_permits(1);
        }
    }
}

/// A watch of completions.
pub struct Completions(Streaming<WatchTasksResponse>);

impl Completions {
    /// The next event; nothing when the watch only told its progress.
    pub async fn next(&mut self) -> Result<Option<TaskEvent>> {
        match self.0.message().await?.ok_or("the watch has ended")?.kind {
            Some(Kind::Event(event)) => Ok(Some(event)),
            _ => Ok(None),
        }
    }
}

/// Watches the completions of a handler from now on.
pub async fn completions(client: Tasks, handler: &str) -> Result<Completions> {
    let states = vec![TaskState::Completed.into()];
    watch(client, TaskFilter { states, handler: handler.to_owned(), ..TaskFilter::default() }).await
}

/// Watches what a filter matches, from now on.
pub async fn watch(mut client: Tasks, filter: TaskFilter) -> Result<Completions> {
    let request = WatchTasksRequest {
        filter: Some(filter),
        progress_interval: Some(crate::cli::time::to_proto(Duration::from_millis(100))),
        ..WatchTasksRequest::default()
    };
    Ok(Completions(client.watch_tasks(request).await?.into_inner()))
}

/// Fifty watchers, each told of every completion.
pub async fn fan_out(plan: &Plan, report: &mut Report) -> Result<()> {
    let server = Server::start(plan).await?;
    let batches = if plan.quick { 10 } else { 40 };
    let tasks = (batches * BATCH) as u64;
    let mut channels = Vec::new();
    for _ in 0..plan.connections {
        channels.push(server.tasks().await?);
    }
    let mut watchers = JoinSet::new();
    for number in 0..WATCHERS {
        let mut completions = completions(channels[number % channels.len()].clone(), "compute").await?;
        watchers.spawn(async move {
            let (mut seen, mut revision) = (0, 0);
            while seen < tasks {
                let Some(event) = completions.next().await? else { continue };
                if event.revision <= revision {
                    return Err("a watcher got events out of order".into());
                }
                revision = event.revision;
                seen += 1;
            }
            Result::<()>::Ok(())
        });
    }
    let mut client = server.tasks().await?;
    let request = server::batch(&server::no_op(), BATCH);
    let began = Instant::now();
    for _ in 0..batches {
        client.batch_submit_tasks(request.clone()).await?;
    }
    let seen_by_all = async {
        while let Some(ended) = watchers.join_next().await {
            ended??;
        }
        Result::<()>::Ok(())
    };
    let limit = Duration::from_mins(1);
    tokio::time::timeout(limit, seen_by_all).await.map_err(|_| format!("not all was seen within {limit:?}"))??;
    let seconds = began.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let (tasks, events) = (tasks as f64, (tasks * WATCHERS as u64) as f64);
    report.add(Row::new("watch-fan-out", &format!("events delivered to {WATCHERS} watchers"), events / seconds, "/s"));
    report.add(Row::new("watch-fan-out", "no-op tasks meanwhile", tasks / seconds, "tasks/s"));
    Ok(())
}
