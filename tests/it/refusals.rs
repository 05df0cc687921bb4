//! Invalid requests are rejected with the field, the value and the limit.

use lineshaft::proto::v1;
use tonic::Code;

use crate::support::{Server, fields, noop, reason, seconds, task};

#[tokio::test]
async fn all_invalid_fields_of_a_submission_are_listed() {
    let server = Server::start("");
    let invalid = v1::SubmitTaskRequest {
        priority: 9,
        task_id: "no spaces".into(),
        request_id: "x".repeat(65),
        namespace: "a/b".into(),
        display_name: "x".repeat(129),
        labels: [(String::new(), "x".repeat(257))].into(),
        timeout: seconds(-5),
        delay: seconds(i64::MAX),
        expires_after: Some(prost_types::Duration { seconds: 1, nanos: -1 }),
        durability: 7,
        retry: Some(v1::RetryPolicy {
            max_attempts: -1,
            delay: seconds(-1),
            factor: f64::NAN,
            max_delay: None,
            jitter: Some(2.0),
        }),
        args: vec!["x".repeat(4_097)],
        ..task("compute", "0")
    };
    let status = server.tasks().submit_task(invalid).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "INVALID_FIELD"));
    let mut named = fields(&status);
    named.sort();
    named.dedup();
    let expected = [
        "args[0]",
        "delay",
        "display_name",
        "durability",
        "expires_after",
        "labels[\"\"]",
        "namespace",
        "priority",
        "request_id",
        "retry.delay",
        "retry.factor",
        "retry.jitter",
        "retry.max_attempts",
        "task_id",
        "timeout",
    ];
    assert_eq!(named, expected);
}

#[tokio::test]
async fn an_argument_cannot_become_an_option_of_the_program() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("server.key");
    std::fs::write(&secret, "-----BEGIN PRIVATE KEY-----\nsecret\n").unwrap();
    let server = Server::start(
        r#"
[[handler]]
name = "count-lines"
runner = "process"
argv = ["wc", "-l"]
arg_pattern = "/etc/[a-z]+"

[[handler]]
name = "any-file"
runner = "process"
argv = ["wc", "-l", "--"]
arg_pattern = "(?s).*"
"#,
    );
    let option = format!("--files0-from={}", secret.display());
    let with = |handler: &str, args: &[&str]| v1::SubmitTaskRequest {
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        retry: Some(v1::RetryPolicy { max_attempts: 1, ..Default::default() }),
        ..task(handler, "")
    };
    for arg in [option.as_str(), "-l", "/etc/../root/x", "/etc/hosts\n", "/etc/hosts\0", ""] {
        let status = server.tasks().submit_task(with("count-lines", &["/etc/hosts", arg])).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "INVALID_FIELD"), "{arg:?}");
        assert_eq!(fields(&status), ["args[1]"], "{arg:?}");
    }
    let id = server.submit(with("count-lines", &["/etc/hosts"])).await;
    assert_eq!(server.wait_finished(&id).await.state(), v1::TaskState::Completed);

    let id = server.submit(with("any-file", &[&option])).await;
    let ended = server.wait_finished(&id).await;
    assert_eq!(ended.state(), v1::TaskState::Failed, "there is no file of that name: {ended:?}");
    assert!(!format!("{ended:?}").contains("BEGIN PRIVATE KEY"), "{ended:?}");
}

