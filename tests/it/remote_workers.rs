//! Remote workers, played by the test: one stream, and what happens when it breaks.

use std::time::Duration;

use lineshaft::proto::v1::{
    self, Priority, StopReason, TaskState, attempt_finished::Outcome, server_message::Kind as Sent,
    worker_message::Kind as Report,
};
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

use crate::support::{Server, TIMEOUT, bytes, check, eventually, reason, seconds, task};

const CONFIG: &str = r#"
[server]
worker_lease = "3s"
[[handler]]
name = "resize"
runner = "remote"
[[handler]]
name = "other"
runner = "remote"
"#;

/// A stream of a worker.
struct Worker {
    requests: mpsc::UnboundedSender<v1::WorkRequest>,
    responses: Streaming<v1::WorkResponse>,
    welcome: v1::WorkerWelcome,
    /// Messages that have arrived and were not read.
    unread: std::collections::VecDeque<Sent>,
}

fn hello(id: &str, handlers: &[&str], slots: i32) -> v1::WorkerHello {
    let handler = |name: &&str| v1::WorkerHandler { name: (*name).to_owned(), description: String::new() };
    v1::WorkerHello {
        worker_id: id.to_owned(),
        handlers: handlers.iter().map(handler).collect(),
        slots,
        ..v1::WorkerHello::default()
    }
}

impl Worker {
    async fn connect(server: &Server, hello: v1::WorkerHello) -> Self {
        Self::try_connect(server, v1::WorkRequest { hello: Some(hello), messages: vec![] }).await.unwrap()
    }

    async fn try_connect(server: &Server, first: v1::WorkRequest) -> Result<Self, Status> {
        let (requests, sent) = mpsc::unbounded_channel();
        requests.send(first).unwrap();
        let sent = tokio_stream::wrappers::UnboundedReceiverStream::new(sent);
        let mut responses = server.workers().work(sent).await?.into_inner();
        let welcome = responses.message().await?.expect("a welcome").welcome.expect("a welcome");
        Ok(Self { requests, responses, welcome, unread: std::collections::VecDeque::new() })
    }

    fn send(&self, reports: impl IntoIterator<Item = Report>) {
        let messages = reports.into_iter().map(|kind| v1::WorkerMessage { kind: Some(kind) }).collect();
        self.requests.send(v1::WorkRequest { hello: None, messages }).unwrap();
    }

    /// The next message that is not a heartbeat.
    async fn next(&mut self) -> Result<Sent, Status> {
        loop {
            if let Some(message) = self.unread.pop_front() {
                return Ok(message);
            }
            let response = tokio::time::timeout(TIMEOUT, self.responses.message()).await.expect("a message")?;
            let messages = response.expect("the stream goes on").messages;
            let kinds = messages.into_iter().filter_map(|message| message.kind);
            self.unread.extend(kinds.filter(|kind| !matches!(kind, Sent::Heartbeat(_))));
        }
    }

    /// The next attempt; acknowledgements before it are not looked at.
    async fn assigned(&mut self) -> v1::AttemptAssigned {
        loop {
            match self.next().await.unwrap() {
                Sent::Assigned(assigned) => return assigned,
                Sent::Settled(_) => {}
                other => panic!("{other:?} instead of an attempt"),
            }
        }
    }

    async fn cancelled(&mut self) -> v1::AttemptCancel {
        match self.next().await.unwrap() {
            Sent::Cancel(cancel) => cancel,
            other => panic!("{other:?} instead of a cancel"),
        }
    }

    async fn settled(&mut self) -> Vec<String> {
        match self.next().await.unwrap() {
            Sent::Settled(settled) => settled.tokens,
            other => panic!("{other:?} instead of an acknowledgement"),
        }
    }

    /// How the server ends the stream.
    async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }

    fn accept(&self, token: &str) {
        self.send([Report::Accepted(v1::AttemptAccepted { token: token.to_owned() })]);
    }

    fn finish(&self, token: &str, outcome: Outcome) {
        self.send([finished(token, outcome)]);
    }
}

