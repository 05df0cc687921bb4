//! Dependencies: graphs in one call, rules for failed parents, refusals, retention, and crashes in the middle.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use lineshaft::proto::v1::{self, FailureReason, OnParentFailure, TaskState};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tonic::{Code, Status};

use crate::support::{BINARY, Server, bytes, fields, noop, reason, task};

fn named(id: &str) -> v1::SubmitTaskRequest {
    v1::SubmitTaskRequest { task_id: id.to_owned(), ..noop() }
}

fn after(parents: &[&str], rule: OnParentFailure, task: v1::SubmitTaskRequest) -> v1::SubmitTaskRequest {
    let task_ids = parents.iter().map(ToString::to_string).collect();
    let dependencies = v1::Dependencies { task_ids, on_parent_failure: rule.into(), ..Default::default() };
    v1::SubmitTaskRequest { dependencies: Some(dependencies), ..task }
}

fn after_places(places: &[i32], task: v1::SubmitTaskRequest) -> v1::SubmitTaskRequest {
    let dependencies = v1::Dependencies { batch_indices: places.to_vec(), ..Default::default() };
    v1::SubmitTaskRequest { dependencies: Some(dependencies), ..task }
}

/// A task that runs until it is cancelled.
fn endless(id: &str) -> v1::SubmitTaskRequest {
    v1::SubmitTaskRequest { task_id: id.to_owned(), ..task("io", "3600") }
}

async fn submit_batch(server: &Server, tasks: Vec<v1::SubmitTaskRequest>) -> Result<Vec<String>, Status> {
    let request = v1::BatchSubmitTasksRequest { tasks, ..Default::default() };
    Ok(server.tasks().batch_submit_tasks(request).await?.into_inner().task_ids)
}

async fn cancel(server: &Server, id: &str) {
    let request = v1::CancelTaskRequest { task_id: id.to_owned(), ..Default::default() };
    server.tasks().cancel_task(request).await.unwrap();
}

fn time(at: Option<&prost_types::Timestamp>) -> (i64, i32) {
    at.map(|at| (at.seconds, at.nanos)).unwrap()
}

/// Checks that a task that has ended started after all of its parents had ended.
async fn started_after_its_parents(server: &Server, id: &str) {
    let child = server.get(id).await;
    for parent in &child.dependencies.as_ref().unwrap().parent_ids {
        let parent = server.get(parent).await;
        assert_eq!(parent.state(), TaskState::Completed);
        assert!(time(parent.finished_at.as_ref()) <= time(child.started_at.as_ref()), "{id} starts too early");
    }
}

#[tokio::test]
async fn a_graph_in_one_call_runs_in_its_order_and_a_waiting_task_shows_what_it_waits_for() {
    let server = Server::start("");
    server.submit(endless("gate")).await;
    let diamond = vec![
        after_places(&[1, 2], named("bottom")),
        after_places(&[3], named("left")),
        after_places(&[3], named("right")),
        after(&["gate"], OnParentFailure::Run, named("top")),
    ];
    submit_batch(&server, diamond).await.unwrap();
    let bottom = server.get("bottom").await;
    assert_eq!(bottom.state(), TaskState::Waiting);
    let dependencies = bottom.dependencies.unwrap();
    assert_eq!(dependencies.parent_ids, ["left", "right"]);
    assert_eq!((dependencies.parents, dependencies.unfinished_parents), (2, 2));
    assert_eq!(dependencies.unfinished_parent_ids, ["left", "right"]);
    assert_eq!(dependencies.on_parent_failure(), OnParentFailure::Fail);
    let listed = server.tasks().list_tasks(v1::ListTasksRequest::default()).await.unwrap().into_inner().tasks;
    let listed = listed.iter().find(|task| task.task_id == "bottom").unwrap().dependencies.clone().unwrap();
    assert_eq!((listed.parents, listed.parent_ids.len()), (2, 0));

    cancel(&server, "gate").await;
    assert_eq!(server.wait_finished("bottom").await.state(), TaskState::Completed);
    for id in ["bottom", "left", "right"] {
        started_after_its_parents(&server, id).await;
    }
    let ended = server.get("bottom").await.dependencies.unwrap();
    assert_eq!((ended.parent_ids.len(), ended.unfinished_parents), (2, 0));
}

