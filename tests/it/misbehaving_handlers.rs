//! Handlers and programs that misbehave affect only their own task.

use std::time::{Duration, SystemTime};

use lineshaft::proto::v1::{self, FailureReason, TaskState};

use crate::support::{Server, bytes, check, eventually, is_running, noop, task};

const SHELL: &str = r#"
[[handler]]
name = "sh"
runner = "process"
argv = ["/bin/sh", "-c", "eval \"$1\"", "sh"]
arg_pattern = '(?s).*'
grace = "300ms"
[handler.retry]
attempts = 1
[[handler]]
name = "small"
runner = "process"
argv = ["/usr/bin/env", "python3", "-c", "x = bytearray(512 << 20); print(len(x))"]
[handler.limits]
memory = "128MiB"
[handler.retry]
attempts = 1
[[handler]]
name = "nowhere"
runner = "process"
argv = ["/does/not/exist"]
[handler.retry]
attempts = 1
"#;

fn shell(script: &str) -> v1::SubmitTaskRequest {
    v1::SubmitTaskRequest { handler: "sh".into(), args: vec![script.to_owned()], ..Default::default() }
}

fn handler(name: &str) -> v1::SubmitTaskRequest {
    v1::SubmitTaskRequest { handler: name.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn an_invalid_payload_fails_its_task_at_the_first_attempt() {
    let server = Server::start("");
    let deep = format!("{{\"expression\":\"{}1{}\"}}", "(".repeat(7_000), ")".repeat(7_000));
    let chain = format!("{{\"expression\":\"{}1\"}}", "1+".repeat(7_500));
    let bangs = format!("{{\"expression\":\"{}true\"}}", "!".repeat(15_000));
    let lists = format!("{{\"expression\":\"{}{}\"}}", "[".repeat(7_000), "]".repeat(7_000));
    let nested = format!("{{\"expression\":\"1\",\"variables\":{{\"a\":{}1{}}}}}", "[".repeat(120), "]".repeat(120));
    for (name, payload) in [
        ("compute", "-1"),
        ("compute", "1e30"),
        ("compute", "\"x\""),
        ("compute", ""),
        ("compute", "{\"op\":\"rm\",\"n\":1}"),
        ("compute", &"[".repeat(100_000)),
        ("io", "-1"),
        ("io", "1e300"),
        ("io", "{\"seconds\":null}"),
        ("heavy", "{\"megabytes\":999999999999,\"rounds\":1}"),
        ("heavy", "{\"megabytes\":0,\"rounds\":0}"),
        ("expression", "{\"expression\":\"1 +\"}"),
        ("expression", &deep),
        ("expression", &bangs),
        ("expression", &lists),
        ("expression", &nested),
    ] {
        let id = server.submit(task(name, payload)).await;
        let ended = server.wait_finished(&id).await;
        let shown = &payload[..payload.len().min(60)];
        // Deeply nested expressions may also succeed; they must not harm the server.
        if ended.state() == TaskState::Completed && payload.len() > 10_000 {
            continue;
        }
        let failure = ended.failure.unwrap_or_else(|| panic!("{name} {shown}: no failure"));
        assert_eq!(failure.reason(), FailureReason::InvalidPayload, "{name} {shown}: {failure:?}");
        assert_eq!(ended.attempt, 1, "{name} {shown} is not retried");
    }
    let id = server.submit(task("expression", &chain)).await;
    server.wait_finished(&id).await;
    let id = server.submit(noop()).await;
    assert_eq!(server.wait_finished(&id).await.state(), TaskState::Completed, "the server still runs tasks");
}

#[tokio::test]
async fn an_expression_that_would_run_for_days_can_be_cancelled() {
    let server = Server::start("");
    let list: Vec<_> = (0..1_000).map(|n| n.to_string()).collect();
    let source = "l.map(a, l.map(b, l.map(c, l.map(d, a + b + c + d))))";
    let payload = format!("{{\"expression\":\"{source}\",\"variables\":{{\"l\":[{}]}}}}", list.join(","));
    let id = server.submit(task("expression", &payload)).await;
    server.wait_started(&id).await;
    let cancel = v1::CancelTaskRequest { task_id: id.clone(), ..Default::default() };
    // Fails if the task has already ended at the limit of steps.
    let _ = server.tasks().cancel_task(cancel).await;
    let ended = server.wait_finished(&id).await;
    assert!(matches!(ended.state(), TaskState::Cancelled | TaskState::Failed), "{ended:?}");
}

#[tokio::test]
async fn a_failed_process_has_a_reason_exit_code_and_signal() {
    let server = Server::start(SHELL);
    for (request, reason, code, signal) in [
        (shell("exit 7"), FailureReason::HandlerError, Some(7), None),
        (shell("kill -9 $$"), FailureReason::Killed, None, Some(9)),
        (shell("printf '\\377\\376' >&2; exit 1"), FailureReason::HandlerError, Some(1), None),
        (shell("head -c 1048577 /dev/zero"), FailureReason::ResultTooLarge, None, None),
        (handler("small"), FailureReason::OutOfMemory, Some(1), None),
        (handler("nowhere"), FailureReason::HandlerError, None, None),
    ] {
        let about = format!("{} {:?}", request.handler, request.args);
        let id = server.submit(request).await;
        let failure = server.wait_finished(&id).await.failure.unwrap_or_else(|| panic!("{about}: no failure"));
        assert_eq!(failure.reason(), reason, "{about}: {failure:?}");
        assert_eq!((failure.exit_code, failure.signal), (code, signal), "{about}: {failure:?}");
    }
}

#[tokio::test]
async fn child_processes_do_not_outlive_their_attempt() {
    let server = Server::start(SHELL);
    for (mark, script) in [
        ("3131.31", "sleep 3131.31 & echo done"),
        ("3232.32", "setsid sleep 3232.32 & echo done"),
        ("3333.33", "(trap '' TERM HUP; sleep 3333.33) & disown 2>/dev/null; echo done"),
    ] {
        let id = server.submit(shell(script)).await;
        let ended = server.wait_finished(&id).await;
        assert_eq!(bytes(ended.result.as_ref()), "done\n", "{script}: {ended:?}");
        let state = || format!("{script}: the child is still running after its attempt");
        eventually(async || check(!is_running(mark), state)).await;
    }
}

#[tokio::test]
async fn a_process_inherits_no_variables_or_files_of_the_server() {
    let server = Server::start(SHELL);
    let payload = v1::Payload { kind: Some(v1::payload::Kind::Data(vec![b'x'; 1 << 20].into())), ..Default::default() };
    let with = |script: &str| v1::SubmitTaskRequest { payload: Some(payload.clone()), ..shell(script) };
    let id = server.submit(with("wc -c")).await;
    assert_eq!(bytes(server.wait_finished(&id).await.result.as_ref()).trim(), "1048576");
    let id = server.submit(with("true")).await;
    assert_eq!(server.wait_finished(&id).await.state(), TaskState::Completed, "an unread payload is no failure");
    let id = server.submit(shell("env | cut -d= -f1 | sort; ls /proc/self/fd | wc -l")).await;
    let output = bytes(server.wait_finished(&id).await.result.as_ref());
    assert!(!output.contains("CARGO") && !output.contains("HOME"), "the environment is clean: {output}");
    let open: usize = output.lines().last().unwrap().trim().parse().unwrap();
    assert!(open <= 5, "{open} file descriptors are open in a child: {output}");
}

#[tokio::test]
async fn output_without_end_is_read_at_a_bounded_rate() {
    let server = Server::start(SHELL);
    let id = server.submit(shell("head -c 64M /dev/zero >&2; echo done")).await;
    let ended = server.wait_finished(&id).await;
    assert_eq!(bytes(ended.result.as_ref()), "done\n", "{ended:?}");
    assert_eq!(ended.stderr_bytes, 64 << 20, "nothing is lost: the program waits");
    let [start, end] = [ended.started_at, ended.finished_at].map(|time| SystemTime::try_from(time.unwrap()).unwrap());
    // 256 reads at once, then 250 per second, of at most 64 KiB: the rest of 768 reads takes 3 s.
    assert!(end.duration_since(start).unwrap() >= Duration::from_secs(3), "{ended:?}");
}
