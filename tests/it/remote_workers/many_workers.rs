//! A thousand workers.

use std::collections::HashSet;

use lineshaft::proto::v1;
use prost::Message;

use super::{CONFIG, Worker, first, hello, listed, result};
use crate::support::{Server, check, eventually, task};

const WORKERS: usize = 1_000;
/// Streams that share a connection.
const SHARED: usize = 50;
/// What gRPC clients accept by default.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_workers_are_connected_and_all_get_work() {
    let server = Server::start(&CONFIG.replace("3s", "1h"));
    let handlers: Vec<String> = (0..20).map(|number| format!("handler-{number}")).collect();
    let handlers: Vec<&str> = handlers.iter().map(String::as_str).chain(["resize"]).collect();
    let labels = || (0..16).map(|number| (format!("label-{number}"), "value".to_owned())).collect();
    let before = server.memory_used();
    let (mut workers, mut channel) = (Vec::new(), server.channel());
    for number in 0..WORKERS {
        if number % SHARED == 0 {
            channel = server.channel();
        }
        let hello = v1::WorkerHello { labels: labels(), ..hello(&format!("worker-{number}"), &handlers, 1) };
        workers.push(Worker::connect_over(channel.clone(), first(hello)).await.unwrap());
    }
    let used = server.memory_used().saturating_sub(before) / WORKERS as u64;
    assert!(used < 256 << 10, "{used} bytes for each worker");
    let rows = listed(&server).await;
    let response = v1::ListWorkersResponse { workers: rows, ..v1::ListWorkersResponse::default() };
    assert_eq!(response.workers.len(), WORKERS);
    assert!(response.encoded_len() < MESSAGE_BYTES_MAX, "{} bytes", response.encoded_len());

    let tasks = vec![task("resize", ""); WORKERS + 1];
    let request = v1::BatchSubmitTasksRequest { tasks, ..v1::BatchSubmitTasksRequest::default() };
    server.tasks().batch_submit_tasks(request).await.unwrap();
    let mut assigned = HashSet::new();
    let mut tokens = Vec::new();
    for worker in &mut workers {
        let attempt = worker.assigned().await;
        assert!(assigned.insert(attempt.task_id), "one worker for each");
        tokens.push(attempt.token);
    }
    workers[7].finish(&tokens[7], result(""));
    assert!(assigned.insert(workers[7].assigned().await.task_id), "the last one goes to the free slot");
    drop(workers);
    eventually(async || {
        let connected = listed(&server).await.iter().filter(|row| row.remote.as_ref().unwrap().connected).count();
        check(connected == 0, || format!("{connected} are connected"))
    })
    .await;
}
