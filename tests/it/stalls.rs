//! A server in which a thread hangs: in a sync of the disk, or in a system call on a runtime thread.

use std::fs::File;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use lineshaft::proto::v1::{self, TaskState};
use rustix::process::{Pid, Signal, kill_process};
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt;

use crate::health_endpoints::{get, health_address, health_address_in, samples};
use crate::support::{BINARY, Faults, KillOnDrop, Server, TIMEOUT, check, eventually, noop, reason, seconds, task};

const CONFIG: &str = "[server]\nhealth_listen = \"127.0.0.1:0\"\nstall_limit = \"2s\"\n";
/// Makes a thread hang that reads these words from a socket; see `faults.c`.
const WORDS: &str = "let this thread hang";
const HANGING_SYNCS: &[&str] = &["sync hang *"];

/// Starts a server with two runtime threads, so that it can answer while one of them hangs.
fn start_server(faults: &Faults) -> Server {
    let variables = variables(faults);
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, &**value)).collect();
    Server::start_with(CONFIG, &variables)
}

fn variables(faults: &Faults) -> Vec<(&'static str, String)> {
    faults.variables().into_iter().chain([("TOKIO_WORKER_THREADS", "2".to_owned())]).collect()
}

/// Waits until the server is ready.
async fn wait_until_ready(address: &str) {
    eventually(async || {
        let response = get(address, "/health/ready", "");
        check(response.status == 200, || String::from_utf8_lossy(&response.body).into_owned())
    })
    .await;
}

/// Waits until the server is not ready for this reason.
async fn wait_until_not_ready(address: &str, reason: &str) {
    eventually(async || {
        let response = get(address, "/health/ready", "");
        let body = String::from_utf8_lossy(&response.body);
        check(response.status == 503 && body.contains(reason), || format!("{} {body}", response.status))
    })
    .await;
}

/// Readiness and liveness from grpc.health.v1.
async fn grpc_health(address: &str) -> [ServingStatus; 2] {
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut health = HealthClient::new(channel);
    let mut statuses = [ServingStatus::Unknown; 2];
    for (status, service) in statuses.iter_mut().zip(["readiness", "liveness"]) {
        let request = HealthCheckRequest { service: service.to_owned() };
        *status = health.check(request).await.unwrap().into_inner().status();
    }
    statuses
}

/// Number of stalls of a part.
fn stall_count(address: &str, part: &str) -> u64 {
    samples(address)[&format!("lineshaft_watchdog_stalls_total{{part=\"{part}\"}}")].parse().unwrap()
}

#[tokio::test]
async fn a_hanging_disk_makes_the_server_not_ready_until_it_responds() {
    let faults = Faults::new();
    let server = start_server(&faults);
    let probes = health_address(&server);
    wait_until_ready(&probes).await;
    let before = stall_count(&probes, "scheduler");
    faults.set(HANGING_SYNCS);
    let mut client = server.tasks();
    let waiting = tokio::spawn(async move { client.submit_task(noop()).await });
    wait_until_not_ready(&probes, "scheduler_stalled").await;
    assert_eq!(get(&probes, "/health/live", "").status, 200, "a restart would not help");
    assert_eq!(grpc_health(&probes).await, [ServingStatus::NotServing, ServingStatus::Serving]);
    assert_eq!(stall_count(&probes, "scheduler"), before + 1);
    let mut system = server.system();
    let health = tokio::time::timeout(TIMEOUT, system.get_system_health(v1::GetSystemHealthRequest {}));
    let parts = health.await.expect("the call is answered while the loop hangs").unwrap().into_inner().components;
    let scheduler = parts.iter().find(|part| part.name == "scheduler").unwrap();
    assert!(!scheduler.healthy && scheduler.detail.contains("has not made progress"), "{parts:?}");
    assert!(!waiting.is_finished(), "the submission is not acknowledged before it is durable");
    faults.clear();
    let id = waiting.await.unwrap().unwrap().into_inner().task_id;
    wait_until_ready(&probes).await;
    assert_eq!(server.wait_finished(&id).await.state(), TaskState::Completed);
    let log = server.log();
    assert!(log.contains("has stalled") && log.contains("makes progress again"), "{log}");
}

#[tokio::test]
async fn metrics_are_served_while_the_file_system_hangs() {
    let faults = Faults::new();
    let server = start_server(&faults);
    let probes = health_address(&server);
    wait_until_ready(&probes).await;
    let size = "lineshaft_store_size_bytes{file=\"journal\"}";
    assert!(samples(&probes)[size].parse::<u64>().unwrap() > 0);
    faults.set(&["list hang *"]);
    // The client gives up after a time-out.
    for _ in 0..3 {
        assert!(samples(&probes).contains_key("lineshaft_watchdog_stalls_total{part=\"scheduler\"}"));
    }
    faults.clear();
}

/// The error of a call that must not wait for the disk.
async fn refusal<T>(call: impl Future<Output = Result<T, Status>>) -> Status {
    tokio::time::timeout(TIMEOUT, call)
        .await
        .expect("the call is answered while the disk hangs")
        .err()
        .expect("refused")
}

