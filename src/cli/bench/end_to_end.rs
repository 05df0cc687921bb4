//! Scenarios `end-to-end` and `watch-fan-out`: from submission to the completion event on one watch or many.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::Streaming;

use super::load::{Samples, Window};
use super::report::{Report, Row};
use super::rounds::{self, Loaded, Rows, bursts, by_turns};
use super::server::{self, BATCH, Server, TaskClient};
use super::settings::Settings;
use super::submit;
use crate::cli::server_process::Result;
use crate::cli::time::to_proto;
use crate::proto::v1::watch_tasks_response::Kind;
use crate::proto::v1::{
    BatchSubmitTasksRequest, SubmitTaskRequest, TaskEvent, TaskFilter, TaskState, WatchTasksRequest, WatchTasksResponse,
};

/// Maximum number of unfinished tasks.
pub const BACKLOG: usize = 20_000;
/// Least share of the rate at which the minimal server accepts batches.
const CEILING_SHARE: f64 = 0.13;
const WATCHES: usize = 50;
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// Time limit from the last submission to the last completion.
const COMPLETION_TIMEOUT: Duration = Duration::from_secs(30);
const FAN_OUT_TIMEOUT: Duration = Duration::from_mins(1);

/// A load of equal tasks, submitted in batches.
pub struct BatchLoad {
    pub task: SubmitTaskRequest,
    /// Tasks per batch.
    pub batch: usize,
    /// Maximum number of unfinished tasks.
    pub backlog: usize,
    /// The batches go to as many namespaces in turn; 1 is the default namespace.
    pub namespaces: usize,
}

/// No-op tasks in batches of a thousand, each a batch of its own.
pub fn no_op_load() -> BatchLoad {
    BatchLoad { task: server::no_op_task(), batch: BATCH, backlog: BACKLOG, namespaces: 1 }
}

/// No-op tasks with one watch, submitted with calls that create a batch each, and then all in one batch.
pub async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let mut subjects = vec![submit::batch_ceiling(settings)];
    subjects.extend(rounds::versions(settings, |settings, server| {
        Box::pin(async move { no_op_load().run(settings, server).await })
    }));
    let measured = by_turns(settings.rounds, &subjects).await?;
    let rows = Rows {
        scenario: "end-to-end",
        what: &format!("no-op tasks, backlog {BACKLOG}"),
        measured: &measured[1],
        other: measured.get(2).map(Vec::as_slice),
        baseline: Some((&measured[0], "batches on the minimal server")),
        target: Some(CEILING_SHARE),
    };
    rows.add(report);
    one_batch(&settings.short(), report).await
}

/// The cost of a batch that contains all tasks.
async fn one_batch(settings: &Settings, report: &mut Report) -> Result<()> {
    let this = Settings { other: None, ..settings.clone() };
    let load = |batch_id: &'static str| {
        rounds::versions(&this, move |settings, server| {
            Box::pin(async move {
                let task = SubmitTaskRequest { batch_id: batch_id.to_owned(), ..server::no_op_task() };
                BatchLoad { task, ..no_op_load() }.run(settings, server).await
            })
        })
    };
    let subjects: Vec<_> = load("").into_iter().chain(load("one")).collect();
    let measured = by_turns(settings.rounds, &subjects).await?;
    let row = Row::of_rounds("end-to-end", "no-op tasks, all in one batch: burst", bursts(&measured[1]), "tasks/s");
    report.add(row.baselines(bursts(&measured[0]), "a batch for each thousand"));
    Ok(())
}

impl BatchLoad {
    /// Submits batches until the load ends, then waits until every task has completed. The burst are the completions in the
    /// window.
    pub async fn run(&self, settings: &Settings, server: &Server) -> Result<Loaded> {
        let window = Window::of_burst(settings);
        let permits = Arc::new(Semaphore::new(self.backlog));
        let submitted = Arc::new(AtomicU64::new(0));
        let all_submitted = Arc::new(AtomicBool::new(false));
        let events = watch_completions(server.client().await?, &self.task.handler).await?;
        let watcher = tokio::spawn(count_completions(
            events,
            window,
            Arc::clone(&permits),
            Arc::clone(&submitted),
            Arc::clone(&all_submitted),
        ));
        let request = server::batch(&self.task, self.batch);
        let mut submitters = JoinSet::new();
        for _ in 0..settings.connections {
            let client = server.client().await?;
            let (permits, submitted) = (Arc::clone(&permits), Arc::clone(&submitted));
            submitters.spawn(submit(client, request.clone(), self.namespaces, window, permits, submitted));
        }
        while let Some(ended) = submitters.join_next().await {
            ended??;
        }
        all_submitted.store(true, Ordering::SeqCst);
        let in_window = tokio::time::timeout(COMPLETION_TIMEOUT, watcher).await;
        let in_window = in_window.map_err(|_| format!("not every task completed within {COMPLETION_TIMEOUT:?}"))??;
        let tasks = submitted.load(Ordering::SeqCst);
        Ok(Loaded { burst: window.rate(in_window?), tasks, latency: Samples::new() })
    }
}

