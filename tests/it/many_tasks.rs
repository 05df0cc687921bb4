//! CancelTasks, UpdateTasks, RetryTasks and the preview of DeleteTasks: all tasks that match a filter.

use std::collections::BTreeMap;

use lineshaft::proto::v1::{self, Priority, TaskState};
use tonic::{Response, Status, Streaming};

use crate::support::{Server, noop, reason, seconds, task};

const CONFIG: &str = r#"
[[pool]]
name = "default"
size = 1
queue_limit = 5000
"#;
/// More than a page.
const MANY: usize = 1_203;
const COUNT: i64 = 1_203;

fn red() -> Option<v1::TaskFilter> {
    let labels = BTreeMap::from([("team".to_owned(), "red".to_owned())]);
    Some(v1::TaskFilter { labels, ..Default::default() })
}

fn labelled(request: v1::SubmitTaskRequest) -> v1::SubmitTaskRequest {
    v1::SubmitTaskRequest { labels: red().unwrap().labels, ..request }
}

async fn submit_many(server: &Server, count: usize) -> Vec<String> {
    let tasks = vec![labelled(noop()); count];
    let request = v1::BatchSubmitTasksRequest { tasks, ..Default::default() };
    server.tasks().batch_submit_tasks(request).await.unwrap().into_inner().task_ids
}

/// A task that keeps the only worker.
async fn start_gate(server: &Server) -> String {
    let gate = v1::SubmitTaskRequest { priority: Priority::Critical.into(), ..task("io", "3600") };
    let gate = server.submit(gate).await;
    server.wait_started(&gate).await;
    gate
}

async fn messages<T>(stream: Result<Response<Streaming<T>>, Status>) -> Vec<T> {
    let mut stream = stream.unwrap().into_inner();
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        messages.push(message);
    }
    messages
}

#[tokio::test]
async fn all_unfinished_tasks_that_match_are_counted_and_then_cancelled() {
    let server = Server::start(CONFIG);
    let gate = start_gate(&server).await;
    let ids = submit_many(&server, MANY).await;
    let other = server.submit(noop()).await;
    let request = v1::CancelTasksRequest { filter: red(), validate_only: true, ..Default::default() };
    let counted = messages(server.tasks().cancel_tasks(request.clone()).await).await;
    assert_eq!(counted.last().map(|last| (last.matched, last.cancelled)), Some((COUNT, 0)));
    assert_eq!(server.get(&ids[0]).await.state(), TaskState::Queued);

    let request = v1::CancelTasksRequest { validate_only: false, reason: "over".to_owned(), ..request };
    let cancelled = messages(server.tasks().cancel_tasks(request.clone()).await).await;
    assert!(cancelled.len() > 4, "progress while tasks are counted and cancelled");
    assert_eq!(
        cancelled.last(),
        Some(&v1::CancelTasksResponse { matched: COUNT, cancelled: COUNT, stopping: 0, skipped: 0 })
    );
    let last = server.get(&ids[MANY - 1]).await;
    assert_eq!((last.state(), &*last.cancel.unwrap().reason), (TaskState::Cancelled, "over"));
    for id in [&gate, &other] {
        assert!(!matches!(server.get(id).await.state(), TaskState::Cancelled), "{id} does not match");
    }
    let again = messages(server.tasks().cancel_tasks(request).await).await;
    assert_eq!(again.last().unwrap().matched, 0, "nothing is left to do");

    let preview = v1::DeleteTasksRequest { filter: red(), validate_only: true };
    let deleted = server.tasks().delete_tasks(preview).await.unwrap().into_inner();
    assert_eq!(deleted.deleted, COUNT);
    assert_eq!(server.get(&ids[0]).await.state(), TaskState::Cancelled, "it was only counted");
    let finished = v1::TaskFilter { states: vec![TaskState::Completed.into()], ..Default::default() };
    let nothing = v1::CancelTasksRequest { filter: Some(finished), ..Default::default() };
    assert_eq!(reason(&server.tasks().cancel_tasks(nothing).await.unwrap_err()), "INVALID_FIELD");
}

