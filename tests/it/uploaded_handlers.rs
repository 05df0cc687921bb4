//! WebAssembly handlers that are uploaded while the server runs.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use lineshaft::proto::v1::{self, FailureReason, TaskState};
use rustix::process::Signal;
use tonic::{Code, Status};

use crate::registered_handlers::{connect, handler, offer};
use crate::support::{
    BINARY, Faults, IN_MEMORY, Server, bytes, check, eventually, fields, millis, reason, run, seconds, task,
};
use crate::wasm_handlers::guest;

/// A module that prints the text.
fn printing(text: &str) -> Vec<u8> {
    let length = text.len();
    let module = format!(
        r#"(module
          (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 1)
          (data (i32.const 16) "{text}")
          (func (export "_start")
            (i32.store (i32.const 0) (i32.const 16))
            (i32.store (i32.const 4) (i32.const {length}))
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#
    );
    wat::parse_str(module).unwrap()
}

fn named(name: &str) -> v1::WasmHandler {
    v1::WasmHandler { name: name.to_owned(), ..v1::WasmHandler::default() }
}

/// Sends the handler as it is, and the module in parts.
async fn send(server: &Server, handler: v1::WasmHandler, module: &[u8]) -> Result<v1::Handler, Status> {
    let first = v1::PutHandlerRequest { handler: Some(handler), module: Vec::new() };
    let parts = module.chunks(100).map(|part| v1::PutHandlerRequest { handler: None, module: part.to_vec() });
    let requests: Vec<_> = std::iter::once(first).chain(parts).collect();
    let response = server.handlers().put_handler(tokio_stream::iter(requests)).await?;
    Ok(response.into_inner().handler.unwrap())
}

async fn put(server: &Server, handler: v1::WasmHandler, module: &[u8]) -> Result<v1::Handler, Status> {
    let module_bytes = i64::try_from(module.len()).unwrap();
    send(server, v1::WasmHandler { module_bytes, ..handler }, module).await
}

async fn delete(server: &Server, name: &str) -> Result<(), Status> {
    server.handlers().delete_handler(v1::DeleteHandlerRequest { name: name.to_owned() }).await.map(drop)
}

async fn result(server: &Server, handler: &str) -> String {
    let ended = server.wait_finished(&server.submit(task(handler, "payload")).await).await;
    assert_eq!(ended.state(), TaskState::Completed, "{ended:?}");
    bytes(ended.result.as_ref())
}

fn names(directory: &Path) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return BTreeSet::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn file_of(handler: &v1::Handler) -> String {
    format!("{}.wasm", handler.module_sha256)
}

#[tokio::test]
async fn an_uploaded_handler_is_used_at_once_and_survives_a_crash_until_it_is_deleted() {
    let mut server = Server::start("");
    let settings = v1::WasmHandler {
        description: "describes itself".to_owned(),
        timeout: seconds(5),
        argv: vec!["me".to_owned(), "--all".to_owned()],
        arg_pattern: "[a-z]+".to_owned(),
        content_type: "text/x-parts".to_owned(),
        memory_bytes: 1 << 20,
        payload_schema: r#"{"type": "integer"}"#.to_owned(),
        ..named("describe")
    };
    let put_one = put(&server, settings.clone(), &guest("describe")).await.unwrap();
    assert_eq!(
        (put_one.runner.as_str(), put_one.source.as_str(), put_one.pool.as_str()),
        ("wasm", "upload", "default")
    );
    assert_eq!((put_one.description.as_str(), put_one.timeout), ("describes itself", seconds(5)));
    put(&server, named("echo"), &guest("echo")).await.unwrap();
    // The same once more changes nothing.
    let before = server.pools().list_pools(v1::ListPoolsRequest {}).await.unwrap().into_inner().revision;
    assert_eq!(put(&server, settings, &guest("describe")).await.unwrap(), put_one);
    assert_eq!(server.pools().list_pools(v1::ListPoolsRequest {}).await.unwrap().into_inner().revision, before);
    let modules = server.path("data/modules");
    for restarted in [false, true] {
        assert_eq!(handler(&server, "describe").await.unwrap(), put_one, "{restarted}");
        let request = v1::SubmitTaskRequest { args: vec!["one".to_owned()], ..task("describe", "1") };
        let ended = server.wait_finished(&server.submit(request).await).await;
        let found = ended.result.as_ref();
        assert!(bytes(found).starts_with("me\0--all\0one\0LINESHAFT_TASK_ID="), "{ended:?}");
        assert_eq!(found.unwrap().content_type, "text/x-parts");
        let refused = server.tasks().submit_task(task("describe", "1.5")).await.unwrap_err();
        assert_eq!(fields(&refused), ["payload"], "{refused:?}");
        assert_eq!(result(&server, "echo").await, "payload");
        assert_eq!((names(&modules).len(), names(&server.path("data/wasm")).len()), (2, 2), "{restarted}");
        assert_eq!((mode(&modules), mode(&modules.join(file_of(&put_one)))), (0o700, 0o600));
        if !restarted {
            server.kill9();
            server.start_again();
        }
    }
    delete(&server, "describe").await.unwrap();
    for restarted in [false, true] {
        assert_eq!(reason(&handler(&server, "describe").await.unwrap_err()), "UNKNOWN_HANDLER", "{restarted}");
        let refused = server.tasks().submit_task(task("describe", "1")).await.unwrap_err();
        assert_eq!(reason(&refused), "UNKNOWN_HANDLER");
        assert_eq!(result(&server, "echo").await, "payload");
        assert_eq!((names(&modules).len(), names(&server.path("data/wasm")).len()), (1, 1), "{restarted}");
        if !restarted {
            server.kill9();
            server.start_again();
        }
    }
    assert_eq!(reason(&delete(&server, "describe").await.unwrap_err()), "UNKNOWN_HANDLER");
    server.signal(Signal::TERM);
    assert!(server.wait_exit().success(), "{}", server.log());
}

#[tokio::test]
async fn a_running_task_keeps_its_version_and_the_next_one_gets_the_new_one() {
    let server = Server::start("[[pool]]\nname = \"default\"\nsize = 1\n");
    let old = put(&server, named("work"), &guest("spin")).await.unwrap();
    let running = server.submit(task("work", "")).await;
    let waiting = server.submit(task("work", "")).await;
    server.wait_started(&running).await;
    let new = put(&server, named("work"), &printing("new")).await.unwrap();
    assert_ne!(old.module_sha256, new.module_sha256);
    assert_eq!(handler(&server, "work").await.unwrap(), new);
    assert_eq!(server.get(&running).await.state(), TaskState::Running);
    let request = v1::CancelTaskRequest { task_id: running.clone(), ..Default::default() };
    server.tasks().cancel_task(request).await.unwrap();
    assert_eq!(
        server.wait_finished(&running).await.state(),
        TaskState::Cancelled,
        "the old version does not end itself"
    );
    assert_eq!(bytes(server.wait_finished(&waiting).await.result.as_ref()), "new");
    // No attempt uses the old version any more.
    let newest = put(&server, named("work"), &printing("newest")).await.unwrap();
    assert_eq!(names(&server.path("data/modules")), [file_of(&newest)].into());
    assert_eq!(result(&server, "work").await, "newest");
    // Two handlers share a file.
    put(&server, named("other"), &printing("newest")).await.unwrap();
    delete(&server, "work").await.unwrap();
    assert_eq!(names(&server.path("data/modules")), [file_of(&newest)].into());
    assert_eq!(result(&server, "other").await, "newest");
}

#[tokio::test]
async fn a_module_that_cannot_be_a_handler_is_refused_and_leaves_nothing() {
    let server = Server::start("");
    let text = |text: &str| wat::parse_str(text).unwrap();
    let echo = guest("echo");
    for (module, expected) in [
        (b"#!/bin/sh\necho 1\n".to_vec(), "is not a WebAssembly module or component in binary form"),
        (echo[..echo.len() - 1].to_vec(), "is not valid: "),
        (text("(module)"), "exports no function `_start`"),
        (text(r#"(module (import "env" "f" (func)) (func (export "_start")))"#), "unknown import: `env::f`"),
        (text("(component)"), "does not export `wasi:cli/run@0.2`"),
        (text(r#"(module (memory 3000) (func (export "_start")))"#), "needs more than 134217728 bytes of memory"),
    ] {
        let refused = put(&server, named("bad"), &module).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::InvalidArgument, "INVALID_FIELD"),
            "{refused:?}"
        );
        assert_eq!(fields(&refused), ["module"], "{refused:?}");
        assert!(refused.message().contains(expected), "{expected}: {refused:?}");
    }
    let size = |module_bytes: i64| v1::WasmHandler { module_bytes, ..named("bad") };
    let exact = i64::try_from(echo.len()).unwrap();
    for (handler, field, expected) in [
        (size(100_000_000), "handler.module_bytes", "is 100000000, must be from 1 to 67108864 bytes"),
        (size(exact + 1), "module", "ends after"),
        (size(exact - 1), "module", "has more bytes than"),
        (v1::WasmHandler { name: "a b".to_owned(), ..size(exact) }, "handler.name", "contains the character ' '"),
        (v1::WasmHandler { pool: "remote".to_owned(), ..size(exact) }, "handler.pool", "must have kind \"threads\""),
        (v1::WasmHandler { memory_bytes: 1, ..size(exact) }, "handler.memory_bytes", "must be from 1048576"),
        (
            v1::WasmHandler { payload_schema: "{\"type\": 7}".to_owned(), ..size(exact) },
            "handler.payload_schema",
            "is not a JSON schema",
        ),
        (
            v1::WasmHandler { payload_schema: " ".repeat(65_537), ..size(exact) },
            "handler.payload_schema",
            "has 65537 bytes",
        ),
    ] {
        let refused = send(&server, handler, &echo).await.unwrap_err();
        assert_eq!((refused.code(), fields(&refused)), (Code::InvalidArgument, vec![field.to_owned()]), "{refused:?}");
        assert!(refused.message().contains(expected), "{expected}: {refused:?}");
    }
    let unknown = v1::WasmHandler { pool: "nowhere".to_owned(), ..named("bad") };
    assert_eq!(reason(&put(&server, unknown, &echo).await.unwrap_err()), "UNKNOWN_POOL");
    for (requests, field) in [
        (vec![], "handler"),
        (vec![v1::PutHandlerRequest { handler: None, module: echo.clone() }], "handler"),
        (vec![v1::PutHandlerRequest { handler: Some(size(exact)), module: Vec::new() }; 2], "handler"),
    ] {
        let refused = server.handlers().put_handler(tokio_stream::iter(requests)).await.unwrap_err();
        assert_eq!(fields(&refused), [field], "{refused:?}");
    }
    assert_eq!(reason(&handler(&server, "bad").await.unwrap_err()), "UNKNOWN_HANDLER");
    assert!(names(&server.path("data/modules")).is_empty());
    assert!(names(&server.path("data/wasm")).is_empty());
}

#[tokio::test]
async fn nothing_of_a_module_is_run_when_it_is_uploaded() {
    let server = Server::start("");
    // At the start of a server, the same module would be refused after five seconds.
    put(&server, named("loop"), &guest("loop_in_start")).await.unwrap();
    let once = Some(v1::RetryPolicy { max_attempts: 1, ..Default::default() });
    let request = v1::SubmitTaskRequest { timeout: millis(100), retry: once, ..task("loop", "") };
    let ended = server.wait_finished(&server.submit(request).await).await;
    assert_eq!(ended.failure.unwrap().reason(), FailureReason::Timeout);
    put(&server, named("echo"), &guest("echo")).await.unwrap();
    assert_eq!(result(&server, "echo").await, "payload");
}

#[tokio::test]
async fn only_an_upload_is_replaced_and_deleted_by_a_call() {
    let config = "[[pool]]\nname = \"default\"\n[[pool]]\nname = \"remote\"\nkind = \"remote\"\n\
                  [[handler]]\nname = \"ours\"\nrunner = \"process\"\nargv = [\"/bin/true\"]\n";
    let server = Server::start(config);
    connect(&server, offer(&[("resize", "")])).await.unwrap();
    let before = server.handlers().list_handlers(v1::ListHandlersRequest {}).await.unwrap().into_inner();
    for (name, source) in [("ours", "file"), ("compute", "builtin"), ("resize", "worker")] {
        let replaced = put(&server, named(name), &guest("echo")).await.unwrap_err();
        let deleted = delete(&server, name).await.unwrap_err();
        for refused in [replaced, deleted] {
            assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
            assert_eq!(reason(&refused), "HANDLER_NOT_UPLOADED");
            assert!(refused.message().contains(&format!("its source is `{source}`")), "{refused:?}");
        }
    }
    let after = server.handlers().list_handlers(v1::ListHandlersRequest {}).await.unwrap().into_inner();
    assert_eq!(before, after);
    assert!(names(&server.path("data/modules")).is_empty());
    put(&server, named("echo"), &guest("echo")).await.unwrap();
    let refused = connect(&server, offer(&[("echo", "")])).await.unwrap_err();
    assert!(refused.message().contains("runner `wasm`"), "{refused:?}");
}

#[tokio::test]
async fn a_handler_of_the_configuration_hides_an_upload_of_its_name() {
    let mut server = Server::start("");
    put(&server, named("hello"), &printing("uploaded")).await.unwrap();
    let reloads = |server: &Server| server.log().matches("reloaded the configuration").count();
    let configured =
        "[[handler]]\nname = \"hello\"\nrunner = \"process\"\nargv = [\"/bin/echo\", \"-n\", \"configured\"]\n";
    for (config, expected) in [(configured, "configured"), ("", "uploaded")] {
        let before = reloads(&server);
        std::fs::write(server.path("config.draft"), config).unwrap();
        std::fs::rename(server.path("config.draft"), server.path("config.toml")).unwrap();
        eventually(async || check(reloads(&server) > before, || server.log())).await;
        assert_eq!(result(&server, "hello").await, expected);
        if expected == "configured" {
            server.kill9();
            server.start_again();
            assert_eq!(result(&server, "hello").await, expected, "after a restart");
        }
    }
    assert_eq!(names(&server.path("data/modules")).len(), 1);
}

#[tokio::test]
async fn a_module_that_was_damaged_fails_its_tasks_until_it_is_uploaded_again() {
    let mut server = Server::start("");
    let uploaded = put(&server, named("echo"), &guest("echo")).await.unwrap();
    put(&server, named("hello"), &printing("hello")).await.unwrap();
    server.kill9();
    let file = server.path("data/modules").join(file_of(&uploaded));
    std::fs::write(&file, printing("forged")).unwrap();
    server.start_again();
    let once = Some(v1::RetryPolicy { max_attempts: 1, ..Default::default() });
    let request = v1::SubmitTaskRequest { retry: once, ..task("echo", "") };
    let failure = server.wait_finished(&server.submit(request).await).await.failure.unwrap();
    assert_eq!(failure.reason(), FailureReason::HandlerError);
    assert!(failure.message.contains("its content has changed since the upload"), "{failure:?}");
    assert_eq!(result(&server, "hello").await, "hello");
    assert!(server.log().contains("attempts of an uploaded handler will fail"));
    put(&server, named("echo"), &guest("echo")).await.unwrap();
    assert_eq!(result(&server, "echo").await, "payload");
    assert_eq!(std::fs::read(file).unwrap(), guest("echo"));
}

#[tokio::test]
async fn an_upload_that_cannot_be_written_is_refused_and_changes_nothing() {
    let faults = Faults::new();
    let variables = faults.variables();
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, &**value)).collect();
    let server = Server::start_with("", &variables);
    let old = put(&server, named("hello"), &printing("old")).await.unwrap();
    for rule in ["write eio .draft", "write torn .draft", "sync eio .draft"] {
        faults.set(&[rule]);
        let refused = put(&server, named("hello"), &printing("new")).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "STORE_UNAVAILABLE"), "{rule}");
        assert!(faults.applied(rule) > 0, "{rule}");
        assert_eq!(handler(&server, "hello").await.unwrap(), old);
        assert_eq!(names(&server.path("data/modules")), [file_of(&old)].into(), "{rule}");
    }
    assert_eq!(result(&server, "hello").await, "old");
    faults.clear();
    put(&server, named("hello"), &printing("new")).await.unwrap();
    assert_eq!(result(&server, "hello").await, "new");
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let server = Server::start("");
    let module = guest("echo");
    let settings = v1::WasmHandler { module_bytes: i64::try_from(module.len()).unwrap(), ..named("echo") };
    let (parts, requests) = tokio::sync::mpsc::channel(1);
    let mut client = server.handlers();
    let call =
        tokio::spawn(async move { client.put_handler(tokio_stream::wrappers::ReceiverStream::new(requests)).await });
    for (handler, part) in [(Some(settings.clone()), &module[..10]), (None, &module[10..20])] {
        parts.send(v1::PutHandlerRequest { handler, module: part.to_vec() }).await.unwrap();
    }
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    assert_eq!(reason(&handler(&server, "echo").await.unwrap_err()), "UNKNOWN_HANDLER");
    assert!(names(&server.path("data/modules")).is_empty());
    put(&server, settings, &module).await.unwrap();
    assert_eq!(result(&server, "echo").await, "payload");
}

