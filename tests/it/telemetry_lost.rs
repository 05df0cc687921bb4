//! Unreachable collectors and invalid variables do not affect tasks.

use std::time::{Duration, Instant};

use lineshaft::proto::v1::{self, TaskState};
use tokio::net::TcpListener;

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
        let request = v1::DeleteTasksRequest { filter: Some(filter.clone()) };
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
