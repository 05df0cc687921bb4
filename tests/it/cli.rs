//! The client commands: exit codes, output formats, reconnection and write errors.

use std::io::{BufRead, BufReader};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use lineshaft::proto::v1;

use crate::http1_client::Connection;
use crate::support::{BINARY, Server, TIMEOUT, check, eventually, noop};

fn run(server: &Server, arguments: &[&str]) -> (Option<i32>, String, String) {
    #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
    let output: Output =
        Command::new(BINARY).args(arguments).env("LINESHAFT_SERVER", &server.address).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn exit_codes_report_the_outcome_of_a_task() {
    let mut server = Server::start(
        "[[handler]]\nname = \"fails\"\nrunner = \"process\"\nargv = [\"/bin/false\"]\n[handler.retry]\nattempts = 1\n",
    );
    let (code, out, err) = run(&server, &["task", "run", "compute", "--json", "10"]);
    assert_eq!((code, out.as_str()), (Some(0), "{\"op\":\"sum\",\"n\":10,\"value\":45}"), "{err}");
    let (code, out, err) = run(&server, &["task", "run", "fails"]);
    assert_eq!((code, out.as_str(), err.matches("FAILED HANDLER_ERROR").count()), (Some(1), "", 1), "{err}");
    let (code, out, _) = run(&server, &["task", "run", "fails", "-o", "json"]);
    assert_eq!(code, Some(1));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap()["state"], "TASK_STATE_FAILED");
    let (code, _, err) = run(&server, &["task", "submit", "unknown"]);
    assert_eq!(code, Some(3));
    assert!(err.contains("reason: UNKNOWN_HANDLER"), "{err}");
    let (code, out, _) = run(&server, &["task", "submit", "io", "--json", "60", "--id", "long"]);
    assert_eq!((code, out.as_str()), (Some(0), "long\n"));
    assert_eq!(run(&server, &["task", "wait", "long", "--timeout", "50ms"]).0, Some(6));
    assert_eq!(run(&server, &["task", "cancel", "long"]).0, Some(0));
    assert_eq!(run(&server, &["task", "wait", "long"]).0, Some(5));
    assert_eq!(run(&server, &["task", "submit"]).0, Some(2));
    server.kill9();
    let (code, _, err) = run(&server, &["task", "list"]);
    assert_eq!(code, Some(4));
    assert!(err.contains("lineshaft serve"), "{err}");
}

#[test]
fn the_server_names_the_runners_that_it_is_built_with() {
    let server = Server::start("");
    let json = |arguments: &[&str]| serde_json::from_str::<serde_json::Value>(&run(&server, arguments).1).unwrap();
    let info = json(&["system", "info", "-o", "json"]);
    let capabilities = info["capabilities"].as_array().unwrap();
    let schema = json(&["config", "schema"]);
    let runners = schema["$defs"]["RunnerKind"]["oneOf"].as_array().unwrap();
    let named = runners.iter().map(|runner| format!("runner.{}", runner["const"].as_str().unwrap()));
    let missing: Vec<_> = named.filter(|name| !capabilities.contains(&name.as_str().into())).collect();
    assert!(runners.len() > 3 && missing.is_empty(), "{missing:?} of {schema}");
}

#[test]
fn every_command_prints_json_on_request() {
    let server = Server::start("");
    for arguments in [
        &["task", "submit", "compute", "--json", "0", "--wait"][..],
        &["task", "list"],
        &["pool", "list"],
        &["top", "--once", "--interval", "100ms"],
        &["handler", "list"],
        &["system", "info"],
        &["system", "health"],
    ] {
        let (code, out, err) = run(&server, &[arguments, &["-o", "json"]].concat());
        assert_eq!(code, Some(0), "{arguments:?}: {err}");
        let parsed: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert!(parsed.is_object(), "{arguments:?}: {out}");
        let (code, out, _) = run(&server, arguments);
        assert!(code == Some(0) && !out.is_empty(), "{arguments:?}");
    }
}

/// A TCP proxy whose target can be changed while it runs. Returns its address.
pub fn start_proxy(target: &Arc<Mutex<String>>) -> String {
    start_breakable_proxy(target, &Arc::default())
}

