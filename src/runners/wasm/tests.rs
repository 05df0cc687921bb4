//! Tests of WebAssembly guests only: what they are granted, hostile guests, bad modules, and the cache.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::options::ModuleError;
use super::test_guests::{Guests, component, module};
use super::{Engine, OptionsError, WasmOptions, WasmRunner};
use crate::model::limits::{INLINE_BYTES_MAX, OUTPUT_KEPT_BYTES};
use crate::model::{ArgPattern, FailureReason, MemoryAccount, MemoryPart, OutputStream, StopMethod};
use crate::runners::fixtures::Attempt;
use crate::runners::{Outcome, Runner, StopCause, StopSignal};

/// A guest in both forms.
fn both(name: &str) -> [(String, Vec<u8>); 2] {
    [(format!("module {name}"), module(name)), (format!("component {name}"), component(name))]
}

/// Runs a guest until it fails.
async fn failure(guests: &Guests, binary: &[u8], payload: &'static str) -> crate::model::Failure {
    Attempt::start(&guests.runner(binary), payload).failure().await
}

#[tokio::test(flavor = "multi_thread")]
async fn stdin_is_the_payload_and_stdout_the_result() {
    let guests = Guests::new();
    for (name, binary) in both("echo") {
        for size in [0, 1, 70_000, INLINE_BYTES_MAX] {
            let payload: Vec<u8> = (0_u8..=250).cycle().take(size).collect();
            let attempt = Attempt::start(&guests.runner(&binary), payload.clone());
            let output = attempt.output.clone();
            assert!(attempt.result().await == payload, "{name}, {size} bytes");
            assert_eq!(output.total(), 0, "{name}");
        }
        let payload: Vec<u8> = (0_u8..=250).cycle().take(3_000_000).collect();
        let account = MemoryAccount::new(|_| 6 << 20);
        let held = account.reserve(MemoryPart::Requests, 3 << 20).unwrap();
        let mut attempt = Attempt::start_large(&guests.runner(&binary), payload.clone(), &account);
        assert!(!attempt.ends_within(Duration::from_millis(50)).await, "{name}: there is no memory");
        drop(held);
        assert!(attempt.result().await == payload, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_sees_its_arguments_and_variables_and_nothing_else() {
    let guests = Guests::new();
    for (name, binary) in both("describe") {
        let options = WasmOptions {
            argv: ["describe", "--all"].map(String::from).to_vec(),
            arg_pattern: Some(ArgPattern::parse("[a-z]+").unwrap()),
            env: [("LEVEL".to_owned(), "7".to_owned().into())].into(),
            env_pass: vec!["CARGO_MANIFEST_DIR".to_owned(), "NOT_SET".to_owned()],
            ..WasmOptions::default()
        };
        let runner = guests.runner_with(&binary, options);
        let result = Attempt::start_with(&runner, "", &["one", "two"], Arc::default()).result().await;
        let text = String::from_utf8(result.to_vec()).unwrap();
        let parts: Vec<_> = text.split_terminator('\0').collect();
        let directory = format!("CARGO_MANIFEST_DIR={}", env!("CARGO_MANIFEST_DIR"));
        let expected = [
            "describe",
            "--all",
            "one",
            "two",
            &directory,
            "LEVEL=7",
            "LINESHAFT_TASK_ID=task-7",
            "LINESHAFT_ATTEMPT=2",
            "no directory",
            "clock stands still",
        ];
        assert_eq!(parts, expected, "{name}");
        let refused = Attempt::start_with(&runner, "", &["Two"], Arc::default()).failure().await;
        assert_eq!(refused.reason, FailureReason::InvalidPayload, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_has_a_clock_and_the_name_of_its_file() {
    let guests = Guests::new();
    for (name, binary) in both("describe") {
        let runner = guests.runner_with(&binary, WasmOptions { clock: true, ..WasmOptions::default() });
        let result = Attempt::start(&runner, "").result().await;
        let text = String::from_utf8(result.to_vec()).unwrap();
        assert!(text.starts_with("guest.wasm\0") && text.ends_with("\0no directory\0"), "{name}: {text:?}");
        let refused = Attempt::start_with(&runner, "", &["one"], Arc::default()).failure().await;
        assert!(refused.message.contains("must be empty"), "{name}: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stderr_is_the_log_while_a_guest_runs() {
    let guests = Guests::new();
    for (name, binary) in both("spin") {
        let mut attempt = Attempt::start(&guests.runner(&binary), "");
        assert!(attempt.output.changed(0).await, "{name}");
        assert_eq!(attempt.output.last_text(OutputStream::Stderr, 100), "spoken\n", "{name}");
        assert!(!attempt.ends_within(Duration::from_millis(20)).await, "{name}");
        attempt.stop.request(StopCause::Cancel, Duration::from_hours(1));
        let outcome = attempt.outcome().await;
        assert!(matches!(outcome, Outcome::Stopped(StopMethod::Abort)), "{name}: {outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_guests_end_with_their_reasons() {
    let guests = Guests::new();
    for (guest, payload, reason, message) in [
        ("grow_memory", "", FailureReason::OutOfMemory, "reached the memory limit of 134217728 bytes"),
        ("grow_table", "", FailureReason::OutOfMemory, "reached the limit of 100000 table elements"),
        ("recurse", "", FailureReason::StackOverflow, "call stack exhausted; it has 512 KiB"),
        ("divide", "", FailureReason::Panic, "wasm trap: integer divide by zero"),
        ("flood", "1", FailureReason::ResultTooLarge, "result has more than 1048576 bytes, which is the limit"),
    ] {
        for (name, binary) in both(guest) {
            let failure = failure(&guests, &binary, payload).await;
            assert_eq!((failure.reason, &*failure.message), (reason, message), "{name}: {failure:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_lists_the_active_functions() {
    let failure = failure(&Guests::new(), &module("divide"), "").await;
    assert!(failure.detail.contains("divide"), "{failure:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_guest_that_writes_without_end_is_bounded() {
    let guests = Guests::new();
    for (name, binary) in both("flood") {
        let attempt = Attempt::start(&guests.runner(&binary), "2");
        let output = attempt.output.clone();
        let mut total = 0;
        while total < 20 << 20 {
            assert!(output.changed(total).await);
            total = output.total();
        }
        attempt.stop.request(StopCause::Force, Duration::ZERO);
        attempt.outcome().await;
        let log = output.captured().unwrap().stderr;
        assert_eq!((log.head.len(), log.tail.len()), (OUTPUT_KEPT_BYTES, OUTPUT_KEPT_BYTES), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_are_failures_or_permanent_failures() {
    let guests = Guests::new();
    let options = WasmOptions {
        permanent_exit_codes: vec![2..=100, 200..=255],
        retry_exit_codes: vec![75..=75],
        content_type: Some("application/json".into()),
        ..WasmOptions::default()
    };
    let runner = guests.runner_with(&module("exit"), options);
    for (code, retryable) in [(1_u8, true), (2, false), (75, true), (130, true), (255, false)] {
        let failure = Attempt::start(&runner, vec![code]).failure().await;
        assert_eq!((failure.exit_code, failure.retryable), (Some(code.into()), retryable), "{failure:?}");
        assert_eq!((failure.reason, &*failure.detail), (FailureReason::HandlerError, "bye!\n"));
        assert_eq!(failure.message, format!("exited with code {code}"));
    }
    let Outcome::Completed(result) = Attempt::start(&runner, vec![0]).outcome().await else {
        panic!("it exits with 0")
    };
    assert_eq!((&*result.data, &*result.content_type), (&b"bye!\n"[..], "application/json"));
    // A component can only say that it has failed.
    let failure = Attempt::start(&guests.runner(&component("exit")), vec![9]).failure().await;
    assert_eq!((failure.reason, failure.exit_code), (FailureReason::HandlerError, Some(1)));
    assert!(Attempt::start(&guests.runner(&component("exit")), vec![0]).result().await == "bye!\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_spins_or_sleeps_ends_at_its_deadline() {
    let guests = Guests::new();
    for (name, binary) in both("spin").into_iter().chain(both("sleep")) {
        let stop = Arc::<StopSignal>::default();
        stop.start_timeout(Duration::from_millis(30));
        let started = Instant::now();
        let outcome = Attempt::start_with(&guests.runner(&binary), "", &[], Arc::clone(&stop)).outcome().await;
        assert!(matches!(outcome, Outcome::Stopped(StopMethod::Abort)), "{name}: {outcome:?}");
        assert!(started.elapsed() >= Duration::from_millis(30) && stop.cause() == Some(StopCause::Timeout), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_uses_time_and_memory() {
    let guests = Guests::new();
    let report = Attempt::start(&guests.runner(&module("grow_memory")), "").report().await;
    assert!(report.cpu_time.is_some_and(|time| !time.is_zero()), "{report:?}");
    assert!(report.peak_memory_bytes.is_some_and(|bytes| bytes > 120 << 20), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_do_not_see_each_other() {
    let guests = Guests::new();
    let echo = guests.runner(&module("echo"));
    let hostile = ["grow_memory", "recurse", "divide"].map(|name| guests.runner(&module(name)));
    for round in 0..20 {
        let attempts: Vec<_> = hostile.iter().map(|runner| Attempt::start(runner, "")).collect();
        let payload = format!("round {round}");
        assert!(Attempt::start(&echo, payload.clone()).result().await == payload);
        for attempt in attempts {
            attempt.failure().await;
        }
    }
}

#[test]
fn a_module_that_cannot_run_is_refused_with_the_reason() {
    let guests = Guests::new();
    let refused = |binary: &[u8]| guests.load(binary, WasmOptions::default()).err().expect("it is refused").to_string();
    for (binary, reason) in [
        (b"".to_vec(), "is not a WebAssembly module or component"),
        (b"#!/bin/sh\n".to_vec(), "is not a WebAssembly module or component"),
        (b"\0asm\x01\0\0\0\x7f".to_vec(), "is not valid: "),
        (wat::parse_str("(module)").unwrap(), "exports no function `_start`"),
        (wat::parse_str(r#"(module (func (export "_start") (param i32)))"#).unwrap(), "exports no function `_start`"),
        (
            wat::parse_str(r#"(module (import "env" "f" (func)) (func (export "_start")))"#).unwrap(),
            "unknown import: `env::f`",
        ),
        (wat::parse_str("(component)").unwrap(), "does not export `wasi:cli/run@0.2`"),
        (wat::parse_str(r#"(component (import "a:b/c" (instance (export "f" (func)))))"#).unwrap(), "a:b/c"),
        (
            wat::parse_str(r#"(module (memory 3000) (func (export "_start")))"#).unwrap(),
            "needs more than 134217728 bytes of memory to start; raise the limit",
        ),
        (
            wat::parse_str(r#"(module (func $f unreachable) (start $f) (func (export "_start")))"#).unwrap(),
            "cannot be instantiated: ",
        ),
        (
            wat::parse_str(r#"(module (memory 1) (data (i32.const 65536) "a") (func (export "_start")))"#).unwrap(),
            "out of bounds",
        ),
    ] {
        let text = refused(&binary);
        assert!(text.contains("guest.wasm`") && text.contains(reason) && !text.contains('\n'), "{text}");
    }
    let missing = WasmOptions { module: "/does/not/exist.wasm".into(), ..WasmOptions::default() };
    let error = WasmRunner::new(missing, Arc::clone(&guests.engine)).err().unwrap();
    assert!(error.to_string().contains("failed to read `/does/not/exist.wasm`"), "{error}");
}

#[test]
fn a_module_that_is_too_large_is_not_read() {
    let guests = Guests::new();
    let path = guests.file(b"\0asm");
    std::fs::File::options().write(true).open(&path).unwrap().set_len(100_000_000).unwrap();
    let options = WasmOptions { module: path, ..WasmOptions::default() };
    let error = WasmRunner::new(options, Arc::clone(&guests.engine)).err().unwrap();
    assert!(error.to_string().contains("has more than 67108864 bytes"), "{error}");
}

#[test]
fn a_start_function_that_loops_is_an_error_after_some_seconds() {
    let error = Guests::new().load(&module("loop_in_start"), WasmOptions::default()).err().unwrap();
    assert!(matches!(error, OptionsError::Module { problem: ModuleError::StartTimeout, .. }), "{error}");
}

/// The only file in a directory.
fn only_file(directory: &Path) -> std::path::PathBuf {
    let files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn compiled_modules_are_kept_on_disk_and_changed_ones_are_not_used() {
    let (guests, directory) = (Guests::new(), tempfile::tempdir().unwrap());
    let cache = directory.path().join("wasm");
    for (_, binary) in both("echo") {
        let options = WasmOptions { module: guests.file(&binary), ..WasmOptions::default() };
        let load = || {
            let engine = Engine::new(Some(&cache)).unwrap();
            let runner: Arc<dyn Runner> = Arc::new(WasmRunner::new(options.clone(), Arc::new(engine)).unwrap());
            runner
        };
        drop(load());
        let file = only_file(&cache);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&cache), mode(&file)), (0o700, 0o600));
        let written = std::fs::metadata(&file).unwrap().modified().unwrap();
        assert!(Attempt::start(&load(), "from the cache").result().await == "from the cache");
        assert_eq!(std::fs::metadata(&file).unwrap().modified().unwrap(), written, "it was compiled again");

        let good = std::fs::read(&file).unwrap();
        let mut changed = good.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        for bad in [&changed[..], &good[..good.len() - 1], b"short"] {
            std::fs::write(&file, bad).unwrap();
            assert!(Attempt::start(&load(), "compiled again").result().await == "compiled again");
            assert!(std::fs::read(&file).unwrap() == good, "it was not written again");
        }
        // Another user could have written it.
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o660)).unwrap();
        assert!(Attempt::start(&load(), "trusted again").result().await == "trusted again");
        assert_eq!(mode(&only_file(&cache)), 0o600);
        std::fs::remove_file(&file).unwrap();
    }
}

#[test]
fn compiled_modules_that_no_handler_uses_are_removed() {
    let (guests, directory) = (Guests::new(), tempfile::tempdir().unwrap());
    let cache = directory.path().join("wasm");
    for guest in ["echo", "divide"] {
        let engine = Arc::new(Engine::new(Some(&cache)).unwrap());
        let options = WasmOptions { module: guests.file(&module(guest)), ..WasmOptions::default() };
        let _runner = WasmRunner::new(options, Arc::clone(&engine)).unwrap();
        engine.remove_unused();
        only_file(&cache);
    }
}
