//! Payloads and results that are larger than a message between the server and a worker.

use std::collections::{HashMap, VecDeque};

use lineshaft::proto::v1::{
    self, FailureReason, TaskState, server_message::Kind as Sent, worker_message::Kind as Report,
};
use tonic::Code;

use super::{Worker, hello, stopped};
use crate::support::{Server, TIMEOUT};

const MIB: usize = 1 << 20;
/// Payloads of up to 8 MiB, and 64 MiB for requests, of which one caller gets two thirds.
const CONFIG: &str = r#"
[server]
worker_lease = "1h"
[limits]
payload_bytes = "8MiB"
request_bytes = "64MiB"
response_bytes = "64MiB"
[[handler]]
name = "resize"
runner = "remote"
"#;

fn with_chunks(id: &str, slots: i32) -> v1::WorkerHello {
    v1::WorkerHello { chunks: true, ..hello(id, &["resize"], slots) }
}

/// What a worker sends about the attempt with this token.
type Hostile = fn(&str) -> Report;

/// Bytes that differ at each place.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

async fn submit(server: &Server, payload: Vec<u8>) -> String {
    let kind = Some(v1::payload::Kind::Data(payload.into()));
    let payload = Some(v1::Payload { kind, content_type: "image/png".to_owned() });
    server.submit(v1::SubmitTaskRequest { handler: "resize".to_owned(), payload, ..Default::default() }).await
}

fn announced(token: &str, bytes: usize) -> Report {
    let result = v1::Payload { kind: None, content_type: "image/png".to_owned() };
    let outcome = Some(v1::attempt_finished::Outcome::Result(result));
    let result_bytes = i64::try_from(bytes).unwrap();
    Report::Finished(v1::AttemptFinished { token: token.to_owned(), outcome, result_bytes, ..Default::default() })
}

fn chunk(token: &str, offset: usize, data: &[u8]) -> Report {
    let (token, data) = (token.to_owned(), data.to_vec().into());
    Report::Chunk(v1::AttemptChunk { token, offset: i64::try_from(offset).unwrap(), data })
}

impl Worker {
    async fn next_chunk(&mut self) -> v1::AttemptChunk {
        loop {
            match self.next().await.unwrap() {
                Sent::Chunk(chunk) => return chunk,
                Sent::Settled(_) => {}
                other => panic!("{other:?} instead of a chunk"),
            }
        }
    }

    /// The rest of the payload of an attempt.
    async fn payload(&mut self, assigned: &v1::AttemptAssigned) -> Vec<u8> {
        let mut payload = Vec::new();
        while payload.len() < usize::try_from(assigned.payload_bytes).unwrap() {
            let chunk = self.next_chunk().await;
            assert_eq!((&chunk.token, chunk.offset), (&assigned.token, i64::try_from(payload.len()).unwrap()));
            payload.extend_from_slice(&chunk.data);
        }
        payload
    }

    async fn requested(&mut self) -> String {
        loop {
            match self.next().await.unwrap() {
                Sent::ResultRequested(requested) => return requested.token,
                Sent::Settled(_) => {}
                other => panic!("{other:?} instead of a request"),
            }
        }
    }

    /// Announces a result, and sends it when it is requested.
    async fn finish_with(&mut self, token: &str, result: &[u8]) {
        self.send([announced(token, result.len())]);
        assert_eq!(self.requested().await, token);
        self.send_result(token, result);
    }

    fn send_result(&self, token: &str, result: &[u8]) {
        for (index, data) in result.chunks(MIB).enumerate() {
            self.send([chunk(token, index * MIB, data)]);
        }
    }

