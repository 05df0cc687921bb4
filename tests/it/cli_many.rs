//! Client commands that act on several tasks.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::{BINARY, Server};

const HANDLERS: &str = r#"
[[handler]]
name = "fails"
runner = "process"
argv = ["/bin/sh", "-c", "echo no >&2; exit 1"]
[handler.retry]
attempts = 1

[[handler]]
name = "counts"
runner = "process"
argv = ["/bin/sh", "-c", "echo one; echo two; echo three; read line; echo four"]
"#;

fn command(server: &Server, arguments: &[&str]) -> Command {
    #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
    let mut command = Command::new(BINARY);
    command.args(arguments).env("LINESHAFT_SERVER", &server.address);
    command
}

fn run(server: &Server, arguments: &[&str]) -> (Option<i32>, String, String) {
    printed(&command(server, arguments).output().unwrap())
}

fn printed(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn stdout(server: &Server, arguments: &[&str]) -> String {
    let (code, out, err) = run(server, arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {out} {err}");
    out
}

#[test]
fn several_tasks_are_shown_and_one_that_is_missing_does_not_hide_the_others() {
    let server = Server::start("");
    for id in ["a", "b"] {
        stdout(&server, &["task", "run", "compute", "--json", "10", "--id", id]);
    }
    let (code, out, err) = run(&server, &["task", "show", "a", "missing", "b"]);
    assert_eq!(code, Some(3));
    let ids: Vec<_> = out.lines().filter_map(|line| line.strip_prefix("id ")).map(str::trim).collect();
    assert_eq!(ids, ["a", "b"], "{out}");
    assert!(err.contains("reason: TASK_NOT_FOUND"), "{err}");
    let (code, out, err) = run(&server, &["task", "get", "missing", "b", "-o", "json"]);
    assert_eq!((code, out.lines().count()), (Some(3), 1), "{out}");
    let error: Value = serde_json::from_str(&err).unwrap();
    assert_eq!((&error["error"]["reason"], &error["exitCode"]), (&json!("TASK_NOT_FOUND"), &json!(3)));
    let (code, _, err) = run(&server, &["task", "list", "--state", "lost", "-o", "json"]);
    let error: Value = serde_json::from_str(&err).unwrap();
    assert_eq!((code, &error["error"]["code"]), (Some(2), &json!("USAGE")), "{err}");
    let both = stdout(&server, &["handler", "get", "compute", "io"]);
    assert_eq!(both.lines().filter(|line| line.starts_with("name ")).count(), 2, "{both}");
}

#[test]
fn the_exit_code_of_a_wait_is_that_of_the_worst_outcome() {
    let server = Server::start(HANDLERS);
    for (id, handler) in [("good", "compute"), ("bad", "fails")] {
        stdout(&server, &["task", "submit", handler, "--json", "1", "--id", id, "--label", "run=1"]);
    }
    stdout(&server, &["task", "submit", "io", "--json", "600", "--id", "long", "--label", "run=2"]);
    let (code, out, err) = run(&server, &["task", "wait", "good", "bad"]);
    assert_eq!(code, Some(1), "{err}");
    assert!(out.contains("COMPLETED") && out.contains("HANDLER_ERROR"), "{out}");
    let (_, out, err) = run(&server, &["task", "logs", "bad"]);
    assert!(out.is_empty() && err.contains("--stderr prints the 3 bytes"), "{out}{err}");
    let (code, out, err) = run(&server, &["task", "wait", "--label", "run=1"]);
    assert_eq!((code, &*out), (Some(0), "0 completed\n"));
    assert!(err.contains("No unfinished task matches"), "{err}");
    assert_eq!(run(&server, &["task", "wait", "good", "long", "--timeout", "0.1"]).0, Some(6));
    let (code, out, _) = run(&server, &["task", "wait", "--label", "run=2", "--timeout", "100ms"]);
    assert_eq!((code, &*out), (Some(6), "0 completed, 1 not finished\n"));
    let waiting = command(&server, &["task", "wait", "--label", "run=2"]).stdout(Stdio::piped()).spawn().unwrap();
    let (code, out, _) = run(&server, &["task", "cancel", "--label", "run=2", "--force"]);
    assert_eq!((code, &*out), (Some(0), "0 cancelled, 1 asked to stop\n"));
    let (code, out, _) = printed(&waiting.wait_with_output().unwrap());
    // The task may have ended before the wait has found it.
    assert!(
        (code, &*out) == (Some(5), "0 completed, 1 cancelled\n") || (code, &*out) == (Some(0), "0 completed\n"),
        "{out}"
    );
    stdout(&server, &["pool", "update", "default", "--pause"]);
    stdout(&server, &["task", "submit", "compute", "--json", "1", "--id", "moved", "--label", "run=3"]);
    let waiting = command(&server, &["task", "wait", "--label", "run=3"]).stdout(Stdio::piped()).spawn().unwrap();
    stdout(&server, &["task", "update", "moved", "--with-label", "run=4"]);
    stdout(&server, &["pool", "update", "default", "--resume"]);
    let (code, out, _) = printed(&waiting.wait_with_output().unwrap());
    assert!(code == Some(0) && ["0 completed\n", "1 completed\n"].contains(&&*out), "it left the filter: {out}");
    assert_eq!(run(&server, &["task", "wait"]).0, Some(2), "all tasks are not meant");
}

#[test]
fn tasks_are_cancelled_and_deleted_by_id_and_by_filter() {
    let server = Server::start("[[pool]]\nname = \"default\"\nsize = 1\n");
    for id in ["r", "q1", "q2", "q3"] {
        stdout(&server, &["task", "submit", "io", "--json", "600", "--id", id, "--label", "team=red"]);
    }
    let (code, out, err) = run(&server, &["task", "cancel", "q1", "none", "q2"]);
    assert_eq!((code, &*out), (Some(3), "q1 CANCELLED\nq2 CANCELLED\n"), "{err}");
    let (_, out, _) = run(&server, &["task", "cancel", "q3", "-o", "json"]);
    let cancelled: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&cancelled["taskId"], &cancelled["state"]), (&json!("q3"), &json!("TASK_STATE_CANCELLED")));
    for forbidden in ["cancel", "delete"] {
        let (code, _, err) = run(&server, &["task", forbidden]);
        assert!(code == Some(2) && err.contains("--yes"), "{err}");
    }
    for action in [&["cancel"][..], &["delete"], &["retry", "--state", "cancelled"], &["update", "--delay", "1h"]] {
        let count = if matches!(action[0], "delete" | "retry") { 3 } else { i32::from(action[0] == "cancel") };
        let preview = [&["task"], action, &["--label", "team=red", "--dry-run"]].concat();
        assert_eq!(stdout(&server, &preview), format!("{count} match\n"), "{action:?}");
    }
    let out = stdout(&server, &["task", "cancel", "--label", "team=red", "--force", "--reason", "over"]);
    assert_eq!(out, "0 cancelled, 1 asked to stop\n", "only the unfinished one");
    run(&server, &["task", "wait", "r"]);
    let (code, out, err) = run(&server, &["task", "delete", "q1", "q2", "none"]);
    assert_eq!((code, &*out), (Some(3), "2 deleted\n"), "{err}");
    assert!(err.contains("1 of 3 tasks were not deleted"), "{err}");
    assert_eq!(stdout(&server, &["task", "delete", "--since", "1h", "--label", "team=red"]), "2 deleted\n");
}

