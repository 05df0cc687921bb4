//! Links that stop forwarding, and workers that stop or die.

use std::process::{Command, Stdio};

use lineshaft::proto::v1;
use rustix::process::{Pid, Signal, kill_process};
use tonic::transport::Endpoint;

use super::{CONFIG, Worker, first, hello, result};
use crate::support::{Direction, KillOnDrop, Proxy, Server, bytes, reason, task};

async fn connect_through(proxy: &Proxy, hello: v1::WorkerHello) -> Worker {
    let channel = Endpoint::from_shared(format!("http://{}", proxy.address)).unwrap().connect_lazy();
    Worker::connect_over(channel, first(hello)).await.unwrap()
}

#[tokio::test]
async fn the_attempt_of_a_worker_that_is_not_heard_any_more_goes_to_another() {
    for directions in [vec![Direction::ToServer], vec![Direction::ToServer, Direction::ToClient]] {
        let server = Server::start(CONFIG);
        let proxy = Proxy::start(&server.address).await;
        let mut cut_off = connect_through(&proxy, hello("w", &["resize"], 1)).await;
        cut_off.keep_alive();
        let id = server.submit(task("resize", "")).await;
        let token = cut_off.assigned().await.token;
        cut_off.accept(&token);
        for direction in &directions {
            proxy.stall(*direction);
        }
        let mut other = Worker::connect(&server, hello("other", &["resize"], 1)).await;
        other.keep_alive();
        let again = other.assigned().await;
        assert_eq!((&again.task_id, again.attempt), (&id, 1), "the lost attempt does not count");
        if directions.len() == 1 {
            assert_eq!(reason(&cut_off.end().await), "WORKER_EVICTED");
        }
        other.finish(&again.token, result("other"));
        assert_eq!(bytes(server.wait_finished(&id).await.result.as_ref()), "other");
    }
}

#[tokio::test]
async fn an_attempt_that_does_not_reach_its_worker_goes_to_another() {
    let server = Server::start(CONFIG);
    let proxy = Proxy::start(&server.address).await;
    let deaf = connect_through(&proxy, hello("deaf", &["resize"], 1)).await;
    deaf.keep_alive();
    proxy.stall(Direction::ToClient);
    let id = server.submit(task("resize", "")).await;
    server.wait_for_state(&id, v1::TaskState::Running).await;
    let mut other = Worker::connect(&server, hello("other", &["resize"], 1)).await;
    other.keep_alive();
    let again = other.assigned().await;
    assert_eq!((&again.task_id, again.attempt), (&id, 1));
}

/// Set in the process that plays a worker.
const ADDRESS: &str = "TEST_WORKER_SERVER";

/// The worker of the next test: takes attempts and does not finish them.
#[tokio::test]
async fn worker_to_be_stopped() {
    let Ok(address) = std::env::var(ADDRESS) else { return };
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    let mut worker = Worker::connect_over(channel, first(hello("w", &["resize"], 1))).await.unwrap();
    worker.keep_alive();
    let token = worker.assigned().await.token;
    worker.accept(&token);
    assert_eq!(reason(&worker.end().await), "WORKER_EVICTED");
}

#[tokio::test]
async fn the_attempt_of_a_stopped_or_killed_program_goes_to_another() {
    for signal in [Signal::STOP, Signal::KILL] {
        let server = Server::start(CONFIG);
        #[expect(clippy::disallowed_methods, reason = "starts a worker, not a handler")]
        let program = Command::new(std::env::current_exe().unwrap())
            .args(["remote_workers::link_faults::worker_to_be_stopped", "--exact"])
            .env(ADDRESS, &server.address)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut program = KillOnDrop(program);
        let id = server.submit(task("resize", "")).await;
        server.wait_for_state(&id, v1::TaskState::Running).await;
        kill_process(Pid::from_child(&program.0), signal).unwrap();
        let mut other = Worker::connect(&server, hello("other", &["resize"], 1)).await;
        other.keep_alive();
        let again = other.assigned().await;
        assert_eq!((&again.task_id, again.attempt), (&id, 1), "the lost attempt does not count");
        other.finish(&again.token, result("other"));
        assert_eq!(bytes(server.wait_finished(&id).await.result.as_ref()), "other");
        if signal == Signal::STOP {
            kill_process(Pid::from_child(&program.0), Signal::CONT).unwrap();
            let status = tokio::task::spawn_blocking(move || program.0.wait().unwrap()).await.unwrap();
            assert!(status.success(), "it is told that it was evicted");
        }
    }
}