fn finished(token: &str, outcome: Outcome) -> Report {
    let outcome = Some(outcome);
    Report::Finished(v1::AttemptFinished { token: token.to_owned(), outcome, ..v1::AttemptFinished::default() })
}

fn result(text: &str) -> Outcome {
    let kind = Some(v1::payload::Kind::Data(text.to_owned().into()));
    Outcome::Result(v1::Payload { kind, content_type: "text/plain".to_owned() })
}

fn stopped() -> Outcome {
    Outcome::Stopped(v1::AttemptStopped::default())
}

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
    let keep_alive = other.requests.clone();
    tokio::spawn(async move {
        let heartbeat = v1::WorkerMessage { kind: Some(Report::Heartbeat(v1::Heartbeat {})) };
        let request = v1::WorkRequest { hello: None, messages: vec![heartbeat] };
        while keep_alive.send(request.clone()).is_ok() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
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
        let request = v1::ListWorkersRequest { pool: "remote".to_owned() };
        let workers = server.pools().list_workers(request).await.unwrap().into_inner().workers;
        check(workers.is_empty(), || format!("{workers:?}"))
    })
    .await;
}

#[tokio::test]
async fn a_cancelled_attempt_is_stopped_and_a_worker_that_ignores_it_is_evicted() {
    let server = Server::start(CONFIG);
    for ignores in [false, true] {
        let mut worker = Worker::connect(&server, hello("w", &["resize"], 1)).await;
        let id = server.submit(task("resize", "")).await;
        let token = worker.assigned().await.token;
        worker.accept(&token);
        server.wait_for_state(&id, TaskState::Running).await;
        let cancel = v1::CancelTaskRequest { task_id: id.clone(), grace: seconds(60), ..Default::default() };
        server.tasks().cancel_task(cancel).await.unwrap();
        let cancel = worker.cancelled().await;
        assert_eq!((&cancel.token, cancel.reason(), cancel.grace.unwrap().seconds), (&token, StopReason::Cancel, 59));
        if ignores {
            let alive = worker.requests.clone();
            tokio::spawn(async move {
                let heartbeat = v1::WorkerMessage { kind: Some(Report::Heartbeat(v1::Heartbeat {})) };
                let request = v1::WorkRequest { hello: None, messages: vec![heartbeat] };
                while alive.send(request.clone()).is_ok() {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            });
            let status = worker.end().await;
            assert_eq!(reason(&status), "WORKER_EVICTED");
            assert!(status.message().contains("cancel"), "{status:?}");
        } else {
            worker.send([
                Report::CancelAcknowledged(v1::CancelAcknowledged { token: token.clone() }),
                finished(&token, stopped()),
            ]);
        }
        assert_eq!(server.wait_finished(&id).await.state(), TaskState::Cancelled);
    }
}

#[tokio::test]
async fn an_attempt_is_cancelled_at_its_timeout() {
    let server = Server::start(CONFIG);
    let mut worker = Worker::connect(&server, hello("w", &["resize"], 1)).await;
    let timeout = Some(prost_types::Duration { seconds: 0, nanos: 50_000_000 });
    let retry = Some(v1::RetryPolicy { max_attempts: 1, ..v1::RetryPolicy::default() });
    let id = server.submit(v1::SubmitTaskRequest { timeout, retry, ..task("resize", "") }).await;
    let token = worker.assigned().await.token;
    let cancel = worker.cancelled().await;
    assert_eq!((&cancel.token, cancel.reason()), (&token, StopReason::Timeout));
    worker.finish(&token, stopped());
    assert_eq!(server.wait_finished(&id).await.failure.unwrap().reason(), v1::FailureReason::Timeout);
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
        let request = v1::ListWorkersRequest { pool: "remote".to_owned() };
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

#[tokio::test]
async fn a_suspended_attempt_lends_its_slot() {
    let server = Server::start(CONFIG);
    let mut worker = Worker::connect(&server, hello("w", &["resize"], 1)).await;
    let parent = server.submit(task("resize", "parent")).await;
    let token = worker.assigned().await.token;
    worker.accept(&token);
    let children = [server.submit(task("resize", "1")).await, server.submit(task("resize", "2")).await];
    worker.send([Report::Suspended(v1::AttemptSuspended { token: token.clone() })]);
    let first = worker.assigned().await;
    assert_eq!(first.task_id, children[0]);
    worker.send([Report::Resuming(v1::AttemptResuming { token: token.clone() })]);
    worker.finish(&first.token, result(""));
    // The parent goes on when a child has given the slot back; the other child may have come first.
    let mut is_resumed = false;
    while !is_resumed {
        match worker.next().await.unwrap() {
            Sent::Resumed(message) => is_resumed = message.token == token,
            Sent::Assigned(child) => worker.finish(&child.token, result("")),
            Sent::Settled(_) => {}
            other => panic!("{other:?}"),
        }
    }
    worker.finish(&token, result("parent"));
    assert_eq!(bytes(server.wait_finished(&parent).await.result.as_ref()), "parent");
}

#[tokio::test]
async fn an_attempt_gives_its_slot_back_once_however_often_it_is_suspended() {
    let server = Server::start(CONFIG);
    let mut worker = Worker::connect(&server, hello("w", &["resize"], 1)).await;
    let parent = server.submit(task("resize", "parent")).await;
    let token = worker.assigned().await.token;
    let suspended = || Report::Suspended(v1::AttemptSuspended { token: token.clone() });
    worker.send([suspended(), suspended(), suspended()]);
    let child = server.submit(task("resize", "child")).await;
    let other = server.submit(task("resize", "other")).await;
    let first = worker.assigned().await;
    assert_eq!(first.task_id, child);
    // The parent ends while the child has the only slot.
    worker.finish(&token, result("parent"));
    server.wait_finished(&parent).await;
    assert_eq!(server.get(&other).await.state(), TaskState::Queued, "no slot is free");
    worker.finish(&first.token, result(""));
    assert_eq!(worker.assigned().await.task_id, other);
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

#[tokio::test]
async fn what_the_contract_does_not_allow_ends_the_stream_with_a_reason() {
    let server = Server::start(CONFIG);
    let first = |hello| v1::WorkRequest { hello: Some(hello), messages: vec![] };
    let cases = [
        (v1::WorkRequest::default(), "`hello` is required in the first message"),
        (first(hello("", &["resize"], 1)), "`hello.worker_id` must not be empty"),
        (first(hello("w", &[], 1)), "`hello.handlers` is empty"),
        (first(hello("w", &["a b"], 1)), "`hello.handlers[0].name`"),
        (first(hello("w", &["resize", "resize"], 1)), "`resize` is given twice"),
        (first(hello("w", &["resize"], 0)), "`hello.slots` is 0, must be from 1 to 10000"),
        (first(v1::WorkerHello { pool: "nosuch".into(), ..hello("w", &["resize"], 1) }), "pool `nosuch` is not"),
    ];
    for (request, expected) in cases {
        let status = Worker::try_connect(&server, request).await.err().expect("refused");
        assert!(status.message().contains(expected), "{status:?}");
    }
    let reports = [
        (Report::Accepted(v1::AttemptAccepted { token: "no token".into() }), "messages[0].accepted.token"),
        (Report::Finished(v1::AttemptFinished { token: "1".into(), ..Default::default() }), "messages[0].finished"),
    ];
    for (report, expected) in reports {
        let mut worker = Worker::connect(&server, hello("w", &["resize"], 1)).await;
        worker.send([report]);
        let status = worker.end().await;
        assert!(status.code() == Code::InvalidArgument && status.message().contains(expected), "{status:?}");
    }
    let mut worker = Worker::connect(&server, hello("w", &["resize"], 1)).await;
    worker.requests.send(first(hello("w", &["resize"], 1))).unwrap();
    assert_eq!(reason(&worker.end().await), "INVALID_FIELD");
}
