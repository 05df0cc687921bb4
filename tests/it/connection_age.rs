//! An old connection: the client is asked to open a new one, and what waits for a task gets its answer first.

use lineshaft::proto::v1::{self, run_task_response};

use crate::support::{Server, noop};

const SHORT_AGE: &str = "[server]\nconnection_age = \"1s\"\nconnection_age_grace = \"0s\"\n";

/// Waits until the server has closed a connection because of its age, with a watch on it.
async fn age_of_a_connection(server: &Server) {
    let mut watch = server.tasks().watch_tasks(v1::WatchTasksRequest::default()).await.unwrap().into_inner();
    while watch.message().await.is_ok_and(|message| message.is_some()) {}
}

#[tokio::test]
async fn calls_that_wait_for_a_task_outlive_the_age_of_their_connection() {
    let server = Server::start(SHORT_AGE);
    server.set_paused("default", true).await;
    let request = v1::RunTaskRequest { task: Some(noop()) };
    let mut run = server.tasks().run_task(request).await.unwrap().into_inner();
    let Some(run_task_response::Kind::Accepted(accepted)) = run.message().await.unwrap().unwrap().kind else {
        panic!("the first message is not the acceptance")
    };
    let id = accepted.task_id;
    let timeout = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let mut client = server.tasks();
    let request = v1::WaitTaskRequest { task_id: id, timeout };
    let waiting = tokio::spawn(async move { client.wait_task(request).await.map(tonic::Response::into_inner) });
    // Both connections are older than two that were opened after them and closed for their age, one after the other.
    for _ in 0..2 {
        age_of_a_connection(&server).await;
    }
    server.set_paused("default", false).await;
    let mut last = None;
    while let Some(message) = run.message().await.unwrap() {
        last = message.kind;
    }
    assert!(matches!(last, Some(run_task_response::Kind::Task(task)) if task.state() == v1::TaskState::Completed));
    assert!(waiting.await.unwrap().unwrap().finished);
}
