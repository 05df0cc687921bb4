//! The pages `/health`, `/health/live` and `/health/ready`, for people, load balancers and HTTP probes.
//!
//! They show what the components have published, so they respond at once even if a component hangs.

use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use tonic::body::Body;
use tonic::codegen::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use tonic::codegen::http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use crate::model::{Clock, MemoryAccount, Priority, RetryPolicy, SystemClock};
use crate::telemetry::Telemetry;
use crate::telemetry::host::HostReading;
use crate::telemetry::liveness::{Component, NotReady};
use crate::telemetry::metrics::PoolReading;

use super::metrics;

/// What the pages show. Cheap to clone.
#[derive(Clone)]
pub struct Sources {
    pub telemetry: Telemetry,
    pub host: HostReading,
    /// Identifies this run of the server.
    pub instance: String,
    pub memory: MemoryAccount,
}

/// Responds to requests for the pages of this file and for `/metrics`; `None` for other paths.
pub async fn respond(sources: &Sources, method: &Method, path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    if !matches!(path, "/health" | "/health/live" | "/health/ready" | "/metrics") {
        return None;
    }
    if method != Method::GET && method != Method::HEAD {
        let body = json!({ "error": "this path supports GET and HEAD only" });
        let mut response = page(StatusCode::METHOD_NOT_ALLOWED, &body);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(response);
    }
    Some(match path {
        "/health" => health(sources),
        "/health/live" => page(StatusCode::OK, &json!({ "status": "alive" })),
        "/health/ready" => ready(sources),
        _ => metrics::page(&sources.telemetry.metrics, &sources.memory, headers).await,
    })
}

fn ready(sources: &Sources) -> Response<Body> {
    let reasons = sources.telemetry.liveness.not_ready_reasons();
    let status = if reasons.is_empty() { "ready" } else { "not_ready" };
    page(http_status(&reasons), &json!({ "status": status, "reasons": names(&reasons) }))
}

fn health(sources: &Sources) -> Response<Body> {
    let liveness = &sources.telemetry.liveness;
    let reasons = liveness.not_ready_reasons();
    let host = (sources.host)();
    let component = |component: Component| {
        let (silence, stalls) = liveness.stall_status(component);
        let healthy = !reasons.contains(&NotReady::Stalled(component));
        LoopHealth { healthy, silence_seconds: seconds(silence), stalls }
    };
    let pools = sources.telemetry.gauges.pools.read();
    let running = pools.iter().map(|pool| pool.running).sum();
    let report = Report {
        status: if reasons.is_empty() { "healthy" } else { "unhealthy" },
        timestamp: SystemClock.now().to_string(),
        tasks_count: running + pools.iter().map(|pool| pool.waiting + pool.queued()).sum::<u64>(),
        running_tasks: running,
        thread_pool: ThreadPool {
            max_workers: pools.iter().map(|pool| pool.busy + pool.idle).sum(),
            active_threads: pools.iter().map(|pool| pool.busy).sum(),
            task_timeout: pools.first().map(|pool| pool.default_timeout.as_secs_f64()),
            max_retries: RetryPolicy::default().attempts_max - 1,
        },
        reasons: names(&reasons),
        version: env!("CARGO_PKG_VERSION"),
        instance: &sources.instance,
        uptime_seconds: seconds(liveness.uptime()),
        parts: Parts {
            store: StoreHealth { healthy: !liveness.store_refuses() },
            projection: StoreHealth { healthy: !liveness.projection_refuses() },
            scheduler: component(Component::Scheduler),
            runtime: component(Component::Runtime),
        },
        pools: pools.iter().map(PoolHealth::of).collect(),
        system: SystemHealth {
            cores: host.cores,
            cpu_percent: tenths(host.cpu_percent),
            memory_used_bytes: host.memory_used_bytes,
            memory_total_bytes: host.memory_total_bytes,
            memory_percent: tenths(host.memory_percent),
        },
        process: ProcessHealth {
            cpu_percent: tenths(host.process_cpu_percent),
            memory_bytes: host.process_memory_bytes,
            threads: host.process_threads,
            open_files: host.process_files,
        },
    };
    page(http_status(&reasons), &report)
}