#[tokio::test]
async fn a_call_whose_client_goes_is_in_the_audit_log() {
    let server = Server::start(CONFIG);
    start_gate(&server).await;
    submit_many(&server, MANY).await;
    let request = v1::CancelTasksRequest { filter: red(), ..Default::default() };
    let mut stream = server.tasks().cancel_tasks(request).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().unwrap().matched > 0);
    drop(stream);
    server.wait_logged("CancelTasks").await;
}

#[tokio::test]
async fn updated_tasks_keep_the_order_of_their_submission() {
    let server = Server::start(CONFIG);
    let gate = start_gate(&server).await;
    let first = server.submit(noop()).await;
    let ids = submit_many(&server, MANY).await;
    let update = v1::TaskUpdate { priority: Priority::High.into(), ..Default::default() };
    let request = v1::UpdateTasksRequest { filter: red(), update: Some(update), validate_only: false };
    let updated = messages(server.tasks().update_tasks(request).await).await;
    assert_eq!(updated.last(), Some(&v1::UpdateTasksResponse { matched: COUNT, updated: COUNT, skipped: 0 }));
    let cancel = v1::CancelTaskRequest { task_id: gate, ..Default::default() };
    server.tasks().cancel_task(cancel).await.unwrap();
    let first = server.wait_finished(&first).await;
    let mut starts = Vec::new();
    for id in ids.iter().step_by(100) {
        starts.push(server.get(id).await.started_at.map(|at| (at.seconds, at.nanos)).unwrap());
    }
    assert!(starts.is_sorted(), "{starts:?}");
    assert!(first.started_at.map(|at| (at.seconds, at.nanos)) > starts.last().copied(), "it had a lower priority");
}

#[tokio::test]
async fn a_repeated_retry_of_many_tasks_submits_none_twice() {
    let server = Server::start(CONFIG);
    let mut failed = Vec::new();
    for _ in 0..3 {
        let id = server.submit(labelled(task("compute", r#"{"op":"nosuch"}"#))).await;
        assert_eq!(server.wait_finished(&id).await.state(), TaskState::Failed);
        failed.push(id);
    }
    let request = v1::RetryTasksRequest { filter: red(), request_id: "night-1".to_owned(), ..Default::default() };
    let new_ids = |messages: Vec<v1::RetryTasksResponse>| {
        messages.into_iter().flat_map(|message| message.task_ids).collect::<Vec<_>>()
    };
    let new = new_ids(messages(server.tasks().retry_tasks(request.clone()).await).await);
    assert_eq!(new.len(), 3);
    for (id, of) in new.iter().zip(&failed) {
        let again = server.wait_finished(id).await;
        assert_eq!((&again.retry_of, again.state()), (of, TaskState::Failed));
    }
    let repeated = messages(server.tasks().retry_tasks(request.clone()).await).await;
    let last = repeated.last().unwrap();
    assert_eq!((last.matched, last.retried, last.skipped), (6, 3, 3), "the new ones are left out");
    assert_eq!(new_ids(repeated), new);
    let other = v1::RetryTasksRequest { priority: Priority::High.into(), ..request };
    let mut other = server.tasks().retry_tasks(other).await.unwrap().into_inner();
    let refused = loop {
        match other.message().await {
            Ok(message) => assert!(message.is_some(), "the request ID was used with another priority"),
            Err(refused) => break refused,
        }
    };
    assert_eq!(reason(&refused), "REQUEST_ID_REUSED");
    assert!(refused.message().starts_with("request ID `night-1` was already used for task "), "{refused:?}");
    let delayed = v1::TaskUpdate { delay: seconds(3_000), ..Default::default() };
    let request = v1::UpdateTasksRequest { filter: red(), update: Some(delayed), validate_only: true };
    assert_eq!(messages(server.tasks().update_tasks(request).await).await.last().unwrap().matched, 0);
}
