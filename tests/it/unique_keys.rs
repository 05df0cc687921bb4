//! Unique keys: many submitters at once, replacing, crashes, and refusals.

use std::process::Command;

use lineshaft::proto::v1::{self, OnUniqueConflict, TaskState, run_task_response};
use tonic::Code;

use crate::support::{BINARY, Server, fields, noop, reason, task};

fn unique(key: &str, rule: OnUniqueConflict, request: v1::SubmitTaskRequest) -> v1::SubmitTaskRequest {
    v1::SubmitTaskRequest { unique_key: key.to_owned(), on_unique_conflict: rule.into(), ..request }
}

fn long(key: &str, rule: OnUniqueConflict) -> v1::SubmitTaskRequest {
    unique(key, rule, task("io", "3600"))
}

#[tokio::test]
async fn many_submissions_at_once_with_a_key_become_one_task() {
    let server = Server::start("");
    let submissions = (0..40).map(|_| {
        let mut tasks = server.tasks();
        tokio::spawn(async move {
            let submitted = tasks.submit_task(long("k", OnUniqueConflict::UseExisting)).await;
            submitted.map(tonic::Response::into_inner)
        })
    });
    let submissions: Vec<_> = submissions.collect();
    let mut responses = Vec::new();
    for submission in submissions {
        responses.push(submission.await.unwrap().unwrap());
    }
    let (first, others): (Vec<_>, Vec<_>) = responses.into_iter().partition(|response| !response.duplicate);
    assert_eq!((first.len(), others.len()), (1, 39));
    assert!(others.iter().all(|response| response.task_id == first[0].task_id));
    assert_eq!(server.get(&first[0].task_id).await.unique_key, "k");
}

/// Uses a result of the last seconds.
fn reusing(key: &str, seconds: i64) -> v1::SubmitTaskRequest {
    let reuse_result_within = Some(prost_types::Duration { seconds, nanos: 0 });
    v1::SubmitTaskRequest { reuse_result_within, ..unique(key, OnUniqueConflict::Fail, task("compute", "5")) }
}

#[tokio::test]
async fn a_result_is_used_again_also_after_a_crash_and_not_after_its_deletion() {
    let mut server = Server::start("");
    let first = server.submit(reusing("k", 3600)).await;
    server.wait_finished(&first).await;
    server.kill9();
    server.start_again();
    let second = server.tasks().submit_task(reusing("k", 3600)).await.unwrap().into_inner();
    assert_eq!((&second.task_id, second.state(), second.duplicate), (&first, TaskState::Completed, true));
    let tasks = vec![reusing("k", 3600)];
    let batch = v1::BatchSubmitTasksRequest { tasks, batch_id: "night".to_owned() };
    let batch = server.tasks().batch_submit_tasks(batch).await.unwrap().into_inner();
    assert_eq!((&batch.task_ids[0], &*batch.batch_id), (&first, ""), "it is in no batch");
    let other = server.submit(reusing("l", 3600)).await;
    assert_ne!(other, first);
    let filter = Some(v1::TaskFilter { task_ids: vec![first.clone()], ..v1::TaskFilter::default() });
    server.tasks().delete_tasks(v1::DeleteTasksRequest { filter, ..Default::default() }).await.unwrap();
    assert_ne!(server.submit(reusing("k", 3600)).await, first);
}

#[tokio::test]
async fn a_watcher_of_a_used_result_gets_its_end() {
    let server = Server::start("");
    let first = server.submit(reusing("k", 3600)).await;
    server.wait_finished(&first).await;
    let request = v1::RunTaskRequest { task: Some(reusing("k", 3600)) };
    let mut run = server.tasks().run_task(request).await.unwrap().into_inner();
    let mut last = None;
    while let Some(message) = run.message().await.unwrap() {
        last = message.kind;
    }
    let Some(run_task_response::Kind::Task(task)) = last else { panic!("no result: {last:?}") };
    assert_eq!((task.task_id.as_str(), task.state()), (first.as_str(), TaskState::Completed));
}

#[tokio::test]
async fn a_key_outlives_a_crash_and_is_free_when_its_task_has_ended() {
    let mut server = Server::start("");
    let first = server.submit(long("k", OnUniqueConflict::Fail)).await;
    server.wait_started(&first).await;
    server.kill9();
    server.start_again();
    let refused = server.tasks().submit_task(long("k", OnUniqueConflict::Fail)).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::AlreadyExists, "UNIQUE_KEY_TAKEN"));
    assert!(refused.message().contains(&first), "{refused}");
    server.tasks().cancel_task(v1::CancelTaskRequest { task_id: first.clone(), ..Default::default() }).await.unwrap();
    server.wait_finished(&first).await;
    server.submit(unique("k", OnUniqueConflict::Fail, noop())).await;
}

