//! Scenarios `submit-unary`, `submit-batch` and `submit-stream`: the tasks go to a paused pool.

use std::collections::HashMap;
use std::time::Instant;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::baseline;
use super::load::{Samples, Window, closed_loop};
use super::report::Report;
use super::rounds::{self, Loaded, Measured, Rows, Subject, by_turns};
use super::server::{self, BATCH, TaskClient};
use super::settings::Settings;
use crate::cli::server_process::Result;
use crate::proto::v1::SubmitTasksRequest;
use crate::proto::v1::submit_tasks_response::Outcome;

/// Concurrent batches per connection.
const BATCHES_IN_FLIGHT: usize = 8;
/// Unacknowledged tasks per stream.
const STREAM_WINDOW: usize = 256;

/// Tasks of one load at most: a queue has to fit into memory and on the disk.
const TASKS_MAX: u64 = 4_000_000;

/// One task per call.
pub async fn unary(settings: &Settings, report: &mut Report) -> Result<()> {
    let what = format!("{} connections × {} in flight", settings.connections, settings.in_flight);
    compare(settings, report, "submit-unary", &what, 0.85, |settings, clients| {
        Box::pin(async move {
            let request = server::queued_task();
            let call = move |mut client: TaskClient| {
                let request = request.clone();
                async move { client.submit_task(request).await.map(|_| 1) }
            };
            call_repeatedly(settings, clients, settings.in_flight, call).await
        })
    })
    .await
}

/// A thousand tasks per call.
pub async fn batch(settings: &Settings, report: &mut Report) -> Result<()> {
    let what = format!("batches of {BATCH}, {} connections × {BATCHES_IN_FLIGHT} in flight", settings.connections);
    compare(settings, report, "submit-batch", &what, 0.65, |settings, clients| Box::pin(batches(settings, clients)))
        .await
}

async fn batches(settings: &Settings, clients: Vec<TaskClient>) -> Result<Loaded> {
    let request = server::batch(&server::queued_task(), BATCH);
    let call = move |mut client: TaskClient| {
        let request = request.clone();
        async move { client.batch_submit_tasks(request).await.map(|_| BATCH as u64) }
    };
    call_repeatedly(settings, clients, BATCHES_IN_FLIGHT, call).await
}

/// One stream per connection.
pub async fn stream(settings: &Settings, report: &mut Report) -> Result<()> {
    let what = format!("{} streams × window of {STREAM_WINDOW}", settings.connections);
    compare(settings, report, "submit-stream", &what, 0.70, |settings, clients| Box::pin(streams(settings, clients)))
        .await
}

async fn streams(settings: &Settings, clients: Vec<TaskClient>) -> Result<Loaded> {
    let window = Window::of_burst(settings);
    let most = TASKS_MAX / clients.len() as u64;
    let mut streams = JoinSet::new();
    for client in clients {
        streams.spawn(one_stream(client, window, most));
    }
    let mut total = Samples::new();
    while let Some(samples) = streams.join_next().await {
        total.merge(&samples??)?;
    }
    Ok(loaded(window, total))
}

/// Keeps a constant number of calls in flight on each connection.
async fn call_repeatedly<F, Fut>(
    settings: &Settings,
    clients: Vec<TaskClient>,
    in_flight: usize,
    call: F,
) -> Result<Loaded>
where
    F: Fn(TaskClient) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<u64, Status>> + Send + 'static,
{
    let window = Window::of_burst(settings);
    let caller = |client: &TaskClient| {
        let (client, call) = (client.clone(), call.clone());
        move || call(client.clone())
    };
    let callers = clients.iter().flat_map(|client| (0..in_flight).map(|_| caller(client))).collect();
    Ok(loaded(window, closed_loop(window, TASKS_MAX, callers).await?))
}

fn loaded(window: Window, samples: Samples) -> Loaded {
    Loaded { burst: window.rate(samples.count), tasks: samples.total, latency: samples }
}

/// The rate at which the minimal server accepts batches.
pub fn batch_ceiling(settings: &Settings) -> Subject<'_> {
    ceiling(settings, |settings, clients| Box::pin(batches(settings, clients)))
}

/// Keeps a constant number of unacknowledged tasks on a stream.
async fn one_stream(mut client: TaskClient, window: Window, most: u64) -> Result<Samples> {
    let (sender, requests) = mpsc::channel(STREAM_WINDOW);
    let task = server::queued_task();
    let mut sent_at = HashMap::with_capacity(STREAM_WINDOW);
    let mut next = 0;
    while next < STREAM_WINDOW as u64 {
        sent_at.insert(next, Instant::now());
        sender.send(SubmitTasksRequest { sequence: next, task: Some(task.clone()) }).await?;
        next += 1;
    }
    let mut responses = client.submit_tasks(ReceiverStream::new(requests)).await?.into_inner();
    let mut samples = Samples::new();
    while !sent_at.is_empty() {
        let response = responses.message().await?.ok_or("the stream ended before all tasks were acknowledged")?;
        if let Some(Outcome::Rejected(rejection)) = response.outcome {
            return Err(format!("a task was rejected: {}: {}", rejection.reason, rejection.message).into());
        }
        let sent = sent_at.remove(&response.sequence).ok_or("a task was acknowledged twice")?;
        samples.total += 1;
        if window.is_open() {
            samples.record(1, sent.elapsed());
        }
        if !window.has_ended() && next < most {
            sent_at.insert(next, Instant::now());
            sender.send(SubmitTasksRequest { sequence: next, task: Some(task.clone()) }).await?;
            next += 1;
        }
    }
    Ok(samples)
}

/// Measures a load on the minimal server and on each version.
async fn compare<F>(
    settings: &Settings,
    report: &mut Report,
    scenario: &'static str,
    what: &str,
    target: f64,
    load: F,
) -> Result<()>
where
    F: for<'s> Fn(&'s Settings, Vec<TaskClient>) -> BoxFuture<'s, Result<Loaded>> + Copy + Send + Sync + 'static,
{
    let mut subjects = vec![ceiling(settings, load)];
    subjects.extend(rounds::versions(settings, move |settings, server| {
        Box::pin(async move {
            let mut clients = Vec::with_capacity(settings.connections);
            for _ in 0..settings.connections {
                clients.push(server.client().await?);
            }
            load(settings, clients).await
        })
    }));
    let measured = by_turns(settings.rounds, &subjects).await?;
    let rows = Rows {
        scenario,
        what,
        measured: &measured[1],
        other: measured.get(2).map(Vec::as_slice),
        baseline: Some((&measured[0], "minimal server with group commit")),
        target: Some(target),
    };
    rows.add(report);
    Ok(())
}

/// A load on the minimal server. It leaves nothing for later, so that a burst is enough.
fn ceiling<'a, F>(settings: &'a Settings, load: F) -> Subject<'a>
where
    F: for<'s> Fn(&'s Settings, Vec<TaskClient>) -> BoxFuture<'s, Result<Loaded>> + Copy + Send + Sync + 'a,
{
    Box::new(move || {
        Box::pin(async move {
            let settings = settings.short();
            let loaded = async |clients| load(&settings, clients).await;
            let loaded = baseline::group_commit(&settings, settings.connections, loaded).await?;
            Ok(Measured { burst: loaded.burst, latency: loaded.latency, sustained: None })
        })
    })
}
