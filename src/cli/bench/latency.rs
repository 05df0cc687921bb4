//! Scenarios `latency`, `open-loop` and `cancel`: the times of single tasks.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::baseline;
use super::end_to_end::{TaskEvents, watch, watch_completions};
use super::load::{Samples, Window, closed_loop};
use super::report::{Report, Row};
use super::server::{self, Server, TaskClient};
use super::settings::Settings;
use crate::cli::server_process::Result;
use crate::cli::time::unix_micros;
use crate::proto::v1::submit_tasks_response::Outcome;
use crate::proto::v1::{
    CancelTaskRequest, StopMethod, SubmitTaskRequest, SubmitTasksRequest, TaskEvent, TaskFilter, TaskState,
};

/// Tasks per second of `open-loop`.
const OPEN_LOOP_RATE: u32 = 5_000;
/// Sends per second of `open-loop`.
const TICKS: u32 = 1_000;
const PER_TICK: u32 = OPEN_LOOP_RATE / TICKS;
/// Time limit for the last events of a scenario.
const EVENT_TIMEOUT: Duration = Duration::from_secs(30);

/// Submits one task at a time and waits for its completion on an open watch.
pub async fn one_at_a_time(settings: &Settings, report: &mut Report) -> Result<()> {
    let mut rounds = RoundTrips::default();
    for _ in 0..settings.rounds {
        rounds.add_baseline(settings).await?;
        let server = Server::start(settings).await?;
        rounds.tasks.push(submit_one_at_a_time(settings, &server, &server::no_op_task()).await?);
    }
    report.add(rounds.row("latency", "one task at a time", "p50", 0.5).ratio_at_most(1.7));
    report.add(rounds.row("latency", "one task at a time", "p99", 0.99).ratio_at_most(3.0));
    Ok(())
}

/// The times of tasks, and of durable round trips, by round.
#[derive(Default)]
pub struct RoundTrips {
    pub tasks: Vec<Samples>,
    baselines: Vec<Samples>,
}

impl RoundTrips {
    /// Measures durable round trips to the minimal server, one after the other.
    pub async fn add_baseline(&mut self, settings: &Settings) -> Result<()> {
        let duration = settings.duration.min(Duration::from_secs(1));
        let load = async move |clients: Vec<TaskClient>| {
            let client = clients.into_iter().next().ok_or("no connection")?;
            let caller = move || {
                let mut client = client.clone();
                async move { client.submit_task(server::no_op_task()).await.map(|_| 1) }
            };
            closed_loop(Window::after_warm_up(duration), u64::MAX, vec![caller]).await
        };
        self.baselines.push(baseline::group_commit(settings, 1, load).await?);
        Ok(())
    }

    pub fn row(&self, scenario: &str, what: &str, name: &str, quantile: f64) -> Row {
        let millis = |samples: &[Samples]| samples.iter().map(|samples| samples.millis(quantile)).collect();
        Row::of_rounds(scenario, &format!("{what}: {name}"), millis(&self.tasks), "ms")
            .lower_is_better()
            .baselines(millis(&self.baselines), "one durable round trip")
    }
}

/// The times from the submission of a task to its completion, seen by an open watch.
pub async fn submit_one_at_a_time(settings: &Settings, server: &Server, task: &SubmitTaskRequest) -> Result<Samples> {
    let mut client = server.client().await?;
    let mut events = watch_completions(server.client().await?, &task.handler).await?;
    let window = Window::after_warm_up(settings.duration);
    let mut samples = Samples::new();
    while !window.has_ended() {
        let started = Instant::now();
        let id = submit(&mut client, task.clone()).await?;
        wait_for_event(&mut events, &id, |_| true).await?;
        if window.is_open() {
            samples.record(1, started.elapsed());
        }
    }
    Ok(samples)
}

/// Waits for an event of a task that fulfils the condition.
async fn wait_for_event(
    events: &mut TaskEvents,
    id: &str,
    condition: impl Fn(&TaskEvent) -> bool,
) -> Result<TaskEvent> {
    let found = async {
        loop {
            if let Some(event) = events.next().await?
                && event.task_id == id
                && condition(&event)
            {
                return Result::Ok(event);
            }
        }
    };
    let found = tokio::time::timeout(EVENT_TIMEOUT, found).await;
    found.map_err(|_| format!("no event of task {id} within {EVENT_TIMEOUT:?}"))?
}

/// Tasks that are sent at a fixed rate, whether or not the server keeps up. Each time counts from when the task should have been
/// sent to when the client has the event.
pub async fn open_loop(settings: &Settings, report: &mut Report) -> Result<()> {
    let server = Server::start(settings).await?;
    let filter = TaskFilter { handler: "compute".to_owned(), ..TaskFilter::default() };
    let events = watch(server.client().await?, filter).await?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most an hour of ticks")]
    let ticks = (settings.duration.as_secs_f64() * f64::from(TICKS)) as u32;
    let client = server.client().await?;
    let begin = Instant::now() + Duration::from_millis(100);
    let times = tokio::spawn(measure_times(events, begin, ticks));
    send_at_fixed_rate(client, begin, ticks).await?;
    let times = tokio::time::timeout(EVENT_TIMEOUT, times).await;
    let (start, end) = times.map_err(|_| format!("not every task ended within {EVENT_TIMEOUT:?}"))???;
    let what = format!("{OPEN_LOOP_RATE} tasks/s");
    let row = |what: &str, value| Row::new("open-loop", what, value, "ms").lower_is_better();
    report.add(row(&format!("{what}, due → start seen, p50"), start.millis(0.5)));
    report.add(row(&format!("{what}, due → start seen, p99"), start.millis(0.99)).at_most(5.0));
    report.add(row(&format!("{what}, due → end seen, p50"), end.millis(0.5)));
    report.add(row(&format!("{what}, due → end seen, p99"), end.millis(0.99)));
    Ok(())
}

