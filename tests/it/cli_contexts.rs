//! Named connections of the command line, and what a shell completes.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{BINARY, Server};

/// Runs the binary with the contexts of a directory, and without the variables of this process.
fn run(home: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
    let mut command = Command::new(BINARY);
    for name in ["LINESHAFT_SERVER", "LINESHAFT_CONTEXT", "LINESHAFT_TOKEN", "XDG_CONFIG_HOME"] {
        command.env_remove(name);
    }
    command.args(arguments).env("HOME", home).envs(variables.iter().copied()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn commands_use_the_context_that_is_in_use_or_named() {
    let home = tempfile::tempdir().unwrap();
    let (home, variables) = (home.path(), &[][..]);
    let server = Server::start("");
    let url = server.address.as_str();
    let dead = "http://127.0.0.1:1";
    for (name, address) in [("here", url), ("gone", dead)] {
        let output = run(home, &["context", "add", name, "--server", address], variables);
        assert!(output.status.success(), "{output:?}");
    }
    let mode = std::fs::metadata(home.join(".config/lineshaft/contexts.toml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(run(home, &["context", "use", "here"], variables).status.success());
    let code = |arguments: &[&str], variables: &[(&str, &str)]| run(home, arguments, variables).status.code();
    let list = ["task", "list"];
    assert_eq!(code(&list, variables), Some(0));
    assert_eq!(code(&["task", "list", "--context", "gone"], variables), Some(4));
    assert_eq!(code(&list, &[("LINESHAFT_CONTEXT", "gone")]), Some(4));
    assert_eq!(code(&list, &[("LINESHAFT_SERVER", dead)]), Some(4), "the environment overrides it");
    assert_eq!(code(&["task", "list", "--context", "here"], &[("LINESHAFT_SERVER", dead)]), Some(0));
    assert_eq!(code(&["task", "list", "--server", url], &[("LINESHAFT_CONTEXT", "gone")]), Some(0));
    assert_eq!(code(&list, &[("LINESHAFT_SERVER", url), ("LINESHAFT_CONTEXT", "gone")]), Some(2), "one is meant");
    assert_eq!(code(&["task", "list", "--server", url, "--context", "here"], variables), Some(2));
    assert_eq!(code(&["task", "list", "--context", "lost"], variables), Some(2));
    let listed = run(home, &["context", "list"], variables);
    let listed = text(&listed.stdout);
    assert!(listed.lines().any(|line| line.starts_with("here  *")) && listed.contains(dead), "{listed}");
    assert!(run(home, &["context", "remove", "here"], variables).status.success());
    assert_eq!(code(&["context", "show"], variables), Some(2), "none is in use");
    let shown = run(home, &["context", "show", "gone", "-o", "json"], variables);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["server"], dead);
}

#[test]
fn a_context_has_the_path_of_a_token_and_no_token() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let add = ["context", "add", "prod", "--server", "https://x:1"];
    let output = run(home, &[&add[..], &["--token", "secret"]].concat(), &[]);
    assert!(output.status.code() == Some(2) && text(&output.stderr).contains("--token-file"), "{output:?}");
    let variables = [("LINESHAFT_TOKEN", "secret"), ("XDG_CONFIG_HOME", home.to_str().unwrap())];
    let output = run(home, &[&add[..], &["--token-file", "prod.token"]].concat(), &variables);
    assert!(output.status.success(), "{output:?}");
    let saved = std::fs::read_to_string(home.join("lineshaft/contexts.toml")).unwrap();
    assert!(!saved.contains("secret") && saved.contains("/prod.token"), "an absolute path: {saved}");
    let again = run(home, &add, &variables);
    assert!(text(&again.stderr).contains("already exists"), "{again:?}");
    assert_eq!(run(home, &["context", "add", "x"], &variables).status.code(), Some(2), "without a server");
}

/// The candidates for the last word.
fn complete(home: &Path, words: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
    let index = (words.len() - 1).to_string();
    let all = [&["--"], words].concat();
    let own = [("LINESHAFT_COMPLETE", "bash"), ("_CLAP_COMPLETE_INDEX", &*index), ("_CLAP_IFS", "\n")];
    let output = run(home, &all, &[&own[..], variables].concat());
    assert!(output.stderr.is_empty(), "{output:?}");
    text(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn a_shell_completes_what_the_server_knows() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let server = Server::start("");
    let variables = [("LINESHAFT_SERVER", server.address.as_str())];
    for id in ["report-1", "report-2", "other"] {
        assert!(run(home, &["task", "submit", "compute", "--json", "1", "--id", id], &variables).status.success());
    }
    let mut ids = complete(home, &["lineshaft", "task", "get", "rep"], &variables);
    ids.sort();
    assert_eq!(ids, ["report-1", "report-2"]);
    assert_eq!(complete(home, &["lineshaft", "task", "run", "comp"], &variables), ["compute"]);
    assert_eq!(complete(home, &["lineshaft", "pool", "update", "def"], &variables), ["default"]);
    assert!(run(home, &["batch", "create", "--id", "nightly"], &variables).status.success());
    let batch = ["lineshaft", "task", "wait", "--batch", "ni"];
    assert_eq!(complete(home, &batch, &variables), ["nightly"]);
    assert_eq!(complete(home, &["lineshaft", "batch", "cancel", "ni"], &variables), ["nightly"]);
    let schedule = ["schedule", "create", "hourly", "compute", "--every", "1h", "--json", "1"];
    assert!(run(home, &schedule, &variables).status.success());
    assert_eq!(complete(home, &["lineshaft", "schedule", "pause", "h"], &variables), ["hourly"]);
    let context = ["context", "add", "prod", "--server", &server.address];
    assert!(run(home, &context, &[]).status.success());
    assert_eq!(complete(home, &["lineshaft", "task", "list", "--context", "p"], &[]), ["prod"]);
    assert_eq!(complete(home, &["lineshaft", "--context", "prod", "task", "get", "oth"], &[]), ["other"]);
    let named = ["lineshaft", "task", "get", "--server", &server.address, "oth"];
    assert_eq!(complete(home, &named, &[("LINESHAFT_SERVER", "http://127.0.0.1:1")]), ["other"]);
    assert!(
        complete(home, &["lineshaft", "task", "get", "rep"], &[("LINESHAFT_SERVER", "http://127.0.0.1:1")]).is_empty()
    );
    assert_eq!(complete(home, &["lineshaft", "task", "canc"], &[]), ["cancel"]);
    for shell in ["bash", "zsh", "fish"] {
        let script = run(home, &["completion", shell], &[]);
        assert!(text(&script.stdout).contains("LINESHAFT_COMPLETE"), "{script:?}");
    }
}
