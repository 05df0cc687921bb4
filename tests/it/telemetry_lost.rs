//! Unreachable collectors and invalid variables do not affect tasks.

use std::time::{Duration, Instant};

use lineshaft::proto::v1::{self, TaskState};
use tokio::net::TcpListener;

use crate::collector::{Collector, Over, REJECTED};
use crate::health_endpoints::wait_for_sample;
use crate::support::{Server, check, eventually, noop};
use crate::telemetry::{CONFIG, start_on_one_core};

/// Runs tasks with a collector at this endpoint. Returns how long the server waits for the collector after
/// everything else has stopped, and its log.
async fn under_load(endpoint: &str, protocol: &str) -> (Duration, String) {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ("OTEL_METRICS_EXPORTER", "none"),
        ("OTEL_BSP_SCHEDULE_DELAY", "10"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "64"),
    ];
    let mut server = start_on_one_core(CONFIG, &variables);
    let tasks = || v1::BatchSubmitTasksRequest { tasks: vec![noop(); 500], batch_id: String::new() };
    let mut client = server.tasks();
    let mut last = String::new();
    for _ in 0..4 {
        let submitted = client.batch_submit_tasks(tasks()).await.unwrap().into_inner();
        last.clone_from(&submitted.task_ids[499]);
    }
    server.wait_finished(&last).await;
    let filter = v1::TaskFilter { states: vec![TaskState::Completed as i32], ..v1::TaskFilter::default() };
    eventually(async || {
        let request = v1::DeleteTasksRequest { filter: Some(filter.clone()), validate_only: false };
        client.delete_tasks(request).await.unwrap();
        let left = client.list_tasks(v1::ListTasksRequest::default()).await.unwrap().into_inner().tasks;
        check(left.is_empty(), || format!("{} tasks have not completed", left.len()))
    })
    .await;
    server.signal(rustix::process::Signal::TERM);
    server.wait_logged("\"stopped\"").await;
    let stopped = Instant::now();
    assert!(server.wait_exit().success(), "{}", server.log());
    (stopped.elapsed(), server.log())
}

#[tokio::test]
async fn a_dead_or_slow_collector_costs_no_task_and_little_time_at_shutdown() {
    // Its port is closed.
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let unreachable = format!("http://{}", dead.local_addr().unwrap());
    drop(dead);
    // Accepts connections and never responds.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let slow = format!("http://{}", silent.local_addr().unwrap());
    let hold = move || silent.incoming().collect::<Vec<_>>();
    std::thread::Builder::new().name("silent".to_owned()).spawn(hold).unwrap();
    for (endpoint, protocol) in
        [(&unreachable, "grpc"), (&slow, "grpc"), (&unreachable, "http/protobuf"), (&slow, "http/protobuf")]
    {
        let (took, log) = under_load(endpoint, protocol).await;
        // The limit is three seconds; the rest is for a busy machine.
        assert!(took < Duration::from_millis(4_500), "{protocol}: {took:?}");
        assert!(log.contains("telemetry was lost") && log.contains("queue_full"), "{protocol}: {log}");
    }
}

#[test]
fn ignored_and_unsupported_variables_are_named_at_the_start() {
    let variables =
        [("OTEL_TRACES_SAMPLER", "nonsense"), ("OTEL_CONFIG_FILE", "/etc/otel.yaml"), ("OTEL_ENTITIES", "x")];
    let log = Server::start_with(CONFIG, &variables).log();
    assert!(log.contains("OTEL_TRACES_SAMPLER is ignored"), "{log}");
    assert_eq!(log.matches("have no effect: OTEL_CONFIG_FILE, OTEL_ENTITIES\"").count(), 1, "{log}");
}

async fn rejected_items_are_lost(over: Over<'_>, protocol: &str) {
    let collector = Collector::start_over(over).await;
    collector.reject(1);
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ("OTEL_BSP_SCHEDULE_DELAY", "10"),
        ("OTEL_BLRP_SCHEDULE_DELAY", "3600000"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "100"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1"),
    ];
    let mut server = Server::start_with(CONFIG, &variables);
    let failed = |signal: &str, outcome: &str| {
        format!("lineshaft_telemetry_items_total{{outcome=\"{outcome}\",signal=\"{signal}\"}}")
    };
    server.submit(noop()).await;
    // Each export is one span; 1 of 1 is rejected.
    collector.wait_for(|received| (received.spans.len() > 2).then_some(())).await;
    wait_for_sample(&server.address, &failed("traces", "exported"), "0");
    let lost =
        |found: &std::collections::HashMap<String, String>, signal: &str| found[&failed(signal, "failed")] != "0";
    crate::support::eventually_blocking(|| {
        let found = crate::health_endpoints::samples(&server.address);
        if lost(&found, "traces") && lost(&found, "metrics") { Ok(()) } else { Err(format!("{found:?}")) }
    });
    server.signal(rustix::process::Signal::TERM);
    assert!(server.wait_exit().success(), "{}", server.log());
    let log = server.log();
    let lines = log.lines().filter(|line| line.contains("the collector rejected it") && line.contains(REJECTED));
    let lines: Vec<_> = lines.collect();
    for signal in ["traces", "metrics"] {
        assert!(
            lines.iter().any(|line| line.contains(&format!("\"signal\":\"{signal}\",\"rejected\":1"))),
            "{lines:?}"
        );
    }
    assert!(!log.contains("PartialSuccess"), "the message of the library is not logged too: {log}");
}

#[tokio::test]
async fn items_that_a_collector_rejects_count_as_failed_over_grpc() {
    rejected_items_are_lost(Over::Grpc, "grpc").await;
}

#[tokio::test]
async fn items_that_a_collector_rejects_count_as_failed_over_http() {
    rejected_items_are_lost(Over::Http, "http/protobuf").await;
}
