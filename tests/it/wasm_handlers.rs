//! Tasks that run WebAssembly modules.

use std::path::{Path, PathBuf};

use lineshaft::proto::v1::{self, FailureReason, StopMethod, TaskState};
use rustix::process::Signal;

use crate::support::{Server, bytes, noop, task};

/// A guest of `tests/wasm/guests`.
pub fn guest(name: &str) -> Vec<u8> {
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wasm/guests").join(name).with_extension("wat");
    wat::parse_file(text).unwrap()
}

/// Guests of `tests/wasm/guests` as files, and the server with a handler for each.
struct Modules(tempfile::TempDir);

impl Modules {
    fn new(guests: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in guests {
            std::fs::write(directory.path().join(name).with_extension("wasm"), guest(name)).unwrap();
        }
        Self(directory)
    }

    fn path(&self, guest: &str) -> PathBuf {
        self.0.path().join(guest).with_extension("wasm")
    }

    fn handler(&self, guest: &str, settings: &str) -> String {
        let module = self.path(guest).display().to_string();
        format!(
            "[[handler]]\nname = \"{guest}\"\nrunner = \"wasm\"\nmodule = \"{module}\"\nretry = {{ attempts = 1 }}\n{settings}\n"
        )
    }

    fn handlers(&self, guests: &[&str]) -> String {
        guests.iter().map(|guest| self.handler(guest, "")).collect()
    }
}

#[tokio::test]
async fn a_module_maps_the_payload_to_the_result() {
    let modules = Modules::new(&["echo", "describe"]);
    let settings =
        "argv = [\"me\"]\narg_pattern = \"[a-z]+\"\nenv = { LEVEL = \"7\" }\ncontent_type = \"text/x-parts\"";
    let config = [modules.handler("echo", ""), modules.handler("describe", settings)].concat();
    let mut server = Server::start(&config);
    let ended = server.wait_finished(&server.submit(task("echo", "{\"a\":1}")).await).await;
    assert_eq!(
        (ended.state(), bytes(ended.result.as_ref())),
        (TaskState::Completed, "{\"a\":1}".to_owned()),
        "{ended:?}"
    );
    let usage = ended.resource_usage.unwrap();
    assert!(usage.cpu_time.is_some() && usage.peak_memory_bytes.is_some(), "{usage:?}");

    let request = v1::SubmitTaskRequest { args: vec!["one".to_owned()], ..task("describe", "1") };
    let id = server.submit(request).await;
    let ended = server.wait_finished(&id).await;
    let result = ended.result.as_ref();
    let text = bytes(result);
    assert!(text.starts_with(&format!("me\0one\0LEVEL=7\0LINESHAFT_TASK_ID={id}\0LINESHAFT_ATTEMPT=1\0")), "{text:?}");
    assert_eq!(result.unwrap().content_type, "text/x-parts");
    let refused = v1::SubmitTaskRequest { args: vec!["Two".to_owned()], ..task("describe", "1") };
    assert_eq!(server.tasks().submit_task(refused).await.unwrap_err().code(), tonic::Code::InvalidArgument);

    let listed = server.handlers().list_handlers(v1::ListHandlersRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.handlers.iter().find(|handler| handler.name == "echo").unwrap().runner, "wasm");

    // The compiled modules are in the data directory.
    let kept = || std::fs::read_dir(server.path("data/wasm")).unwrap().count();
    assert_eq!(kept(), 2);
    server.signal(Signal::TERM);
    assert!(server.wait_exit().success());
    server.start_again();
    let ended = server.wait_finished(&server.submit(task("echo", "2")).await).await;
    assert_eq!(bytes(ended.result.as_ref()), "2");
}