#[tokio::test]
async fn the_rule_of_a_task_decides_what_the_cancel_of_a_parent_means() {
    let server = Server::start("");
    server.submit(endless("parent")).await;
    for (id, rule) in
        [("fail", OnParentFailure::Fail), ("run", OnParentFailure::Run), ("cancel", OnParentFailure::Cancel)]
    {
        server.submit(after(&["parent"], rule, named(id))).await;
    }
    server.submit(after(&["cancel"], OnParentFailure::Cancel, named("grandchild"))).await;
    cancel(&server, "parent").await;
    let failed = server.wait_finished("fail").await;
    let failure = failed.failure.clone().unwrap();
    assert_eq!((failed.state(), failure.reason()), (TaskState::Failed, FailureReason::DependencyFailed));
    assert_eq!(failure.message, "the parent `parent` was cancelled");
    assert_eq!(server.wait_finished("run").await.state(), TaskState::Completed);
    for (id, parent) in [("cancel", "parent"), ("grandchild", "cancel")] {
        let cancelled = server.wait_finished(id).await;
        assert_eq!(cancelled.state(), TaskState::Cancelled);
        assert_eq!(cancelled.cancel.unwrap().reason, format!("the parent `{parent}` was cancelled"));
    }
    let late = server.submit(after(&["parent"], OnParentFailure::Fail, noop())).await;
    assert_eq!(server.wait_finished(&late).await.state(), TaskState::Failed, "its parent was cancelled before");
}

#[tokio::test]
async fn a_submission_that_names_no_possible_parents_is_refused_as_a_whole() {
    let server = Server::start("");
    let unknown = vec![named("first"), after(&["first", "gone"], OnParentFailure::Fail, noop())];
    let refused = submit_batch(&server, unknown).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::NotFound, "PARENT_NOT_FOUND"));
    let expected =
        "`tasks[1].dependencies.task_ids[1]` is `gone`, which does not exist in namespace `default` or was deleted";
    assert_eq!(refused.message(), expected);

    let unknown = || Some(after(&["gone"], OnParentFailure::Fail, noop()));
    let expected = "`task.dependencies.task_ids[0]` is `gone`,";
    let refused = server.tasks().run_task(v1::RunTaskRequest { task: unknown() }).await.unwrap_err();
    assert!(refused.message().starts_with(expected), "{refused:?}");
    let stream = tokio_stream::iter([v1::SubmitTasksRequest { sequence: 7, task: unknown() }]);
    let mut responses = server.tasks().submit_tasks(stream).await.unwrap().into_inner();
    let outcome = responses.message().await.unwrap().unwrap().outcome;
    let Some(v1::submit_tasks_response::Outcome::Rejected(refused)) = outcome else { panic!("{outcome:?}") };
    assert!(refused.message.starts_with(expected), "{refused:?}");

    let cycle = vec![named("first"), after_places(&[2], noop()), after_places(&[0, 1], noop())];
    let refused = submit_batch(&server, cycle).await.unwrap_err();
    assert_eq!(
        (reason(&refused).as_str(), fields(&refused)),
        ("INVALID_FIELD", vec!["tasks[1].dependencies".to_owned()])
    );
    assert!(refused.message().ends_with("tasks[1] -> tasks[2] -> tasks[1]"), "{refused:?}");

    let outside = submit_batch(&server, vec![named("first"), after_places(&[2], noop())]).await.unwrap_err();
    assert_eq!(outside.message(), "`tasks[1].dependencies.batch_indices[0]` is 2, must be from 0 to 1");
    let alone = server.tasks().submit_task(after_places(&[0], noop())).await.unwrap_err();
    assert_eq!(fields(&alone), ["dependencies.batch_indices[0]"]);
    let places: Vec<i32> = vec![0; 10_000];
    let too_many = (0..11).map(|_| after_places(&places, noop())).collect();
    let too_many = submit_batch(&server, too_many).await.unwrap_err();
    assert_eq!(too_many.message(), "`tasks` has 110000 parents in all, at most 100000 are allowed");

    let tasks = server.tasks().list_tasks(v1::ListTasksRequest::default()).await.unwrap().into_inner().tasks;
    assert_eq!(tasks, [], "none of these calls has added a task");
}

