//! The server's log on stdout.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{BINARY, KillOnDrop, eventually_blocking, run};

/// Starts a server with separate pipes for stdout and stderr. Returns its address when it is ready.
fn serve(directory: &Path, format: &str) -> (KillOnDrop, String) {
    let ready = directory.join("ready");
    #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
    let child = Command::new(BINARY)
        .args(["serve", "--memory", "--listen", "127.0.0.1:0", "--ready-file"])
        .arg(&ready)
        .env("LINESHAFT_LOG__FORMAT", format)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let child = KillOnDrop(child);
    let address = eventually_blocking(|| {
        std::fs::read_to_string(&ready).map_err(|error| format!("the server is not ready: {error}"))
    });
    (child, address.trim().to_owned())
}

/// Stops the server and returns its stdout and stderr.
fn stop(mut server: KillOnDrop) -> (String, String) {
    let child = &mut server.0;
    kill_process(Pid::from_child(child), Signal::TERM).unwrap();
    let (mut log, mut err) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut log).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert!(child.wait().unwrap().success(), "{log}{err}");
    (log, err)
}

#[test]
fn the_log_is_one_json_object_per_line_on_stdout() {
    let (directory, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (log, err) = stop(serve(directory.path(), "auto").0);
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let count = |what: &str| lines.iter().filter(|line| line["message"] == what).count();
    assert_eq!((count("serving"), count("stopped"), err.as_str()), (1, 1, ""), "{log}");
    let exported =
        |line: &&serde_json::Value| line["message"].as_str().unwrap().starts_with("no telemetry is exported");
    assert_eq!(lines.iter().filter(exported).count(), 1, "{log}");
    let (log, err) = stop(serve(other.path(), "pretty").0);
    assert!(log.contains(" INFO ") && !log.contains('{') && err.is_empty(), "{log}{err}");
}

#[test]
fn a_server_continues_when_its_log_pipe_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let (mut server, address) = serve(directory.path(), "json");
    drop((server.0.stdout.take(), server.0.stderr.take()));
    let url = format!("http://{address}");
    // The server writes a log line for each failed task.
    for _ in 0..3 {
        let (_, output) =
            run(BINARY, ["task", "run", "expression", "--json", "{\"expression\": \"1 +\"}", "--server", &url]);
        assert!(output.contains("FAILED") || output.contains("INVALID_PAYLOAD"), "{output}");
    }
    let (succeeded, output) = run(BINARY, ["task", "run", "compute", "--json", "10", "--server", &url]);
    assert!(succeeded && output.contains("45"), "{output}");
    kill_process(Pid::from_child(&server.0), Signal::TERM).unwrap();
    assert!(server.0.wait().unwrap().success());
}
