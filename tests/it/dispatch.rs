//! What becomes of tasks between their submission and their start.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lineshaft::proto::v1::{self, TaskState};

use crate::support::{Server, check, eventually, millis, noop, task};

const ONE_WORKER: &str = "[[pool]]\nname = \"default\"\nsize = 1\n";

fn time(at: Option<prost_types::Timestamp>) -> Duration {
    let at = at.expect("the time is set");
    Duration::new(at.seconds.cast_unsigned(), at.nanos.cast_unsigned())
}

/// Waits until the system clock has passed `at`.
#[expect(clippy::disallowed_methods, reason = "compared with a timestamp of the server")]
async fn wait_until(at: Duration) {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    eventually(async || check(now() > at, || format!("{at:?} has not passed"))).await;
}

#[tokio::test]
async fn payloads_of_cancelled_tasks_are_freed_although_no_worker_is_free() {
    const COUNT: u64 = 300;
    let server = Server::start(ONE_WORKER);
    let running = server.submit(task("io", "3600")).await;
    server.wait_started(&running).await;
    let large = || {
        let data = vec![b'x'; 1 << 20].into();
        let payload = Some(v1::Payload { kind: Some(v1::payload::Kind::Data(data)), content_type: String::new() });
        v1::SubmitTaskRequest { payload, ..noop() }
    };
    let cancel = async |id: String| {
        let request = v1::CancelTaskRequest { task_id: id, ..Default::default() };
        server.tasks().cancel_task(request).await.unwrap().into_inner().state()
    };
    let submit_and_cancel = async |count: u64| {
        for _ in 0..count {
            let id = server.submit(large()).await;
            assert_eq!(cancel(id).await, TaskState::Cancelled);
        }
    };
    // The caches of the store fill first.
    submit_and_cancel(COUNT / 3).await;
    let before = server.memory_used();
    submit_and_cancel(COUNT).await;
    eventually(async || {
        let grown = server.memory_used().saturating_sub(before) >> 20;
        check(grown < COUNT / 3, || format!("{grown} MiB more are resident after {COUNT} cancelled tasks of 1 MiB"))
    })
    .await;
}

#[tokio::test]
async fn a_task_that_has_started_does_not_expire_after_a_crash() {
    let mut server = Server::start(ONE_WORKER);
    let id = server.submit(v1::SubmitTaskRequest { expires_after: millis(500), ..task("io", "0.2") }).await;
    // The start must be durable before the crash.
    server.wait_for_change(&id, 0, &[TaskState::Running]).await;
    let expires_at = time(server.get(&id).await.expires_at);
    server.kill9();
    wait_until(expires_at).await;
    server.start_again();
    let ended = server.wait_finished(&id).await;
    assert_eq!(ended.state(), TaskState::Completed, "{ended:?}");
}

#[tokio::test]
async fn delay_and_expiry_count_from_the_submission() {
    let server = Server::start(ONE_WORKER);
    let (delay, expires_after) = (Duration::from_millis(300), Duration::from_secs(60));
    let tasks = vec![v1::SubmitTaskRequest { delay: millis(300), expires_after: millis(60_000), ..noop() }; 50];
    let request = v1::BatchSubmitTasksRequest { tasks, batch_id: String::new() };
    let response = server.tasks().batch_submit_tasks(request).await.unwrap().into_inner();
    for id in &response.task_ids {
        let ended = server.wait_finished(id).await;
        let submitted_at = time(ended.submitted_at);
        assert_eq!(time(ended.expires_at), submitted_at + expires_after, "{ended:?}");
        assert!(time(ended.started_at) >= submitted_at + delay, "{ended:?}");
    }
}
