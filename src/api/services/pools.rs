//! PoolService.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Request, Response, Status};

use crate::model::{PoolKind, PoolName, Priority, limits};
use crate::proto::v1::{self, pool_service_server::PoolService};
use crate::scheduler::{DurationStats, Handle, PoolMetrics, PoolSnapshot, PoolUpdate, PoolView, WorkerStats};

use super::interval::Ticks;
use super::tasks::Body;
use crate::api::auth::{CallerExtractor, audit};
use crate::api::convert::task::{count, durability, priority};
use crate::api::convert::time::{duration, timestamp};
use crate::api::convert::{self, InvalidFields};
use crate::api::status::refused;
use crate::telemetry::host::HostReading;

/// Interval of a metrics stream when the caller does not say.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(1);
/// Highest queue limit that can be set.
const QUEUE_LIMIT_MAX: i64 = 100_000_000;

pub struct Pools {
    handle: Handle,
    host: HostReading,
    callers: CallerExtractor,
}

impl Pools {
    pub fn new(handle: Handle, host: HostReading, callers: CallerExtractor) -> Self {
        Self { handle, host, callers }
    }

    async fn metrics(&self, name: &str, workers: bool) -> Result<(v1::PoolMetrics, u64), Status> {
        let pool = convert::pool_name("name", name).map_err(refused)?;
        let (metrics, revision) = self.handle.pool_metrics_of(pool, workers).await.map_err(refused)?;
        Ok((wire_metrics(metrics, Rates::default()), revision.0))
    }
}

#[tonic::async_trait]
impl PoolService for Pools {
    type StreamPoolMetricsStream = Body<v1::StreamPoolMetricsResponse>;

    async fn list_pools(
        &self,
        _request: Request<v1::ListPoolsRequest>,
    ) -> Result<Response<v1::ListPoolsResponse>, Status> {
        let (mut pools, revision) = self.handle.pools().await.map_err(refused)?;
        pools.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        let pools = pools.into_iter().map(wire_pool).collect();
        Ok(Response::new(v1::ListPoolsResponse { pools, revision: revision.0 }))
    }

    async fn get_pool(&self, request: Request<v1::GetPoolRequest>) -> Result<Response<v1::GetPoolResponse>, Status> {
        let name = convert::pool_name("name", &request.into_inner().name).map_err(refused)?;
        let (pools, revision) = self.handle.pools().await.map_err(refused)?;
        let found = pools.into_iter().find(|view| view.spec.name == name);
        let found = found.ok_or_else(|| refused(crate::scheduler::UnknownPool { pool: name }))?;
        Ok(Response::new(v1::GetPoolResponse { pool: Some(wire_pool(found)), revision: revision.0 }))
    }