    /// Reads until the server has acknowledged the end of an attempt.
    async fn read_until_settled(&mut self, token: &str) {
        loop {
            match self.next().await.unwrap() {
                Sent::Settled(settled) if settled.tokens.iter().any(|other| other == token) => return,
                Sent::Settled(_) | Sent::Chunk(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

async fn result_of(server: &Server, id: &str) -> Vec<u8> {
    let task = server.wait_finished(id).await;
    assert_eq!(task.state(), TaskState::Completed, "{:?}", task.failure);
    let result = task.result.unwrap();
    assert_eq!(result.content_type, "image/png");
    let Some(v1::payload::Kind::Data(data)) = result.kind else { panic!("no data") };
    data.to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn large_payloads_and_results_arrive_whole_and_small_ones_stay_in_one_message() {
    let server = Server::start(CONFIG);
    let mut worker = Worker::connect(&server, with_chunks("w", 1)).await;
    assert_eq!(worker.welcome.max_result_bytes, 8 << 20);
    for bytes in [0, MIB, MIB + 1, 8 * MIB] {
        let sent = pattern(bytes);
        let id = submit(&server, sent.clone()).await;
        let assigned = worker.assigned().await;
        assert_eq!(assigned.payload.as_ref().unwrap().content_type, "image/png");
        if bytes <= MIB {
            assert_eq!(assigned.payload_bytes, 0);
            worker.finish(&assigned.token, v1::attempt_finished::Outcome::Result(assigned.payload.unwrap()));
        } else {
            let payload = worker.payload(&assigned).await;
            assert!(payload == sent, "{bytes} bytes");
            worker.accept(&assigned.token);
            worker.finish_with(&assigned.token, &payload).await;
        }
        assert!(result_of(&server, &id).await == sent, "{bytes} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_take_turns_and_other_messages_pass_them() {
    let server = Server::start(CONFIG);
    let mut worker = Worker::connect(&server, with_chunks("w", 3)).await;
    let mut tokens = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.push(submit(&server, pattern(8 * MIB)).await);
        loop {
            match worker.next().await.unwrap() {
                Sent::Assigned(assigned) => break tokens.push(assigned.token),
                Sent::Chunk(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    let id = submit(&server, b"small".to_vec()).await;
    // Nothing more was read, so most of the payloads is still to be sent.
    let (mut chunks, mut small) = (Vec::new(), None);
    while chunks.iter().filter(|token| **token == tokens[1]).count() < 4 || small.is_none() {
        match worker.next().await.unwrap() {
            Sent::Chunk(chunk) => chunks.push(chunk.token),
            Sent::Assigned(assigned) => small = Some(assigned.token),
            other => panic!("{other:?}"),
        }
    }
    let of_first = chunks.iter().filter(|token| **token == tokens[0]).count();
    assert!(of_first < 128, "the first payload is not complete: {of_first}");
    let small = small.unwrap();
    worker.accept(&small);
    worker.finish(&small, super::result("done"));
    worker.read_until_settled(&small).await;
    server.wait_finished(&id).await;
    // A cancel in the middle: the worker reports that it has stopped, and gets nothing more of the payload.
    let cancel = v1::CancelTaskRequest { task_id: ids[0].clone(), ..Default::default() };
    server.tasks().cancel_task(cancel).await.unwrap();
    loop {
        match worker.next().await.unwrap() {
            Sent::Cancel(cancel) => break assert_eq!(cancel.token, tokens[0]),
            Sent::Chunk(_) | Sent::Settled(_) => {}
            other => panic!("{other:?}"),
        }
    }
    worker.send([Report::CancelAcknowledged(v1::CancelAcknowledged { token: tokens[0].clone() })]);
    worker.finish(&tokens[0], stopped());
    worker.read_until_settled(&tokens[0]).await;
    assert_eq!(server.wait_finished(&ids[0]).await.state(), TaskState::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_in_the_middle_begins_again() {
    let server = Server::start(CONFIG);
    let mut worker = Worker::connect(&server, with_chunks("w", 1)).await;
    let sent = pattern(4 * MIB);
    let id = submit(&server, sent.clone()).await;
    let token = worker.assigned().await.token;
    worker.next_chunk().await;
    drop(worker);
    let mut worker = Worker::connect(&server, with_chunks("w", 1)).await;
    let assigned = worker.assigned().await;
    assert_eq!(assigned.token, token);
    assert!(worker.payload(&assigned).await == sent);
    worker.accept(&token);
    worker.send([announced(&token, sent.len())]);
    worker.requested().await;
    worker.send([chunk(&token, 0, &sent[..MIB])]);
    drop(worker);
    let unfinished = vec![token.clone()];
    let mut worker = Worker::connect(&server, v1::WorkerHello { unfinished, ..with_chunks("w", 1) }).await;
    assert!(worker.welcome.stale.is_empty());
    worker.finish_with(&token, &sent).await;
    assert!(result_of(&server, &id).await == sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_need_more_memory_than_there_is_arrive_one_after_the_other() {
    let server = Server::start(CONFIG);
    let mut worker = Worker::connect(&server, with_chunks("w", 8)).await;
    let mut ids = HashMap::new();
    for _ in 0..8 {
        let id = submit(&server, Vec::new()).await;
        ids.insert(worker.assigned().await.token, id);
    }
    worker.send(ids.keys().map(|token| announced(token, 8 * MIB)));
    let result = pattern(8 * MIB);
    let mut requested = VecDeque::new();
    // Two thirds of 64 MiB.
    for _ in 0..5 {
        requested.push_back(worker.requested().await);
    }
    let mut held_back = 3;
    while let Some(token) = requested.pop_front() {
        worker.send_result(&token, &result);
        assert!(result_of(&server, &ids[&token]).await == result);
        if held_back > 0 {
            requested.push_back(worker.requested().await);
            held_back -= 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_break_the_contract_end_the_stream_and_those_of_unknown_attempts_are_ignored() {
    let server = Server::start(CONFIG);
    let hostile: [(&str, Hostile); 5] = [
        ("messages[0].chunk.offset` is 7, must be 0", |token| chunk(token, 7, b"x")),
        ("messages[0].chunk.data` has 0 bytes", |token| chunk(token, 0, b"")),
        ("messages[0].chunk.data` has 1048577 bytes", |token| chunk(token, 0, &vec![0; MIB + 1])),
        ("messages[0].chunk.data` ends at byte 11, but the result was announced with 10", |token| {
            chunk(token, 0, &[0; 11])
        }),
        ("messages[0].chunk.token` is not a token", |_| chunk("none", 0, b"x")),
    ];
    let id = submit(&server, Vec::new()).await;
    let mut unfinished = Vec::new();
    for (expected, report) in hostile {
        let hello = v1::WorkerHello { unfinished: unfinished.clone(), ..with_chunks("w", 1) };
        let mut worker = Worker::connect(&server, hello).await;
        if unfinished.is_empty() {
            unfinished.push(worker.assigned().await.token);
        }
        worker.accept(&unfinished[0]);
        worker.send([announced(&unfinished[0], 10)]);
        worker.requested().await;
        worker.send([report(&unfinished[0])]);
        let status = worker.end().await;
        assert!(status.code() == Code::InvalidArgument && status.message().contains(expected), "{status:?}");
    }
    let token = unfinished[0].clone();
    let mut worker = Worker::connect(&server, v1::WorkerHello { unfinished, ..with_chunks("w", 1) }).await;
    worker.send([chunk("abc", 0, b"unknown"), chunk(&token, 3, b"not requested"), announced("abc", 5 * MIB)]);
    assert_eq!(worker.settled().await, ["abc"], "the end of an unknown attempt is acknowledged without its result");
    worker.send([announced(&token, 8 * MIB + 1)]);
    let failure = server.wait_finished(&id).await.failure.unwrap();
    assert_eq!(failure.reason(), FailureReason::ResultTooLarge);
    assert_eq!(failure.message, "result has 8388609 bytes, at most 8388608 are allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_chunks_gets_small_payloads_and_large_ones_fail_with_a_reason() {
    let server = Server::start(CONFIG);
    let mut worker =
        Worker::connect(&server, v1::WorkerHello { version: "old/1".to_owned(), ..hello("w", &["resize"], 1) }).await;
    let large = submit(&server, pattern(MIB + 1)).await;
    let small = submit(&server, pattern(MIB)).await;
    let failure = server.wait_finished(&large).await.failure.unwrap();
    assert_eq!((failure.reason(), failure.retryable), (FailureReason::InvalidPayload, false));
    assert_eq!(failure.message, "payload has 1048577 bytes, worker `remote/w` receives at most 1048576; update old/1");
    let assigned = tokio::time::timeout(TIMEOUT, worker.assigned()).await.unwrap();
    worker.finish(&assigned.token, v1::attempt_finished::Outcome::Result(assigned.payload.unwrap()));
    assert!(result_of(&server, &small).await == pattern(MIB));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_beyond_the_configured_limit_is_refused_with_its_field_and_the_limit() {
    let server = Server::start(CONFIG);
    let payload = Some(v1::Payload {
        kind: Some(v1::payload::Kind::Data(vec![7; 8 * MIB + 1].into())),
        content_type: String::new(),
    });
    let request = v1::SubmitTaskRequest { handler: "resize".to_owned(), payload, ..Default::default() };
    let status = server.tasks().submit_task(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "`payload` has 8388609 bytes, at most 8388608 are allowed");
    let text = Server::fail_to_start("[limits]\npayload_bytes = \"64MiB\"\nrequest_bytes = \"128MiB\"\n", &[]);
    assert!(
        text.contains("limits.payload_bytes") && text.contains("requires limits.request_bytes of at least 384MiB"),
        "{text}"
    );
}
