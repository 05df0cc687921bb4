//! Times of single tasks: submission to completion, submission to start at a fixed rate, and to stop.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Plan;
use super::baseline::bare;
use super::end_to_end::{Completions, completions, watch};
use super::load::{self, Tally, Window, closed_loop};
use super::report::{Report, Row};
use super::server::{self, Server, Tasks};
use crate::cli::server_process::Result;
use crate::cli::time::unix_micros;
use crate::proto::v1::submit_tasks_response::Outcome;
use crate::proto::v1::{
    CancelTaskRequest, StopMethod, SubmitTaskRequest, SubmitTasksRequest, TaskEvent, TaskFilter, TaskState,
};

/// Tasks per second of the open loop.
const OPEN_LOOP_RATE: u32 = 5_000;
/// Ticks per second of the open loop.
const TICKS: u32 = 1_000;
/// How long the last events of a scenario may take.
const SETTLE_WITHIN: Duration = Duration::from_secs(30);

/// One task at a time: submit, see it completed on a watch that is always open.
pub async fn one_at_a_time(plan: &Plan, report: &mut Report) -> Result<()> {
    let server = Server::start(plan).await?;
    let mut client = server.tasks().await?;
    let mut seen = completions(server.tasks().await?, "compute").await?;
    let window = Window::soon(plan.span);
    let mut tally = Tally::new();
    while !window.is_over() {
        let began = Instant::now();
        let id = client.submit_task(server::no_op()).await?.into_inner().task_id;
        event_of(&mut seen, &id, |_| true).await?;
        if window.is_open() {
            tally.add(1, began.elapsed());
        }
    }
    drop(server);
    compare(plan, report, &tally).await
}

/// The rows, beside the bare durable round trip of the same shape.
async fn compare(plan: &Plan, report: &mut Report, tally: &Tally) -> Result<()> {
    let bare = bare(plan, 1, |clients| async move {
        let window = Window::soon(plan.span.min(Duration::from_secs(1)));
        let client = clients.into_iter().next().ok_or("no connection")?;
        let slot = move || {
            let mut client = client.clone();
            async move { client.submit_task(server::no_op()).await.map(|_| 1) }
        };
        closed_loop(window, vec![slot]).await
    });
    let bare = bare.await?;
    for (name, quantile, target) in [("p50", 0.5, 0.5), ("p99", 0.99, 1.5)] {
        report.add(
            Row::new("latency", name, load::millis(&tally.latency, quantile), "ms")
                .at_most(target)
                .ceiling(load::millis(&bare.durable.latency, quantile), "one durable round trip"),
        );
    }
    Ok(())
}

/// The next event of a task that is the wanted one; events of others are passed over.
async fn event_of(events: &mut Completions, id: &str, wanted: impl Fn(&TaskEvent) -> bool) -> Result<TaskEvent> {
    let found = async {
        loop {
            if let Some(event) = events.next().await?
                && event.task_id == id
                && wanted(&event)
            {
                return Result::Ok(event);
            }
        }
    };
    let found = tokio::time::timeout(SETTLE_WITHIN, found).await;
    found.map_err(|_| format!("an event of {id} did not come within {SETTLE_WITHIN:?}"))?
}

/// Tasks that come at a fixed rate whether or not the server keeps up.
pub async fn open_loop(plan: &Plan, report: &mut Report) -> Result<()> {
    let server = Server::start(plan).await?;
    let filter = TaskFilter { handler: "compute".to_owned(), ..TaskFilter::default() };
    let events = watch(server.tasks().await?, filter).await?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most an hour of ticks")]
    let ticks = (plan.span.as_secs_f64() * f64::from(TICKS)) as u32;
    let count = u64::from(ticks) * u64::from(OPEN_LOOP_RATE / TICKS);
    let waits = tokio::spawn(follow(events, count));
    let late = offer(server.tasks().await?, ticks).await?;
    let waits = tokio::time::timeout(SETTLE_WITHIN, waits).await;
    let (start, end) = waits.map_err(|_| format!("not all tasks had ended within {SETTLE_WITHIN:?}"))???;
    let what = format!("submit → start at {OPEN_LOOP_RATE} tasks/s");
    report.add(Row::new("open-loop", &format!("{what}, p50"), load::millis(&start.latency, 0.5), "ms").lower());
    report.add(Row::new("open-loop", &format!("{what}, p99"), load::millis(&start.latency, 0.99), "ms").at_most(5.0));
    let end = load::millis(&end.latency, 0.99);
    report.add(Row::new("open-loop", "submit → completed, p99", end, "ms").lower());
    report.add(Row::new("open-loop", "load generator late, p99", load::millis(&late.latency, 0.99), "ms").lower());
    Ok(())
}

