//! `lineshaft doctor`: checks that pass, checks that fail, and the advice for them.

use std::path::Path;
use std::process::Output;

use crate::support::{BINARY, Server};

const ANY_PORT: &str = "[server]\nlisten = \"127.0.0.1:0\"\n";

fn doctor(config: &str, directory: &Path, variables: &[(&str, &str)]) -> Output {
    let file = directory.join("doctor.toml");
    // Port 0, so that no other program on this machine can use the port.
    let config = if config.contains("[server]") { config.to_owned() } else { format!("{config}\n{ANY_PORT}") };
    std::fs::write(&file, config).unwrap();
    #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
    let mut command = std::process::Command::new(BINARY);
    command.arg("doctor").arg("--config").arg(file).arg("--data-dir").arg(directory.join("data"));
    command.env_remove("OTEL_EXPORTER_OTLP_ENDPOINT").envs(variables.iter().copied()).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_suitable_machine_passes_and_no_file_is_created() {
    let directory = tempfile::tempdir().unwrap();
    let output = doctor("[[pool]]\nname = \"default\"\nsize = 2\n", directory.path(), &[]);
    let printed = text(&output);
    assert!(output.status.success(), "{printed}");
    for check in ["configuration", "store", "disk", "limits", "clock", "otlp"] {
        assert!(printed.lines().any(|line| line[5..].trim_start().starts_with(check)), "{check}: {printed}");
    }
    assert!(printed.contains("a durable write takes"), "{printed}");
    assert!(!directory.path().join("data").exists());
}

#[test]
fn a_running_server_is_detected() {
    let server = Server::start("");
    let output = doctor("", server.directory.path(), &[]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("is in use by a server"), "{}", text(&output));
}

#[test]
fn pools_whose_tasks_may_need_more_memory_than_there_is_are_reported() {
    let directory = tempfile::tempdir().unwrap();
    let pools = "[[pool]]\nname = \"large\"\nautoscale = { max = 8 }\n[[pool]]\nname = \"small\"\nsize = 1\n";
    let handler = |pool: &str, memory: &str| {
        format!(
            "[[handler]]\nname = \"in-{pool}\"\nrunner = \"process\"\nargv = [\"/bin/true\"]\npool = \"{pool}\"\n\
             limits = {{ memory = \"{memory}\" }}\n"
        )
    };
    let config = format!("{pools}{}{}", handler("large", "1TiB"), handler("small", "1MiB"));
    let printed = text(&doctor(&config, directory.path(), &[]));
    let line = |text: &str| printed.lines().find(|line| line.contains(text)).unwrap_or_else(|| panic!("{printed}"));
    assert!(line("tasks of pool `large` may need 8388608 MiB").starts_with("WARN"), "{printed}");
    assert!(!line("tasks of pool `small` may need 1 MiB").starts_with("WARN"), "{printed}");
    assert!(printed.contains("lower the size of the pool or limits.memory of its handlers"), "{printed}");
}

#[test]
fn failures_are_reported_with_advice() {
    let directory = tempfile::tempdir().unwrap();
    let config = "[[handler]]\nname = \"render\"\nrunner = \"process\"\nargv = [\"/opt/nosuch\"]\n";
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = format!("http://{free}");
    let output = doctor(config, directory.path(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]);
    let printed = text(&output);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(printed.contains("FAIL  handlers"), "{printed}");
    assert!(printed.contains("/opt/nosuch does not exist") && printed.contains("→ install the program"), "{printed}");
    assert!(printed.contains("WARN  otlp") && printed.contains("is unreachable"), "{printed}");
}

#[test]
fn an_invalid_configuration_is_reported_with_every_problem() {
    let directory = tempfile::tempdir().unwrap();
    let output = doctor("[server]\nmax_in_flight = 0\n[retention]\nage = \"0s\"\n", directory.path(), &[]);
    let printed = text(&output);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(printed.contains("server.max_in_flight") && printed.contains("retention.age"), "{printed}");
}

#[test]
fn a_schedule_that_prevents_a_start_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    for (timing, setting) in [("cron = \"0 0 30 2 *\"", "schedule[0].cron"), ("every = \"0.5s\"", "schedule[0].every")]
    {
        let output = doctor(&format!("[[schedule]]\nid = \"a\"\nhandler = \"io\"\n{timing}\n"), directory.path(), &[]);
        let printed = text(&output);
        assert_eq!(output.status.code(), Some(1), "{printed}");
        assert!(printed.contains("FAIL  schedules") && printed.contains(setting), "{printed}");
    }
}

