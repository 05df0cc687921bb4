//! Quotas of one identity.

use std::time::Duration;

use lineshaft::proto::v1;
use lineshaft::proto::v1::submit_tasks_response::Outcome;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{Caller, Tokens};
use crate::support::{eventually, noop, reason, seconds, task};

async fn submit(caller: &Caller, request: v1::SubmitTaskRequest) -> Result<String, Status> {
    caller.tasks().submit_task(request).await.map(|answer| answer.into_inner().task_id)
}

fn batch(tasks: usize) -> v1::BatchSubmitTasksRequest {
    v1::BatchSubmitTasksRequest { tasks: vec![noop(); tasks], batch_id: String::new() }
}

fn limited(status: &Status, why: &str) -> Duration {
    assert_eq!((status.code(), reason(status).as_str()), (Code::ResourceExhausted, why), "{status:?}");
    let details = status.get_error_details();
    assert_eq!(details.quota_failure().unwrap().violations[0].subject, "identity:key:ci");
    details.retry_info().unwrap().retry_delay.unwrap()
}

#[tokio::test]
async fn the_submit_rate_is_limited_per_identity() {
    let tokens = Tokens::new();
    let (ci, other) = (tokens.create("ci", "submitter", "default", &[]), tokens.create("other", "viewer", "*", &[]));
    let other = Caller::new(&tokens.serve(""), &other);
    drop(other);
    let server = tokens.serve("[auth.limits]\nsubmit_rate = 1\nsubmit_burst = 5\n");
    let caller = Caller::new(&server, &ci);
    caller.tasks().batch_submit_tasks(batch(5)).await.unwrap();
    let refused = submit(&caller, noop()).await.unwrap_err();
    assert!(limited(&refused, "RATE_LIMITED") <= Duration::from_secs(1));
    // A new connection does not reset the limit.
    let refused = submit(&Caller::new(&server, &ci), noop()).await.unwrap_err();
    limited(&refused, "RATE_LIMITED");
    let too_many = caller.tasks().batch_submit_tasks(batch(6)).await.unwrap_err();
    assert_eq!(reason(&too_many), "RATE_LIMITED");
    assert!(too_many.get_error_details().retry_info().is_none(), "a retry cannot succeed");
    let free = Caller::new(&server, &tokens.create("free", "submitter", "default", &[]));
    submit_when_accepted(&free, noop()).await;
}

#[tokio::test]
async fn tasks_and_payloads_count_until_they_end_and_after_a_restart() {
    let tokens = Tokens::new();
    let ci = tokens.create("ci", "submitter", "default", &[]);
    let mut server = tokens.serve("[auth.limits]\nlive_tasks = 3\nlive_payload_bytes = \"1MiB\"\n");
    let caller = Caller::new(&server, &ci);
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(submit(&caller, task("io", "3600")).await.unwrap());
    }
    limited(&submit(&caller, noop()).await.unwrap_err(), "QUOTA_EXCEEDED");
    limited(&caller.tasks().batch_submit_tasks(batch(1)).await.unwrap_err(), "QUOTA_EXCEEDED");
    server.kill9();
    server.start_again();
    let caller = Caller::new(&server, &ci);
    wait_until_limited(&caller).await;
    // A task that ends no longer counts.
    let cancel = v1::CancelTaskRequest { task_id: ids[0].clone(), ..v1::CancelTaskRequest::default() };
    caller.tasks().cancel_task(cancel).await.unwrap();
    eventually(async || submit(&caller, noop()).await.map_err(|status| status.to_string())).await;
    let large = v1::SubmitTaskRequest { payload: bytes(1 << 20), ..task("io", "") };
    limited(&submit(&caller, large).await.unwrap_err(), "QUOTA_EXCEEDED");
}

fn bytes(count: usize) -> Option<v1::Payload> {
    let kind = Some(v1::payload::Kind::Data(vec![b' '; count].into()));
    Some(v1::Payload { kind, content_type: String::new() })
}

/// Submits with a new token, which the server accepts after the next reload.
async fn submit_when_accepted(caller: &Caller, request: v1::SubmitTaskRequest) -> String {
    eventually(async || {
        let submitted = submit(caller, request.clone()).await;
        submitted.map_err(|status| {
            assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
            status.to_string()
        })
    })
    .await
}

/// Waits until the tasks from before the restart are counted.
async fn wait_until_limited(caller: &Caller) {
    eventually(async || match submit(caller, noop()).await {
        Err(refused) => {
            limited(&refused, "QUOTA_EXCEEDED");
            Ok(())
        }
        Ok(id) => {
            let request = v1::WaitTaskRequest { task_id: id, timeout: seconds(10) };
            caller.tasks().wait_task(request).await.unwrap();
            Err("tasks from before the restart are not counted".to_owned())
        }
    })
    .await;
}

#[tokio::test]
async fn open_streams_are_limited_per_identity() {
    let tokens = Tokens::new();
    let (ci, other) = (tokens.create("ci", "submitter", "default", &[]), tokens.create("other", "submitter", "*", &[]));
    let server = tokens.serve("[auth.limits]\nopen_streams = 2\n");
    let (caller, other) = (Caller::new(&server, &ci), Caller::new(&server, &other));
    let first = caller.tasks().watch_tasks(v1::WatchTasksRequest::default()).await.unwrap();
    let _second = caller.tasks().watch_tasks(v1::WatchTasksRequest::default()).await.unwrap();
    let refused = caller.tasks().watch_tasks(v1::WatchTasksRequest::default()).await.unwrap_err();
    limited(&refused, "QUOTA_EXCEEDED");
    let id = submit(&caller, noop()).await.unwrap();
    let wait = || v1::WaitTaskRequest { task_id: id.clone(), timeout: seconds(10) };
    limited(&caller.tasks().wait_task(wait()).await.unwrap_err(), "QUOTA_EXCEEDED");
    other.tasks().wait_task(wait()).await.unwrap();
    drop(first);
    eventually(async || caller.tasks().wait_task(wait()).await.map_err(|status| status.to_string())).await;
}