async fn submit(
    mut client: TaskClient,
    mut request: BatchSubmitTasksRequest,
    namespaces: usize,
    window: Window,
    permits: Arc<Semaphore>,
    submitted: Arc<AtomicU64>,
) -> Result<()> {
    let size = u32::try_from(request.tasks.len())?;
    while !window.has_ended() {
        permits.acquire_many(size).await?.forget();
        let before = submitted.fetch_add(size.into(), Ordering::SeqCst);
        if namespaces > 1 {
            let namespace = format!("n{}", before / u64::from(size) % namespaces as u64);
            request.tasks.iter_mut().for_each(|task| task.namespace.clone_from(&namespace));
        }
        client.batch_submit_tasks(request.clone()).await?;
    }
    Ok(())
}

/// Waits until as many tasks have completed as were submitted. Returns the number of completions in the window.
async fn count_completions(
    mut events: TaskEvents,
    window: Window,
    permits: Arc<Semaphore>,
    submitted: Arc<AtomicU64>,
    all_submitted: Arc<AtomicBool>,
) -> Result<u64> {
    let (mut total, mut in_window) = (0, 0);
    loop {
        if all_submitted.load(Ordering::SeqCst) && total >= submitted.load(Ordering::SeqCst) {
            return Ok(in_window);
        }
        // The progress messages of an idle watch make the loop check the condition above.
        if events.next().await?.is_some() {
            total += 1;
            in_window += u64::from(window.is_open());
            permits.add_permits(1);
        }
    }
}

/// The events of a watch.
pub struct TaskEvents(Streaming<WatchTasksResponse>);

impl TaskEvents {
    /// The next event, or `None` for a progress message.
    pub async fn next(&mut self) -> Result<Option<TaskEvent>> {
        match self.0.message().await?.ok_or("the watch has ended")?.kind {
            Some(Kind::Event(event)) => Ok(Some(*event)),
            _ => Ok(None),
        }
    }
}

/// Watches completions of tasks of a handler from the current revision.
pub async fn watch_completions(client: TaskClient, handler: &str) -> Result<TaskEvents> {
    let states = vec![TaskState::Completed.into()];
    watch(client, TaskFilter { states, handler: handler.to_owned(), ..TaskFilter::default() }).await
}

/// Watches the tasks that match a filter from the current revision.
pub async fn watch(mut client: TaskClient, filter: TaskFilter) -> Result<TaskEvents> {
    let request = WatchTasksRequest {
        filter: Some(filter),
        progress_interval: Some(to_proto(PROGRESS_INTERVAL)),
        ..WatchTasksRequest::default()
    };
    Ok(TaskEvents(client.watch_tasks(request).await?.into_inner()))
}

/// Fifty watches, each of which receives every completion.
pub async fn fan_out(settings: &Settings, report: &mut Report) -> Result<()> {
    let server = Server::start(settings).await?;
    let batches = if settings.quick { 10 } else { 40 };
    let tasks = (batches * BATCH) as u64;
    let mut clients = Vec::new();
    for _ in 0..settings.connections {
        clients.push(server.client().await?);
    }
    let mut watches = JoinSet::new();
    for number in 0..WATCHES {
        let events = watch_completions(clients[number % clients.len()].clone(), "compute").await?;
        watches.spawn(receive_in_order(events, tasks));
    }
    let mut client = server.client().await?;
    let request = server::batch(&server::no_op_task(), BATCH);
    let started = Instant::now();
    for _ in 0..batches {
        client.batch_submit_tasks(request.clone()).await?;
    }
    let all_received = async {
        while let Some(ended) = watches.join_next().await {
            ended??;
        }
        Result::<()>::Ok(())
    };
    let all_received = tokio::time::timeout(FAN_OUT_TIMEOUT, all_received).await;
    all_received.map_err(|_| format!("not every event was received within {FAN_OUT_TIMEOUT:?}"))??;
    let seconds = started.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let (tasks, events) = (tasks as f64, (tasks * WATCHES as u64) as f64);
    report.add(Row::new("watch-fan-out", &format!("events received by {WATCHES} watches"), events / seconds, "/s"));
    report.add(Row::new("watch-fan-out", "no-op tasks meanwhile", tasks / seconds, "tasks/s"));
    Ok(())
}

/// Receives a number of events and checks that their revisions increase.
async fn receive_in_order(mut events: TaskEvents, count: u64) -> Result<()> {
    let (mut received, mut revision) = (0, 0);
    while received < count {
        let Some(event) = events.next().await? else { continue };
        if event.revision <= revision {
            return Err("a watch received events out of order".into());
        }
        revision = event.revision;
        received += 1;
    }
    Ok(())
}
