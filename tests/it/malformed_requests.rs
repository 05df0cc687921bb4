//! Callers that disconnect, stall, or send malformed bytes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use lineshaft::proto::v1::{self, TaskState, submit_tasks_response::Outcome};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::support::{Server, TIMEOUT, noop, task};

async fn assert_serves(server: &Server) {
    let id = server.submit(noop()).await;
    assert_eq!(server.wait_finished(&id).await.state(), TaskState::Completed);
}

#[tokio::test]
async fn random_bytes_do_not_affect_other_connections() {
    let server = Server::start("");
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for round in 0..60 {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        let mut garbage = vec![0; 4_096];
        random.fill_bytes(&mut garbage);
        if round % 2 == 0 {
            // The server may close the connection at any byte.
            let _ = stream.write_all(preface);
        }
        let _ = stream.write_all(&garbage);
    }
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    // A response and a closed connection are both correct.
    let _ = stream.read(&mut [0; 64]);
    assert_serves(&server).await;
}

#[tokio::test]
async fn silent_connections_do_not_block_other_calls_or_the_shutdown() {
    let mut server = Server::start("");
    let silent: Vec<_> = (0..200).map(|_| TcpStream::connect(&server.address).unwrap()).collect();
    let halves: Vec<_> = (0..50)
        .map(|_| {
            let mut stream = TcpStream::connect(&server.address).unwrap();
            stream.write_all(b"PRI * HTTP/2.0\r\n").unwrap();
            stream
        })
        .collect();
    assert_serves(&server).await;
    server.signal(rustix::process::Signal::TERM);
    assert!(server.wait_exit().success(), "{}", server.log());
    drop((silent, halves));
}

#[tokio::test]
async fn bytes_that_are_not_a_message_are_rejected_with_a_status() {
    use tonic::codegen::http::{HeaderMap, Request, uri::PathAndQuery};
    let server = Server::start("");
    let _ = (HeaderMap::new(), Request::new(()));
    for body in [&b"\xff\xff\xff\xff"[..], b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x0a\x02\xff\xfe"] {
        let mut raw = tonic::client::Grpc::new(server.channel());
        raw.ready().await.unwrap();
        let path = PathAndQuery::from_static("/lineshaft.v1.TaskService/SubmitTask");
        let request = tonic::Request::new(body.to_vec());
        let answer: Result<tonic::Response<Vec<u8>>, _> = raw.unary(request, path, Bytes).await;
        let refused = answer.unwrap_err();
        assert!(
            matches!(refused.code(), tonic::Code::Internal | tonic::Code::InvalidArgument),
            "{body:?}: {refused:?}"
        );
    }
    let mut raw = tonic::client::Grpc::new(server.channel());
    raw.ready().await.unwrap();
    let path = PathAndQuery::from_static("/lineshaft.v1.TaskService/Nothing");
    let answer: Result<tonic::Response<Vec<u8>>, _> = raw.unary(tonic::Request::new(Vec::new()), path, Bytes).await;
    assert_eq!(answer.unwrap_err().code(), tonic::Code::Unimplemented);
    assert_serves(&server).await;
}

/// A codec that passes bytes through, so that a message need not be valid.
pub struct Bytes;

impl tonic::codec::Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl tonic::codec::Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut tonic::codec::EncodeBuf<'_>) -> Result<(), tonic::Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl tonic::codec::Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn decode(&mut self, buffer: &mut tonic::codec::DecodeBuf<'_>) -> Result<Option<Vec<u8>>, tonic::Status> {
        let length = bytes::Buf::remaining(buffer);
        Ok(Some(bytes::Buf::copy_to_bytes(buffer, length).to_vec()))
    }
}

#[tokio::test]
async fn tasks_accepted_before_a_stream_breaks_are_kept() {
    let server = Server::start("");
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = server.tasks().submit_tasks(requests).await.unwrap().into_inner();
    let mut accepted = Vec::new();
    for sequence in 0..100 {
        sender.send(v1::SubmitTasksRequest { sequence, task: Some(noop()) }).await.unwrap();
        if sequence % 2 == 0 {
            let answer = answers.message().await.unwrap().unwrap();
            if let Some(Outcome::Accepted(answer)) = answer.outcome {
                accepted.push(answer.task_id);
            }
        }
    }
    drop(answers);
    drop(sender);
    assert!(!accepted.is_empty());
    for id in accepted {
        assert_eq!(server.wait_finished(&id).await.state(), TaskState::Completed);
    }
}

#[tokio::test]
async fn a_rejected_item_does_not_end_the_stream() {
    let server = Server::start("");
    let item = |sequence, task| v1::SubmitTasksRequest { sequence, task };
    let requests = vec![item(1, None), item(2, Some(noop())), item(2, Some(noop())), item(3, Some(task("", "0")))];
    let mut answers = server.tasks().submit_tasks(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let mut outcomes = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        outcomes.push(match answer.outcome.unwrap() {
            Outcome::Accepted(_) => (answer.sequence, String::new()),
            Outcome::Rejected(rejected) => (answer.sequence, format!("{} {}", rejected.reason, rejected.field)),
        });
    }
    outcomes.sort();
    let invalid = |field: &str| format!("INVALID_FIELD {field}");
    let expected = [(1, invalid("task")), (2, String::new()), (2, String::new()), (3, invalid("task.handler"))];
    assert_eq!(outcomes, expected);
}

#[tokio::test]
async fn a_task_continues_when_the_caller_of_run_task_disconnects() {
    let server = Server::start("");
    let request =
        v1::RunTaskRequest { task: Some(v1::SubmitTaskRequest { task_id: "abandoned".into(), ..task("io", "0.3") }) };
    let mut steps = server.tasks().run_task(request).await.unwrap().into_inner();
    steps.message().await.unwrap().unwrap();
    drop(steps);
    assert_eq!(server.wait_finished("abandoned").await.state(), TaskState::Completed);
}

#[tokio::test]
async fn cancelled_calls_do_not_affect_the_server() {
    let server = Server::start("");
    let id = server.submit(task("io", "3600")).await;
    for _ in 0..300 {
        let mut tasks = server.tasks();
        let wait = v1::WaitTaskRequest { task_id: id.clone(), timeout: None };
        // The call is dropped while it waits.
        let _ = tokio::time::timeout(Duration::from_millis(3), tasks.wait_task(wait)).await;
    }
    assert_serves(&server).await;
}
