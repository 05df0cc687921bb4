//! Reads of tasks while the tables lag behind the journal.

use lineshaft::proto::v1::{self, FailureReason, TaskState, payload::Kind};
use rusqlite::Connection;
use tonic::Streaming;

use crate::health_endpoints::samples;
use crate::support::{Server, TIMEOUT, bytes, check, eventually, noop, reason, task};

/// Keeps the server from writing its tables until it is dropped.
fn hold_tables(server: &Server) -> Connection {
    let connection = Connection::open(server.path("data/projection.db")).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    connection
}

#[tokio::test]
async fn a_task_is_read_in_its_present_state_while_the_tables_cannot_be_written() {
    let server = Server::start("");
    let old = server.submit(v1::SubmitTaskRequest { task_id: "again".into(), ..noop() }).await;
    let done = server.wait_finished(&old).await;
    let kept = server.submit(noop()).await;
    server.wait_finished(&kept).await;
    // The tables contain both tasks from here on.
    server.tasks().list_tasks(v1::ListTasksRequest::default()).await.unwrap();

    let held = hold_tables(&server);
    let running = server.submit(task("io", "60")).await;
    let running = server.wait_for_state(&running, TaskState::Running).await;
    assert!(!running.worker.is_empty() && running.started_at.is_some(), "{running:?}");
    let batch = v1::BatchSubmitTasksRequest { tasks: vec![noop(); 5_000], batch_id: "many".into() };
    let many = server.tasks().batch_submit_tasks(batch).await.unwrap().into_inner();
    for id in [&many.task_ids[0], &many.task_ids[2_500], &many.task_ids[4_999]] {
        let request = v1::WaitTaskRequest { task_id: id.clone(), timeout: None };
        let waited = server.tasks().wait_task(request).await.unwrap().into_inner();
        assert!(waited.finished);
        let found = waited.task.unwrap();
        assert_eq!((found.state(), &*found.batch_id, found.result.is_some()), (TaskState::Completed, "many", true));
    }
    let filter = v1::TaskFilter { task_ids: vec![old.clone()], ..Default::default() };
    let delete = v1::DeleteTasksRequest { filter: Some(filter), validate_only: false };
    assert_eq!(server.tasks().delete_tasks(delete).await.unwrap().into_inner().deleted, 1);
    let missing = server.tasks().get_task(v1::GetTaskRequest { task_id: old.clone(), ..Default::default() }).await;
    assert_eq!(reason(&missing.unwrap_err()), "TASK_NOT_FOUND");
    server.submit(v1::SubmitTaskRequest { task_id: old.clone(), ..task("io", "0.01") }).await;
    let again = server.wait_finished(&old).await;
    assert!(again.revision > done.revision && again.handler == "io", "{again:?}");
    assert_eq!(server.get(&kept).await.state(), TaskState::Completed, "only the tables have this task");
    drop(held);
    // A list contains all of it once the tables can be written.
    let list = v1::ListTasksRequest { page_size: 1, ..Default::default() };
    let list = server.tasks().list_tasks(list).await.unwrap().into_inner();
    assert_eq!((&list.tasks[0].task_id, list.tasks[0].revision), (&old, again.revision));
}

/// Two handlers that return their payload, the first on standard error too, the second in a pool of its own. No payload is kept in memory.
const SPILLED: &str = r#"
[limits]
queued_payload_bytes = 0
[store]
watch_window_events = 1000
[[pool]]
name = "default"
[[pool]]
name = "paused"
paused = true
[[handler]]
name = "echo"
runner = "process"
argv = ["/usr/bin/tee", "/dev/stderr"]
[[handler]]
name = "echo-later"
runner = "process"
argv = ["/bin/cat"]
pool = "paused"
"#;

fn request(id: &str, handler: &str, payload: &str) -> v1::SubmitTaskRequest {
    v1::SubmitTaskRequest { task_id: id.to_owned(), ..task(handler, &format!("\"{payload}\"")) }
}

