//! Scenario `scheduler`: what limits, dependencies and schedules add to the cost of a no-op task, for few and for many tasks.
//!
//! Each kind of task is compared with plain ones that are submitted at the same times: how many tasks the server deletes before
//! it has written them to the projection, and how many go into one commit, depends on when they come.

use std::ops::Range;
use std::time::{Duration, Instant};

use futures_util::future::try_join;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::end_to_end::{TaskEvents, watch_completions};
use super::load::Samples;
use super::report::{Report, Row};
use super::rounds::{Loaded, Measured, Subject, bursts, by_turns, measure, server_costs};
use super::server::{self, Server, TaskClient};
use super::settings::Settings;
use crate::cli::server_process::Result;
use crate::cli::time::{to_proto, to_timestamp};
use crate::model::limits::{BATCH_TASKS_MAX, SCHEDULES_MAX};
use crate::model::{Clock, SystemClock};
use crate::proto::v1::schedule_service_client::ScheduleServiceClient;
use crate::proto::v1::schedule_spec::Rule;
use crate::proto::v1::{
    BatchSubmitTasksRequest, CreateScheduleRequest, Dependencies, OverlapPolicy, ScheduleSpec, SubmitTaskRequest,
    TaskLimit,
};

/// Most that a task may cost in relation to a plain one, however many there are.
const COST_MAX: f64 = 1.5;
const SIZES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// Tasks of one measurement: so many that the journal copies its log into its file several times, whatever the kind.
const TASKS_MIN: usize = 400_000;
const KEYS: usize = 1_000;
/// Tasks of each of the keys that run at once.
const PLACES_OF_MANY: i32 = 10;
/// Tasks of the one key that run at once: so many that the time of a commit between an end and the next start does not limit them.
const PLACES_OF_ONE: i32 = 1_000;
/// Tasks of a DAG that can run at once, of a tenth as many levels or more.
const WIDTH_MAX: usize = 1_000;
/// Most runs of a schedule, and the time between two of them.
const RUNS_MAX: usize = 10;
const INTERVAL: Duration = Duration::from_secs(1);
/// Time for the creation of a schedule: several times what it takes.
const CREATION: Duration = Duration::from_millis(if cfg!(debug_assertions) { 10 } else { 1 });
const CREATED_AT_ONCE: usize = 64;
/// Time until all schedules are in the projection.
const SETTLED: Duration = Duration::from_secs(1);
/// Time between the begin of a measurement and the first run of the schedules.
const TIME_TO_WATCH: Duration = Duration::from_millis(500);
/// Time without a completion after which a measurement fails.
const STALLED_AFTER: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    ManyKeys,
    OneKey,
    Dag,
    FanIn,
    PlainEachSecond,
    Schedules,
}

/// With the largest number of tasks that differs from a smaller one, and what they are compared with.
const KINDS: [(Kind, &str, usize, Option<Kind>); 7] = [
    (Kind::Plain, "plain tasks", usize::MAX, None),
    (Kind::ManyKeys, "1,000 limit keys", usize::MAX, Some(Kind::Plain)),
    (Kind::OneKey, "one limit key", usize::MAX, Some(Kind::Plain)),
    (Kind::Dag, "DAG", usize::MAX, Some(Kind::Plain)),
    (Kind::FanIn, "fan-in", BATCH_TASKS_MAX, Some(Kind::Plain)),
    (Kind::PlainEachSecond, "plain tasks each second", SCHEDULES_MAX, None),
    (Kind::Schedules, "schedules", SCHEDULES_MAX, Some(Kind::PlainEachSecond)),
];

pub async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    for size in if settings.quick { &SIZES[..2] } else { &SIZES } {
        let kinds: Vec<_> = KINDS.into_iter().filter(|(_, _, largest, _)| size <= largest).collect();
        let subject = |kind| -> Subject<'_> { Box::new(move || Box::pin(cost(settings, kind, *size))) };
        let subjects: Vec<_> = kinds.iter().map(|(kind, ..)| subject(*kind)).collect();
        let measured = by_turns(settings.rounds, &subjects).await?;
        for ((kind, name, _, baseline), of_kind) in kinds.iter().zip(&measured) {
            let baseline = kinds.iter().zip(&measured).find(|((kind, ..), _)| Some(*kind) == *baseline);
            let mut add = |what: &str, of: fn(&[Measured]) -> Vec<f64>| {
                let row = Row::of_rounds("scheduler", &format!("{what} per task, {name}: {size}"), of(of_kind), "µs");
                report.add(match baseline {
                    Some(((_, name, ..), plain)) => row.baselines(of(plain), name).ratio_at_most(COST_MAX),
                    None => row.lower_is_better(),
                });
            };
            add("CPU of the server", server_costs);
            if !kind.is_each_second() {
                add("time", |measured| bursts(measured).into_iter().map(|rate| 1e6 / rate).collect());
            }
        }
    }
    Ok(())
}

impl Kind {
    /// Whether its tasks wait for their time.
    fn is_each_second(self) -> bool {
        matches!(self, Self::PlainEachSecond | Self::Schedules)
    }
}

/// Measures enough tasks of one kind: those of one size, repeatedly if it is small.
async fn cost(settings: &Settings, kind: Kind, size: usize) -> Result<Measured> {
    let server = Server::start(settings).await?;
    let least = if settings.quick { 10_000 } else { TASKS_MIN };
    let mut repeats = (least / size).max(1);
    if kind.is_each_second() {
        repeats = repeats.min(RUNS_MAX);
    }
    if kind == Kind::Schedules {
        create_schedules(&server, size, repeats).await?;
    }
    measure(&server, repeated(&server, kind, repeats, size)).await
}

