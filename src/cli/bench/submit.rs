//! Scenarios `submit-unary`, `submit-batch` and `submit-stream`: the tasks go to a paused pool.

use std::collections::HashMap;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use super::baseline;
use super::load::{Samples, Window, closed_loop};
use super::report::{Report, Row};
use super::server::{self, BATCH, Server, TaskClient};
use super::settings::Settings;
use crate::cli::server_process::Result;
use crate::proto::v1::SubmitTasksRequest;
use crate::proto::v1::submit_tasks_response::Outcome;

/// Concurrent batches per connection.
const BATCHES_IN_FLIGHT: usize = 8;
/// Unacknowledged tasks per stream.
const STREAM_WINDOW: usize = 256;

struct Measured {
    /// Tasks per second.
    rate: f64,
    samples: Samples,
}

/// One task per call.
pub async fn unary(settings: &Settings, report: &mut Report) -> Result<()> {
    let load = |clients: Vec<TaskClient>| async move {
        let window = Window::after_warm_up(settings.duration);
        let request = server::queued_task();
        let caller = |client: &TaskClient| {
            let (client, request) = (client.clone(), request.clone());
            move || {
                let (mut client, request) = (client.clone(), request.clone());
                async move { client.submit_task(request).await.map(|_| 1) }
            }
        };
        let callers = clients.iter().flat_map(|client| (0..settings.in_flight).map(|_| caller(client))).collect();
        let samples = closed_loop(window, callers).await?;
        Ok(Measured { rate: window.rate(samples.count), samples })
    };
    let what = format!("{} connections × {} in flight", settings.connections, settings.in_flight);
    compare(settings, report, "submit-unary", &what, 34_000.0, load).await
}

/// A thousand tasks per call.
pub async fn batch(settings: &Settings, report: &mut Report) -> Result<()> {
    let load = |clients: Vec<TaskClient>| async move {
        let window = Window::after_warm_up(settings.duration);
        let request = server::batch(&server::queued_task(), BATCH);
        let caller = |client: &TaskClient| {
            let (client, request) = (client.clone(), request.clone());
            move || {
                let (mut client, request) = (client.clone(), request.clone());
                async move { client.batch_submit_tasks(request).await.map(|_| BATCH as u64) }
            }
        };
        let callers = clients.iter().flat_map(|client| (0..BATCHES_IN_FLIGHT).map(|_| caller(client))).collect();
        let samples = closed_loop(window, callers).await?;
        Ok(Measured { rate: window.rate(samples.count), samples })
    };
    let what = format!("batches of {BATCH}, {} connections × {BATCHES_IN_FLIGHT} in flight", settings.connections);
    compare(settings, report, "submit-batch", &what, 300_000.0, load).await
}

/// One stream per connection.
pub async fn stream(settings: &Settings, report: &mut Report) -> Result<()> {
    let load = |clients: Vec<TaskClient>| async move {
        let window = Window::after_warm_up(settings.duration);
        let mut streams = JoinSet::new();
        for client in clients {
            streams.spawn(one_stream(client, window));
        }
        let mut total = Samples::new();
        while let Some(samples) = streams.join_next().await {
            total.merge(&samples??)?;
        }
        Ok(Measured { rate: window.rate(total.count), samples: total })
    };
    let what = format!("{} streams × window of {STREAM_WINDOW}", settings.connections);
    compare(settings, report, "submit-stream", &what, 300_000.0, load).await
}

/// Keeps a constant number of unacknowledged tasks on a stream.
async fn one_stream(mut client: TaskClient, window: Window) -> Result<Samples> {
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
        if window.is_open() {
            samples.record(1, sent.elapsed());
        }
        if !window.has_ended() {
            sent_at.insert(next, Instant::now());
            sender.send(SubmitTasksRequest { sequence: next, task: Some(task.clone()) }).await?;
            next += 1;
        }
    }
    Ok(samples)
}

async fn compare<F, Fut>(
    settings: &Settings,
    report: &mut Report,
    scenario: &'static str,
    what: &str,
    target: f64,
    load: F,
) -> Result<()>
where
    F: Fn(Vec<TaskClient>) -> Fut,
    Fut: Future<Output = Result<Measured>>,
{
    let baselines = baseline::measure(settings, settings.connections, &load).await?;
    let server = Server::start(settings).await?;
    let mut clients = Vec::with_capacity(settings.connections);
    for _ in 0..settings.connections {
        clients.push(server.client().await?);
    }
    let measured = load(clients).await?;
    report.add(
        Row::new(scenario, what, measured.rate, "tasks/s")
            .at_least(target)
            .baseline(baselines.group_commit.rate, "minimal server with group commit"),
    );
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
        let (latency, baseline) = (measured.samples.millis(quantile), baselines.group_commit.samples.millis(quantile));
        let row = Row::new(scenario, name, latency, "ms").lower_is_better();
        report.add(row.baseline(baseline, "minimal server with group commit"));
    }
    report.add(Row::new(scenario, "minimal server without commit", baselines.immediate.rate, "tasks/s"));
    Ok(())
}
