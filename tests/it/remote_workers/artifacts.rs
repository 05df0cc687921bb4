//! The artifacts that a worker names at the end of an attempt, and ends that are not valid.

use lineshaft::proto::v1::{
    self, FailureReason, TaskState, artifact_service_client::ArtifactServiceClient, attempt_finished::Outcome,
    worker_message::Kind as Report, worker_service_client::WorkerServiceClient,
};

use super::{CONFIG, Worker, hello, result};
use crate::support::{Server, task};

/// Starts an attempt of a task that is not retried.
async fn start(server: &Server, worker: &mut Worker) -> v1::AttemptAssigned {
    let retry = Some(v1::RetryPolicy { max_attempts: 1, ..v1::RetryPolicy::default() });
    server.submit(v1::SubmitTaskRequest { retry, ..task("resize", "") }).await;
    let assigned = worker.assigned().await;
    worker.accept(&assigned.token);
    assigned
}

async fn upload(server: &Server, attempt: &v1::AttemptAssigned, name: &str) -> v1::Artifact {
    let request = v1::UploadArtifactRequest {
        task_id: attempt.task_id.clone(),
        token: attempt.token.clone(),
        name: name.to_owned(),
        data: format!("content of {name}").into(),
        ..v1::UploadArtifactRequest::default()
    };
    let mut workers = WorkerServiceClient::new(server.channel());
    workers.upload_artifact(tokio_stream::iter([request])).await.unwrap().into_inner().artifact.unwrap()
}

fn completed(attempt: &v1::AttemptAssigned, artifacts: Vec<v1::Artifact>) -> v1::AttemptFinished {
    let outcome = Some(result("done"));
    v1::AttemptFinished { token: attempt.token.clone(), outcome, artifacts, ..v1::AttemptFinished::default() }
}

type Change<T> = fn(&mut T);

#[tokio::test]
async fn an_attempt_that_names_what_it_has_not_uploaded_so_fails_and_the_stream_goes_on() {
    let mut server = Server::start(CONFIG);
    let hash = || "a".repeat(64);
    let cases: [(Change<v1::Artifact>, String); 4] = [
        (|file| file.name = "g.txt".into(), "artifact \"g.txt\" was not uploaded by this attempt".into()),
        (
            |file| file.size_bytes = 50,
            "artifact \"f.txt\" is not as it was uploaded: `size_bytes` is 50, stored is 16".into(),
        ),
        (|file| file.sha256 = "a".repeat(64), format!("`sha256` is {}, stored is", hash())),
        (|file| file.content_type = "a/b".into(), "`content_type` is \"a/b\", stored is \"text/plain\"".into()),
    ];
    // What an earlier server has stored is read, and its content type is not known.
    for (restarts, known) in [(false, 4), (true, 3)] {
        for (change, expected) in &cases[..known] {
            let mut worker = Worker::connect(&server, hello("w", &["resize"], 1)).await;
            let attempt = start(&server, &mut worker).await;
            let mut artifact = upload(&server, &attempt, "f.txt").await;
            change(&mut artifact);
            if restarts {
                server.kill9();
                server.start_again();
                let unfinished = vec![attempt.token.clone()];
                let again = v1::WorkerHello { unfinished, ..hello("w", &["resize"], 1) };
                worker = Worker::connect(&server, again).await;
                assert_eq!(worker.welcome.stale, Vec::<String>::new());
            }
            worker.send([Report::Finished(completed(&attempt, vec![artifact]))]);
            let failed = server.wait_finished(&attempt.task_id).await;
            let failure = failed.failure.unwrap();
            assert_eq!((failure.reason(), failed.artifacts.len()), (FailureReason::HandlerError, 0), "{failure:?}");
            assert!(failure.message.contains(expected), "{expected}: {failure:?}");
            assert_eq!(worker.settled().await, [attempt.token], "a worker reports it no more");
        }
    }
}

#[tokio::test]
async fn what_was_uploaded_before_and_after_a_crash_is_kept() {
    let mut server = Server::start(CONFIG);
    let mut worker = Worker::connect(&server, hello("w", &["resize"], 1)).await;
    let attempt = start(&server, &mut worker).await;
    let before = upload(&server, &attempt, "before.txt").await;
    let not_named = upload(&server, &attempt, "not named").await;
    server.kill9();
    server.start_again();
    let unfinished = vec![attempt.token.clone()];
    let worker = Worker::connect(&server, v1::WorkerHello { unfinished, ..hello("w", &["resize"], 1) }).await;
    let after = upload(&server, &attempt, "after.txt").await;
    worker.send([Report::Finished(completed(&attempt, vec![before.clone(), after.clone()]))]);
    let done = server.wait_finished(&attempt.task_id).await;
    assert_eq!((done.state(), done.artifacts), (TaskState::Completed, vec![after, before]), "{:?}", done.failure);
    let request = v1::ReadArtifactRequest {
        task_id: attempt.task_id,
        name: not_named.name,
        ..v1::ReadArtifactRequest::default()
    };
    ArtifactServiceClient::new(server.channel()).read_artifact(request).await.expect_err("it is no artifact");
}

#[tokio::test]
async fn an_end_that_is_not_valid_fails_its_attempt_only() {
    let server = Server::start(CONFIG);
    let mut worker = Worker::connect(&server, hello("w", &["resize"], 2)).await;
    let other = start(&server, &mut worker).await;
    let cases: [(&str, Change<v1::AttemptFinished>); 6] = [
        ("`artifacts[0].content_type` must be", |end| end.artifacts[0].content_type.clear()),
        ("`artifacts[0].name` contains the character '/'", |end| end.artifacts[0].name = "../x".into()),
        ("`artifacts[1].name` is \"f.txt\", which is given twice", |end| end.artifacts.push(end.artifacts[0].clone())),
        ("`artifacts[0].sha256` and `size_bytes` must be", |end| end.artifacts[0].sha256.clear()),
        ("`outcome` is required", |end| end.outcome = None),
        ("`result_bytes` requires `result` without data", |end| end.result_bytes = 5),
    ];
    for (expected, change) in cases {
        let attempt = start(&server, &mut worker).await;
        let artifact = upload(&server, &attempt, "f.txt").await;
        let mut end = completed(&attempt, vec![artifact]);
        change(&mut end);
        worker.send([Report::Finished(end)]);
        let failure = server.wait_finished(&attempt.task_id).await.failure.unwrap();
        let text = format!("the worker has sent an invalid `finished`: {expected}");
        assert!(failure.message.starts_with(&text), "{text}: {failure:?}");
        assert_eq!(worker.settled().await, [attempt.token]);
    }
    // The failure of a handler counts more than what it has left.
    let attempt = start(&server, &mut worker).await;
    let failure = v1::Failure { message: "from the handler".to_owned(), ..v1::Failure::default() };
    let outcome = Some(Outcome::Failure(failure));
    let artifacts = vec![v1::Artifact::default()];
    worker.send([Report::Finished(v1::AttemptFinished { outcome, ..completed(&attempt, artifacts) })]);
    let failure = server.wait_finished(&attempt.task_id).await.failure.unwrap();
    assert_eq!(failure.message, "from the handler");
    worker.finish(&other.token, result("done"));
    assert_eq!(server.wait_finished(&other.task_id).await.state(), TaskState::Completed);
}
