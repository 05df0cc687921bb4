//! PoolService: inspect and change pools, stream their metrics.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::Stream;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use crate::model::{PoolKind, PoolName, Priority, limits};
use crate::proto::v1::{self, pool_service_server::PoolService};
use crate::scheduler::{
    DurationStats, Handle, PoolMetrics, PoolSnapshot, PoolUpdate, PoolView, UnknownPool, WorkerStats,
};

use super::interval::Ticker;
use crate::api::auth::{CallerExtractor, audit};
use crate::api::convert::InvalidFields;
use crate::api::convert::numbers::{to_i32, to_i64};
use crate::api::convert::task::{durability, priority};
use crate::api::convert::time::{duration, timestamp};
use crate::api::status::refused;
use crate::telemetry::host::HostReading;

const INTERVAL_DEFAULT: Duration = Duration::from_secs(1);
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
        let pool = pool_name("name", name)?;
        let (metrics, revision) = self.handle.pool_metrics_of(pool, workers).await.map_err(refused)?;
        Ok((metrics_message(metrics, Rates::default()), revision.0))
    }
}

#[tonic::async_trait]
impl PoolService for Pools {
    type StreamPoolMetricsStream = BoxStream<v1::StreamPoolMetricsResponse>;

    async fn list_pools(
        &self,
        _request: Request<v1::ListPoolsRequest>,
    ) -> Result<Response<v1::ListPoolsResponse>, Status> {
        let (mut pools, revision) = self.handle.pools().await.map_err(refused)?;
        pools.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        let pools = pools.into_iter().map(pool_message).collect();
        Ok(Response::new(v1::ListPoolsResponse { pools, revision: revision.0 }))
    }

    async fn get_pool(&self, request: Request<v1::GetPoolRequest>) -> Result<Response<v1::GetPoolResponse>, Status> {
        let name = pool_name("name", &request.into_inner().name)?;
        let (pools, revision) = self.handle.pools().await.map_err(refused)?;
        let found = pools.into_iter().find(|view| view.spec.name == name);
        let found = found.ok_or_else(|| refused(UnknownPool { pool: name }))?;
        Ok(Response::new(v1::GetPoolResponse { pool: Some(pool_message(found)), revision: revision.0 }))
    }

    async fn update_pool(
        &self,
        request: Request<v1::UpdatePoolRequest>,
    ) -> Result<Response<v1::UpdatePoolResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let request = request.into_inner();
        let name = audit::name(&request.name);
        let updated = match pool_update(request) {
            Ok(update) => self.handle.update_pool(update).await.map_err(refused),
            Err(fields) => Err(refused(fields)),
        };
        audit::record(&caller, "UpdatePool", name, &updated);
        let (view, revision) = updated?;
        Ok(Response::new(v1::UpdatePoolResponse { pool: Some(pool_message(view)), revision: revision.0 }))
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
        let mut invalid = InvalidFields::default();
        invalid.check_length("pools", request.pools.len(), limits::FILTER_VALUES_MAX, "values");
        let bounds = limits::INTERVAL_MIN..=limits::INTERVAL_MAX;
        let interval = invalid.duration("interval", request.interval.as_ref(), bounds).unwrap_or(INTERVAL_DEFAULT);
        let mut names = Vec::new();
        for (index, name) in request.pools.iter().enumerate().take(limits::FILTER_VALUES_MAX) {
            names.extend(invalid.parsed(format_args!("pools[{index}]"), PoolName::parse(name)));
        }
        invalid.check().map_err(refused)?;
        // Checks that the pools exist before the stream starts.
        self.handle.pool_metrics(names.clone(), false).await.map_err(refused)?;
        let (handle, host) = (self.handle.clone(), self.host.clone());
        let messages = metrics_messages(handle, host, names, interval, request.include_workers);
        Ok(Response::new(Box::pin(messages)))
    }

    async fn list_workers(
        &self,
        request: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        let pool = pool_name("pool", &request.into_inner().pool)?;
        let (metrics, revision) = self.metrics(pool.as_str(), true).await?;
        Ok(Response::new(v1::ListWorkersResponse { workers: metrics.workers, revision }))
    }

    async fn reset_pool_counters(
        &self,
        request: Request<v1::ResetPoolCountersRequest>,
    ) -> Result<Response<v1::ResetPoolCountersResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let pool = pool_name("name", &request.into_inner().name)?;
        let result = self.handle.reset_counters(pool.clone()).await.map_err(refused);
        audit::record(&caller, "ResetPoolCounters", &pool, &result);
        let revision = result?;
        Ok(Response::new(v1::ResetPoolCountersResponse { revision: revision.0 }))
    }
}