#[tokio::test]
async fn a_parent_is_kept_until_its_children_have_ended() {
    let server = Server::start("[retention]\ncount = 1\n");
    server.submit(endless("gate")).await;
    server.submit(named("parent")).await;
    server.submit(after(&["gate", "parent"], OnParentFailure::Run, named("child"))).await;
    server.wait_finished("parent").await;
    for id in ["x", "y"] {
        server.submit(named(id)).await;
        server.wait_finished(id).await;
    }
    let get = async |id: &str| {
        let request = v1::GetTaskRequest { task_id: id.to_owned(), ..Default::default() };
        server.tasks().get_task(request).await.map(|response| response.into_inner().task.unwrap().state())
    };
    assert_eq!(reason(&get("x").await.unwrap_err()), "TASK_NOT_FOUND");
    let filter = v1::TaskFilter { task_ids: vec!["parent".to_owned()], ..Default::default() };
    let deleted = server
        .tasks()
        .delete_tasks(v1::DeleteTasksRequest { filter: Some(filter), validate_only: false })
        .await
        .unwrap();
    assert_eq!(deleted.into_inner().deleted, 0);
    assert_eq!(get("parent").await.unwrap(), TaskState::Completed);
    cancel(&server, "gate").await;
    assert_eq!(server.wait_finished("child").await.state(), TaskState::Completed);
    server.submit(named("z")).await;
    server.wait_finished("z").await;
    let refused = server.tasks().submit_task(after(&["parent"], OnParentFailure::Run, noop())).await.unwrap_err();
    assert_eq!(reason(&refused), "PARENT_NOT_FOUND", "it was deleted with the others");
}