#[test]
fn failed_tasks_are_retried_by_id_and_by_filter() {
    let server = Server::start(HANDLERS);
    for (id, handler) in [("good", "compute"), ("bad", "fails"), ("worse", "fails")] {
        run(&server, &["task", "run", handler, "--json", "1", "--id", id, "--label", "team=red"]);
    }
    let (code, out, err) = run(&server, &["task", "retry", "bad", "none", "good", "--json", "2"]);
    assert_eq!((code, out.lines().count()), (Some(3), 2), "{err}");
    assert!(err.contains("TASK_NOT_FOUND"), "{err}");
    let new = stdout(&server, &["task", "get", out.lines().next().unwrap(), "-o", "json"]);
    let new: Value = serde_json::from_str(&new).unwrap();
    assert_eq!((&new["retryOf"], &new["handler"]), (&json!("bad"), &json!("fails")));
    stdout(&server, &["task", "delete", "bad"]);
    run(&server, &["task", "wait", "--label", "team=red"]);
    let (code, _, err) = run(&server, &["task", "retry"]);
    assert!(code == Some(2) && err.contains("retries all failed tasks; pass --yes"), "{err}");
    let (code, _, err) = run(&server, &["task", "retry", "--state", "running"]);
    assert!(code != Some(0) && err.contains("selects none of the states that the call is for"), "{err}");
    // `worse`, and the retry of `bad`, which fails again.
    let out = stdout(&server, &["task", "retry", "--label", "team=red"]);
    assert_eq!(out.lines().count(), 2, "{out}");
}

