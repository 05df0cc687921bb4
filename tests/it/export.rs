//! Exports of a SQLite database.

use std::path::{Path, PathBuf};

use lineshaft::proto::v1::{self, FailureReason, StopMethod, TaskState};
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::disk::small_disk;
use crate::http1_client::{self, Response};
use crate::support::{Faults, Server, bytes, check, eventually, isolated, task};

/// Handlers whose queries do not end, except that `write-on` writes as many rows as the table `work` says.
const ENDLESS: &str = r#"
[[handler]]
name = "compute-on"
runner = "export"
retry = { attempts = 1 }
[handler.export]
connection = "park"
query = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) AS a FROM n"

[[handler]]
name = "write-on"
runner = "export"
retry = { attempts = 1 }
[handler.export]
connection = "park"
query = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < (SELECT amount FROM work)) SELECT i FROM n"

[[handler]]
name = "fill"
runner = "export"
retry = { attempts = 1 }
[handler.export]
connection = "park"
query = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT hex(zeroblob(20000)) AS a FROM n"
"#;

/// A server with a database of leases, and handlers for them.
fn start(handlers: &str) -> Server {
    start_in(tempfile::tempdir().unwrap(), handlers, &[])
}

fn start_in(directory: TempDir, handlers: &str, variables: &[(&str, &str)]) -> Server {
    let path = directory.path().join("park.db");
    let park = Connection::open(&path).unwrap();
    park.execute_batch(
        "CREATE TABLE work (amount INTEGER); INSERT INTO work VALUES (9223372036854775807);
         CREATE TABLE lease (id INTEGER PRIMARY KEY, tenant TEXT, rent DECIMAL(10,2), starts DATE);
         INSERT INTO lease VALUES (1, 'Müller', 1250.5, '2026-02-01'), (2, '=Smith', 980, '2026-05-01'), (3, NULL, 7, NULL);",
    )
    .unwrap();
    let leases = "[[handler]]\nname = \"leases\"\nrunner = \"export\"\n[handler.export]\nconnection = \"park\"\n\
                  table = \"lease\"\nfilters = [\"id\"]\n";
    let connection = format!("[[connection]]\nname = \"park\"\nsqlite = {:?}\n", path.display().to_string());
    Server::start_in_with(directory, &format!("{connection}{leases}{handlers}"), variables)
}

/// Lets `write-on` end.
fn set_rows(server: &Server, count: u32) {
    Connection::open(server.path("park.db")).unwrap().execute("UPDATE work SET amount = ?", [count]).unwrap();
}

/// What `write-on` writes.
fn numbers(count: u32) -> String {
    std::iter::once("i\r\n".to_owned()).chain((1..=count).map(|number| format!("{number}\r\n"))).collect()
}

/// Waits until an export has written rows.
async fn wait_written(server: &Server, id: &str) {
    let has_rows = async || {
        let task = server.get(id).await;
        check(task.progress_note.ends_with(" rows"), || format!("{task:?}"))
    };
    eventually(has_rows).await;
}

fn get(server: &Server, path: &str) -> Response {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    http1_client::Connection::open(server).send(request.as_bytes())
}

async fn export(server: &Server, handler: &str, payload: &Value) -> v1::Task {
    server.wait_finished(&server.submit(task(handler, &payload.to_string())).await).await
}

