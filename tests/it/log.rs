//! Where the server's log goes.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{BINARY, Mortal, PATIENCE, run};

/// A server whose standard output and standard error can be told apart; its address once it is ready.
fn serve(directory: &Path, format: &str) -> (Mortal, String) {
    let ready = directory.join("ready");
    #[expect(clippy::disallowed_methods, reason = "the server itself")]
    let child = Command::new(BINARY)
        .args(["serve", "--memory", "--listen", "127.0.0.1:0", "--ready-file"])
        .arg(&ready)
        .env("LINESHAFT_LOG__FORMAT", format)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let child = Mortal(child);
    let until = Instant::now() + PATIENCE;
    loop {
        if let Ok(address) = std::fs::read_to_string(&ready) {
            return (child, address.trim().to_owned());
        }
        assert!(Instant::now() < until, "the server is not ready");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What it said on standard output and standard error, when it has ended.
fn ended(mut server: Mortal) -> (String, String) {
    let child = &mut server.0;
    kill_process(Pid::from_child(child), Signal::TERM).unwrap();
    let (mut log, mut talk) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut log).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut talk).unwrap();
    assert!(child.wait().unwrap().success(), "{log}{talk}");
    (log, talk)
}

#[test]
fn what_a_server_says_is_one_json_object_a_line_on_standard_output_and_nothing_else_is_there() {
    let (directory, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (log, talk) = ended(serve(directory.path(), "auto").0);
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let says = |what: &str| lines.iter().filter(|line| line["message"] == what).count();
    assert_eq!((says("serving"), says("stopped"), talk.as_str()), (1, 1, ""), "{log}");
    let exported =
        |line: &&serde_json::Value| line["message"].as_str().unwrap().starts_with("no telemetry is exported");
    assert_eq!(lines.iter().filter(exported).count(), 1, "{log}");
    let (log, talk) = ended(serve(other.path(), "pretty").0);
    assert!(log.contains(" INFO ") && !log.contains('{') && talk.is_empty(), "{log}{talk}");
}

#[test]
fn a_server_whose_log_nobody_reads_any_more_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let (mut server, address) = serve(directory.path(), "json");
    drop((server.0.stdout.take(), server.0.stderr.take()));
    let url = format!("http://{address}");
    // It has something to say about each that fails.
    for _ in 0..3 {
        let (_, said) =
            run(BINARY, ["task", "run", "expression", "--json", "{\"expression\": \"1 +\"}", "--server", &url]);
        assert!(said.contains("FAILED") || said.contains("INVALID_PAYLOAD"), "{said}");
    }
    let (well, said) = run(BINARY, ["task", "run", "compute", "--json", "10", "--server", &url]);
    assert!(well && said.contains("45"), "{said}");
    kill_process(Pid::from_child(&server.0), Signal::TERM).unwrap();
    assert!(server.0.wait().unwrap().success());
}