#[tokio::test]
async fn unknown_names_and_ids_are_not_found() {
    let server = Server::start(
        "[[pool]]\nname = \"a\"\n[[pool]]\nname = \"b\"\n[[handler]]\nname = \"c\"\nrunner = \"builtin\"\nbuiltin = \"compute\"\n",
    );
    let submit = async |request| reason(&server.tasks().submit_task(request).await.unwrap_err());
    assert_eq!(submit(task("unknown", "0")).await, "UNKNOWN_HANDLER");
    assert_eq!(submit(v1::SubmitTaskRequest { pool: "z".into(), ..noop() }).await, "UNKNOWN_POOL");
    assert_eq!(submit(v1::SubmitTaskRequest { pool: "b".into(), ..task("c", "0") }).await, "POOL_NOT_ALLOWED");
    let args = v1::SubmitTaskRequest { args: vec!["x".into()], ..noop() };
    assert_eq!(submit(args).await, "INVALID_FIELD");
    let get = v1::GetTaskRequest { task_id: "unknown".into(), ..Default::default() };
    assert_eq!(reason(&server.tasks().get_task(get).await.unwrap_err()), "TASK_NOT_FOUND");
    let pool = v1::GetPoolRequest { name: "z".into() };
    assert_eq!(reason(&server.pools().get_pool(pool).await.unwrap_err()), "UNKNOWN_POOL");
    let handler = v1::GetHandlerRequest { name: "z".into() };
    assert_eq!(reason(&server.handlers().get_handler(handler).await.unwrap_err()), "UNKNOWN_HANDLER");
}

#[tokio::test]
async fn sizes_and_queues_are_limited() {
    let config =
        "[[pool]]\nname = \"default\"\nqueue_limit = 5\npaused = true\n[limits]\nqueued_payload_bytes = \"1MiB\"\n";
    let server = Server::start(config);
    let big = v1::Payload { kind: Some(v1::payload::Kind::Data(vec![0; (1 << 20) + 1].into())), ..Default::default() };
    let request = v1::SubmitTaskRequest { payload: Some(big), ..noop() };
    assert_eq!(fields(&server.tasks().submit_task(request).await.unwrap_err()), ["payload"]);
    let many = v1::BatchSubmitTasksRequest { tasks: vec![noop(); 10_001], batch_id: String::new() };
    assert_eq!(fields(&server.tasks().batch_submit_tasks(many).await.unwrap_err()), ["tasks"]);
    let none = v1::BatchSubmitTasksRequest::default();
    assert_eq!(fields(&server.tasks().batch_submit_tasks(none).await.unwrap_err()), ["tasks"]);
    for _ in 0..5 {
        server.submit(noop()).await;
    }
    let full = server.tasks().submit_task(noop()).await.unwrap_err();
    assert_eq!((full.code(), reason(&full).as_str()), (Code::ResourceExhausted, "QUEUE_FULL"));
    let details = tonic_types::StatusExt::get_error_details(&full);
    assert!(details.retry_info().is_some() && details.quota_failure().is_some(), "{details:?}");
    let huge = v1::Payload { kind: Some(v1::payload::Kind::Data(vec![0; 17 << 20].into())), ..Default::default() };
    let request = v1::SubmitTaskRequest { payload: Some(huge), ..noop() };
    let refused = server.tasks().submit_task(request).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "MESSAGE_TOO_LARGE"));
}

#[tokio::test]
async fn invalid_fields_of_filters_and_pool_updates_are_listed() {
    let server = Server::start("");
    let filter =
        v1::TaskFilter { task_ids: vec!["a b".into()], states: vec![42], pool: "//".into(), ..Default::default() };
    let list = v1::ListTasksRequest { filter: Some(filter), ..Default::default() };
    let named = fields(&server.tasks().list_tasks(list).await.unwrap_err());
    assert_eq!(named, ["filter.task_ids[0]", "filter.states[0]", "filter.pool"]);
    let negative = v1::ListTasksRequest { page_size: -1, ..Default::default() };
    assert_eq!(fields(&server.tasks().list_tasks(negative).await.unwrap_err()), ["page_size"]);
    let update = |size, etag: &str| v1::UpdatePoolRequest {
        name: "default".into(),
        size: Some(size),
        etag: etag.into(),
        ..Default::default()
    };
    assert_eq!(fields(&server.pools().update_pool(update(0, "")).await.unwrap_err()), ["size"]);
    assert_eq!(fields(&server.pools().update_pool(update(1_001, "")).await.unwrap_err()), ["size"]);
    assert_eq!(reason(&server.pools().update_pool(update(2, "old")).await.unwrap_err()), "ETAG_MISMATCH");
}