/// The only stored artifact of a task.
fn artifact(server: &Server, task: &str) -> Vec<u8> {
    let mut files = files(&server.path("data/artifacts"));
    files.retain(|path| path.components().any(|part| part.as_os_str() == task));
    assert_eq!(files.len(), 1, "{files:?}");
    std::fs::read(&files[0]).unwrap()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn a_table_is_exported_in_each_format() {
    let server = start("");
    for (format, start) in [("csv", "id,tenant"), ("jsonl", "{\"id\":3,"), ("xlsx", "PK"), ("pdf", "%PDF-")] {
        let payload = json!({"format": format, "filters": {"id": {"from": 2}}, "order": ["-id"]});
        let ended = export(&server, "leases", &payload).await;
        assert_eq!(ended.state(), TaskState::Completed, "{ended:?}");
        let result: Value = serde_json::from_str(&bytes(ended.result.as_ref())).unwrap();
        let file = format!("leases.{format}");
        assert_eq!(result, json!({"file": file, "rows": 2, "more_rows": false, "cut_cells": 0}));
        let stored = artifact(&server, &ended.task_id);
        assert!(stored.starts_with(start.as_bytes()), "{:?}", String::from_utf8_lossy(&stored));
        if format == "csv" {
            let expected = "id,tenant,rent,starts\r\n3,,7,\r\n2,\"'=Smith\",980,2026-05-01\r\n";
            assert_eq!(String::from_utf8(stored).unwrap(), expected);
        }
    }
    let listed = server.handlers().list_handlers(v1::ListHandlersRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.handlers.iter().find(|handler| handler.name == "leases").unwrap().runner, "export");
}

#[tokio::test]
async fn a_payload_cannot_reach_more_than_the_operator_allows() {
    let server = start("");
    for payload in [
        json!({"columns": ["id", "(SELECT 1)"]}),
        json!({"order": ["id; DROP TABLE lease"]}),
        json!({"filters": {"rent": 1}}),
        json!({"table": "sqlite_schema"}),
    ] {
        let ended = export(&server, "leases", &payload).await;
        let failure = ended.failure.as_ref().unwrap();
        assert_eq!(failure.reason(), FailureReason::InvalidPayload, "{ended:?}");
        assert_eq!(ended.attempt, 1, "{ended:?}");
    }
    let injected = json!({"filters": {"id": "1 OR 1 = 1"}});
    let ended = export(&server, "leases", &injected).await;
    assert!(bytes(ended.result.as_ref()).contains("\"rows\":0"), "{ended:?}");
}

#[tokio::test]
async fn a_cancel_and_a_timeout_end_the_query_and_leave_no_file() {
    let server = start(ENDLESS);
    for (name, format) in [("compute-on", "csv"), ("write-on", "csv"), ("write-on", "xlsx")] {
        let payload = json!({"format": format}).to_string();
        let id = server.submit(task(name, &payload)).await;
        server.wait_started(&id).await;
        let request = v1::CancelTaskRequest { task_id: id.clone(), ..Default::default() };
        server.tasks().cancel_task(request).await.unwrap();
        let ended = server.wait_finished(&id).await;
        assert_eq!(ended.state(), TaskState::Cancelled, "{ended:?}");
        assert_eq!(ended.cancel.as_ref().map(v1::CancelReceipt::method), Some(StopMethod::Token), "{ended:?}");
        let limited = v1::SubmitTaskRequest { timeout: crate::support::millis(300), ..task(name, &payload) };
        let ended = server.wait_finished(&server.submit(limited).await).await;
        assert_eq!(ended.failure.as_ref().unwrap().reason(), FailureReason::Timeout, "{ended:?}");
    }
    assert_eq!(files(&server.path("data/artifacts")), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn an_export_whose_server_is_killed_begins_anew() {
    let mut server = start(ENDLESS);
    let id = server.submit(task("write-on", "{}")).await;
    wait_written(&server, &id).await;
    let half = files(&server.path("data/artifacts"));
    server.kill9();
    assert_eq!((half, files(&server.path("data/artifacts"))), (Vec::new(), Vec::new()), "half a file is in sight");
    set_rows(&server, 25_000);
    server.start_again();
    let ended = server.wait_finished(&id).await;
    assert_eq!((ended.state(), ended.attempt), (TaskState::Completed, 1), "{ended:?}");
    assert_eq!(artifact(&server, &id), numbers(25_000).as_bytes());
}

#[tokio::test]
async fn a_file_that_is_stored_when_its_server_is_killed_is_written_again() {
    // The file, which has no name yet, and the directory of its task, when it has one.
    for (storing, names) in [("sync hang (deleted)", 0), ("sync hang /write-on", 1)] {
        let faults = Faults::new();
        let variables = faults.variables();
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, &**value)).collect();
        faults.set(&[storing]);
        let mut server = start_in(tempfile::tempdir().unwrap(), ENDLESS, &variables);
        set_rows(&server, 25_000);
        let request = v1::SubmitTaskRequest { task_id: "write-on".to_owned(), ..task("write-on", "{}") };
        let id = server.submit(request).await;
        faults.wait_applied(storing, 1).await;
        let unfinished = server.get(&id).await;
        assert_eq!((unfinished.state(), unfinished.artifacts.len()), (TaskState::Running, 0));
        server.kill9();
        assert_eq!(files(&server.path("data/artifacts")).len(), names, "{storing}");
        faults.clear();
        server.start_again();
        let ended = server.wait_finished(&id).await;
        assert_eq!((ended.state(), ended.attempt), (TaskState::Completed, 1), "{ended:?}");
        let only_the_second = async || {
            let files = files(&server.path("data/artifacts/objects"));
            check(files.len() == 1, || format!("{files:?}"))
        };
        eventually(only_the_second).await;
        assert_eq!(artifact(&server, &id), numbers(25_000).as_bytes());
    }
}

#[tokio::test]
async fn a_full_disk_fails_the_export_and_is_free_again() {
    if !isolated("export::a_full_disk_fails_the_export_and_is_free_again", &["mount"]) {
        return;
    }
    let server = start_in(small_disk(96), ENDLESS, &[]);
    let ended = export(&server, "fill", &json!({})).await;
    let failure = ended.failure.as_ref().unwrap();
    assert!(failure.message.contains("No space left on device"), "{failure:?}");
    assert_eq!(files(&server.path("data/artifacts")), Vec::<PathBuf>::new());
    assert_eq!(export(&server, "leases", &json!({})).await.state(), TaskState::Completed);
}

#[tokio::test]
async fn an_export_waits_for_a_directory_that_cannot_be_written() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("data")).unwrap();
    let in_the_way = directory.path().join("data/artifacts");
    std::fs::write(&in_the_way, "").unwrap();
    let often = "[[handler]]\nname = \"often\"\nrunner = \"export\"\nretry = { attempts = 100, delay = \"300ms\" }\n\
                 [handler.export]\nconnection = \"park\"\ntable = \"lease\"\n";
    let server = start_in(directory, often, &[]);
    let id = server.submit(task("often", "{}")).await;
    let failed = async || {
        let task = server.get(&id).await;
        task.failure.clone().ok_or_else(|| format!("{task:?}"))
    };
    let failure = eventually(failed).await;
    let expected = format!("failed to use the directory of artifacts `{}/staging`: ", in_the_way.display());
    assert!(failure.message.starts_with(&expected), "{failure:?}");
    std::fs::remove_file(in_the_way).unwrap();
    assert_eq!(server.wait_finished(&id).await.state(), TaskState::Completed);
    assert!(!artifact(&server, &id).is_empty());
}

