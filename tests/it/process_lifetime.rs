//! Processes of handlers from their start to their end: what they inherit, and that none outlives its attempt.

use std::fs;
use std::path::Path;

use lineshaft::proto::v1::{self, FailureReason, StopMethod, TaskState};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};

use crate::health_endpoints::samples;
use crate::support::{Server, bytes, check, children, eventually, is_running, run, unshare_flags, without_root};

/// Handlers that run a shell script; their grace periods differ.
const SHELL: &str = r#"
[server]
drain_limit = "10s"
[[pool]]
name = "default"
size = 4
[[pool]]
name = "async"
kind = "async"
size = 4
[[handler]]
name = "sh"
runner = "process"
argv = ["/bin/bash", "-c", "eval \"$1\"", "sh"]
arg_pattern = '(?s).*'
grace = "10s"
allowed_pools = ["default", "async"]
[handler.retry]
attempts = 1
[[handler]]
name = "brief"
runner = "process"
argv = ["/bin/bash", "-c", "eval \"$1\"", "sh"]
arg_pattern = '(?s).*'
grace = "300ms"
[handler.retry]
attempts = 1
[[handler]]
name = "retried"
runner = "process"
argv = ["/bin/bash", "-c", "eval \"$1\"", "sh"]
arg_pattern = '(?s).*'
[handler.retry]
attempts = 2
delay = "1ms"
"#;

fn script(handler: &str, script: &str) -> v1::SubmitTaskRequest {
    v1::SubmitTaskRequest { handler: handler.into(), args: vec![script.to_owned()], ..Default::default() }
}

async fn cancel(server: &Server, id: &str) -> v1::Task {
    let request = v1::CancelTaskRequest { task_id: id.to_owned(), ..Default::default() };
    server.tasks().cancel_task(request).await.unwrap();
    server.wait_finished(id).await
}

/// Waits until a script has written the file, and returns its content.
async fn written(path: &Path) -> String {
    eventually(async || {
        let text = fs::read_to_string(path).unwrap_or_default();
        check(text.ends_with('\n'), || format!("{} has {text:?}", path.display())).map(|()| text)
    })
    .await
}

#[tokio::test]
async fn no_process_of_an_attempt_is_left_when_its_end_is_reported() {
    let server = Server::start(SHELL);
    for (mark, escape) in [
        ("7701.01", "setsid sleep 7701.01 </dev/null >/dev/null 2>&1 &"),
        ("7701.02", "env -i setsid sh -c 'sleep 7701.02 & sleep 7701.02' </dev/null >/dev/null 2>&1 &"),
        ("7701.03", "(setsid sh -c 'trap \"\" TERM HUP; (env -i sleep 7701.03 &) ; sleep 7701.03' &) >/dev/null 2>&1"),
        ("7701.04", "for n in 1 2 3 4 5 6 7 8; do setsid sh -c 'sleep 7701.04 & wait' >/dev/null 2>&1 & done"),
    ] {
        let ready = server.path(mark);
        for (how, end) in [("completes", ""), ("fails", "exit 3"), ("is cancelled", "wait; sleep 1000")] {
            let text = format!(
                "{escape}\nwhile ! pgrep -f '^sleep {mark}' >/dev/null; do :; done; echo > {}; {end}",
                ready.display()
            );
            let id = server.submit(script("brief", &text)).await;
            written(&ready).await;
            let ended =
                if how == "is cancelled" { cancel(&server, &id).await } else { server.wait_finished(&id).await };
            assert!(!is_running(mark), "{escape}: a process is left when the task {how}: {ended:?}");
            fs::remove_file(&ready).unwrap();
        }
    }
}

#[tokio::test]
async fn no_process_of_an_attempt_is_left_when_the_next_attempt_starts() {
    let server = Server::start(SHELL);
    let pid = server.path("pid");
    let path = pid.display();
    let first = format!("setsid sleep 7702 </dev/null >/dev/null 2>&1 & echo $! > {path}; exit 1");
    let second = format!("kill -0 $(cat {path}) && echo alive || echo gone");
    let both = format!("if [ $LINESHAFT_ATTEMPT = 1 ]; then {first}; fi; {second}");
    let id = server.submit(script("retried", &both)).await;
    let ended = server.wait_finished(&id).await;
    assert_eq!((ended.attempt, bytes(ended.result.as_ref()).as_str()), (2, "gone\n"), "{ended:?}");
}

