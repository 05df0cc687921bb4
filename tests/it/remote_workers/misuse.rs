//! Workers that break the contract, and those of another version of it.

use lineshaft::proto::v1::{
    self, TaskState, WorkRequest, WorkResponse, server_message::Kind as Sent, worker_message::Kind as Report,
};
use prost::Message;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Status, Streaming};

use super::{CONFIG, Worker, finished, first, hello, listed, result};
use crate::malformed_requests::Bytes;
use crate::support::{Server, bytes, reason, task};

fn offering(handlers: usize) -> v1::WorkerHello {
    let names: Vec<String> = (0..handlers).map(|number| format!("h{number}")).collect();
    hello("w", &names.iter().map(String::as_str).collect::<Vec<_>>(), 1)
}

fn labelled(labels: impl IntoIterator<Item = (String, String)>) -> v1::WorkerHello {
    v1::WorkerHello { labels: labels.into_iter().collect(), ..hello("w", &["resize"], 1) }
}

/// Opens a stream whose messages are bytes.
async fn open(server: &Server, messages: Vec<Vec<u8>>) -> Result<Streaming<Vec<u8>>, Status> {
    let mut raw = tonic::client::Grpc::new(server.channel());
    raw.ready().await.unwrap();
    let path = PathAndQuery::from_static("/lineshaft.v1.WorkerService/Work");
    // The stream stays open.
    let messages = futures_util::StreamExt::chain(tokio_stream::iter(messages), tokio_stream::pending());
    Ok(raw.streaming(tonic::Request::new(messages), path, Bytes).await?.into_inner())
}

async fn answer(responses: &mut Streaming<Vec<u8>>) -> Result<WorkResponse, Status> {
    let bytes = tokio::time::timeout(crate::support::TIMEOUT, responses.message()).await.expect("an answer")?;
    Ok(WorkResponse::decode(&*bytes.expect("the stream goes on")).unwrap())
}

#[tokio::test]
async fn what_the_contract_does_not_allow_ends_the_stream_with_a_reason() {
    let server = Server::start(CONFIG);
    let cases = [
        (WorkRequest::default(), "`hello` is required in the first message"),
        (first(hello("", &["resize"], 1)), "`hello.worker_id` must not be empty"),
        (first(hello("w", &[], 1)), "`hello.handlers` is empty"),
        (first(hello("w", &["a b"], 1)), "`hello.handlers[0].name`"),
        (first(hello("w", &["resize", "resize"], 1)), "`resize` is given twice"),
        (first(hello("w", &["resize"], 0)), "`hello.slots` is 0, must be from 1 to 10000"),
        (first(hello("w", &["resize"], i32::MIN)), "`hello.slots` is -2147483648, must be from 1 to 10000"),
        (first(hello("w", &["resize"], 10_001)), "`hello.slots` is 10001, must be from 1 to 10000"),
        (first(hello("a\nb", &["resize"], 1)), "`hello.worker_id`"),
        (first(hello("w", &["a\u{7}b"], 1)), "`hello.handlers[0].name`"),
        (first(offering(10_000)), "`hello.handlers` has 10000 handlers, at most 1000 are allowed"),
        (first(labelled((0..17).map(|n| (n.to_string(), String::new())))), "`hello.labels` has 17 labels, at most 16"),
        (first(labelled([("k".to_owned(), "v".repeat(100_000))])), "has 100000 bytes in its value, at most"),
        (first(v1::WorkerHello { version: "v".repeat(129), ..hello("w", &["resize"], 1) }), "at most 128 are allowed"),
        (
            WorkRequest { messages: vec![v1::WorkerMessage::default()], ..first(hello("w", &["resize"], 1)) },
            "`messages` must be empty",
        ),
        (
            WorkRequest { hello: None, messages: vec![v1::WorkerMessage::default()] },
            "`hello` is required in the first message",
        ),
        (first(v1::WorkerHello { pool: "nosuch".into(), ..hello("w", &["resize"], 1) }), "pool `nosuch` is not"),
    ];
    for (request, expected) in cases {
        let status = Worker::try_connect(&server, request).await.err().expect("refused");
        assert!(status.message().contains(expected), "{status:?}");
    }
    let reports = [
        (Report::Accepted(v1::AttemptAccepted { token: "no token".into() }), "messages[0].accepted.token"),
        (
            Report::Finished(v1::AttemptFinished { token: "no token".into(), ..Default::default() }),
            "messages[0].finished.token",
        ),
    ];
    for (report, expected) in reports {
        let mut worker = Worker::connect(&server, hello("w", &["resize"], 1)).await;
        worker.send([report]);
        let status = worker.end().await;
        assert!(status.code() == Code::InvalidArgument && status.message().contains(expected), "{status:?}");
    }
    let mut worker = Worker::connect(&server, hello("w", &["resize"], 1)).await;
    worker.requests.send(first(hello("w", &["resize"], 1))).unwrap();
    assert_eq!(reason(&worker.end().await), "INVALID_FIELD");
}