#[tokio::test]
async fn the_sixth_export_waits_in_line() {
    let server = start(&format!("[[pool]]\nname = \"export\"\nsize = 5\n{ENDLESS}"));
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(server.submit(task("compute-on", "{}")).await);
    }
    for id in &ids[..5] {
        server.wait_for_state(id, TaskState::Running).await;
    }
    for id in &ids[5..] {
        assert_eq!(server.get(id).await.state(), TaskState::Queued);
    }
    let request = v1::CancelTaskRequest { task_id: ids[2].clone(), ..Default::default() };
    server.tasks().cancel_task(request).await.unwrap();
    server.wait_for_state(&ids[5], TaskState::Running).await;
    assert_eq!(server.get(&ids[6]).await.state(), TaskState::Queued, "only one place was free");
}

#[tokio::test]
async fn a_get_starts_an_export_and_names_its_file() {
    let server = start("[[handler]]\nname = \"df\"\nrunner = \"process\"\nargv = [\"/bin/df\"]\n");
    for (path, start) in [("leases", "id,tenant"), ("leases/?format=excel", "PK"), ("leases?format=pdf", "%PDF-")] {
        let started = get(&server, &format!("/data/export/{path}")).json();
        let url = |name: &str| started[name].as_str().unwrap().to_owned();
        let shown = get(&server, &format!("{}?wait=60", url("task_url"))).json();
        assert_eq!((&shown["state"], &shown["id"]), (&json!("completed"), &started["task_id"]), "{shown}");
        let file = get(&server, &url("file_url"));
        assert!(file.status == 200 && file.body.starts_with(start.as_bytes()), "{path}: {}", file.status);
    }
    let status = get(&server, "/data/export/leases/?pool_status=true").json();
    let pool = &status["export_pool"];
    let counts = ["active_threads", "pending_tasks", "total_tasks", "completed_tasks", "failed_tasks"];
    assert_eq!(counts.map(|count| pool[count].as_i64()), [0, 0, 3, 3, 0].map(Some), "{status}");
    assert!(pool["max_workers"].as_i64() > Some(0), "{status}");
    assert_eq!((&status["cleaned_files"], &status["processing_pool"]["pending_tasks"]), (&json!(0), &json!(0)));
    for (path, status, text) in [
        ("leases?format=xml", 400, "`format` is `xml`, must be csv"),
        ("leases?pool_status=1", 400, "`pool_status` is `1`, must be true or false"),
        ("leases?fromat=csv", 400, "`fromat` is unknown; expected format, pool_status"),
        ("df", 404, "handler `df` has the runner `process`, must be `export`"),
        ("rents", 404, "rents"),
    ] {
        let refused = get(&server, &format!("/data/export/{path}"));
        let message = refused.json()["message"].as_str().unwrap().to_owned();
        assert!(refused.status == status && message.contains(text), "{path}: {message}");
    }
    let post = http1_client::post("/data/export/leases", "application/json", &[], b"{}");
    assert_eq!(http1_client::Connection::open(&server).send(&post).status, 405);
    let listed = get(&server, "/api/tasks?type=df").json();
    assert_eq!(listed["tasks"], json!([]));
}

#[tokio::test]
async fn a_configuration_that_names_no_connection_is_refused() {
    let error = Server::fail_to_start(
        "[[handler]]\nname = \"leases\"\nrunner = \"export\"\n[handler.export]\nconnection = \"park\"\ntable = \"lease\"\n",
        &[],
    );
    assert!(error.contains("handler[0].export.connection = \"park\": is not a connection"), "{error}");
}
