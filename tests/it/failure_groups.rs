//! ListFailureGroups, and actions on a group.

use std::process::Command;

use lineshaft::proto::v1::{self, FailureReason, TaskState};

use crate::support::{BINARY, Server, fields, task};

/// Fails with a message and a code that are in its argument.
const CONFIG: &str = r#"
[[handler]]
name = "fails"
runner = "process"
argv = ["/bin/sh", "-c", "echo \"$1\" >&2; exit $0"]
arg_pattern = "[^-].*"
retry = { attempts = 1 }
"#;

async fn fail(server: &Server, code: &str, text: &str) -> String {
    let args = vec![code.to_owned(), text.to_owned()];
    let id = server.submit(v1::SubmitTaskRequest { args, ..task("fails", "null") }).await;
    assert_eq!(server.wait_finished(&id).await.state(), TaskState::Failed);
    id
}

async fn groups(server: &Server) -> v1::ListFailureGroupsResponse {
    server.tasks().list_failure_groups(v1::ListFailureGroupsRequest::default()).await.unwrap().into_inner()
}

fn of(group: &str) -> Option<v1::TaskFilter> {
    Some(v1::TaskFilter { failure_group: group.to_owned(), ..Default::default() })
}

#[tokio::test]
async fn failures_with_one_cause_are_listed_retried_and_deleted_together() {
    let mut server = Server::start(CONFIG);
    let mut rows = Vec::new();
    for text in ["KeyError: 'a', line 17", "KeyError: 'b', line 4", "KeyError: 'c', line 230"] {
        rows.push(fail(&server, "3", text).await);
    }
    let other = fail(&server, "4", "KeyError: 'a', line 17").await;
    let listed = groups(&server).await;
    assert_eq!((listed.tasks, listed.at_least, listed.groups.len()), (4, false, 2));
    let group = &listed.groups[0];
    assert_eq!((group.count, group.reason(), &*group.handler), (3, FailureReason::HandlerError, "fails"));
    assert!(group.message.ends_with("KeyError: 'c', line 230"), "{group:?}");
    assert_eq!(group.example_task_id, rows[2]);
    let time = |at: &Option<prost_types::Timestamp>| at.map(|at| (at.seconds, at.nanos)).unwrap();
    assert!(time(&group.first_at) < time(&group.last_at));
    assert_eq!(listed.groups[1].example_task_id, other);

    server.kill9();
    server.start_again();
    assert_eq!(groups(&server).await.groups, listed.groups, "a group keeps its ID");
    let request = v1::ListTasksRequest { filter: of(&group.id), ..Default::default() };
    let tasks = server.tasks().list_tasks(request).await.unwrap().into_inner().tasks;
    assert_eq!(tasks.iter().rev().map(|task| task.task_id.clone()).collect::<Vec<_>>(), rows);

    #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
    let run =
        |args: &[&str]| Command::new(BINARY).args(args).env("LINESHAFT_SERVER", &server.address).output().unwrap();
    let shown = String::from_utf8(run(&["task", "failures"]).stdout).unwrap();
    assert!(shown.contains(&group.id) && shown.contains("HANDLER_ERROR"), "{shown}");
    let retried = String::from_utf8(run(&["task", "retry", "--failure-group", &group.id]).stdout).unwrap();
    assert_eq!(retried.lines().count(), 3, "{retried}");
    for id in retried.lines() {
        server.wait_finished(id).await;
    }
    assert_eq!(groups(&server).await.groups[0].count, 6, "they have failed again");

    let preview = v1::DeleteTasksRequest { filter: of(&group.id), validate_only: true };
    assert_eq!(server.tasks().delete_tasks(preview.clone()).await.unwrap().into_inner().deleted, 6);
    let delete = v1::DeleteTasksRequest { validate_only: false, ..preview };
    assert_eq!(server.tasks().delete_tasks(delete).await.unwrap().into_inner().deleted, 6);
    let left: Vec<_> = groups(&server).await.groups.into_iter().map(|group| group.example_task_id).collect();
    assert_eq!(left, [other]);
}

#[tokio::test]
async fn a_group_has_only_failed_tasks() {
    let server = Server::start("");
    let states = v1::TaskFilter { states: vec![TaskState::Queued.into()], ..Default::default() };
    let request = v1::ListFailureGroupsRequest { filter: Some(states) };
    assert_eq!(fields(&server.tasks().list_failure_groups(request).await.unwrap_err()), ["filter.states"]);
    let request = v1::ListFailureGroupsRequest { filter: of("x") };
    assert_eq!(fields(&server.tasks().list_failure_groups(request).await.unwrap_err()), ["filter.failure_group"]);
}
