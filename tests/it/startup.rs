//! Servers that refuse to start, with the reason.

use std::process::Command;

use crate::support::{BINARY, Server};

fn serve(arguments: &[&str]) -> (Option<i32>, String) {
    #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
    let output = Command::new(BINARY).arg("serve").args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_second_server_on_the_same_directory_is_refused() {
    let server = Server::start("");
    let data = server.path("data");
    let (code, stderr) = serve(&["--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("in use by another server") && stderr.contains("lock"), "{stderr}");
}

#[test]
fn an_unusable_file_or_directory_is_named() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("journal.db"), "this is not a database, but it is long enough to be one")
        .unwrap();
    let (code, stderr) = serve(&["--listen", "127.0.0.1:0", "--data-dir", directory.path().to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("journal.db"), "{stderr}");
    let below_a_file = directory.path().join("journal.db/sub");
    let (code, stderr) = serve(&["--listen", "127.0.0.1:0", "--data-dir", below_a_file.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("journal.db/sub"), "{stderr}");
}

#[test]
fn an_invalid_setting_is_named() {
    let (code, stderr) = serve(&["--listen", "0.0.0.0:0", "--memory"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("server.listen") && stderr.contains("insecure"), "{stderr}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[server]\nlissen = \"x\"\n").unwrap();
    let (code, stderr) = serve(&["--config", file.path().to_str().unwrap()]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("server.lissen"), "{stderr}");
}
