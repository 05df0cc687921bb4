//! `lineshaft top` on a terminal of 80 columns and 24 rows: keys in, screens out.

use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::cli::start_proxy;
use crate::support::{BINARY, Server, check, eventually, eventually_blocking};

/// A terminal that shows `lineshaft top`.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    fn start(server: &str, size: (u16, u16)) -> Self {
        let ((columns, rows), size) = (size, |cells: u16| NonZeroU16::new(cells).unwrap());
        #[expect(clippy::disallowed_methods, reason = "starts a tool of the system")]
        let mut command = Command::new("script");
        command.args([
            "-qefc",
            &format!("stty cols {columns} rows {rows}; exec {BINARY} top --interval 200ms"),
            "/dev/null",
        ]);
        command.env("LINESHAFT_SERVER", server).env("TERM", "xterm").env_remove("NO_COLOR");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(size(rows), size(columns), 0)));
        let (shown, mut output) = (screen.clone(), child.stdout.take().unwrap());
        let read = move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                shown.lock().unwrap().process(&bytes[..count]);
            }
        };
        std::thread::Builder::new().name("screen".to_owned()).spawn(read).unwrap();
        let keys = child.stdin.take().unwrap();
        Self { child, keys, screen }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    /// Waits until the screen has all these texts.
    fn shows(&self, texts: &[&str]) {
        eventually_blocking(|| {
            let text = self.text();
            check(texts.iter().all(|expected| text.contains(expected)), || format!("no {texts:?} in:\n{text}"))
        });
    }

    fn hides(&self, hidden: &str) {
        eventually_blocking(|| {
            let text = self.text();
            check(!text.contains(hidden), || format!("{hidden:?} in:\n{text}"))
        });
    }

    /// Quits, and returns the exit code.
    fn quit(mut self) -> Option<i32> {
        self.press("q");
        self.child.wait().unwrap().code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended. The terminal is then closed, which ends the program.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const HANDLERS: &str = r#"
[[handler]]
name = "fails"
runner = "process"
argv = ["/bin/sh", "-c", "exit 3"]
[handler.retry]
attempts = 1

[[handler]]
name = "speaks"
runner = "process"
argv = ["/bin/sh", "-c", "printf 'a line\\n\\033[31mred\\033[0m\\033[2J\\n'; sleep 600"]

[[pool]]
name = "default"
size = 2
"#;

fn run(server: &Server, arguments: &[&str]) -> String {
    #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
    let output = Command::new(BINARY).args(arguments).env("LINESHAFT_SERVER", &server.address).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn each_page_shows_its_part_of_the_server() {
    let server = Server::start(HANDLERS);
    run(&server, &["task", "run", "fails", "--id", "broken-1"]);
    run(&server, &["task", "run", "fails", "--id", "broken-2"]);
    run(&server, &["task", "submit", "speaks", "--id", "speaker", "--name", "my task"]);
    let mut top = Terminal::start(&server.address, (80, 24));
    top.shows(&["connected", "1 Overview", "busy 1 of 2", "failed     2", "finished", "default wait"]);
    top.press("2");
    top.shows(&["speaker", "RUNNING", "broken-1", "FAILED"]);
    top.press("3");
    top.shows(&["default/PoolWorker-0", "default/PoolWorker-1", "speaker"]);
    top.press("4");
    top.shows(&["POOL", "QUEUED", "1/2"]);
    top.press("5");
    top.shows(&["COUNT", "fails", "HANDLER_ERROR", "exited with code 3"]);
    top.press("?");
    top.shows(&["Keys", "cancel the task"]);
    top.press("?");
    top.press("2/fails\r");
    top.shows(&["filter: fails", "broken-2"]);
    top.hides("speaker");
    top.press("/");
    top.press(&"\u{7f}".repeat(5));
    top.press("state=completed\r");
    top.shows(&["no rows"]);
    top.press("\u{1b}");
    top.shows(&["speaker"]);
    assert_eq!(top.quit(), Some(0));
}

#[test]
fn a_task_is_followed_and_cancelled_after_a_confirmation() {
    let server = Server::start(HANDLERS);
    run(&server, &["task", "submit", "speaks", "--id", "speaker"]);
    let mut top = Terminal::start(&server.address, (80, 24));
    top.press("2");
    top.shows(&["speaker", "RUNNING"]);
    top.press("j");
    top.press("\r");
    top.shows(&["stdout: 2 lines", "a line", "red", "state"]);
    top.press("c");
    top.shows(&["Cancel task speaker?", "y yes"]);
    top.press("n");
    top.hides("Cancel task");
    assert!(run(&server, &["task", "get", "speaker"]).contains("RUNNING"));
    top.press("cf");
    top.shows(&["CANCELLED"]);
    top.press("o");
    top.shows(&["stderr: 0 lines"]);
    assert_eq!(top.quit(), Some(0));
}

#[test]
fn a_failed_task_is_submitted_again_after_a_confirmation() {
    let server = Server::start(HANDLERS);
    run(&server, &["task", "run", "fails", "--id", "broken"]);
    let mut top = Terminal::start(&server.address, (80, 24));
    top.press("2");
    top.shows(&["broken", "FAILED"]);
    top.press("jr");
    top.shows(&["Submit task broken again?"]);
    top.press("n");
    top.hides("Submit task");
    assert_eq!(run(&server, &["task", "list", "-q"]).lines().count(), 1);
    top.press("ry");
    top.shows(&["broken is submitted again as"]);
    assert_eq!(run(&server, &["task", "list", "-q"]).lines().count(), 2);
    assert_eq!(top.quit(), Some(0));
}

#[test]
fn a_pool_is_paused_and_resumed() {
    let server = Server::start(HANDLERS);
    let mut top = Terminal::start(&server.address, (80, 24));
    top.press("4");
    top.shows(&["default"]);
    top.press("jp");
    top.shows(&["Pause pool default?"]);
    top.press("y");
    top.shows(&["pool default is paused"]);
    assert!(run(&server, &["pool", "list"]).contains("paused"));
    top.shows(&["default  paused"]);
    top.press("p");
    top.shows(&["Resume pool default?"]);
    top.press("y");
    top.shows(&["pool default is active"]);
    assert_eq!(top.quit(), Some(0));
}

#[tokio::test]
async fn it_connects_again_after_a_restart_of_the_server() {
    let mut server = Server::start(HANDLERS);
    let target = Arc::new(Mutex::new(server.address.clone()));
    let proxy = start_proxy(&target);
    let top = Terminal::start(&proxy, (100, 30));
    top.shows(&["   connected"]);
    server.kill9();
    top.shows(&["not connected"]);
    server.start_again();
    target.lock().unwrap().clone_from(&server.address);
    top.shows(&["   connected"]);
    assert_eq!(top.quit(), Some(0));
}

#[test]
fn a_small_terminal_and_a_missing_server_are_reported() {
    let server = Server::start("");
    let top = Terminal::start(&server.address, (60, 20));
    top.shows(&["needs 80 columns and 24 rows"]);
    assert_eq!(top.quit(), Some(0));
    let mut top = Terminal::start("http://127.0.0.1:1", (80, 24));
    assert_eq!(top.child.wait().unwrap().code(), Some(4));
    top.shows(&["server unreachable", "lineshaft serve"]);
}

#[tokio::test]
async fn other_programs_get_a_sample_as_json_or_text() {
    let server = Server::start(HANDLERS);
    eventually(async || {
        let text = run(&server, &["top", "--once", "-o", "json", "--interval", "100ms"]);
        let sample: Value = serde_json::from_str(&text).unwrap();
        let pool = &sample["pools"][0];
        check(pool["pool"] == "default" && pool["workers"].as_array().is_some_and(|found| found.len() == 2), || text)
    })
    .await;
    let text = run(&server, &["top", "--once", "--interval", "100ms", "default"]);
    assert!(text.starts_with("POOL ") && text.contains("default/PoolWorker-0") && text.contains("CPU"), "{text}");
}