#[tokio::test]
async fn a_task_whose_id_was_used_before_runs_with_its_own_payload() {
    for commits_fit_into_memory in [true, false] {
        let server = Server::start(SPILLED);
        let first = server.submit(request("again", "echo", "old")).await;
        let done = server.wait_finished(&first).await;
        assert_eq!(bytes(done.result.as_ref()), "\"old\"");
        // The tables contain the first task from here on, whatever happens to it.
        server.tasks().list_tasks(v1::ListTasksRequest::default()).await.unwrap();
        let held = hold_tables(&server);
        if !commits_fit_into_memory {
            submit_more_than_fits(&server).await;
        }
        let deleted = server.tasks().delete_tasks(v1::DeleteTasksRequest::default()).await.unwrap().into_inner();
        assert_eq!(deleted.deleted, 1);
        let again = server.submit(request("again", "echo", "new")).await;
        // Nothing waits for the tables.
        let done = server.wait_finished(&again).await;
        assert_eq!(bytes(done.result.as_ref()), "\"new\"", "commits fit into memory: {commits_fit_into_memory}");
        let stream = v1::OutputStream::Stderr.into();
        let request = v1::ReadOutputRequest { task_id: again, stream, ..Default::default() };
        let mut output = server.tasks().read_output(request).await.unwrap().into_inner();
        assert_eq!(output.message().await.unwrap().unwrap().data.as_ref(), b"\"new\"");
        drop(held);
    }
}

/// Submits more bytes than a server on a machine of any size keeps in memory for its tables.
async fn submit_more_than_fits(server: &Server) {
    let mebibyte = "a".repeat((1 << 20) - 2);
    for batch in 0..16 {
        let tasks = (0..14).map(|n| request(&format!("{batch}-{n}"), "echo-later", &mebibyte)).collect();
        let batch = v1::BatchSubmitTasksRequest { tasks, batch_id: String::new() };
        server.tasks().batch_submit_tasks(batch).await.unwrap();
    }
}

#[tokio::test]
async fn a_damaged_payload_is_read_from_the_journal_as_long_as_that_has_it() {
    let server = Server::start(SPILLED);
    let mut events = watch(&server, v1::TaskFilter { pool: "paused".into(), ..Default::default() }).await;
    let large = "b".repeat(10_000);
    let payloads = [("small", "a"), ("large", &*large)];
    let submit = async |end: &str| {
        let task_ids = payloads.map(|(id, _)| format!("{id}-{end}")).to_vec();
        let mut newest = 0;
        for (id, (_, payload)) in task_ids.iter().zip(payloads) {
            let request = request(id, "echo-later", payload);
            newest = server.tasks().submit_task(request).await.unwrap().into_inner().revision;
        }
        // The tables contain the tasks from here on.
        let filter = Some(v1::TaskFilter { task_ids, ..Default::default() });
        server.tasks().list_tasks(v1::ListTasksRequest { filter, ..Default::default() }).await.unwrap();
        newest
    };
    submit("kept").await;
    damage_payloads(&server, "kept");
    server.set_paused("paused", false).await;
    for _ in payloads {
        let end = next_end(&mut events).await;
        let payload = payloads.iter().find(|(id, _)| end.task_id.starts_with(id)).unwrap().1;
        let result_bytes = usize::try_from(end.resource_usage.as_ref().unwrap().result_bytes).unwrap();
        assert_eq!((end.state(), result_bytes), (TaskState::Completed, payload.len() + 2), "{end:?}");
    }
    server.wait_logged("read a damaged payload from the journal instead").await;

    server.set_paused("paused", true).await;
    let newest = submit("trimmed").await;
    let many = v1::BatchSubmitTasksRequest { tasks: vec![noop(); 2_000], ..Default::default() };
    server.tasks().batch_submit_tasks(many).await.unwrap();
    eventually(async || {
        let info = server.system().get_server_info(v1::GetServerInfoRequest {}).await.unwrap().into_inner();
        check(info.oldest_revision > newest, || format!("the journal begins at {}", info.oldest_revision))
    })
    .await;
    damage_payloads(&server, "trimmed");
    server.set_paused("paused", false).await;
    for _ in payloads {
        let end = next_end(&mut events).await;
        let failure = end.failure.as_ref().unwrap();
        assert_eq!((end.state(), failure.reason()), (TaskState::Failed, FailureReason::WorkerLost), "{end:?}");
        assert!(failure.message.contains("projection.db") && failure.message.contains("checksum"), "{failure:?}");
    }
}

