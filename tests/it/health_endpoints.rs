//! Health endpoints and metrics, on the main port and on the health port.

use std::collections::HashMap;
use std::time::Duration;

use lineshaft::proto::v1::{self, TaskState};
use rustix::process::Signal;
use serde_json::json;
use tonic::transport::Endpoint;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::collector::Collector;
use crate::http1_client::{Connection, Response};
use crate::support::{Server, check, eventually_blocking, noop, task};

const CONFIG: &str = r#"
[server]
health_listen = "127.0.0.1:0"
stall_limit = "2s"

[[pool]]
name = "default"
size = 2

[[handler]]
name = "fails"
runner = "process"
argv = ["/bin/false"]
retry = { attempts = 2, delay = "10ms" }
"#;

/// The address of the health port, from the log of the server.
pub fn health_address(server: &Server) -> String {
    health_address_in(&server.log())
}

/// The address of the health port, from a log.
pub fn health_address_in(log: &str) -> String {
    let line = log
        .lines()
        .find(|line| line.contains("health endpoint listening"))
        .expect("the log has the address of the health port");
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    line["address"].as_str().unwrap().to_owned()
}

pub fn get(address: &str, path: &str, headers: &str) -> Response {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
    Connection::open_at(address).send(request.as_bytes())
}

/// Name and labels of each sample, and its value.
pub fn samples(address: &str) -> HashMap<String, String> {
    let response = get(address, "/metrics", "");
    assert_eq!((response.status, response.header("content-type")), (200, "text/plain; version=0.0.4; charset=utf-8"));
    let text = String::from_utf8(response.body).unwrap();
    let sample = |line: &str| line.rsplit_once(' ').map(|(name, value)| (name.to_owned(), value.to_owned()));
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
}

