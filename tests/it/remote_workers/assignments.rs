//! Which worker gets which attempt, and what it reports about it.

use lineshaft::proto::v1::{self, Priority, TaskState, attempt_finished::Outcome, worker_message::Kind as Report};

use super::{CONFIG, Worker, finished, hello, result};
use crate::support::{Server, bytes, check, eventually, seconds, task};

#[tokio::test]
async fn a_worker_gets_a_task_and_returns_its_output_progress_and_result() {
    let server = Server::start(CONFIG);
    let mut worker = Worker::connect(&server, hello("w", &["resize"], 2)).await;
    assert_eq!((worker.welcome.pool.as_str(), worker.welcome.lease), ("remote", seconds(3)));
    let labels = [("size".to_owned(), "small".to_owned())].into();
    let id = server.submit(v1::SubmitTaskRequest { labels, ..task("resize", "picture") }).await;
    let assigned = worker.assigned().await;
    assert_eq!((&assigned.task_id, assigned.handler.as_str(), assigned.attempt), (&id, "resize", 1));
    assert_eq!((bytes(assigned.payload.as_ref()), assigned.labels["size"].as_str()), ("picture".to_owned(), "small"));
    assert_eq!((assigned.timeout, assigned.priority()), (seconds(300), Priority::Normal));
    let token = assigned.token;
    worker.accept(&token);
    let output = v1::AttemptOutput { token: token.clone(), stream: 1, data: "half\n".into() };
    let progress = v1::AttemptProgress { token: token.clone(), fraction: 0.5, note: "halfway".into() };
    worker.send([Report::Output(output), Report::Progress(progress)]);
    eventually(async || {
        let task = server.get(&id).await;
        check(task.progress_note == "halfway", || format!("{task:?}"))
    })
    .await;
    worker.finish(&token, result("done"));
    let ended = server.wait_finished(&id).await;
    assert_eq!((ended.state(), bytes(ended.result.as_ref())), (TaskState::Completed, "done".to_owned()));
    assert_eq!((ended.worker.as_str(), ended.stdout_bytes), ("remote/w", 5));
    assert_eq!(worker.settled().await, [token]);
}

#[tokio::test]
async fn a_failure_is_retried_and_counts_as_an_attempt() {
    let server = Server::start(CONFIG);
    let mut worker = Worker::connect(&server, hello("w", &["resize"], 1)).await;
    let retry = v1::RetryPolicy { max_attempts: 2, delay: seconds(0), ..v1::RetryPolicy::default() };
    let id = server.submit(v1::SubmitTaskRequest { retry: Some(retry), ..task("resize", "") }).await;
    for attempt in 1..=2 {
        let assigned = worker.assigned().await;
        assert_eq!(assigned.attempt, attempt);
        let failure = v1::Failure { message: format!("no {attempt}\nmore"), retryable: true, ..Default::default() };
        worker.finish(&assigned.token, Outcome::Failure(failure));
    }
    let ended = server.wait_finished(&id).await;
    let failure = ended.failure.unwrap();
    assert_eq!((failure.message.as_str(), failure.attempt), ("no 2", 2));
}

#[tokio::test]
async fn tasks_that_no_worker_can_run_hold_back_no_others_and_wait_for_one_that_can() {
    let server = Server::start(CONFIG);
    let urgent = v1::SubmitTaskRequest { priority: Priority::High.into(), ..task("other", "") };
    for _ in 0..700 {
        server.submit(urgent.clone()).await;
    }
    let id = server.submit(task("resize", "")).await;
    let mut worker = Worker::connect(&server, hello("w", &["resize"], 1)).await;
    let assigned = worker.assigned().await;
    assert_eq!(assigned.task_id, id);
    let request = v1::GetPoolMetricsRequest { name: "remote".to_owned(), include_workers: true };
    let metrics = server.pools().get_pool_metrics(request).await.unwrap().into_inner().metrics.unwrap();
    assert_eq!((metrics.size, metrics.busy, metrics.queued, metrics.without_worker), (1, 1, 700, 700));
    let remote = metrics.workers[0].remote.clone().unwrap();
    assert_eq!((remote.connected, remote.slots, remote.running, remote.handlers), (true, 1, 1, vec!["resize".into()]));
    worker.finish(&assigned.token, result(""));
    let mut other = Worker::connect(&server, hello("o", &["other", "resize"], 1)).await;
    assert_eq!(other.assigned().await.handler, "other");
}

#[tokio::test]
async fn a_free_slot_goes_to_the_highest_priority_over_all_handlers_of_the_worker() {
    let server = Server::start(CONFIG);
    server.set_paused("remote", true).await;
    let mut worker = Worker::connect(&server, hello("w", &["resize", "other"], 1)).await;
    let mut expected = Vec::new();
    for (handler, priority) in [("resize", Priority::Low), ("other", Priority::Normal), ("resize", Priority::High)] {
        let request = v1::SubmitTaskRequest { priority: priority.into(), ..task(handler, "") };
        expected.insert(0, server.submit(request).await);
    }
    server.set_paused("remote", false).await;
    for id in expected {
        let assigned = worker.assigned().await;
        assert_eq!(assigned.task_id, id);
        worker.finish(&assigned.token, result(""));
    }
}

#[tokio::test]
async fn a_refused_attempt_goes_to_another_worker_and_does_not_count() {
    let server = Server::start(CONFIG);
    let mut first = Worker::connect(&server, hello("first", &["resize"], 1)).await;
    let id = server.submit(task("resize", "")).await;
    let token = first.assigned().await.token;
    let mut second = Worker::connect(&server, hello("second", &["resize"], 1)).await;
    first.send([
        Report::Draining(v1::WorkerDraining {}),
        finished(&token, Outcome::NotStarted(v1::AttemptNotStarted {})),
    ]);
    assert_eq!(first.settled().await, [token]);
    let again = second.assigned().await;
    assert_eq!((again.task_id, again.attempt), (id, 1));
}

#[tokio::test]
async fn an_attempt_on_its_way_to_a_worker_that_leaves_goes_to_another() {
    let server = Server::start(&CONFIG.replace("3s", "1h"));
    let worker = Worker::connect(&server, hello("w", &["resize"], 2)).await;
    let id = server.submit(task("resize", "")).await;
    let once = server.submit(v1::SubmitTaskRequest { at_most_once: true, ..task("resize", "") }).await;
    server.wait_for_state(&id, TaskState::Running).await;
    server.wait_for_state(&once, TaskState::Running).await;
    worker.send([Report::Draining(v1::WorkerDraining {})]);
    eventually(async || {
        let request = v1::ListWorkersRequest { pool: "remote".to_owned(), ..Default::default() };
        let workers = server.pools().list_workers(request).await.unwrap().into_inner().workers;
        check(!workers[0].alive, || format!("{workers:?}"))
    })
    .await;
    drop(worker);
    let mut other = Worker::connect(&server, hello("other", &["resize"], 1)).await;
    let assigned = other.assigned().await;
    assert_eq!((assigned.task_id, assigned.attempt), (id, 1));
    let failure = server.wait_finished(&once).await.failure.unwrap();
    assert_eq!(failure.reason(), v1::FailureReason::WorkerLost, "it may have begun");
}