fn metrics_messages(
    handle: Handle,
    host: HostReading,
    names: Vec<PoolName>,
    interval: Duration,
    workers: bool,
) -> impl Stream<Item = Result<v1::StreamPoolMetricsResponse, Status>> {
    async_stream::try_stream! {
        let mut ticker = Ticker::new(&handle, interval);
        let mut previous = HashMap::new();
        loop {
            ticker.tick().await?;
            let (metrics, revision) = handle.pool_metrics(names.clone(), workers).await.map_err(refused)?;
            let pools = metrics.into_iter().map(|now| {
                let name = now.snapshot.spec.name.clone();
                let rates = Rates::between(previous.get(&name), &now);
                previous.insert(name, Counts::of(&now));
                metrics_message(now, rates)
            });
            let pools = pools.collect();
            let system = Some(super::system::health_message(&host()));
            yield v1::StreamPoolMetricsResponse { pools, system, revision: revision.0 };
        }
    }
}

/// Counter values at a time, from which [`Rates`] are computed.
struct Counts {
    at: crate::model::Timestamp,
    submitted: u64,
    finished: u64,
}

impl Counts {
    fn of(metrics: &PoolMetrics) -> Self {
        let counters = &metrics.snapshot.counters;
        let finished = counters.completed + counters.failed + counters.cancelled;
        Self { at: metrics.at, submitted: counters.submitted, finished }
    }
}

/// Tasks per second.
#[derive(Clone, Copy, Default)]
struct Rates {
    submit: f64,
    finish: f64,
}

impl Rates {
    fn between(before: Option<&Counts>, now: &PoolMetrics) -> Self {
        let (Some(before), now) = (before, Counts::of(now)) else { return Self::default() };
        let seconds = now.at.since(before.at).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "counts of one interval")]
        let rate = |from: u64, to: u64| if seconds > 0.0 { to.saturating_sub(from) as f64 / seconds } else { 0.0 };
        Self { submit: rate(before.submitted, now.submitted), finish: rate(before.finished, now.finished) }
    }
}

fn pool_name(field: &str, text: &str) -> Result<PoolName, Status> {
    PoolName::parse(text).map_err(|error| refused(InvalidFields::one(field, error)))
}

fn pool_update(request: v1::UpdatePoolRequest) -> Result<PoolUpdate, InvalidFields> {
    let mut invalid = InvalidFields::default();
    let name = invalid.parsed("name", PoolName::parse(&request.name));
    let size = request.size.map(|size| usize::try_from(size).unwrap_or(0));
    if size.is_some_and(|size| !(1..=limits::POOL_SIZE_MAX).contains(&size)) {
        let given = request.size.unwrap_or_default();
        invalid.add("size", format!("is {given}, must be from 1 to {}", limits::POOL_SIZE_MAX));
    }
    if let Some(limit) = request.queue_limit.filter(|limit| !(1..=QUEUE_LIMIT_MAX).contains(limit)) {
        invalid.add("queue_limit", format!("is {limit}, must be from 1 to {QUEUE_LIMIT_MAX}"));
    }
    invalid.check_length("etag", request.etag.len(), limits::NAME_BYTES_MAX, "bytes");
    let Some(name) = name else { return Err(invalid) };
    invalid.check()?;
    Ok(PoolUpdate {
        name,
        size,
        paused: request.paused,
        queue_limit: request.queue_limit.and_then(|limit| usize::try_from(limit).ok()),
        etag: (!request.etag.is_empty()).then_some(request.etag),
    })
}

