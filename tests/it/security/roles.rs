//! Permissions: every RPC of the contract, called with every role.

use std::time::Duration;

use lineshaft::proto::v1::{self, submit_tasks_response::Outcome};
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use super::http_auth::send;
use super::{Caller, Tokens, Transport, lineshaft, text, wait_until};
use crate::registered_handlers::offer;
use crate::support::{Server, noop, reason, seconds, task};

/// Every RPC of the contract: its path, and whether its request is a stream.
fn contract() -> Vec<(String, bool)> {
    let set = FileDescriptorSet::decode(lineshaft::proto::DESCRIPTORS).unwrap();
    let mut paths = Vec::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                paths.push((path, method.client_streaming()));
            }
        }
    }
    assert!(paths.len() > 20, "{paths:?}");
    paths
}

/// Calls an RPC with an empty message. Returns its status, or for a stream the one before its first message.
async fn call_empty(transport: &Transport, path: &str) -> Result<(), Status> {
    let mut raw = tonic::client::Grpc::new(transport.clone());
    raw.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let mut request = Request::new(());
    request.set_timeout(Duration::from_secs(20));
    let path: PathAndQuery = path.parse().unwrap();
    raw.server_streaming(request, path, codec).await.map(|_| ())
}

#[tokio::test]
async fn every_rpc_requires_a_valid_token() {
    let tokens = Tokens::new();
    let good = tokens.create("good", "admin", "*", &[]);
    let server = tokens.serve("");
    let mut paths: Vec<String> = contract().into_iter().map(|(path, _)| path).collect();
    paths.push("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo".to_owned());
    paths.push("/lineshaft.v1.TaskService/Nothing".to_owned());
    let other = format!("{}{}", &good[..good.len() - 4], "0000");
    for token in [None, Some("x"), Some(""), Some(other.as_str()), Some("a.b.c"), Some(&good[1..])] {
        let caller = Caller::over(server.channel(), token);
        for path in &paths {
            let refused = call_empty(&caller.transport, path).await.expect_err(path);
            assert_eq!(refused.code(), Code::Unauthenticated, "{path} with {token:?}: {refused:?}");
            assert_eq!(reason(&refused), "UNAUTHENTICATED");
        }
    }
    // A call that is not in the permission table is denied even to an admin.
    let admin = Caller::new(&server, &good);
    let refused = call_empty(&admin.transport, "/lineshaft.v1.TaskService/Nothing").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    // Probes have no tokens.
    let mut health = tonic_health::pb::health_client::HealthClient::new(server.channel());
    health.check(tonic_health::pb::HealthCheckRequest::default()).await.unwrap();
    let log = server.log();
    assert!(log.contains("\"target\":\"audit\"") && log.contains("UNAUTHENTICATED"), "{log}");
    for secret in [&good[..], &good[23..], &other[23..]] {
        assert!(!log.contains(secret), "the log contains a token");
    }
}

/// The calls that each role may make. A copy of the permission table, so that a change of the table is noticed.
const VIEWER: [&str; 22] = [
    "ListArtifacts",
    "ReadArtifact",
    "GetTask",
    "ExplainTask",
    "ListTasks",
    "ListFailureGroups",
    "ListLimits",
    "ListDecisions",
    "WaitTask",
    "WatchTasks",
    "ReadOutput",
    "ListPools",
    "GetPool",
    "ListHandlers",
    "GetHandler",
    "GetBatch",
    "ListBatches",
    "WatchBatch",
    "WaitBatch",
    "GetSchedule",
    "ListSchedules",
    "PreviewSchedule",
];
const SUBMITTER: [&str; 19] = [
    "SubmitTask",
    "BatchSubmitTasks",
    "SubmitTasks",
    "RunTask",
    "CancelTask",
    "UpdateTask",
    "CancelTasks",
    "UpdateTasks",
    "RetryTasks",
    "RetryTask",
    "CreateBatch",
    "CloseBatch",
    "CancelBatch",
    "CreateSchedule",
    "UpdateSchedule",
    "DeleteSchedule",
    "PauseSchedule",
    "ResumeSchedule",
    "TriggerSchedule",
];
const OPERATOR: [&str; 2] = ["DeleteTasks", "DeleteBatch"];
const WORKER: [&str; 3] = ["Work", "ReadParentResults", "UploadArtifact"];
const VIEWER_EVERYWHERE: [&str; 5] =
    ["GetPoolMetrics", "StreamPoolMetrics", "GetPoolHistory", "ListWorkers", "GetSystemHealth"];