#[tokio::test]
async fn the_limits_of_a_token_replace_the_general_ones() {
    let tokens = Tokens::new();
    let ci = tokens.create("ci", "submitter", "default", &[]);
    let server = tokens.serve("[auth.limits]\nsubmit_rate = 1\nsubmit_burst = 1\nopen_streams = 1\n");
    // Created while the server runs: until now no identity had this limit, so tasks were not counted.
    let nightly =
        tokens.create("nightly", "submitter", "default", &["--limit", "submit_rate=100", "--limit", "live_tasks=2"]);
    let (caller, nightly) = (Caller::new(&server, &ci), Caller::new(&server, &nightly));
    let first = submit_when_accepted(&nightly, task("io", "3600")).await;
    submit(&nightly, task("io", "3600")).await.unwrap();
    let refused = submit(&nightly, noop()).await.unwrap_err();
    assert_eq!(reason(&refused), "QUOTA_EXCEEDED");
    assert_eq!(refused.get_error_details().error_info().unwrap().metadata["limit"], "2");
    // The general limit applies where the token has none of its own.
    let _watch = nightly.tasks().watch_tasks(v1::WatchTasksRequest::default()).await.unwrap();
    let refused = nightly.tasks().watch_tasks(v1::WatchTasksRequest::default()).await.unwrap_err();
    assert_eq!(reason(&refused), "QUOTA_EXCEEDED");
    // The limits of other tokens are unchanged.
    caller.tasks().batch_submit_tasks(batch(1)).await.unwrap();
    let too_many = caller.tasks().batch_submit_tasks(batch(2)).await.unwrap_err();
    assert_eq!(reason(&too_many), "RATE_LIMITED");
    let cancel = v1::CancelTaskRequest { task_id: first, ..v1::CancelTaskRequest::default() };
    nightly.tasks().cancel_task(cancel).await.unwrap();
    eventually(async || submit(&nightly, task("io", "3600")).await.map_err(|status| status.to_string())).await;
}

#[tokio::test]
async fn a_repeated_submission_is_answered_whatever_the_quota_is() {
    let tokens = Tokens::new();
    let ci = tokens.create("ci", "submitter", "default", &[]);
    let server = tokens.serve("[auth.limits]\nlive_tasks = 1\nsubmit_rate = 1\nsubmit_burst = 1\n");
    let caller = Caller::new(&server, &ci);
    let first = v1::SubmitTaskRequest { request_id: "first".to_owned(), ..task("io", "3600") };
    let id = submit(&caller, first.clone()).await.unwrap();
    for _ in 0..20 {
        assert_eq!(submit(&caller, first.clone()).await.unwrap(), id);
    }
    let repeated = v1::BatchSubmitTasksRequest { tasks: vec![first.clone()], batch_id: String::new() };
    let repeated = caller.tasks().batch_submit_tasks(repeated).await.unwrap().into_inner();
    assert_eq!((repeated.task_ids, repeated.duplicates), (vec![id.clone()], vec![true]));
    let streamed = v1::SubmitTasksRequest { sequence: 7, task: Some(first.clone()) };
    let mut answers = caller.tasks().submit_tasks(tokio_stream::iter([streamed])).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    let accepted = matches!(answer.outcome, Some(Outcome::Accepted(task)) if task.task_id == id && task.duplicate);
    assert!(accepted && answer.sequence == 7);
    assert_eq!(submit(&caller, noop()).await.unwrap_err().code(), Code::ResourceExhausted);
    let with_new = v1::BatchSubmitTasksRequest { tasks: vec![first, noop()], batch_id: String::new() };
    assert_eq!(caller.tasks().batch_submit_tasks(with_new).await.unwrap_err().code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn calls_that_end_before_their_answer_do_not_exceed_the_quota() {
    let tokens = Tokens::new();
    let ci = tokens.create("ci", "submitter", "default", &[]);
    let server = tokens.serve("[auth.limits]\nlive_tasks = 5\n");
    let caller = Caller::new(&server, &ci);
    let calls = (0..200).map(|number| {
        let mut request = tonic::Request::new(task("io", "3600"));
        request.set_timeout(Duration::from_micros(200 + 20 * number));
        let mut tasks = caller.tasks();
        // Ended by its deadline, accepted, or refused.
        async move { drop(tasks.submit_task(request).await) }
    });
    futures_util::future::join_all(calls).await;
    // The server may have closed the connection, because so many calls were reset.
    let caller = Caller::new(&server, &ci);
    // The quota was used up, and nothing more is accepted.
    eventually(async || match submit(&caller, task("io", "3600")).await {
        Err(refused) if reason(&refused) == "QUOTA_EXCEEDED" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let list = v1::ListTasksRequest { page_size: 100, ..v1::ListTasksRequest::default() };
    let tasks = caller.tasks().list_tasks(list).await.unwrap().into_inner().tasks;
    assert!(tasks.len() <= 5, "{} unfinished tasks", tasks.len());
}
