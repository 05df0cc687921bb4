//! Crashes of the server, mostly with SIGKILL at random moments.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use lineshaft::proto::v1::{self, TaskState};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::support::{BINARY, Faults, Server, check, eventually, is_running, noop, run, seconds, task};

const ROUNDS: usize = 10;

/// A handler that appends a line to `journal` when an attempt starts and when it ends, each in a single write.
fn config(journal: &str) -> String {
    format!(
        r#"
[[pool]]
name = "default"
size = 4
[[handler]]
name = "witness"
runner = "process"
argv = ["/bin/sh", "-c", "echo \"begin $LINESHAFT_TASK_ID $$\" >> {journal}; sleep 0.0$1; echo \"end $LINESHAFT_TASK_ID $$\" >> {journal}", "sh"]
arg_pattern = '(?s).*'
"#
    )
}

fn witness(n: usize) -> v1::SubmitTaskRequest {
    v1::SubmitTaskRequest { handler: "witness".into(), args: vec![(n % 9 + 1).to_string()], ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_tasks_survive_crashes_and_never_run_twice_at_once() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let witness_file = tempfile::NamedTempFile::new().unwrap();
    let mut server = Server::start(&config(&witness_file.path().display().to_string()));
    let mut acknowledged = HashSet::new();
    for round in 0..ROUNDS {
        let (sender, mut accepted) = tokio::sync::mpsc::unbounded_channel();
        let mut tasks = server.tasks();
        let load = tokio::spawn(async move {
            for n in 0.. {
                let request = if n % 3 == 0 { witness(n) } else { noop() };
                let Ok(answer) = tasks.submit_task(request).await else { return };
                let _ = sender.send(answer.into_inner().task_id);
            }
        });
        // The moment of the crash is random.
        tokio::time::sleep(Duration::from_millis(random.random_range(20..600))).await;
        server.kill9();
        load.await.unwrap();
        while let Ok(id) = accepted.try_recv() {
            acknowledged.insert(id);
        }
        server.start_again();
        println!("round {round}: {} acknowledged", acknowledged.len());
    }
    assert!(!acknowledged.is_empty());
    for id in &acknowledged {
        let ended = server.wait_finished(id).await;
        let expected = matches!(ended.state(), TaskState::Completed | TaskState::Failed);
        assert!(expected, "seed {seed}: {id} is {:?}", ended.state());
    }
    let text = std::fs::read_to_string(witness_file.path()).unwrap();
    assert_one_at_a_time(&text, seed);
}

/// An attempt may start before the last one has ended only if that one was killed; then it never ends.
fn assert_one_at_a_time(journal: &str, seed: u64) {
    let mut open: HashMap<&str, &str> = HashMap::new();
    let mut closed: HashSet<(&str, &str)> = HashSet::new();
    for line in journal.lines() {
        let mut words = line.split(' ');
        let (Some(kind), Some(id), Some(pid)) = (words.next(), words.next(), words.next()) else {
            panic!("seed {seed}: incomplete line {line:?}");
        };
        if kind == "begin" {
            open.insert(id, pid);
        } else {
            assert_eq!(open.get(id), Some(&pid), "seed {seed}: {id} ended after a later attempt had started");
            assert!(closed.insert((id, pid)), "seed {seed}: {id} ended twice");
        }
    }
}

#[tokio::test]
async fn after_a_kill_a_flipped_byte_of_the_journals_log_is_reported_or_harmless() {
    const ROUNDS: usize = 8;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut server = Server::start("[[pool]]\nname = \"default\"\npaused = true\n");
    let mut acknowledged = Vec::new();
    for _ in 0..100 {
        acknowledged.push(server.submit(noop()).await);
    }
    server.kill9();
    let (data, crashed) = (server.path("data"), server.path("crashed"));
    std::fs::rename(&data, &crashed).unwrap();
    let log = std::fs::read(crashed.join("journal.db-wal")).unwrap();
    let used = log.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut reported = 0;
    for round in 0..ROUNDS {
        // The first two bytes are in the header and in the last commit.
        let offset = [10, used - 100].get(round).copied().unwrap_or_else(|| random.random_range(0..used));
        let _ = std::fs::remove_dir_all(&data);
        let (copied, output) = run("cp", ["-r", crashed.to_str().unwrap(), data.to_str().unwrap()]);
        assert!(copied, "{output}");
        let mut flipped = log.clone();
        flipped[offset] ^= 0x41;
        std::fs::write(data.join("journal.db-wal"), &flipped).unwrap();
        let (intact, output) = run(BINARY, ["store", "check", data.to_str().unwrap()]);
        if !intact {
            assert!(output.contains("journal.db"), "seed {seed}, byte {offset}: {output}");
            let refused = server.fail_to_start_again();
            assert!(refused.contains("journal.db"), "seed {seed}, byte {offset}: {refused}");
            reported += 1;
            continue;
        }
        server.start_again();
        for id in &acknowledged {
            server.get(id).await;
        }
        server.kill9();
    }
    assert!(reported >= 2, "{reported} of {ROUNDS} were reported");
}

#[tokio::test]
async fn processes_do_not_survive_the_server() {
    let mut server = Server::start(
        "[[handler]]\nname = \"sleeper\"\nrunner = \"process\"\nargv = [\"/bin/sleep\", \"4242.4242\"]\n",
    );
    let id = server.submit(v1::SubmitTaskRequest { handler: "sleeper".into(), ..Default::default() }).await;
    server.wait_for_state(&id, TaskState::Running).await;
    let alive = || is_running("4242.4242");
    eventually(async || check(alive(), || "the process has not started".to_owned())).await;
    server.kill9();
    eventually(async || check(!alive(), || "the process outlives the server".to_owned())).await;
}

#[tokio::test]
async fn the_log_reports_the_number_of_recovered_tasks() {
    let mut server = Server::start("");
    let later = v1::SubmitTaskRequest { delay: seconds(3_600), ..noop() };
    for _ in 0..3 {
        server.submit(later.clone()).await;
    }
    let ended = server.submit(noop()).await;
    server.wait_finished(&ended).await;
    // The projection may contain all of this, or nothing.
    server.kill9();
    server.start_again();
    // The server may accept calls before it writes the line.
    let line = eventually(async || {
        let log = server.log();
        let line = log.lines().filter(|line| line.contains("\"message\":\"serving\"")).nth(1).map(str::to_owned);
        line.ok_or(log)
    })
    .await;
    let fields: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((fields["tasks"].as_u64(), fields["unfinished"].as_u64()), (Some(4), Some(3)), "{fields}");
    // Four submissions and at least the end of one task.
    assert!(fields["revision"].as_str().unwrap().parse::<u64>().unwrap() >= 5, "{fields}");
}

#[tokio::test]
async fn a_task_that_was_running_at_a_crash_runs_again_as_the_same_attempt() {
    let mut server = Server::start("");
    let again = server.submit(task("io", "0.5")).await;
    let once = server.submit(v1::SubmitTaskRequest { at_most_once: true, ..task("io", "60") }).await;
    server.wait_for_state(&again, TaskState::Running).await;
    server.wait_for_state(&once, TaskState::Running).await;
    server.kill9();
    server.start_again();
    let ended = server.wait_finished(&again).await;
    assert_eq!((ended.state(), ended.attempt), (TaskState::Completed, 1));
    let ended = server.wait_finished(&once).await;
    assert_eq!(ended.failure.unwrap().reason(), v1::FailureReason::WorkerLost);
}

#[tokio::test]
async fn a_task_that_outlasts_the_drain_runs_again() {
    let mut server = Server::start("[server]\ndrain_limit = \"200ms\"\n");
    let long = server.submit(task("io", "2")).await;
    let waiting = server.submit(v1::SubmitTaskRequest { delay: seconds(3_600), ..noop() }).await;
    server.wait_for_state(&long, TaskState::Running).await;
    server.signal(rustix::process::Signal::TERM);
    assert!(server.wait_exit().success(), "{}", server.log());
    server.start_again();
    let ended = server.wait_finished(&long).await;
    assert_eq!((ended.state(), ended.attempt), (TaskState::Completed, 1));
    assert_eq!(server.get(&waiting).await.state(), TaskState::Waiting);
}

#[tokio::test]
async fn a_server_whose_tasks_were_all_deleted_accepts_tasks_after_a_restart() {
    let mut server = Server::start("");
    let id = server.submit(noop()).await;
    server.wait_finished(&id).await;
    server.tasks().delete_tasks(v1::DeleteTasksRequest::default()).await.unwrap();
    // Answered by the projection, so it has seen all events and the restart has none to replay.
    let page = server.tasks().list_tasks(v1::ListTasksRequest::default()).await.unwrap().into_inner();
    assert_eq!(page.tasks.len(), 0);
    server.kill9();
    server.start_again();
    let next = server.submit(noop()).await;
    assert!(server.wait_finished(&next).await.revision > page.revision);
}

/// Kills the server, which is the parent of the parent of its parent, as soon as it runs, before its start is durable.
const POISON: &str = "[[handler]]\nname = \"poison\"\nrunner = \"process\"\n\
    argv = [\"/bin/sh\", \"-c\", \"read _ _ _ supervisor _ < /proc/$PPID/stat; \
    read _ _ _ server _ < /proc/$supervisor/stat; kill -9 $server; sleep 60\"]\n";

#[tokio::test]
async fn a_task_that_kills_the_server_at_once_fails_and_its_neighbours_do_not() {
    let mut server = Server::start(&format!("{POISON}[[pool]]\nname = \"default\"\nsize = 4\n"));
    server.set_paused("default", true).await;
    let mut neighbours = Vec::new();
    for _ in 0..2 {
        neighbours.push(server.submit(task("io", "3600")).await);
    }
    let poison = server.submit(v1::SubmitTaskRequest { handler: "poison".into(), ..Default::default() }).await;
    // The response may be lost with the server.
    let resume = v1::UpdatePoolRequest { name: "default".into(), paused: Some(false), ..Default::default() };
    let _ = server.pools().update_pool(resume).await;
    let mut crashes = 0;
    loop {
        let request = v1::GetTaskRequest { task_id: poison.clone(), ..Default::default() };
        let killed = eventually(async || {
            if server.has_exited() {
                return Ok(true);
            }
            let task = server.tasks().get_task(request.clone()).await.map_err(|status| status.to_string())?;
            let state = task.into_inner().task.unwrap().state();
            if state == TaskState::Failed { Ok(false) } else { Err(format!("the task is {state:?}")) }
        })
        .await;
        if !killed {
            break;
        }
        crashes += 1;
        assert!(crashes < 10, "the task was not found: {}", server.log());
        while !server.start_again_unless_killed() {
            crashes += 1;
            assert!(crashes < 10, "the task was not found: {}", server.log());
        }
    }
    assert_eq!(server.get(&poison).await.failure.unwrap().reason(), v1::FailureReason::WorkerLost);
    for id in &neighbours {
        server.wait_for_state(id, TaskState::Running).await;
    }
}

#[tokio::test]
async fn a_panic_of_the_scheduler_ends_the_server_with_an_error_and_a_log_line() {
    let faults = Faults::new();
    let variables = faults.variables();
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, &**value)).collect();
    let mut server = Server::start_with("", &variables);
    faults.set(&["panic once *"]);
    let status = server.wait_exit();
    assert_eq!(status.code(), Some(101), "{status}: {}", server.log());
    assert!(server.log().contains("has panicked"), "{}", server.log());
    faults.clear();
    server.start_again();
    let task = server.submit(noop()).await;
    server.wait_finished(&task).await;
}
