//! What a drain does with the tasks that run.

use lineshaft::proto::v1::{self, StopMethod, TaskState};
use rustix::process::Signal;

use crate::support::{Server, check, eventually, seconds};

fn config(drain_limit: &str, grace: &str) -> String {
    format!(
        "[server]\ndrain_limit = \"{drain_limit}\"\n[[handler]]\nname = \"sh\"\nrunner = \"process\"\n\
         argv = [\"/bin/sh\", \"-c\", \"eval \\\"$1\\\"\", \"sh\"]\narg_pattern = '(?s).*'\ngrace = \"{grace}\"\n"
    )
}

/// Starts a program that runs `on_term` when it is asked to stop, and waits until it would.
async fn start(server: &Server, on_term: &str) -> String {
    let ready = server.path("running");
    let script = format!("trap '{on_term}' TERM; touch {}; while :; do sleep 0.02; done", ready.display());
    let task = v1::SubmitTaskRequest { handler: "sh".into(), args: vec![script], ..Default::default() };
    let id = server.submit(task).await;
    eventually(async || check(ready.exists(), || "the program does not run".to_owned())).await;
    id
}

/// A program that needs more time to stop than it gets leaves this file.
fn late(server: &Server) -> (std::path::PathBuf, String) {
    let late = server.path("late");
    let on_term = format!("sleep 2; touch {}; exit", late.display());
    (late, on_term)
}

#[tokio::test]
async fn without_limit_and_grace_a_drain_kills_at_once() {
    let mut server = Server::start(&config("0s", "0s"));
    let (late, on_term) = late(&server);
    let id = start(&server, &on_term).await;
    server.signal(Signal::TERM);
    assert!(server.wait_exit().success());
    assert!(!late.exists(), "the program had time");
    server.start_again();
    server.wait_for_state(&id, TaskState::Running).await;
    assert_eq!(server.get(&id).await.attempt, 1, "the interrupted attempt does not count");
}

#[tokio::test]
async fn the_limit_of_a_drain_ends_a_longer_grace_period() {
    let mut server = Server::start(&config("0s", "5m"));
    let (late, on_term) = late(&server);
    start(&server, &on_term).await;
    server.signal(Signal::TERM);
    assert!(server.wait_exit().success());
    assert!(!late.exists(), "the program had time");
}

#[tokio::test]
async fn a_second_signal_kills_at_once() {
    let mut server = Server::start(&config("1h", "5m"));
    let (late, on_term) = late(&server);
    start(&server, &on_term).await;
    server.signal(Signal::TERM);
    server.wait_logged("draining").await;
    server.signal(Signal::INT);
    assert!(server.wait_exit().success());
    assert!(!late.exists(), "the program had time");
}

#[tokio::test]
async fn a_handler_gets_its_grace_period_within_the_limit_and_its_result_counts() {
    let mut server = Server::start(&config("5m", "5m"));
    let id = start(&server, "echo saved; exit 0").await;
    server.signal(Signal::TERM);
    assert!(server.wait_exit().success());
    server.start_again();
    let task = server.wait_finished(&id).await;
    assert_eq!((task.state(), task.attempt), (TaskState::Completed, 1));
    assert_eq!(crate::support::bytes(task.result.as_ref()), "saved\n");
}

#[tokio::test]
async fn a_drain_ends_the_longer_grace_period_of_a_cancel() {
    let mut server = Server::start(&config("0s", "0s"));
    let id = start(&server, "").await;
    let cancel = v1::CancelTaskRequest { task_id: id.clone(), grace: seconds(300), ..Default::default() };
    server.tasks().cancel_task(cancel).await.unwrap();
    server.signal(Signal::TERM);
    assert!(server.wait_exit().success());
    server.start_again();
    let receipt = server.wait_finished(&id).await.cancel.unwrap();
    assert_eq!(receipt.method(), StopMethod::SignalKill);
}

#[tokio::test]
async fn a_second_cancel_can_shorten_the_grace_period_and_not_extend_it() {
    let server = Server::start(&config("0s", "0s"));
    let id = start(&server, "").await;
    for grace in [300, 0, 200] {
        let cancel = v1::CancelTaskRequest { task_id: id.clone(), grace: seconds(grace), ..Default::default() };
        // The task may have ended when the third request comes.
        let _ = server.tasks().cancel_task(cancel).await;
    }
    let receipt = server.wait_finished(&id).await.cancel.unwrap();
    assert_eq!(receipt.method(), StopMethod::SignalKill);
}