/// The open connections of a proxy.
pub type Connections = Arc<Mutex<Vec<TcpStream>>>;

/// Breaks the open connections of a proxy. It accepts new ones.
pub fn break_connections(connections: &Connections) {
    for connection in connections.lock().unwrap().drain(..) {
        // It may be broken already.
        let _ = connection.shutdown(Shutdown::Both);
    }
}

pub fn start_breakable_proxy(target: &Arc<Mutex<String>>, connections: &Connections) -> String {
    let connections = connections.clone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let target = target.clone();
    let forward = move |from: TcpStream, to: TcpStream| {
        let (mut from, mut to) = (from, to);
        let copy = move || {
            // A broken connection ends the copy.
            let _ = std::io::copy(&mut from, &mut to);
            let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        };
        std::thread::Builder::new().name("proxy".to_owned()).spawn(copy).unwrap();
    };
    let serve = move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let address = target.lock().unwrap().clone();
            // The server is not running: the client connection is closed.
            let Ok(server) = TcpStream::connect(address) else { continue };
            connections.lock().unwrap().push(client.try_clone().unwrap());
            forward(client.try_clone().unwrap(), server.try_clone().unwrap());
            forward(server, client);
        }
    };
    std::thread::Builder::new().name("proxy".to_owned()).spawn(serve).unwrap();
    address
}

fn has_watch(server: &Server) -> bool {
    let page = Connection::open(server).send(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let text = String::from_utf8(page.body).unwrap();
    text.lines().any(|line| line.starts_with("lineshaft_watch_subscriber_count") && !line.ends_with(" 0"))
}

#[tokio::test]
async fn a_watch_without_events_resumes_after_a_drain() {
    let mut server = Server::start("");
    let target = Arc::new(Mutex::new(server.address.clone()));
    #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
    let mut watch = Command::new(BINARY)
        .args(["task", "watch", "-o", "json", "--server", &start_proxy(&target)])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually(async || check(has_watch(&server), || "the watch is not open".to_owned())).await;
    server.system().drain(v1::DrainRequest::default()).await.unwrap();
    assert!(server.wait_exit().success());
    server.start_again();
    // Before the watch reconnects: only the revision in the drain error makes it receive this task.
    let id = server.submit(noop()).await;
    server.wait_finished(&id).await;
    target.lock().unwrap().clone_from(&server.address);
    let (sender, lines) = std::sync::mpsc::channel();
    let output = BufReader::new(watch.stdout.take().unwrap());
    let read = move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line));
    std::thread::Builder::new().name("output".to_owned()).spawn(read).unwrap();
    let events = (0..3).map(|_| lines.recv_timeout(TIMEOUT).expect("the watch resumes"));
    let events = events.map(|line| serde_json::from_str::<serde_json::Value>(&line).unwrap());
    let events: Vec<_> = events.map(|event| (event["taskId"].clone(), event["revision"].clone())).collect();
    watch.kill().unwrap();
    watch.wait().unwrap();
    let expected = [1, 2, 3].map(|revision| (id.clone().into(), revision.to_string().into()));
    assert_eq!(events, expected);
}

