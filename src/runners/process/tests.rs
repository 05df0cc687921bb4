//! Tests of processes only: groups, environment, limits, pipes, and the supervisor.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::supervisor::{SUBCOMMAND, Supervisor};
use super::{Host, Limits, OptionsError, ProcessOptions, ProcessRunner, supervise_main};
use crate::artifacts::AttemptArtifacts;
use crate::model::{ArgPattern, FailureReason, MemoryAccount, MemoryPart, OutputStream, StopMethod, limits};
use crate::runners::environment::VariableError;
use crate::runners::fixtures::{self, Attempt, TIMEOUT, process_host};
use crate::runners::{Outcome, Run, Runner, StopCause};

struct Fixture {
    directory: tempfile::TempDir,
    host: Arc<Host>,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let host = process_host(directory.path());
        Self { directory, host }
    }

    fn runner(&self, options: ProcessOptions) -> Arc<dyn Runner> {
        Arc::new(ProcessRunner::new(options, Arc::clone(&self.host)).unwrap())
    }

    fn sh(&self, script: &str) -> Arc<dyn Runner> {
        self.runner(sh(script))
    }

    fn limited(&self, limits: Limits, script: &str) -> Arc<dyn Runner> {
        self.runner(ProcessOptions { limits, ..sh(script) })
    }
}

fn sh(script: &str) -> ProcessOptions {
    ProcessOptions {
        argv: ["/bin/sh", "-c", script].map(String::from).to_vec(),
        grace: Duration::from_millis(50),
        ..ProcessOptions::default()
    }
}

