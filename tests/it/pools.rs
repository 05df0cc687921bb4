//! Changing pools while they run tasks.

use futures_util::StreamExt;
use lineshaft::proto::v1::{self, TaskState};

use crate::http1_client::Connection;
use crate::support::{Server, TIMEOUT, check, eventually, fields, millis, noop, reason, task};

async fn resize(server: &Server, size: i32) {
    let update = v1::UpdatePoolRequest { name: "default".into(), size: Some(size), ..Default::default() };
    server.pools().update_pool(update).await.unwrap();
}

async fn metrics(server: &Server) -> v1::PoolMetrics {
    let request = v1::GetPoolMetricsRequest { name: "default".into(), include_workers: true };
    server.pools().get_pool_metrics(request).await.unwrap().into_inner().metrics.unwrap()
}

#[tokio::test]
async fn no_task_is_lost_while_a_pool_is_resized_and_paused() {
    for kind in ["threads", "async"] {
        let handler = "[[handler]]\nname = \"wait\"\nrunner = \"builtin\"\nbuiltin = \"io\"\npool = \"default\"\n";
        let other = "[[pool]]\nname = \"first\"\n[[pool]]\nname = \"default\"\nsize = 4\n";
        let server = Server::start(&format!("{other}kind = \"{kind}\"\n{handler}"));
        let batch = v1::BatchSubmitTasksRequest { tasks: vec![task("wait", "0.002"); 3_000], batch_id: String::new() };
        let ids = server.tasks().batch_submit_tasks(batch).await.unwrap().into_inner().task_ids;
        for size in [1, 200, 3, 1_000, 1, 64] {
            resize(&server, size).await;
            server.set_paused("default", true).await;
            server.set_paused("default", false).await;
        }
        for id in &ids {
            let ended = server.wait_finished(id).await;
            assert_eq!((ended.state(), ended.attempt), (TaskState::Completed, 1), "{kind}");
        }
        let now = metrics(&server).await;
        assert_eq!((now.completed, now.attempts, now.queued, now.running), (3_000, 3_000, 0, 0), "{kind}");
        assert_eq!(now.size, 64);
    }
}

#[tokio::test]
async fn a_pool_that_autoscales_shows_its_bounds_and_its_size_cannot_be_set() {
    let server = Server::start("[[pool]]\nname = \"default\"\nautoscale = { min = 3, max = 8 }\n");
    let pool = server.pools().list_pools(v1::ListPoolsRequest {}).await.unwrap().into_inner().pools.remove(0);
    assert_eq!((pool.size, pool.autoscale), (3, Some(v1::PoolAutoscale { min: 3, max: 8 })));
    let update = v1::UpdatePoolRequest { name: "default".into(), size: Some(5), ..Default::default() };
    let refused = server.pools().update_pool(update).await.unwrap_err();
    assert_eq!((&*reason(&refused), fields(&refused)), ("INVALID_FIELD", vec!["size".to_owned()]));
    server.set_paused("default", true).await;
    server.set_paused("default", false).await;
    // As many as there are workers at least; how many more depends on the use of the CPU.
    for _ in 0..9 {
        server.submit(task("io", "600")).await;
    }
    eventually(async || {
        let now = metrics(&server).await;
        check((3..=8).contains(&now.running) && now.running <= now.size.into(), || format!("{now:?}"))
    })
    .await;
    let response = Connection::open(&server).send(b"GET /api/stats HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let stats: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(stats["pools"][0]["configuration"]["autoscale"], serde_json::json!({ "min": 3, "max": 8 }));
}

#[tokio::test]
async fn a_removed_worker_finishes_its_task() {
    let server = Server::start("[[pool]]\nname = \"default\"\nsize = 6\n");
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(server.submit(task("io", "0.5")).await);
    }
    for id in &ids {
        server.wait_started(id).await;
    }
    resize(&server, 1).await;
    for id in &ids {
        assert_eq!(server.wait_finished(id).await.state(), TaskState::Completed);
    }
    eventually(async || {
        let workers = metrics(&server).await.workers;
        check(workers.len() == 1, || format!("{workers:?}"))
    })
    .await;
    let id = server.submit(noop()).await;
    assert_eq!(server.wait_finished(&id).await.state(), TaskState::Completed);
}

