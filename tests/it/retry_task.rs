//! RetryTask: a task that has ended, once more.

use std::collections::BTreeMap;

use lineshaft::proto::v1::{self, Priority, TaskState, payload};
use prost::bytes::Bytes;
use tonic::Status;

use crate::support::{Server, bytes, noop, reason, seconds, task};

async fn retry(server: &Server, request: v1::RetryTaskRequest) -> Result<v1::SubmitTaskResponse, Status> {
    Ok(server.tasks().retry_task(request).await?.into_inner().task.unwrap())
}

fn of(id: &str) -> v1::RetryTaskRequest {
    v1::RetryTaskRequest { task_id: id.to_owned(), ..Default::default() }
}

/// A task whose payload is refused.
fn failing() -> v1::SubmitTaskRequest {
    v1::SubmitTaskRequest {
        display_name: "monthly report".to_owned(),
        labels: BTreeMap::from([("team".to_owned(), "red".to_owned())]),
        priority: Priority::High.into(),
        timeout: seconds(77),
        expires_after: seconds(3_000),
        delay: seconds(0),
        ..task("compute", r#"{"op":"nosuch"}"#)
    }
}

#[tokio::test]
async fn a_retry_is_a_new_task_with_everything_of_the_ended_one() {
    let mut server = Server::start("");
    let id = server.submit(failing()).await;
    let ended = server.wait_finished(&id).await;
    assert_eq!(ended.state(), TaskState::Failed);

    let again = retry(&server, of(&id)).await.unwrap().task_id;
    assert_ne!(again, id);
    let new = server.wait_finished(&again).await;
    assert_eq!(new.retry_of, id);
    let options = |task: &v1::Task| {
        (
            task.handler.clone(),
            task.pool.clone(),
            task.priority,
            task.display_name.clone(),
            task.labels.clone(),
            task.timeout,
        )
    };
    assert_eq!(options(&new), options(&ended));
    let expiry = |task: &v1::Task| task.expires_at.unwrap().seconds - task.submitted_at.unwrap().seconds;
    assert_eq!((expiry(&new), expiry(&ended)), (3_000, 3_000), "each counted from its submission");
    assert_eq!(bytes(server.get(&again).await.payload.as_ref()), r#"{"op":"nosuch"}"#);
    assert_eq!(server.get(&id).await.revision, ended.revision, "the ended task stays as it is");

    server.kill9();
    server.start_again();
    assert_eq!(server.get(&again).await.retry_of, id, "also after a crash");
}

#[tokio::test]
async fn a_retry_can_have_another_payload_and_priority_and_be_repeated() {
    let server = Server::start("");
    let id = server.submit(failing()).await;
    server.wait_finished(&id).await;
    let data = payload::Kind::Data(Bytes::from_static(b"100"));
    let request = v1::RetryTaskRequest {
        request_id: "once".to_owned(),
        payload: Some(v1::Payload { kind: Some(data), content_type: "application/json".to_owned() }),
        priority: Priority::Low.into(),
        ..of(&id)
    };
    let first = retry(&server, request.clone()).await.unwrap();
    let second = retry(&server, request).await.unwrap();
    assert_eq!((first.duplicate, second.duplicate), (false, true));
    assert_eq!(first.task_id, second.task_id);
    let new = server.wait_finished(&first.task_id).await;
    assert_eq!((new.state(), new.priority()), (TaskState::Completed, Priority::Low));
    assert!(bytes(new.result.as_ref()).contains("4950"), "{new:?}");
}

#[tokio::test]
async fn a_batch_that_has_ended_does_not_grow_by_a_retry() {
    let server = Server::start("");
    let request = v1::BatchSubmitTasksRequest { tasks: vec![failing()], batch_id: "nightly".to_owned() };
    let id = server.tasks().batch_submit_tasks(request).await.unwrap().into_inner().task_ids.remove(0);
    server.wait_finished(&id).await;
    let again = retry(&server, of(&id)).await.unwrap().task_id;
    assert_eq!(server.get(&again).await.batch_id, "");
}

#[tokio::test]
async fn only_a_task_that_has_ended_is_retried() {
    let server = Server::start("");
    let id = server.submit(task("io", "60")).await;
    server.wait_started(&id).await;
    let refused = retry(&server, of(&id)).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (tonic::Code::FailedPrecondition, "TASK_NOT_FINISHED"));
    assert_eq!(refused.message(), format!("task `{id}` has not ended: it is RUNNING"));
    let unknown = retry(&server, of("nosuch")).await.unwrap_err();
    assert_eq!(reason(&unknown), "TASK_NOT_FOUND");
    let done = server.submit(noop()).await;
    server.wait_finished(&done).await;
    let invalid = retry(&server, v1::RetryTaskRequest { priority: 9, ..of(&done) }).await.unwrap_err();
    assert_eq!(crate::support::fields(&invalid), ["priority"]);
}