#[tokio::test]
async fn a_running_task_outlives_its_deleted_handler_and_a_waiting_one_fails() {
    let server = Server::start("[[pool]]\nname = \"default\"\nsize = 1\n");
    put(&server, named("work"), &guest("spin")).await.unwrap();
    let running = server.submit(task("work", "")).await;
    let once = Some(v1::RetryPolicy { max_attempts: 1, ..Default::default() });
    let waiting = server.submit(v1::SubmitTaskRequest { retry: once, ..task("work", "") }).await;
    server.wait_started(&running).await;
    delete(&server, "work").await.unwrap();
    assert_eq!(server.get(&running).await.state(), TaskState::Running);
    let request = v1::CancelTaskRequest { task_id: running.clone(), ..Default::default() };
    server.tasks().cancel_task(request).await.unwrap();
    assert_eq!(server.wait_finished(&running).await.state(), TaskState::Cancelled);
    let failure = server.wait_finished(&waiting).await.failure.unwrap();
    assert!(failure.message.contains("handler `work` is not registered"), "{failure:?}");
    // The file goes with the next change.
    let uploaded = put(&server, named("hello"), &printing("hello")).await.unwrap();
    assert_eq!(names(&server.path("data/modules")), [file_of(&uploaded)].into());
}

#[tokio::test]
async fn a_server_that_keeps_nothing_takes_uploads() {
    let server = Server::start_with("", &[IN_MEMORY]);
    put(&server, named("echo"), &guest("echo")).await.unwrap();
    assert_eq!(result(&server, "echo").await, "payload");
}