const OPERATOR_EVERYWHERE: [&str; 2] = ["UpdatePool", "ResetPoolCounters"];
const ADMIN_EVERYWHERE: [&str; 3] = ["PutHandler", "DeleteHandler", "Drain"];

fn may(role: &str, everywhere: bool, call: &str) -> bool {
    let viewer = role != "worker";
    let submitter = ["submitter", "operator", "admin"].contains(&role);
    let operator = ["operator", "admin"].contains(&role);
    call == "GetServerInfo"
        || (["worker", "admin"].contains(&role) && WORKER.contains(&call))
        || (viewer && VIEWER.contains(&call))
        || (submitter && SUBMITTER.contains(&call))
        || (operator && OPERATOR.contains(&call))
        || (everywhere && viewer && VIEWER_EVERYWHERE.contains(&call))
        || (everywhere && operator && OPERATOR_EVERYWHERE.contains(&call))
        || (everywhere && role == "admin" && ADMIN_EVERYWHERE.contains(&call))
}

#[tokio::test]
async fn each_role_may_call_exactly_what_it_is_granted() {
    let tokens = Tokens::new();
    let roles = ["viewer", "submitter", "worker", "operator", "admin"];
    let mut callers = Vec::new();
    for role in roles {
        for (namespace, everywhere) in [("team-a", false), ("*", true)] {
            let name = format!("{role}-{everywhere}");
            callers.push((role, everywhere, tokens.create(&name, role, namespace, &[])));
        }
    }
    let server = tokens.serve("");
    for (role, everywhere, token) in callers {
        let caller = Caller::new(&server, &token);
        let info = caller.system().get_server_info(v1::GetServerInfoRequest {}).await.unwrap().into_inner();
        let v1::Caller { name, methods } = info.caller.unwrap();
        assert_eq!(name, format!("key:{role}-{everywhere}"));
        for (path, _) in contract() {
            let call = path.rsplit('/').next().unwrap();
            let is_listed = methods.iter().any(|method| path == format!("/{method}"));
            assert_eq!(is_listed, may(role, everywhere, call), "{role} (everywhere: {everywhere}) {call}");
            if call == "Drain" && may(role, everywhere, call) {
                continue;
            }
            let answer = call_empty(&caller.transport, &path).await;
            let denied = answer.as_ref().is_err_and(|status| status.code() == Code::PermissionDenied);
            let is_allowed = may(role, everywhere, call);
            assert_eq!(denied, !is_allowed, "{role} (everywhere: {everywhere}) {call}: {answer:?}");
            assert!(!matches!(&answer, Err(status) if status.code() == Code::Unauthenticated), "{answer:?}");
        }
    }
}

/// Connects a worker, and returns its pool.
async fn connect(worker: &Caller, handlers: &[(&str, &str)], pool: &str) -> Result<String, Status> {
    let (requests, sent) = tokio::sync::mpsc::unbounded_channel();
    let hello = v1::WorkerHello { pool: pool.to_owned(), ..offer(handlers).hello.unwrap() };
    requests.send(v1::WorkRequest { hello: Some(hello), messages: Vec::new() }).unwrap();
    let sent = tokio_stream::wrappers::UnboundedReceiverStream::new(sent);
    let first = worker.workers().work(sent).await?.into_inner().message().await?;
    Ok(first.unwrap().welcome.unwrap().pool)
}