    async fn update_pool(
        &self,
        request: Request<v1::UpdatePoolRequest>,
    ) -> Result<Response<v1::UpdatePoolResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let request = request.into_inner();
        let what = audit::name(&request.name);
        let answer = match pool_update(request) {
            Ok(update) => self.handle.update_pool(update).await.map_err(refused),
            Err(fields) => Err(refused(fields)),
        };
        audit::record(&caller, "UpdatePool", what, &answer);
        let (view, revision) = answer?;
        Ok(Response::new(v1::UpdatePoolResponse { pool: Some(wire_pool(view)), revision: revision.0 }))
    }

    async fn get_pool_metrics(
        &self,
        request: Request<v1::GetPoolMetricsRequest>,
    ) -> Result<Response<v1::GetPoolMetricsResponse>, Status> {
        let request = request.into_inner();
        let (metrics, revision) = self.metrics(&request.name, request.include_workers).await?;
        Ok(Response::new(v1::GetPoolMetricsResponse { metrics: Some(metrics), revision }))
    }

    async fn stream_pool_metrics(
        &self,
        request: Request<v1::StreamPoolMetricsRequest>,
    ) -> Result<Response<Self::StreamPoolMetricsStream>, Status> {
        let request = request.into_inner();
        let mut bad = InvalidFields::default();
        bad.at_most("pools", request.pools.len(), limits::FILTER_VALUES_MAX, "values");
        let bounds = limits::INTERVAL_MIN..=limits::INTERVAL_MAX;
        let interval = bad.span("interval", request.interval.as_ref(), bounds).unwrap_or(INTERVAL_DEFAULT);
        let mut names = Vec::new();
        for (index, name) in request.pools.iter().enumerate().take(limits::FILTER_VALUES_MAX) {
            names.extend(bad.take(format_args!("pools[{index}]"), PoolName::parse(name)));
        }
        bad.check().map_err(refused)?;
        // An unknown pool is refused before the stream begins.
        self.handle.pool_metrics(names.clone(), false).await.map_err(refused)?;
        let (handle, host) = (self.handle.clone(), self.host.clone());
        let readings = readings(handle, host, names, interval, request.include_workers);
        Ok(Response::new(Box::pin(readings)))
    }

    async fn list_workers(
        &self,
        request: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        let pool = convert::pool_name("pool", &request.into_inner().pool).map_err(refused)?;
        let (metrics, revision) = self.metrics(pool.as_str(), true).await?;
        Ok(Response::new(v1::ListWorkersResponse { workers: metrics.workers, revision }))
    }

    async fn reset_pool_counters(
        &self,
        request: Request<v1::ResetPoolCountersRequest>,
    ) -> Result<Response<v1::ResetPoolCountersResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let pool = convert::pool_name("name", &request.into_inner().name).map_err(refused)?;
        let answer = self.handle.reset_counters(pool.clone()).await.map_err(refused);
        audit::record(&caller, "ResetPoolCounters", &pool, &answer);
        let revision = answer?;
        Ok(Response::new(v1::ResetPoolCountersResponse { revision: revision.0 }))
    }
}

fn readings(
    handle: Handle,
    host: HostReading,
    names: Vec<PoolName>,
    interval: Duration,
    workers: bool,
) -> impl futures_util::Stream<Item = Result<v1::StreamPoolMetricsResponse, Status>> {
    async_stream::try_stream! {
        let mut ticks = Ticks::new(&handle, interval);
        let mut before = HashMap::new();
        loop {
            ticks.next().await?;
            let (metrics, revision) = handle.pool_metrics(names.clone(), workers).await.map_err(refused)?;
            let pools = metrics.into_iter().map(|now| {
                let name = now.reading.spec.name.clone();
                let rates = Rates::between(before.get(&name), &now);
                before.insert(name, Counted::of(&now));
                wire_metrics(now, rates)
            });
            let pools = pools.collect();
            let system = Some(super::system::wire_health(&host()));
            yield v1::StreamPoolMetricsResponse { pools, system, revision: revision.0 };
        }
    }
}

/// What rates are computed from.
struct Counted {
    at: crate::model::Timestamp,
    submitted: u64,
    ended: u64,
}

impl Counted {
    fn of(metrics: &PoolMetrics) -> Self {
        let counters = &metrics.reading.counters;
        let ended = counters.completed + counters.failed + counters.cancelled;
        Self { at: metrics.at, submitted: counters.submitted, ended }
    }
}

/// Per second.
#[derive(Clone, Copy, Default)]
struct Rates {
    submit: f64,
    finish: f64,
}

impl Rates {
    fn between(before: Option<&Counted>, now: &PoolMetrics) -> Self {
        let (Some(before), now) = (before, Counted::of(now)) else { return Self::default() };
        let seconds = now.at.since(before.at).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "counts of one interval")]
        let rate = |from: u64, to: u64| if seconds > 0.0 { to.saturating_sub(from) as f64 / seconds } else { 0.0 };
        Self { submit: rate(before.submitted, now.submitted), finish: rate(before.ended, now.ended) }
    }
}

