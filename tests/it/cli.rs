//! The command line, as a script uses it.

use std::io::{BufRead, BufReader};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use lineshaft::proto::v1;

use crate::raw::Connection;
use crate::support::{BINARY, PATIENCE, Server, noop};

fn run(server: &Server, arguments: &[&str]) -> (Option<i32>, String, String) {
    #[expect(clippy::disallowed_methods, reason = "the command line itself")]
    let output: Output =
        Command::new(BINARY).args(arguments).env("LINESHAFT_SERVER", &server.address).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_script_learns_from_exit_codes_what_became_of_a_task() {
    let mut server = Server::start(
        "[[handler]]\nname = \"fails\"\nrunner = \"process\"\nargv = [\"/bin/false\"]\n[handler.retry]\nattempts = 1\n",
    );
    let (code, out, talk) = run(&server, &["task", "run", "compute", "--json", "10"]);
    assert_eq!((code, out.as_str()), (Some(0), "{\"op\":\"sum\",\"n\":10,\"value\":45}\n"), "{talk}");
    assert_eq!(run(&server, &["task", "run", "fails"]).0, Some(1));
    let (code, _, said) = run(&server, &["task", "submit", "nobody"]);
    assert_eq!(code, Some(3));
    assert!(said.contains("reason: UNKNOWN_HANDLER"), "{said}");
    let (code, out, _) = run(&server, &["task", "submit", "io", "--json", "60", "--id", "long"]);
    assert_eq!((code, out.as_str()), (Some(0), "long\n"));
    assert_eq!(run(&server, &["task", "wait", "long", "--timeout", "50ms"]).0, Some(6));
    assert_eq!(run(&server, &["task", "cancel", "long"]).0, Some(0));
    assert_eq!(run(&server, &["task", "wait", "long"]).0, Some(5));
    assert_eq!(run(&server, &["task", "submit"]).0, Some(2));
    server.kill9();
    let (code, _, said) = run(&server, &["task", "list"]);
    assert_eq!(code, Some(4));
    assert!(said.contains("lineshaft serve"), "{said}");
}

#[test]
fn answers_are_json_where_that_is_wanted() {
    let server = Server::start("");
    for arguments in [
        &["task", "submit", "compute", "--json", "0", "--wait"][..],
        &["task", "list"],
        &["pool", "list"],
        &["pool", "top", "--once", "--workers"],
        &["handler", "list"],
        &["system", "info"],
        &["system", "health"],
    ] {
        let (code, out, said) = run(&server, &[arguments, &["-o", "json"]].concat());
        assert_eq!(code, Some(0), "{arguments:?}: {said}");
        let parsed: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert!(parsed.is_object(), "{arguments:?}: {out}");
        let (code, out, _) = run(&server, arguments);
        assert!(code == Some(0) && !out.is_empty(), "{arguments:?}");
    }
}

/// An address that stays while servers come and go: what it leads to can be changed.
fn entrance(target: &Arc<Mutex<String>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let target = target.clone();
    let forward = move |from: TcpStream, to: TcpStream| {
        let (mut from, mut to) = (from, to);
        let copy = move || {
            // Either side may break off.
            let _ = std::io::copy(&mut from, &mut to);
            let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        };
        std::thread::Builder::new().name("entrance".to_owned()).spawn(copy).unwrap();
    };
    let serve = move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let address = target.lock().unwrap().clone();
            // Nobody there: the client is hung up on.
            let Ok(server) = TcpStream::connect(address) else { continue };
            forward(client.try_clone().unwrap(), server.try_clone().unwrap());
            forward(server, client);
        }
    };
    std::thread::Builder::new().name("entrance".to_owned()).spawn(serve).unwrap();
    address
}

fn watches(server: &Server) -> bool {
    let page = Connection::open(server).send(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let text = String::from_utf8(page.body).unwrap();
    text.lines().any(|line| line.starts_with("lineshaft_watch_subscriber_count") && !line.ends_with(" 0"))
}

#[tokio::test]
async fn a_watch_that_has_seen_nothing_yet_goes_on_after_a_drain() {
    let mut server = Server::start("");
    let target = Arc::new(Mutex::new(server.address.clone()));
    #[expect(clippy::disallowed_methods, reason = "the command line itself")]
    let mut watch = Command::new(BINARY)
        .args(["task", "watch", "-o", "json", "--server", &entrance(&target)])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = std::time::Instant::now();
    while !watches(&server) {
        assert!(begun.elapsed() < PATIENCE, "the watch is not open");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    server.system().drain(v1::DrainRequest::default()).await.unwrap();
    assert!(server.wait_exit().success());
    server.start_again();
    // Before the watch is back: only the revision of the drain leads to it.
    let id = server.submit(noop()).await;
    server.ended(&id).await;
    target.lock().unwrap().clone_from(&server.address);
    let (sender, lines) = std::sync::mpsc::channel();
    let output = BufReader::new(watch.stdout.take().unwrap());
    let read = move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line));
    std::thread::Builder::new().name("output".to_owned()).spawn(read).unwrap();
    let events = (0..3).map(|_| lines.recv_timeout(PATIENCE).expect("the watch goes on"));
    let events = events.map(|line| serde_json::from_str::<serde_json::Value>(&line).unwrap());
    let events: Vec<_> = events.map(|event| (event["taskId"].clone(), event["revision"].clone())).collect();
    watch.kill().unwrap();
    watch.wait().unwrap();
    let expected = [1, 2, 3].map(|revision| (id.clone().into(), revision.into()));
    assert_eq!(events, expected);
}

/// A command whose standard output goes there, and what it said on standard error.
fn run_into(address: &str, arguments: &[&str], out: impl Into<Stdio>) -> (Option<i32>, String) {
    #[expect(clippy::disallowed_methods, reason = "the command line itself")]
    let mut command = Command::new(BINARY);
    let output = command.args(arguments).env("LINESHAFT_SERVER", address).stdout(out).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// A pipe that nobody reads.
fn closed() -> std::io::PipeWriter {
    std::io::pipe().unwrap().1
}

/// A disk that is full.
fn full() -> std::fs::File {
    std::fs::File::options().write(true).open("/dev/full").unwrap()
}

#[test]
fn a_reader_that_has_gone_ends_a_command_quietly_and_a_full_disk_is_an_error() {
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
        // It would go on for ever.
        &["task", "watch", "--snapshot"],
        &["pool", "list"],
        &["pool", "top"],
        &["handler", "list"],
        &["system", "info"],
    ] {
        let (code, said) = run_into(address, arguments, closed());
        assert!(
            code == Some(0) && !said.contains("error") && !said.contains("panicked"),
            "{arguments:?}: {code:?} {said}"
        );
        let (code, said) = run_into(address, arguments, full());
        let told = said.contains("error: standard output cannot be written: No space left on device");
        assert!(code == Some(1) && told, "{arguments:?}: {code:?} {said}");
    }
}

#[test]
fn a_verdict_is_reached_although_nobody_reads_on_and_not_kept_back_when_the_disk_is_full() {
    let bench = ["bench", "--quick", "--scenario", "cancel", "--seconds", "0.1"];
    let (code, said) = run_into("", &bench, closed());
    assert!(code == Some(0) && !said.contains("panicked"), "{said}");
    let (code, said) = run_into("", &bench, full());
    assert!(code == Some(1) && said.contains("error: standard output cannot be written"), "{said}");
}