#[tokio::test]
async fn a_worker_offers_only_the_handlers_of_its_token() {
    let tokens = Tokens::new();
    let token = tokens.create("images", "worker", "*", &["--handler", "resize", "--handler", "thumb"]);
    let server = tokens.serve("");
    let worker = Caller::new(&server, &token);
    assert_eq!(connect(&worker, &[("resize", ""), ("thumb", "")], "").await.unwrap(), "remote");
    let refused = connect(&worker, &[("resize", ""), ("print", "")], "").await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "PERMISSION_DENIED"));
    assert!(refused.message().contains("`print`"), "{refused:?}");
}

#[tokio::test]
async fn a_token_with_several_roles_permits_what_each_of_them_does() {
    let tokens = Tokens::new();
    let token = tokens.create("images", "worker", "*", &["--role", "submitter", "--handler", "resize"]);
    let server = tokens.serve("");
    let worker = Caller::new(&server, &token);
    assert_eq!(connect(&worker, &[("resize", "")], "").await.unwrap(), "remote");
    let refused = connect(&worker, &[("print", "")], "").await.unwrap_err();
    assert!(refused.message().contains("`print`"), "{refused:?}");
    let task = v1::SubmitTaskRequest { handler: "resize".to_owned(), ..Default::default() };
    worker.tasks().submit_task(task).await.unwrap();
    let refused = worker.tasks().delete_tasks(v1::DeleteTasksRequest { filter: None, validate_only: false }).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_refusal_says_whether_a_role_is_required_in_one_namespace_or_in_all() {
    let tokens = Tokens::new();
    let token = tokens.create("ci", "submitter", "team-a", &[]);
    let server = tokens.serve("");
    let ci = Caller::new(&server, &token);
    let of = |refused: &Status| {
        let namespace = refused.get_error_details().error_info().unwrap().metadata.get("namespace").cloned();
        (refused.message().split_once(": ").unwrap().1.to_owned(), namespace)
    };
    let delete = |namespace: &str| {
        let filter = Some(v1::TaskFilter { namespace: namespace.to_owned(), ..Default::default() });
        v1::DeleteTasksRequest { filter, validate_only: false }
    };
    let refused = ci.tasks().delete_tasks(delete("")).await.unwrap_err();
    assert_eq!(of(&refused), ("requires role operator in at least one namespace".to_owned(), None));
    let update = v1::TaskUpdate { priority: v1::Priority::Critical.into(), ..Default::default() };
    let update = v1::UpdateTasksRequest { update: Some(update), ..Default::default() };
    let refused = ci.tasks().update_tasks(update).await.unwrap_err();
    assert_eq!(of(&refused).0, "requires role operator in at least one namespace", "the service refuses it");
    let list = v1::ListTasksRequest { filter: delete("team-b").filter, ..Default::default() };
    let refused = ci.tasks().list_tasks(list).await.unwrap_err();
    let expected = ("requires role viewer in namespace `team-b`".to_owned(), Some("team-b".to_owned()));
    assert_eq!(of(&refused), expected);
    let refused = ci.system().drain(v1::DrainRequest::default()).await.unwrap_err();
    assert_eq!(of(&refused), ("requires role admin in all namespaces".to_owned(), Some("*".to_owned())));
}

#[test]
fn a_caller_without_a_role_in_all_namespaces_lists_pools_without_what_they_do() {
    let tokens = Tokens::new();
    let (one, all) = (tokens.create("ci", "submitter", "team", &[]), tokens.create("ops", "viewer", "*", &[]));
    let server = tokens.serve("[[pool]]\nname = \"default\"\n");
    for (token, expected) in [(one, "NAME,STATE,AUTOSCALE"), (all, "NAME,STATE,BUSY,AUTOSCALE,QUEUED")] {
        let file = server.path("caller.token").display().to_string();
        std::fs::write(&file, token).unwrap();
        let output = lineshaft(&["pool", "list", "--server", &server.address, "--token-file", &file]);
        let printed = text(&output.stdout);
        assert!(output.status.success() && printed.contains("default"), "{}", text(&output.stderr));
        let columns = printed.lines().next().unwrap().split_whitespace().collect::<Vec<_>>().join(",");
        assert!(columns.starts_with(expected), "{columns}");
    }
}

#[tokio::test]
async fn teams_run_their_own_functions_in_pools_of_their_own() {
    let tokens = Tokens::new();
    let create = |team: &str, role: &str| tokens.create(&format!("{team}-{role}"), role, team, &[]);
    let teams = ["a", "b"].map(|team| (team, create(team, "worker"), create(team, "submitter")));
    let server = tokens.serve(
        r#"
        [[pool]]
        name = "shared"
        [[pool]]
        name = "pool-a"
        kind = "remote"
        namespaces = ["a"]
        [[pool]]
        name = "pool-b"
        kind = "remote"
        namespaces = ["b"]
        "#,
    );
    for (team, worker, _) in &teams {
        let worker = Caller::new(&server, worker);
        for pool in ["pool-a", "pool-b"] {
            let connected = connect(&worker, &[("resize", "")], pool).await;
            if pool.ends_with(team) {
                assert_eq!(connected.unwrap(), pool);
            } else {
                let refused = connected.unwrap_err();
                assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "PERMISSION_DENIED"));
                assert!(refused.message().contains(pool), "{refused:?}");
            }
        }
    }
    for (team, _, submitter) in &teams {
        let submitter = Caller::new(&server, submitter);
        let submit = async |pool: &str| {
            let (handler, pool) = ("resize".to_owned(), pool.to_owned());
            submitter.tasks().submit_task(v1::SubmitTaskRequest { handler, pool, ..Default::default() }).await
        };
        let id = submit("").await.unwrap().into_inner().task_id;
        let task = submitter.tasks().get_task(v1::GetTaskRequest { task_id: id, ..Default::default() }).await.unwrap();
        assert_eq!(task.into_inner().task.unwrap().pool, format!("pool-{team}"));
        let other = if *team == "a" { "pool-b" } else { "pool-a" };
        assert_eq!(reason(&submit(other).await.unwrap_err()), "POOL_NOT_ALLOWED");
    }
}

