//! UpdateTask: changes of a task that has not started.

use std::collections::BTreeMap;
use std::process::Command;

use lineshaft::proto::v1::{self, Priority, TaskState};
use tonic::Status;

use crate::support::{BINARY, Server, noop, reason, seconds, task};

const CONFIG: &str = "[[pool]]\nname = \"default\"\nsize = 1\n";

async fn update(server: &Server, id: &str, update: v1::TaskUpdate) -> Result<v1::UpdateTaskResponse, Status> {
    let request = v1::UpdateTaskRequest { task_id: id.to_owned(), update: Some(update) };
    Ok(server.tasks().update_task(request).await?.into_inner())
}

/// A task that keeps the only worker, and starts again before all others.
async fn start_gate(server: &Server) -> String {
    let gate = v1::SubmitTaskRequest { priority: Priority::Critical.into(), ..task("io", "3600") };
    let gate = server.submit(gate).await;
    server.wait_started(&gate).await;
    gate
}

async fn cancel(server: &Server, id: &str) {
    let request = v1::CancelTaskRequest { task_id: id.to_owned(), ..Default::default() };
    server.tasks().cancel_task(request).await.unwrap();
}

fn named(id: &str) -> v1::SubmitTaskRequest {
    v1::SubmitTaskRequest { task_id: id.to_owned(), ..noop() }
}

fn to_priority(priority: Priority) -> v1::TaskUpdate {
    v1::TaskUpdate { priority: priority.into(), ..Default::default() }
}

#[tokio::test]
async fn a_waiting_task_starts_by_its_new_priority_and_keeps_it_over_a_restart() {
    let mut server = Server::start(CONFIG);
    let gate = start_gate(&server).await;
    for id in ["first", "second", "late"] {
        server.submit(named(id)).await;
    }
    let changes = v1::TaskUpdate {
        priority: Priority::High.into(),
        timeout: seconds(77),
        labels: BTreeMap::from([("team".to_owned(), "red".to_owned())]),
        expires_after: seconds(3_000),
        ..Default::default()
    };
    let updated = update(&server, "second", changes).await.unwrap();
    assert_eq!(updated.state(), TaskState::Queued);
    let late = v1::TaskUpdate { delay: seconds(3_000), ..Default::default() };
    assert_eq!(update(&server, "late", late).await.unwrap().state(), TaskState::Waiting);

    let check = async |server: &Server| {
        let task = server.get("second").await;
        assert_eq!((task.priority(), task.timeout, task.revision), (Priority::High, seconds(77), updated.revision));
        assert!(task.expires_at.unwrap().seconds - task.submitted_at.unwrap().seconds >= 3_000);
        let by_label = v1::TaskFilter {
            labels: task.labels.clone(),
            priorities: vec![Priority::High.into()],
            ..Default::default()
        };
        let listed = v1::ListTasksRequest { filter: Some(by_label), ..Default::default() };
        let listed = server.tasks().list_tasks(listed).await.unwrap().into_inner().tasks;
        assert_eq!(listed.iter().map(|task| &*task.task_id).collect::<Vec<_>>(), ["second"]);
        let late = server.get("late").await;
        assert_eq!(late.state(), TaskState::Waiting);
        assert!(late.eligible_at.unwrap().seconds - late.submitted_at.unwrap().seconds >= 3_000);
    };
    check(&server).await;
    server.kill9();
    server.start_again();
    check(&server).await;
    // The repetition of a submission is still recognised.
    let again = server.tasks().submit_task(named("second")).await.unwrap().into_inner();
    assert!(again.duplicate);

    cancel(&server, &gate).await;
    let second = server.wait_finished("second").await;
    let first = server.wait_finished("first").await;
    let start = |task: &v1::Task| task.started_at.map(|at| (at.seconds, at.nanos)).unwrap();
    assert!(start(&second) < start(&first));
    assert_eq!(
        update(&server, "late", v1::TaskUpdate { delay: seconds(0), ..Default::default() }).await.unwrap().state(),
        TaskState::Queued
    );
    server.wait_finished("late").await;
}