/// The error names the part and the duration of its silence, where to look, and when to retry.
fn assert_scheduler_stalled(status: &Status) {
    assert_eq!((status.code(), reason(status)), (Code::Unavailable, "SCHEDULER_STALLED".to_owned()), "{status:?}");
    let details = status.get_error_details();
    let metadata = &details.error_info().unwrap().metadata;
    assert_eq!(metadata["part"], "scheduler");
    assert!(metadata["silent_seconds"].parse::<u64>().unwrap() >= 2, "{status:?}");
    assert!(details.retry_info().unwrap().retry_delay.is_some());
    assert!(status.message().contains("system health"), "{status:?}");
}

#[tokio::test]
async fn while_the_disk_hangs_queries_are_refused_and_a_drain_starts_later() {
    let faults = Faults::new();
    let mut server = start_server(&faults);
    let probes = health_address(&server);
    let running = server.submit(task("io", "3600")).await;
    server.wait_for_state(&running, TaskState::Running).await;
    faults.set(HANGING_SYNCS);
    let mut client = server.tasks();
    let waiting = tokio::spawn(async move { client.submit_task(noop()).await });
    wait_until_not_ready(&probes, "scheduler_stalled").await;
    let (mut pools, mut tasks) = (server.pools(), server.tasks());
    let name = "default".to_owned();
    let metrics = v1::GetPoolMetricsRequest { name: name.clone(), include_workers: true };
    let read = v1::ReadOutputRequest { task_id: running.clone(), ..Default::default() };
    let refusals = [
        refusal(pools.get_pool_metrics(metrics)).await,
        refusal(pools.stream_pool_metrics(v1::StreamPoolMetricsRequest::default())).await,
        refusal(pools.list_pools(v1::ListPoolsRequest {})).await,
        refusal(pools.get_pool(v1::GetPoolRequest { name: name.clone() })).await,
        refusal(pools.list_workers(v1::ListWorkersRequest { pool: name, ..Default::default() })).await,
        refusal(async { tasks.read_output(read).await?.into_inner().message().await }).await,
        refusal(server.system().drain(v1::DrainRequest { limit: seconds(0) })).await,
    ];
    refusals.iter().for_each(assert_scheduler_stalled);
    assert!(refusals[6].message().contains("once the scheduler responds again"), "{:?}", refusals[6]);
    let page = get(&server.address, "/api/stats", "");
    assert_eq!((page.status, String::from_utf8_lossy(&page.body).contains("SCHEDULER_STALLED")), (503, true));
    assert_eq!(server.get(&running).await.state(), TaskState::Running, "durable state can be read");
    assert!(!waiting.is_finished(), "a submission waits as long as its caller");
    faults.clear();
    waiting.await.unwrap().expect("the submission came before the drain");
    assert!(server.wait_exit().success(), "{}", server.log());
}

#[tokio::test]
async fn a_blocked_runtime_thread_makes_the_server_not_ready_but_tasks_run() {
    let faults = Faults::new();
    let server = start_server(&faults);
    let probes = health_address(&server);
    wait_until_ready(&probes).await;
    faults.set(&["recv hang *"]);
    let mut stream = TcpStream::connect(&server.address).unwrap();
    write!(stream, "GET /health/live HTTP/1.1\r\nhost: localhost\r\nx-words: {WORDS}\r\n\r\n").unwrap();
    wait_until_not_ready(&probes, "runtime_stalled").await;
    assert_eq!(get(&probes, "/health/live", "").status, 200);
    assert_eq!(grpc_health(&probes).await, [ServingStatus::NotServing, ServingStatus::Serving]);
    assert!(stall_count(&probes, "runtime") >= 1);
    let id = server.submit(noop()).await;
    assert_eq!(server.wait_finished(&id).await.state(), TaskState::Completed);
    faults.clear();
    wait_until_ready(&probes).await;
}

#[tokio::test]
async fn a_recovering_server_is_live_but_not_ready() {
    let faults = Faults::new();
    faults.set(HANGING_SYNCS);
    let (config, log_path) = (faults.path("config.toml"), faults.path("log"));
    std::fs::write(&config, CONFIG).unwrap();
    #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
    let child = Command::new(BINARY)
        .args(["serve", "--listen", "127.0.0.1:0"])
        .args([Path::new("--data-dir"), &faults.path("data"), Path::new("--config"), &config])
        .envs(variables(&faults))
        .stdout(File::create(&log_path).unwrap())
        .spawn()
        .unwrap();
    let mut server = KillOnDrop(child);
    let log = || std::fs::read_to_string(&log_path).unwrap();
    eventually(async || check(log().contains("health endpoint listening"), log)).await;
    let probes = health_address_in(&log());
    wait_until_not_ready(&probes, "recovering").await;
    assert_eq!(get(&probes, "/health/live", "").status, 200);
    assert_eq!(grpc_health(&probes).await, [ServingStatus::NotServing, ServingStatus::Serving]);
    assert!(!log().contains("\"serving\""), "{}", log());
    faults.clear();
    wait_until_ready(&probes).await;
    kill_process(Pid::from_child(&server.0), Signal::TERM).unwrap();
    assert!(server.0.wait().unwrap().success(), "{}", log());
}