#[test]
fn tasks_are_chosen_by_the_words_of_a_filter() {
    let server = Server::start(HANDLERS);
    for (id, handler, label) in [("a", "compute", "team=red"), ("b", "fails", "team=red"), ("c", "fails", "team=blue")]
    {
        run(&server, &["task", "run", handler, "--json", "1", "--id", id, "--label", label]);
    }
    let listed = |filter: &str| stdout(&server, &["task", "list", "-q", "--sort", "id", "--filter", filter]);
    assert_eq!(listed("state=failed,cancelled since=1h"), "b\nc\n");
    assert_eq!(listed("handler=fails label=team=red"), "b\n");
    assert_eq!(listed("until=1h"), "");
    assert_eq!(listed("FAILS label=team=blue"), "c\n");
    let found = |texts: &[&str]| {
        let options = texts.iter().flat_map(|text| ["--search", text]);
        stdout(&server, &["task", "list", "-q", "--sort", "id"].into_iter().chain(options).collect::<Vec<_>>())
    };
    assert_eq!(found(&["Exited With Code"]), "b\nc\n");
    assert_eq!(found(&["exited", "compute"]), "");
    let both = ["task", "get", "--filter", "label=team=red", "--state", "failed", "-o", "json"];
    let got: Value = serde_json::from_str(&stdout(&server, &both)).unwrap();
    assert_eq!(got["taskId"], "b");
    for (options, problem) in [
        (&["--filter", "urgent=1"][..], "there is no name \"urgent\""),
        (&["--filter", "state=lost"], "there is no state \"lost\""),
        (&["--filter", "pool=a", "--pool", "b"], "pool cannot be both \"a\" and \"b\""),
        (&["--filter", "since=1h", "--since", "2h"], "since is given more than once"),
    ] {
        let (code, _, err) = run(&server, &[&["task", "list"], options].concat());
        assert!(code == Some(2) && err.contains(problem), "{options:?}: {err}");
    }
    assert_eq!(run(&server, &["task", "get"]).0, Some(2));
}