#[tokio::test]
async fn refused_strangers_and_callers_do_not_hide_each_other_in_the_audit_log() {
    let tokens = Tokens::new();
    let (loud, quiet) =
        (tokens.create("loud", "viewer", "default", &[]), tokens.create("quiet", "viewer", "default", &[]));
    let server = tokens.serve("");
    let drain = async |token: Option<&str>| {
        let caller = Caller::over(server.channel(), token);
        caller.system().drain(v1::DrainRequest { limit: seconds(0) }).await.unwrap_err()
    };
    let refused = |identity: &str| {
        server.log().lines().filter(|line| line.contains("refused") && line.contains(identity)).count()
    };
    // More than the log describes within a second. The next refusal of each caller is described nevertheless.
    for (token, identity) in [(None, "unauthenticated"), (Some(&*loud), "key:loud")] {
        for _ in 0..200 {
            drain(token).await;
        }
        assert!(refused(identity) >= 20, "{}", server.log());
    }
    drain(Some(&quiet)).await;
    server.wait_logged("key:quiet").await;
    let line = server.log().lines().find(|line| line.contains("key:quiet")).unwrap().to_owned();
    assert!(line.contains("\"suppressed\":0"), "{line}");
}

#[tokio::test]
async fn the_audit_log_contains_each_state_change_with_its_caller() {
    let tokens = Tokens::new();
    let (ci, boss) = (tokens.create("ci", "operator", "default", &[]), tokens.create("boss", "admin", "*", &[]));
    let mut server = tokens.serve("");
    let (operator, admin) = (Caller::new(&server, &ci), Caller::new(&server, &boss));
    let labelled = v1::SubmitTaskRequest {
        task_id: "noted".into(),
        labels: [("secret-label".to_owned(), "x".to_owned())].into(),
        ..task("io", "3599.125")
    };
    operator.tasks().submit_task(labelled).await.unwrap();
    let batch = v1::BatchSubmitTasksRequest { tasks: vec![noop(), noop()], batch_id: "nightly".into() };
    operator.tasks().batch_submit_tasks(batch).await.unwrap();
    let cancel = v1::CancelTaskRequest { task_id: "noted".into(), ..v1::CancelTaskRequest::default() };
    operator.tasks().cancel_task(cancel).await.unwrap();
    let task = get_task(&admin, "noted").await;
    assert_eq!((task.submitted_by.as_str(), task.cancel.unwrap().requested_by.as_str()), ("key:ci", "key:ci"));
    operator.tasks().delete_tasks(v1::DeleteTasksRequest::default()).await.unwrap();
    let size = v1::UpdatePoolRequest { name: "default".into(), size: Some(3), ..v1::UpdatePoolRequest::default() };
    operator.pools().update_pool(size.clone()).await.expect_err("an operator of one namespace only");
    admin.pools().update_pool(size).await.unwrap();
    let reset = v1::ResetPoolCountersRequest { name: "default".into() };
    admin.pools().reset_pool_counters(reset).await.unwrap();
    operator.system().drain(v1::DrainRequest { limit: seconds(0) }).await.expect_err("an operator is not an admin");
    admin.system().drain(v1::DrainRequest { limit: seconds(0) }).await.unwrap();
    assert!(server.wait_exit().success());
    let log = server.log();
    let audited: Vec<&str> = log.lines().filter(|line| line.contains("\"target\":\"audit\"")).collect();
    for (caller, call, object, outcome) in [
        ("key:ci", "SubmitTask", "noted", "OK"),
        ("key:ci", "BatchSubmitTasks", "nightly", "OK"),
        ("key:ci", "CancelTask", "noted", "OK"),
        ("key:ci", "DeleteTasks", "tasks", "OK"),
        ("key:ci", "UpdatePool", "", "PERMISSION_DENIED"),
        ("key:boss", "UpdatePool", "default", "OK"),
        ("key:boss", "ResetPoolCounters", "default", "OK"),
        ("key:ci", "Drain", "", "PERMISSION_DENIED"),
        ("key:boss", "Drain", "server", "OK"),
    ] {
        let matches = |line: &&&str| [caller, call, object, outcome].iter().all(|part| line.contains(part));
        assert!(audited.iter().any(|line| matches(&line)), "{caller} {call} {object} {outcome} is not in {audited:#?}");
    }
    for secret in [&ci[23..], &boss[23..], "secret-label", "3599.125"] {
        assert!(!log.contains(secret), "the log contains {secret}");
    }
}

