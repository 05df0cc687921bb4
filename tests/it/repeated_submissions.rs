//! Submissions that are sent again: the same answer, without a price, and a follower sees their end.

use lineshaft::proto::v1::watch_tasks_response::Kind;
use lineshaft::proto::v1::{self, TaskState};

use crate::support::{Server, noop, task};

fn with_request_id(id: &str) -> v1::SubmitTaskRequest {
    v1::SubmitTaskRequest { request_id: id.to_owned(), ..noop() }
}

#[tokio::test]
async fn a_repeated_batch_returns_the_first_batch_and_a_token_from_which_its_end_is_seen() {
    let server = Server::start("");
    let tasks = vec![with_request_id("one"), with_request_id("two")];
    let request = v1::BatchSubmitTasksRequest { tasks, batch_id: String::new() };
    let first = server.tasks().batch_submit_tasks(request.clone()).await.unwrap().into_inner();
    assert!(first.duplicates.is_empty());
    for id in &first.task_ids {
        server.wait_finished(id).await;
    }
    let again = server.tasks().batch_submit_tasks(request.clone()).await.unwrap().into_inner();
    assert_eq!((&again.batch_id, &again.task_ids), (&first.batch_id, &first.task_ids));
    assert_eq!(again.duplicates, [true, true]);
    let filter = v1::TaskFilter { batch_id: again.batch_id, ..v1::TaskFilter::default() };
    let watch = v1::WatchTasksRequest { filter: Some(filter), resume_token: again.resume_token, ..Default::default() };
    let mut watch = server.tasks().watch_tasks(watch).await.unwrap().into_inner();
    let mut ended = Vec::new();
    while ended.len() < 2 {
        let Some(Kind::Event(event)) = watch.message().await.unwrap().unwrap().kind else { continue };
        if event.state() == TaskState::Completed {
            ended.push(event.task_id);
        }
    }
    ended.sort();
    assert_eq!(ended, first.task_ids);
    let mixed = vec![with_request_id("three"), with_request_id("two")];
    let mixed = v1::BatchSubmitTasksRequest { tasks: mixed, batch_id: "mixed".to_owned() };
    let mixed = server.tasks().batch_submit_tasks(mixed).await.unwrap().into_inner();
    assert_eq!((&*mixed.batch_id, mixed.duplicates), ("mixed", vec![false, true]));
}

#[tokio::test]
async fn a_task_that_completes_after_a_retry_has_no_failure() {
    let directory = tempfile::tempdir().unwrap();
    let marker = directory.path().join("marker");
    let config = format!(
        "[[handler]]\nname = \"second\"\nrunner = \"process\"\n\
         argv = [\"/bin/sh\", \"-c\", \"test -e {0} || {{ touch {0}; exit 3; }}\"]\n\
         [handler.retry]\nattempts = 2\ndelay = \"0s\"\n",
        marker.display()
    );
    let server = Server::start(&config);
    let id = server.submit(task("second", "")).await;
    let done = server.wait_finished(&id).await;
    assert_eq!((done.state(), done.attempt, done.failure), (TaskState::Completed, 2, None));
    let token = server.oldest_token().await;
    let watch = v1::WatchTasksRequest { resume_token: token, ..v1::WatchTasksRequest::default() };
    let mut watch = server.tasks().watch_tasks(watch).await.unwrap().into_inner();
    loop {
        let Some(Kind::Event(event)) = watch.message().await.unwrap().unwrap().kind else { continue };
        if let Some(failure) = event.failure {
            assert_eq!((failure.attempt, failure.exit_code), (1, Some(3)), "the events have it");
            break;
        }
    }
}
