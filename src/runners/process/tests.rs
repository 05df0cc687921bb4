//! What only processes promise: groups, environment, limits, pipes, and an end with the server.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::supervisor::{SUBCOMMAND, Supervisor, supervise_main};
use super::{Host, Limits, OptionsError, ProcessOptions, ProcessRunner, ResultFrom};
use crate::model::{FailureReason, OutputStream, StopMethod, limits};
use crate::runners::conformance::{Attempt, PATIENCE, new_instance};
use crate::runners::{Ended, Runner, StopCause};

struct Bench {
    directory: tempfile::TempDir,
    host: Arc<Host>,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let host = Arc::new(Host::new(directory.path(), &new_instance(), None).unwrap());
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

async fn wait_for_output(attempt: &Attempt, text: &str) -> String {
    let mut seen = 0;
    while attempt.output.changed(seen).await {
        seen = attempt.output.total();
        let written = String::from_utf8(attempt.output.read(OutputStream::Stdout, 0).data).unwrap();
        if written.contains(text) {
            return written;
        }
    }
    panic!("the output ended without {text:?}");
}

/// Waits until the process is gone, or dead and only waiting to be collected.
async fn wait_until_dead(pid: &str) {
    let give_up = Instant::now() + PATIENCE;
    while fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < give_up, "process {pid} lives on");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_of_a_mebibyte_goes_through_and_comes_back() {
    let bench = Bench::new();
    let payload: Vec<u8> = (0..limits::PAYLOAD_BYTES_MAX).map(|n| u8::try_from(n % 253).unwrap()).collect();
    let result = Attempt::start(&bench.sh("cat"), payload.clone()).result().await;
    assert_eq!(result, payload);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_need_not_read_its_payload() {
    let bench = Bench::new();
    let result = Attempt::start(&bench.sh("exec 0<&-; echo done"), vec![b'x'; 1 << 20]).result().await;
    assert_eq!(result, "done\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn much_output_keeps_head_and_tail_and_is_too_large_for_a_result() {
    let bench = Bench::new();
    let attempt = Attempt::start(&bench.sh("seq 1 1500000"), "");
    let output = Arc::clone(&attempt.output);
    assert_eq!(attempt.failure().await.reason, FailureReason::ResultTooLarge);
    let kept = output.captured().unwrap().stdout;
    assert_eq!(kept.total, 10_888_896);
    assert!(kept.head.starts_with(b"1\n2\n3\n") && kept.head.len() == limits::OUTPUT_KEPT_BYTES);
    assert!(kept.tail.ends_with(b"1499999\n1500000\n") && kept.tail.len() == limits::OUTPUT_KEPT_BYTES);

    let log_only = ProcessOptions { result: ResultFrom::Nothing, ..sh("seq 1 1500000") };
    assert_eq!(Attempt::start(&bench.runner(log_only), "").result().await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_code_and_a_signal_are_failures_with_the_last_of_stderr() {
    let bench = Bench::new();
    let failure = Attempt::start(&bench.sh("echo first >&2; echo last >&2; exit 3"), "").failure().await;
    assert_eq!((failure.reason, failure.exit_code, failure.signal), (FailureReason::HandlerError, Some(3), None));
    assert_eq!((&*failure.message, &*failure.detail), ("exited with code 3", "first\nlast\n"));
    assert!(failure.retryable);
    let failure = Attempt::start(&bench.sh("kill -9 $$"), "").failure().await;
    assert_eq!((failure.reason, failure.exit_code, failure.signal), (FailureReason::Killed, None, Some(9)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_exist_is_named_and_not_tried_again() {
    let bench = Bench::new();
    let options = ProcessOptions { argv: vec!["no-such-program".to_owned()], ..ProcessOptions::default() };
    let failure = Attempt::start(&bench.runner(options), "").failure().await;
    assert_eq!((failure.reason, failure.retryable), (FailureReason::HandlerError, false));
    assert!(failure.message.contains("`no-such-program`"), "{}", failure.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_holds_what_was_said_and_nothing_else() {
    let bench = Bench::new();
    let mut options = ProcessOptions { argv: vec!["env".to_owned()], ..ProcessOptions::default() };
    options.env.insert("COLOUR".to_owned(), "green".to_owned());
    options.env_pass = vec!["CARGO_MANIFEST_DIR".to_owned(), "NOT_SET_ANYWHERE".to_owned()];
    let result = Attempt::start(&bench.runner(options), "").result().await;
    let text = String::from_utf8(result.to_vec()).unwrap();
    let mut lines: Vec<_> = text.lines().filter(|line| !line.starts_with("CARGO_MANIFEST_DIR=")).collect();
    lines.sort_unstable();
    let path = format!("PATH={}", super::DEFAULT_PATH);
    let instance = format!("LINESHAFT_INSTANCE={}", bench.host.instance);
    assert_eq!(lines, ["COLOUR=green", "LINESHAFT_ATTEMPT=2", &instance, "LINESHAFT_TASK_ID=task-7", &path]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_of_the_server_is_inherited() {
    let bench = Bench::new();
    super::sys::keep_open_files_to_ourselves().unwrap();
    let _open = fs::File::open("/dev/null").unwrap();
    for limits in [Limits::default(), Limits { open_files: Some(64), ..Limits::default() }] {
        let argv = ["ls", "/proc/self/fd"].map(String::from).to_vec();
        let options = ProcessOptions { argv, limits, ..ProcessOptions::default() };
        // 3 is the directory that `ls` reads.
        assert_eq!(Attempt::start(&bench.runner(options), "").result().await, "0\n1\n2\n3\n", "{limits:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_has_a_fresh_directory_that_is_removed() {
    let bench = Bench::new();
    let result = Attempt::start(&bench.sh("mkdir -p a/b; touch a/b/c; pwd; ls"), "").result().await;
    let text = String::from_utf8(result.to_vec()).unwrap();
    let (directory, listing) = text.split_once('\n').unwrap();
    assert!(Path::new(directory).starts_with(bench.directory.path().canonicalize().unwrap()), "{text}");
    assert_eq!(listing, "a\n");
    assert!(!Path::new(directory).exists());

    // An untouched directory is used again, one with other permissions is not.
    let first = Attempt::start(&bench.sh("pwd"), "").result().await;
    let second = Attempt::start(&bench.sh("pwd; chmod 777 ."), "").result().await;
    let third = Attempt::start(&bench.sh("pwd; stat -c %a ."), "").result().await;
    assert_eq!(first, second);
    assert!(!third.starts_with(&first) && third.ends_with(b"\n700\n"), "{third:?}");

    let fixed = ProcessOptions { working_directory: Some("/".into()), ..sh("pwd") };
    assert_eq!(Attempt::start(&bench.runner(fixed), "").result().await, "/\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_are_added_only_where_the_operator_allows_it() {
    let bench = Bench::new();
    let mut options = ProcessOptions { argv: vec!["echo".to_owned()], ..ProcessOptions::default() };
    let refused = Attempt::start_with(&bench.runner(options.clone()), "", &["a"], Arc::default()).failure().await;
    assert_eq!(refused.reason, FailureReason::InvalidPayload);
    options.accepts_args = true;
    let result = Attempt::start_with(&bench.runner(options), "", &["a b", "$(c)"], Arc::default()).result().await;
    assert_eq!(result, "a b $(c)\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ignores_sigterm_is_killed_after_the_grace() {
    let bench = Bench::new();
    let attempt = Attempt::start(&bench.sh("trap '' TERM; echo ready; while :; do sleep 0.05; done"), "");
    wait_for_output(&attempt, "ready").await;
    let begun = Instant::now();
    attempt.stop.tell(StopCause::Cancel, Duration::from_millis(150));
    let ended = attempt.ended().await;
    assert!(matches!(ended, Ended::Stopped(StopMethod::SignalKill)), "{ended:?}");
    assert!(begun.elapsed() >= Duration::from_millis(150));
}

#[tokio::test(flavor = "multi_thread")]
async fn force_cuts_the_grace_short() {
    let bench = Bench::new();
    let attempt = Attempt::start(&bench.sh("trap '' TERM; echo ready; while :; do sleep 0.05; done"), "");
    wait_for_output(&attempt, "ready").await;
    attempt.stop.tell(StopCause::Cancel, Duration::from_hours(1));
    attempt.stop.tell(StopCause::Force, Duration::ZERO);
    let ended = attempt.ended().await;
    assert!(matches!(ended, Ended::Stopped(StopMethod::SignalKill)), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn grandchildren_die_with_the_attempt_and_never_hold_it_up() {
    let bench = Bench::new();
    // One that stays in the group, and one that leaves it; both hold the pipes.
    for script in ["sleep 1000 & echo $!", "setsid sleep 1000 & echo $!; sleep 0.1"] {
        let begun = Instant::now();
        let result = Attempt::start(&bench.sh(script), "").result().await;
        wait_until_dead(std::str::from_utf8(&result).unwrap().trim()).await;
        assert!(begun.elapsed() < Duration::from_secs(10), "{script} took {:?}", begun.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_attempt_takes_its_group_along() {
    let bench = Bench::new();
    let runner = bench.sh("sleep 1000 & echo $!; wait");
    let attempt = Attempt::start(&runner, "");
    let pid = wait_for_output(&attempt, "\n").await;
    attempt.stop.tell(StopCause::Force, Duration::ZERO);
    attempt.ended().await;
    wait_until_dead(pid.trim()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_enforced_and_named() {
    let bench = Bench::new();
    let memory = Limits { memory_bytes: Some(64 << 20), ..Limits::default() };
    let script = "head -c 200m /dev/zero | tail -n 1 > /dev/null";
    let failure = Attempt::start(&bench.limited(memory, script), "").failure().await;
    assert_eq!(failure.reason, FailureReason::OutOfMemory, "{failure:?}");

    let cpu = Limits { cpu_seconds: Some(1), ..Limits::default() };
    let failure = Attempt::start(&bench.limited(cpu, "while :; do :; done"), "").failure().await;
    assert_eq!(failure.reason, FailureReason::Killed, "{failure:?}");
    assert!(failure.message.contains("1 s of processor time"), "{}", failure.message);

    let file = Limits { file_bytes: Some(1_000), ..Limits::default() };
    let failure = Attempt::start(&bench.limited(file, "exec head -c 2000 /dev/zero > file"), "").failure().await;
    assert!(failure.reason == FailureReason::Killed && failure.message.contains("1000 bytes per file"), "{failure:?}");

    let files = Limits { open_files: Some(77), ..Limits::default() };
    assert_eq!(Attempt::start(&bench.limited(files, "ulimit -n"), "").result().await, "77\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn processor_time_is_on_the_bill() {
    let bench = Bench::new();
    let script = "i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done";
    let outcome = Attempt::start(&bench.sh(script), "").outcome().await;
    assert!(outcome.cpu_time.is_some_and(|time| time > Duration::from_millis(5)), "{outcome:?}");
}

#[test]
fn options_that_cannot_work_are_refused() {
    let bench = Bench::new();
    let refused = |options| ProcessRunner::new(options, Arc::clone(&bench.host)).unwrap_err();
    assert_eq!(refused(ProcessOptions::default()), OptionsError::NoProgram);
    let mut options = sh("true");
    options.env.insert("A=B".to_owned(), String::new());
    assert_eq!(refused(options), OptionsError::BadVariable("A=B".to_owned()));
    let mut options = sh("true");
    options.env_pass.push("LINESHAFT_INSTANCE".to_owned());
    assert_eq!(refused(options), OptionsError::ReservedVariable("LINESHAFT_INSTANCE".to_owned()));
}

/// The supervisor of the tests below: they start this test program as `… __supervise <instance> <lock>`,
/// which the test harness takes for the names of tests to run.
#[test]
fn __supervise() {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == SUBCOMMAND) {
        let _ = supervise_main(args);
    }
}

/// A name that cannot be a part of a test's name, so that the harness runs `__supervise` only.
/// Tells the test below that it is the server that will be killed.
const SERVER_DIRECTORY: &str = "TEST_SERVER_DIRECTORY";

/// A server for the test below: three tasks, whose processes defend themselves in different ways.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_will_be_killed() {
    let Some(directory) = std::env::var_os(SERVER_DIRECTORY) else { return };
    let directory = Path::new(&directory);
    let (exe, instance) = (std::env::current_exe().unwrap(), new_instance());
    let supervisor = Supervisor::start(&exe, &instance, &directory.join("runs.lock")).unwrap();
    let host = Arc::new(Host::new(directory, &instance, Some(supervisor)).unwrap());
    let scripts = [
        "echo pid $$ .; trap '' TERM HUP; while :; do sleep 1; done",
        "setsid sleep 1000 & echo pid $! .; wait",
        "env -i sleep 1000 & echo pid $! .; wait",
    ];
    for script in scripts {
        let runner: Arc<dyn Runner> = Arc::new(ProcessRunner::new(sh(script), Arc::clone(&host)).unwrap());
        let attempt = Attempt::start(&runner, "");
        eprintln!("{}", wait_for_output(&attempt, ".\n").await.trim());
        std::mem::forget(attempt);
    }
    eprintln!("ready");
    sleep(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "starts a server, not a handler")]
async fn children_die_with_a_server_that_is_killed_and_the_next_server_waits_for_that() {
    let directory = tempfile::tempdir().unwrap();
    let test = "runners::process::tests::a_server_that_will_be_killed";
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
        assert!(Path::new("/proc").join(pid).exists(), "process {pid} runs");
    }

    let exe = std::env::current_exe().unwrap();
    let lock = directory.path().join("runs.lock");
    let second = Supervisor::start_within(Duration::from_millis(50), &exe, &new_instance(), &lock).unwrap_err();
    assert!(second.to_string().contains("runs.lock"), "{second}");

    server.kill().unwrap();
    let next = Supervisor::start(&exe, &new_instance(), &lock).unwrap();
    for pid in &pids {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        assert!(stat.as_ref().map_or(true, |stat| stat.contains(") Z ")), "process {pid} lives on: {stat:?}");
    }
    server.wait().unwrap();
    next.stop().unwrap();
}
