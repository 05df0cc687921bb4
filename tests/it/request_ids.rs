//! A repeated submission never runs twice, however long ago its task was deleted.

use lineshaft::proto::v1::{self, TaskState, run_task_response, submit_tasks_response::Outcome};
use tonic::Code;

use crate::support::{IN_MEMORY, Server, check, eventually, noop, reason, run, task};

/// Deletes every task as soon as it has ended.
const KEEP_NOTHING: &str = "[retention]\ncount = 0\n";

fn keyed(request_id: &str) -> v1::SubmitTaskRequest {
    v1::SubmitTaskRequest { request_id: request_id.into(), ..noop() }
}

async fn submit(server: &Server, request: v1::SubmitTaskRequest) -> v1::SubmitTaskResponse {
    server.tasks().submit_task(request).await.unwrap().into_inner()
}

/// Submits a task that has been deleted when this returns.
async fn submit_and_lose(server: &Server, request_id: &str) -> String {
    let first = submit(server, keyed(request_id)).await;
    assert!(!first.duplicate);
    wait_deleted(server, &first.task_id).await;
    first.task_id
}

async fn wait_deleted(server: &Server, id: &str) {
    eventually(async || {
        let request = v1::GetTaskRequest { task_id: id.to_owned(), ..Default::default() };
        let found = server.tasks().get_task(request).await;
        let is_gone = found.as_ref().is_err_and(|status| status.code() == Code::NotFound);
        check(is_gone, || format!("{found:?}"))
    })
    .await;
}

/// The submission is recognised, although its task is gone, and another one with its request id is refused.
async fn assert_remembered(server: &Server, request_id: &str, id: &str, when: &str) {
    let again = submit(server, keyed(request_id)).await;
    assert!(again.duplicate && again.task_id == id, "{when}: {again:?}");
    assert_eq!(again.state(), TaskState::Unspecified, "{when}: the task was deleted");
    let other = v1::SubmitTaskRequest { request_id: request_id.into(), ..task("compute", "7") };
    let refused = server.tasks().submit_task(other).await.unwrap_err();
    assert_eq!(reason(&refused), "REQUEST_ID_REUSED", "{when}");
}

#[tokio::test]
async fn a_request_id_is_remembered_when_its_task_is_deleted_and_after_crashes_and_restarts() {
    let mut server = Server::start(KEEP_NOTHING);
    let first = submit_and_lose(&server, "first").await;
    assert_remembered(&server, "first", &first, "after the deletion").await;
    for when in ["after a crash", "after another crash"] {
        server.kill9();
        server.start_again();
        assert_remembered(&server, "first", &first, when).await;
    }
    let second = submit_and_lose(&server, "second").await;
    server.kill9();
    std::fs::remove_file(server.path("data/projection.db")).unwrap();
    server.start_again();
    assert_remembered(&server, "first", &first, "after a rebuild").await;
    assert_remembered(&server, "second", &second, "after a rebuild").await;
    let copy = server.path("copy");
    let data = server.path("data");
    let backup = ["store", "backup", "--data-dir", data.to_str().unwrap(), "--to", copy.to_str().unwrap()];
    let (succeeded, output) = run(crate::support::BINARY, backup);
    assert!(succeeded, "{output}");
    server.kill9();
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&copy, &data).unwrap();
    server.start_again();
    assert_remembered(&server, "second", &second, "after a restore").await;
}

#[tokio::test]
async fn a_request_id_is_remembered_without_a_disk() {
    let server = Server::start_with(KEEP_NOTHING, &[IN_MEMORY]);
    let first = submit_and_lose(&server, "first").await;
    assert_remembered(&server, "first", &first, "in memory").await;
    let limits =
        server.system().get_server_info(v1::GetServerInfoRequest {}).await.unwrap().into_inner().limits.unwrap();
    assert_eq!((limits.remembered_request_ids, limits.retained_bytes), (100_000, 64 << 20));
}