#[tokio::test]
async fn a_paused_pool_starts_no_attempts() {
    let server = Server::start("[[pool]]\nname = \"default\"\nsize = 4\n");
    let batch = v1::BatchSubmitTasksRequest { tasks: vec![task("io", "0.001"); 2_000], batch_id: String::new() };
    server.tasks().batch_submit_tasks(batch).await.unwrap();
    for _ in 0..20 {
        server.set_paused("default", true).await;
        // Attempts that had started before the pause still end.
        eventually(async || {
            let running = metrics(&server).await.running;
            check(running == 0, || format!("{running} tasks are running"))
        })
        .await;
        // No attempt may start while time passes; 20 ms are enough for twenty attempts.
        let before = metrics(&server).await.attempts;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let after = metrics(&server).await;
        assert!(after.paused);
        assert_eq!((before, after.running), (after.attempts, 0));
        server.set_paused("default", false).await;
    }
}

#[tokio::test]
async fn only_one_of_several_updates_with_the_same_etag_succeeds() {
    let server = Server::start("");
    let pools = server.pools().list_pools(v1::ListPoolsRequest {}).await.unwrap().into_inner().pools;
    let mut calls = Vec::new();
    for size in 1..=20 {
        let mut client = server.pools();
        let (name, etag) = (pools[0].name.clone(), pools[0].etag.clone());
        let update = v1::UpdatePoolRequest { name, etag, size: Some(size), ..Default::default() };
        calls.push(tokio::spawn(async move { client.update_pool(update).await }));
    }
    let mut won = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => won += 1,
            Err(status) => assert_eq!(reason(&status), "ETAG_MISMATCH"),
        }
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_metrics_stream_has_rates_and_validates_its_request() {
    let server = Server::start("");
    let request = |interval, pool: &str| v1::StreamPoolMetricsRequest {
        interval,
        pools: vec![pool.to_owned()],
        include_workers: false,
    };
    for (bad, field) in [(request(millis(99), "default"), "interval"), (request(None, "a b"), "pools[0]")] {
        assert_eq!(fields(&server.pools().stream_pool_metrics(bad).await.unwrap_err()), [field]);
    }
    let unknown = server.pools().stream_pool_metrics(request(None, "z")).await.unwrap_err();
    assert_eq!(reason(&unknown), "UNKNOWN_POOL");
    let mut readings = server.pools().stream_pool_metrics(request(millis(100), "default")).await.unwrap().into_inner();
    let first = readings.next().await.unwrap().unwrap();
    assert!(first.pools[0].submit_rate.abs() < f64::EPSILON);
    server.submit(noop()).await;
    let rate_is_reported = async { while readings.next().await.unwrap().unwrap().pools[0].submit_rate <= 0.0 {} };
    tokio::time::timeout(TIMEOUT, rate_is_reported).await.expect("a rate is reported");
}

#[tokio::test]
async fn a_full_queue_rejects_a_whole_batch_until_there_is_room() {
    let server = Server::start("[[pool]]\nname = \"default\"\nsize = 1\nqueue_limit = 10\npaused = true\n");
    let batch = |count| v1::BatchSubmitTasksRequest { tasks: vec![noop(); count], batch_id: String::new() };
    let refused = server.tasks().batch_submit_tasks(batch(11)).await.unwrap_err();
    assert_eq!(reason(&refused), "QUEUE_FULL");
    let ids = server.tasks().batch_submit_tasks(batch(10)).await.unwrap().into_inner().task_ids;
    assert_eq!(reason(&server.tasks().submit_task(noop()).await.unwrap_err()), "QUEUE_FULL");
    server.set_paused("default", false).await;
    for id in ids {
        server.wait_finished(&id).await;
    }
    server.submit(noop()).await;
}

#[test]
fn blocking_handlers_do_not_stall_an_async_pool() {
    // Either the server rejects the setting, or computing tasks do not stop it.
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.toml");
    let text = "[[pool]]\nname = \"default\"\nkind = \"async\"\nsize = 8\n";
    std::fs::write(&config, text).unwrap();
    let Ok(server) = std::panic::catch_unwind(|| Server::start(text)) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut running = Vec::new();
        for _ in 0..8 {
            running.push(server.submit(task("compute", "1000000000000")).await);
        }
        for id in &running {
            server.wait_started(id).await;
            server
                .tasks()
                .cancel_task(v1::CancelTaskRequest { task_id: id.clone(), ..Default::default() })
                .await
                .unwrap();
            assert_eq!(server.wait_finished(id).await.state(), TaskState::Cancelled);
        }
    });
}