#[tokio::test]
async fn the_latest_of_many_submissions_runs_after_the_one_that_has_started() {
    let server = Server::start("");
    let limits = vec![v1::TaskLimit { key: "k".to_owned(), max_running: 1, ..Default::default() }];
    let version = |seconds: &str| v1::SubmitTaskRequest {
        limits: limits.clone(),
        ..unique("k", OnUniqueConflict::ReplaceQueued, task("io", seconds))
    };
    let running = server.submit(version("3600")).await;
    server.wait_started(&running).await;
    let mut waiting = Vec::new();
    for _ in 0..5 {
        waiting.push(server.submit(version("0")).await);
    }
    let latest = waiting.pop().unwrap();
    for id in &waiting {
        let replaced = server.wait_finished(id).await;
        assert_eq!(replaced.state(), TaskState::Cancelled);
        assert!(replaced.cancel.unwrap().reason.starts_with("replaced by task "));
    }
    assert_eq!(server.get(&running).await.state(), TaskState::Running);
    server.tasks().cancel_task(v1::CancelTaskRequest { task_id: running, ..Default::default() }).await.unwrap();
    assert_eq!(server.wait_finished(&latest).await.state(), TaskState::Completed);
}

/// The pool has the attempt already, since one is running and others are dispatched ahead.
#[tokio::test]
async fn a_task_that_waits_for_a_busy_worker_is_replaced() {
    let server = Server::start("[[pool]]\nname = \"default\"\nsize = 1\n");
    let busy = server.submit(task("io", "3600")).await;
    server.wait_started(&busy).await;
    let mut last = server.submit(long("k", OnUniqueConflict::Fail)).await;
    for _ in 0..20 {
        let next = server.submit(long("k", OnUniqueConflict::ReplaceQueued)).await;
        assert_eq!(server.wait_finished(&last).await.state(), TaskState::Cancelled);
        last = next;
    }
    assert_eq!(server.get(&last).await.state(), TaskState::Queued);
}

#[tokio::test]
async fn a_key_can_appear_several_times_in_a_call() {
    let server = Server::start("");
    server.set_paused("default", true).await;
    let call = |rules: &[OnUniqueConflict]| {
        let tasks = rules.iter().map(|rule| long("k", *rule)).collect();
        let mut client = server.tasks();
        async move { client.batch_submit_tasks(v1::BatchSubmitTasksRequest { tasks, ..Default::default() }).await }
    };
    let refused = call(&[OnUniqueConflict::Fail, OnUniqueConflict::Fail]).await.unwrap_err();
    assert_eq!(reason(&refused), "UNIQUE_KEY_TAKEN");
    assert!(refused.message().contains("`tasks[0]` of the same call"), "{refused}");
    let rules = [OnUniqueConflict::Fail, OnUniqueConflict::UseExisting, OnUniqueConflict::ReplaceQueued];
    let accepted = call(&rules).await.unwrap().into_inner();
    let [first, same, last] = &*accepted.task_ids else { panic!("{accepted:?}") };
    assert_eq!((first, &*accepted.duplicates), (same, [false, true, false].as_slice()));
    assert_eq!(server.wait_finished(first).await.state(), TaskState::Cancelled);
    assert_eq!(server.get(last).await.state(), TaskState::Queued);
}

#[tokio::test]
async fn keys_that_cannot_be_kept_are_refused_by_their_field() {
    let server = Server::start("");
    let invalid = |request: v1::SubmitTaskRequest| {
        let mut tasks = server.tasks();
        async move { fields(&tasks.submit_task(request).await.unwrap_err()) }
    };
    assert_eq!(invalid(long("has space", OnUniqueConflict::Fail)).await, ["unique_key"]);
    assert_eq!(invalid(long("", OnUniqueConflict::UseExisting)).await, ["on_unique_conflict"]);
    let unknown = v1::SubmitTaskRequest { on_unique_conflict: 9, ..long("k", OnUniqueConflict::Fail) };
    assert_eq!(invalid(unknown).await, ["on_unique_conflict"]);
    assert_eq!(invalid(reusing("", 1)).await, ["on_unique_conflict", "reuse_result_within"]);
    assert_eq!(invalid(reusing("k", 0)).await, ["reuse_result_within"]);
}

#[tokio::test]
async fn the_command_replaces_a_queued_task() {
    let server = Server::start("");
    server.set_paused("default", true).await;
    let submit = |rule: &str| {
        let arguments = ["task", "submit", "io", "--json", "0", "--unique-key", "k", "--on-unique-conflict", rule];
        #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
        let mut command = Command::new(BINARY);
        let output = command.args(arguments).env("LINESHAFT_SERVER", &server.address).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr))
    };
    let (succeeded, first) = submit("fail");
    assert!(succeeded, "{first}");
    let (succeeded, refused) = submit("fail");
    assert!(!succeeded && refused.contains("unique key `k`"), "{refused}");
    assert!(submit("replace-queued").0);
    assert_eq!(server.wait_finished(first.trim()).await.state(), TaskState::Cancelled);
}
