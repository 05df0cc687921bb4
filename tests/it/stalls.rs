//! Parts of the real server that hang: a disk that does not answer, a call that blocks a thread of the runtime.

use std::fs::File;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use lineshaft::proto::v1::{self, TaskState};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt;

use crate::health_endpoints::{get, probes, samples};
use crate::support::{BINARY, KillOnDrop, Server, TIMEOUT, noop, reason, run, seconds, task};

const CONFIG: &str = "[server]\nhealth_listen = \"127.0.0.1:0\"\nstall_limit = \"2s\"\n";
/// What makes a thread hang that reads it.
const WORDS: &str = "let this thread hang";

/// Makes calls of a server hang as long as files are there.
struct Hanging {
    directory: TempDir,
}

impl Hanging {
    /// Compiles what is put between the server and the C library.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (source, library) = (directory.path().join("hang.c"), directory.path().join("hang.so"));
        std::fs::write(&source, include_str!("hang.c")).unwrap();
        let arguments = ["-shared", "-fPIC", "-Wall", "-Werror", "-O1", "-o"];
        let (source, library) = (source.to_str().unwrap(), library.to_str().unwrap());
        let (compiled, said) = run("cc", arguments.into_iter().chain([library, source, "-ldl"]));
        assert!(compiled, "this test needs a C compiler: {said}");
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A server with threads enough to answer while one of them hangs.
    fn serve(&self) -> Server {
        let variables = self.variables();
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, &**value)).collect();
        Server::start_with(CONFIG, &variables)
    }

    fn variables(&self) -> [(&'static str, String); 4] {
        let path = |name: &str| self.path(name).display().to_string();
        [
            ("LD_PRELOAD", path("hang.so")),
            ("HANG_SYNCS", path("syncs")),
            ("HANG_READS", path("reads")),
            ("TOKIO_WORKER_THREADS", "2".to_owned()),
        ]
    }

    fn begin(&self, what: &str) {
        std::fs::write(self.path(what), "").unwrap();
    }

    fn end(&self, what: &str) {
        std::fs::remove_file(self.path(what)).unwrap();
    }
}