#[tokio::test]
async fn a_backup_contains_the_modules_and_a_check_verifies_them() {
    let mut server = Server::start("");
    put(&server, named("hello"), &printing("old")).await.unwrap();
    let uploaded = put(&server, named("hello"), &printing("new")).await.unwrap();
    let (data, copies) = (server.path("data"), tempfile::tempdir().unwrap());
    let copy = copies.path().join("copy");
    let store = |arguments: &[&str]| run(BINARY, [&["store"], arguments].concat());
    let (ok, output) = store(&["backup", "--data-dir", data.to_str().unwrap(), "--to", copy.to_str().unwrap()]);
    assert!(ok && output.contains("modules     1"), "{output}");
    assert_eq!(names(&copy.join("modules")), [file_of(&uploaded)].into());
    let file = copy.join("modules").join(file_of(&uploaded));
    assert_eq!((mode(&copy.join("modules")), mode(&file)), (0o700, 0o600));

    std::fs::write(&file, "forged").unwrap();
    let (ok, output) = store(&["check", copy.to_str().unwrap()]);
    assert!(!ok && output.contains("its content has changed") && output.contains(&file_of(&uploaded)), "{output}");
    std::fs::remove_file(&file).unwrap();
    let (ok, output) = store(&["check", copy.to_str().unwrap()]);
    assert!(!ok && output.contains("the module of handler `hello`"), "{output}");
    std::fs::write(&file, printing("new")).unwrap();

    server.kill9();
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&copy, &data).unwrap();
    server.start_again();
    assert_eq!(result(&server, "hello").await, "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_uploads_shows_and_deletes_a_handler() {
    let server = Server::start("");
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("describe.wasm"), guest("describe")).unwrap();
    std::fs::write(path("script"), "#!/bin/sh\n").unwrap();
    std::fs::File::create(path("large.wasm")).unwrap().set_len(100_000_000).unwrap();
    let call =
        |arguments: &[&str]| run(BINARY, [&["--server", &format!("http://{}", server.address)], arguments].concat());

    let put = ["handler", "put", "describe", "--wasm", &path("describe.wasm"), "--description", "of itself"];
    let settings = ["--timeout", "5s", "--memory", "1", "--content-type", "text/x-parts", "--arg-pattern", "[a-z]+"];
    let (ok, output) = call(&[&put[..], &settings, &["--", "me", "--all"]].concat());
    assert!(ok && output.contains("upload") && output.contains("of itself") && output.contains("sha256"), "{output}");
    let (ok, output) = call(&["handler", "list", "--wide"]);
    let row = output.lines().find(|line| line.starts_with("describe"));
    assert!(ok && row.is_some_and(|row| row.contains("wasm") && row.contains("upload")), "{output}");
    let (ok, output) = call(&["task", "run", "describe", "--arg", "one"]);
    assert!(ok && output.contains("me\0--all\0one\0"), "{output:?}");

    for (file, expected) in [
        ("script", "`module` is not a WebAssembly module or component in binary form"),
        ("large.wasm", "`handler.module_bytes` is 100000000, must be from 1 to 67108864 bytes"),
        ("missing", "failed to read"),
    ] {
        let (ok, output) = call(&["handler", "put", "other", "--wasm", &path(file)]);
        assert!(!ok && output.contains(expected), "{file}: {output}");
    }
    let no_schema = ["handler", "put", "other", "--wasm", &path("describe.wasm"), "--schema", &path("script")];
    let (ok, output) = call(&no_schema);
    assert!(!ok && output.contains("`handler.payload_schema` is not JSON"), "{output}");
    let (ok, output) = call(&["handler", "put", "compute", "--wasm", &path("describe.wasm")]);
    assert!(!ok && output.contains("HANDLER_NOT_UPLOADED"), "{output}");
    let (ok, output) = call(&["handler", "delete", "describe"]);
    assert!(ok && output.contains("describe deleted"), "{output}");
    let (ok, output) = call(&["handler", "delete", "describe"]);
    assert!(!ok && output.contains("UNKNOWN_HANDLER"), "{output}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_module_arrives_whole_while_tasks_run() {
    let server = Server::start("");
    // A data segment of random bytes does not make compiling longer.
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        format!("\\{:02x}", state >> 56)
    };
    let data: String = (0..3_000_000).map(|_| next()).collect();
    let module = format!(r#"(module (memory 100) (data (i32.const 0) "{data}") (func (export "_start")))"#);
    let module = wat::parse_str(module).unwrap();
    let busy = async {
        for _ in 0..20 {
            assert_eq!(
                server.wait_finished(&server.submit(crate::support::noop()).await).await.state(),
                TaskState::Completed
            );
        }
    };
    let first = v1::WasmHandler { module_bytes: i64::try_from(module.len()).unwrap(), ..named("large") };
    let first = v1::PutHandlerRequest { handler: Some(first), module: module[..1_000].to_vec() };
    let parts = module[1_000..].chunks(64 << 10);
    let parts = parts.map(|part| v1::PutHandlerRequest { handler: None, module: part.to_vec() });
    let requests: Vec<_> = std::iter::once(first).chain(parts).collect();
    let mut handlers = server.handlers();
    let (uploaded, ()) = tokio::join!(handlers.put_handler(tokio_stream::iter(requests)), busy);
    let handler = uploaded.unwrap().into_inner().handler.unwrap();
    assert_eq!(std::fs::read(server.path("data/modules").join(file_of(&handler))).unwrap(), module);
    assert_eq!(result(&server, "large").await, "");
}