fn pool_update(request: v1::UpdatePoolRequest) -> Result<PoolUpdate, InvalidFields> {
    let mut bad = InvalidFields::default();
    let name = bad.take("name", PoolName::parse(&request.name));
    let size = request.size.map(|size| usize::try_from(size).unwrap_or(0));
    if size.is_some_and(|size| !(1..=limits::POOL_SIZE_MAX).contains(&size)) {
        let given = request.size.unwrap_or_default();
        bad.add("size", format!("is {given}, it must be from 1 to {}", limits::POOL_SIZE_MAX));
    }
    if let Some(limit) = request.queue_limit.filter(|limit| !(1..=QUEUE_LIMIT_MAX).contains(limit)) {
        bad.add("queue_limit", format!("is {limit}, it must be from 1 to {QUEUE_LIMIT_MAX}"));
    }
    bad.at_most("etag", request.etag.len(), limits::NAME_BYTES_MAX, "bytes");
    let Some(name) = name else { return Err(bad) };
    bad.check()?;
    Ok(PoolUpdate {
        name,
        size,
        paused: request.paused,
        queue_limit: request.queue_limit.and_then(|limit| usize::try_from(limit).ok()),
        etag: (!request.etag.is_empty()).then_some(request.etag),
    })
}

fn wire_pool(view: PoolView) -> v1::Pool {
    let PoolView { spec, etag } = view;
    let kind = match spec.kind {
        PoolKind::Threads => v1::PoolKind::Threads,
        PoolKind::Async => v1::PoolKind::Async,
    };
    v1::Pool {
        name: spec.name.to_string(),
        description: spec.description,
        kind: kind.into(),
        size: small(spec.size),
        paused: spec.paused,
        queue_limit: count(spec.queue_limit as u64),
        default_timeout: Some(duration(spec.timeout)),
        durability: durability(spec.durability),
        etag,
    }
}

fn small(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn wire_metrics(metrics: PoolMetrics, rates: Rates) -> v1::PoolMetrics {
    let PoolMetrics { at, reading, stats, workers } = metrics;
    let oldest_wait = reading.oldest_wait();
    let PoolSnapshot { spec, counters, .. } = reading;
    let judged = counters.completed + counters.failed;
    let depth = |priority_of: Priority| v1::PriorityDepth {
        priority: priority(priority_of),
        queued: count(reading.queued_by_priority[priority_of.index()]),
        oldest_wait: Some(duration(reading.oldest_wait_by_priority[priority_of.index()])),
    };
    v1::PoolMetrics {
        pool: spec.name.to_string(),
        time: Some(timestamp(at)),
        size: small(spec.size),
        busy: small(stats.busy),
        idle: small(stats.idle),
        paused: spec.paused,
        queued: count(reading.queued),
        waiting: count(reading.waiting),
        running: count(reading.running),
        priorities: Priority::DESCENDING.map(depth).to_vec(),
        oldest_wait: Some(duration(oldest_wait)),
        counters_since: Some(timestamp(reading.counters_since)),
        submitted: count(counters.submitted),
        completed: count(counters.completed),
        failed: count(counters.failed),
        cancelled: count(counters.cancelled),
        retried: count(counters.retried),
        attempts: count(counters.attempts),
        steals: count(stats.steals),
        success_rate: share(counters.completed, judged).unwrap_or(1.0),
        submit_rate: rates.submit,
        finish_rate: rates.finish,
        wait_time: Some(percentiles(&reading.wait_time)),
        run_time: Some(percentiles(&reading.run_time)),
        utilization: share(stats.busy as u64, spec.size as u64).unwrap_or(0.0),
        deleted: count(counters.deleted),
        workers: workers.into_iter().map(|row| worker(row, &spec.name)).collect(),
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 53 bits")]
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn percentiles(times: &DurationStats) -> v1::Percentiles {
    v1::Percentiles {
        count: count(times.count),
        p50: Some(duration(times.p50)),
        p90: Some(duration(times.p90)),
        p99: Some(duration(times.p99)),
        max: Some(duration(times.max)),
    }
}

fn worker(row: WorkerStats, pool: &PoolName) -> v1::Worker {
    let (task, handler) = row.current.map_or_else(Default::default, |(t, h)| (t.to_string(), h.to_string()));
    v1::Worker {
        name: row.name,
        pool: pool.to_string(),
        alive: row.alive,
        busy: row.busy,
        queue_size: count(row.queue_size as u64),
        current_task_id: task,
        current_handler: handler,
        completed: count(row.completed),
        failed: count(row.failed),
        busy_time: Some(duration(row.busy_time)),
        idle_time: Some(duration(row.idle_time)),
        steals: count(row.steals),
    }
}