async fn get_task(caller: &Caller, id: &str) -> v1::Task {
    let request = v1::GetTaskRequest { task_id: id.into(), ..Default::default() };
    caller.tasks().get_task(request).await.unwrap().into_inner().task.unwrap()
}

fn info() -> v1::GetServerInfoRequest {
    v1::GetServerInfoRequest::default()
}

#[tokio::test]
async fn tokens_are_reloaded_and_a_watch_ends_with_its_token() {
    let tokens = Tokens::new();
    tokens.create("first", "viewer", "*", &[]);
    let server = tokens.serve("");
    let late = Caller::new(&server, &tokens.create("late", "viewer", "*", &[]));
    wait_until(async || late.system().get_server_info(info()).await.is_ok(), "the new token is refused").await;
    let mut watch = late.tasks().watch_tasks(v1::WatchTasksRequest::default()).await.unwrap().into_inner();
    tokens.revoke("late");
    let ended = loop {
        match watch.message().await {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    let ended = ended.expect_err("a watch with a revoked token");
    assert_eq!((ended.code(), reason(&ended).as_str()), (Code::Unauthenticated, "UNAUTHENTICATED"));
    let refused = late.system().get_server_info(info()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "on the same connection");

    let short = Caller::new(&server, &tokens.create("short", "viewer", "*", &["--expires", "4s"]));
    wait_until(async || short.system().get_server_info(info()).await.is_ok(), "the short-lived token is refused").await;
    let mut watch = short.tasks().watch_tasks(v1::WatchTasksRequest::default()).await.unwrap().into_inner();
    while let Ok(Some(_)) = watch.message().await {}
    let refused = short.system().get_server_info(info()).await.unwrap_err();
    assert!(refused.message().contains("expired"), "{refused:?}");
}

#[test]
fn a_server_with_an_invalid_token_file_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(path("config.toml"), format!("[auth]\ntokens_file = {:?}\n", path("tokens.toml"))).unwrap();
    let serve = ["serve", "--memory", "--listen", "127.0.0.1:0", "--config"];
    for content in [None, Some("[[token]]\nname = \"x\"\nsecret = \"s3cret\"\n")] {
        if let Some(content) = content {
            std::fs::write(path("tokens.toml"), content).unwrap();
        }
        let output = lineshaft(&[&serve[..], &[&path("config.toml")]].concat());
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("tokens.toml") && !message.contains("s3cret"), "{message}");
    }
}

