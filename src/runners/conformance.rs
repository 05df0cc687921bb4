//! Tests that every runner must pass.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::builtin::{Compute, Heavy, Io};
#[cfg(feature = "export")]
use super::export::{Database, ExportOptions, ExportRunner, Source};
use super::fixtures::{Attempt, TIMEOUT, process_host};
use super::http::test_service::{Reply, Service, response, silence};
use super::process::{ProcessOptions, ProcessRunner};
use super::remote::played;
#[cfg(feature = "wasm")]
use super::wasm::test_guests::{Guests, component, module};
use super::{Outcome, Runner, StopCause, StopSignal};
use crate::model::{FailureReason, StopMethod};

/// A runner, a payload that keeps it busy for hours, and the stop methods that it reports.
struct Endless {
    name: &'static str,
    runner: Arc<dyn Runner>,
    payload: &'static str,
    requested: StopMethod,
    forced: StopMethod,
}

fn endless(directory: &tempfile::TempDir) -> Vec<Endless> {
    let mut cases = endless_guests();
    #[cfg(feature = "export")]
    cases.push(endless_query(directory));
    cases.extend(endless_work(directory));
    cases
}

/// Guests that use the CPU, and guests that wait in a call of the host.
#[cfg(feature = "wasm")]
fn endless_guests() -> Vec<Endless> {
    let guests = Guests::new();
    let modules = [("wasm", module("spin")), ("wasm component", component("spin"))];
    let modules =
        modules.into_iter().chain([("sleeping wasm", module("sleep")), ("sleeping component", component("sleep"))]);
    let endless = |(name, binary): (_, Vec<u8>)| Endless {
        name,
        runner: guests.runner(&binary),
        payload: "",
        requested: StopMethod::Abort,
        forced: StopMethod::Abort,
    };
    modules.map(endless).collect()
}

/// A query that computes without end before its first row.
#[cfg(feature = "export")]
fn endless_query(directory: &tempfile::TempDir) -> Endless {
    let path = directory.path().join("endless.db");
    std::fs::write(&path, b"").unwrap();
    let query = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) AS rows FROM n";
    let (columns, filters, fonts) = (Vec::new(), Vec::new(), Vec::new());
    let (database, source) = (Database::Sqlite(path), Source::Query(query.to_owned()));
    let options = ExportOptions { database, source, columns, filters, fonts };
    let (requested, forced) = (StopMethod::Token, StopMethod::Token);
    Endless { name: "export", runner: Arc::new(ExportRunner::new(options).unwrap()), payload: "", requested, forced }
}

#[cfg(not(feature = "wasm"))]
fn endless_guests() -> Vec<Endless> {
    Vec::new()
}