#[tokio::test]
async fn a_stop_reaches_processes_in_other_sessions() {
    let server = Server::start(SHELL);
    let (ready, saved) = (server.path("ready"), server.path("saved"));
    let reacts = server.path("reacts.sh");
    let (asks, reports) = (ready.display(), saved.display());
    fs::write(&reacts, format!("trap 'echo > {reports}; exit' TERM; echo > {asks}; while :; do sleep 0.01; done"))
        .unwrap();
    // The program ends at once; its descendants hold stdout until they have reacted.
    let text = format!("setsid sh -c 'setsid sh {} & wait' & wait", reacts.display());
    let id = server.submit(script("sh", &text)).await;
    written(&ready).await;
    let ended = cancel(&server, &id).await;
    assert_eq!(ended.cancel.as_ref().unwrap().method(), StopMethod::SignalTerm, "{ended:?}");
    assert_eq!(written(&saved).await, "\n");
}

#[tokio::test]
async fn orphans_of_a_running_program_are_reaped_when_they_exit() {
    let server = Server::start(SHELL);
    let ready = server.path("ready");
    let text = format!("for n in 1 2 3 4 5; do (setsid true &); done; echo > {}; sleep 1000", ready.display());
    let id = server.submit(script("brief", &text)).await;
    written(&ready).await;
    let supervisor = children(server.pid()).first().unwrap().0;
    let shim = children(supervisor).first().unwrap().0;
    eventually(async || {
        let found = children(shim);
        check(found.len() == 1 && found[0].1 != 'Z', || format!("children of the shim: {found:?}"))
    })
    .await;
    cancel(&server, &id).await;
}

#[tokio::test]
async fn a_process_that_always_forks_is_stopped() {
    let server = Server::start(SHELL);
    let ready = server.path("ready");
    // Each process starts the next one in another session, and exits.
    let hop = server.path("hop.sh");
    fs::write(&hop, "#!/bin/sh\nsetsid \"$0\" </dev/null >/dev/null 2>&1 &\n").unwrap();
    run("chmod", ["+x", hop.to_str().unwrap()]);
    let id = server
        .submit(script("brief", &format!("{0} & echo > {1}; wait; sleep 1000", hop.display(), ready.display())))
        .await;
    written(&ready).await;
    let ended = cancel(&server, &id).await;
    assert_eq!(ended.state(), TaskState::Cancelled);
    assert!(!is_running(hop.to_str().unwrap()), "{ended:?}");
}

#[tokio::test]
async fn a_handler_that_kills_its_parent_fails_and_leaves_no_process() {
    let server = Server::start(SHELL);
    let kill = "env -i setsid sleep 7703 </dev/null >/dev/null 2>&1 & while ! pgrep -f '^sleep 7703' >/dev/null; do :; done; kill -9 $PPID; sleep 7703";
    let id = server.submit(script("sh", kill)).await;
    let ended = server.wait_finished(&id).await;
    assert!(!is_running("sleep 7703"), "{ended:?}");
    assert_eq!(ended.failure.unwrap().reason(), FailureReason::Killed);
    let id = server.submit(script("sh", "echo next")).await;
    assert_eq!(bytes(server.wait_finished(&id).await.result.as_ref()), "next\n");
}

#[tokio::test]
async fn a_server_without_its_supervisor_ends_and_leaves_no_process() {
    let mut server = Server::start(SHELL);
    let ready = server.path("ready");
    let id = server.submit(script("sh", &format!("setsid sleep 7704 & echo > {}; wait", ready.display()))).await;
    written(&ready).await;
    let supervisor = children(server.pid()).first().unwrap().0;
    run("kill", ["-9", &supervisor.to_string()]);
    let status = server.wait_exit();
    assert_eq!(status.code(), Some(1), "{status}");
    assert!(server.log().contains("the supervisor process was killed"), "{}", server.log());
    // The next server waits until the processes have ended.
    server.start_again();
    let mark = "sleep 7704";
    assert!(!is_running(mark) || server.get(&id).await.attempt == 1, "{}", server.log());
    cancel(&server, &id).await;
    assert!(!is_running(mark));
}