/// Submits tasks and waits for their completion, repeatedly.
async fn repeated(server: &Server, kind: Kind, repeats: usize, size: usize) -> Result<Loaded> {
    let first = Instant::now() + TIME_TO_WATCH;
    let mut client = server.client().await?;
    let mut events = watch_completions(server.client().await?, &server::no_op_task().handler).await?;
    let started = Instant::now();
    for repeat in 0..repeats {
        if kind.is_each_second() {
            tokio::time::sleep_until((first + INTERVAL * u32::try_from(repeat)?).into()).await;
        }
        try_join(submit(&mut client, kind, size), completions(&mut events, size)).await?;
    }
    let tasks = u64::try_from(repeats * size)?;
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let burst = tasks as f64 / started.elapsed().as_secs_f64();
    Ok(Loaded { burst, tasks, latency: Samples::new() })
}

async fn completions(events: &mut TaskEvents, count: usize) -> Result<()> {
    let (mut completed, mut last) = (0, Instant::now());
    while completed < count {
        // An idle watch has progress messages.
        if events.next().await?.is_some() {
            (completed, last) = (completed + 1, Instant::now());
        } else if last.elapsed() > STALLED_AFTER {
            return Err(format!("no task completed in {STALLED_AFTER:?}, after {completed} of {count}").into());
        }
    }
    Ok(())
}

/// Submits tasks in calls as large as they can be. The server submits those of schedules.
async fn submit(client: &mut TaskClient, kind: Kind, size: usize) -> Result<()> {
    let size = if kind == Kind::Schedules { 0 } else { size };
    let width = (size / 10).min(WIDTH_MAX);
    let mut level = Vec::new();
    for first in (0..size).step_by(BATCH_TASKS_MAX) {
        let call = first..size.min(first + BATCH_TASKS_MAX);
        let tasks = call.clone().map(|number| task(kind, number, &call, width, &level)).collect::<Result<_>>()?;
        let request = BatchSubmitTasksRequest { tasks, ..BatchSubmitTasksRequest::default() };
        let mut ids = client.batch_submit_tasks(request).await?.into_inner().task_ids;
        level = ids.split_off(ids.len().saturating_sub(width));
    }
    Ok(())
}

/// The task of a number, in a call with those of `call`. `before`: the IDs of the level of the DAG before the call.
fn task(kind: Kind, number: usize, call: &Range<usize>, width: usize, before: &[String]) -> Result<SubmitTaskRequest> {
    let mut task = server::no_op_task();
    let limit = |key: String, max_running| vec![TaskLimit { key, max_running, ..TaskLimit::default() }];
    match kind {
        Kind::ManyKeys => task.limits = limit(format!("key-{}", number % KEYS), PLACES_OF_MANY),
        Kind::OneKey => task.limits = limit("one".to_owned(), PLACES_OF_ONE),
        Kind::FanIn if number + 1 == call.end => {
            let batch_indices = (0..i32::try_from(call.len() - 1)?).collect();
            task.dependencies = Some(Dependencies { batch_indices, ..Dependencies::default() });
        }
        Kind::Dag if number >= width => {
            // The task above, and the one beside that.
            let level = number - number % width - width;
            let mut dependencies = Dependencies::default();
            for parent in [number - width, level + (number + 1) % width] {
                match parent.checked_sub(call.start) {
                    Some(index) => dependencies.batch_indices.push(i32::try_from(index)?),
                    None => dependencies.task_ids.push(before[parent + width - call.start].clone()),
                }
            }
            task.dependencies = Some(dependencies);
        }
        Kind::Plain | Kind::PlainEachSecond | Kind::Schedules | Kind::FanIn | Kind::Dag => {}
    }
    Ok(task)
}

/// Creates schedules with so many runs, all at the same times. Returns when they are in the projection, just before the first run.
async fn create_schedules(server: &Server, count: usize, runs: usize) -> Result<()> {
    let client = ScheduleServiceClient::new(server.process.connect().await?);
    let lead = CREATION * u32::try_from(count)? + SETTLED;
    let measured_from = Instant::now() + lead;
    let spec = ScheduleSpec {
        rule: Some(Rule::Interval(to_proto(INTERVAL))),
        start_at: Some(to_timestamp(SystemClock.now().after(lead + TIME_TO_WATCH))),
        max_runs: i64::try_from(runs)?,
        overlap: OverlapPolicy::Allow.into(),
        task: Some(server::no_op_task()),
        ..ScheduleSpec::default()
    };
    let create = |number| {
        let (mut client, spec, schedule_id) = (client.clone(), Some(spec.clone()), format!("schedule-{number}"));
        let request = CreateScheduleRequest { schedule_id, spec, ..CreateScheduleRequest::default() };
        async move { client.create_schedule(request).await }
    };
    let created = stream::iter(0..count).map(create).buffer_unordered(CREATED_AT_ONCE);
    created.try_for_each(|_| async { Ok(()) }).await?;
    server.settled().await?;
    if Instant::now() > measured_from {
        return Err(format!("the creation of {count} schedules took longer than {lead:?}").into());
    }
    tokio::time::sleep_until(measured_from.into()).await;
    Ok(())
}
