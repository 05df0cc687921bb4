//! Plain routes for the server as a whole: statistics and shutdown.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tonic::Status;

use crate::model::RetryPolicy;
use crate::proto::v1;

use super::super::loopback::LoopbackClient;
use super::call::{Call, number};
use super::tasks::{lower_case_name, priority_number, seconds};

const SHUTDOWN_SECONDS_MAX: u64 = 24 * 3_600;

pub async fn task_stats(call: Call) -> Result<Value, Status> {
    call.params.parse_none()?;
    let pools = list_pools(&call.client).await?;
    let metrics = pool_metrics(&call.client, &pools, false).await?;
    let totals = Totals::of(&metrics);
    let retry = RetryPolicy::default();
    Ok(json!({
        "max_workers": worker_count(&metrics),
        "running_tasks": totals.running,
        "task_timeout": pools.first().and_then(|pool| pool.default_timeout.as_ref()).map(seconds),
        "max_retries": retry.attempts_max - 1,
        "retry_delay": retry.delay.as_secs_f64(),
        "total_tasks": totals.total(),
        "pending_tasks": totals.pending(),
        "completed_tasks": totals.completed,
        "failed_tasks": totals.failed,
        "cancelled_tasks": totals.cancelled,
        "counted_since": totals.since,
    }))
}

pub async fn stats(call: Call) -> Result<Value, Status> {
    call.params.parse_none()?;
    let client = &call.client;
    let pools = list_pools(client).await?;
    let metrics = pool_metrics(client, &pools, true).await?;
    let server: v1::GetServerInfoResponse =
        client.rpc("/lineshaft.v1.SystemService/GetServerInfo", &v1::GetServerInfoRequest {}).await?;
    let health: v1::GetSystemHealthResponse =
        client.rpc("/lineshaft.v1.SystemService/GetSystemHealth", &v1::GetSystemHealthRequest {}).await?;
    let configured = |name: &str| pools.iter().find(|pool| pool.name == name);
    let workers = metrics.iter().flat_map(|pool| &pool.workers).enumerate().map(worker_json);
    let totals = Totals::of(&metrics);
    Ok(json!({
        // These counters are kept even if the export of metrics is disabled.
        "pool_config": { "total_workers": worker_count(&metrics), "metrics_enabled": true },
        "workers": workers.collect::<Vec<_>>(),
        "queue": {
            "total_pending": totals.pending(),
            "by_priority": by_priority(&metrics),
        },
        "tasks": {
            "waiting": totals.waiting,
            "queued": totals.queued,
            "running": totals.running,
            "completed": totals.completed,
            "failed": totals.failed,
            "cancelled": totals.cancelled,
        },
        "metrics": {
            "total_submitted": totals.submitted,
            "total_completed": totals.completed,
            "total_failed": totals.failed,
            "total_retried": totals.retried,
            "uptime_seconds": server.uptime.as_ref().map(seconds),
            "success_rate": success_percent(totals.completed, totals.failed),
            "counted_since": totals.since,
        },
        "system_health": process_json(&health),
        "machine": machine_json(&health),
        "pools": metrics.iter().map(|pool| pool_json(configured(&pool.pool), pool)).collect::<Vec<_>>(),
        "server": {
            "version": server.version,
            "store": server.store,
            "revision": server.revision,
            "draining": health.draining,
        },
    }))
}

#[derive(Deserialize)]
struct Shutdown {
    limit_seconds: Option<Value>,
}

pub async fn shutdown(call: Call) -> Result<Value, Status> {
    let Shutdown { limit_seconds } = call.params.parse()?;
    let limit = number("limit_seconds", limit_seconds.as_ref(), 0..=SHUTDOWN_SECONDS_MAX)?;
    let limit = limit.and_then(|limit| i64::try_from(limit).ok());
    let request = v1::DrainRequest { limit: limit.map(|seconds| prost_types::Duration { seconds, nanos: 0 }) };
    let response: v1::DrainResponse = call.client.rpc("/lineshaft.v1.SystemService/Drain", &request).await?;
    Ok(json!({ "draining": true, "running": response.running }))
}

async fn list_pools(client: &LoopbackClient) -> Result<Vec<v1::Pool>, Status> {
    let response: v1::ListPoolsResponse =
        client.rpc("/lineshaft.v1.PoolService/ListPools", &v1::ListPoolsRequest {}).await?;
    Ok(response.pools)
}

async fn pool_metrics(
    client: &LoopbackClient,
    pools: &[v1::Pool],
    include_workers: bool,
) -> Result<Vec<v1::PoolMetrics>, Status> {
    let mut all = Vec::with_capacity(pools.len());
    for pool in pools {
        let request = v1::GetPoolMetricsRequest { name: pool.name.clone(), include_workers };
        let response: v1::GetPoolMetricsResponse =
            client.rpc("/lineshaft.v1.PoolService/GetPoolMetrics", &request).await?;
        all.extend(response.metrics);
    }
    Ok(all)
}

/// The task counts of pools together.
pub struct Totals {
    waiting: i64,
    queued: i64,
    running: i64,
    submitted: i64,
    pub completed: i64,
    pub failed: i64,
    cancelled: i64,
    retried: i64,
    since: Option<String>,
}

impl Totals {
    pub fn of(pools: &[v1::PoolMetrics]) -> Self {
        let sum = |count: fn(&v1::PoolMetrics) -> i64| pools.iter().map(count).sum();
        let since = pools.iter().filter_map(|pool| pool.counters_since.as_ref());
        Self {
            waiting: sum(|pool| pool.waiting),
            queued: sum(|pool| pool.queued),
            running: sum(|pool| pool.running),
            submitted: sum(|pool| pool.submitted),
            completed: sum(|pool| pool.completed),
            failed: sum(|pool| pool.failed),
            cancelled: sum(|pool| pool.cancelled),
            retried: sum(|pool| pool.retried),
            since: since.min_by_key(|at| (at.seconds, at.nanos)).map(ToString::to_string),
        }
    }

