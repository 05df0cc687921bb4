//! The examples of the crate as programs.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Builds an example, which takes a few seconds, and returns its path.
fn build(name: &str) -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "cargo builds the example")]
    let output = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--message-format", "json", "--example", name])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout).unwrap();
    let messages = messages.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let program = |message: serde_json::Value| Some(PathBuf::from(message["executable"].as_str()?));
    messages.filter_map(program).next_back().expect("the path of the program")
}

/// Starts an example with arguments and environment variables.
pub fn start(name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Child {
    let path = build(name);
    #[expect(clippy::disallowed_methods, reason = "starts the example under test")]
    let mut command = Command::new(path);
    command.args(arguments).envs(variables.iter().copied()).stdin(Stdio::null()).spawn().unwrap()
}