/// The content of `/health`, in the order of the JSON members.
#[derive(Serialize)]
struct Report<'a> {
    status: &'static str,
    timestamp: String,
    /// Tasks that have not ended.
    tasks_count: u64,
    running_tasks: u64,
    thread_pool: ThreadPool,
    reasons: Vec<&'static str>,
    version: &'static str,
    instance: &'a str,
    uptime_seconds: f64,
    parts: Parts,
    pools: Vec<PoolHealth>,
    system: SystemHealth,
    process: ProcessHealth,
}

/// Of all pools.
#[derive(Serialize)]
struct ThreadPool {
    max_workers: usize,
    active_threads: usize,
    /// Of the first pool, in seconds.
    task_timeout: Option<f64>,
    /// Of a handler that sets none.
    max_retries: u32,
}

#[derive(Serialize)]
struct Parts {
    store: StoreHealth,
    projection: StoreHealth,
    scheduler: LoopHealth,
    runtime: LoopHealth,
}

#[derive(Serialize)]
struct StoreHealth {
    healthy: bool,
}

#[derive(Serialize)]
struct LoopHealth {
    healthy: bool,
    silence_seconds: f64,
    stalls: u64,
}

#[derive(Serialize)]
struct SystemHealth {
    cores: usize,
    cpu_percent: f64,
    memory_used_bytes: u64,
    memory_total_bytes: u64,
    memory_percent: f64,
}

#[derive(Serialize)]
struct ProcessHealth {
    cpu_percent: f64,
    memory_bytes: u64,
    threads: u64,
    open_files: u64,
}

#[derive(Serialize)]
struct PoolHealth {
    name: String,
    /// `ok`, `busy` (no idle worker and a non-empty queue), `full` (submissions are refused) or `paused`.
    status: &'static str,
    workers: Workers,
    running: u64,
    queued: u64,
    queued_by_priority: Queued,
    waiting: u64,
    queue_limit: usize,
    oldest_queued_seconds: f64,
}

#[derive(Serialize)]
struct Workers {
    size: usize,
    busy: usize,
    idle: usize,
}

#[derive(Serialize)]
struct Queued {
    critical: u64,
    high: u64,
    normal: u64,
    low: u64,
}

impl PoolHealth {
    fn of(reading: &PoolReading) -> Self {
        let queued = reading.queued();
        let status = match () {
            () if reading.paused => "paused",
            () if reading.waiting + queued >= reading.queue_limit as u64 => "full",
            () if queued > 0 && reading.idle == 0 => "busy",
            () => "ok",
        };
        let of = |priority: Priority| reading.queued[priority.index()];
        Self {
            name: reading.name.to_string(),
            status,
            workers: Workers { size: reading.size, busy: reading.busy, idle: reading.idle },
            running: reading.running,
            queued,
            queued_by_priority: Queued {
                critical: of(Priority::Critical),
                high: of(Priority::High),
                normal: of(Priority::Normal),
                low: of(Priority::Low),
            },
            waiting: reading.waiting,
            queue_limit: reading.queue_limit,
            oldest_queued_seconds: seconds(reading.oldest_age()),
        }
    }
}

fn names(reasons: &[NotReady]) -> Vec<&'static str> {
    reasons.iter().map(|reason| reason.name()).collect()
}

fn http_status(reasons: &[NotReady]) -> StatusCode {
    if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// Rounded to milliseconds.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000.0).round() / 1_000.0
}

fn tenths(percent: f64) -> f64 {
    (percent * 10.0).round() / 10.0
}

fn page(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    // Cannot fail: the content is numbers and names.
    let text = serde_json::to_string_pretty(body).unwrap_or_default();
    let mut response = Response::new(Body::new(text + "\n"));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
