//! Pools, health, reflection, and starting.

use std::process::Command;

use futures_util::StreamExt;
use lineshaft::proto::v1::{self, TaskState};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::support::{BINARY, Server, noop, task};

#[tokio::test]
async fn pools_are_listed_changed_and_measured() {
    let server =
        Server::start("[[pool]]\nname = \"a\"\nsize = 2\n[[pool]]\nname = \"b\"\nkind = \"async\"\nsize = 50\n");
    let pools = server.pools().list_pools(v1::ListPoolsRequest {}).await.unwrap().into_inner().pools;
    let names: Vec<_> = pools.iter().map(|pool| (pool.name.as_str(), pool.size)).collect();
    assert_eq!(names, [("a", 2), ("b", 50)]);
    let resize =
        v1::UpdatePoolRequest { name: "a".into(), size: Some(5), etag: pools[0].etag.clone(), ..Default::default() };
    let changed = server.pools().update_pool(resize).await.unwrap().into_inner().pool.unwrap();
    assert_eq!(changed.size, 5);
    assert_ne!(changed.etag, pools[0].etag);
    let workers = server.pools().list_workers(v1::ListWorkersRequest { pool: "a".into() }).await.unwrap().into_inner();
    let names: Vec<_> = workers.workers.iter().map(|worker| worker.name.as_str()).collect();
    assert_eq!(names, ["PoolWorker-0", "PoolWorker-1", "PoolWorker-2", "PoolWorker-3", "PoolWorker-4"]);

    for _ in 0..10 {
        let id = server.submit(noop()).await;
        server.ended(&id).await;
    }
    let request = v1::StreamPoolMetricsRequest { pools: vec!["a".into()], include_workers: true, ..Default::default() };
    let mut readings = server.pools().stream_pool_metrics(request).await.unwrap().into_inner();
    let reading = readings.next().await.unwrap().unwrap();
    let pool = &reading.pools[0];
    assert_eq!((pool.submitted, pool.completed, pool.attempts, pool.workers.len()), (10, 10, 10, 5));
    assert_eq!(pool.wait_time.as_ref().unwrap().count, 10);
    assert_eq!(pool.workers.iter().map(|worker| worker.completed).sum::<i64>(), 10);
    assert!(reading.system.unwrap().process_memory_bytes > 0);
    let reset = v1::ResetPoolCountersRequest { name: "a".into() };
    server.pools().reset_pool_counters(reset).await.unwrap();
    let request = v1::GetPoolMetricsRequest { name: "a".into(), include_workers: false };
    let metrics = server.pools().get_pool_metrics(request).await.unwrap().into_inner().metrics.unwrap();
    assert_eq!((metrics.submitted, metrics.completed), (0, 0));
}

#[tokio::test]
async fn a_paused_pool_starts_nothing() {
    let server = Server::start("");
    assert!(server.pause("default", true).await.paused);
    let id = server.submit(noop()).await;
    let request = v1::GetPoolMetricsRequest { name: "default".into(), include_workers: false };
    let metrics = server.pools().get_pool_metrics(request).await.unwrap().into_inner().metrics.unwrap();
    assert_eq!((metrics.queued, metrics.running, metrics.paused), (1, 0, true));
    assert_eq!(server.get(&id).await.state(), TaskState::Queued);
    server.pause("default", false).await;
    assert_eq!(server.ended(&id).await.state(), TaskState::Completed);
}

#[tokio::test]
async fn a_thousand_workers_work_at_once() {
    let server = Server::start("[[pool]]\nname = \"default\"\nsize = 1000\n");
    let tasks = vec![task("io", "1"); 1_000];
    let batch = v1::BatchSubmitTasksRequest { tasks, batch_id: String::new() };
    let ids = server.tasks().batch_submit_tasks(batch).await.unwrap().into_inner().task_ids;
    let mut workers = std::collections::HashSet::new();
    for id in ids {
        let ended = server.ended(&id).await;
        assert_eq!(ended.state(), TaskState::Completed);
        workers.insert(ended.worker);
    }
    assert!(workers.len() > 500, "{} workers took part", workers.len());
}

#[tokio::test]
async fn health_speaks_its_specification() {
    let server = Server::start("");
    let mut health = HealthClient::new(server.channel());
    let of = |service: &str| HealthCheckRequest { service: service.to_owned() };
    for service in ["", "lineshaft.v1.TaskService", "liveness", "readiness", "startup"] {
        let answer = health.check(of(service)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    assert_eq!(health.check(of("nobody")).await.unwrap_err().code(), tonic::Code::NotFound);
    let mut watch = health.watch(of("nobody")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
    let mut watch = health.watch(of("readiness")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    server.system().drain(v1::DrainRequest::default()).await.unwrap();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
}

#[tokio::test]
async fn reflection_lists_the_services_in_both_versions() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    use tonic_reflection::pb::v1alpha;
    let server = Server::start("");
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(server.channel());
    let mut answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("no list: {answer:?}") };
    assert!(list.service.iter().any(|service| service.name == "lineshaft.v1.TaskService"), "{list:?}");

    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::ListServices(String::new())),
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(server.channel());
    let mut answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().unwrap().message_response.is_some());
}

#[tokio::test]
async fn deadlines_end_streams_and_not_tasks() {
    let server = Server::start("");
    let id = server.submit(task("io", "0.6")).await;
    let mut request = tonic::Request::new(v1::WatchTasksRequest::default());
    request.set_timeout(std::time::Duration::from_millis(200));
    let mut steps = server.tasks().watch_tasks(request).await.unwrap().into_inner();
    let end = loop {
        match steps.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("ended without a word"),
            Err(status) => break status,
        }
    };
    assert!(matches!(end.code(), tonic::Code::DeadlineExceeded | tonic::Code::Cancelled), "{end:?}");
    assert_eq!(server.ended(&id).await.state(), TaskState::Completed);
}

fn serve(arguments: &[&str]) -> (Option<i32>, String) {
    #[expect(clippy::disallowed_methods, reason = "the server itself")]
    let output = Command::new(BINARY).arg("serve").args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn two_servers_cannot_have_one_directory() {
    let server = Server::start("");
    let data = server.path("data");
    let (code, said) = serve(&["--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(said.contains("in use by another server") && said.contains("lock"), "{said}");
}

#[test]
fn a_foreign_file_and_an_impossible_directory_are_named() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("journal.db"), "this is not a database, but it is long enough to be one")
        .unwrap();
    let (code, said) = serve(&["--listen", "127.0.0.1:0", "--data-dir", directory.path().to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(said.contains("journal.db"), "{said}");
    let below_a_file = directory.path().join("journal.db/sub");
    let (code, said) = serve(&["--listen", "127.0.0.1:0", "--data-dir", below_a_file.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(said.contains("journal.db/sub"), "{said}");
}

#[test]
fn a_configuration_that_cannot_be_used_is_refused_with_the_setting() {
    let (code, said) = serve(&["--listen", "0.0.0.0:0", "--memory"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("server.listen") && said.contains("insecure"), "{said}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[server]\nlissen = \"x\"\n").unwrap();
    let (code, said) = serve(&["--config", file.path().to_str().unwrap()]);
    assert_eq!(code, Some(2));
    assert!(said.contains("server.lissen"), "{said}");
}