#[tokio::test]
async fn without_authentication_every_call_is_allowed() {
    let server = Server::start("");
    let caller = Caller::over(server.channel(), Some("anything"));
    caller.system().get_server_info(info()).await.unwrap();
    assert_eq!(
        caller.handlers().list_handlers(v1::ListHandlersRequest {}).await.unwrap().into_inner().handlers.len(),
        4
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_an_operator_of_the_namespace_submits_critical_tasks() {
    let tokens = Tokens::new();
    let submitter = tokens.create("ci", "submitter", "team-a", &[]);
    let operator = tokens.create("ops", "operator", "team-a", &[]);
    let server = tokens.serve("");
    let [ci, ops] = [&submitter, &operator].map(|token| Caller::new(&server, token));
    let with = |priority: v1::Priority| v1::SubmitTaskRequest { priority: priority.into(), ..noop() };
    let critical = || with(v1::Priority::Critical);
    let refused = ci.tasks().submit_task(critical()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "PERMISSION_DENIED"));
    assert!(
        refused.message().contains("priority CRITICAL requires role operator in namespace `team-a`"),
        "{refused:?}"
    );
    let batch = v1::BatchSubmitTasksRequest { tasks: vec![noop(), critical()], batch_id: String::new() };
    assert_eq!(ci.tasks().batch_submit_tasks(batch).await.unwrap_err().code(), Code::PermissionDenied);
    let run = ci.tasks().run_task(v1::RunTaskRequest { task: Some(critical()) }).await;
    assert_eq!(run.unwrap_err().code(), Code::PermissionDenied);
    let items = vec![v1::SubmitTasksRequest { sequence: 1, task: Some(critical()) }];
    let mut answers = ci.tasks().submit_tasks(tokio_stream::iter(items)).await.unwrap().into_inner();
    let Outcome::Rejected(rejection) = answers.message().await.unwrap().unwrap().outcome.unwrap() else {
        panic!("the stream accepted a CRITICAL task");
    };
    assert_eq!(rejection.reason, "PERMISSION_DENIED");
    let form = "{\"type\":\"compute\",\"param\":0,\"priority\":0}";
    let (status, answer) = send(&server, "POST", "/api/submit", Some(&submitter), form);
    assert_eq!(status, 403, "{answer}");
    let all = v1::ListTasksRequest::default();
    assert!(ops.tasks().list_tasks(all).await.unwrap().into_inner().tasks.is_empty(), "a refused task was added");
    ci.tasks().submit_task(with(v1::Priority::High)).await.unwrap();
    ops.tasks().submit_task(critical()).await.unwrap();
    assert_eq!(send(&server, "POST", "/api/submit", Some(&operator), form).0, 200);
}
