//! What client commands print: the contract's JSON, the exact bytes of results, and nothing that a terminal obeys.

use std::process::{Command, Output};

use lineshaft::proto::v1;
use serde_json::Value;

use crate::http1_client::Connection;
use crate::support::{BINARY, Server, noop};

const BINARY_HANDLER: &str = r#"
[[handler]]
name = "paint"
description = "a\u001b[2J"
runner = "process"
argv = ["/bin/sh", "-c", "printf 'gr\\303\\274n \\033[31m\\377'; printf 'red\\033[0m' >&2"]
"#;

fn run(server: &Server, arguments: &[&str]) -> Output {
    #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
    let mut command = Command::new(BINARY);
    command.args(arguments).env("LINESHAFT_SERVER", &server.address).output().unwrap()
}

/// What a command writes to a terminal.
fn run_on_terminal(server: &Server, arguments: &str) -> Vec<u8> {
    #[expect(clippy::disallowed_methods, reason = "starts a tool of the system")]
    let mut command = Command::new("script");
    command.args(["-qec", &format!("{BINARY} {arguments} 2>/dev/null"), "/dev/null"]);
    command.env("LINESHAFT_SERVER", &server.address).output().unwrap().stdout
}

/// The answer to a JSON call.
pub fn call(server: &Server, method: &str, body: &str) -> Value {
    let request = format!(
        "POST /lineshaft.v1.{method} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    serde_json::from_slice(&Connection::open(server).send(request.as_bytes()).body).unwrap()
}

#[tokio::test]
async fn json_output_is_that_of_the_http_api() {
    let server = Server::start("");
    let exact = r#"{"n":10}"#;
    let id = server.submit(v1::SubmitTaskRequest { payload: Some(json_payload(exact)), ..noop() }).await;
    let finished = server.wait_finished(&id).await;
    for (arguments, method, body, field) in [
        (
            &["task", "get", &id][..],
            "TaskService/GetTask",
            &*format!("{{\"taskId\":\"{id}\",\"includePayload\":true,\"includeOutput\":true}}"),
            Some("task"),
        ),
        (&["task", "list"], "TaskService/ListTasks", "{\"pageSize\":50}", None),
        (&["pool", "get", "default"], "PoolService/GetPool", "{\"name\":\"default\"}", Some("pool")),
        (&["handler", "list"], "HandlerService/ListHandlers", "{}", None),
        (&["system", "info"], "SystemService/GetServerInfo", "{}", None),
    ] {
        let output = run(&server, &[arguments, &["-o", "json"]].concat());
        let mut printed: Value = serde_json::from_slice(&output.stdout).unwrap();
        let mut answer = call(&server, method, body);
        for json in [&mut printed, &mut answer] {
            // They differ from call to call: without authentication, a caller is named by its address.
            json.as_object_mut().unwrap().remove("uptime");
            if let Some(caller) = json.get_mut("caller") {
                caller["name"].take();
            }
        }
        assert_eq!(&printed, field.map_or(&answer, |field| &answer[field]), "{arguments:?}");
    }
    let output = run(&server, &["task", "run", "compute", "--json", "{\"n\":10}", "-o", "json"]);
    let task: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(task["result"]["json"]["value"], 45, "{task}");
    assert!(task["revision"].as_str().unwrap().parse::<u64>().unwrap() > finished.revision);
    let output = run(&server, &["task", "submit", "compute", "--json", "0", "--count", "2", "-o", "json"]);
    let batch: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(batch["taskIds"].as_array().unwrap().len(), 2);
}

fn json_payload(text: &str) -> v1::Payload {
    let kind = Some(v1::payload::Kind::Data(text.to_owned().into()));
    v1::Payload { kind, content_type: "application/json".to_owned() }
}

#[test]
fn results_and_output_keep_their_bytes_in_a_file_and_cannot_control_a_terminal() {
    let server = Server::start(BINARY_HANDLER);
    let output = run(&server, &["task", "run", "paint", "--id", "p"]);
    assert_eq!(output.stdout, b"gr\xc3\xbcn \x1b[31m\xff");
    assert_eq!(run(&server, &["task", "output", "p"]).stdout, b"gr\xc3\xbcn \x1b[31m\xff");
    assert_eq!(run(&server, &["task", "output", "p", "--stderr"]).stdout, b"red\x1b[0m");
    let shown = run_on_terminal(&server, "task run paint");
    assert_eq!(String::from_utf8_lossy(&shown), "grün \\u{1b}[31m\\xff\r\n");
    let shown = run_on_terminal(&server, "task output p");
    assert_eq!(String::from_utf8_lossy(&shown), "grün \\u{1b}[31m\\xff");
}

#[test]
fn a_task_is_printed_with_its_output_but_nothing_twice() {
    let server = Server::start(
        r#"
[[handler]]
name = "sh"
runner = "process"
argv = ["/bin/sh", "-c", "eval \"$1\"", "sh"]
arg_pattern = '(?s).*'
retry = { attempts = 1 }
"#,
    );
    let printed = |id: &str, script: &str| {
        run(&server, &["task", "submit", "sh", "--id", id, "--wait", "--arg", script]);
        let text = String::from_utf8(run(&server, &["task", "get", id]).stdout).unwrap();
        // The texts below the fields.
        text.split_inclusive('\n').skip_while(|line| line.contains("  ")).collect::<String>()
    };
    assert_eq!(printed("ok", "echo done; echo note >&2"), "result\n  done\nstderr\n  note\n");
    assert_eq!(printed("failed", "echo begun; echo lost >&2; exit 3"), "stdout\n  begun\nstderr\n  lost\n");
    assert_eq!(printed("silent", "exit 3"), "");
    let long = printed("long", "seq 99999; exit 3");
    assert!(long.starts_with("stdout\n  1\n  2\n") && long.ends_with("\n  99998\n  99999\n"), "{long}");
    let omitted: Vec<_> = long.lines().filter(|line| line.contains("bytes left out]")).collect();
    assert!(matches!(omitted[..], [line] if line.starts_with("  [5")), "{omitted:?}");
}

#[tokio::test]
async fn names_and_labels_cannot_control_a_terminal_or_forge_a_line() {
    let server = Server::start(BINARY_HANDLER);
    let evil = "\u{1b}[31m\nstate  FORGED\u{9b}2J".to_owned();
    let request = v1::SubmitTaskRequest {
        display_name: evil.clone(),
        labels: [("k".to_owned(), evil.clone())].into(),
        task_id: "evil".to_owned(),
        ..noop()
    };
    server.submit(request).await;
    let slow = v1::SubmitTaskRequest {
        handler: "io".to_owned(),
        payload: Some(json_payload("60")),
        task_id: "slow".to_owned(),
        ..v1::SubmitTaskRequest::default()
    };
    server.submit(slow).await;
    let request =
        v1::CancelTaskRequest { task_id: "slow".to_owned(), reason: evil, ..v1::CancelTaskRequest::default() };
    server.tasks().cancel_task(request).await.unwrap();
    server.wait_finished("slow").await;
    for arguments in [
        &["task", "get", "evil"][..],
        &["task", "get", "slow"],
        &["task", "list"],
        &["handler", "list"],
        &["handler", "get", "paint"],
        &["task", "submit", "no\u{1b}[31m\nstate  FORGED"],
        &["task", "get", "no\u{1b}[31m\nstate  FORGED"],
    ] {
        let output = run(&server, arguments);
        let printed = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(printed).unwrap();
        assert!(!text.contains('\u{1b}') && !text.contains('\u{9b}'), "{arguments:?}: {text:?}");
        assert!(!text.lines().any(|line| line.starts_with("state  FORGED")), "{arguments:?}: {text}");
    }
    let shown = String::from_utf8(run_on_terminal(&server, "task get evil -o json")).unwrap();
    assert!(!shown.contains('\u{9b}'), "{shown:?}");
    let json: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(json["displayName"], "\u{1b}[31m\nstate  FORGED\u{9b}2J", "the escapes are those of JSON");
    let output = run(&server, &["task", "get", "evil"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("\\u{1b}[31m\\nstate  FORGED\\u{9b}2J"), "{text}");
}
