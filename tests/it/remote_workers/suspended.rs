//! Attempts that wait for others lend their slot.

use lineshaft::proto::v1::{self, TaskState, server_message::Kind as Sent, worker_message::Kind as Report};

use super::{CONFIG, Worker, hello, result};
use crate::support::{Server, bytes, task};

#[tokio::test]
async fn a_suspended_attempt_lends_its_slot() {
    let server = Server::start(CONFIG);
    let mut worker = Worker::connect(&server, hello("w", &["resize"], 1)).await;
    let parent = server.submit(task("resize", "parent")).await;
    let token = worker.assigned().await.token;
    worker.accept(&token);
    let children = [server.submit(task("resize", "1")).await, server.submit(task("resize", "2")).await];
    worker.send([Report::Suspended(v1::AttemptSuspended { token: token.clone() })]);
    let first = worker.assigned().await;
    assert_eq!(first.task_id, children[0]);
    worker.send([Report::Resuming(v1::AttemptResuming { token: token.clone() })]);
    worker.finish(&first.token, result(""));
    // The parent goes on when a child has given the slot back; the other child may have come first.
    let mut is_resumed = false;
    while !is_resumed {
        match worker.next().await.unwrap() {
            Sent::Resumed(message) => is_resumed = message.token == token,
            Sent::Assigned(child) => worker.finish(&child.token, result("")),
            Sent::Settled(_) => {}
            other => panic!("{other:?}"),
        }
    }
    worker.finish(&token, result("parent"));
    assert_eq!(bytes(server.wait_finished(&parent).await.result.as_ref()), "parent");
}

#[tokio::test]
async fn an_attempt_gives_its_slot_back_once_however_often_it_is_suspended() {
    let server = Server::start(CONFIG);
    let mut worker = Worker::connect(&server, hello("w", &["resize"], 1)).await;
    let parent = server.submit(task("resize", "parent")).await;
    let token = worker.assigned().await.token;
    let suspended = || Report::Suspended(v1::AttemptSuspended { token: token.clone() });
    worker.send([suspended(), suspended(), suspended()]);
    let child = server.submit(task("resize", "child")).await;
    let other = server.submit(task("resize", "other")).await;
    let first = worker.assigned().await;
    assert_eq!(first.task_id, child);
    // The parent ends while the child has the only slot.
    worker.finish(&token, result("parent"));
    server.wait_finished(&parent).await;
    assert_eq!(server.get(&other).await.state(), TaskState::Queued, "no slot is free");
    worker.finish(&first.token, result(""));
    assert_eq!(worker.assigned().await.task_id, other);
}
