//! The guarantees of the documentation under crashes, races and load.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lineshaft::proto::v1::{self, Priority, StopMethod, TaskState, run_task_response};
use tonic_types::StatusExt;

use crate::support::{IN_MEMORY, Server, TIMEOUT, bytes, check, eventually, millis, noop, reason, seconds, task};

fn micros(at: prost_types::Timestamp) -> i128 {
    i128::from(at.seconds) * 1_000_000 + i128::from(at.nanos) / 1_000
}

#[expect(clippy::disallowed_methods, reason = "compared with timestamps of the server")]
fn now_micros() -> i128 {
    i128::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

#[tokio::test]
async fn a_repeated_submission_with_a_chosen_id_is_the_same_task() {
    let mut server = Server::start("");
    let ids = ["plain", "01890a5d-ac96-774b-bcce-b302099a8057", "01890A5D-AC96-774B-BCCE-B302099A8058"];
    let named = |id: &str, json: &str| v1::SubmitTaskRequest { task_id: id.to_owned(), ..task("compute", json) };
    for id in ids {
        assert_eq!(server.submit(named(id, "5")).await, id);
        server.wait_finished(id).await;
    }
    for round in ["before a crash", "after a crash"] {
        for id in ids {
            let again = server.tasks().submit_task(named(id, "5")).await;
            let again = again.unwrap_or_else(|status| panic!("{round}, {id}: {status:?}")).into_inner();
            assert!(again.duplicate && again.task_id == id, "{round}: {again:?}");
            let other = server.tasks().submit_task(named(id, "6")).await.unwrap_err();
            assert_eq!(reason(&other), "TASK_EXISTS", "{round}: {id}");
        }
        server.kill9();
        server.start_again();
    }
}

#[tokio::test]
async fn concurrent_submissions_with_one_request_id_create_one_task() {
    let server = Server::start("");
    let mut calls = Vec::new();
    for _ in 0..64 {
        let mut tasks = server.tasks();
        let request = v1::SubmitTaskRequest { request_id: "once".into(), ..noop() };
        calls.push(tokio::spawn(async move { tasks.submit_task(request).await.unwrap().into_inner() }));
    }
    let mut responses = Vec::new();
    for call in calls {
        responses.push(call.await.unwrap());
    }
    assert_eq!(responses.iter().filter(|response| !response.duplicate).count(), 1);
    assert!(responses.iter().all(|response| response.task_id == responses[0].task_id));
    let page = server.tasks().list_tasks(v1::ListTasksRequest::default()).await.unwrap().into_inner();
    assert_eq!(page.tasks.len(), 1);
}

#[tokio::test]
async fn an_urgent_task_starts_before_tasks_that_were_already_dispatched() {
    let server = Server::start("[[pool]]\nname = \"default\"\nsize = 1\n");
    let tasks = vec![task("io", "0.01"); 300];
    let batch = v1::BatchSubmitTasksRequest { tasks, batch_id: "bulk".into() };
    let bulk = server.tasks().batch_submit_tasks(batch).await.unwrap().into_inner().task_ids;
    let mut urgent = Vec::new();
    for _ in 0..10 {
        let request = v1::SubmitTaskRequest { priority: Priority::Critical.into(), ..noop() };
        let id = server.submit(request).await;
        urgent.push((now_micros(), id));
        // The pool gets further tasks in the meantime: the load takes 3 s, and this loop 0.4 s of it.
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    let mut starts = Vec::new();
    for id in &bulk {
        starts.push(micros(server.wait_finished(id).await.started_at.unwrap()));
    }
    for (acknowledged, id) in urgent {
        let started = micros(server.wait_finished(&id).await.started_at.unwrap());
        let overtaken = starts.iter().filter(|at| **at > acknowledged && **at < started).count();
        assert_eq!(overtaken, 0, "{id} was acknowledged at {acknowledged} and started at {started}");
    }
}

#[tokio::test]
async fn a_cancel_right_after_the_submission_is_final() {
    let server = Server::start("[[pool]]\nname = \"default\"\nsize = 4\n");
    let mut calls = Vec::new();
    for n in 0..200 {
        let mut tasks = server.tasks();
        calls.push(tokio::spawn(async move {
            let id = tasks.submit_task(task("io", "3600")).await.unwrap().into_inner().task_id;
            let mode = if n % 2 == 0 { v1::CancelMode::Graceful } else { v1::CancelMode::Force };
            let cancel = v1::CancelTaskRequest { task_id: id.clone(), mode: mode.into(), ..Default::default() };
            let answer = tasks.cancel_task(cancel.clone()).await.unwrap().into_inner();
            // Repeating the cancel has no effect.
            tasks.cancel_task(cancel).await.unwrap();
            (id, answer.state())
        }));
    }
    for call in calls {
        let (id, state) = call.await.unwrap();
        assert!(matches!(state, TaskState::Cancelled | TaskState::Running), "{id} is {state:?}");
        let ended = server.wait_finished(&id).await;
        let receipt = ended.cancel.clone().unwrap();
        assert_eq!(ended.state(), TaskState::Cancelled);
        assert_eq!(receipt.method() == StopMethod::NeverStarted, ended.started_at.is_none(), "{ended:?}");
    }
    let request = v1::GetPoolMetricsRequest { name: "default".into(), include_workers: true };
    let metrics = server.pools().get_pool_metrics(request).await.unwrap().into_inner().metrics.unwrap();
    assert_eq!((metrics.queued, metrics.running, metrics.waiting, metrics.cancelled), (0, 0, 0, 200));
}

#[tokio::test]
async fn an_acknowledged_cancel_survives_a_crash() {
    let mut server = Server::start(
        "[[handler]]\nname = \"stubborn\"\nrunner = \"process\"\nargv = [\"/bin/sh\", \"-c\", \"trap '' TERM; while :; do sleep 1; done\"]\n",
    );
    let running = server.submit(v1::SubmitTaskRequest { handler: "stubborn".into(), ..Default::default() }).await;
    let waiting = server.submit(v1::SubmitTaskRequest { delay: seconds(3_600), ..noop() }).await;
    server.wait_for_state(&running, TaskState::Running).await;
    for id in [&running, &waiting] {
        let cancel = v1::CancelTaskRequest { task_id: id.clone(), grace: seconds(300), ..Default::default() };
        server.tasks().cancel_task(cancel).await.unwrap();
    }
    server.kill9();
    server.start_again();
    for id in [&running, &waiting] {
        let ended = server.wait_finished(id).await;
        assert_eq!(ended.state(), TaskState::Cancelled);
        assert!(ended.cancel.unwrap().stopped_at.is_some());
    }
}

#[tokio::test]
async fn a_forced_cancel_overrides_a_graceful_one() {
    let server = Server::start(
        "[[handler]]\nname = \"stubborn\"\nrunner = \"process\"\nargv = [\"/bin/sh\", \"-c\", \"trap '' TERM; echo up; while :; do sleep 1; done\"]\n",
    );
    let id = server.submit(v1::SubmitTaskRequest { handler: "stubborn".into(), ..Default::default() }).await;
    let request = v1::ReadOutputRequest { task_id: id.clone(), follow: true, ..Default::default() };
    let mut output = server.tasks().read_output(request).await.unwrap().into_inner();
    output.message().await.unwrap().unwrap();
    let cancel = |mode: v1::CancelMode| v1::CancelTaskRequest {
        task_id: id.clone(),
        mode: mode.into(),
        grace: seconds(300),
        ..Default::default()
    };
    server.tasks().cancel_task(cancel(v1::CancelMode::Graceful)).await.unwrap();
    assert_eq!(server.get(&id).await.state(), TaskState::Running);
    server.tasks().cancel_task(cancel(v1::CancelMode::Force)).await.unwrap();
    assert_eq!(server.wait_finished(&id).await.cancel.unwrap().method(), StopMethod::SignalKill);
    assert_eq!(output.message().await.unwrap(), None, "the output ends with the task");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_during_starts_ends_the_server() {
    let mut server = Server::start("[server]\ndrain_limit = \"0s\"\n[[pool]]\nname = \"default\"\nsize = 8\n");
    let mut accepted = Vec::new();
    for round in 0..12 {
        let mut submitters = Vec::new();
        for _ in 0..4 {
            let mut tasks = server.tasks();
            submitters.push(tokio::spawn(async move {
                let mut ids = Vec::new();
                while let Ok(answer) = tasks.submit_task(task("io", "3600")).await {
                    ids.push(answer.into_inner().task_id);
                }
                ids
            }));
        }
        // Each round drains at a different moment of the load.
        tokio::time::sleep(Duration::from_millis(round * 3)).await;
        server.signal(rustix::process::Signal::TERM);
        assert!(server.wait_exit().success(), "round {round}: {}", server.log());
        for submitter in submitters {
            accepted.extend(submitter.await.unwrap());
        }
        server.start_again();
    }
    for id in &accepted {
        let task = server.get(id).await;
        assert!(matches!(task.state(), TaskState::Queued | TaskState::Running), "{task:?}");
        assert!(task.attempt <= 1, "an interrupted attempt does not count: {task:?}");
    }
}

#[tokio::test]
async fn a_draining_server_refuses_submissions_with_a_retry_delay() {
    let server = Server::start("[server]\ndrain_limit = \"1h\"\n");
    let id = server.submit(task("io", "3600")).await;
    server.wait_for_state(&id, TaskState::Running).await;
    let answer = server.system().drain(v1::DrainRequest::default()).await.unwrap().into_inner();
    assert_eq!(answer.running, 1);
    let refused = server.tasks().submit_task(noop()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (tonic::Code::Unavailable, "DRAINING"));
    assert!(refused.get_error_details().retry_info().is_some());
    assert_eq!(server.get(&id).await.state(), TaskState::Running, "tasks can still be read");
    let health = server.system().get_system_health(v1::GetSystemHealthRequest {}).await.unwrap().into_inner();
    assert!(health.draining);
    let cancel = v1::CancelTaskRequest { task_id: id.clone(), ..Default::default() };
    server.tasks().cancel_task(cancel).await.unwrap();
    let mut server = server;
    assert!(server.wait_exit().success(), "{}", server.log());
    server.start_again();
    assert_eq!(server.get(&id).await.state(), TaskState::Cancelled);
    let negative = v1::DrainRequest { limit: seconds(-1) };
    assert_eq!(reason(&server.system().drain(negative).await.unwrap_err()), "INVALID_FIELD");
}

#[tokio::test]
async fn a_task_that_was_running_at_repeated_crashes_fails() {
    let mut server = Server::start("[limits]\ncrashes_max = 2\n");
    let id = server.submit(task("io", "3600")).await;
    let mut crashes = 0;
    let mut revision = 0;
    loop {
        // Only a start by this run of the server counts; before recovery the server shows the previous one.
        let task = server.wait_for_change(&id, revision, &[TaskState::Running, TaskState::Failed]).await;
        if task.state() == TaskState::Failed {
            break;
        }
        revision = task.revision;
        server.kill9();
        server.start_again();
        crashes += 1;
        assert!(crashes <= 3, "the task has not failed after {crashes} crashes");
    }
    assert_eq!(crashes, 2);
    assert_eq!(server.get(&id).await.failure.unwrap().reason(), v1::FailureReason::WorkerLost);
}

#[tokio::test]
async fn a_waiting_caller_receives_the_result_even_without_retention() {
    let server = Server::start("[retention]\ncount = 0\n");
    for round in 0..20 {
        let request = v1::RunTaskRequest { task: Some(task("compute", "10")) };
        let mut steps = server.tasks().run_task(request).await.unwrap().into_inner();
        let mut last = None;
        while let Some(step) = steps.message().await.unwrap() {
            last = step.kind;
        }
        let Some(run_task_response::Kind::Task(run)) = last else { panic!("round {round}: {last:?}") };
        assert_eq!(run.state(), TaskState::Completed);
        assert!(run.result.is_some() && run.started_at.is_some() && run.attempt == 1, "{run:?}");
    }
    let id = server.submit(task("io", "0.2")).await;
    let waited = server.wait_finished(&id).await;
    assert_eq!(waited.state(), TaskState::Completed);
    assert!(waited.result.is_some() && waited.started_at.is_some() && waited.attempt == 1, "{waited:?}");
}

#[tokio::test]
async fn a_watch_after_a_deleted_revision_is_refused_with_the_oldest_one() {
    let server = Server::start("[store]\nwatch_window_events = 1000\n");
    let start = server.oldest_token().await;
    for _ in 0..4 {
        let batch = v1::BatchSubmitTasksRequest { tasks: vec![noop(); 1_000], batch_id: String::new() };
        server.tasks().batch_submit_tasks(batch).await.unwrap();
    }
    let info = eventually(async || {
        let info = server.system().get_server_info(v1::GetServerInfoRequest {}).await.unwrap().into_inner();
        let trimmed = info.oldest_revision > 0 && info.revision == 12_000;
        if trimmed { Ok(info) } else { Err(format!("the journal was not trimmed: {info:?}")) }
    })
    .await;
    assert!(info.revision - info.oldest_revision >= 1_000, "the window is kept: {info:?}");
    let mut server = server;
    // The memory of the server can contain more events than the window; a restart leaves only the journal.
    server.kill9();
    server.start_again();
    let request = v1::WatchTasksRequest { resume_token: start, ..Default::default() };
    let status = match server.tasks().watch_tasks(request).await {
        Err(status) => status,
        Ok(steps) => steps.into_inner().message().await.unwrap_err(),
    };
    assert_eq!((status.code(), reason(&status).as_str()), (tonic::Code::OutOfRange, "REVISION_COMPACTED"));
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().metadata["oldest_revision"], info.oldest_revision.to_string());
    let request = v1::WatchTasksRequest { resume_token: info.oldest_resume_token, ..Default::default() };
    let mut steps = server.tasks().watch_tasks(request).await.unwrap().into_inner();
    assert!(steps.message().await.unwrap().is_some(), "a watch after the oldest revision receives events");
}

#[tokio::test]
async fn events_with_large_payloads_are_kept_for_watches_up_to_a_number_of_bytes() {
    let mut server = Server::start(
        r#"
        [store]
        watch_window_bytes = "16MiB"
        [[pool]]
        name = "default"
        paused = true
        [[handler]]
        name = "echo"
        runner = "process"
        argv = ["/bin/cat"]
        "#,
    );
    let mut newest = 0;
    for attempt in ["first", "after a restart"] {
        for _ in 0..2 {
            let large = task("echo", &format!("\"{}\"", "a".repeat((1 << 20) - 2)));
            let batch = v1::BatchSubmitTasksRequest { tasks: vec![large; 14], batch_id: String::new() };
            server.tasks().batch_submit_tasks(batch).await.unwrap();
        }
        let before = newest;
        newest = eventually(async || {
            let info = server.system().get_server_info(v1::GetServerInfoRequest {}).await.unwrap().into_inner();
            let is_trimmed = info.oldest_revision >= before + 12 && info.oldest_revision < info.revision;
            check(is_trimmed, || format!("{attempt}: {info:?}")).map(|()| info.revision)
        })
        .await;
        server.kill9();
        server.start_again();
    }
}

const ECHO: &str = r#"
    [[pool]]
    name = "default"
    [[handler]]
    name = "echo"
    runner = "process"
    argv = ["/bin/cat"]
"#;

/// A task with a payload and a result of 1 MiB each.
fn large(namespace: &str) -> v1::SubmitTaskRequest {
    let namespace = namespace.to_owned();
    v1::SubmitTaskRequest { namespace, ..task("echo", &format!("\"{}\"", "a".repeat((1 << 20) - 2))) }
}

#[tokio::test]
async fn finished_tasks_of_a_namespace_have_no_more_than_so_many_bytes() {
    let mut server = Server::start(&format!("[retention]\nbytes = \"16MiB\"\n{ECHO}"));
    let other = server.submit(large("other")).await;
    server.wait_finished(&other).await;
    for attempt in ["first", "after a crash"] {
        let mut ids = Vec::new();
        for _ in 0..10 {
            ids.push(server.submit(large("loud")).await);
            assert_eq!(server.wait_finished(ids.last().unwrap()).await.state(), TaskState::Completed);
        }
        eventually(async || {
            let filter = Some(v1::TaskFilter { namespace: "loud".into(), ..Default::default() });
            let request = v1::ListTasksRequest { filter, ..Default::default() };
            let kept = server.tasks().list_tasks(request).await.unwrap().into_inner().tasks;
            let kept: Vec<_> = kept.into_iter().rev().map(|task| task.task_id).collect();
            check(kept == ids[3..], || format!("{attempt}: {kept:?} of {ids:?}"))
        })
        .await;
        server.kill9();
        server.start_again();
    }
    assert_eq!(server.get(&other).await.state(), TaskState::Completed);
}

#[tokio::test]
async fn space_of_deleted_tasks_is_returned_to_the_file_system() {
    let server = Server::start(ECHO);
    let file = server.directory.path().join("data/projection.db");
    let size = || std::fs::metadata(&file).unwrap().len() >> 20;
    for _ in 0..3 {
        let batch = v1::BatchSubmitTasksRequest { tasks: vec![large(""); 14], batch_id: String::new() };
        for id in server.tasks().batch_submit_tasks(batch).await.unwrap().into_inner().task_ids {
            server.wait_finished(&id).await;
        }
    }
    eventually(async || check(size() >= 48, || format!("{} MiB", size()))).await;
    let deleted = server.tasks().delete_tasks(v1::DeleteTasksRequest::default()).await.unwrap().into_inner().deleted;
    assert_eq!(deleted, 42);
    eventually(async || check(size() <= 24, || format!("{} MiB of 84 are left", size()))).await;
    let id = server.submit(large("")).await;
    assert_eq!(server.wait_finished(&id).await.state(), TaskState::Completed);
}

#[tokio::test]
async fn a_response_contains_the_durability_that_was_reached() {
    let config = "[[pool]]\nname = \"default\"\n[[pool]]\nname = \"fast\"\ndurability = \"memory\"\n";
    let (on_disk, in_memory) = (Server::start(config), Server::start_with(config, &[IN_MEMORY]));
    for (server, expected) in [(on_disk, v1::Durability::Fsync), (in_memory, v1::Durability::Memory)] {
        let default = server.tasks().submit_task(noop()).await.unwrap().into_inner();
        let fast = v1::SubmitTaskRequest { pool: "fast".into(), ..noop() };
        let fast = server.tasks().submit_task(fast).await.unwrap().into_inner();
        assert_eq!((default.durability(), fast.durability()), (expected, v1::Durability::Memory));
        let batch = v1::BatchSubmitTasksRequest { tasks: vec![noop(); 2], batch_id: String::new() };
        assert_eq!(server.tasks().batch_submit_tasks(batch).await.unwrap().into_inner().durability(), expected);
    }
}

#[tokio::test]
async fn timers_survive_a_crash() {
    let mut server = Server::start(
        "[[handler]]\nname = \"fails\"\nrunner = \"process\"\nargv = [\"/bin/false\"]\n[handler.retry]\nattempts = 2\ndelay = \"2s\"\njitter = 0.0\n",
    );
    server.set_paused("default", true).await;
    let expiring =
        server.submit(v1::SubmitTaskRequest { expires_after: seconds(2), delay: seconds(600), ..noop() }).await;
    let delayed = server.submit(v1::SubmitTaskRequest { delay: millis(1_500), ..noop() }).await;
    server.set_paused("default", false).await;
    let failing = server.submit(v1::SubmitTaskRequest { handler: "fails".into(), ..Default::default() }).await;
    server.wait_for_state(&failing, TaskState::Waiting).await;
    server.kill9();
    server.start_again();
    assert_eq!(server.wait_finished(&delayed).await.state(), TaskState::Completed);
    assert_eq!(server.wait_finished(&expiring).await.failure.unwrap().reason(), v1::FailureReason::Expired);
    let ended = server.wait_finished(&failing).await;
    assert_eq!((ended.state(), ended.attempt), (TaskState::Failed, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_under_load_and_the_events_after_it_are_consistent() {
    let server = Server::start("");
    let mut tasks = server.tasks();
    let (start, under_load) = tokio::sync::oneshot::channel();
    let load = tokio::spawn(async move {
        let mut start = Some(start);
        for nth in 0..30 {
            let batch = v1::BatchSubmitTasksRequest { tasks: vec![noop(); 200], batch_id: String::new() };
            tasks.batch_submit_tasks(batch).await.unwrap();
            if let Some(start) = start.take_if(|_| nth == 5) {
                start.send(()).unwrap();
            }
        }
    });
    under_load.await.unwrap();
    let request = v1::WatchTasksRequest { include_snapshot: true, ..Default::default() };
    let mut steps = server.tasks().watch_tasks(request).await.unwrap().into_inner();
    let mut tasks = std::collections::HashMap::new();
    let mut newest = 0;
    let read = async {
        while tasks.len() < 6_000 || tasks.values().any(|(_, state)| *state != i32::from(TaskState::Completed)) {
            match steps.message().await.unwrap().unwrap().kind.unwrap() {
                v1::watch_tasks_response::Kind::SnapshotEntry(task) => {
                    newest = newest.max(task.revision);
                    tasks.insert(task.task_id, (task.revision, task.state));
                }
                v1::watch_tasks_response::Kind::SnapshotComplete(complete) => {
                    assert!(newest <= complete.revision, "{newest} is in a snapshot at {}", complete.revision);
                    newest = complete.revision;
                }
                v1::watch_tasks_response::Kind::Event(event) => {
                    let entry = tasks.entry(event.task_id).or_insert((0, 0));
                    assert!(event.revision > entry.0, "{} was sent before, at {}", event.revision, entry.0);
                    *entry = (event.revision, event.state);
                }
                v1::watch_tasks_response::Kind::Progress(_) => {}
            }
        }
    };
    tokio::time::timeout(TIMEOUT, read).await.expect("the watch reports the end of every task");
    load.await.unwrap();
}

#[tokio::test]
async fn payloads_beyond_the_memory_budget_reach_their_handlers() {
    let config = "[limits]\nqueued_payload_bytes = \"1KiB\"\n[[pool]]\nname = \"default\"\npaused = true\n\
        [[handler]]\nname = \"echo\"\nrunner = \"process\"\nargv = [\"cat\"]\n";
    let mut server = Server::start(config);
    let text = |n: usize| format!("{n:0>600}");
    let mut ids = Vec::new();
    for n in 0..6 {
        let kind = Some(v1::payload::Kind::Data(text(n).into()));
        let payload = Some(v1::Payload { kind, content_type: "text/plain".into() });
        ids.push(server.submit(v1::SubmitTaskRequest { payload, ..task("echo", "null") }).await);
    }
    server.kill9();
    server.start_again();
    let resume = v1::UpdatePoolRequest { name: "default".into(), paused: Some(false), ..Default::default() };
    server.pools().update_pool(resume).await.unwrap();
    for (n, id) in ids.iter().enumerate() {
        let ended = server.wait_finished(id).await;
        assert_eq!(bytes(ended.result.as_ref()), text(n), "task {n}: {ended:?}");
    }
}