/// Waits until the server is ready, or is not for this reason.
async fn until(probes: &str, reason: Option<&str>) {
    let end = Instant::now() + TIMEOUT;
    loop {
        let answer = get(probes, "/health/ready", "");
        let said = String::from_utf8_lossy(&answer.body).into_owned();
        match reason {
            None if answer.status == 200 => return,
            Some(reason) if answer.status == 503 && said.contains(reason) => return,
            _ => {}
        }
        assert!(Instant::now() < end, "never {reason:?}: {} {said}", answer.status);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What grpc.health.v1 says about readiness and liveness.
async fn asked_over_grpc(probes: &str) -> [ServingStatus; 2] {
    let channel = Endpoint::from_shared(format!("http://{probes}")).unwrap().connect().await.unwrap();
    let mut health = HealthClient::new(channel);
    let mut found = [ServingStatus::Unknown; 2];
    for (place, service) in found.iter_mut().zip(["readiness", "liveness"]) {
        let request = HealthCheckRequest { service: service.to_owned() };
        *place = health.check(request).await.unwrap().into_inner().status();
    }
    found
}

/// How often a part has stalled.
fn stalls(probes: &str, part: &str) -> u64 {
    samples(probes)[&format!("lineshaft_watchdog_stalls_total{{part=\"{part}\"}}")].parse().unwrap()
}

#[tokio::test]
async fn a_disk_that_hangs_ends_readiness_until_it_answers_and_nothing_is_lost() {
    let hanging = Hanging::new();
    let server = hanging.serve();
    let probes = probes(&server);
    until(&probes, None).await;
    let before = stalls(&probes, "scheduler");
    hanging.begin("syncs");
    let mut client = server.tasks();
    // Answered when it is durable, and not before.
    let waiting = tokio::spawn(async move { client.submit_task(noop()).await });
    until(&probes, Some("scheduler_stalled")).await;
    assert_eq!(get(&probes, "/health/live", "").status, 200, "a restart would not help");
    assert_eq!(asked_over_grpc(&probes).await, [ServingStatus::NotServing, ServingStatus::Serving]);
    assert_eq!(stalls(&probes, "scheduler"), before + 1);
    let mut system = server.system();
    let asked = tokio::time::timeout(TIMEOUT, system.get_system_health(v1::GetSystemHealthRequest {}));
    let parts = asked.await.expect("it answers although the loop hangs").unwrap().into_inner().components;
    let scheduler = parts.iter().find(|part| part.name == "scheduler").unwrap();
    assert!(!scheduler.healthy && scheduler.detail.contains("has not made progress"), "{parts:?}");
    assert!(!waiting.is_finished(), "nothing is acknowledged that is not on the disk");
    hanging.end("syncs");
    let id = waiting.await.unwrap().unwrap().into_inner().task_id;
    until(&probes, None).await;
    assert_eq!(server.ended(&id).await.state(), TaskState::Completed);
    let log = server.log();
    assert!(log.contains("has stalled") && log.contains("makes progress again"), "{log}");
}

/// What a call is refused with that must not wait for a disk.
async fn refusal<T>(call: impl Future<Output = Result<T, Status>>) -> Status {
    tokio::time::timeout(TIMEOUT, call).await.expect("it is answered although the disk hangs").err().expect("refused")
}

/// It says what hangs, since when, where to look, and when to come back.
fn assert_tells_that_the_scheduler_hangs(status: &Status) {
    assert_eq!((status.code(), reason(status)), (Code::Unavailable, "SCHEDULER_STALLED".to_owned()), "{status:?}");
    let details = status.get_error_details();
    let metadata = &details.error_info().unwrap().metadata;
    assert_eq!(metadata["part"], "scheduler");
    assert!(metadata["silent_seconds"].parse::<u64>().unwrap() >= 2, "{status:?}");
    assert!(details.retry_info().unwrap().retry_delay.is_some());
    assert!(status.message().contains("system health"), "{status:?}");
}

#[tokio::test]
async fn while_the_disk_hangs_questions_are_refused_and_a_drain_begins_afterwards() {
    let hanging = Hanging::new();
    let mut server = hanging.serve();
    let probes = probes(&server);
    let running = server.submit(task("io", "3600")).await;
    server.until(&running, TaskState::Running).await;
    hanging.begin("syncs");
    let mut client = server.tasks();
    let waiting = tokio::spawn(async move { client.submit_task(noop()).await });
    until(&probes, Some("scheduler_stalled")).await;
    let (mut pools, mut tasks) = (server.pools(), server.tasks());
    let name = "default".to_owned();
    let asked = v1::GetPoolMetricsRequest { name: name.clone(), include_workers: true };
    let read = v1::ReadOutputRequest { task_id: running.clone(), ..Default::default() };
    let refusals = [
        refusal(pools.get_pool_metrics(asked)).await,
        refusal(pools.stream_pool_metrics(v1::StreamPoolMetricsRequest::default())).await,
        refusal(pools.list_pools(v1::ListPoolsRequest {})).await,
        refusal(pools.get_pool(v1::GetPoolRequest { name: name.clone() })).await,
        refusal(pools.list_workers(v1::ListWorkersRequest { pool: name })).await,
        refusal(async { tasks.read_output(read).await?.into_inner().message().await }).await,
        refusal(server.system().drain(v1::DrainRequest { limit: seconds(0) })).await,
    ];
    refusals.iter().for_each(assert_tells_that_the_scheduler_hangs);
    assert!(refusals[6].message().contains("once the scheduler responds again"), "{:?}", refusals[6]);
    let page = get(&server.address, "/api/stats", "");
    assert_eq!((page.status, String::from_utf8_lossy(&page.body).contains("SCHEDULER_STALLED")), (503, true));
    assert_eq!(server.get(&running).await.state(), TaskState::Running, "what is durable is known");
    assert!(!waiting.is_finished(), "a change waits as long as its caller");
    hanging.end("syncs");
    waiting.await.unwrap().expect("it was asked for before the drain");
    assert!(server.wait_exit().success(), "{}", server.log());
}

#[tokio::test]
async fn a_blocked_thread_of_the_runtime_ends_readiness_until_it_gets_on_and_others_work() {
    let hanging = Hanging::new();
    let server = hanging.serve();
    let probes = probes(&server);
    until(&probes, None).await;
    hanging.begin("reads");
    let mut stream = TcpStream::connect(&server.address).unwrap();
    write!(stream, "GET /health/live HTTP/1.1\r\nhost: localhost\r\nx-please: {WORDS}\r\n\r\n").unwrap();
    until(&probes, Some("runtime_stalled")).await;
    assert_eq!(get(&probes, "/health/live", "").status, 200);
    assert_eq!(asked_over_grpc(&probes).await, [ServingStatus::NotServing, ServingStatus::Serving]);
    assert!(stalls(&probes, "runtime") >= 1);
    let id = server.submit(noop()).await;
    assert_eq!(server.ended(&id).await.state(), TaskState::Completed);
    hanging.end("reads");
    until(&probes, None).await;
}

#[tokio::test]
async fn a_server_that_reads_its_store_lives_and_is_not_ready_before_it_has_read_it() {
    let hanging = Hanging::new();
    hanging.begin("syncs");
    let (config, log) = (hanging.path("config.toml"), hanging.path("log"));
    std::fs::write(&config, CONFIG).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the server itself")]
    let child = Command::new(BINARY)
        .args(["serve", "--listen", "127.0.0.1:0"])
        .args([Path::new("--data-dir"), &hanging.path("data"), Path::new("--config"), &config])
        .envs(hanging.variables())
        .stdout(File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut server = KillOnDrop(child);
    let said = || std::fs::read_to_string(&log).unwrap();
    let end = Instant::now() + TIMEOUT;
    while !said().contains("health endpoint listening") {
        assert!(Instant::now() < end, "nobody answers probes: {}", said());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let probes = crate::health_endpoints::probes_of(&said());
    until(&probes, Some("recovering")).await;
    assert_eq!(get(&probes, "/health/live", "").status, 200);
    assert_eq!(asked_over_grpc(&probes).await, [ServingStatus::NotServing, ServingStatus::Serving]);
    assert!(!said().contains("\"serving\""), "{}", said());
    hanging.end("syncs");
    until(&probes, None).await;
    kill_process(Pid::from_child(&server.0), Signal::TERM).unwrap();
    assert!(server.0.wait().unwrap().success(), "{}", said());
}