#[tokio::test]
async fn errors_about_many_handlers_stay_short() {
    let server = Server::start(CONFIG);
    let long = "\u{7}".repeat(10_000);
    let request = first(hello("w", &vec![&*long; 1_000], 1));
    let status = Worker::try_connect(&server, request).await.err().expect("refused");
    assert_eq!(reason(&status), "INVALID_FIELD");
    assert!(status.message().len() < 2_000 && status.details().len() < 16_000, "{} bytes", status.details().len());
}

#[tokio::test]
async fn bytes_that_are_no_message_end_only_their_stream() {
    let server = Server::start(CONFIG);
    let mut other = Worker::connect(&server, hello("other", &["resize"], 1)).await;
    let introduction = || first(hello("w", &["other"], 1)).encode_to_vec();
    for garbage in [&b"\xff\xff\xff\xff"[..], b"\x12\xff\xff\xff\xff\x0f", b"\x12\x04\x0a\x02\xff\xfe"] {
        let mut alone = open(&server, vec![garbage.to_vec()]).await;
        let refused = match &mut alone {
            Ok(responses) => answer(responses).await.map(drop),
            Err(status) => Err(status.clone()),
        };
        let mut responses = open(&server, vec![introduction(), garbage.to_vec()]).await.unwrap();
        answer(&mut responses).await.expect("a welcome");
        for refused in [refused, answer(&mut responses).await.map(drop)] {
            let refused = refused.expect_err("garbage is no message");
            assert!(matches!(refused.code(), Code::Internal | Code::InvalidArgument), "{garbage:?}: {refused:?}");
        }
    }
    let id = server.submit(task("resize", "")).await;
    assert_eq!(other.assigned().await.task_id, id);
}

#[tokio::test]
async fn a_message_beyond_the_limit_ends_only_its_stream() {
    let server = Server::start(CONFIG);
    let mut other = Worker::connect(&server, hello("other", &["resize"], 1)).await;
    let mut worker = Worker::connect(&server, hello("w", &["other"], 1)).await;
    let output = v1::AttemptOutput { token: "1".to_owned(), stream: 1, data: vec![0; 64 << 20].into() };
    worker.send([Report::Output(output)]);
    let status = worker.end().await;
    assert_eq!((status.code(), &*reason(&status)), (Code::ResourceExhausted, "MESSAGE_TOO_LARGE"), "{status:?}");
    let id = server.submit(task("resize", "")).await;
    assert_eq!(other.assigned().await.task_id, id);
}

