//! `lineshaft doctor`: what is well is said so, what is not is named, with what to do.

use std::path::Path;
use std::process::Output;

use crate::support::{BINARY, Server};

const ANY_PORT: &str = "[server]\nlisten = \"127.0.0.1:0\"\n";

fn doctor(config: &str, directory: &Path, variables: &[(&str, &str)]) -> Output {
    let file = directory.join("doctor.toml");
    // Whatever else listens on this machine.
    let config = if config.contains("[server]") { config.to_owned() } else { format!("{config}\n{ANY_PORT}") };
    std::fs::write(&file, config).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the program itself")]
    let mut command = std::process::Command::new(BINARY);
    command.arg("doctor").arg("--config").arg(file).arg("--data-dir").arg(directory.join("data"));
    command.env_remove("OTEL_EXPORTER_OTLP_ENDPOINT").envs(variables.iter().copied()).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_machine_that_will_do_is_well_and_stays_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let output = doctor("[[pool]]\nname = \"default\"\nsize = 2\n", directory.path(), &[]);
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    for check in ["configuration", "store", "disk", "limits", "clock", "otlp"] {
        assert!(said.lines().any(|line| line[5..].trim_start().starts_with(check)), "{check}: {said}");
    }
    assert!(said.contains("one durable write takes"), "{said}");
    assert!(!directory.path().join("data").exists());
}

#[test]
fn a_running_server_is_seen_and_left_alone() {
    let server = Server::start("");
    let output = doctor("", server.directory.path(), &[]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("a server uses"), "{}", text(&output));
}

#[test]
fn what_would_not_work_is_told_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let config = "[[handler]]\nname = \"render\"\nrunner = \"process\"\nargv = [\"/opt/nosuch\"]\n";
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = format!("http://{free}");
    let output = doctor(config, directory.path(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("FAIL  handlers"), "{said}");
    assert!(said.contains("/opt/nosuch does not exist") && said.contains("→ install the program"), "{said}");
    assert!(said.contains("WARN  otlp") && said.contains("cannot be reached"), "{said}");
}

#[test]
fn a_configuration_that_cannot_be_used_is_told_with_every_problem() {
    let directory = tempfile::tempdir().unwrap();
    let output = doctor("[server]\nmax_in_flight = 0\n[retention]\nage = \"0s\"\n", directory.path(), &[]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("server.max_in_flight") && said.contains("retention.age"), "{said}");
}

#[test]
fn what_keeps_a_server_from_starting_is_found_before_it_is_started() {
    let directory = tempfile::tempdir().unwrap();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = format!(
        "[server]\nlisten = \"{}\"\n[auth]\ntokens_file = \"/nosuch/tokens\"\n[telemetry]\nendpoint = \"http://{}\"\n",
        other.local_addr().unwrap(),
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap(),
    );
    let output = doctor(&config, directory.path(), &[]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("FAIL  security") && said.contains("/nosuch/tokens"), "{said}");
    assert!(said.contains("FAIL  listen") && said.contains("choose another server.listen"), "{said}");
    assert!(said.contains("WARN  otlp") && said.contains("cannot be reached"), "the file's own collector: {said}");
}

#[test]
fn a_configuration_that_is_not_there_is_told_with_the_reason() {
    let (done, said) = crate::support::run(BINARY, ["doctor", "--config", "/nosuch/lineshaft.toml"]);
    assert!(!done && said.contains("`/nosuch/lineshaft.toml`: No such file") && said.contains("--config"), "{said}");
    let (done, said) = crate::support::run(BINARY, ["doctor", "-o", "json", "--config", "/nosuch/lineshaft.toml"]);
    let first: serde_json::Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    assert!(!done && first["check"] == "configuration" && first["state"] == "fail", "{said}");
}

#[test]
fn who_has_read_enough_may_go() {
    let directory = tempfile::tempdir().unwrap();
    #[expect(clippy::disallowed_methods, reason = "the program itself")]
    let mut command = std::process::Command::new(BINARY);
    command.arg("doctor").arg("--data-dir").arg(directory.path()).env("LINESHAFT_SERVER__LISTEN", "127.0.0.1:0");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command.stdout(writer).output().unwrap();
    assert!(output.status.code().is_some_and(|code| code < 2) && output.stderr.is_empty(), "{output:?}");
}
