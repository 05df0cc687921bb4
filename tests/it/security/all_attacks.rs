//! All attacks on the memory at once, on a server of the size that the documentation names for hostile callers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use lineshaft::proto::v1::{self, TaskState};
use serde_json::json;
use tokio::task::JoinHandle;

use super::public_calls::{assert_healthy, flood, send_large_bodies};
use super::unread_requests::{submit_without_end, unread_caller};
use super::unread_responses::{LIST, Unread, WATCH, total};
use super::{Caller, Tokens};
use crate::http1_client::post;
use crate::support::{ControlGroup, Server, noop, seconds};

const LIMIT: u64 = 512 << 20;
const WAIT: &str = "/lineshaft.v1.TaskService/WaitTask";
/// Events that the watches have to read: three for each task.
const FINISHED_TASKS: usize = 50_000;
/// More payloads than the limit has room for, from this many connections.
const WRITERS: usize = 16;
const WRITES: usize = 20;

/// What a server in a control group of [`LIMIT`] has by default.
const SMALL: &str = "
[limits]
queued_payload_bytes = \"140MiB\"
request_bytes = \"88MiB\"
response_bytes = \"44MiB\"
";

async fn finish_many(caller: &Caller) {
    for _ in 0..FINISHED_TASKS / 1_000 {
        let batch = v1::BatchSubmitTasksRequest { tasks: vec![noop(); 1_000], ..Default::default() };
        caller.tasks().batch_submit_tasks(batch).await.unwrap();
    }
}

/// Submits tasks with payloads of 1 MB as JSON, one after the other. Returns how many were accepted.
fn write_large_json(server: &Server, token: &str, data: &str) -> usize {
    let body = json!({ "handler": "compute", "delay": "3600s", "payload": { "data": data } }).to_string();
    let authorization = [("authorization", &*format!("Bearer {token}"))];
    let request = post("/lineshaft.v1.TaskService/SubmitTask", "application/json", &authorization, body.as_bytes());
    let is_accepted = || {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        // A refusal closes the connection, and a client that is still sending may lose it to a reset.
        let mut status = [0; 12];
        let read = stream.write_all(&request).and_then(|()| stream.read_exact(&mut status));
        read.is_ok() && &status == b"HTTP/1.1 200"
    };
    (0..WRITES).filter(|_| is_accepted()).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_attacks_at_once_do_not_fill_the_memory() {
    let tokens = Tokens::new();
    let reader = tokens.create("reader", "viewer", "*", &[]);
    let waiter = tokens.create("waiter", "viewer", "*", &[]);
    let writer = tokens.create("writer", "submitter", "*", &[]);
    let streamer = tokens.create("streamer", "submitter", "*", &[]);
    let other = tokens.create("other", "submitter", "*", &[]);
    let group = ControlGroup::create(LIMIT);
    let limits = if group.is_some() { "" } else { SMALL };
    let server = tokens.serve_limited(limits, group.as_ref());
    let other = Caller::new(&server, &other);
    let oldest = other.system().get_server_info(v1::GetServerInfoRequest {}).await.unwrap();
    finish_many(&other).await;
    let held = v1::SubmitTaskRequest { delay: seconds(3_600), ..noop() };
    let held = other.tasks().submit_task(held).await.unwrap().into_inner().task_id;

    let _public_calls = flood(&server.address);
    let list = v1::ListTasksRequest { page_size: 1_000, ..Default::default() };
    let watch = v1::WatchTasksRequest { resume_token: oldest.into_inner().oldest_resume_token, ..Default::default() };
    let wait = v1::WaitTaskRequest { task_id: held, ..Default::default() };
    let mut unread: Vec<_> = (0..3).map(|_| Unread::open(&server, 0, LIST, &reader, &list)).collect();
    unread.extend((0..2).map(|_| Unread::open(&server, 0, WATCH, &reader, &watch)));
    unread.extend((0..12).map(|_| Unread::open(&server, 1 << 16, WAIT, &waiter, &wait)));
    let streams: Vec<_> =
        (0..100).map(|_| tokio::spawn(submit_without_end(unread_caller(&server, &streamer), Arc::default()))).collect();
    let data = "eHh4".repeat(250_000);
    let accepted = tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let write = || write_large_json(&server, &writer, &data);
            let writers: Vec<_> = (0..WRITERS).map(|_| scope.spawn(write)).collect();
            send_large_bodies(&server.address, 16);
            writers.into_iter().map(|writer| writer.join().unwrap()).sum::<usize>()
        })
    });
    assert!(accepted > 0, "no payload was accepted");
    let begun = total(&mut unread, |calls| calls.begun);
    println!("{accepted} of {} payloads accepted, {begun} responses begun", WRITERS * WRITES);
    streams.iter().for_each(JoinHandle::abort);
    println!("peak {} MiB", server.peak_memory() >> 20);
    assert_healthy(&server.address).await;
    let task = other.tasks().submit_task(noop()).await.unwrap().into_inner().task_id;
    let wait = v1::WaitTaskRequest { task_id: task, ..Default::default() };
    let task = other.tasks().wait_task(wait).await.unwrap().into_inner().task.unwrap();
    assert_eq!(task.state(), TaskState::Completed);
    match group {
        Some(group) => assert_eq!(group.killed(), 0, "killed for memory"),
        None => assert!(server.peak_memory() <= LIMIT, "{} bytes", server.peak_memory()),
    }
}