/// When the tasks of a tick are due.
fn due(begin: Instant, tick: u32) -> Instant {
    begin + Duration::from_secs(1) / TICKS * tick
}

/// Sends a few tasks per tick on one stream. The ID of a task ends with its tick.
async fn send_at_fixed_rate(mut client: TaskClient, begin: Instant, ticks: u32) -> Result<()> {
    let (sender, requests) = mpsc::channel(OPEN_LOOP_RATE as usize);
    let mut responses = client.submit_tasks(ReceiverStream::new(requests)).await?.into_inner();
    let reader = tokio::spawn(async move {
        for _ in 0..ticks * PER_TICK {
            let response = responses.message().await?.ok_or("the stream ended before all tasks were acknowledged")?;
            if let Some(Outcome::Rejected(rejection)) = response.outcome {
                return Err(format!("a task was rejected: {}", rejection.message).into());
            }
        }
        Result::<()>::Ok(())
    });
    for tick in 0..ticks {
        tokio::time::sleep_until(due(begin, tick).into()).await;
        for number in 0..PER_TICK {
            let task = SubmitTaskRequest { task_id: format!("{number}-{tick}"), ..server::no_op_task() };
            sender.send(SubmitTasksRequest { sequence: (tick * PER_TICK + number).into(), task: Some(task) }).await?;
        }
    }
    reader.await?
}

/// The times from when each task is due to when the client has the events of its start and of its end.
async fn measure_times(mut events: TaskEvents, begin: Instant, ticks: u32) -> Result<(Samples, Samples)> {
    let (mut start, mut end) = (Samples::new(), Samples::new());
    while end.count < u64::from(ticks * PER_TICK) {
        let Some(event) = events.next().await? else { continue };
        // Retention deletes early tasks while later ones still run.
        if event.deleted {
            continue;
        }
        let tick = event.task_id.rsplit('-').next().unwrap_or_default().parse()?;
        let since_due = due(begin, tick).elapsed();
        match event.state() {
            TaskState::Queued => {}
            TaskState::Running => start.record(1, since_due),
            TaskState::Completed => end.record(1, since_due),
            other => return Err(format!("a no-op task became {}", other.as_str_name()).into()),
        }
    }
    Ok((start, end))
}

/// Cancels running computations, one after the other.
pub async fn cancel(settings: &Settings, report: &mut Report) -> Result<()> {
    let server = Server::start(settings).await?;
    let Stops { stop, received } = cancel_tasks(settings, &server, &server::endless_task(), StopMethod::Token).await?;
    let row = |what: &str, value| Row::new("cancel", what, value, "ms");
    report.add(row("computation, cancel → stopped, p50", stop.millis(0.5)).lower_is_better());
    report.add(row("computation, cancel → stopped, maximum", stop.millis(1.0)).at_most(10.0));
    report.add(row("cancel → event received, p99", received.millis(0.99)).lower_is_better());
    Ok(())
}

/// The times of cancels.
pub struct Stops {
    /// From the accepted request to the end of the work, as in the receipt.
    pub stop: Samples,
    /// From the call to the event that a watch receives.
    pub received: Samples,
}

/// Starts tasks and cancels them, one after the other.
pub async fn cancel_tasks(
    settings: &Settings,
    server: &Server,
    task: &SubmitTaskRequest,
    method: StopMethod,
) -> Result<Stops> {
    let mut client = server.client().await?;
    let filter = TaskFilter { handler: task.handler.clone(), ..TaskFilter::default() };
    let mut events = watch(server.client().await?, filter).await?;
    let (mut stop, mut received) = (Samples::new(), Samples::new());
    for _ in 0..if settings.quick { 20 } else { 200 } {
        let id = submit(&mut client, task.clone()).await?;
        wait_for_event(&mut events, &id, |event| event.state() == TaskState::Running).await?;
        let started = Instant::now();
        client.cancel_task(CancelTaskRequest { task_id: id.clone(), ..CancelTaskRequest::default() }).await?;
        let end = wait_for_event(&mut events, &id, |event| event.state() == TaskState::Cancelled).await?;
        received.record(1, started.elapsed());
        let receipt = end.cancel.ok_or("a cancelled task has no receipt")?;
        if receipt.method() != method {
            return Err(format!("a task was stopped by {}", receipt.method().as_str_name()).into());
        }
        let micros = unix_micros(receipt.stopped_at.as_ref()) - unix_micros(receipt.requested_at.as_ref());
        stop.record(1, Duration::from_micros(u64::try_from(micros)?));
    }
    Ok(Stops { stop, received })
}

pub async fn submit(client: &mut TaskClient, task: SubmitTaskRequest) -> Result<String> {
    Ok(client.submit_task(task).await?.into_inner().task_id)
}
