//! `lineshaft artifact`.

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::Path;
use std::process::Command;
use std::thread::Builder;

use rustix::fs::{CWD, FileType, mknodat};

use crate::support::{BINARY, Server};

const HANDLER: &str = r#"
[[handler]]
name = "count"
runner = "process"
argv = ["/bin/sh", "-c", "seq 1 2 >$LINESHAFT_ARTIFACTS/a"]
artifacts = true
"#;

fn run(server: &Server, arguments: &[&str]) -> (Option<i32>, String) {
    #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
    let output = Command::new(BINARY).args(arguments).env("LINESHAFT_SERVER", &server.address).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn get(server: &Server, name: &str, to: &Path) -> (Option<i32>, String) {
    run(server, &["artifact", "get", "t", name, "--to", to.to_str().unwrap()])
}

#[test]
fn a_download_replaces_nothing_but_a_regular_file() {
    let server = Server::start(HANDLER);
    assert_eq!(run(&server, &["task", "run", "count", "--json", "1", "--id", "t"]).0, Some(0));
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let refused = |name: &str, to: &str, text: &str| {
        let (code, err) = get(&server, name, &path(to));
        assert!(code != Some(0) && err.contains(text), "{code:?} {err}");
    };
    refused("missing", "new", "has no artifact");
    assert!(!path("new.part").exists(), "nothing is left of it");
    fs::create_dir(path("directory")).unwrap();
    refused("a", "directory", "is a directory");
    fs::write(path("precious"), "precious").unwrap();
    symlink("precious", path("linked.part")).unwrap();
    refused("a", "linked", "linked.part");
    assert_eq!(fs::read(path("precious")).unwrap(), b"precious");

    let pipe = path("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, 0o600.into(), 0).unwrap();
    let read = {
        let pipe = pipe.clone();
        move || fs::read(pipe)
    };
    let reading = Builder::new().name("reads-pipe".to_owned()).spawn(read).unwrap();
    assert_eq!(get(&server, "a", &pipe).0, Some(0));
    assert_eq!(reading.join().unwrap().unwrap(), b"1\n2\n");
    assert!(fs::metadata(pipe).unwrap().file_type().is_fifo());
}

#[test]
fn a_download_continues_what_is_there_unless_it_is_of_another_artifact() {
    let server = Server::start(HANDLER);
    assert_eq!(run(&server, &["task", "run", "count", "--json", "1", "--id", "t"]).0, Some(0));
    let directory = tempfile::tempdir().unwrap();
    let (target, part) = (directory.path().join("new"), directory.path().join("new.part"));
    for left in ["", "1\n2", "x", "longer than the artifact"] {
        fs::write(&part, left).unwrap();
        assert_eq!(get(&server, "a", &target), (Some(0), String::new()), "{left:?}");
        assert_eq!(fs::read(&target).unwrap(), b"1\n2\n");
        assert!(!part.exists());
        fs::remove_file(&target).unwrap();
    }
}
