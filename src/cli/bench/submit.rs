//! Submission alone: the tasks go to a pool that starts nothing.

use std::collections::HashMap;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use super::Plan;
use super::baseline::bare;
use super::load::{self, Tally, Window, closed_loop};
use super::report::{Report, Row};
use super::server::{self, BATCH, Server, Tasks};
use crate::cli::server_process::Result;
use crate::proto::v1::SubmitTasksRequest;
use crate::proto::v1::submit_tasks_response::Outcome;

/// Batches in flight on each connection.
const BATCHES_IN_FLIGHT: usize = 8;
/// Tasks of one stream that are sent and not answered.
const STREAM_WINDOW: usize = 256;

/// A rate with the distribution of its latencies.
struct Measured {
    rate: f64,
    tally: Tally,
}

/// One task each call.
pub async fn unary(plan: &Plan, report: &mut Report) -> Result<()> {
    let load = |clients: Vec<Tasks>| async move {
        let window = Window::soon(plan.span);
        let request = server::parked();
        let slot = |client: &Tasks| {
            let (client, request) = (client.clone(), request.clone());
            move || {
                let (mut client, request) = (client.clone(), request.clone());
                async move { client.submit_task(request).await.map(|_| 1) }
            }
        };
        let slots = clients.iter().flat_map(|client| (0..plan.in_flight).map(|_| slot(client))).collect();
        let tally = closed_loop(window, slots).await?;
        Ok(Measured { rate: window.rate(tally.count), tally })
    };
    let what = format!("{} connections × {} in flight", plan.connections, plan.in_flight);
    compare(plan, report, "submit-unary", &what, 34_000.0, load).await
}

/// A thousand tasks each call.
pub async fn batch(plan: &Plan, report: &mut Report) -> Result<()> {
    let load = |clients: Vec<Tasks>| async move {
        let window = Window::soon(plan.span);
        let request = server::batch(&server::parked(), BATCH);
        let slot = |client: &Tasks| {
            let (client, request) = (client.clone(), request.clone());
            move || {
                let (mut client, request) = (client.clone(), request.clone());
                async move { client.batch_submit_tasks(request).await.map(|_| BATCH as u64) }
            }
        };
        let slots = clients.iter().flat_map(|client| (0..BATCHES_IN_FLIGHT).map(|_| slot(client))).collect();
        let tally = closed_loop(window, slots).await?;
        Ok(Measured { rate: window.rate(tally.count), tally })
    };
    let what = format!("batches of {BATCH}, {} connections × {BATCHES_IN_FLIGHT} in flight", plan.connections);
    compare(plan, report, "submit-batch", &what, 300_000.0, load).await
}

/// A stream for each connection.
pub async fn stream(plan: &Plan, report: &mut Report) -> Result<()> {
    let load = |clients: Vec<Tasks>| async move {
        let window = Window::soon(plan.span);
        let mut streams = JoinSet::new();
        for client in clients {
            streams.spawn(one_stream(client, window));
        }
        let mut total = Tally::new();
        while let Some(tally) = streams.join_next().await {
            let tally = tally??;
            total.count += tally.count;
            total.latency.add(&tally.latency)?;
        }
        Ok(Measured { rate: window.rate(total.count), tally: total })
    };
    let what = format!("{} streams × window of {STREAM_WINDOW}", plan.connections);
    compare(plan, report, "submit-stream", &what, 300_000.0, load).await
}

/// Keeps the window full; each answer makes room for the next task.
async fn one_stream(mut client: Tasks, window: Window) -> Result<Tally> {
    let (sender, requests) = mpsc::channel(STREAM_WINDOW);
    let task = server::parked();
    let mut sent_at = HashMap::with_capacity(STREAM_WINDOW);
    let mut next = 0;
    while next < STREAM_WINDOW as u64 {
        sent_at.insert(next, Instant::now());
        sender.send(SubmitTasksRequest { sequence: next, task: Some(task.clone()) }).await?;
        next += 1;
    }
    let mut answers = client.submit_tasks(ReceiverStream::new(requests)).await?.into_inner();
    let mut tally = Tally::new();
    while !sent_at.is_empty() {
        let answer = answers.message().await?.ok_or("the stream ended before all was answered")?;
        if let Some(Outcome::Rejected(rejection)) = answer.outcome {
            return Err(format!("a task was rejected: {}: {}", rejection.reason, rejection.message).into());
        }
        let sent = sent_at.remove(&answer.sequence).ok_or("a sequence number was answered twice")?;
        if window.is_open() {
            tally.add(1, sent.elapsed());
        }
        if !window.is_over() {
            sent_at.insert(next, Instant::now());
            sender.send(SubmitTasksRequest { sequence: next, task: Some(task.clone()) }).await?;
            next += 1;
        }
    }
    Ok(tally)
}

async fn compare<F, Fut>(
    plan: &Plan,
    report: &mut Report,
    scenario: &'static str,
    what: &str,
    target: f64,
    load: F,
) -> Result<()>
where
    F: Fn(Vec<Tasks>) -> Fut,
    Fut: Future<Output = Result<Measured>>,
{
    let bare = bare(plan, plan.connections, &load).await?;
    let server = Server::start(plan).await?;
    let mut clients = Vec::with_capacity(plan.connections);
    for _ in 0..plan.connections {
        clients.push(server.tasks().await?);
    }
    let measured = load(clients).await?;
    report.add(
        Row::new(scenario, what, measured.rate, "tasks/s")
            .at_least(target)
            .ceiling(bare.durable.rate, "bare group commit behind tonic"),
    );
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
        let at = |measured: &Measured| load::millis(&measured.tally.latency, quantile);
        report
            .add(Row::new(scenario, name, at(&measured), "ms").lower().ceiling(at(&bare.durable), "bare group commit"));
    }
    report.add(Row::new(scenario, "bare echo, answered at once", bare.at_once.rate, "tasks/s"));
    Ok(())
}