#[tokio::test]
async fn a_stream_and_a_batch_recognise_repetitions() {
    let server = Server::start(KEEP_NOTHING);
    let old = submit_and_lose(&server, "old").await;
    let mut requests: Vec<v1::SubmitTaskRequest> = (0..300).map(|n| keyed(&format!("new-{}", n % 3))).collect();
    requests.push(keyed("old"));
    requests.push(v1::SubmitTaskRequest { request_id: "new-0".into(), ..task("compute", "7") });
    let requests: Vec<_> =
        (0..).zip(requests).map(|(sequence, task)| v1::SubmitTasksRequest { sequence, task: Some(task) }).collect();
    let stream = server.tasks().submit_tasks(tokio_stream::iter(requests)).await.unwrap();
    let mut stream = stream.into_inner();
    let (mut outcomes, mut rejected) = (Vec::new(), Vec::new());
    while let Some(response) = stream.message().await.unwrap() {
        match response.outcome.unwrap() {
            Outcome::Accepted(accepted) => outcomes.push((response.sequence, accepted)),
            Outcome::Rejected(rejection) => rejected.push((response.sequence, rejection.reason)),
        }
    }
    outcomes.sort_unstable_by_key(|(sequence, _)| *sequence);
    assert_eq!(outcomes.iter().filter(|(_, accepted)| !accepted.duplicate).count(), 3);
    for (sequence, accepted) in &outcomes[..300] {
        assert_eq!(accepted.task_id, outcomes[(*sequence % 3) as usize].1.task_id, "{sequence}");
    }
    assert!(outcomes[300].1.duplicate && outcomes[300].1.task_id == old);
    assert_eq!(rejected, [(301, "REQUEST_ID_REUSED".to_owned())]);

    let batch = |tasks| v1::BatchSubmitTasksRequest { tasks, batch_id: String::new() };
    let mixed = batch(vec![keyed("old"), keyed("batch"), noop()]);
    let first = server.tasks().batch_submit_tasks(mixed.clone()).await.unwrap().into_inner();
    assert_eq!(first.task_ids[0], old);
    let again = server.tasks().batch_submit_tasks(mixed).await.unwrap().into_inner();
    assert_eq!((&again.task_ids[0], &again.task_ids[1]), (&old, &first.task_ids[1]));
    assert_ne!(again.task_ids[2], first.task_ids[2], "it has no id");
}

#[tokio::test]
async fn a_repeated_run_of_a_deleted_task_returns_its_id_and_that_it_is_gone() {
    let server = Server::start(KEEP_NOTHING);
    let id = submit_and_lose(&server, "first").await;
    let mut steps =
        server.tasks().run_task(v1::RunTaskRequest { task: Some(keyed("first")) }).await.unwrap().into_inner();
    let Some(run_task_response::Kind::Accepted(accepted)) = steps.message().await.unwrap().unwrap().kind else {
        panic!("not accepted")
    };
    assert!(accepted.duplicate && accepted.task_id == id);
    assert_eq!(reason(&steps.message().await.unwrap_err()), "TASK_NOT_FOUND");
}

/// The checksum of an earlier version covered the payload and the arguments joined.
#[tokio::test]
async fn a_payload_is_not_taken_for_an_argument() {
    let handler = "[[handler]]\nname = \"cat\"\nrunner = \"process\"\nargv = [\"/bin/cat\"]\narg_pattern = '(?s).*'\n";
    let server = Server::start(handler);
    let of = |data: &str, args: &[&str]| {
        let kind = Some(v1::payload::Kind::Data(data.as_bytes().to_vec().into()));
        let payload = v1::Payload { kind, content_type: "application/octet-stream".to_owned() };
        let args = args.iter().map(ToString::to_string).collect();
        v1::SubmitTaskRequest { handler: "cat".into(), payload: Some(payload), args, ..Default::default() }
    };
    let by_request = |request| v1::SubmitTaskRequest { request_id: "r".into(), ..request };
    let by_id = |request| v1::SubmitTaskRequest { task_id: "t".into(), ..request };
    submit(&server, by_request(of("-\0", &[]))).await;
    submit(&server, by_id(of("-\0", &[]))).await;
    let refused = server.tasks().submit_task(by_request(of("", &["-"]))).await.unwrap_err();
    assert_eq!(reason(&refused), "REQUEST_ID_REUSED");
    let refused = server.tasks().submit_task(by_id(of("", &["-"]))).await.unwrap_err();
    assert_eq!(reason(&refused), "TASK_EXISTS");
    assert!(submit(&server, by_request(of("-\0", &[]))).await.duplicate);
    assert!(submit(&server, by_id(of("-\0", &[]))).await.duplicate);
}

#[tokio::test]
async fn a_delay_that_differs_is_another_request() {
    let server = Server::start("");
    let delayed = |seconds| v1::SubmitTaskRequest {
        delay: Some(prost_types::Duration { seconds, nanos: 0 }),
        ..keyed("delayed")
    };
    submit(&server, delayed(3_600)).await;
    assert!(submit(&server, delayed(3_600)).await.duplicate);
    assert_eq!(reason(&server.tasks().submit_task(delayed(60)).await.unwrap_err()), "REQUEST_ID_REUSED");
}

#[tokio::test]
async fn the_configured_limits_are_reported() {
    let server = Server::start("[retention]\nrequest_id_count = 5000\nrequest_id_age = \"2h\"\nbytes = \"32MiB\"\n");
    let info = server.system().get_server_info(v1::GetServerInfoRequest {}).await.unwrap().into_inner();
    let limits = info.limits.unwrap();
    assert_eq!((limits.remembered_request_ids, limits.retained_bytes), (5_000, 32 << 20));
    assert_eq!(limits.remembered_request_id_age.unwrap().seconds, 7_200);
}
