//! `lineshaft map` and `lineshaft batch`.

use std::io::Write as _;
use std::process::{Child, Command, Output, Stdio};

use crate::support::{BINARY, Server, eventually_blocking};

const CONFIG: &str = r#"
[[pool]]
name = "default"
size = 4
[[pool]]
name = "naps"
kind = "async"
size = 100
[[handler]]
name = "shout"
runner = "process"
argv = ["/bin/sh", "-c", "read line; case $line in bad) exit 3;; esac; echo \"$line!\""]
retry = { attempts = 1 }
[[handler]]
name = "echo"
runner = "process"
argv = ["/bin/echo", "-n"]
arg_pattern = ".*"
[[handler]]
name = "nap"
runner = "builtin"
builtin = "io"
pool = "naps"
"#;

fn command(server: &Server, arguments: &[&str]) -> Command {
    #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
    let mut command = Command::new(BINARY);
    command.args(arguments).env("LINESHAFT_SERVER", &server.address);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn start(server: &Server, arguments: &[&str], input: &str) -> Child {
    let mut child = command(server, arguments).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child
}

fn run(server: &Server, arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = start(server, arguments, input).wait_with_output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn results_are_printed_in_the_order_of_the_lines() {
    let server = Server::start(CONFIG);
    // The first lines end last.
    let (code, out, err) = run(&server, &["map", "nap", "--json"], "0.4\n0.2\n0\n");
    let results: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((code, results.len()), (Some(0), 3), "{err}");
    let slept = |index: usize| results[index]["waited_seconds"].as_f64();
    assert!(slept(0) > slept(1) && slept(1) > slept(2), "{results:?}");
    let lines: Vec<String> = (1..=2_500).map(|n| n.to_string()).collect();
    let (code, out, err) = run(&server, &["map", "nap", "--json", "--unordered"], "0\n".repeat(2_500).as_str());
    let mut numbers: Vec<u32> = out.lines().map(|line| line.split_once('\t').unwrap().0.parse().unwrap()).collect();
    numbers.sort_unstable();
    let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    assert_eq!((code, numbers), (Some(0), lines), "{err}");
    let (code, out, err) = run(&server, &["map", "echo", "--args"], "a b\n-v\n");
    assert_eq!((code, out.as_str()), (Some(0), "a b\n-v\n"), "{err}");
    assert_eq!(run(&server, &["map", "nap"], ""), (Some(0), String::new(), String::new()));
}

#[test]
fn a_failed_line_is_reported_and_leaves_an_empty_line() {
    let server = Server::start(CONFIG);
    let (code, out, err) = run(&server, &["map", "shout"], "a\nbad\nc\n");
    assert_eq!((code, out.as_str()), (Some(1), "a!\n\nc!\n"), "{err}");
    assert!(err.contains("line 2: FAILED HANDLER_ERROR"), "{err}");
    let (code, _, err) = run(&server, &["map", "nap", "--json"], "1\n{\n");
    assert!(code == Some(2) && err.contains("line 2 is not JSON"), "{err}");
    let (code, _, err) = run(&server, &["map", "nosuch"], "1\n");
    assert!(code == Some(3) && err.contains("UNKNOWN_HANDLER"), "{err}");
}

#[test]
fn the_first_failure_ends_the_others_on_request() {
    let server = Server::start(CONFIG);
    let arguments = ["map", "nap", "--json", "--fail-fast", "--batch", "fast", "--attempts", "1"];
    let (code, _, err) = run(&server, &arguments, "3600\n\"bad\"\n3600\n");
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("line 2: FAILED") && err.contains("batch fast"), "{err}");
    let (code, out, err) = run(&server, &["batch", "wait", "fast", "-o", "json"], "");
    let batch: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &batch["counts"]["cancelled"], &batch["state"]),
        (Some(1), &"2".into(), &"BATCH_STATE_FINISHED".into()),
        "{err}"
    );
}

#[test]
fn an_interrupted_command_continues_where_it_ended() {
    let server = Server::start(CONFIG);
    let input = "0\n0\n1.5\n0\n";
    let mut child = start(&server, &["map", "nap", "--json", "--batch", "naps"], input);
    let pid = rustix::process::Pid::from_child(&child);
    // The first two results are printed: the pipe keeps them.
    eventually_blocking(|| {
        let (_, out, _) = run(&server, &["batch", "get", "naps", "-o", "json"], "");
        let done = out.contains("\"completed\":\"3\"");
        if done { Ok(()) } else { Err(format!("not done: {out}")) }
    });
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = child.wait().unwrap();
    let read = |pipe: &mut dyn std::io::Read| {
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        text
    };
    let (out, err) = (read(child.stdout.as_mut().unwrap()), read(child.stderr.as_mut().unwrap()));
    assert_eq!(status.code(), Some(6), "{err}");
    let printed = out.lines().count();
    let prefix = "to continue, with the same input: lineshaft ";
    let line = err.lines().find_map(|line| line.strip_prefix(prefix)).unwrap_or_else(|| panic!("{err}"));
    assert_eq!(line.contains("--after"), printed > 0, "{line}");
    let words: Vec<&str> = line.split(' ').collect();
    let (code, rest, err) = run(&server, &words, input);
    assert_eq!((code, printed + rest.lines().count()), (Some(0), 4), "{out}{rest}{err}");
    let (_, listed, _) = run(&server, &["task", "list", "--batch", "naps", "-o", "json"], "");
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["tasks"].as_array().unwrap().len(), 4, "no line was submitted twice");
}

#[test]
fn a_batch_is_created_filled_closed_and_deleted() {
    let server = Server::start(CONFIG);
    let call = |arguments: &[&str]| {
        let (code, out, err) = run(&server, arguments, "");
        assert_eq!(code, Some(0), "{arguments:?}: {err}");
        out.trim().to_owned()
    };
    assert_eq!(
        call(&["batch", "create", "--id", "b", "--open", "--name", "n", "--label", "a=1", "--completion", "echo"]),
        "b"
    );
    call(&["task", "submit", "echo", "--batch", "b", "--wait"]);
    call(&["task", "submit", "echo", "--batch", "b", "--count", "3"]);
    assert_eq!(run(&server, &["batch", "wait", "b", "--timeout", "10ms"], "").0, Some(6));
    call(&["batch", "close", "b"]);
    let waited = call(&["batch", "wait", "b"]);
    assert!(waited.contains("state") && waited.contains("FINISHED") && waited.contains("total"), "{waited}");
    let watched = call(&["batch", "watch", "b", "-o", "json"]);
    let last: serde_json::Value = serde_json::from_str(watched.lines().last().unwrap()).unwrap();
    assert_eq!(last["batch"]["total"], "4");
    for listing in [&["batch", "list"][..], &["batch", "list", "--state", "finished", "--label", "a=1"]] {
        assert!(call(listing).contains("\nb "), "{listing:?}");
    }
    assert!(!call(&["batch", "list", "--state", "open"]).contains("\nb "));
    let (code, _, err) = run(&server, &["batch", "cancel", "b"], "");
    assert!(code == Some(3) && err.contains("BATCH_FINISHED"), "{err}");
    assert_eq!(call(&["batch", "delete", "b"]), "4 tasks deleted");
    assert_eq!(run(&server, &["batch", "get", "b"], "").0, Some(3));
}
