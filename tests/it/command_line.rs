//! Unusual arguments, environments and files: the answer is an error, never a panic.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::BINARY;

/// Runs the binary in `directory`.
fn run<S: AsRef<OsStr>>(directory: &Path, arguments: &[S], environment: &[(OsString, OsString)]) -> Output {
    #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
    let mut command = Command::new(BINARY);
    command.args(arguments).current_dir(directory).env("LINESHAFT_SERVER__LISTEN", "127.0.0.1:0");
    command.envs(environment.iter().map(|(name, value)| (name, value))).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn not_utf8() -> OsString {
    OsStr::from_bytes(b"\xff").to_owned()
}

/// Commands that read the environment, except `serve`, which does not end by itself.
const READERS: [&[&str]; 4] =
    [&["config", "dump"], &["doctor"], &["store", "backup", "--to", "copy"], &["serve", "--ready-file", "no/file"]];

#[test]
fn an_environment_that_is_not_utf8_is_no_panic() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in READERS {
        for (name, value) in [("LS_COLORS".into(), not_utf8()), (not_utf8(), "1".into())] {
            let output = run(directory.path(), arguments, &[(name, value)]);
            let ended = output.status.code().is_some_and(|code| code < 2);
            assert!(ended && !stderr(&output).contains("panicked"), "{arguments:?}: {output:?}");
        }
        let setting = ("LINESHAFT_LOG__FILTER".into(), not_utf8());
        let output = run(directory.path(), arguments, &[setting]);
        let printed = format!("{}{}", stderr(&output), String::from_utf8_lossy(&output.stdout));
        assert!(printed.contains("LINESHAFT_LOG__FILTER: log.filter: must be valid UTF-8"), "{arguments:?}: {printed}");
    }
}

#[test]
fn durations_of_thousands_of_years_are_no_panic() {
    let directory = tempfile::tempdir().unwrap();
    let create = ["token", "create", "ci", "--role", "viewer", "--namespace", "*", "--expires"];
    let output = run(directory.path(), &[&create[..], &["7900y"]].concat(), &[]);
    assert!(output.status.success(), "{output:?}");
    for years in ["9000y", "584542000000y"] {
        let output = run(directory.path(), &[&create[..], &[years]].concat(), &[]);
        let expected =
            "error: --expires must end before the year 10000; leave it out for a token that does not expire\n";
        assert_eq!((output.status.code(), &*stderr(&output)), (Some(2), expected));
        // Refused by the connection and not by the duration.
        let waiting = ["task", "wait", "x", "--timeout", years, "--server", "http://127.0.0.1:1"];
        let output = run(directory.path(), &waiting, &[]);
        assert_eq!(output.status.code(), Some(4), "{output:?}");
    }
}

#[test]
fn an_index_in_the_name_of_a_variable_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let variable = ("LINESHAFT_HTTP__HOSTS[4000000000]".into(), "x".into());
    let output = run(directory.path(), &["config", "dump"], &[variable]);
    assert!(output.status.code() == Some(2) && stderr(&output).contains("a list is set as a whole"), "{output:?}");
}

#[test]
fn options_without_a_meaning_are_refused_and_named() {
    let directory = tempfile::tempdir().unwrap();
    for (arguments, expected) in [
        (&["task", "output", "x", "--attempt", "0"][..], "--attempt"),
        (&["task", "output", "x", "--offset=-1"], "--offset"),
        (&["task", "list", "--limit", "0"], "--limit"),
        (&["task", "list", "--batch", ""], "--batch"),
        (&["task", "delete", "--pool", "", "--state", "failed"], "--pool"),
        (&["task", "submit", "io", "--attempts", "0"], "--attempts"),
        (&["task", "submit", "io", "--retry-factor", "0"], "--retry-factor"),
        (&["task", "submit", "io", "--count", "0"], "--count"),
        (&["task", "submit", "io", "--id", ""], "--id"),
        (&["task", "watch", "--after", ""], "--after"),
        (&["pool", "update", "default"], "--size"),
        (&["pool", "update", "default", "--etag", "x"], "--size"),
        (&["pool", "update", "default", "--size", "1", "--etag", ""], "--etag"),
    ] {
        let output = run(directory.path(), arguments, &[]);
        let named = stderr(&output).contains(expected);
        assert!(output.status.code() == Some(2) && named, "{arguments:?}: {output:?}");
    }
    std::fs::write(directory.path().join("tokens.toml"), "").unwrap();
    let output = run(directory.path(), &["token", "revoke", "nobody"], &[]);
    let expected = "error: tokens.toml has no token with the name or ID \"nobody\"; run `lineshaft token list --file \
                    tokens.toml`\n";
    assert_eq!((output.status.code(), &*stderr(&output)), (Some(2), expected));
}
