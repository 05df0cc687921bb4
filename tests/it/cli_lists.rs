//! Lists of the client commands: for people on a terminal, and for other programs.

use std::process::{Command, Output};

use crate::support::{BINARY, Server, check, eventually_blocking};

const FAILS: &str = r#"
[[handler]]
name = "fails"
runner = "process"
argv = ["/bin/sh", "-c", "echo no such table >&2; exit 3"]
[handler.retry]
attempts = 1
"#;

fn run(server: &Server, arguments: &[&str]) -> Output {
    #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
    let mut command = Command::new(BINARY);
    command.args(arguments).env("LINESHAFT_SERVER", &server.address).output().unwrap()
}

/// What a successful command prints.
fn stdout(server: &Server, arguments: &[&str]) -> String {
    let output = run(server, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a command writes to a terminal with this many columns.
fn on_terminal(server: &Server, arguments: &str, columns: u16, variables: &[(&str, &str)]) -> String {
    #[expect(clippy::disallowed_methods, reason = "starts a tool of the system")]
    let mut command = Command::new("script");
    command.args(["-qec", &format!("stty rows 24 cols {columns}; {BINARY} {arguments}"), "/dev/null"]);
    command.env("LINESHAFT_SERVER", &server.address).env("TERM", "xterm").env_remove("NO_COLOR");
    let output = command.envs(variables.iter().copied()).output().unwrap();
    String::from_utf8(output.stdout).unwrap().replace('\r', "")
}

/// A server with a completed task `sum`, named `first one`, and a failed task `broken`.
fn server_with_tasks() -> Server {
    let server = Server::start(FAILS);
    let sum = ["task", "run", "compute", "--json", "10", "--id", "sum", "--name", "first one", "--label", "team=red"];
    stdout(&server, &sum);
    assert_eq!(run(&server, &["task", "run", "fails", "--id", "broken", "--priority", "high"]).status.code(), Some(1));
    server
}

#[test]
fn other_programs_get_all_columns_and_absolute_times() {
    let server = server_with_tasks();
    let text = stdout(&server, &["task", "ls"]);
    let lines: Vec<_> = text.lines().collect();
    let headings =
        ["ID", "STATE", "HANDLER", "NAME", "PRIORITY", "POOL", "ATTEMPT", "AGE", "SUBMITTED", "RUN TIME", "FAILURE"];
    assert_eq!(lines[0].split("  ").map(str::trim).filter(|word| !word.is_empty()).collect::<Vec<_>>(), headings);
    assert!(lines[1].starts_with("broken  FAILED") && lines[1].contains("HANDLER_ERROR"), "{text}");
    assert!(lines[2].contains("first one") && lines[2].contains('Z') && !text.contains(" ago"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
    let relative = stdout(&server, &["task", "list", "--time", "relative"]);
    assert!(relative.contains(" ago") || relative.contains("now"), "{relative}");
}

#[test]
fn a_terminal_gets_the_columns_that_fit_relative_times_and_colours() {
    let server = server_with_tasks();
    let text = on_terminal(&server, "task list", 60, &[]);
    assert!(text.contains("\u{1b}[31mFAILED\u{1b}[0m") && text.contains("\u{1b}[32mCOMPLETED\u{1b}[0m"), "{text:?}");
    let plain = on_terminal(&server, "task list", 60, &[("NO_COLOR", "1")]);
    assert!(!plain.contains('\u{1b}'), "{plain:?}");
    assert!(plain.lines().all(|line| line.chars().count() <= 60), "{plain}");
    assert!(plain.contains("FAILURE") && plain.contains("AGE") && !plain.contains("ATTEMPT"), "{plain}");
    let wide = on_terminal(&server, "task list --wide", 60, &[]);
    assert!(wide.contains("ATTEMPT") && (wide.contains(" ago") || wide.contains("now")), "{wide}");
    let utc = on_terminal(&server, "task list --wide --time utc", 60, &[]);
    assert!(utc.contains('Z'), "{utc}");
    let local = on_terminal(&server, "task list --wide --time local", 60, &[("TZ", "Asia/Tokyo")]);
    assert!(local.contains("+09:00"), "{local}");
}

#[test]
fn a_preview_has_the_times_of_the_zone_and_the_time_until_then() {
    let server = Server::start("");
    let rule = ["--cron", "30 12 * * *", "--time-zone", "Asia/Tokyo"];
    stdout(&server, &[&["schedule", "create", "noon", "compute", "--json", "1"][..], &rule].concat());
    for what in [&["noon"][..], &rule] {
        let text = stdout(&server, &[&["schedule", "preview", "-n", "2"], what].concat());
        assert_eq!(text.matches("T12:30:00+09:00  in ").count(), 2, "{text}");
    }
}

#[test]
fn a_task_is_shown_with_its_timeout_and_its_expiry() {
    let server = Server::start("");
    let submit = ["task", "submit", "io", "--json", "1", "--id", "t", "--delay", "1h", "--timeout", "7s"];
    stdout(&server, &[&submit[..], &["--expires-after", "2h"]].concat());
    let text = stdout(&server, &["task", "get", "t", "--time", "relative"]);
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).trim()
    };
    assert_eq!(value("timeout"), "7s");
    assert!(value("expires").starts_with("in "), "{text}");
}

#[test]
fn scripts_choose_columns_rows_and_their_order() {
    let server = server_with_tasks();
    assert_eq!(stdout(&server, &["task", "list", "-q"]), "broken\nsum\n");
    assert_eq!(stdout(&server, &["task", "list", "-q", "--sort=-id"]), "sum\nbroken\n");
    let columns = ["task", "list", "--columns", "state,id", "--no-headers", "--sort", "state"];
    assert_eq!(stdout(&server, &columns), "COMPLETED  sum\nFAILED     broken\n");
    assert_eq!(stdout(&server, &["task", "list", "-q", "-n", "1"]), "broken\n");
    assert_eq!(stdout(&server, &["task", "list", "-q", "--since", "1h", "--handler", "compute"]), "sum\n");
    assert_eq!(stdout(&server, &["task", "list", "-q", "--until", "1h"]), "");
    assert_eq!(stdout(&server, &["task", "list", "-q", "sum"]), "sum\n");
    assert_eq!(stdout(&server, &["handler", "list", "-q", "--sort", "-name"]).lines().last(), Some("compute"));
    let sorted = stdout(&server, &["task", "list", "--sort", "id", "-o", "json"]);
    let sorted: serde_json::Value = serde_json::from_str(&sorted).unwrap();
    assert_eq!(sorted["tasks"][1]["taskId"], "sum");
    for (arguments, expected) in [
        (&["task", "list", "--columns", "since"][..], "there is no column \"since\"; columns: id, state, handler,"),
        (&["task", "list", "--sort", "since"], "--sort: there is no column"),
        (&["task", "list", "--since", "yesterday"], "must be a duration before now"),
        (&["task", "list", "--watch"], "lineshaft task watch"),
    ] {
        let output = run(&server, arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && error.contains(expected), "{arguments:?}: {error}");
    }
}

#[test]
fn a_list_of_pools_shows_what_they_do() {
    let server = Server::start("[[pool]]\nname = \"default\"\nsize = 2\n");
    for id in ["a", "b", "c"] {
        stdout(&server, &["task", "submit", "io", "--json", "600", "--id", id]);
    }
    let arguments = ["pool", "list", "--columns", "name,busy,queued", "--no-headers"];
    eventually_blocking(|| {
        let text = stdout(&server, &arguments);
        check(text == "default  2/2  1\n", || text)
    });
    let paused = stdout(&server, &["pool", "update", "default", "--pause"]);
    assert!(paused.lines().any(|line| line.starts_with("state ") && line.ends_with(" paused")), "{paused}");
}
