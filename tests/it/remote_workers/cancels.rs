//! Attempts that have to stop.

use lineshaft::proto::v1::{self, StopReason, TaskState, worker_message::Kind as Report};

use super::{CONFIG, Worker, finished, hello, stopped};
use crate::support::{Server, reason, seconds, task};

#[tokio::test]
async fn a_cancelled_attempt_is_stopped_and_a_worker_that_ignores_it_is_evicted() {
    let server = Server::start(CONFIG);
    for ignores in [false, true] {
        let mut worker = Worker::connect(&server, hello("w", &["resize"], 1)).await;
        let id = server.submit(task("resize", "")).await;
        let token = worker.assigned().await.token;
        worker.accept(&token);
        server.wait_for_state(&id, TaskState::Running).await;
        let cancel = v1::CancelTaskRequest { task_id: id.clone(), grace: seconds(60), ..Default::default() };
        server.tasks().cancel_task(cancel).await.unwrap();
        let cancel = worker.cancelled().await;
        assert_eq!((&cancel.token, cancel.reason(), cancel.grace.unwrap().seconds), (&token, StopReason::Cancel, 59));
        if ignores {
            worker.keep_alive();
            let status = worker.end().await;
            assert_eq!(reason(&status), "WORKER_EVICTED");
            assert!(status.message().contains("cancel"), "{status:?}");
        } else {
            worker.send([
                Report::CancelAcknowledged(v1::CancelAcknowledged { token: token.clone() }),
                finished(&token, stopped()),
            ]);
        }
        assert_eq!(server.wait_finished(&id).await.state(), TaskState::Cancelled);
    }
}

#[tokio::test]
async fn an_attempt_is_cancelled_at_its_timeout() {
    let server = Server::start(CONFIG);
    let mut worker = Worker::connect(&server, hello("w", &["resize"], 1)).await;
    let timeout = Some(prost_types::Duration { seconds: 0, nanos: 50_000_000 });
    let retry = Some(v1::RetryPolicy { max_attempts: 1, ..v1::RetryPolicy::default() });
    let id = server.submit(v1::SubmitTaskRequest { timeout, retry, ..task("resize", "") }).await;
    let token = worker.assigned().await.token;
    let cancel = worker.cancelled().await;
    assert_eq!((&cancel.token, cancel.reason()), (&token, StopReason::Timeout));
    worker.finish(&token, stopped());
    assert_eq!(server.wait_finished(&id).await.failure.unwrap().reason(), v1::FailureReason::Timeout);
}