/// Waits until a sample has the value.
pub fn wait_for_sample(address: &str, name: &str, value: &str) -> HashMap<String, String> {
    eventually_blocking(|| {
        let found = samples(address);
        match found.get(name) {
            Some(current) if current == value => Ok(found),
            current => Err(format!("{name} is {current:?} instead of {value}")),
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_on_both_ports_count_the_tasks_and_calls() {
    let server = Server::start(CONFIG);
    for _ in 0..3 {
        let id = server.submit(noop()).await;
        server.wait_finished(&id).await;
    }
    let failed = server.submit(v1::SubmitTaskRequest { handler: "fails".to_owned(), ..Default::default() }).await;
    assert_eq!(server.wait_finished(&failed).await.state(), TaskState::Failed);
    let name =
        r#"lineshaft_task_finished_total{error_type="HANDLER_ERROR",handler="fails",pool="default",result="failed"}"#;
    for address in [server.address.clone(), health_address(&server)] {
        let found = wait_for_sample(&address, name, "1");
        let is = |name: &str| found.get(name).unwrap_or_else(|| panic!("no sample {name}"));
        let of_compute = r#"{handler="compute",pool="default",result="completed"}"#;
        assert_eq!(is(&format!("lineshaft_task_finished_total{of_compute}")), "3");
        assert_eq!(is(&format!("lineshaft_task_duration_seconds_count{of_compute}")), "3");
        let retried = r#"lineshaft_task_retried_total{error_type="HANDLER_ERROR",handler="fails",pool="default"}"#;
        assert_eq!(is(retried), "1");
        assert_eq!(is(r#"lineshaft_task_wait_duration_seconds_count{pool="default",priority="normal"}"#), "5");
        assert_eq!(is(r#"lineshaft_pool_worker_limit{pool="default"}"#), "2");
        assert_eq!(is(r#"lineshaft_namespace_task_submitted_total{namespace="default"}"#), "4");
        let calls = r#"{rpc_method="lineshaft.v1.TaskService/SubmitTask",rpc_status_code="OK",rpc_system_name="grpc"}"#;
        assert_eq!(is(&format!("rpc_server_call_duration_seconds_count{calls}")), "4");
        let amount = |name: &str| is(name).parse::<f64>().unwrap();
        assert!(amount("lineshaft_store_commit_duration_seconds_count") >= 4.0);
        assert!(amount(r#"lineshaft_store_size_bytes{file="journal"}"#) > 0.0);
        assert!(amount("process_memory_usage_bytes") > 1e6);
        assert_eq!(is("lineshaft_server_ready"), "1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn call_duration_exemplars_name_the_trace_of_the_caller() {
    let server = Server::start("");
    let mut request = tonic::Request::new(noop());
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    server.tasks().submit_task(request).await.unwrap();
    let response = get(&server.address, "/metrics", "accept: application/openmetrics-text;version=1.0.0\r\n");
    assert_eq!(response.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = String::from_utf8(response.body).unwrap();
    let exemplars: Vec<_> = text.lines().filter(|line| line.contains("4bf92f3577b34da6a3ce929d0e0e4736")).collect();
    assert!(exemplars.iter().any(|line| line.contains("SubmitTask")), "{exemplars:?}");
    assert!(text.ends_with("# EOF\n"));
}

/// Waits for an exemplar of a series with the trace; returns its span ID.
fn exemplar(address: &str, series: &str, trace: &str) -> String {
    eventually_blocking(|| {
        let response = get(address, "/metrics", "accept: application/openmetrics-text;version=1.0.0\r\n");
        let text = String::from_utf8(response.body).unwrap();
        let of_series = |line: &&str| line.starts_with(series) && line.contains("_bucket{");
        let found = text.lines().filter(of_series).find_map(|line| {
            let (bucket, exemplar) = line.split_once(" # {")?;
            let bound: f64 = bucket.split("le=\"").nth(1)?.split('"').next()?.parse().unwrap();
            let (labels, value) = exemplar.split_once("} ")?;
            let value: f64 = value.split(' ').next()?.parse().unwrap();
            assert!(value <= bound, "{line}");
            let span = labels.strip_prefix(&format!("trace_id=\"{trace}\",span_id=\""))?;
            Some(span.trim_end_matches('"').to_owned())
        });
        found.ok_or_else(|| format!("{series} has no exemplar of {trace}: {text}"))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn task_duration_exemplars_name_the_trace_of_the_task() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const CALLER: &str = "00f067aa0ba902b7";
    let submit = async |server: &Server, flags: &str| {
        let mut request = tonic::Request::new(noop());
        request.metadata_mut().insert("traceparent", format!("00-{TRACE}-{CALLER}-{flags}").parse().unwrap());
        let id = server.tasks().submit_task(request).await.unwrap().into_inner().task_id;
        server.wait_finished(&id).await;
    };
    let series = ["lineshaft_task_wait_duration_seconds", "lineshaft_task_duration_seconds"];
    // Without an exporter the only span is that of the caller.
    let server = Server::start("");
    submit(&server, "00").await;
    let text = get(&server.address, "/metrics", "accept: application/openmetrics-text\r\n").body;
    assert!(!String::from_utf8(text).unwrap().contains(TRACE), "the trace is not sampled");
    submit(&server, "01").await;
    for series in series {
        assert_eq!(exemplar(&server.address, series, TRACE), CALLER);
    }
    // With an exporter the exemplar names the span of the attempt.
    let collector = Collector::start().await;
    let exported =
        [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &*collector.endpoint), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
    let server = Server::start_with("", &exported);
    submit(&server, "01").await;
    for series in series {
        let span = exemplar(&server.address, series, TRACE);
        assert!(span.len() == 16 && span != CALLER, "{span}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_readiness_but_not_liveness() {
    let mut server = Server::start(CONFIG);
    let probes = health_address(&server);
    for _ in 0..3 {
        server.submit(task("io", "600")).await;
    }
    wait_for_sample(&probes, r#"lineshaft_task_active{pool="default",state="running"}"#, "2");
    for address in [&server.address, &probes] {
        let response = get(address, "/health", "");
        assert_eq!((response.status, response.header("content-type")), (200, "application/json"));
        let health = response.json();
        assert_eq!((health["status"].as_str(), health["reasons"].as_array().map(Vec::len)), (Some("healthy"), Some(0)));
        assert_eq!((&health["tasks_count"], &health["running_tasks"]), (&json!(3), &json!(2)));
        let pools = json!({"max_workers": 2, "active_threads": 2, "task_timeout": 300.0, "max_retries": 2});
        assert_eq!(health["thread_pool"], pools);
        let pool = &health["pools"][0];
        assert_eq!((pool["name"].as_str(), pool["status"].as_str()), (Some("default"), Some("busy")));
        assert_eq!((pool["running"].as_u64(), pool["queued_by_priority"]["normal"].as_u64()), (Some(2), Some(1)));
        assert_eq!(pool["workers"], json!({"size": 2, "busy": 2, "idle": 0}));
        assert_eq!(get(address, "/health/ready", "").status, 200);
        assert_eq!(get(address, "/health/live", "").status, 200);
    }
    server.system().drain(v1::DrainRequest { limit: crate::support::seconds(600) }).await.unwrap();
    eventually_blocking(|| {
        let status = get(&probes, "/health/ready", "").status;
        check(status == 503, || format!("the draining server reports {status}"))
    });
    let health = get(&server.address, "/health", "");
    assert_eq!(health.status, 503);
    assert_eq!(health.json()["reasons"], json!(["draining"]));
    assert_eq!(get(&probes, "/health/live", "").status, 200, "tasks are still running");
    server.signal(Signal::TERM);
    server.signal(Signal::TERM);
    assert!(server.wait_exit().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_port_serves_grpc_health_and_no_other_service() {
    let server = Server::start(CONFIG);
    let probes = health_address(&server);
    let channel = Endpoint::from_shared(format!("http://{probes}")).unwrap().connect().await.unwrap();
    let mut health = HealthClient::new(channel.clone());
    for service in ["", "liveness", "readiness", "startup"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let status = health.check(request).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service}");
    }
    let mut tasks = v1::task_service_client::TaskServiceClient::new(channel);
    assert_eq!(tasks.submit_task(noop()).await.unwrap_err().code(), tonic::Code::Unimplemented);
    assert_eq!(get(&probes, "/api/stats", "").status, 404);
    let post = b"POST /metrics HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(Connection::open_at(&probes).send(post).status, 405);
}

#[test]
fn a_disabled_sdk_disables_metrics_but_not_health() {
    let server = Server::start_with(CONFIG, &[("OTEL_SDK_DISABLED", "true")]);
    assert_eq!(get(&server.address, "/metrics", "").status, 503);
    let health = get(&server.address, "/health", "");
    assert_eq!((health.status, health.json()["pools"][0]["name"].as_str()), (200, Some("default")));
}

#[test]
fn a_suspended_process_is_not_reported_as_stalled() {
    let server = Server::start(CONFIG);
    let probes = health_address(&server);
    server.signal(Signal::STOP);
    // Longer than `stall_limit`, whose minimum is two seconds, plus the interval of the watchdog.
    std::thread::sleep(Duration::from_millis(2_500));
    server.signal(Signal::CONT);
    // Each check of the watchdog updates the time without progress. Three changes show that it has checked the
    // components since then.
    let (mut last, mut changes) = (String::new(), 0);
    eventually_blocking(|| {
        assert_eq!(get(&probes, "/health/ready", "").status, 200);
        let silence = samples(&probes)["lineshaft_watchdog_silence_seconds{part=\"scheduler\"}"].clone();
        if silence != last {
            (last, changes) = (silence, changes + 1);
        }
        check(changes > 3, || format!("the watchdog does not check: {last}"))
    });
    let found = samples(&probes);
    for part in ["scheduler", "runtime"] {
        assert_eq!(found[&format!("lineshaft_watchdog_stalls_total{{part=\"{part}\"}}")], "0", "{part}");
    }
}

#[tokio::test]
async fn health_service_follows_its_specification() {
    let server = Server::start("");
    let mut health = HealthClient::new(server.channel());
    let of = |service: &str| HealthCheckRequest { service: service.to_owned() };
    for service in ["", "lineshaft.v1.TaskService", "liveness", "readiness", "startup"] {
        let response = health.check(of(service)).await.unwrap().into_inner();
        assert_eq!(response.status(), ServingStatus::Serving, "{service:?}");
    }
    assert_eq!(health.check(of("unknown")).await.unwrap_err().code(), tonic::Code::NotFound);
    let mut watch = health.watch(of("unknown")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
    let mut watch = health.watch(of("readiness")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    server.system().drain(v1::DrainRequest::default()).await.unwrap();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
}