#[tokio::test]
async fn hostile_guests_fail_their_own_tasks_only() {
    let guests = ["grow_memory", "grow_table", "recurse", "divide", "flood", "exit", "spin", "sleep", "echo"];
    let modules = Modules::new(&guests);
    let config = format!("[[pool]]\nname = \"p\"\nsize = 4\n{}", modules.handlers(&guests));
    let server = Server::start(&config);
    let limited = |handler: &str| v1::SubmitTaskRequest { timeout: crate::support::millis(200), ..task(handler, "1") };
    let mut tasks = Vec::new();
    for (request, reason) in [
        (task("grow_memory", "1"), FailureReason::OutOfMemory),
        (task("grow_table", "1"), FailureReason::OutOfMemory),
        (task("recurse", "1"), FailureReason::StackOverflow),
        (task("divide", "1"), FailureReason::Panic),
        (task("flood", "1"), FailureReason::ResultTooLarge),
        (task("exit", "1"), FailureReason::HandlerError),
        (limited("spin"), FailureReason::Timeout),
        (limited("sleep"), FailureReason::Timeout),
        (v1::SubmitTaskRequest { timeout: crate::support::millis(200), ..task("flood", "2") }, FailureReason::Timeout),
    ] {
        tasks.push((request.handler.clone(), server.submit(request).await, reason));
        tasks.push(("echo".to_owned(), server.submit(task("echo", "1")).await, FailureReason::Unspecified));
    }
    for (name, id, reason) in tasks {
        let ended = server.wait_finished(&id).await;
        let found = ended.failure.as_ref().map_or(FailureReason::Unspecified, v1::Failure::reason);
        assert_eq!(found, reason, "{name}: {ended:?}");
    }
    assert_eq!(server.wait_finished(&server.submit(noop()).await).await.state(), TaskState::Completed);
}

#[tokio::test]
async fn a_cancel_stops_a_guest_that_uses_the_cpu_or_sleeps() {
    let modules = Modules::new(&["spin", "sleep"]);
    let server = Server::start(&modules.handlers(&["spin", "sleep"]));
    for guest in ["spin", "sleep"] {
        let id = server.submit(task(guest, "1")).await;
        server.wait_started(&id).await;
        let request = v1::CancelTaskRequest { task_id: id.clone(), ..Default::default() };
        server.tasks().cancel_task(request).await.unwrap();
        let ended = server.wait_finished(&id).await;
        assert_eq!(ended.state(), TaskState::Cancelled, "{ended:?}");
        assert_eq!(ended.cancel.as_ref().map(v1::CancelReceipt::method), Some(StopMethod::Abort), "{ended:?}");
    }
}

#[tokio::test]
async fn calls_are_answered_while_all_workers_run_guests() {
    let modules = Modules::new(&["spin"]);
    let config = format!("[[pool]]\nname = \"p\"\nsize = 8\n{}", modules.handlers(&["spin"]));
    let server = Server::start(&config);
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(server.submit(task("spin", "1")).await);
    }
    for id in &ids {
        server.wait_started(id).await;
    }
    for id in ids {
        assert_eq!(server.get(&id).await.state(), TaskState::Running);
        let request = v1::CancelTaskRequest { task_id: id.clone(), ..Default::default() };
        server.tasks().cancel_task(request).await.unwrap();
        assert_eq!(server.wait_finished(&id).await.state(), TaskState::Cancelled);
    }
}

#[test]
fn a_bad_module_is_an_error_at_the_start_that_names_handler_file_and_reason() {
    let modules = Modules::new(&["loop_in_start"]);
    std::fs::write(modules.path("script"), "#!/bin/sh\necho 1\n").unwrap();
    std::fs::File::create(modules.path("large")).unwrap().set_len(100_000_000).unwrap();
    let import = wat::parse_str(r#"(module (import "env" "f" (func)) (func (export "_start")))"#).unwrap();
    std::fs::write(modules.path("import"), import).unwrap();
    for (guest, reason) in [
        ("script", "is not a WebAssembly module"),
        ("large", "has more than 67108864 bytes"),
        ("import", "unknown import: `env::f`"),
        ("loop_in_start", "did not end within 5s"),
        ("missing", "failed to read"),
    ] {
        let log = Server::fail_to_start(&modules.handler(guest, ""), &[]);
        let file = modules.path(guest).display().to_string();
        for text in [format!("handler `{guest}`"), file, reason.to_owned()] {
            assert!(log.contains(&text), "{guest}: {text} is not in {log}");
        }
    }
    let config = modules.handler("any", "").replace("module = ", "# module = ");
    let log = Server::fail_to_start(&config, &[]);
    assert!(log.contains("config.toml") && log.contains("handler[0].module: is required"), "{log}");
}
