//! Payloads are checked against the JSON schema of their handler.

use lineshaft::proto::v1::{self, TaskState};
use rustix::process::Signal;
use tonic::Status;

use crate::support::{Server, fields, reason, task};

const HANDLER: &str = "[[handler]]\nname = \"resize\"\nrunner = \"process\"\nargv = [\"/bin/cat\"]\n";
const SCHEMA: &str = r#"{"type": "object", "required": ["width"], "properties": {"width": {"type": "integer"}}}"#;

fn mismatch(status: &Status) -> (String, Vec<String>) {
    (reason(status), fields(status))
}

#[tokio::test]
async fn a_payload_that_does_not_match_is_refused_with_its_json_pointer() {
    let server = Server::start(&format!("{HANDLER}schema = '{SCHEMA}'\n"));
    let ended = server.wait_finished(&server.submit(task("resize", r#"{"width": 7}"#)).await).await;
    assert_eq!(ended.state(), TaskState::Completed);

    let refused = server.tasks().submit_task(task("resize", r#"{"width": "wide"}"#)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert_eq!(mismatch(&refused), ("INVALID_FIELD".to_owned(), vec!["payload".to_owned()]));
    assert!(refused.message().contains("at `/width`: ") && !refused.message().contains("wide"), "{refused:?}");

    let nothing = v1::SubmitTaskRequest { handler: "resize".to_owned(), ..Default::default() };
    let refused = server.tasks().submit_task(nothing).await.unwrap_err();
    assert!(refused.message().contains("`payload` is not JSON"), "{refused:?}");

    let tasks = [r#"{"width": 1}"#, r#"{"width": 2}"#, "{}"].map(|payload| task("resize", payload)).into();
    let batch = v1::BatchSubmitTasksRequest { tasks, batch_id: String::new() };
    let refused = server.tasks().batch_submit_tasks(batch).await.unwrap_err();
    assert_eq!(mismatch(&refused).1, ["tasks[2].payload"]);
    let listed = server.tasks().list_tasks(v1::ListTasksRequest::default()).await.unwrap().into_inner().tasks;
    assert_eq!(listed.len(), 1, "none of the batch was accepted");
}

#[tokio::test]
async fn list_handlers_shows_the_schema_and_where_each_handler_was_registered() {
    let server = Server::start(&format!("{HANDLER}schema = '{SCHEMA}'\n"));
    let listed = server.handlers().list_handlers(v1::ListHandlersRequest {}).await.unwrap().into_inner().handlers;
    let shown: Vec<_> =
        listed.iter().map(|handler| (&*handler.name, &*handler.source, &*handler.payload_schema)).collect();
    let builtin = |name| (name, "builtin", "");
    let expected =
        [builtin("compute"), builtin("expression"), builtin("heavy"), builtin("io"), ("resize", "file", SCHEMA)];
    assert_eq!(shown, expected);
}

#[tokio::test]
async fn a_schema_in_a_file_is_loaded_at_the_start_and_at_each_reload() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("resize.json");
    std::fs::write(&file, SCHEMA).unwrap();
    let config = format!("{HANDLER}schema = \"{}\"\n", file.display());
    let server = Server::start(&config);
    let refused = server.tasks().submit_task(task("resize", "7")).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_FIELD");

    std::fs::write(&file, r#"{"type": "int"}"#).unwrap();
    server.signal(Signal::HUP);
    server.wait_logged("config.toml:5: handler[0].schema").await;
    server.wait_logged("is not a JSON schema: at `/type`").await;
    let refused = server.tasks().submit_task(task("resize", "7")).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_FIELD", "the previous schema counts");

    std::fs::write(&file, r#"{"type": "integer"}"#).unwrap();
    server.signal(Signal::HUP);
    server.wait_logged("reloaded the configuration").await;
    server.submit(task("resize", "7")).await;
}

#[tokio::test]
async fn a_server_with_a_schema_that_is_none_does_not_start() {
    for (schema, expected) in [
        (r#"{"properties": {"a": {"type": "int"}}}"#, "is not a JSON schema: at `/properties/a/type`"),
        (r#"{"$ref": "http://127.0.0.1:9/s.json"}"#, "is not a JSON schema"),
        ("{", "is not JSON"),
        ("/not/there.json", "cannot be read: No such file"),
    ] {
        let log = Server::fail_to_start(&format!("{HANDLER}schema = '{schema}'\n"), &[]);
        assert!(log.contains("config.toml:5: handler[0].schema") && log.contains(expected), "{log}");
    }
}