#[tokio::test]
async fn reports_about_attempts_of_others_change_nothing() {
    let server = Server::start(CONFIG);
    let mut owner = Worker::connect(&server, hello("owner", &["resize"], 1)).await;
    let id = server.submit(task("resize", "")).await;
    let token = owner.assigned().await.token;
    owner.accept(&token);
    server.wait_for_state(&id, TaskState::Running).await;
    let mut other = Worker::connect(&server, hello("other", &["other"], 1)).await;
    for token in [token.clone(), "99".to_owned(), "ffffffffffffffff".to_owned()] {
        let name = || token.clone();
        other.send([
            Report::Accepted(v1::AttemptAccepted { token: name() }),
            Report::Progress(v1::AttemptProgress { token: name(), fraction: 1.0, note: "theirs".to_owned() }),
            Report::Output(v1::AttemptOutput { token: name(), stream: 1, data: "theirs".into() }),
            Report::CancelAcknowledged(v1::CancelAcknowledged { token: name() }),
            Report::Suspended(v1::AttemptSuspended { token: name() }),
            Report::Resuming(v1::AttemptResuming { token: name() }),
            finished(&token, result("theirs")),
        ]);
        assert_eq!(other.settled().await, [token], "it may forget the attempt");
    }
    let running = server.get(&id).await;
    assert_eq!((running.state(), running.progress_note.as_str()), (TaskState::Running, ""));
    // The first of several ends counts.
    owner.send([finished(&token, result("first")), finished(&token, result("second"))]);
    assert_eq!(owner.settled().await, std::slice::from_ref(&token));
    owner.finish(&token, result("third"));
    assert_eq!(owner.settled().await, [token]);
    let ended = server.wait_finished(&id).await;
    assert_eq!((bytes(ended.result.as_ref()), ended.stdout_bytes), ("first".to_owned(), 0));
}

#[tokio::test]
async fn progress_that_is_no_fraction_is_shown_as_one() {
    let server = Server::start(CONFIG);
    let mut worker = Worker::connect(&server, hello("w", &["resize"], 1)).await;
    let id = server.submit(task("resize", "")).await;
    let token = worker.assigned().await.token;
    let cases =
        [(f64::NAN, 0.0), (f64::INFINITY, 1.0), (f64::NEG_INFINITY, 0.0), (-3.0, 0.0), (1e300, 1.0), (0.25, 0.25)];
    for (number, (reported, shown)) in cases.into_iter().enumerate() {
        let note = format!("{number}\u{1b}[2J{}", "x".repeat(1_000));
        worker.send([Report::Progress(v1::AttemptProgress { token: token.clone(), fraction: reported, note })]);
        let task = crate::support::eventually(async || {
            let task = server.get(&id).await;
            let is_new = task.progress_note.starts_with(&format!("{number}\u{1b}"));
            if is_new { Ok(task) } else { Err(format!("{task:?}")) }
        })
        .await;
        assert!((task.progress - shown).abs() < f64::EPSILON, "{reported} is {}", task.progress);
        assert!(task.progress_note.len() <= 131, "{} bytes", task.progress_note.len());
    }
}

#[tokio::test]
async fn a_worker_of_another_version_of_the_contract_is_served() {
    let server = Server::start(CONFIG);
    // Field 90, bytes: what this server does not know.
    let unknown = b"\xd2\x05\x03new";
    let nested = |tag: u8, content: Vec<u8>| {
        let length = u8::try_from(content.len()).unwrap();
        assert!(length < 128);
        [vec![tag, length], content].concat()
    };
    let mut introduction = hello("w", &["resize"], 1).encode_to_vec();
    introduction.extend(unknown);
    let mut introduction = nested(0x0a, introduction);
    introduction.extend(unknown);
    // A report of a kind that this server does not know.
    let mut report = nested(0x12, unknown.to_vec());
    report.extend(unknown);
    let mut responses = open(&server, vec![introduction, report]).await.unwrap();
    assert!(answer(&mut responses).await.unwrap().welcome.is_some());
    let id = server.submit(task("resize", "")).await;
    let assigned = answer(&mut responses).await.unwrap().messages.remove(0).kind;
    assert!(matches!(&assigned, Some(Sent::Assigned(assigned)) if assigned.task_id == id), "{assigned:?}");
    assert!(listed(&server).await[0].remote.as_ref().unwrap().version.is_empty());
}