/// Damages the payloads of the tasks whose ID ends like this: one in its task's row, and one in a row of its own.
fn damage_payloads(server: &Server, end: &str) {
    let tables = Connection::open(server.path("data/projection.db")).unwrap();
    let tasks = format!("SELECT seq FROM tasks WHERE id LIKE '%{end}'");
    let in_row =
        format!("UPDATE tasks SET spec = CAST(spec || x'00' AS BLOB) WHERE seq IN ({tasks}) AND id LIKE 'small%'");
    let separate = format!("UPDATE payloads SET body = CAST(body || x'00' AS BLOB) WHERE seq IN ({tasks})");
    let damaged = [in_row, separate].map(|sql| tables.execute(&sql, []).unwrap());
    assert_eq!(damaged, [1, 1]);
}

/// Every event that the server still has, and all later ones.
async fn watch(server: &Server, filter: v1::TaskFilter) -> Streaming<v1::WatchTasksResponse> {
    let resume_token = server.oldest_token().await;
    let request = v1::WatchTasksRequest { filter: Some(filter), resume_token, ..Default::default() };
    server.tasks().watch_tasks(request).await.unwrap().into_inner()
}

async fn next_event(events: &mut Streaming<v1::WatchTasksResponse>) -> v1::TaskEvent {
    loop {
        let message = tokio::time::timeout(TIMEOUT, events.message()).await.expect("an event").unwrap().unwrap();
        if let Some(v1::watch_tasks_response::Kind::Event(event)) = message.kind {
            return *event;
        }
    }
}

/// The next event with a terminal state.
async fn next_end(events: &mut Streaming<v1::WatchTasksResponse>) -> v1::TaskEvent {
    loop {
        let event = next_event(events).await;
        if event.state() > TaskState::Running {
            return event;
        }
    }
}

#[tokio::test]
async fn a_large_payload_and_a_large_result_are_counted_while_they_are_read() {
    const LIMITS: &str = r#"
[limits]
payload_bytes = "4MiB"
request_bytes = "32MiB"
response_bytes = "32MiB"
[[handler]]
name = "echo"
runner = "process"
argv = ["/bin/cat"]
[[handler]]
name = "too-much"
runner = "process"
argv = ["/usr/bin/head", "-c", "4194305", "/dev/zero"]
"#;
    let server = Server::start(LIMITS);
    let data = "c".repeat(4 << 20);
    let payload = v1::Payload { kind: Some(Kind::Data(data.clone().into())), content_type: String::new() };
    let id = server
        .submit(v1::SubmitTaskRequest { handler: "echo".into(), payload: Some(payload), ..Default::default() })
        .await;
    let done = server.wait_finished(&id).await;
    assert!(bytes(done.result.as_ref()) == data);
    // From here on, only the tables have the task.
    server.tasks().list_tasks(v1::ListTasksRequest::default()).await.unwrap();
    let get = async |include_payload| {
        let request = v1::GetTaskRequest { task_id: id.clone(), include_payload, ..Default::default() };
        server.tasks().get_task(request).await.unwrap().into_inner().task.unwrap()
    };
    let all = get(true).await;
    assert!(bytes(all.payload.as_ref()) == data && bytes(all.result.as_ref()) == data);
    let without = get(false).await;
    assert!(without.payload.is_none() && bytes(without.result.as_ref()) == data);
    // Each of them needs half of the memory.
    let all: Vec<_> = futures_util::future::join_all((0..3).map(|_| get(true))).await;
    assert!(all.iter().all(|task| bytes(task.payload.as_ref()) == data));
    let failed = server.submit(task("too-much", "0")).await;
    assert_eq!(server.wait_finished(&failed).await.failure.unwrap().reason(), FailureReason::ResultTooLarge);
    eventually(async || match &*samples(&server.address)["lineshaft_memory_used_bytes{part=\"requests\"}"] {
        "0" => Ok(()),
        used => Err(format!("{used} bytes")),
    })
    .await;
}