#[tokio::test]
async fn a_program_that_stops_its_shim_does_not_keep_the_next_server_from_starting() {
    let mut server = Server::start(SHELL);
    let ready = server.path("ready");
    let stop = format!("[ -e {0} ] || {{ kill -STOP $PPID; echo > {0}; sleep $((7706 + 1)); }}", ready.display());
    let id = server.submit(script("sh", &stop)).await;
    written(&ready).await;
    server.kill9();
    server.start_again();
    assert!(!is_running("sleep 7707"));
    assert_eq!(server.wait_finished(&id).await.state(), TaskState::Completed);
}

#[tokio::test]
async fn a_server_as_the_init_process_of_a_container_leaves_no_zombies() {
    let flags =
        [&unshare_flags(&["pid", "mount"])[..], &["--fork", "--kill-child", "--mount-proc"].map(String::from)].concat();
    let words: Vec<&str> = ["unshare"].into_iter().chain(flags.iter().map(String::as_str)).collect();
    let server = Server::start_under(&words, SHELL);
    let init = children(server.pid()).first().unwrap().0;
    let ready = server.path("ready");
    let tree = "(sleep 7705 & setsid sleep 7705 & sleep 7705) & setsid sleep 7705 &";
    let id = server.submit(script("sh", &format!("{tree} {tree} {tree} echo > {}; wait", ready.display()))).await;
    written(&ready).await;
    cancel(&server, &id).await;
    // An orphan of a probe or of `kubectl exec`, which no process of the server has started.
    let target = init.to_string();
    let user = words.contains(&"--user").then_some(["-U", "--preserve-credentials"]);
    let enter = user.iter().flatten().copied().chain(["-t", &target, "-p", "-m", "sh", "-c", "sleep 0.2 & "]);
    let (done, orphan) = run("nsenter", enter);
    assert!(done, "{orphan}");
    eventually(async || {
        let found = children(init);
        check(found.len() == 1 && found[0].1 != 'Z', || format!("children of the server: {found:?}"))
    })
    .await;
    let supervisor = children(init)[0].0;
    let shims = children(supervisor);
    let left: Vec<_> = shims
        .iter()
        .flat_map(|(shim, _)| children(*shim))
        .chain(shims.iter().copied().filter(|(_, state)| *state == 'Z'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn output_written_shortly_after_the_program_has_ended_is_complete() {
    let server = Server::start(SHELL);
    let id = server.submit(script("sh", "exec > >(sleep 0.4; cat); echo late")).await;
    let ended = server.wait_finished(&id).await;
    assert_eq!(bytes(ended.result.as_ref()), "late\n", "{ended:?}");
    assert!(!ended.resource_usage.unwrap().output_incomplete);
}

#[tokio::test]
async fn output_that_the_server_does_not_wait_for_is_marked_as_incomplete() {
    let server = Server::start(SHELL);
    let id = server.submit(script("brief", "exec > >(sleep 7706; cat); echo late")).await;
    let ended = server.wait_finished(&id).await;
    assert_eq!(ended.state(), TaskState::Completed);
    assert!(ended.resource_usage.unwrap().output_incomplete);
    assert!(!is_running("sleep 7706"));
}

#[tokio::test]
async fn a_program_inherits_no_ignored_or_blocked_signals() {
    let server = Server::start_under(&["env", "--ignore-signal", "--block-signal"], SHELL);
    let id = server.submit(script("sh", "grep -E '^Sig(Blk|Ign)' /proc/self/status")).await;
    let result = bytes(server.wait_finished(&id).await.result.as_ref());
    let masks: Vec<u64> =
        result.lines().map(|line| u64::from_str_radix(line.rsplit_once('\t').unwrap().1, 16).unwrap()).collect();
    // Signals 32 and 33 belong to the C library, which ignores them in each program that it starts.
    assert_eq!(masks.iter().map(|mask| mask & !(0b11 << 31)).collect::<Vec<_>>(), [0, 0], "{result}");
}

#[tokio::test]
async fn the_server_itself_does_not_start_programs() {
    let server = Server::start(SHELL);
    for pool in ["default", "async"] {
        let request = v1::SubmitTaskRequest { pool: pool.into(), ..script("sh", "echo $PPID; cat /proc/$PPID/comm") };
        let id = server.submit(request).await;
        let result = bytes(server.wait_finished(&id).await.result.as_ref());
        let (parent, name) = result.split_once('\n').unwrap();
        assert_ne!(parent, server.pid().to_string(), "{pool}: a slow start would block a thread of the server");
        assert_eq!(name, "lineshaft-shim\n", "{pool}");
    }
}

#[tokio::test]
async fn a_program_that_exits_with_0_while_the_server_drains_has_completed() {
    let mut server = Server::start(SHELL);
    let (finishes, fails) = (server.path("finishes"), server.path("fails"));
    let wait = |path: &Path, code: u8| {
        format!("trap 'echo saved; exit {code}' TERM; echo > {}; while :; do sleep 0.01; done", path.display())
    };
    let saving = server.submit(script("sh", &wait(&finishes, 0))).await;
    let failing = server.submit(script("sh", &wait(&fails, 1))).await;
    written(&finishes).await;
    written(&fails).await;
    server.signal(Signal::TERM);
    assert!(server.wait_exit().success());
    server.start_again();
    let saved = server.get(&saving).await;
    assert_eq!((saved.state(), saved.attempt), (TaskState::Completed, 1), "{saved:?}");
    assert_eq!(bytes(saved.result.as_ref()), "saved\n");
    assert!(matches!(server.get(&failing).await.state(), TaskState::Queued | TaskState::Running));
}

/// Makes more directories in directories than the server has descriptors, and a path to the last that no call accepts.
const DEEP: &str = "python3 -c 'import os\nfor _ in range(2500): os.mkdir(\"d\"); os.chdir(\"d\")'";
/// Makes directories that only privileged users may remove before they have changed the modes.
const READ_ONLY: &str = "mkdir -p a/b/c; touch a/b/file; chmod 555 a/b; chmod 111 a";

/// A server with few descriptors, whose user may not do what only root may.
fn start_unprivileged() -> Server {
    let limited: &[_] = &["/bin/sh", "-c", "ulimit -n 1024; exec \"$@\"", "sh"];
    Server::start_under(&[without_root(), limited].concat(), SHELL)
}

#[tokio::test]
async fn a_working_directory_of_any_depth_and_mode_is_removed_when_its_attempt_ends() {
    let server = start_unprivileged();
    for fill in [READ_ONLY, DEEP] {
        let id = server.submit(script("sh", &format!("{fill}; pwd"))).await;
        let directory = bytes(server.wait_finished(&id).await.result.as_ref());
        assert!(directory.starts_with('/'), "{directory:?}");
        assert!(!Path::new(directory.trim()).exists(), "{fill}: {}", server.log());
    }
}

#[tokio::test]
async fn working_directories_that_a_killed_server_left_behind_do_not_stop_the_next() {
    for fill in [READ_ONLY, DEEP] {
        let mut server = start_unprivileged();
        let ready = server.path("ready");
        let first = format!("[ -e {0} ] || {{ {fill}; echo > {0}; sleep 1000; }}", ready.display());
        let id = server.submit(script("sh", &first)).await;
        written(&ready).await;
        server.kill9();
        server.start_again();
        assert_eq!(server.wait_finished(&id).await.state(), TaskState::Completed);
        eventually(async || {
            let names = fs::read_dir(server.path("data")).unwrap().map(|entry| entry.unwrap().file_name());
            let left: Vec<_> = names.filter(|name| name.to_str().unwrap().starts_with("work.")).collect();
            check(left.is_empty(), || format!("{left:?} {}", server.log()))
        })
        .await;
    }
}

#[tokio::test]
async fn who_still_holds_the_directory_of_an_attempt_sees_no_file_of_another_namespace() {
    let server = Server::start(SHELL);
    let (first, second, done) = (server.path("first"), server.path("second"), server.path("done"));
    let wait = |ready: &Path| format!("pwd > {}; while ! [ -e {} ]; do :; done", ready.display(), done.display());
    let id = server.submit(script("sh", &wait(&first))).await;
    let before = written(&first).await;
    // As a program does to which the attempt has passed its directory.
    let held = fs::File::open(before.trim()).unwrap();
    fs::write(&done, "").unwrap();
    server.wait_finished(&id).await;
    fs::remove_file(&done).unwrap();
    let text = format!("echo > secret; {}", wait(&second));
    let request = v1::SubmitTaskRequest { namespace: "other".into(), ..script("sh", &text) };
    let id = server.submit(request).await;
    let after = written(&second).await;
    let mut entries = rustix::fs::Dir::read_from(&held).into_iter().flatten().flatten();
    assert!(!entries.any(|entry| entry.file_name() == c"secret"));
    assert_ne!(before, after);
    fs::write(&done, "").unwrap();
    server.wait_finished(&id).await;
}

/// Gives the server a new terminal that controls its session, and the name of the terminal.
const IN_TERMINAL: &str = "
import os, sys
master, slave = os.openpty()
os.set_inheritable(master, True)
os.setsid()
name = os.ttyname(slave)
os.close(os.open(name, os.O_RDWR))
os.close(os.open('/dev/tty', os.O_RDWR))
os.execve(sys.argv[1], sys.argv[1:], {**os.environ, 'TERMINAL': name})
";

/// Prints what a program can do with the terminal of the server.
const USE_TERMINAL: &str = "
import fcntl, os, termios
def attempt(action):
    try: action()
    except OSError: return 'refused'
    return 'allowed'
def type_into_terminal():
    fcntl.ioctl(os.open(os.environ['TERMINAL'], os.O_RDWR), termios.TIOCSTI, b'x')
print(attempt(lambda: os.open('/dev/tty', os.O_RDWR)), attempt(type_into_terminal), os.getsid(0) == os.getpid())
";

#[tokio::test]
async fn a_program_leads_a_session_without_the_terminal_of_the_server() {
    let handler = format!("argv = [\"python3\", \"-c\", {USE_TERMINAL:?}]\nenv_pass = [\"TERMINAL\"]\n");
    let config = format!("{SHELL}[[handler]]\nname = \"terminal\"\nrunner = \"process\"\n{handler}");
    // Root may type into every terminal.
    let server = Server::start_under(&[without_root(), &["python3", "-c", IN_TERMINAL]].concat(), &config);
    let id = server.submit(v1::SubmitTaskRequest { handler: "terminal".into(), ..Default::default() }).await;
    let ended = server.wait_finished(&id).await;
    assert_eq!(bytes(ended.result.as_ref()), "refused refused True\n", "{ended:?}");
}

#[tokio::test]
async fn a_server_without_free_file_descriptors_spends_no_attempt() {
    let server = Server::start(SHELL);
    // Calls on a connection that is open need no descriptor.
    let mut tasks = server.tasks();
    tasks.list_tasks(v1::ListTasksRequest::default()).await.unwrap();
    let pid = i32::try_from(server.pid()).ok().and_then(Pid::from_raw);
    let none = Rlimit { current: Some(3), ..getrlimit(Resource::Nofile) };
    let before = prlimit(pid, Resource::Nofile, none).unwrap();
    let id = tasks.submit_task(script("sh", "echo done")).await.unwrap().into_inner().task_id;
    eventually(async || {
        let log = server.log();
        check(log.contains("the server lacks a resource to start tasks") && log.contains("Too many open files"), || log)
    })
    .await;
    let request = v1::GetTaskRequest { task_id: id.clone(), ..Default::default() };
    let waiting = tasks.get_task(request).await.unwrap().into_inner().task.unwrap();
    assert!(matches!(waiting.state(), TaskState::Queued | TaskState::Running), "{waiting:?}");

    prlimit(pid, Resource::Nofile, before).unwrap();
    let ended = server.wait_finished(&id).await;
    assert_eq!((ended.attempt, bytes(ended.result.as_ref()).as_str()), (1, "done\n"), "{ended:?}");
    let tries = &samples(&server.address)["lineshaft_pool_unavailable_total{pool=\"default\"}"];
    assert_ne!(tries, "0");
}

#[tokio::test]
async fn a_process_without_a_grace_period_is_killed_at_once() {
    let server = Server::start(SHELL);
    let (ready, asked) = (server.path("ready"), server.path("asked"));
    let text =
        format!("trap 'echo > {}' TERM; echo > {}; while :; do sleep 0.01; done", asked.display(), ready.display());
    let id = server.submit(script("sh", &text)).await;
    written(&ready).await;
    let grace = Some(prost_types::Duration::default());
    let request = v1::CancelTaskRequest { task_id: id.clone(), grace, ..Default::default() };
    server.tasks().cancel_task(request).await.unwrap();
    let ended = server.wait_finished(&id).await;
    assert_eq!(ended.cancel.unwrap().method(), StopMethod::SignalKill);
    assert!(!asked.exists(), "it got SIGTERM before");
}
