//! Reads of tasks while the tables lag behind the journal.

use lineshaft::proto::v1::{self, TaskState};
use rusqlite::Connection;

use crate::support::{Server, TIMEOUT, bytes, noop, reason, task};

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
    let delete = v1::DeleteTasksRequest { filter: Some(filter) };
    assert_eq!(server.tasks().delete_tasks(delete).await.unwrap().into_inner().deleted, 1);
    let missing = server.tasks().get_task(v1::GetTaskRequest { task_id: old.clone(), include_payload: false }).await;
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

#[tokio::test]
async fn a_task_whose_id_was_used_before_runs_with_its_own_payload() {
    // No payload is kept in memory.
    let handler = "[[handler]]\nname = \"echo\"\nrunner = \"process\"\nargv = [\"/bin/cat\"]\n";
    let server = Server::start(&format!("[limits]\nqueued_payload_bytes = 0\n{handler}"));
    let first = server.submit(v1::SubmitTaskRequest { task_id: "again".into(), ..task("echo", "\"old\"") }).await;
    let done = server.wait_finished(&first).await;
    assert_eq!(bytes(done.result.as_ref()), "\"old\"");
    // The tables contain the first task from here on, whatever happens to it.
    server.tasks().list_tasks(v1::ListTasksRequest::default()).await.unwrap();
    let held = hold_tables(&server);
    assert_eq!(server.tasks().delete_tasks(v1::DeleteTasksRequest::default()).await.unwrap().into_inner().deleted, 1);
    let again = server.submit(v1::SubmitTaskRequest { task_id: "again".into(), ..task("echo", "\"new\"") }).await;
    let done = watch_until_finished(&server, &again).await;
    drop(held);
    assert_eq!(done, TaskState::Completed);
    assert_eq!(bytes(server.wait_finished(&again).await.result.as_ref()), "\"new\"");
}

/// The terminal state of the last task with this ID, as a watch reports it.
async fn watch_until_finished(server: &Server, id: &str) -> TaskState {
    let filter = v1::TaskFilter { task_ids: vec![id.to_owned()], ..Default::default() };
    let resume_token = server.oldest_token().await;
    let request = v1::WatchTasksRequest { filter: Some(filter), resume_token, ..Default::default() };
    let mut steps = server.tasks().watch_tasks(request).await.unwrap().into_inner();
    let mut deleted = false;
    loop {
        let step = tokio::time::timeout(TIMEOUT, steps.message()).await.expect("the task ends").unwrap().unwrap();
        let Some(v1::watch_tasks_response::Kind::Event(event)) = step.kind else { continue };
        if deleted && event.state() > TaskState::Running {
            return event.state();
        }
        deleted |= event.deleted;
    }
}