#[tokio::test]
async fn a_task_can_have_ten_thousand_parents() {
    let server = Server::start("");
    let parents = submit_batch(&server, (0..10_000).map(|_| noop()).collect()).await.unwrap();
    let parents: Vec<&str> = parents.iter().map(String::as_str).collect();
    let count = task("expression", r#"{"expression":"size(parents.map(p, size(p)))"}"#);
    let child = server.submit(after(&parents, OnParentFailure::Fail, count)).await;
    let child = server.wait_finished(&child).await;
    assert_eq!(
        (child.state(), child.dependencies.unwrap().parents),
        (TaskState::Completed, 10_000),
        "{:?}",
        child.failure
    );
    assert_eq!(bytes(child.result.as_ref()), "10000");
    let mut together: Vec<_> = (0..9_999).map(|_| noop()).collect();
    together.push(after_places(&(0..9_999).collect::<Vec<_>>(), named("last")));
    submit_batch(&server, together).await.unwrap();
    let last = server.wait_finished("last").await;
    assert_eq!((last.state(), last.dependencies.unwrap().parents), (TaskState::Completed, 9_999));
}

#[tokio::test]
async fn a_task_reads_the_results_of_its_parents() {
    let handler = "runner = \"process\"\nargv = [\"/bin/sh\", \"-c\", \"grep -r . parents | sort\"]\nparents = true";
    let server = Server::start(&format!("[[handler]]\nname = \"join\"\n{handler}\n"));
    for (id, value) in [("a", r#"{"n":40}"#), ("b", "2"), ("c", "\"text\"")] {
        let expression = format!(r#"{{"expression":"x","variables":{{"x":{value}}}}}"#);
        server.submit(v1::SubmitTaskRequest { task_id: id.to_owned(), ..task("expression", &expression) }).await;
    }
    server.submit(endless("never")).await;
    cancel(&server, "never").await;
    let parents = ["a", "b", "never", "c"];
    let sum = task("expression", r#"{"expression":"[parents[0].n + parents[1], parents[2], parents[3]]"}"#);
    let sum = server.submit(after(&parents, OnParentFailure::Run, sum)).await;
    let sum = server.wait_finished(&sum).await;
    assert_eq!(bytes(sum.result.as_ref()), r#"[42,null,"text"]"#, "{sum:?}");
    let program = v1::SubmitTaskRequest { handler: "join".to_owned(), ..Default::default() };
    let joined = server.submit(after(&parents, OnParentFailure::Run, program)).await;
    let joined = server.wait_finished(&joined).await;
    let files = "parents/0:{\"n\":40}\nparents/1:2\nparents/3:\"text\"\n";
    assert_eq!(bytes(joined.result.as_ref()), files, "{joined:?}");
}

#[tokio::test]
async fn results_of_parents_have_a_limit_together() {
    let program = |name: &str, script: &str| {
        format!("[[handler]]\nname = \"{name}\"\nrunner = \"process\"\nargv = [\"/bin/sh\", \"-c\", \"{script}\"]\n")
    };
    let config =
        [program("large", "head -c 1048576 /dev/zero"), program("join", "cat parents/* | wc -c") + "parents = true\n"];
    let server = Server::start(&config.concat());
    let large = v1::SubmitTaskRequest { handler: "large".to_owned(), ..Default::default() };
    let parents = submit_batch(&server, vec![large; 17]).await.unwrap();
    let parents: Vec<&str> = parents.iter().map(String::as_str).collect();
    let join = v1::SubmitTaskRequest { handler: "join".to_owned(), ..Default::default() };
    let most = server.submit(after(&parents[..16], OnParentFailure::Fail, join.clone())).await;
    let most = server.wait_finished(&most).await;
    assert_eq!(bytes(most.result.as_ref()).trim(), "16777216", "{most:?}");
    let more = server.submit(after(&parents, OnParentFailure::Fail, join)).await;
    let failure = server.wait_finished(&more).await.failure.unwrap();
    assert_eq!(failure.reason(), FailureReason::InvalidPayload);
    assert_eq!(failure.message, "the results of the parents have more than 16777216 bytes, which is the limit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graphs_run_in_their_order_also_when_the_server_crashes() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut server = Server::start("[[pool]]\nname = \"default\"\nsize = 4\n");
    let mut submitted = BTreeSet::new();
    for round in 0..6 {
        let mut graph = Vec::new();
        for place in 0..40_i32 {
            let id = format!("r{round}-{place}");
            let parents: Vec<i32> = (0..place).filter(|_| random.random_bool(0.1)).collect();
            let own = v1::SubmitTaskRequest { task_id: id, ..task("io", "0.005") };
            graph.push(if parents.is_empty() { own } else { after_places(&parents, own) });
        }
        submitted.extend(submit_batch(&server, graph).await.unwrap());
        // The moment of the crash is random, but late enough for what the crash before has interrupted.
        tokio::time::sleep(Duration::from_millis(random.random_range(50..200))).await;
        server.kill9();
        server.start_again();
    }
    for id in &submitted {
        assert_eq!(server.wait_finished(id).await.state(), TaskState::Completed, "{id}");
    }
    for id in &submitted {
        if server.get(id).await.dependencies.is_some() {
            started_after_its_parents(&server, id).await;
        }
    }
}

#[tokio::test]
async fn the_command_line_submits_a_task_after_others_and_shows_what_it_waits_for() {
    let server = Server::start("");
    server.submit(endless("gate")).await;
    let run = |arguments: &[&str]| {
        #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
        let mut command = Command::new(BINARY);
        let output = command.args(arguments).env("LINESHAFT_SERVER", &server.address).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let submit =
        ["task", "submit", "compute", "--json", "1", "--id", "report", "--after", "gate", "--on-parent-failure", "run"];
    assert_eq!(run(&submit), (Some(0), "report\n".to_owned(), String::new()));
    let (_, shown, _) = run(&["task", "get", "report"]);
    for line in ["parents       gate", "on failure    RUN", "waits for     1 parent: gate"] {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert!(shown.lines().any(|shown| words(shown) == words(line)), "{line} in {shown}");
    }
    let (code, _, err) = run(&["task", "submit", "compute", "--json", "1", "--after", "gone"]);
    assert!(code == Some(3) && err.contains("reason: PARENT_NOT_FOUND"), "{err}");
    let (code, _, err) = run(&["task", "submit", "compute", "--on-parent-failure", "run"]);
    assert!(code == Some(2) && err.contains("--after"), "{err}");

    let lines = "{\"handler\":\"compute\",\"payload\":{\"json\":1},\"dependencies\":{\"batchIndices\":[1]}}\n\
                 {\"handler\":\"compute\",\"payload\":{\"json\":1},\"dependencies\":{\"taskIds\":[\"gate\"]}}\n";
    let file = server.path("tasks.jsonl");
    std::fs::write(&file, lines).unwrap();
    let (code, batch, err) = run(&["task", "submit", "--file", file.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{err}");
    cancel(&server, "gate").await;
    assert_eq!(server.wait_finished("report").await.state(), TaskState::Completed);
    let filter = v1::TaskFilter { batch_id: batch.trim().to_owned(), ..Default::default() };
    let request = v1::ListTasksRequest { filter: Some(filter), ..Default::default() };
    let submitted = server.tasks().list_tasks(request).await.unwrap().into_inner().tasks;
    assert_eq!(submitted.len(), 2);
    for task in submitted {
        let ended = server.wait_finished(&task.task_id).await;
        assert_eq!(ended.state(), TaskState::Failed, "the parent of both has not completed");
    }
}

#[tokio::test]
async fn a_graph_of_which_a_task_has_failed_runs_again_from_there() {
    let mut server = Server::start("");
    let failing = v1::SubmitTaskRequest { task_id: "load".to_owned(), ..task("expression", "{}") };
    let sum = r#"{"expression": "parents[0] + parents[1]"}"#;
    let graph = vec![
        v1::SubmitTaskRequest { task_id: "sum".to_owned(), ..after_places(&[1, 2], task("expression", sum)) },
        v1::SubmitTaskRequest { task_id: "one".to_owned(), ..task("expression", r#"{"expression": "1"}"#) },
        failing,
        v1::SubmitTaskRequest { task_id: "report".to_owned(), ..after_places(&[0], noop()) },
    ];
    submit_batch(&server, graph).await.unwrap();
    assert_eq!(server.wait_finished("report").await.failure.unwrap().reason(), FailureReason::DependencyFailed);

    let v1::SubmitTaskRequest { payload, .. } = task("expression", r#"{"expression": "41"}"#);
    let retry = v1::RetryTaskRequest { task_id: "load".to_owned(), payload, ..Default::default() };
    let load = server.tasks().retry_task(retry).await.unwrap().into_inner().task.unwrap().task_id;
    assert_eq!(server.wait_finished(&load).await.state(), TaskState::Completed);
    server.kill9();
    server.start_again();
    let ids = ["sum", "report"].map(str::to_owned).to_vec();
    let filter = Some(v1::TaskFilter { task_ids: ids, ..Default::default() });
    let request = v1::RetryTasksRequest { filter, ..Default::default() };
    let mut responses = server.tasks().retry_tasks(request).await.unwrap().into_inner();
    let mut new = Vec::new();
    while let Some(response) = responses.message().await.unwrap() {
        new.extend(response.task_ids);
    }
    let [sum, report] = &new[..] else { panic!("{new:?}") };
    assert_eq!(server.wait_finished(report).await.state(), TaskState::Completed);
    let sum = server.get(sum).await;
    assert_eq!(sum.dependencies.as_ref().unwrap().parent_ids, ["one".to_owned(), load]);
    assert_eq!(bytes(sum.result.as_ref()), "42");
    assert_eq!(server.get(report).await.dependencies.unwrap().parent_ids, [sum.task_id]);
}
