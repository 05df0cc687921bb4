//! Requests that the server receives and does not read or answer yet. Others are served meanwhile, and the memory is counted.

use std::sync::Arc;

use futures_util::stream::{self, FuturesUnordered, StreamExt};
use lineshaft::proto::v1::{self, payload::Kind};
use prost::Message;
use tonic::transport::Endpoint;
use tonic::{Response, Status, Streaming};

use super::{Caller, Tokens};
use crate::health_endpoints::{health_address, samples};
use crate::malformed_requests::Bytes;
use crate::support::{Server, check, eventually, noop, reason};

/// Much less than all requests of each test.
const CONFIG: &str = "
[server]
health_listen = \"127.0.0.1:0\"
send_timeout = \"5s\"
[http]
body_timeout = \"45s\"
[limits]
request_bytes = \"32MiB\"
";

fn start() -> (Server, Caller, impl Fn(&Server) -> Caller) {
    let tokens = Tokens::new();
    let loud = tokens.create("loud", "submitter", "loud", &[]);
    let quiet = tokens.create("quiet", "submitter", "quiet", &[]);
    let server = tokens.serve(CONFIG);
    let quiet = Caller::new(&server, &quiet);
    (server, quiet, move |server| unread_caller(server, &loud))
}

fn used(server: &Server) -> u64 {
    let sample = |part| format!("lineshaft_memory_used_bytes{{part=\"{part}\"}}");
    let samples = samples(&health_address(server));
    ["requests", "small_requests"].iter().map(|part| samples[&sample(part)].parse::<u64>().unwrap()).sum()
}

/// A caller whose connection takes no responses.
pub fn unread_caller(server: &Server, token: &str) -> Caller {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    Caller::over(endpoint.initial_stream_window_size(0).connect_lazy(), Some(token))
}

pub fn with_bytes(bytes: usize) -> v1::SubmitTaskRequest {
    let payload = v1::Payload { kind: Some(Kind::Data(vec![7; bytes].into())), content_type: String::new() };
    v1::SubmitTaskRequest { payload: Some(payload), ..noop() }
}

/// Submits tasks without end. `open` is dropped when the stream has ended.
pub async fn submit_without_end(
    caller: Caller,
    open: Arc<()>,
) -> Result<Response<Streaming<v1::SubmitTasksResponse>>, Status> {
    let request = v1::SubmitTasksRequest { sequence: 1, task: Some(with_bytes(32 << 10)) };
    let requests = stream::repeat_with(move || {
        let _ = &open;
        request.clone()
    });
    caller.tasks().submit_tasks(requests).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_tasks_that_are_not_read_are_counted() {
    const STREAMS: usize = 200;
    let (server, quiet, loud) = start();
    let before = server.peak_memory();
    let open = Arc::new(());
    let calls: FuturesUnordered<_> = (0..STREAMS).map(|_| submit_without_end(loud(&server), open.clone())).collect();
    let (held, refused): (Vec<_>, Vec<_>) = calls.collect::<Vec<_>>().await.into_iter().partition(Result::is_ok);
    for refused in refused {
        assert_eq!(reason(&refused.unwrap_err()), "MEMORY_FULL");
    }
    println!("{} streams are open, {} MiB are counted", held.len(), used(&server) >> 20);
    quiet.tasks().submit_task(with_bytes(1 << 20)).await.unwrap();
    // No response is read, so that the server ends the streams.
    eventually(async || {
        let left = Arc::strong_count(&open) - 1;
        check(left == 0 && used(&server) == 0, || format!("{left} streams, {} bytes are left", used(&server)))
    })
    .await;
    let grown = server.peak_memory().saturating_sub(before);
    println!("{} MiB more", grown >> 20);
    assert!(held.len() < STREAMS, "no stream was refused");
    assert!(grown < 64 << 20, "{grown} bytes for streams that were not read");
}

/// Sends a call with a message of 4 MiB whose request does not end. Returns the refusal.
pub async fn incomplete_call(caller: Caller, path: &str) -> Status {
    let mut raw = tonic::client::Grpc::new(caller.transport);
    raw.ready().await.unwrap();
    let requests = stream::iter([large_message(path)]).chain(stream::pending());
    let path = format!("/lineshaft.v1.TaskService/{path}").parse().unwrap();
    let answer: Result<Response<Vec<u8>>, _> = raw.client_streaming(tonic::Request::new(requests), path, Bytes).await;
    answer.unwrap_err()
}

/// A message of `path` with 4 MiB.
fn large_message(path: &str) -> Vec<u8> {
    let tasks = vec![with_bytes(1 << 20); 4];
    match path {
        "BatchSubmitTasks" => v1::BatchSubmitTasksRequest { tasks, ..Default::default() }.encode_to_vec(),
        // What the server does not know is part of the message too.
        _ => [&[0xfa, 0x7f, 0x80, 0x80, 0x80, 0x02][..], &vec![7; 4 << 20]].concat(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_calls_that_are_not_complete_are_counted() {
    let (server, quiet, loud) = start();
    for path in ["BatchSubmitTasks", "ListTasks", "WatchTasks", "RunTask"] {
        let before = server.peak_memory();
        let mut calls: FuturesUnordered<_> = (0..40).map(|_| incomplete_call(loud(&server), path)).collect();
        // 57 % of the memory.
        while calls.len() > 4 {
            let refused = calls.next().await.unwrap();
            assert_eq!(reason(&refused), "MEMORY_FULL", "{path}: {refused:?}");
        }
        quiet.tasks().submit_task(with_bytes(1 << 20)).await.unwrap();
        let grown = server.peak_memory().saturating_sub(before);
        println!("{path}: {} calls are open, {} MiB more", calls.len(), grown >> 20);
        assert!(grown < 96 << 20, "{path}: {grown} bytes for requests that are not complete");
        drop(calls);
        eventually(async || check(used(&server) == 0, || format!("{path}: {} bytes are used", used(&server)))).await;
    }
}