#[test]
fn the_tasks_of_a_file_are_one_batch() {
    let server = Server::start(HANDLERS);
    let path = server.path("tasks.jsonl");
    let path = path.to_str().unwrap();
    let line = |number: usize| {
        let payload = json!({ "json": number });
        json!({"handler": "compute", "payload": payload, "priority": "PRIORITY_HIGH"}).to_string()
    };
    let lines: Vec<String> = (0..1_500).map(line).collect();
    let text = format!("{}\n\n{{\"handler\":\"fails\"}}", lines.join("\n"));
    std::fs::write(path, &text).unwrap();
    let (code, out, err) = run(&server, &["task", "submit", "--file", path, "--batch", "nightly", "--wait"]);
    assert_eq!((code, &*out, &*err), (Some(1), "1500 completed, 1 failed\n", "nightly\n"));
    let listed = stdout(
        &server,
        &["task", "list", "--batch", "nightly", "--state", "completed", "--priority", "high", "--all", "-q"],
    );
    assert_eq!(listed.lines().count(), 1_500);

    let exact = "{\"handler\":\"compute\",\"taskId\":\"exact\",\"payload\":{\"json\":{\"n\": 10, \"big\": 123456789012345678901}}}";
    let mut submit = command(&server, &["task", "submit", "--file", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    submit.stdin.take().unwrap().write_all(exact.as_bytes()).unwrap();
    assert!(submit.wait_with_output().unwrap().status.success());
    let shown = stdout(&server, &["task", "get", "exact", "-o", "json"]);
    assert!(shown.contains("123456789012345678901"), "{shown}");

    for (line, problem) in [
        ("{\"handler\":\"compute\"", "line 2: EOF"),
        ("{\"handle\":\"compute\"}", "line 2: unrecognized field name 'handle'"),
        ("{\"handler\":\"none\"}", "lines 1 to 2 were refused: tasks[0] is line 1"),
    ] {
        std::fs::write(path, format!("{{\"handler\":\"compute\",\"payload\":{{\"json\":1}}}}\n{line}\n")).unwrap();
        let (code, _, err) = run(&server, &["task", "submit", "--file", path]);
        assert!(code.is_some_and(|code| code > 1) && err.contains(problem), "{line}: {err}");
    }
    assert_eq!(run(&server, &["task", "submit", "io", "--file", path]).0, Some(2));
    // One task joins a batch that exists.
    assert_eq!(run(&server, &["task", "submit", "io", "--batch", "b"]).0, Some(3));
}

#[test]
fn only_a_batch_that_exists_can_be_waited_for() {
    let server = Server::start(HANDLERS);
    for batch in [&["nosuch"][..], &["nosuch", "--namespace", "team"], &["team/nosuch"]] {
        let (code, out, err) = run(&server, &[&["task", "wait", "--batch"], batch].concat());
        assert_eq!((code, &*out), (Some(3), ""), "{err}");
        assert!(err.contains("BATCH_NOT_FOUND"), "{err}");
    }
    stdout(&server, &["batch", "create", "--id", "empty", "--open"]);
    stdout(&server, &["task", "submit", "compute", "--json", "1", "--count", "2", "--batch", "done", "--wait"]);
    for batch in [&["empty"][..], &["done"], &["done", "--namespace", "default"], &["default/done"]] {
        assert_eq!(stdout(&server, &[&["task", "wait", "--batch"], batch].concat()), "0 completed\n");
    }
    assert_eq!(stdout(&server, &["task", "wait", "--namespace", "team"]), "0 completed\n", "it names no batch");
}

#[test]
fn copies_are_waited_for() {
    let server = Server::start(HANDLERS);
    let (code, out, _) = run(&server, &["task", "submit", "compute", "--json", "1", "--count", "2100", "--wait"]);
    assert_eq!((code, &*out), (Some(0), "2100 completed\n"));
    let (code, out, _) = run(&server, &["task", "submit", "fails", "--count", "2", "--wait", "-o", "json"]);
    let counts: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, counts), (Some(1), json!({"completed": 0, "failed": 2, "cancelled": 0, "unfinished": 0})));
}

#[test]
fn the_last_lines_of_an_output_are_printed_and_followed() {
    let server = Server::start(HANDLERS);
    stdout(&server, &["task", "run", "counts", "--id", "c", "--payload", "x\n"]);
    assert_eq!(stdout(&server, &["task", "logs", "c", "--tail", "2"]), "three\nfour\n");
    assert_eq!(stdout(&server, &["task", "output", "c", "--tail", "0", "--follow"]), "");
    assert_eq!(stdout(&server, &["task", "output", "c", "--tail", "9", "-f"]), "one\ntwo\nthree\nfour\n");
}
