//! Tasks from submission to deletion: running, retrying, reading, cancelling.

use futures_util::StreamExt;
use lineshaft::proto::v1::{
    self, FailureReason, Priority, StopMethod, TaskState, run_task_response, submit_tasks_response::Outcome,
};

use crate::support::{Server, bytes, check, eventually, fields, millis, noop, reason, seconds, task};

const SHELL: &str = r#"
[[handler]]
name = "sh"
runner = "process"
argv = ["/bin/sh", "-c", "eval \"$1\"", "sh"]
arg_pattern = '(?s).*'
grace = "300ms"
[handler.retry]
attempts = 2
delay = "100ms"
jitter = 0.0
"#;

fn shell(script: &str) -> v1::SubmitTaskRequest {
    v1::SubmitTaskRequest { handler: "sh".into(), args: vec![script.to_owned()], ..Default::default() }
}

#[tokio::test]
async fn heavy_fills_at_most_64_mib_unless_more_is_configured() {
    let megabytes = task("heavy", r#"{"megabytes":65}"#);
    let server = Server::start("");
    let refused = server.wait_finished(&server.submit(megabytes.clone()).await).await;
    assert_eq!(refused.failure.as_ref().unwrap().message, "payload: `megabytes` is 65, must be 1 to 64");
    let config =
        "[[handler]]\nname = \"heavy\"\nrunner = \"builtin\"\nbuiltin = \"heavy\"\nlimits = { memory = \"65MiB\" }";
    let server = Server::start(config);
    let ended = server.wait_finished(&server.submit(megabytes).await).await;
    assert_eq!(ended.state(), TaskState::Completed, "{ended:?}");
}

#[tokio::test]
async fn every_built_in_handler_returns_its_result() {
    let server = Server::start("");
    for (handler, payload, result) in [
        ("compute", "100", r#""value":4950"#),
        ("compute", r#"{"op":"primes","n":100}"#, r#""value":25"#),
        ("io", "0.01", "waited_seconds"),
        ("expression", r#"{"expression":"a + 1","variables":{"a":41}}"#, "42"),
        ("heavy", r#"{"megabytes":1,"rounds":1}"#, "checksum"),
    ] {
        let id = server.submit(task(handler, payload)).await;
        let ended = server.wait_finished(&id).await;
        assert_eq!(ended.state(), TaskState::Completed, "{handler}: {ended:?}");
        assert!(bytes(ended.result.as_ref()).contains(result), "{handler}: {ended:?}");
    }
}

#[tokio::test]
async fn a_json_payload_reaches_the_handler_as_text() {
    let server = Server::start("");
    let number = prost_types::Value { kind: Some(prost_types::value::Kind::NumberValue(10.0)) };
    let payload = v1::Payload { kind: Some(v1::payload::Kind::Json(number)), content_type: String::new() };
    let id = server.submit(v1::SubmitTaskRequest { payload: Some(payload), ..noop() }).await;
    assert!(bytes(server.wait_finished(&id).await.result.as_ref()).contains(r#""value":45"#));
}

#[tokio::test]
async fn a_batch_is_accepted_as_a_whole_or_refused() {
    let server = Server::start("");
    let tasks = vec![noop(); 3];
    let batch = v1::BatchSubmitTasksRequest { tasks, batch_id: "b1".into() };
    let response = server.tasks().batch_submit_tasks(batch).await.unwrap().into_inner();
    assert_eq!((response.batch_id.as_str(), response.task_ids.len()), ("b1", 3));
    for id in &response.task_ids {
        assert_eq!(server.wait_finished(id).await.batch_id, "b1");
    }
    let tasks = vec![noop(), task("missing", "0")];
    let batch = v1::BatchSubmitTasksRequest { tasks, batch_id: "b2".into() };
    let refused = server.tasks().batch_submit_tasks(batch).await.unwrap_err();
    assert_eq!(reason(&refused), "UNKNOWN_HANDLER");
    let filter = Some(v1::TaskFilter { batch_id: "b2".into(), ..Default::default() });
    let list = server.tasks().list_tasks(v1::ListTasksRequest { filter, ..Default::default() }).await.unwrap();
    assert!(list.into_inner().tasks.is_empty());
}

#[tokio::test]
async fn each_task_of_a_stream_is_accepted_or_rejected_by_itself() {
    let server = Server::start("");
    let requests = (0..500).map(|sequence| v1::SubmitTasksRequest {
        sequence,
        task: Some(if sequence == 250 { task("missing", "0") } else { noop() }),
    });
    let responses = server.tasks().submit_tasks(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let responses: Vec<_> = responses.map(Result::unwrap).collect().await;
    assert_eq!(responses.len(), 500);
    for response in responses {
        match response.outcome.unwrap() {
            Outcome::Accepted(accepted) => assert!(!accepted.task_id.is_empty()),
            Outcome::Rejected(rejected) => {
                assert_eq!((response.sequence, rejected.reason.as_str()), (250, "UNKNOWN_HANDLER"));
            }
        }
    }
}

#[tokio::test]
async fn run_task_streams_the_events_and_the_result() {
    let server = Server::start("");
    let request = v1::RunTaskRequest { task: Some(task("compute", "10")) };
    let steps = server.tasks().run_task(request).await.unwrap().into_inner();
    let steps: Vec<_> = steps.map(|step| step.unwrap().kind.unwrap()).collect().await;
    assert!(matches!(steps.first(), Some(run_task_response::Kind::Accepted(_))));
    let states: Vec<_> = steps
        .iter()
        .filter_map(|step| match step {
            run_task_response::Kind::Event(event) => Some(event.state()),
            _ => None,
        })
        .collect();
    assert_eq!(states, [TaskState::Queued, TaskState::Running, TaskState::Completed]);
    let Some(run_task_response::Kind::Task(task)) = steps.last() else { panic!("no result: {steps:?}") };
    assert!(bytes(task.result.as_ref()).contains("45"));
}

#[tokio::test]
async fn a_repeated_submission_adds_nothing() {
    let server = Server::start("");
    let keyed = v1::SubmitTaskRequest { request_id: "k".into(), ..noop() };
    let first = server.tasks().submit_task(keyed.clone()).await.unwrap().into_inner();
    let second = server.tasks().submit_task(keyed).await.unwrap().into_inner();
    assert_eq!((first.duplicate, second.duplicate, &first.task_id), (false, true, &second.task_id));
    let other = v1::SubmitTaskRequest { request_id: "k".into(), ..task("compute", "1") };
    let refused = server.tasks().submit_task(other).await.unwrap_err();
    assert_eq!(reason(&refused), "REQUEST_ID_REUSED");
    let named = |json: &str| v1::SubmitTaskRequest { task_id: "mine".into(), ..task("compute", json) };
    server.submit(named("0")).await;
    assert!(server.tasks().submit_task(named("0")).await.unwrap().into_inner().duplicate);
    assert_eq!(reason(&server.tasks().submit_task(named("7")).await.unwrap_err()), "TASK_EXISTS");
}

#[tokio::test]
async fn a_failing_process_is_retried_and_its_failure_is_reported() {
    let server = Server::start(SHELL);
    let id = server.submit(shell("echo some; echo trouble >&2; exit 3")).await;
    let ended = server.wait_finished(&id).await;
    assert_eq!((ended.state(), ended.attempt), (TaskState::Failed, 2));
    let failure = ended.failure.unwrap();
    assert_eq!((failure.reason(), failure.exit_code, failure.attempt), (FailureReason::HandlerError, Some(3), 2));
    assert!(failure.detail.contains("trouble"), "{failure:?}");
}

#[tokio::test]
async fn a_task_that_exceeds_its_timeout_is_stopped() {
    let server = Server::start(SHELL);
    let once = Some(v1::RetryPolicy { max_attempts: 1, ..Default::default() });
    for request in [task("compute", "1000000000000"), task("io", "60"), shell("sleep 60")] {
        let id = server.submit(v1::SubmitTaskRequest { timeout: millis(100), retry: once, ..request }).await;
        let ended = server.wait_finished(&id).await;
        assert_eq!(ended.failure.as_ref().unwrap().reason(), FailureReason::Timeout, "{ended:?}");
    }
}

#[tokio::test]
async fn a_cancel_ends_a_waiting_task_and_stops_a_running_one() {
    let server = Server::start(SHELL);
    server.set_paused("default", true).await;
    let waiting = server.submit(noop()).await;
    let cancel = |id: &str, mode: v1::CancelMode| v1::CancelTaskRequest {
        task_id: id.to_owned(),
        reason: "enough".into(),
        mode: mode.into(),
        grace: None,
    };
    let response = server.tasks().cancel_task(cancel(&waiting, v1::CancelMode::Graceful)).await.unwrap().into_inner();
    assert_eq!(response.state(), TaskState::Cancelled);
    server.set_paused("default", false).await;
    let ended = server.get(&waiting).await;
    assert_eq!(ended.cancel.unwrap().method(), StopMethod::NeverStarted);

    let (graceful, force) = (v1::CancelMode::Graceful, v1::CancelMode::Force);
    for (request, mode, method) in [
        (task("compute", "1000000000000"), graceful, StopMethod::Token),
        (task("io", "60"), graceful, StopMethod::Token),
        (shell("echo ready; sleep 60"), graceful, StopMethod::SignalTerm),
        (shell("trap '' TERM; echo ready; while :; do sleep 1; done"), graceful, StopMethod::SignalKill),
        (shell("echo ready; sleep 60"), force, StopMethod::SignalKill),
    ] {
        let is_process = request.handler == "sh";
        let id = server.submit(request).await;
        server.wait_for_state(&id, TaskState::Running).await;
        if is_process {
            // The shell has set its trap when it writes the first line.
            let request = v1::ReadOutputRequest { task_id: id.clone(), follow: true, ..Default::default() };
            let mut output = server.tasks().read_output(request).await.unwrap().into_inner();
            assert_eq!(output.message().await.unwrap().unwrap().data.as_ref(), b"ready\n");
        }
        let response = server.tasks().cancel_task(cancel(&id, mode)).await.unwrap().into_inner();
        assert_eq!(response.state(), TaskState::Running);
        let ended = server.wait_finished(&id).await;
        let receipt = ended.cancel.unwrap();
        assert_eq!((ended.state, receipt.method()), (TaskState::Cancelled.into(), method));
        assert_eq!((receipt.reason.as_str(), receipt.stopped_at.is_some()), ("enough", true));
    }
    let done = server.submit(noop()).await;
    server.wait_finished(&done).await;
    let refused = server.tasks().cancel_task(cancel(&done, graceful)).await.unwrap_err();
    assert_eq!(reason(&refused), "TASK_FINISHED");
}

#[tokio::test]
async fn output_can_be_read_while_the_task_runs_and_afterwards() {
    let server = Server::start(SHELL);
    let gate = server.path("gate");
    let script = format!("echo first; while [ ! -e {} ]; do sleep 0.05; done; echo second", gate.display());
    let id = server.submit(shell(&script)).await;
    let request = v1::ReadOutputRequest { task_id: id.clone(), follow: true, ..Default::default() };
    let mut pieces = server.tasks().read_output(request).await.unwrap().into_inner();
    let first = pieces.message().await.unwrap().unwrap();
    assert_eq!((first.data.as_ref(), first.offset), (&b"first\n"[..], 0));
    std::fs::write(&gate, "").unwrap();
    let second = pieces.message().await.unwrap().unwrap();
    assert_eq!((second.data.as_ref(), second.offset), (&b"second\n"[..], 6));
    assert_eq!(pieces.message().await.unwrap(), None);
    server.wait_finished(&id).await;
    let again = v1::ReadOutputRequest { task_id: id, offset: 6, ..Default::default() };
    let mut pieces = server.tasks().read_output(again).await.unwrap().into_inner();
    assert_eq!(pieces.message().await.unwrap().unwrap().data.as_ref(), b"second\n");
}

#[tokio::test]
async fn only_head_and_tail_of_long_output_are_kept() {
    let server = Server::start(SHELL);
    let script = "head -c 500000 /dev/zero | tr '\\0' x; echo end";
    let id = server.submit(v1::SubmitTaskRequest { args: vec![script.into()], ..shell("") }).await;
    server.wait_finished(&id).await;
    let request = v1::ReadOutputRequest { task_id: id, ..Default::default() };
    let pieces = server.tasks().read_output(request).await.unwrap().into_inner();
    let pieces: Vec<_> = pieces.map(Result::unwrap).collect().await;
    let (kept, skipped) = pieces.iter().fold((0, 0), |sum, piece| (sum.0 + piece.data.len(), sum.1 + piece.skipped));
    assert_eq!((kept, skipped), (2 * 64 * 1024, 500_004 - 2 * 64 * 1024));
    assert!(pieces.last().unwrap().data.ends_with(b"xend\n"));
}

#[tokio::test]
async fn a_task_is_shown_with_the_first_and_last_part_of_its_output_if_that_is_wanted() {
    let server = Server::start(SHELL);
    let get = async |id: &str, include_output| {
        let request = v1::GetTaskRequest { task_id: id.to_owned(), include_output, ..Default::default() };
        server.tasks().get_task(request).await.unwrap().into_inner().task.unwrap().output
    };
    let gate = server.path("gate");
    let script =
        format!("echo first; while [ ! -e {} ]; do sleep 0.05; done; seq 100000; echo last >&2", gate.display());
    let id = server.submit(shell(&script)).await;
    let request = v1::ReadOutputRequest { task_id: id.clone(), follow: true, ..Default::default() };
    let mut output = server.tasks().read_output(request).await.unwrap().into_inner();
    output.message().await.unwrap().unwrap();
    let all_of = |text: &str| Some(v1::StreamExcerpt { head: text.to_owned(), ..Default::default() });
    let running = get(&id, true).await.unwrap();
    assert_eq!(running, v1::OutputExcerpt { attempt: 1, stdout: all_of("first\n"), stderr: None });

    std::fs::write(&gate, "").unwrap();
    let ended = server.wait_finished(&id).await;
    assert_eq!(get(&id, false).await, None);
    let v1::OutputExcerpt { attempt, stdout, stderr } = get(&id, true).await.unwrap();
    assert_eq!((attempt, stderr), (1, all_of("last\n")));
    let v1::StreamExcerpt { head, omitted_bytes, tail } = stdout.unwrap();
    assert!(head.starts_with("first\n1\n2\n") && head.ends_with('\n') && head.len() <= 4096, "{head}");
    assert!(tail.starts_with("99") && tail.ends_with("\n99999\n100000\n") && tail.len() <= 4096, "{tail}");
    let shown = i64::try_from(head.len() + tail.len()).unwrap();
    assert_eq!(shown + omitted_bytes, ended.stdout_bytes);

    let silent = server.submit(noop()).await;
    server.wait_finished(&silent).await;
    assert_eq!(get(&silent, true).await, None);
}

#[tokio::test]
async fn lists_are_paged_and_filtered() {
    let server = Server::start("");
    let labelled = |n: usize| v1::SubmitTaskRequest {
        task_id: format!("t{n:02}"),
        labels: [("parity".to_owned(), (n % 2).to_string())].into(),
        ..noop()
    };
    for n in 0..25 {
        server.submit(labelled(n)).await;
    }
    let filter = Some(v1::TaskFilter { labels: [("parity".to_owned(), "1".to_owned())].into(), ..Default::default() });
    let mut request = v1::ListTasksRequest { filter, page_size: 5, ..Default::default() };
    let mut found = Vec::new();
    loop {
        let page = server.tasks().list_tasks(request.clone()).await.unwrap().into_inner();
        found.extend(page.tasks.into_iter().map(|task| task.task_id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let expected: Vec<_> = (0..25).rev().filter(|n| n % 2 == 1).map(|n| format!("t{n:02}")).collect();
    assert_eq!(found, expected);
    request.filter = None;
    assert_eq!(fields(&server.tasks().list_tasks(request).await.unwrap_err()), ["page_token"]);
}

#[tokio::test]
async fn finished_tasks_are_deleted_by_retention_and_on_request() {
    let server = Server::start("[retention]\ncount = 10\n");
    let batch = v1::BatchSubmitTasksRequest { tasks: vec![noop(); 50], batch_id: String::new() };
    let ids = server.tasks().batch_submit_tasks(batch).await.unwrap().into_inner().task_ids;
    let last = server.submit(v1::SubmitTaskRequest { priority: Priority::Low.into(), ..noop() }).await;
    server.wait_finished(&last).await;
    let count = async || {
        let page = server.tasks().list_tasks(v1::ListTasksRequest::default()).await.unwrap().into_inner();
        page.tasks.len()
    };
    eventually(async || {
        let count = count().await;
        check(count <= 10, || format!("{count} of {} tasks remain", ids.len()))
    })
    .await;
    let deleted = server.tasks().delete_tasks(v1::DeleteTasksRequest::default()).await.unwrap().into_inner().deleted;
    assert_eq!((deleted, count().await), (10, 0));
}

#[tokio::test]
async fn a_delayed_task_waits_and_a_task_that_cannot_start_expires() {
    let server = Server::start("");
    let delayed = server.submit(v1::SubmitTaskRequest { delay: millis(300), ..noop() }).await;
    assert_eq!(server.get(&delayed).await.state(), TaskState::Waiting);
    let ended = server.wait_finished(&delayed).await;
    assert_eq!(ended.state(), TaskState::Completed);
    server.set_paused("default", true).await;
    let expiring = server.submit(v1::SubmitTaskRequest { expires_after: millis(100), ..noop() }).await;
    let ended = server.wait_finished(&expiring).await;
    assert_eq!(ended.failure.unwrap().reason(), FailureReason::Expired);
}

#[tokio::test]
async fn a_worker_starts_the_task_with_the_highest_priority_first() {
    let server = Server::start("[[pool]]\nname = \"default\"\nsize = 1\n");
    server.set_paused("default", true).await;
    let mut ids = Vec::new();
    for round in 0..3 {
        for priority in [Priority::Low, Priority::Normal, Priority::High, Priority::Critical] {
            let request = v1::SubmitTaskRequest { priority: priority.into(), ..noop() };
            ids.push((std::cmp::Reverse(priority as i32), round, server.submit(request).await));
        }
    }
    server.set_paused("default", false).await;
    let mut started = Vec::new();
    for (_, _, id) in &ids {
        let at = server.wait_finished(id).await.started_at.unwrap();
        started.push(((at.seconds, at.nanos), id.clone()));
    }
    started.sort();
    ids.sort();
    let expected: Vec<_> = ids.into_iter().map(|(_, _, id)| id).collect();
    let order: Vec<_> = started.into_iter().map(|(_, id)| id).collect();
    assert_eq!(order, expected);
}

#[tokio::test]
async fn wait_task_returns_the_unfinished_task_after_its_timeout() {
    let server = Server::start("");
    let id = server.submit(task("io", "60")).await;
    let request = v1::WaitTaskRequest { task_id: id, timeout: millis(50) };
    let response = server.tasks().wait_task(request).await.unwrap().into_inner();
    assert!(!response.finished);
    let too_long = v1::WaitTaskRequest { task_id: "x".into(), timeout: seconds(61) };
    assert_eq!(fields(&server.tasks().wait_task(too_long).await.unwrap_err()), ["timeout"]);
}
