//! `/health`, `/health/live`, `/health/ready`: for people, load balancers and probes that speak HTTP.
//!
//! Answers are made of what the parts have published, so they come at once even when a part hangs.

use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use tonic::body::Body;
use tonic::codegen::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use tonic::codegen::http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use crate::model::{Clock, Priority, SystemClock, Timestamp};
use crate::telemetry::Telemetry;
use crate::telemetry::host::HostReading;
use crate::telemetry::liveness::{Component, NotReady};
use crate::telemetry::metrics::PoolReading;

use super::metrics;

/// What these routes look at. Cheap to clone.
#[derive(Clone)]
pub struct View {
    /// What the parts publish.
    pub telemetry: Telemetry,
    /// Reads the machine's and the process's health.
    pub host: HostReading,
    /// Identity of this run of the server.
    pub instance: String,
}

/// Answers the routes of this file and `/metrics`; `None`: the path is another's.
pub async fn answer(view: &View, method: &Method, path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    if !matches!(path, "/health" | "/health/live" | "/health/ready" | "/metrics") {
        return None;
    }
    if method != Method::GET && method != Method::HEAD {
        let body = json!({ "error": "only GET and HEAD are possible here" });
        let mut response = page(StatusCode::METHOD_NOT_ALLOWED, &body);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(response);
    }
    Some(match path {
        "/health" => health(view),
        "/health/live" => page(StatusCode::OK, &json!({ "status": "alive" })),
        "/health/ready" => ready(view),
        _ => metrics::page(&view.telemetry.metrics, headers).await,
    })
}

fn ready(view: &View) -> Response<Body> {
    let reasons = view.telemetry.liveness.not_ready_reasons();
    page(status(&reasons), &json!({ "status": word(&reasons), "reasons": names(&reasons) }))
}

fn health(view: &View) -> Response<Body> {
    let liveness = &view.telemetry.liveness;
    let reasons = liveness.not_ready_reasons();
    let host = (view.host)();
    let now = SystemClock.now();
    let part = |part: Component| {
        let (silence, stalls) = liveness.stall_status(part);
        let healthy = !reasons.contains(&NotReady::Stalled(part));
        LoopHealth { healthy, silence_seconds: seconds(silence), stalls }
    };
    let report = Report {
        status: word(&reasons),
        reasons: names(&reasons),
        version: env!("CARGO_PKG_VERSION"),
        instance: &view.instance,
        uptime_seconds: seconds(liveness.uptime()),
        parts: Parts {
            store: StoreHealth { healthy: !liveness.store_refuses() },
            projection: StoreHealth { healthy: !liveness.projection_refuses() },
            scheduler: part(Component::Scheduler),
            runtime: part(Component::Runtime),
        },
        pools: view.telemetry.gauges.pools.read().iter().map(|reading| PoolHealth::of(reading, now)).collect(),
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
    page(status(&reasons), &report)
}

/// The answer of `/health`, in the order in which it is read.
#[derive(Serialize)]
struct Report<'a> {
    status: &'static str,
    reasons: Vec<&'static str>,
    version: &'static str,
    instance: &'a str,
    uptime_seconds: f64,
    parts: Parts,
    pools: Vec<PoolHealth>,
    system: SystemHealth,
    process: ProcessHealth,
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
    /// `ok`, `busy` (all workers at work and more waits), `full` (submissions are refused), `paused`.
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
    fn of(reading: &PoolReading, now: Timestamp) -> Self {
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
            oldest_queued_seconds: seconds(reading.oldest_age(now)),
        }
    }
}

fn word(reasons: &[NotReady]) -> &'static str {
    if reasons.is_empty() { "ready" } else { "not_ready" }
}

fn names(reasons: &[NotReady]) -> Vec<&'static str> {
    reasons.iter().map(|reason| reason.name()).collect()
}

fn status(reasons: &[NotReady]) -> StatusCode {
    if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// With milliseconds.
fn seconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 1_000.0).round() / 1_000.0
}

fn tenths(percent: f64) -> f64 {
    (percent * 10.0).round() / 10.0
}

fn page(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    // Plain numbers and names: nothing in it can fail to be written.
    let text = serde_json::to_string_pretty(body).unwrap_or_default();
    let mut response = Response::new(Body::new(text + "\n"));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
