//! Client commands whose server stops, hangs or is replaced.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use lineshaft::proto::v1;

use crate::cli::{break_connections, start_breakable_proxy, start_proxy};
use crate::support::{BINARY, KillOnDrop, Server, check, children, eventually_blocking, noop};

fn start(server: &str, arguments: &[&str]) -> Child {
    #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
    let mut command = Command::new(BINARY);
    command.args(arguments).env("LINESHAFT_SERVER", server).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[tokio::test]
async fn a_run_brings_its_result_across_a_restart_of_the_server() {
    let mut server = Server::start("");
    let target = Arc::new(Mutex::new(server.address.clone()));
    server.set_paused("default", true).await;
    let mut run = start(&start_proxy(&target), &["task", "run", "compute", "--json", "10", "--id", "run"]);
    let mut line = String::new();
    let mut messages = BufReader::new(run.stderr.take().unwrap());
    messages.read_line(&mut line).unwrap();
    assert_eq!(line, "run accepted\n");
    server.kill9();
    server.start_again();
    target.lock().unwrap().clone_from(&server.address);
    server.set_paused("default", false).await;
    let output = run.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!((output.status.code(), &*text), (Some(0), r#"{"op":"sum","n":10,"value":45}"#), "{output:?}");
}

/// A task prints lines as the test asks for them: it waits for a file before each one.
const LINES: &str = r#"
[[handler]]
name = "lines"
runner = "process"
argv = ["/bin/sh", "-c", "for line in a b; do until [ -e $1-$line ]; do sleep 0.01; done; echo $LINESHAFT_ATTEMPT$line; done", "sh"]
arg_pattern = "(?s).*"
"#;

#[tokio::test]
async fn output_is_followed_across_a_broken_connection_and_a_restart_of_the_server() {
    let mut server = Server::start(LINES);
    let target = Arc::new(Mutex::new(server.address.clone()));
    let connections = Arc::default();
    let proxy = start_breakable_proxy(&target, &connections);
    let file = server.path("go").to_str().unwrap().to_owned();
    let allow = |line: &str| std::fs::write(format!("{file}-{line}"), "").unwrap();
    let task =
        v1::SubmitTaskRequest { task_id: "t".into(), handler: "lines".into(), args: vec![file.clone()], ..noop() };
    server.submit(task).await;
    let mut follow = start(&proxy, &["task", "output", "t", "--follow"]);
    let mut output = BufReader::new(follow.stdout.take().unwrap());
    let mut next = || {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        line
    };
    allow("a");
    assert_eq!(next(), "1a\n");
    // The attempt goes on meanwhile.
    break_connections(&connections);
    allow("b");
    assert_eq!(next(), "1b\n", "each byte once");
    server.wait_finished("t").await;
    assert_eq!(next(), "", "the end");
    assert_eq!(follow.wait().unwrap().code(), Some(0));

    std::fs::remove_file(format!("{file}-b")).unwrap();
    let task =
        v1::SubmitTaskRequest { task_id: "u".into(), handler: "lines".into(), args: vec![file.clone()], ..noop() };
    server.submit(task).await;
    let mut follow = start(&proxy, &["task", "output", "u", "--follow"]);
    let mut output = BufReader::new(follow.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    server.kill9();
    server.start_again();
    target.lock().unwrap().clone_from(&server.address);
    allow("b");
    output.read_to_string(&mut line).unwrap();
    // The attempt was interrupted, and starts again.
    assert_eq!((&*line, follow.wait().unwrap().code()), ("1a\n1a\n1b\n", Some(0)));
}

#[test]
fn commands_end_when_the_server_hangs() {
    let server = Server::start("");
    server.signal(rustix::process::Signal::STOP);
    let commands = [&["task", "list"][..], &["task", "wait", "x"], &["top"], &["task", "watch"]];
    let started = commands.map(|arguments| (arguments, start(&server.address, arguments)));
    for (arguments, mut command) in started {
        let status = eventually_blocking(|| {
            let ended = command.try_wait().unwrap();
            ended.ok_or_else(|| format!("{arguments:?} waits for a stopped server"))
        });
        assert_eq!(status.code(), Some(4), "{arguments:?}: {:?}", command.wait_with_output());
    }
    server.signal(rustix::process::Signal::CONT);
}

#[test]
fn bench_and_demo_take_their_server_with_them() {
    for (arguments, signal) in [
        (&["bench", "--scenario", "end-to-end", "--seconds", "3600"][..], rustix::process::Signal::TERM),
        (&["bench", "--scenario", "end-to-end", "--seconds", "3600"], rustix::process::Signal::KILL),
        (&["demo"], rustix::process::Signal::TERM),
        (&["demo"], rustix::process::Signal::HUP),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let directory = ["--directory", scratch.path().to_str().unwrap()];
        let mut parent = KillOnDrop(start("", &[arguments, &directory].concat()));
        let server = eventually_blocking(|| {
            let found = children(parent.0.id());
            found.first().map(|(pid, _)| *pid).ok_or_else(|| format!("no server yet: {:?}", parent.0.try_wait()))
        });
        rustix::process::kill_process(rustix::process::Pid::from_child(&parent.0), signal).unwrap();
        parent.0.wait().unwrap();
        eventually_blocking(|| {
            let state = std::fs::read_to_string(format!("/proc/{server}/stat")).unwrap_or_default();
            check(state.is_empty() || state.contains(") Z"), || format!("{arguments:?} {signal:?} left {state}"))
        });
        if signal != rustix::process::Signal::KILL {
            assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "{arguments:?} left files");
        }
    }
}
