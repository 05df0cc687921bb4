//! Tests that every runner must pass.

use std::sync::Arc;
use std::time::Duration;

use super::builtin::{Compute, Heavy, Io};
use super::fixtures::{Attempt, TIMEOUT, process_host};
use super::process::{ProcessOptions, ProcessRunner};
use super::{Outcome, Runner, StopCause, StopSignal};
use crate::model::StopMethod;

/// A runner, a payload that keeps it busy for hours, and the stop methods that it reports.
struct Endless {
    name: &'static str,
    runner: Arc<dyn Runner>,
    payload: &'static str,
    requested: StopMethod,
    forced: StopMethod,
}

fn endless(directory: &tempfile::TempDir) -> Vec<Endless> {
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
    ]
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