/// Waits until the process is gone or a zombie.
async fn wait_until_dead(pid: &str) {
    let deadline = Instant::now() + TIMEOUT;
    while fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < deadline, "process {pid} is still running");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_of_the_largest_size_passes_through_a_process() {
    let fixture = Fixture::new();
    let payload: Vec<u8> = (0..limits::INLINE_BYTES_MAX).map(|n| u8::try_from(n % 253).unwrap()).collect();
    let result = Attempt::start(&fixture.sh("cat"), payload.clone()).result().await;
    assert_eq!(result, payload);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_need_not_read_its_payload() {
    let fixture = Fixture::new();
    let result = Attempt::start(&fixture.sh("exec 0<&-; echo done"), vec![b'x'; 1 << 20]).result().await;
    assert_eq!(result, "done\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_is_too_large_for_a_result_keeps_head_and_tail() {
    let fixture = Fixture::new();
    let attempt = Attempt::start(&fixture.sh("seq 1 1500000"), "");
    let output = Arc::clone(&attempt.output);
    assert_eq!(attempt.failure().await.reason, FailureReason::ResultTooLarge);
    let kept = output.captured().unwrap().stdout;
    assert_eq!(kept.total, 10_888_896);
    assert!(kept.head.starts_with(b"1\n2\n3\n") && kept.head.len() == limits::OUTPUT_KEPT_BYTES);
    assert!(kept.tail.ends_with(b"1499999\n1500000\n") && kept.tail.len() == limits::OUTPUT_KEPT_BYTES);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_result_waits_for_memory() {
    let fixture = Fixture::new();
    let account = MemoryAccount::new(|_| 6 << 20);
    let write = "head -c 3000000 /dev/zero";
    for script in [write.to_owned(), format!("{write}; {write} >$LINESHAFT_RESULT")] {
        let held = account.reserve(MemoryPart::Requests, 3 << 20).unwrap();
        let mut attempt = Attempt::start_large(&fixture.runner(reporting(&script)), "", &account);
        let output = Arc::clone(&attempt.output);
        while output.total() < 900_000 {
            assert!(output.changed(output.total()).await);
        }
        assert!(!attempt.ends_within(Duration::from_millis(50)).await);
        drop(held);
        let report = attempt.report().await;
        let Outcome::Completed(result) = &report.outcome else { panic!("{report:?}") };
        assert_eq!((result.data.len(), account.used(MemoryPart::Requests)), (3_000_000, 3_000_000));
        drop(report);
        assert_eq!(account.used(MemoryPart::Requests), 0);
    }
    let failure = Attempt::start_large(&fixture.sh("head -c 4194305 /dev/zero"), "", &account).failure().await;
    assert_eq!(failure.reason, FailureReason::ResultTooLarge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_killed_though_there_is_no_memory_for_its_result() {
    let fixture = Fixture::new();
    let account = MemoryAccount::new(|_| 0);
    let attempt = Attempt::start_large(&fixture.sh("yes"), "", &account);
    while attempt.output.total() < 900_000 {
        assert!(attempt.output.changed(attempt.output.total()).await);
    }
    attempt.stop.request(StopCause::Force, Duration::ZERO);
    assert!(matches!(attempt.outcome().await, Outcome::Stopped(StopMethod::SignalKill)));
}

/// The number that a program has written to stderr.
async fn number_in_log(attempt: &Attempt) -> String {
    loop {
        let log = attempt.output.last_text(OutputStream::Stderr, 100);
        if let Some(number) = log.strip_suffix('\n') {
            return number.to_owned();
        }
        assert!(attempt.output.changed(attempt.output.total()).await, "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_program_leaves_behind_is_killed_though_its_output_waits_for_memory() {
    let fixture = Fixture::new();
    let account = MemoryAccount::new(|_| 6 << 20);
    let held = account.reserve(MemoryPart::Requests, 3 << 20).unwrap();
    let mut attempt = Attempt::start_large(&fixture.sh("yes & echo $! >&2"), "", &account);
    wait_until_dead(&number_in_log(&attempt).await).await;
    assert!(!attempt.ends_within(Duration::from_millis(20)).await, "there is no memory for the result");
    drop(held);
    let report = attempt.report().await;
    assert!(report.output_incomplete && !matches!(report.outcome, Outcome::Stopped(_)), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_asked_to_stop_while_its_output_waits_for_memory() {
    let fixture = Fixture::new();
    let account = MemoryAccount::new(|_| 0);
    let script = "trap 'kill $!; exit' TERM; yes & echo $! >&2; wait";
    let attempt = Attempt::start_large(&fixture.sh(script), "", &account);
    while attempt.output.total() < 900_000 {
        assert!(attempt.output.changed(attempt.output.total()).await);
    }
    attempt.stop.request(StopCause::Cancel, Duration::from_hours(1));
    wait_until_dead(&number_in_log(&attempt).await).await;
    attempt.stop.request(StopCause::Force, Duration::ZERO);
    assert!(matches!(attempt.outcome().await, Outcome::Stopped(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_and_signals_are_failures_with_the_end_of_stderr() {
    let fixture = Fixture::new();
    let failure = Attempt::start(&fixture.sh("echo first >&2; echo last >&2; exit 3"), "").failure().await;
    assert_eq!((failure.reason, failure.exit_code, failure.signal), (FailureReason::HandlerError, Some(3), None));
    assert_eq!((&*failure.message, &*failure.detail), ("exited with code 3", "first\nlast\n"));
    assert!(failure.retryable);
    let failure = Attempt::start(&fixture.sh("kill -9 $$"), "").failure().await;
    assert_eq!((failure.reason, failure.exit_code, failure.signal), (FailureReason::Killed, None, Some(9)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registration_says_which_exit_codes_are_permanent() {
    let fixture = Fixture::new();
    for (permanent, retry, code, retryable) in [
        (vec![], vec![75..=75], 65, true),
        (vec![64..=78], vec![75..=75], 65, false),
        (vec![64..=78], vec![75..=75], 75, true),
        (vec![64..=78], vec![], 75, false),
        (vec![64..=78], vec![75..=75], 79, true),
    ] {
        let options =
            ProcessOptions { permanent_exit_codes: permanent, retry_exit_codes: retry, ..sh(&format!("exit {code}")) };
        let failure = Attempt::start(&fixture.runner(options.clone()), "").failure().await;
        assert_eq!((failure.exit_code, failure.retryable), (Some(code), retryable), "{options:?}");
    }
    let options = ProcessOptions { permanent_exit_codes: vec![1..=255], ..sh("kill -9 $$") };
    assert!(Attempt::start(&fixture.runner(options), "").failure().await.retryable, "a signal is no exit code");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_content_type_of_a_result_is_that_of_the_registration() {
    let fixture = Fixture::new();
    let content_type = async |options| match Attempt::start(&fixture.runner(options), "").outcome().await {
        Outcome::Completed(result) => result.content_type.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(content_type(sh("echo 1")).await, "text/plain");
    let json = ProcessOptions { content_type: Some("application/json".into()), ..sh("echo 1") };
    assert_eq!(content_type(json.clone()).await, "application/json");
    let argv = ["/bin/sh", "-c", "echo content-type text/csv >$LINESHAFT_REPORT; echo 1"].map(String::from).to_vec();
    assert_eq!(content_type(ProcessOptions { argv, reports: true, ..json }).await, "text/csv");
}

fn reporting(script: &str) -> ProcessOptions {
    ProcessOptions { reports: true, ..sh(script) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_reports_its_progress_and_writes_its_result_apart_from_its_output() {
    let fixture = Fixture::new();
    let script = "echo 'progress 0.25 reading' >$LINESHAFT_REPORT; echo talk; \
                  (echo 'progress 0.5' >&3); printf 'progress 0.75' >&3; echo result > file; cp file $LINESHAFT_RESULT";
    let attempt = Attempt::start(&fixture.runner(reporting(script)), "");
    let (progress, output) = (attempt.progress.clone(), attempt.output.clone());
    assert_eq!(attempt.result().await, "result\n");
    assert_eq!(*progress.lock(), [0.25, 0.5, 0.75]);
    assert_eq!(output.captured().unwrap().stdout.head, "talk\n");
    // What it prints is the result of a program that writes none.
    assert_eq!(Attempt::start(&fixture.runner(reporting("echo printed")), "").result().await, "printed\n");
    let script = "head -c 1048577 /dev/zero >$LINESHAFT_RESULT";
    let failure = Attempt::start(&fixture.runner(reporting(script)), "").failure().await;
    assert_eq!(failure.reason, FailureReason::ResultTooLarge);
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_seen_while_a_program_runs() {
    let fixture = Fixture::new();
    let attempt = Attempt::start(&fixture.runner(reporting("echo progress 0.5 >&3; echo said; sleep 1000")), "");
    attempt.wait_for_output("said").await;
    let deadline = Instant::now() + TIMEOUT;
    while *attempt.progress.lock() != [0.5] {
        assert!(Instant::now() < deadline, "{:?}", attempt.progress.lock());
        sleep(Duration::from_millis(2)).await;
    }
    attempt.stop.request(StopCause::Force, Duration::ZERO);
    attempt.outcome().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_says_why_it_fails_and_whether_to_try_again() {
    let fixture = Fixture::new();
    let failure = async |script: &str| {
        let options = ProcessOptions { permanent_exit_codes: vec![65..=65], ..reporting(script) };
        Attempt::start(&fixture.runner(options), "").failure().await
    };
    let failed = failure("echo error no such customer >&3; echo no-retry >&3; exit 1").await;
    assert_eq!((&*failed.message, failed.retryable), ("no such customer (exited with code 1)", false));
    let failed = failure("echo retry-after 30 >&3; exit 65").await;
    assert_eq!((failed.retryable, failed.retry_after), (true, Some(Duration::from_secs(30))));
    let failed = failure("echo hello >&3; echo log >&2; exit 1").await;
    assert!(failed.detail.contains("log\n") && failed.detail.contains("the line was: hello\n"), "{}", failed.detail);
    let completed = fixture.runner(reporting("echo error early >&3; echo no-retry >&3; echo well"));
    assert_eq!(Attempt::start(&completed, "").result().await, "well\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_without_reports_has_no_pipes_for_them() {
    let fixture = Fixture::new();
    assert_eq!(
        Attempt::start(&fixture.sh("env | grep -c LINESHAFT_RE; ls /proc/self/fd"), "").result().await,
        "0\n0\n1\n2\n3\n"
    );
    // 5 is the directory that `ls` is reading.
    let runner = fixture.runner(reporting("ls /proc/self/fd"));
    assert_eq!(Attempt::start(&runner, "").result().await, "0\n1\n2\n3\n4\n5\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_program_is_named_and_not_retryable() {
    let fixture = Fixture::new();
    let options = ProcessOptions { argv: vec!["no-such-program".to_owned()], ..ProcessOptions::default() };
    let failure = Attempt::start(&fixture.runner(options), "").failure().await;
    assert_eq!((failure.reason, failure.retryable), (FailureReason::HandlerError, false));
    assert!(failure.message.contains("`no-such-program`"), "{}", failure.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_has_only_configured_variables() {
    let fixture = Fixture::new();
    let mut options = ProcessOptions { argv: vec!["env".to_owned()], ..ProcessOptions::default() };
    options.env.insert("COLOUR".to_owned(), "green".to_owned().into());
    options.env_pass = vec!["CARGO_MANIFEST_DIR".to_owned(), "NOT_SET_ANYWHERE".to_owned()];
    let result = Attempt::start(&fixture.runner(options), "").result().await;
    let text = String::from_utf8(result.to_vec()).unwrap();
    let mut lines: Vec<_> = text.lines().filter(|line| !line.starts_with("CARGO_MANIFEST_DIR=")).collect();
    lines.sort_unstable();
    let path = format!("PATH={}", super::environment::DEFAULT_PATH);
    let instance = format!("LINESHAFT_INSTANCE={}", fixture.host.instance);
    assert_eq!(lines, ["COLOUR=green", "LINESHAFT_ATTEMPT=2", &instance, "LINESHAFT_TASK_ID=task-7", &path]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_open_file_of_the_server_is_inherited() {
    let fixture = Fixture::new();
    let _open = fs::File::open("/dev/null").unwrap();
    for limits in [Limits::default(), Limits { open_files: Some(64), ..Limits::default() }] {
        let argv = ["ls", "/proc/self/fd"].map(String::from).to_vec();
        let options = ProcessOptions { argv, limits, ..ProcessOptions::default() };
        // 3 is the directory that `ls` is reading.
        assert_eq!(Attempt::start(&fixture.runner(options), "").result().await, "0\n1\n2\n3\n", "{limits:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_has_a_new_directory_that_is_removed() {
    let fixture = Fixture::new();
    let result = Attempt::start(&fixture.sh("mkdir -p a/b; touch a/b/c; pwd; ls"), "").result().await;
    let text = String::from_utf8(result.to_vec()).unwrap();
    let (directory, listing) = text.split_once('\n').unwrap();
    assert!(Path::new(directory).starts_with(fixture.directory.path().canonicalize().unwrap()), "{text}");
    assert_eq!(listing, "a\n");
    assert!(!Path::new(directory).exists());

    // An unchanged directory gets another name.
    let first = Attempt::start(&fixture.sh("pwd"), "").result().await;
    let second = Attempt::start(&fixture.sh("pwd; chmod 777 ."), "").result().await;
    let third = Attempt::start(&fixture.sh("pwd; stat -c %a ."), "").result().await;
    assert_ne!(first, second);
    assert!(!third.starts_with(&first) && !third.starts_with(&second) && third.ends_with(b"\n700\n"), "{third:?}");

    let fixed = ProcessOptions { working_directory: Some("/".into()), ..sh("pwd") };
    assert_eq!(Attempt::start(&fixture.runner(fixed), "").result().await, "/\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_are_appended_only_if_the_handler_accepts_them() {
    let fixture = Fixture::new();
    let mut options = ProcessOptions { argv: vec!["echo".to_owned()], ..ProcessOptions::default() };
    let refused = Attempt::start_with(&fixture.runner(options.clone()), "", &["a"], Arc::default()).failure().await;
    assert_eq!(refused.reason, FailureReason::InvalidPayload);
    options.arg_pattern = ArgPattern::parse(".*").ok();
    let result = Attempt::start_with(&fixture.runner(options), "", &["a b", "$(c)"], Arc::default()).result().await;
    assert_eq!(result, "a b $(c)\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ignores_sigterm_is_killed_after_the_grace_period() {
    let fixture = Fixture::new();
    let attempt = Attempt::start(&fixture.sh("trap '' TERM; echo ready; while :; do sleep 0.05; done"), "");
    attempt.wait_for_output("ready").await;
    let started = Instant::now();
    attempt.stop.request(StopCause::Cancel, Duration::from_millis(150));
    let outcome = attempt.outcome().await;
    assert!(matches!(outcome, Outcome::Stopped(StopMethod::SignalKill)), "{outcome:?}");
    assert!(started.elapsed() >= Duration::from_millis(150));
}

#[tokio::test(flavor = "multi_thread")]
async fn force_ends_the_grace_period() {
    let fixture = Fixture::new();
    let attempt = Attempt::start(&fixture.sh("trap '' TERM; echo ready; while :; do sleep 0.05; done"), "");
    attempt.wait_for_output("ready").await;
    attempt.stop.request(StopCause::Cancel, Duration::from_hours(1));
    attempt.stop.request(StopCause::Force, Duration::ZERO);
    let outcome = attempt.outcome().await;
    assert!(matches!(outcome, Outcome::Stopped(StopMethod::SignalKill)), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn grandchildren_are_killed_with_the_attempt_and_do_not_delay_it() {
    let fixture = Fixture::new();
    // The first stays in the group, the second leaves it; both hold the pipes.
    for script in ["sleep 1000 & echo $!", "setsid sleep 1000 & echo $!; sleep 0.1"] {
        let started = Instant::now();
        let result = Attempt::start(&fixture.sh(script), "").result().await;
        wait_until_dead(std::str::from_utf8(&result).unwrap().trim()).await;
        assert!(started.elapsed() < Duration::from_secs(10), "{script} took {:?}", started.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_stop_kills_the_whole_group() {
    let fixture = Fixture::new();
    let runner = fixture.sh("sleep 1000 & echo $!; wait");
    let attempt = Attempt::start(&runner, "");
    let pid = attempt.wait_for_output("\n").await;
    attempt.stop.request(StopCause::Force, Duration::ZERO);
    attempt.outcome().await;
    wait_until_dead(pid.trim()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_enforced_and_named_in_the_failure() {
    let fixture = Fixture::new();
    let memory = Limits { memory_bytes: Some(64 << 20), ..Limits::default() };
    let script = "head -c 200m /dev/zero | tail -n 1 > /dev/null";
    let failure = Attempt::start(&fixture.limited(memory, script), "").failure().await;
    assert_eq!(failure.reason, FailureReason::OutOfMemory, "{failure:?}");

    let cpu = Limits { cpu_seconds: Some(1), ..Limits::default() };
    let failure = Attempt::start(&fixture.limited(cpu, "while :; do :; done"), "").failure().await;
    assert_eq!(failure.reason, FailureReason::Killed, "{failure:?}");
    assert!(failure.message.contains("CPU time limit of 1 s"), "{}", failure.message);

    let file = Limits { file_bytes: Some(1_000), ..Limits::default() };
    let failure = Attempt::start(&fixture.limited(file, "exec head -c 2000 /dev/zero > file"), "").failure().await;
    assert!(
        failure.reason == FailureReason::Killed && failure.message.contains("file size limit of 1000 bytes"),
        "{failure:?}"
    );

    let files = Limits { open_files: Some(77), ..Limits::default() };
    assert_eq!(Attempt::start(&fixture.limited(files, "ulimit -n"), "").result().await, "77\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_can_be_nicer_than_the_server_and_so_is_its_session() {
    let fixture = Fixture::new();
    let expected = (rustix::process::getpriority_process(None).unwrap() + 7).min(19);
    // The session gets it when the program has been started, if the kernel has groups of sessions.
    let script =
        "while [ -e /proc/self/autogroup ] && ! grep -q \"nice $(nice)$\" /proc/self/autogroup; do :; done; nice";
    let result = Attempt::start(&fixture.runner(ProcessOptions { nice: 7, ..sh(script) }), "").result().await;
    assert_eq!(result, format!("{expected}\n"));
}

fn with_files(payload: Option<&str>, result: Option<&str>, script: &str) -> ProcessOptions {
    let (payload_file, result_file) = (payload.map(String::from), result.map(String::from));
    ProcessOptions { payload_file, result_file, ..sh(script) }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_payload_and_the_result_can_be_files_in_the_directory_of_the_attempt() {
    let fixture = Fixture::new();
    let payload: Vec<u8> = (0..limits::INLINE_BYTES_MAX).map(|n| u8::try_from(n % 253).unwrap()).collect();
    let script = "stat -c '%a %s' in >&2; wc -c; cp in 'the result'; rm in";
    let options = with_files(Some("in"), Some("the result"), script);
    let attempt = Attempt::start(&fixture.runner(options), payload.clone());
    let output = Arc::clone(&attempt.output);
    assert_eq!(attempt.result().await, payload);
    let output = output.captured().unwrap();
    assert_eq!((&*output.stderr.head, &*output.stdout.head), (&b"600 1048576\n"[..], &b"0\n"[..]));
    // One file can be both, and either can be a file alone.
    let both = with_files(Some("x"), Some("x"), "printf b >>x; echo printed");
    assert_eq!(Attempt::start(&fixture.runner(both), "a").result().await, "ab");
    assert_eq!(Attempt::start(&fixture.runner(with_files(Some("x"), None, "cat x -")), "a").result().await, "a");
    assert_eq!(Attempt::start(&fixture.runner(with_files(None, Some("x"), "cat >x")), "a").result().await, "a");
    let empty = with_files(Some("x"), Some("y"), "[ -e x ] && : >y && echo printed");
    assert_eq!(Attempt::start(&fixture.runner(empty), "").result().await, "");
    assert_eq!(fs::read_dir(fixture.directory.path().join("work")).unwrap().count(), 0, "files are left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_is_not_a_file_of_the_attempt_fails_it() {
    let fixture = Fixture::new();
    for (script, expected) in [
        ("true", "No such file or directory"),
        ("ln -s /etc/passwd out", "symbolic links"),
        ("mkfifo out", "Invalid argument"),
        ("mkdir out", "Invalid argument"),
    ] {
        let failure = Attempt::start(&fixture.runner(with_files(None, Some("out"), script)), "").failure().await;
        assert_eq!(failure.reason, FailureReason::HandlerError, "{script}");
        let is_named = failure.message.starts_with("failed to read `out`, which has the result: ");
        assert!(is_named && failure.message.contains(expected), "{script}: {failure:?}");
    }
    // Only the beginning of a file that is too large is read.
    let large = with_files(None, Some("out"), "truncate -s 1T out");
    let failure = Attempt::start(&fixture.runner(large), "").failure().await;
    assert_eq!(failure.reason, FailureReason::ResultTooLarge);
    let failed = with_files(None, Some("out"), "echo 1 >out; exit 3");
    assert_eq!(Attempt::start(&fixture.runner(failed), "").failure().await.exit_code, Some(3));
}

/// An attempt of a program with a directory for artifacts.
fn with_artifacts(fixture: &Fixture, script: &str) -> (Attempt, AttemptArtifacts) {
    let artifacts = fixtures::artifacts(&fixture.directory.path().join("artifacts"));
    let run = Run { artifacts: artifacts.clone(), ..fixtures::run("") };
    (Attempt::start_run(&fixture.runner(ProcessOptions { artifacts: true, ..sh(script) }), run), artifacts)
}

/// They are removed after the attempt has ended. The shim keeps one empty working directory.
async fn wait_until_directories_are_removed(fixture: &Fixture) {
    let deadline = Instant::now() + TIMEOUT;
    while fs::read_dir(fixture.directory.path().join("work")).unwrap().count() > 1 {
        assert!(Instant::now() < deadline, "directories are left");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_in_the_directory_for_artifacts_are_kept_if_the_program_succeeds() {
    let fixture = Fixture::new();
    let script = "cd \"$LINESHAFT_ARTIFACTS\" && stat -c %a . && printf 1 >a.csv && printf 22 >'ü b'";
    let (attempt, artifacts) = with_artifacts(&fixture, script);
    assert_eq!(attempt.result().await, "700\n");
    wait_until_directories_are_removed(&fixture).await;
    let stored = artifacts.store().await.unwrap().unwrap();
    let found: Vec<_> = stored.files.iter().map(|file| (file.name.as_str(), &*file.content_type, file.bytes)).collect();
    assert_eq!(found, [("a.csv", "text/csv", 1), ("ü b", "application/octet-stream", 2)]);

    let (attempt, artifacts) = with_artifacts(&fixture, "echo x >$LINESHAFT_ARTIFACTS/a; exit 3");
    assert_eq!(attempt.failure().await.exit_code, Some(3));
    assert!(artifacts.is_empty());
    wait_until_directories_are_removed(&fixture).await;
    let (attempt, artifacts) = with_artifacts(&fixture, "echo none");
    assert_eq!(attempt.result().await, "none\n");
    assert!(artifacts.store().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_that_is_not_a_file_of_the_attempt_fails_it() {
    let fixture = Fixture::new();
    for (script, reason, expected) in [
        ("ln -s /etc/passwd l", FailureReason::HandlerError, "artifact \"l\" is not a regular file"),
        ("mkfifo p", FailureReason::HandlerError, "artifact \"p\" is not a regular file"),
        ("mkdir d", FailureReason::HandlerError, "artifact \"d\" is not a regular file"),
        ("touch \"$(printf 'a\\nb')\"", FailureReason::HandlerError, "contains the character '\\n'"),
        ("touch \"$(printf 'a\\377')\"", FailureReason::HandlerError, "is not UTF-8"),
        ("touch 1 2 3 4", FailureReason::ResultTooLarge, "more than 3 artifacts, which is the limit"),
        ("truncate -s 1T large", FailureReason::ResultTooLarge, "has more than 1048576 bytes, which is the limit"),
    ] {
        let (attempt, _) = with_artifacts(&fixture, &format!("cd $LINESHAFT_ARTIFACTS && {script}"));
        let failure = attempt.failure().await;
        assert!(failure.reason == reason && failure.message.contains(expected), "{script}: {failure:?}");
    }
    wait_until_directories_are_removed(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cpu_time_is_reported() {
    let fixture = Fixture::new();
    let script = "i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done";
    let report = Attempt::start(&fixture.sh(script), "").report().await;
    assert!(report.cpu_time.is_some_and(|time| time > Duration::from_millis(5)), "{report:?}");
}

#[tokio::test]
async fn invalid_options_are_rejected() {
    let fixture = Fixture::new();
    let refused = |options| ProcessRunner::new(options, Arc::clone(&fixture.host)).unwrap_err();
    assert_eq!(refused(ProcessOptions::default()), OptionsError::NoProgram);
    let mut options = sh("true");
    options.env.insert("A=B".to_owned(), String::new().into());
    assert_eq!(refused(options), OptionsError::Variable(VariableError::BadName("A=B".to_owned())));
    let mut options = sh("true");
    options.env_pass.push("LINESHAFT_INSTANCE".to_owned());
    assert_eq!(refused(options), OptionsError::Variable(VariableError::Reserved("LINESHAFT_INSTANCE".to_owned())));
}

/// The supervisor in the tests below. They start this test program as `… __supervise <directory>`,
/// which the test harness reads as names of tests to run.
#[test]
fn __supervise() {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == SUBCOMMAND) {
        let _ = supervise_main(args);
    }
}

/// Set in the process that plays the server that is killed.
const SERVER_DIRECTORY: &str = "TEST_SERVER_DIRECTORY";

/// The server of the next test: three tasks whose processes escape signals in different ways.
#[tokio::test(flavor = "multi_thread")]
async fn server_to_be_killed() {
    let Some(directory) = std::env::var_os(SERVER_DIRECTORY) else { return };
    let directory = Path::new(&directory);
    let host = process_host(directory);
    let scripts = [
        "echo pid $$ .; trap '' TERM HUP; while :; do sleep 1; done",
        "setsid sleep 1000 & echo pid $! .; wait",
        "env -i sleep 1000 & echo pid $! .; wait",
    ];
    for script in scripts {
        let runner: Arc<dyn Runner> = Arc::new(ProcessRunner::new(sh(script), Arc::clone(&host)).unwrap());
        let attempt = Attempt::start(&runner, "");
        eprintln!("{}", attempt.wait_for_output(".\n").await.trim());
        std::mem::forget(attempt);
    }
    eprintln!("ready");
    sleep(TIMEOUT).await;
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "starts a server, not a handler")]
async fn children_of_a_killed_server_are_killed_before_the_next_server_starts() {
    let directory = tempfile::tempdir().unwrap();
    let test = "runners::process::tests::server_to_be_killed";
    let mut server = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(SERVER_DIRECTORY, directory.path())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(server.stderr.take().unwrap());
    let lines = stderr.lines().map(Result::unwrap).take_while(|line| line != "ready");
    let pids: Vec<String> =
        lines.filter_map(|line| Some(line.strip_prefix("pid ")?.strip_suffix(" .")?.to_owned())).collect();
    assert_eq!(pids.len(), 3, "{pids:?}");
    for pid in &pids {
        assert!(Path::new("/proc").join(pid).exists(), "process {pid} is running");
    }

    let exe = std::env::current_exe().unwrap();
    let lock = directory.path().join("runs.lock");
    let work = directory.path().join("work");
    let second = Supervisor::start_within(Duration::from_millis(50), &exe, &lock, &work).unwrap_err();
    assert!(second.to_string().contains("runs.lock"), "{second}");

    server.kill().unwrap();
    let next = Supervisor::start(&exe, &lock, &work).unwrap();
    for pid in &pids {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        assert!(stat.as_ref().map_or(true, |stat| stat.contains(") Z ")), "process {pid} is still running: {stat:?}");
    }
    server.wait().unwrap();
    next.stop().unwrap();
}
