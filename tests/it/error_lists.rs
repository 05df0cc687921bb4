//! The contract lists the errors of each RPC; no other ones are returned, whatever the server is doing.

use std::collections::{BTreeMap, BTreeSet};

use lineshaft::proto::v1::{self, TaskState};
use tonic::Status;

use crate::cli_output::call;
use crate::support::{Server, noop, reason, seconds, task};

const SERVICES: [(&str, &str); 5] = [
    ("TaskService", include_str!("../../proto/lineshaft/v1/task_service.proto")),
    ("PoolService", include_str!("../../proto/lineshaft/v1/pool_service.proto")),
    ("HandlerService", include_str!("../../proto/lineshaft/v1/handler_service.proto")),
    ("SystemService", include_str!("../../proto/lineshaft/v1/system_service.proto")),
    ("WorkerService", include_str!("../../proto/lineshaft/v1/worker_service.proto")),
];

/// Calls with one response: good ones and bad ones.
const CALLS: [(&str, &str); 54] = [
    ("SubmitTask", r#"{"handler":"compute"}"#),
    ("SubmitTask", r#"{"handler":"nosuch"}"#),
    ("SubmitTask", r#"{"handler":"compute","pool":"nosuch"}"#),
    ("SubmitTask", r#"{"handler":"compute","taskId":"done","name":"other"}"#),
    ("SubmitTask", r#"{"handler":"compute","taskId":"done","args":["x"]}"#),
    ("SubmitTask", "{}"),
    ("BatchSubmitTasks", r#"{"tasks":[{"handler":"compute"}]}"#),
    ("BatchSubmitTasks", "{}"),
    ("GetTask", r#"{"taskId":"done"}"#),
    ("GetTask", r#"{"taskId":"nosuch"}"#),
    ("GetTask", "{}"),
    ("ExplainTask", r#"{"taskId":"running"}"#),
    ("ExplainTask", r#"{"taskId":"nosuch"}"#),
    ("ExplainTask", "{}"),
    ("ListTasks", "{}"),
    ("ListTasks", r#"{"pageSize":-1}"#),
    ("ListFailureGroups", "{}"),
    ("ListFailureGroups", r#"{"filter":{"failureGroup":"x"}}"#),
    ("ListLimits", "{}"),
    ("ListLimits", r#"{"pageToken":"x"}"#),
    ("WaitTask", r#"{"taskId":"running","timeout":"0.01s"}"#),
    ("WaitTask", r#"{"taskId":"nosuch"}"#),
    ("CancelTask", r#"{"taskId":"done"}"#),
    ("CancelTask", r#"{"taskId":"nosuch"}"#),
    ("CancelTask", "{}"),
    ("UpdateTask", r#"{"taskId":"running","update":{"priority":"PRIORITY_HIGH"}}"#),
    ("UpdateTask", r#"{"taskId":"done","update":{"priority":"PRIORITY_HIGH"}}"#),
    ("UpdateTask", r#"{"taskId":"nosuch","update":{"priority":"PRIORITY_HIGH"}}"#),
    ("UpdateTask", r#"{"taskId":"done"}"#),
    ("RetryTask", r#"{"taskId":"running"}"#),
    ("RetryTask", r#"{"taskId":"nosuch"}"#),
    ("RetryTask", r#"{"taskId":"done","priority":99}"#),
    ("DeleteTasks", r#"{"filter":{"taskIds":["nosuch"]}}"#),
    ("DeleteTasks", r#"{"filter":{"priorities":[99]}}"#),
    ("ListPools", "{}"),
    ("GetPool", r#"{"name":"default"}"#),
    ("GetPool", r#"{"name":"nosuch"}"#),
    ("ListDecisions", r#"{"pool":"default"}"#),
    ("ListDecisions", r#"{"pool":"nosuch"}"#),
    ("ListDecisions", "{}"),
    ("UpdatePool", r#"{"name":"default","queueLimit":"1000"}"#),
    ("UpdatePool", r#"{"name":"default","size":0}"#),
    ("UpdatePool", r#"{"name":"default","size":2,"etag":"other"}"#),
    ("GetPoolMetrics", r#"{"name":"nosuch"}"#),
    ("ListWorkers", r#"{"pool":"nosuch"}"#),
    ("GetPoolHistory", r#"{"pool":"nosuch"}"#),
    ("ResetPoolCounters", r#"{"name":"nosuch"}"#),
    ("ListHandlers", "{}"),
    ("GetHandler", r#"{"name":"nosuch"}"#),
    ("DeleteHandler", r#"{"name":"nosuch"}"#),
    ("DeleteHandler", r#"{"name":"compute"}"#),
    ("GetServerInfo", "{}"),
    ("GetSystemHealth", "{}"),
    ("Drain", r#"{"limit":"-1s"}"#),
];

const STREAMS: [&str; 12] = [
    "SubmitTasks",
    "RunTask",
    "WatchTasks",
    "ReadOutput",
    "CancelTasks",
    "UpdateTasks",
    "RetryTasks",
    "StreamPoolMetrics",
    "PutHandler",
    "Work",
    "ReadParentResults",
    "UploadArtifact",
];

fn words(text: &str) -> BTreeSet<String> {
    let words = text.split(|char: char| !(char.is_ascii_uppercase() || char == '_'));
    words.filter(|word| word.len() > 4).map(str::to_owned).collect()
}

/// The service of each RPC, and the errors that the contract lists for it.
fn contract() -> BTreeMap<String, (&'static str, BTreeSet<String>)> {
    let mut found: BTreeMap<String, (&str, BTreeSet<String>)> = BTreeMap::new();
    for (service, text) in SERVICES {
        let common = text.split_once("every RPC can fail with").unwrap().1.split_once("INVALID_FIELD comes").unwrap().0;
        let mut comment = String::new();
        for line in text.split_once("\nservice ").unwrap().1.lines() {
            if let Some(more) = line.trim().strip_prefix("//") {
                comment.push_str(more);
            } else if let Some(rest) = line.trim().strip_prefix("rpc ") {
                let (name, _) = rest.split_once('(').unwrap();
                let errors = comment.split_once("Errors").map_or("", |(_, errors)| errors);
                let mut listed = &words(common) | &words(errors);
                if errors.contains("those of SubmitTask") {
                    listed.extend(found["SubmitTask"].1.clone());
                }
                found.insert(name.to_owned(), (service, listed));
                comment.clear();
            } else if line == "}" {
                break;
            }
        }
    }
    found
}

/// Reads a stream to its end or to its second message, which is enough to see how it begins.
async fn outcome<T>(stream: Result<tonic::Response<tonic::Streaming<T>>, Status>) -> Result<(), Status> {
    let mut stream = stream?.into_inner();
    for _ in 0..2 {
        if stream.message().await?.is_none() {
            break;
        }
    }
    Ok(())
}

fn finished() -> v1::TaskFilter {
    v1::TaskFilter { states: vec![TaskState::Completed.into()], ..Default::default() }
}

async fn stream(server: &Server, rpc: &str) -> Result<(), Status> {
    let short = Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 });
    match rpc {
        "SubmitTasks" => {
            let request = v1::SubmitTasksRequest { sequence: 1, task: Some(noop()) };
            outcome(server.tasks().submit_tasks(tokio_stream::iter([request])).await).await
        }
        "RunTask" => outcome(server.tasks().run_task(v1::RunTaskRequest { task: Some(noop()) }).await).await,
        "WatchTasks" => {
            let request = v1::WatchTasksRequest { progress_interval: short, ..v1::WatchTasksRequest::default() };
            outcome(server.tasks().watch_tasks(request).await).await
        }
        "ReadOutput" => {
            let request = v1::ReadOutputRequest { task_id: "done".to_owned(), attempt: 7, ..Default::default() };
            outcome(server.tasks().read_output(request).await).await
        }
        "CancelTasks" => {
            let request = v1::CancelTasksRequest { filter: Some(finished()), ..Default::default() };
            outcome(server.tasks().cancel_tasks(request).await).await
        }
        "UpdateTasks" => {
            let request = v1::UpdateTasksRequest { filter: Some(finished()), ..Default::default() };
            outcome(server.tasks().update_tasks(request).await).await
        }
        "RetryTasks" => {
            let request = v1::RetryTasksRequest { filter: Some(finished()), ..Default::default() };
            outcome(server.tasks().retry_tasks(request).await).await
        }
        "StreamPoolMetrics" => {
            let request = v1::StreamPoolMetricsRequest { interval: short, ..v1::StreamPoolMetricsRequest::default() };
            outcome(server.pools().stream_pool_metrics(request).await).await
        }
        "PutHandler" => {
            let request = v1::PutHandlerRequest::default();
            server.handlers().put_handler(tokio_stream::iter([request])).await.map(|_| ())
        }
        "ReadParentResults" => {
            let request = v1::ReadParentResultsRequest { task_id: "done".to_owned(), ..Default::default() };
            outcome(server.workers().read_parent_results(request).await).await
        }
        "UploadArtifact" => {
            let request = v1::UploadArtifactRequest { task_id: "done".to_owned(), ..Default::default() };
            server.workers().upload_artifact(tokio_stream::iter([request])).await.map(|_| ())
        }
        "Work" => outcome(server.workers().work(tokio_stream::iter([v1::WorkRequest::default()])).await).await,
        other => panic!("no call of {other}"),
    }
}

/// Makes all calls, and returns the errors of each RPC.
async fn returned(server: &Server) -> BTreeSet<(String, String)> {
    let contract = contract();
    let mut found = BTreeSet::new();
    for (rpc, body) in CALLS {
        let answer = call(server, &format!("{}/{rpc}", contract[rpc].0), body);
        if let Some((_, rest)) = answer["details"].to_string().split_once("\"reason\":\"") {
            found.insert((rpc.to_owned(), rest.split_once('"').unwrap().0.to_owned()));
        }
    }
    for rpc in STREAMS {
        if let Err(status) = stream(server, rpc).await {
            found.insert((rpc.to_owned(), reason(&status)));
        }
    }
    found
}

#[tokio::test]
async fn every_error_is_in_the_list_of_its_rpc_while_serving_and_draining() {
    let contract = contract();
    // At the end of a drain any call can come too late for the scheduler.
    for (rpc, (_, listed)) in &contract {
        assert!(listed.contains("DRAINING"), "{rpc}");
    }
    let called: BTreeSet<_> = CALLS.iter().map(|(rpc, _)| *rpc).chain(STREAMS).collect();
    assert_eq!(called, contract.keys().map(String::as_str).collect());
    let mut server = Server::start("");
    server.submit(v1::SubmitTaskRequest { task_id: "done".to_owned(), ..noop() }).await;
    server.wait_finished("done").await;
    for id in ["running", "other"] {
        server.submit(v1::SubmitTaskRequest { task_id: id.to_owned(), ..task("io", "3600") }).await;
        server.wait_for_state(id, TaskState::Running).await;
    }
    let serving = returned(&server).await;
    server.system().drain(v1::DrainRequest { limit: seconds(3600) }).await.unwrap();
    let draining = returned(&server).await;
    for (rpc, reason) in serving.union(&draining) {
        assert!(contract[rpc].1.contains(reason), "{rpc} returned {reason}, which its list lacks");
    }
    let reasons: BTreeSet<_> = serving.union(&draining).map(|(_, reason)| reason.as_str()).collect();
    for expected in ["DRAINING", "INVALID_FIELD", "TASK_NOT_FOUND", "TASK_FINISHED", "ETAG_MISMATCH", "UNKNOWN_POOL"] {
        assert!(reasons.contains(expected), "{reasons:?}");
    }
    // Cancels and deletions work while the server drains.
    for id in ["other", "running"] {
        let request = v1::CancelTaskRequest { task_id: id.to_owned(), ..v1::CancelTaskRequest::default() };
        server.tasks().cancel_task(request).await.unwrap();
        if id == "other" {
            server.wait_for_state(id, TaskState::Cancelled).await;
            let filter = v1::TaskFilter { task_ids: vec![id.to_owned()], ..v1::TaskFilter::default() };
            let deleted = server
                .tasks()
                .delete_tasks(v1::DeleteTasksRequest { filter: Some(filter), validate_only: false })
                .await
                .unwrap();
            assert_eq!(deleted.into_inner().deleted, 1);
        }
    }
    assert!(server.wait_exit().success());
}