#[tokio::test]
async fn a_task_that_has_started_or_ended_is_refused() {
    let server = Server::start(CONFIG);
    let gate = start_gate(&server).await;
    let refused = async |id: &str| reason(&update(&server, id, to_priority(Priority::High)).await.unwrap_err());
    assert_eq!(refused(&gate).await, "TASK_STARTED");
    cancel(&server, &gate).await;
    server.wait_finished(&gate).await;
    assert_eq!(refused(&gate).await, "TASK_FINISHED");
    assert_eq!(refused("nosuch").await, "TASK_NOT_FOUND");
    assert_eq!(reason(&update(&server, &gate, v1::TaskUpdate::default()).await.unwrap_err()), "INVALID_FIELD");
}

#[tokio::test]
async fn a_retry_of_an_updated_task_does_not_expire() {
    let server = Server::start(CONFIG);
    start_gate(&server).await;
    server.submit(named("a")).await;
    // More than a submission may have, counted from the first one.
    let year = v1::TaskUpdate { expires_after: seconds(365 * 24 * 3_600), ..Default::default() };
    update(&server, "a", year).await.unwrap();
    cancel(&server, "a").await;
    let request = v1::RetryTaskRequest { task_id: "a".to_owned(), ..Default::default() };
    let again = server.tasks().retry_task(request).await.unwrap().into_inner();
    assert_eq!(server.get(&again.task.unwrap().task_id).await.expires_at, None);
}

#[tokio::test]
async fn a_watch_receives_the_update_by_which_a_task_leaves_its_filter() {
    let mut server = Server::start(CONFIG);
    let red = BTreeMap::from([("team".to_owned(), "red".to_owned())]);
    let task = v1::SubmitTaskRequest {
        delay: seconds(3_000),
        labels: red.clone(),
        priority: Priority::High.into(),
        ..named("delayed")
    };
    let token = server.tasks().submit_task(task).await.unwrap().into_inner().resume_token;
    let removal = v1::TaskUpdate { remove_labels: vec!["team".to_owned()], ..Default::default() };
    let first = update(&server, "delayed", removal).await.unwrap().revision;
    let lower = v1::TaskUpdate { priority: Priority::Low.into(), ..Default::default() };
    let second = update(&server, "delayed", lower).await.unwrap().revision;
    for has_restarted in [false, true] {
        if has_restarted {
            server.kill9();
            server.start_again();
        }
        for (filter, expected) in [
            (v1::TaskFilter { labels: red.clone(), ..Default::default() }, vec![first]),
            (v1::TaskFilter { priorities: vec![Priority::High.into()], ..Default::default() }, vec![first, second]),
            (v1::TaskFilter { priorities: vec![Priority::Low.into()], ..Default::default() }, vec![second]),
        ] {
            let request = v1::WatchTasksRequest {
                filter: Some(filter),
                resume_token: token.clone(),
                progress_interval: Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 }),
                ..Default::default()
            };
            let mut watch = server.tasks().watch_tasks(request).await.unwrap().into_inner();
            let mut updates = Vec::new();
            loop {
                match watch.message().await.unwrap().unwrap().kind.unwrap() {
                    v1::watch_tasks_response::Kind::Event(event) if event.updated => updates.push(event.revision),
                    v1::watch_tasks_response::Kind::Progress(progress) if progress.revision >= second => break,
                    _ => {}
                }
            }
            assert_eq!(updates, expected, "after a restart: {has_restarted}");
        }
    }
}

#[tokio::test]
async fn a_watch_receives_the_update_with_the_labels() {
    let server = Server::start(CONFIG);
    let delayed = v1::SubmitTaskRequest { delay: seconds(3_000), ..named("delayed") };
    let submitted = server.tasks().submit_task(delayed).await.unwrap().into_inner();
    let filter =
        v1::TaskFilter { labels: BTreeMap::from([("team".to_owned(), "red".to_owned())]), ..Default::default() };
    let request =
        v1::WatchTasksRequest { filter: Some(filter), resume_token: submitted.resume_token, ..Default::default() };
    let mut watch = server.tasks().watch_tasks(request).await.unwrap().into_inner();
    #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
    let mut command = Command::new(BINARY);
    command.args(["task", "update", "delayed", "--with-label", "team=red", "--with-priority", "low"]);
    let output = command.env("LINESHAFT_SERVER", &server.address).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "delayed WAITING\n");
    let event = loop {
        if let Some(v1::watch_tasks_response::Kind::Event(event)) = watch.message().await.unwrap().unwrap().kind {
            break event;
        }
    };
    assert!(event.updated && event.state() == TaskState::Waiting && event.priority() == Priority::Low);
    assert_eq!(event.labels["team"], "red");
}