#[tokio::test]
async fn pool_updates_survive_a_crash_until_the_configuration_changes_the_setting() {
    let configuration = |size| format!("[[pool]]\nname = \"default\"\nsize = {size}\n");
    let mut server = Server::start(&configuration(4));
    let get = async |server: &Server| {
        let request = v1::GetPoolRequest { name: "default".to_owned() };
        server.pools().get_pool(request).await.unwrap().into_inner().pool.unwrap()
    };
    let before = get(&server).await;
    let update = v1::UpdatePoolRequest {
        name: "default".to_owned(),
        size: Some(7),
        queue_limit: Some(3),
        paused: Some(true),
        ..Default::default()
    };
    server.pools().update_pool(update).await.unwrap();
    server.kill9();
    server.start_again();
    let pool = get(&server).await;
    assert_eq!((pool.size, pool.queue_limit, pool.paused), (7, 3, true));
    assert_eq!(metrics(&server).await.size, 7, "the number of workers");
    let stale = v1::UpdatePoolRequest { etag: before.etag, ..update_of("default") };
    assert_eq!(reason(&server.pools().update_pool(stale).await.unwrap_err()), "ETAG_MISMATCH");
    // The pool starts no task.
    let id = server.submit(task("compute", "0")).await;
    assert_eq!(server.get(&id).await.state(), TaskState::Queued);
    server.kill9();
    std::fs::write(server.path("config.toml"), configuration(5)).unwrap();
    server.start_again();
    let pool = get(&server).await;
    assert_eq!((pool.size, pool.queue_limit, pool.paused), (5, 3, true), "only the size has changed in the file");
    assert!(server.log().contains("replaces pool settings"), "{}", server.log());
    server.set_paused("default", false).await;
    assert_eq!(server.wait_finished(&id).await.state(), TaskState::Completed);
}

fn update_of(name: &str) -> v1::UpdatePoolRequest {
    v1::UpdatePoolRequest { name: name.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn pools_are_listed_resized_and_measured() {
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
    let workers = server
        .pools()
        .list_workers(v1::ListWorkersRequest { pool: "a".into(), ..Default::default() })
        .await
        .unwrap()
        .into_inner();
    let names: Vec<_> = workers.workers.iter().map(|worker| worker.name.as_str()).collect();
    assert_eq!(names, ["PoolWorker-0", "PoolWorker-1", "PoolWorker-2", "PoolWorker-3", "PoolWorker-4"]);

    for _ in 0..10 {
        let id = server.submit(noop()).await;
        server.wait_finished(&id).await;
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
    assert!(server.set_paused("default", true).await.paused);
    let id = server.submit(noop()).await;
    let request = v1::GetPoolMetricsRequest { name: "default".into(), include_workers: false };
    let metrics = server.pools().get_pool_metrics(request).await.unwrap().into_inner().metrics.unwrap();
    assert_eq!((metrics.queued, metrics.running, metrics.paused), (1, 0, true));
    assert_eq!(server.get(&id).await.state(), TaskState::Queued);
    server.set_paused("default", false).await;
    assert_eq!(server.wait_finished(&id).await.state(), TaskState::Completed);
}

#[tokio::test]
async fn a_thousand_workers_run_tasks_concurrently() {
    let server = Server::start("[[pool]]\nname = \"default\"\nsize = 1000\n");
    let tasks = vec![task("io", "1"); 1_000];
    let batch = v1::BatchSubmitTasksRequest { tasks, batch_id: String::new() };
    let ids = server.tasks().batch_submit_tasks(batch).await.unwrap().into_inner().task_ids;
    let mut workers = std::collections::HashSet::new();
    for id in ids {
        let ended = server.wait_finished(&id).await;
        assert_eq!(ended.state(), TaskState::Completed);
        workers.insert(ended.worker);
    }
    assert!(workers.len() > 500, "{} workers ran tasks", workers.len());
}