/// Runs a command with the given stdout. Returns its exit code and its stderr.
fn run_into(address: &str, arguments: &[&str], stdout: impl Into<Stdio>) -> (Option<i32>, String) {
    #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
    let mut command = Command::new(BINARY);
    let output = command.args(arguments).env("LINESHAFT_SERVER", address).stdout(stdout).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// A pipe without a reader.
fn closed_pipe() -> std::io::PipeWriter {
    std::io::pipe().unwrap().1
}

/// A file whose writes fail with ENOSPC.
fn full_disk() -> std::fs::File {
    std::fs::File::options().write(true).open("/dev/full").unwrap()
}

#[test]
fn a_closed_pipe_ends_a_command_silently_and_a_full_disk_is_an_error() {
    let server = Server::start("");
    let address = &*server.address;
    assert_eq!(run(&server, &["task", "run", "compute", "--json", "10", "--id", "one"]).0, Some(0));
    let (tokens, data) = (server.path("tokens.toml"), server.path("data"));
    let (tokens, data) = (tokens.to_str().unwrap(), data.to_str().unwrap());
    let create = ["token", "create", "ci", "--role", "viewer", "--namespace", "*", "--file", tokens];
    assert_eq!(run(&server, &create).0, Some(0));
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["completion", "bash"],
        &["config", "dump"],
        &["config", "schema"],
        &["store", "check", data],
        &["store", "check", data, "-o", "json"],
        &["token", "list", "--file", tokens],
        &["task", "run", "compute", "--json", "10"],
        &["task", "submit", "compute", "--json", "0", "--count", "3000"],
        &["task", "list"],
        &["task", "get", "one"],
        &["task", "wait", "one"],
        // This command only ends because of the write error.
        &["task", "watch", "--snapshot"],
        &["pool", "list"],
        &["top", "--interval", "100ms"],
        &["context", "list"],
        &["handler", "list"],
        &["system", "info"],
    ] {
        let (code, err) = run_into(address, arguments, closed_pipe());
        let silent = !err.contains("error") && !err.contains("panicked");
        assert!(code == Some(0) && silent, "{arguments:?}: {code:?} {err}");
        let (code, err) = run_into(address, arguments, full_disk());
        let reported = err.contains("error: failed to write to stdout: No space left on device");
        assert!(code == Some(1) && reported, "{arguments:?}: {code:?} {err}");
    }
}

#[test]
fn bench_ignores_a_closed_pipe_and_reports_a_full_disk() {
    let bench = ["bench", "--quick", "--scenario", "cancel", "--seconds", "0.1"];
    let (code, err) = run_into("", &bench, closed_pipe());
    assert!(code == Some(0) && !err.contains("panicked"), "{err}");
    let (code, err) = run_into("", &bench, full_disk());
    assert!(code == Some(1) && err.contains("error: failed to write to stdout"), "{err}");
}

#[test]
fn an_attempt_that_a_task_has_not_had_is_an_error() {
    let server = Server::start("");
    assert_eq!(run(&server, &["task", "submit", "compute", "--json", "1", "--id", "once", "--wait"]).0, Some(0));
    for follow in [&[][..], &["--follow"]] {
        let (code, out, err) = run(&server, &[&["task", "output", "once", "--attempt", "7"], follow].concat());
        assert_eq!((code, &*out), (Some(3), ""), "{err}");
        let problem = "`attempt` is 7, but the task is at attempt 1; 0 is the latest";
        assert!(err.starts_with(&format!("error: {problem}\n")), "{err}");
        assert_eq!(err.matches("is at attempt 1").count(), 1, "{err}");
        assert_eq!(run(&server, &[&["task", "output", "once", "--attempt", "1"], follow].concat()).0, Some(0));
    }
}

#[test]
fn copies_with_large_payloads_are_sent_in_batches_that_fit() {
    let server = Server::start("");
    let payload = server.path("payload");
    std::fs::write(&payload, vec![b'1'; 100_000]).unwrap();
    let payload = format!("@{}", payload.display());
    let submit = ["task", "submit", "compute", "--payload", &payload, "--count", "400", "--delay", "1h", "-o", "json"];
    let (code, out, err) = run(&server, &submit);
    assert_eq!((code, out.lines().count()), (Some(0), 3), "{out} {err}");
    let batches: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(batches.iter().all(|batch| batch["batchId"] == batches[0]["batchId"]), "{out}");
}

#[test]
fn a_limit_is_shown_with_the_unit_of_the_value() {
    let server = Server::start("");
    let (code, _, err) = run(&server, &["task", "submit", "io", "--timeout", "500h"]);
    assert!(code == Some(3) && err.contains("`timeout` is 500h, must be from 1ms to 24h"), "{err}");
}

#[test]
fn a_drain_over_the_api_is_logged() {
    let mut server = Server::start("");
    assert_eq!(run(&server, &["system", "drain"]).0, Some(0));
    assert!(server.wait_exit().success());
    assert!(server.log().contains("draining; requested over the API"), "{}", server.log());
}