fn endless_work(directory: &tempfile::TempDir) -> Vec<Endless> {
    let host = process_host(directory.path());
    let argv = ["/bin/sh", "-c", "cat; sleep 1000"].map(String::from).to_vec();
    let process = ProcessRunner::new(ProcessOptions { argv, ..ProcessOptions::default() }, host).unwrap();
    let token = |name, runner, payload| Endless {
        name,
        runner,
        payload,
        requested: StopMethod::Token,
        forced: StopMethod::Token,
    };
    vec![
        token("compute", Arc::new(Compute) as Arc<dyn Runner>, "1000000000000"),
        token("compute", Arc::new(Compute) as Arc<dyn Runner>, r#"{"op": "primes", "n": 1000000000}"#),
        token("heavy", Arc::new(Heavy::new(None)), r#"{"megabytes": 2, "rounds": 100000}"#),
        token("io", Arc::new(Io), "86400"),
        Endless {
            name: "process",
            runner: Arc::new(process),
            payload: "payload",
            requested: StopMethod::SignalTerm,
            forced: StopMethod::SignalKill,
        },
        Endless {
            name: "http",
            runner: Service::start(|_| silence()).runner(),
            payload: "payload",
            requested: StopMethod::Abort,
            forced: StopMethod::Abort,
        },
        Endless {
            name: "http with a cancel URL",
            runner: stoppable_service().runner_with_cancel(),
            payload: "payload",
            requested: StopMethod::Token,
            forced: StopMethod::Abort,
        },
        Endless {
            name: "remote",
            runner: played::runner(),
            payload: "endless",
            requested: StopMethod::Token,
            forced: StopMethod::Abort,
        },
    ]
}

/// A service that works until its cancel URL is called.
fn stoppable_service() -> Service {
    let cancelled = CancellationToken::new();
    Service::start(move |request| {
        if request.line.starts_with("POST") {
            return Reply::After(cancelled.clone(), b"HTTP/1.1 409 Conflict\r\ncontent-length: 0\r\n\r\n".into());
        }
        cancelled.cancel();
        response("204 No Content", "", "")
    })
}

/// A service that does not stop when its cancel URL is called.
fn stubborn_service() -> Service {
    Service::start(
        |request| if request.line.starts_with("POST") { silence() } else { response("202 Accepted", "", "") },
    )
}

/// Runs a script; the grace period after a deadline is that of the handler.
fn script(directory: &tempfile::TempDir, script: &str) -> Arc<dyn Runner> {
    let argv = ["/bin/sh", "-c", script].map(String::from).to_vec();
    let options = ProcessOptions { argv, ..ProcessOptions::default() };
    Arc::new(ProcessRunner::new(options, process_host(directory.path())).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_runner_stops_on_a_requested_timeout() {
    let directory = tempfile::tempdir().unwrap();
    for case in endless(&directory) {
        let stop = Arc::<StopSignal>::default();
        stop.start_timeout(Duration::from_millis(20));
        stop.request(StopCause::Timeout, TIMEOUT);
        let outcome = Attempt::start_with(&case.runner, case.payload, &[], stop).outcome().await;
        assert!(matches!(outcome, Outcome::Stopped(method) if method == case.requested), "{}: {outcome:?}", case.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_runner_stops_at_its_deadline() {
    let directory = tempfile::tempdir().unwrap();
    for case in endless(&directory) {
        let stop = Arc::<StopSignal>::default();
        stop.start_timeout(Duration::from_millis(20));
        let outcome = Attempt::start_with(&case.runner, case.payload, &[], Arc::clone(&stop)).outcome().await;
        // With a grace of zero, a process may be killed before it reacts to SIGTERM.
        let stopped = matches!(outcome, Outcome::Stopped(method) if method == case.requested || method == case.forced);
        assert!(stopped, "{}: {outcome:?}", case.name);
        assert_eq!(stop.cause(), Some(StopCause::Timeout));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_runner_stops_on_cancel_and_drain() {
    let directory = tempfile::tempdir().unwrap();
    for cause in [StopCause::Cancel, StopCause::Drain] {
        for case in endless(&directory) {
            let attempt = Attempt::start(&case.runner, case.payload);
            attempt.stop.request(cause, TIMEOUT);
            let outcome = attempt.outcome().await;
            assert!(
                matches!(outcome, Outcome::Stopped(method) if method == case.requested),
                "{}: {outcome:?}",
                case.name
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_runner_stops_at_once_on_force() {
    let directory = tempfile::tempdir().unwrap();
    for case in endless(&directory) {
        let attempt = Attempt::start(&case.runner, case.payload);
        attempt.stop.request(StopCause::Force, TIMEOUT);
        let outcome = attempt.outcome().await;
        assert!(matches!(outcome, Outcome::Stopped(method) if method == case.forced), "{}: {outcome:?}", case.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_runner_ends_an_attempt_that_was_asked_to_stop_before_it_began() {
    let directory = tempfile::tempdir().unwrap();
    for cause in [StopCause::Cancel, StopCause::Force] {
        for case in endless(&directory) {
            let stop = Arc::<StopSignal>::default();
            stop.request(cause, TIMEOUT);
            let outcome = Attempt::start_with(&case.runner, case.payload, &[], stop).outcome().await;
            assert!(matches!(outcome, Outcome::Stopped(_)), "{}: {outcome:?}", case.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_after_the_end_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let cases: [(_, Arc<dyn Runner>, _, _); 6] = [
        ("compute", Arc::new(Compute), "1", r#"{"op":"sum","n":1,"value":0}"#),
        ("heavy", Arc::new(Heavy::new(None)), r#"{"megabytes": 1, "rounds": 1}"#, ""),
        ("io", Arc::new(Io), "0", ""),
        ("process", script(&directory, "cat"), "text", "text"),
        ("http", Service::echo().runner(), "text", "text"),
        ("remote", played::runner(), "text", "text"),
    ];
    #[cfg(feature = "wasm")]
    let guests = [
        ("wasm", Guests::new().runner(&module("echo")), "text", "text"),
        ("wasm component", Guests::new().runner(&component("echo")), "text", "text"),
    ];
    #[cfg(not(feature = "wasm"))]
    let guests = [];
    for (name, runner, payload, expected) in cases.into_iter().chain(guests) {
        let attempt = Attempt::start(&runner, payload);
        let (stop, output) = (attempt.stop.clone(), attempt.output.clone());
        let result = attempt.result().await;
        stop.request(StopCause::Force, Duration::ZERO);
        assert!(expected.is_empty() || result == expected, "{name}: {result:?}");
        assert_eq!(output.total(), if name == "process" { 4 } else { 0 }, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_ignores_a_stop_ends_only_when_it_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let ignores = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
    let service = stubborn_service();
    let cases = [
        ("process", script(&directory, ignores), "", StopMethod::SignalKill),
        ("http", service.runner_with_cancel(), "", StopMethod::Abort),
        ("remote", played::runner(), "stubborn", StopMethod::Abort),
    ];
    for (name, runner, payload, method) in cases {
        let mut attempt = Attempt::start(&runner, payload);
        match name {
            "process" => drop(attempt.wait_for_output("ready").await),
            "http" => service.wait_for_requests(1).await,
            _ => {}
        }
        attempt.stop.request(StopCause::Cancel, Duration::from_hours(1));
        assert!(!attempt.ends_within(Duration::from_millis(100)).await, "{name}: its work has not stopped");
        attempt.stop.request(StopCause::Force, Duration::ZERO);
        let outcome = attempt.outcome().await;
        assert!(matches!(outcome, Outcome::Stopped(found) if found == method), "{name}: {outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn output_and_progress_are_seen_while_an_attempt_runs() {
    let directory = tempfile::tempdir().unwrap();
    let argv = ["/bin/sh", "-c", "echo progress 0.5 >&3; echo spoken; sleep 1000"].map(String::from).to_vec();
    let options = ProcessOptions { argv, reports: true, ..ProcessOptions::default() };
    let reporting: Arc<dyn Runner> = Arc::new(ProcessRunner::new(options, process_host(directory.path())).unwrap());
    let cases = [("process", reporting, ""), ("remote", played::runner(), "speak")];
    for (name, runner, payload) in cases {
        let attempt = Attempt::start(&runner, payload);
        attempt.wait_for_output("spoken\n").await;
        let progress = attempt.progress.clone();
        attempt.stop.request(StopCause::Force, Duration::ZERO);
        attempt.outcome().await;
        assert_eq!(*progress.lock(), [0.5], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_or_dies_ends_its_attempt_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let failed = Attempt::start(&script(&directory, "exit 3"), "").failure().await;
    assert_eq!(failed.exit_code, Some(3), "{failed:?}");
    let killed = Attempt::start(&script(&directory, "kill -9 $$"), "").failure().await;
    assert_eq!(killed.signal, Some(9), "{killed:?}");
    let refusing = Service::start(|_| response("403 Forbidden", "", "not yours"));
    let failed = Attempt::start(&refusing.runner(), "").failure().await;
    assert_eq!((failed.reason, &*failed.detail), (FailureReason::HandlerError, "not yours"));
    let failed = Attempt::start(&played::runner(), "fail").failure().await;
    assert_eq!((failed.reason, &*failed.message), (FailureReason::HandlerError, "failed"));
    let outcome = Attempt::start(&played::runner(), "vanish").outcome().await;
    assert!(matches!(outcome, Outcome::WorkerLost), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn runners_of_other_programs_report_the_cpu_time_of_an_attempt() {
    let directory = tempfile::tempdir().unwrap();
    for (name, runner) in [("process", script(&directory, "cat")), ("remote", played::runner())] {
        let report = Attempt::start(&runner, "text").report().await;
        assert!(report.cpu_time.is_some(), "{name}: {report:?}");
    }
}