/// Sends a few tasks each tick on one stream; answers how late the ticks were.
async fn offer(mut client: Tasks, ticks: u32) -> Result<Tally> {
    let per_tick = OPEN_LOOP_RATE / TICKS;
    let (sender, requests) = mpsc::channel(OPEN_LOOP_RATE as usize);
    let mut answers = client.submit_tasks(ReceiverStream::new(requests)).await?.into_inner();
    let reader = tokio::spawn(async move {
        for _ in 0..ticks * per_tick {
            let answer = answers.message().await?.ok_or("the stream ended before all was answered")?;
            if let Some(Outcome::Rejected(rejection)) = answer.outcome {
                return Err(format!("a task was rejected: {}", rejection.message).into());
            }
        }
        Result::<()>::Ok(())
    });
    let mut late = Tally::new();
    let mut clock = tokio::time::interval(Duration::from_secs(1) / TICKS);
    let mut sequence = 0;
    for _ in 0..ticks {
        let due = clock.tick().await;
        late.add(1, due.elapsed());
        for _ in 0..per_tick {
            sender.send(SubmitTasksRequest { sequence, task: Some(server::no_op()) }).await?;
            sequence += 1;
        }
    }
    reader.await??;
    Ok(late)
}

/// Waits from submission to start and from submission to end of each task, by the times of its events.
async fn follow(mut events: Completions, count: u64) -> Result<(Tally, Tally)> {
    let mut submitted = HashMap::new();
    let (mut start, mut end) = (Tally::new(), Tally::new());
    while end.count < count {
        let Some(event) = events.next().await? else { continue };
        // Retention forgets early tasks while later ones still run.
        if event.deleted {
            continue;
        }
        let at = unix_micros(event.time.as_ref());
        let state = event.state();
        if state == TaskState::Queued && event.attempt == 0 {
            submitted.insert(event.task_id, at);
            continue;
        }
        let since = submitted.get(&event.task_id).ok_or("a task started before it was submitted")?;
        let span = Duration::from_micros(u64::try_from(at - since).unwrap_or_default());
        match state {
            TaskState::Running => start.add(1, span),
            TaskState::Completed => end.add(1, span),
            other => return Err(format!("a no-op task became {}", other.as_str_name()).into()),
        }
    }
    Ok((start, end))
}

/// Stops tasks that compute, one after the other, by the times of their receipts.
pub async fn cancel(plan: &Plan, report: &mut Report) -> Result<()> {
    let server = Server::start(plan).await?;
    let mut client = server.tasks().await?;
    let filter = TaskFilter { handler: "compute".to_owned(), ..TaskFilter::default() };
    let mut events = watch(server.tasks().await?, filter).await?;
    let (mut stop, mut seen) = (Tally::new(), Tally::new());
    for _ in 0..if plan.quick { 20 } else { 200 } {
        let id = submitted(&mut client, server::spinning()).await?;
        event_of(&mut events, &id, |event| event.state() == TaskState::Running).await?;
        let began = Instant::now();
        client.cancel_task(CancelTaskRequest { task_id: id.clone(), ..CancelTaskRequest::default() }).await?;
        let end = event_of(&mut events, &id, |event| event.state() == TaskState::Cancelled).await?;
        seen.add(1, began.elapsed());
        let receipt = end.cancel.ok_or("a cancelled task without a receipt")?;
        if receipt.method() != StopMethod::Token {
            return Err(format!("a computing task was stopped by {}", receipt.method().as_str_name()).into());
        }
        let span = unix_micros(receipt.stopped_at.as_ref()) - unix_micros(receipt.requested_at.as_ref());
        stop.add(1, Duration::from_micros(u64::try_from(span)?));
    }
    let what = "computing task, asked → stopped";
    report.add(Row::new("cancel", &format!("{what}, p50"), load::millis(&stop.latency, 0.5), "ms").lower());
    report.add(Row::new("cancel", &format!("{what}, worst"), load::millis(&stop.latency, 1.0), "ms").at_most(10.0));
    report.add(Row::new("cancel", "asked → end seen, p99", load::millis(&seen.latency, 0.99), "ms").lower());
    Ok(())
}

async fn submitted(client: &mut Tasks, task: SubmitTaskRequest) -> Result<String> {
    Ok(client.submit_task(task).await?.into_inner().task_id)
}
