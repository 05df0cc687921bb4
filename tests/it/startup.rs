//! Servers that refuse to start, with the reason.

use std::process::Command;

use crate::support::{BINARY, KillOnDrop, Server, check, eventually};

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

#[test]
fn a_host_name_is_refused_with_an_example_of_an_address() {
    let (code, stderr) = serve(&["--listen", "localhost:7070"]);
    assert!(code == Some(2) && stderr.contains("such as 127.0.0.1:7070"), "{stderr}");
}

#[tokio::test]
async fn an_address_that_becomes_free_in_a_moment_is_waited_for() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let ready = directory.path().join("ready");
    let address = holder.local_addr().unwrap().to_string();
    let log = std::fs::File::create(directory.path().join("log")).unwrap();
    #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
    let mut command = Command::new(BINARY);
    command.args(["serve", "--memory", "--listen", &address, "--ready-file"]).arg(&ready).stdout(log);
    let _server = KillOnDrop(command.spawn().unwrap());
    let logged = || std::fs::read_to_string(directory.path().join("log")).unwrap();
    eventually(async || check(logged().contains("an address is in use"), logged)).await;
    drop(holder);
    eventually(async || check(ready.exists(), logged)).await;
    assert_eq!(std::fs::read_to_string(&ready).unwrap().trim(), address);
}

#[test]
fn a_handler_that_cannot_run_is_named_at_the_start() {
    let server = Server::start(
        "[[handler]]\nname = \"render\"\nrunner = \"process\"\nargv = [\"/opt/nosuch\"]\n\
         [[handler]]\nname = \"list\"\nrunner = \"process\"\nargv = [\"ls\"]\nworking_directory = \"/nosuch\"\n",
    );
    for text in ["program /opt/nosuch does not exist", "working_directory /nosuch: failed to find it"] {
        assert!(server.log().contains(text), "{text}: {}", server.log());
    }
}

#[test]
fn a_missing_ca_for_the_keys_of_tokens_stops_the_start() {
    let jwt = "[auth.jwt]\nissuer = \"i\"\naudience = \"a\"\njwks_url = \"https://127.0.0.1:1/keys\"\njwks_ca = \"/nosuch.pem\"\n\
               [[auth.jwt.grant]]\nclaim = \"sub\"\nvalue = \"x\"\nrole = \"admin\"\nnamespaces = [\"*\"]\n";
    let log = Server::fail_to_start(jwt, &[]);
    assert!(log.contains("failed to read `/nosuch.pem` (auth.jwt.jwks_ca)"), "{log}");
}
