//! Plain routes for the server as a whole: statistics and shutdown.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tonic::Status;

use crate::proto::v1;

use super::super::loopback::LoopbackClient;
use super::call::{Call, number};
use super::tasks::{priority_number, seconds};

const SHUTDOWN_SECONDS_MAX: u64 = 24 * 3_600;

pub async fn task_stats(call: Call) -> Result<Value, Status> {
    call.params.parse_none()?;
    let pools = list_pools(&call.client).await?;
    Ok(task_totals(&pool_metrics(&call.client, &pools, false).await?))
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
    let pools: Vec<_> = metrics.iter().map(|pool| pool_json(configured(&pool.pool), pool)).collect();
    Ok(json!({
        "server": {
            "version": server.version,
            "store": server.store,
            "uptime_seconds": server.uptime.as_ref().map(seconds),
            "revision": server.revision,
            "draining": health.draining,
        },
        "pools": pools,
        "tasks": task_totals(&metrics),
        "system": system_json(&health),
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

/// Sums the task counts of all pools.
fn task_totals(pools: &[v1::PoolMetrics]) -> Value {
    let sum = |count: fn(&v1::PoolMetrics) -> i64| pools.iter().map(count).sum::<i64>();
    let depth = |priority: u8| pools.iter().map(|pool| queued(pool, priority)).sum::<i64>();
    let (completed, failed) = (sum(|pool| pool.completed), sum(|pool| pool.failed));
    #[expect(clippy::cast_precision_loss, reason = "a ratio needs at most 53 bits")]
    let success_rate = if completed + failed > 0 { completed as f64 / (completed + failed) as f64 } else { 1.0 };
    let since = pools.iter().filter_map(|pool| pool.counters_since.as_ref());
    json!({
        "waiting": sum(|pool| pool.waiting),
        "queued": sum(|pool| pool.queued),
        "running": sum(|pool| pool.running),
        "queued_by_priority": { "0": depth(0), "1": depth(1), "2": depth(2), "3": depth(3) },
        "submitted": sum(|pool| pool.submitted),
        "completed": completed,
        "failed": failed,
        "cancelled": sum(|pool| pool.cancelled),
        "retried": sum(|pool| pool.retried),
        "success_rate": success_rate,
        "counted_since": since.min_by_key(|at| (at.seconds, at.nanos)).map(ToString::to_string),
    })
}

fn queued(pool: &v1::PoolMetrics, priority: u8) -> i64 {
    pool.priorities.iter().filter(|depth| priority_number(depth.priority()) == priority).map(|depth| depth.queued).sum()
}

fn pool_json(configured: Option<&v1::Pool>, metrics: &v1::PoolMetrics) -> Value {
    let workers: Vec<_> = metrics.workers.iter().map(worker_json).collect();
    let depths = (0..=3_u8).map(|number| (number.to_string(), queued(metrics, number).into()));
    json!({
        "name": metrics.pool,
        "configuration": configured.map(|pool| json!({
            "kind": pool.kind().as_str_name().trim_start_matches("POOL_KIND_").to_ascii_lowercase(),
            "size": pool.size,
            "queue_limit": pool.queue_limit,
            "namespaces": pool.namespaces,
            "max_running_per_namespace": pool.max_running_per_namespace,
            "paused": pool.paused,
            "timeout_seconds": pool.default_timeout.as_ref().map(seconds),
            "durability": pool.durability().as_str_name().trim_start_matches("DURABILITY_").to_ascii_lowercase(),
        })),
        "workers": workers,
        "queue": {
            "queued": metrics.queued,
            "waiting": metrics.waiting,
            "by_priority": depths.collect::<Map<_, Value>>(),
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
            "success_rate": metrics.success_rate,
            "wait_seconds": metrics.wait_time.as_ref().map(percentiles_json),
            "run_seconds": metrics.run_time.as_ref().map(percentiles_json),
        },
    })
}

fn percentiles_json(times: &v1::Percentiles) -> Value {
    let [p50, p90, p99, max] = [&times.p50, &times.p90, &times.p99, &times.max].map(|time| time.as_ref().map(seconds));
    json!({ "count": times.count, "p50": p50, "p90": p90, "p99": p99, "max": max })
}

fn worker_json(worker: &v1::Worker) -> Value {
    let non_empty = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    json!({
        "name": worker.name,
        "busy": worker.busy,
        "task": non_empty(&worker.current_task_id),
        "type": non_empty(&worker.current_handler),
        "completed": worker.completed,
        "failed": worker.failed,
        "busy_seconds": worker.busy_time.as_ref().map(seconds),
        "idle_seconds": worker.idle_time.as_ref().map(seconds),
    })
}

fn system_json(health: &v1::GetSystemHealthResponse) -> Value {
    let machine = health.system.unwrap_or_default();
    let components = health
        .components
        .iter()
        .map(|component| json!({ "name": component.name, "healthy": component.healthy, "detail": component.detail }));
    json!({
        "cores": machine.cores,
        "cpu_percent": machine.cpu_percent,
        "memory_percent": machine.memory_percent,
        "memory_used_bytes": machine.memory_used_bytes,
        "memory_total_bytes": machine.memory_total_bytes,
        "process_memory_bytes": machine.process_memory_bytes,
        "process_threads": machine.process_threads,
        "process_cpu_percent": machine.process_cpu_percent,
        "healthy": health.components.iter().all(|component| component.healthy),
        "components": components.collect::<Vec<_>>(),
    })
}
