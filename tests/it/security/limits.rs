//! What one identity may have under way.

use std::time::Duration;

use lineshaft::proto::v1;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{Known, Tokens};
use crate::support::{TIMEOUT, noop, reason, seconds, task};

async fn submit(known: &Known, request: v1::SubmitTaskRequest) -> Result<String, Status> {
    known.tasks().submit_task(request).await.map(|answer| answer.into_inner().task_id)
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
async fn who_submits_too_fast_is_told_when_to_come_back_and_nobody_else_notices() {
    let tokens = Tokens::new();
    let (ci, other) = (tokens.create("ci", "submitter", "default", &[]), tokens.create("other", "viewer", "*", &[]));
    let other = Known::new(&tokens.serve(""), &other);
    drop(other);
    let server = tokens.serve("[auth.limits]\nsubmit_rate = 1\nsubmit_burst = 5\n");
    let known = Known::new(&server, &ci);
    known.tasks().batch_submit_tasks(batch(5)).await.unwrap();
    let refused = submit(&known, noop()).await.unwrap_err();
    assert!(limited(&refused, "RATE_LIMITED") <= Duration::from_secs(1));
    // Another connection is no way around.
    let refused = submit(&Known::new(&server, &ci), noop()).await.unwrap_err();
    limited(&refused, "RATE_LIMITED");
    let too_many = known.tasks().batch_submit_tasks(batch(6)).await.unwrap_err();
    assert_eq!(reason(&too_many), "RATE_LIMITED");
    assert!(too_many.get_error_details().retry_info().is_none(), "waiting does not help");
    let free = Known::new(&server, &tokens.create("free", "submitter", "default", &[]));
    let begun = std::time::Instant::now();
    while let Err(status) = submit(&free, noop()).await {
        assert_eq!(status.code(), Code::Unauthenticated, "the new token is not known yet");
        assert!(begun.elapsed() < TIMEOUT);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn tasks_and_their_payloads_count_until_they_end_over_a_restart_too() {
    let tokens = Tokens::new();
    let ci = tokens.create("ci", "submitter", "default", &[]);
    let mut server = tokens.serve("[auth.limits]\nlive_tasks = 3\nlive_payload_bytes = \"1MiB\"\n");
    let known = Known::new(&server, &ci);
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(submit(&known, task("io", "3600")).await.unwrap());
    }
    limited(&submit(&known, noop()).await.unwrap_err(), "QUOTA_EXCEEDED");
    limited(&known.tasks().batch_submit_tasks(batch(1)).await.unwrap_err(), "QUOTA_EXCEEDED");
    server.kill9();
    server.start_again();
    let known = Known::new(&server, &ci);
    until_limited(&known).await;
    // A task that ends gives its place back.
    let cancel = v1::CancelTaskRequest { task_id: ids[0].clone(), ..v1::CancelTaskRequest::default() };
    known.tasks().cancel_task(cancel).await.unwrap();
    let begun = std::time::Instant::now();
    while submit(&known, noop()).await.is_err() {
        assert!(begun.elapsed() < TIMEOUT, "the place is not given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let large = v1::SubmitTaskRequest { payload: bytes(1 << 20), ..task("io", "") };
    limited(&submit(&known, large).await.unwrap_err(), "QUOTA_EXCEEDED");
}

fn bytes(count: usize) -> Option<v1::Payload> {
    let kind = Some(v1::payload::Kind::Data(vec![b' '; count].into()));
    Some(v1::Payload { kind, content_type: String::new() })
}

/// The tasks of the run before are counted soon after the start.
async fn until_limited(known: &Known) {
    let begun = std::time::Instant::now();
    loop {
        match submit(known, noop()).await {
            Err(refused) => {
                limited(&refused, "QUOTA_EXCEEDED");
                return;
            }
            Ok(id) => {
                let request = v1::WaitTaskRequest { task_id: id, timeout: seconds(10) };
                known.tasks().wait_task(request).await.unwrap();
            }
        }
        assert!(begun.elapsed() < TIMEOUT, "tasks of the run before do not count");
    }
}

#[tokio::test]
async fn watches_and_waits_of_one_identity_do_not_take_the_places_of_all() {
    let tokens = Tokens::new();
    let (ci, other) = (tokens.create("ci", "submitter", "default", &[]), tokens.create("other", "submitter", "*", &[]));
    let server = tokens.serve("[auth.limits]\nopen_streams = 2\n");
    let (known, other) = (Known::new(&server, &ci), Known::new(&server, &other));
    let first = known.tasks().watch_tasks(v1::WatchTasksRequest::default()).await.unwrap();
    let _second = known.tasks().watch_tasks(v1::WatchTasksRequest::default()).await.unwrap();
    let refused = known.tasks().watch_tasks(v1::WatchTasksRequest::default()).await.unwrap_err();
    limited(&refused, "QUOTA_EXCEEDED");
    let id = submit(&known, noop()).await.unwrap();
    let wait = || v1::WaitTaskRequest { task_id: id.clone(), timeout: seconds(10) };
    limited(&known.tasks().wait_task(wait()).await.unwrap_err(), "QUOTA_EXCEEDED");
    other.tasks().wait_task(wait()).await.unwrap();
    drop(first);
    let begun = std::time::Instant::now();
    while known.tasks().wait_task(wait()).await.is_err() {
        assert!(begun.elapsed() < TIMEOUT, "the place of a watch that has gone is not given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_token_has_its_own_limits_where_it_was_given_some() {
    let tokens = Tokens::new();
    let ci = tokens.create("ci", "submitter", "default", &[]);
    let server = tokens.serve("[auth.limits]\nsubmit_rate = 1\nsubmit_burst = 1\nopen_streams = 1\n");
    // Made while the server runs: nobody was bounded by what is counted until now.
    let nightly =
        tokens.create("nightly", "submitter", "default", &["--limit", "submit_rate=100", "--limit", "live_tasks=2"]);
    let (known, nightly) = (Known::new(&server, &ci), Known::new(&server, &nightly));
    let begun = std::time::Instant::now();
    let first = loop {
        match submit(&nightly, task("io", "3600")).await {
            Ok(id) => break id,
            Err(status) => {
                assert_eq!(status.code(), Code::Unauthenticated, "the new token is not known yet: {status:?}");
            }
        }
        assert!(begun.elapsed() < TIMEOUT);
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    submit(&nightly, task("io", "3600")).await.unwrap();
    let refused = submit(&nightly, noop()).await.unwrap_err();
    assert_eq!(reason(&refused), "QUOTA_EXCEEDED");
    assert_eq!(refused.get_error_details().error_info().unwrap().metadata["limit"], "2");
    // What it was given nothing of its own for is as for all.
    let _watch = nightly.tasks().watch_tasks(v1::WatchTasksRequest::default()).await.unwrap();
    let refused = nightly.tasks().watch_tasks(v1::WatchTasksRequest::default()).await.unwrap_err();
    assert_eq!(reason(&refused), "QUOTA_EXCEEDED");
    // And for others nothing has changed: as many tasks as they like, one a second.
    known.tasks().batch_submit_tasks(batch(1)).await.unwrap();
    let too_many = known.tasks().batch_submit_tasks(batch(2)).await.unwrap_err();
    assert_eq!(reason(&too_many), "RATE_LIMITED");
    let cancel = v1::CancelTaskRequest { task_id: first, ..v1::CancelTaskRequest::default() };
    nightly.tasks().cancel_task(cancel).await.unwrap();
    let begun = std::time::Instant::now();
    while submit(&nightly, task("io", "3600")).await.is_err() {
        assert!(begun.elapsed() < TIMEOUT, "the place is not given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
