//! Texts of a filter: what they find, in lists, watches and deletions.

use lineshaft::proto::v1::{self, TaskState, watch_tasks_response::Kind};

use crate::support::{Server, fields, task};

/// Prints its argument and fails.
const CONFIG: &str = r#"
[[handler]]
name = "import"
runner = "process"
argv = ["/bin/sh", "-c", "echo \"$0: Connection refused\" >&2; exit 3"]
arg_pattern = "[^-].*"
retry = { attempts = 1 }
"#;

fn with(texts: &[&str]) -> Option<v1::TaskFilter> {
    Some(v1::TaskFilter { texts: texts.iter().map(|text| (*text).to_owned()).collect(), ..Default::default() })
}

async fn found(server: &Server, texts: &[&str]) -> Vec<String> {
    let request = v1::ListTasksRequest { filter: with(texts), ..Default::default() };
    let page = server.tasks().list_tasks(request).await.unwrap().into_inner();
    page.tasks.into_iter().map(|task| task.task_id).collect()
}

#[tokio::test]
async fn tasks_are_found_by_their_texts() {
    let mut server = Server::start(CONFIG);
    for (id, name, file) in [("one", "Nightly import", "orders.csv"), ("two", "", "users.csv")] {
        let (task_id, display_name) = (id.to_owned(), name.to_owned());
        let args = vec![file.to_owned()];
        server.submit(v1::SubmitTaskRequest { task_id, display_name, args, ..task("import", "null") }).await;
        assert_eq!(server.wait_finished(id).await.state(), TaskState::Failed);
    }
    let delay = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
    server.submit(v1::SubmitTaskRequest { task_id: "later".into(), delay, ..task("compute", "1") }).await;
    let cancel = v1::CancelTaskRequest { task_id: "later".into(), reason: "ÜBERHOLT".into(), ..Default::default() };
    server.tasks().cancel_task(cancel).await.unwrap();
    for _ in 0..2 {
        assert_eq!(found(&server, &["connection REFUSED"]).await, ["two", "one"], "in the detail");
        assert_eq!(found(&server, &["exited with"]).await, ["two", "one"], "in the message");
        assert_eq!(found(&server, &["nightly", "orders."]).await, ["one"], "in the name and an argument");
        assert_eq!(found(&server, &["nightly", "users."]).await, [""; 0]);
        assert_eq!(found(&server, &["überholt"]).await, ["later"], "in the reason of the cancel");
        assert_eq!(found(&server, &["mpor", "wo"]).await, ["two"], "in the handler and the ID");
        server.kill9();
        server.start_again();
    }
    let delete = v1::DeleteTasksRequest { filter: with(&["refused"]), validate_only: true };
    assert_eq!(server.tasks().delete_tasks(delete.clone()).await.unwrap().into_inner().deleted, 2);
    let delete = v1::DeleteTasksRequest { validate_only: false, ..delete };
    assert_eq!(server.tasks().delete_tasks(delete).await.unwrap().into_inner().deleted, 2);
    assert_eq!(found(&server, &["e"]).await, ["later"]);
}

#[tokio::test]
async fn a_watch_searches_the_texts_of_each_event() {
    let server = Server::start(CONFIG);
    let request = v1::WatchTasksRequest { filter: with(&["refused"]), ..Default::default() };
    let mut responses = server.tasks().watch_tasks(request).await.unwrap().into_inner();
    let args = vec!["a.csv".to_owned()];
    let id = server.submit(v1::SubmitTaskRequest { args, ..task("import", "null") }).await;
    let event = loop {
        if let Some(Kind::Event(event)) = responses.message().await.unwrap().unwrap().kind {
            break event;
        }
    };
    assert_eq!((event.task_id.clone(), event.state()), (id, TaskState::Failed), "{event:?}");
}

#[tokio::test]
async fn texts_are_limited() {
    let server = Server::start("");
    let long = "x".repeat(257);
    for (texts, field) in
        [(vec!["", "x"], "filter.texts[0]"), (vec!["x", &long], "filter.texts[1]"), (vec!["x"; 17], "filter.texts")]
    {
        let request = v1::ListTasksRequest { filter: with(&texts), ..Default::default() };
        assert_eq!(fields(&server.tasks().list_tasks(request).await.unwrap_err()), [field]);
    }
}