#[test]
fn failures_that_prevent_a_start_are_reported() {
    let directory = tempfile::tempdir().unwrap();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = format!(
        "[server]\nlisten = \"{}\"\n[auth]\ntokens_file = \"/nosuch/tokens\"\n[telemetry]\nendpoint = \"http://{}\"\n",
        other.local_addr().unwrap(),
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap(),
    );
    let output = doctor(&config, directory.path(), &[]);
    let printed = text(&output);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(printed.contains("FAIL  security") && printed.contains("/nosuch/tokens"), "{printed}");
    assert!(printed.contains("FAIL  listen") && printed.contains("choose another server.listen"), "{printed}");
    assert!(
        printed.contains("WARN  otlp") && printed.contains("is unreachable"),
        "the collector of the file: {printed}"
    );
}

#[test]
fn a_missing_configuration_file_is_reported() {
    let (success, printed) = crate::support::run(BINARY, ["doctor", "--config", "/nosuch/lineshaft.toml"]);
    assert!(
        !success && printed.contains("`/nosuch/lineshaft.toml`: No such file") && printed.contains("--config"),
        "{printed}"
    );
    let (success, printed) =
        crate::support::run(BINARY, ["doctor", "-o", "json", "--config", "/nosuch/lineshaft.toml"]);
    let first: serde_json::Value = serde_json::from_str(printed.lines().next().unwrap()).unwrap();
    assert!(!success && first["check"] == "configuration" && first["state"] == "fail", "{printed}");
}

#[test]
fn a_password_file_that_cannot_be_read_is_reported_and_prevents_a_start() {
    let directory = tempfile::tempdir().unwrap();
    let config = "[[connection]]\nname = \"park\"\npostgres = \"postgresql://me@db.invalid/park\"\n\
                  password_file = \"/nosuch/password\"\n";
    let problem = "connection[0].password_file: failed to read `/nosuch/password`: No such file";
    let output = doctor(config, directory.path(), &[]);
    let printed = text(&output);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(printed.contains("FAIL  connections") && printed.contains(problem), "{printed}");

    let log = Server::fail_to_start(config, &[]);
    assert!(log.contains("connection[0].password_file") && log.contains("failed to read `/nosuch/password`"), "{log}");
}

#[test]
fn a_closed_output_pipe_is_no_error() {
    let directory = tempfile::tempdir().unwrap();
    #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
    let mut command = std::process::Command::new(BINARY);
    command.arg("doctor").arg("--data-dir").arg(directory.path()).env("LINESHAFT_SERVER__LISTEN", "127.0.0.1:0");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command.stdout(writer).output().unwrap();
    assert!(output.status.code().is_some_and(|code| code < 2) && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn keys_that_cannot_be_fetched_and_missing_directories_are_reported() {
    let directory = tempfile::tempdir().unwrap();
    let jwt = "[auth.jwt]\nissuer = \"i\"\naudience = \"a\"\njwks_url = \"http://127.0.0.1:1/keys\"\n\
               [[auth.jwt.grant]]\nclaim = \"sub\"\nvalue = \"x\"\nrole = \"admin\"\nnamespaces = [\"*\"]\n";
    let handler =
        "[[handler]]\nname = \"list\"\nrunner = \"process\"\nargv = [\"ls\"]\nworking_directory = \"/nosuch\"\n";
    let output = doctor(&format!("{jwt}{handler}"), directory.path(), &[]);
    let printed = text(&output);
    assert!(printed.contains("WARN  security") && printed.contains("failed to fetch the JWT keys"), "{printed}");
    assert!(printed.contains("FAIL  handlers") && printed.contains("working_directory /nosuch"), "{printed}");
    assert!(!printed.contains("tokens loaded"), "{printed}");
}

#[test]
fn a_data_directory_that_is_a_file_is_a_failure() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("data"), "").unwrap();
    let output = doctor("", directory.path(), &[]);
    assert!(output.status.code() == Some(1) && text(&output).contains("FAIL  store"), "{}", text(&output));
}

#[test]
fn a_secret_of_an_http_handler_that_is_missing_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let config =
        "[[handler]]\nname = \"call\"\nrunner = \"http\"\n[handler.http]\nurl = \"https://a.example/{env:MISSING}\"\n";
    let output = doctor(config, directory.path(), &[]);
    assert!(!output.status.success());
    let printed = text(&output);
    assert!(printed.contains("handler `call`: the environment variable `MISSING`"), "{printed}");
    let output = doctor(config, directory.path(), &[("MISSING", "there")]);
    assert!(output.status.success(), "{}", text(&output));
}