    pub fn pending(&self) -> i64 {
        self.waiting + self.queued
    }

    pub fn total(&self) -> i64 {
        self.pending() + self.running + self.completed + self.failed + self.cancelled
    }
}

/// Completed tasks per 100 that completed or failed, with two decimals; 100 if there are none.
#[expect(clippy::cast_precision_loss, reason = "a ratio needs at most 53 bits")]
fn success_percent(completed: i64, failed: i64) -> f64 {
    if completed + failed == 0 { 100.0 } else { (completed as f64 / (completed + failed) as f64 * 1e4).round() / 1e2 }
}

/// Workers of all pools, with the slots of remote workers.
fn worker_count(pools: &[v1::PoolMetrics]) -> i32 {
    pools.iter().map(|pool| pool.busy + pool.idle).sum()
}

fn by_priority(pools: &[v1::PoolMetrics]) -> Map<String, Value> {
    let depth = |priority: u8| pools.iter().map(|pool| queued(pool, priority)).sum::<i64>();
    (0..=3_u8).map(|number| (number.to_string(), depth(number).into())).collect()
}

fn queued(pool: &v1::PoolMetrics, priority: u8) -> i64 {
    pool.priorities.iter().filter(|depth| priority_number(depth.priority()) == priority).map(|depth| depth.queued).sum()
}

fn weight_json(weight: &v1::PoolWeight) -> Value {
    json!({ "namespace": weight.namespace, "fairness_key": weight.fairness_key, "weight": weight.weight })
}

fn pool_json(configured: Option<&v1::Pool>, metrics: &v1::PoolMetrics) -> Value {
    json!({
        "name": metrics.pool,
        "configuration": configured.map(|pool| json!({
            "kind": lower_case_name(pool.kind().as_str_name(), "POOL_KIND_"),
            "size": pool.size,
            "autoscale": pool.autoscale.map(|bounds| json!({ "min": bounds.min, "max": bounds.max })),
            "queue_limit": pool.queue_limit,
            "namespaces": pool.namespaces,
            "max_running_per_namespace": pool.max_running_per_namespace,
            "charge": lower_case_name(pool.charge().as_str_name(), "POOL_CHARGE_"),
            "max_wait_seconds": pool.max_wait.as_ref().map(seconds),
            "weights": pool.weights.iter().map(weight_json).collect::<Vec<_>>(),
            "paused": pool.paused,
            "timeout_seconds": pool.default_timeout.as_ref().map(seconds),
            "durability": lower_case_name(pool.durability().as_str_name(), "DURABILITY_"),
        })),
        "queue": {
            "queued": metrics.queued,
            "waiting": metrics.waiting,
            "by_priority": by_priority(std::slice::from_ref(metrics)),
            "oldest_wait_seconds": metrics.oldest_wait.as_ref().map(seconds),
        },
        "metrics": {
            "busy": metrics.busy,
            "idle": metrics.idle,
            "running": metrics.running,
            "utilization": metrics.utilization,
            "submitted": metrics.submitted,
            "completed": metrics.completed,
            "failed": metrics.failed,
            "cancelled": metrics.cancelled,
            "retried": metrics.retried,
            "success_rate": success_percent(metrics.completed, metrics.failed),
            "wait_seconds": metrics.wait_time.as_ref().map(percentiles_json),
            "run_seconds": metrics.run_time.as_ref().map(percentiles_json),
        },
    })
}

fn percentiles_json(times: &v1::Percentiles) -> Value {
    let [p50, p90, p99, max] = [&times.p50, &times.p90, &times.p99, &times.max].map(|time| time.as_ref().map(seconds));
    json!({ "count": times.count, "p50": p50, "p90": p90, "p99": p99, "max": max })
}

fn worker_json((id, worker): (usize, &v1::Worker)) -> Value {
    let non_empty = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    json!({
        "id": id,
        "name": worker.name,
        "pool": worker.pool,
        // A worker takes its next task from the queue of its pool.
        "queue_size": 0,
        "current_task": non_empty(&worker.current_task_id),
        "type": non_empty(&worker.current_handler),
        "completed": worker.completed,
        "failed": worker.failed,
        "total_time": worker.busy_time.as_ref().map(seconds),
        "idle_time": worker.idle_time.as_ref().map(seconds),
        "is_alive": worker.alive,
    })
}

/// The process of the server.
fn process_json(health: &v1::GetSystemHealthResponse) -> Value {
    let system = health.system.unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 bytes")]
    let [bytes, total] = [system.process_memory_bytes, system.memory_total_bytes].map(|bytes| bytes as f64);
    json!({
        "cpu_percent": system.process_cpu_percent,
        "memory_mb": bytes / f64::from(1 << 20),
        "memory_percent": if total > 0.0 { bytes / total * 100.0 } else { 0.0 },
        "num_threads": system.process_threads,
        "healthy": health.components.iter().all(|component| component.healthy),
        "components": health.components.iter().map(|component| json!({
            "name": component.name,
            "healthy": component.healthy,
            "detail": component.detail,
        })).collect::<Vec<_>>(),
    })
}

fn machine_json(health: &v1::GetSystemHealthResponse) -> Value {
    let machine = health.system.unwrap_or_default();
    json!({
        "cores": machine.cores,
        "cpu_percent": machine.cpu_percent,
        "memory_percent": machine.memory_percent,
        "memory_used_bytes": machine.memory_used_bytes,
        "memory_total_bytes": machine.memory_total_bytes,
    })
}
