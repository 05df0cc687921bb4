//! Attempts outlive broken streams and servers, as long as the lease of their worker lasts.

use lineshaft::proto::v1::{self, TaskState, server_message::Kind as Sent};
use tonic::Code;

use super::{CONFIG, Worker, finished, hello, result, stopped};
use crate::support::{Server, bytes, check, eventually, reason, seconds, task};

#[tokio::test]
async fn an_attempt_goes_on_when_its_worker_connects_again() {
    let server = Server::start(CONFIG);
    let mut worker = Worker::connect(&server, hello("w", &["resize"], 1)).await;
    let id = server.submit(task("resize", "")).await;
    let token = worker.assigned().await.token;
    worker.accept(&token);
    drop(worker);
    let again = v1::WorkerHello { unfinished: vec![token.clone(), "99".to_owned()], ..hello("w", &["resize"], 1) };
    let mut worker = Worker::connect(&server, again).await;
    assert_eq!(worker.welcome.stale, ["99"]);
    worker.finish(&token, result("kept"));
    assert_eq!(worker.settled().await, [token]);
    let ended = server.wait_finished(&id).await;
    assert_eq!((bytes(ended.result.as_ref()), ended.attempt), ("kept".to_owned(), 1));
}

#[tokio::test]
async fn an_attempt_that_never_arrived_is_sent_again_on_the_next_stream() {
    let server = Server::start(CONFIG);
    let worker = Worker::connect(&server, hello("w", &["resize"], 1)).await;
    let id = server.submit(task("resize", "")).await;
    server.wait_for_state(&id, TaskState::Running).await;
    drop(worker);
    let mut worker = Worker::connect(&server, hello("w", &["resize"], 1)).await;
    assert_eq!(worker.assigned().await.task_id, id);
}

#[tokio::test]
async fn attempts_survive_a_killed_server() {
    let mut server = Server::start(CONFIG);
    let mut worker = Worker::connect(&server, hello("w", &["resize"], 2)).await;
    let running = server.submit(task("resize", "1")).await;
    let token = worker.assigned().await.token;
    worker.accept(&token);
    // Is durable when its state is seen.
    server.wait_for_state(&running, TaskState::Running).await;
    let cancelled = server.submit(task("resize", "2")).await;
    let cancelled_token = worker.assigned().await.token;
    worker.accept(&cancelled_token);
    server.wait_for_state(&cancelled, TaskState::Running).await;
    let cancel = v1::CancelTaskRequest { task_id: cancelled.clone(), ..v1::CancelTaskRequest::default() };
    server.tasks().cancel_task(cancel).await.unwrap();
    server.kill9();
    server.start_again();
    assert_eq!(server.get(&running).await.state(), TaskState::Running);
    let unfinished = vec![token.clone(), cancelled_token.clone()];
    let mut worker = Worker::connect(&server, v1::WorkerHello { unfinished, ..hello("w", &["resize"], 2) }).await;
    assert!(worker.welcome.stale.is_empty());
    assert_eq!(worker.cancelled().await.token, cancelled_token);
    worker.send([finished(&token, result("kept")), finished(&cancelled_token, stopped())]);
    let ended = server.wait_finished(&running).await;
    assert_eq!((ended.state(), ended.attempt), (TaskState::Completed, 1));
    assert_eq!(server.wait_finished(&cancelled).await.state(), TaskState::Cancelled);
    let watch = v1::WatchTasksRequest {
        filter: Some(v1::TaskFilter { task_ids: vec![running], ..v1::TaskFilter::default() }),
        resume_token: server.oldest_token().await,
        ..v1::WatchTasksRequest::default()
    };
    let mut events = server.tasks().watch_tasks(watch).await.unwrap().into_inner();
    let mut states = Vec::new();
    while states.last() != Some(&TaskState::Completed) {
        if let Some(v1::watch_tasks_response::Kind::Event(event)) = events.message().await.unwrap().unwrap().kind {
            states.push(event.state());
        }
    }
    assert_eq!(states, [TaskState::Queued, TaskState::Running, TaskState::Completed], "one start");
}

#[tokio::test]
async fn attempts_outlive_a_drained_server() {
    let mut server = Server::start(CONFIG);
    let mut worker = Worker::connect(&server, hello("w", &["resize"], 1)).await;
    let id = server.submit(task("resize", "1")).await;
    let token = worker.assigned().await.token;
    worker.accept(&token);
    server.wait_for_state(&id, TaskState::Running).await;
    server.system().drain(v1::DrainRequest { limit: seconds(3600) }).await.unwrap();
    assert!(matches!(worker.next().await, Ok(Sent::Draining(_))));
    let status = worker.end().await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "DRAINING"));
    assert!(server.wait_exit().success(), "the server does not wait for the worker");
    server.start_again();
    let again = v1::WorkerHello { unfinished: vec![token.clone()], ..hello("w", &["resize"], 1) };
    let worker = Worker::connect(&server, again).await;
    worker.finish(&token, result("kept"));
    assert_eq!(server.wait_finished(&id).await.attempt, 1);
}

#[tokio::test]
async fn a_lost_workers_task_goes_to_another_and_its_late_report_changes_nothing() {
    let server = Server::start(CONFIG);
    let mut lost = Worker::connect(&server, hello("lost", &["resize"], 1)).await;
    let id = server.submit(task("resize", "")).await;
    let token = lost.assigned().await.token;
    lost.accept(&token);
    drop(lost);
    let mut other = Worker::connect(&server, hello("other", &["resize"], 1)).await;
    other.keep_alive();
    let again = other.assigned().await;
    assert_eq!((&again.task_id, again.attempt), (&id, 1), "the lost attempt does not count");
    let late = v1::WorkerHello { unfinished: vec![token.clone()], ..hello("lost", &["resize"], 1) };
    let mut late = Worker::connect(&server, late).await;
    assert_eq!(late.welcome.stale, std::slice::from_ref(&token));
    late.finish(&token, result("late"));
    assert_eq!(late.settled().await, [token], "it may forget the attempt");
    other.finish(&again.token, result("right"));
    assert_eq!(bytes(server.wait_finished(&id).await.result.as_ref()), "right");
}

#[tokio::test]
async fn a_silent_worker_is_evicted() {
    let server = Server::start(CONFIG);
    let mut worker = Worker::connect(&server, hello("w", &["resize"], 1)).await;
    let status = worker.end().await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Aborted, "WORKER_EVICTED"));
    eventually(async || {
        let request = v1::ListWorkersRequest { pool: "remote".to_owned(), ..Default::default() };
        let workers = server.pools().list_workers(request).await.unwrap().into_inner().workers;
        check(workers.is_empty(), || format!("{workers:?}"))
    })
    .await;
}

#[tokio::test]
async fn the_newest_of_two_workers_with_one_id_replaces_the_other() {
    let server = Server::start(CONFIG);
    let mut first = Worker::connect(&server, hello("w", &["resize"], 1)).await;
    let mut second = Worker::connect(&server, hello("w", &["resize"], 1)).await;
    let status = first.end().await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Aborted, "WORKER_REPLACED"));
    let id = server.submit(task("resize", "")).await;
    assert_eq!(second.assigned().await.task_id, id);
}