fn pool_message(view: PoolView) -> v1::Pool {
    let PoolView { spec, etag } = view;
    let kind = match spec.kind {
        PoolKind::Threads => v1::PoolKind::Threads,
        PoolKind::Async => v1::PoolKind::Async,
    };
    v1::Pool {
        name: spec.name.to_string(),
        description: spec.description,
        kind: kind.into(),
        size: to_i32(spec.size),
        paused: spec.paused,
        queue_limit: to_i64(spec.queue_limit),
        default_timeout: Some(duration(spec.timeout)),
        durability: durability(spec.durability),
        etag,
    }
}

fn metrics_message(metrics: PoolMetrics, rates: Rates) -> v1::PoolMetrics {
    let PoolMetrics { at, snapshot: reading, stats, workers } = metrics;
    let oldest_wait = reading.oldest_wait();
    let PoolSnapshot { spec, counters, .. } = reading;
    let ended = counters.completed + counters.failed;
    let depth = |priority_of: Priority| v1::PriorityDepth {
        priority: priority(priority_of),
        queued: to_i64(reading.queued_by_priority[priority_of.index()]),
        oldest_wait: Some(duration(reading.oldest_wait_by_priority[priority_of.index()])),
    };
    v1::PoolMetrics {
        pool: spec.name.to_string(),
        time: Some(timestamp(at)),
        size: to_i32(spec.size),
        busy: to_i32(stats.busy),
        idle: to_i32(stats.idle),
        paused: spec.paused,
        queued: to_i64(reading.queued),
        waiting: to_i64(reading.waiting),
        running: to_i64(reading.running),
        priorities: Priority::DESCENDING.map(depth).to_vec(),
        oldest_wait: Some(duration(oldest_wait)),
        counters_since: Some(timestamp(reading.counters_since)),
        submitted: to_i64(counters.submitted),
        completed: to_i64(counters.completed),
        failed: to_i64(counters.failed),
        cancelled: to_i64(counters.cancelled),
        retried: to_i64(counters.retried),
        attempts: to_i64(counters.attempts),
        steals: to_i64(stats.steals),
        success_rate: ratio(counters.completed, ended).unwrap_or(1.0),
        submit_rate: rates.submit,
        finish_rate: rates.finish,
        wait_time: Some(percentiles(&reading.wait_time)),
        run_time: Some(percentiles(&reading.run_time)),
        utilization: ratio(stats.busy as u64, spec.size as u64).unwrap_or(0.0),
        deleted: to_i64(counters.deleted),
        workers: workers.into_iter().map(|row| worker(row, &spec.name)).collect(),
    }
}

fn ratio(part: u64, total: u64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a ratio needs at most 53 bits")]
    (total > 0).then(|| part as f64 / total as f64)
}

fn percentiles(times: &DurationStats) -> v1::Percentiles {
    v1::Percentiles {
        count: to_i64(times.count),
        p50: Some(duration(times.p50)),
        p90: Some(duration(times.p90)),
        p99: Some(duration(times.p99)),
        max: Some(duration(times.max)),
    }
}

fn worker(row: WorkerStats, pool: &PoolName) -> v1::Worker {
    let (task, handler) =
        row.current.map(|(task, handler)| (task.to_string(), handler.to_string())).unwrap_or_default();
    v1::Worker {
        name: row.name,
        pool: pool.to_string(),
        alive: row.alive,
        busy: row.busy,
        queue_size: to_i64(row.queue_size),
        current_task_id: task,
        current_handler: handler,
        completed: to_i64(row.completed),
        failed: to_i64(row.failed),
        busy_time: Some(duration(row.busy_time)),
        idle_time: Some(duration(row.idle_time)),
        steals: to_i64(row.steals),
    }
}
