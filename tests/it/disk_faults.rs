//! Disks that fail to read, write or sync: nothing acknowledged is lost, a call that needs the disk is refused, and the
//! server recovers by itself.

use lineshaft::proto::v1::{self, TaskState};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::disk::{PAYLOAD_BYTES, assert_stored, large, wait_until_ready};
use crate::support::{BINARY, Faults, Server, bytes, check, eventually, noop, reason, run};

/// Counts the bytes of its payload. No payload is kept in memory.
const CONFIG: &str = "
[limits]
queued_payload_bytes = 0
[[pool]]
name = \"default\"
size = 4
[[handler]]
name = \"size\"
runner = \"process\"
argv = [\"/usr/bin/wc\", \"-c\"]
";
const FAILING_READS: &[&str] = &["read eio projection.db", "read eio projection.db-wal"];

fn start(faults: &Faults, config: &str) -> Server {
    let variables = faults.variables();
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, &**value)).collect();
    Server::start_with(config, &variables)
}

fn size(n: usize) -> v1::SubmitTaskRequest {
    v1::SubmitTaskRequest { handler: "size".to_owned(), ..large(n) }
}

/// The call failed because of the disk, and its caller learns when to try again.
fn assert_unavailable(status: &Status) {
    assert_eq!((status.code(), reason(status)), (Code::Unavailable, "STORE_UNAVAILABLE".to_owned()), "{status:?}");
    assert!(status.get_error_details().retry_info().unwrap().retry_delay.is_some(), "{status:?}");
}

async fn get(server: &Server, id: &str) -> Result<v1::Task, Status> {
    let request = v1::GetTaskRequest { task_id: id.to_owned(), include_payload: true, ..Default::default() };
    server.tasks().get_task(request).await.map(|response| response.into_inner().task.unwrap())
}

async fn list(server: &Server) -> Result<usize, Status> {
    let listed = server.tasks().list_tasks(v1::ListTasksRequest::default()).await;
    listed.map(|response| response.into_inner().tasks.len())
}

/// Submits tasks until the rules were applied several times. Every refusal states that the store is unavailable.
async fn submit_until_applied(server: &Server, faults: &Faults, rules: &[&str]) -> Vec<String> {
    let mut accepted = Vec::new();
    let applied = || rules.iter().any(|rule| faults.applied(rule) >= 3);
    eventually(async || {
        match server.tasks().submit_task(size(accepted.len())).await {
            Ok(answer) => accepted.push(answer.into_inner().task_id),
            Err(refused) => assert_unavailable(&refused),
        }
        check(applied(), || format!("{rules:?} were not applied; {} tasks were accepted", accepted.len()))
    })
    .await;
    accepted
}

async fn assert_completed(server: &Server, accepted: &[String]) {
    for id in accepted {
        let task = server.wait_finished(id).await;
        let result = (task.state(), task.attempt);
        assert_eq!(result, (TaskState::Completed, 1), "{id}: {:?}", task.failure);
        assert_eq!(bytes(task.result.as_ref()), format!("{PAYLOAD_BYTES}\n"), "{id}");
    }
}

/// The disk failed, but nothing is damaged.
fn assert_no_damage_logged(server: &Server) {
    let log = server.log();
    for word in ["corrupt", "damage", "backup", "rebuilt", "panicked"] {
        assert!(!log.contains(word), "{word}: {log}");
    }
}

async fn assert_survives(faults: &Faults, rules: &[&str]) {
    let mut server = start(faults, CONFIG);
    let before = server.submit(size(0)).await;
    server.wait_finished(&before).await;
    faults.set(rules);
    let mut accepted = submit_until_applied(&server, faults, rules).await;
    faults.clear();
    wait_until_ready(&server).await;
    let after = eventually(async || match server.tasks().submit_task(size(0)).await {
        Ok(answer) => Ok(answer.into_inner().task_id),
        Err(refused) => Err(format!("{refused:?}")),
    });
    accepted.extend([before, after.await]);
    assert_completed(&server, &accepted).await;
    server.kill9();
    server.start_again();
    assert_completed(&server, &accepted).await;
    assert_no_damage_logged(&server);
}

#[tokio::test]
async fn acknowledged_tasks_survive_a_journal_that_cannot_be_written() {
    let faults = Faults::new();
    for rule in ["write eio journal.db-wal", "write torn journal.db-wal", "write short journal.db-wal"] {
        assert_survives(&faults, &[rule]).await;
    }
}

#[tokio::test]
async fn acknowledged_tasks_survive_slow_syncs() {
    assert_survives(&Faults::new(), &["sync slow journal.db-wal"]).await;
}

#[tokio::test]
async fn acknowledged_tasks_survive_failing_checkpoints() {
    let faults = Faults::new();
    for rule in ["write eio journal.db", "write eio projection.db"] {
        assert_survives(&faults, &[rule]).await;
    }
}

/// The rules make a sync of this file fail, which must end the server.
async fn assert_ends_and_recovers(faults: &Faults, file: &str) {
    let mut server = start(faults, CONFIG);
    let before = server.submit(size(0)).await;
    server.wait_finished(&before).await;
    faults.set(&[&format!("sync eio {file}")]);
    let mut accepted = vec![before];
    while !server.has_exited() {
        if let Ok(answer) = server.tasks().submit_task(size(accepted.len())).await {
            accepted.push(answer.into_inner().task_id);
        }
    }
    assert_eq!(server.wait_exit().code(), Some(1), "{}", server.log());
    let log = server.log();
    let line = log.lines().find(|line| line.contains("the server exits")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("failed to sync") && line.contains(file.trim_end_matches("-wal")), "{line}");
    faults.clear();
    server.start_again();
    assert_completed(&server, &accepted).await;
    server.kill9();
    server.start_again();
    assert_completed(&server, &accepted).await;
    assert_no_damage_logged(&server);
}

#[tokio::test]
async fn a_failed_sync_of_the_journal_ends_the_server_and_nothing_acknowledged_is_lost() {
    let faults = Faults::new();
    // After a commit and after a checkpoint.
    for file in ["journal.db-wal", "journal.db"] {
        assert_ends_and_recovers(&faults, file).await;
    }
}

#[tokio::test]
async fn a_failed_sync_of_the_projection_ends_the_server_and_nothing_acknowledged_is_lost() {
    let faults = Faults::new();
    for file in ["projection.db-wal", "projection.db"] {
        assert_ends_and_recovers(&faults, file).await;
    }
}

#[tokio::test]
async fn a_rebuild_whose_sync_fails_names_the_file_and_can_be_repeated() {
    let faults = Faults::new();
    let mut server = start(&faults, CONFIG);
    let accepted = [server.submit(size(0)).await];
    assert_completed(&server, &accepted).await;
    server.signal(rustix::process::Signal::TERM);
    server.wait_exit();
    let data = server.path("data");
    let rebuild = || {
        let variables = faults.variables().map(|(name, value)| format!("{name}={value}"));
        let arguments = [BINARY, "store", "rebuild", data.to_str().unwrap()];
        run("env", variables.iter().map(|text| &**text).chain(arguments))
    };
    std::fs::remove_file(data.join("projection.db")).unwrap();
    faults.set(&["sync eio projection.db"]);
    let (succeeded, output) = rebuild();
    assert!(!succeeded && output.contains("failed to sync") && output.contains("projection.db"), "{output}");
    faults.clear();
    let (succeeded, output) = rebuild();
    assert!(succeeded, "{output}");
    server.start_again();
    assert_completed(&server, &accepted).await;
}

/// How often a server writes to the journal's log during its start.
fn writes_at_start(server: &mut Server, faults: &Faults) -> usize {
    // Makes no difference, but is recorded.
    let rule = "write short journal.db-wal";
    faults.set(&[rule]);
    server.start_again();
    faults.clear();
    faults.applied(rule)
}

#[tokio::test]
async fn after_a_failed_sync_the_next_start_writes_the_log_again() {
    let faults = Faults::new();
    let mut server = start(&faults, "");
    let id = server.submit(noop()).await;
    server.wait_finished(&id).await;
    server.kill9();
    let usual = writes_at_start(&mut server, &faults);
    let failing = ["sync eio journal.db-wal"];
    faults.set(&failing);
    server.tasks().submit_task(noop()).await.unwrap_err();
    server.wait_exit();
    // While the disk fails there is no start.
    let output = server.fail_to_start_again();
    assert!(output.contains("failed to sync") && output.contains("journal.db"), "{output}");
    // The log has 40 MiB, and at most 1 MiB is written at a time.
    let again = writes_at_start(&mut server, &faults);
    assert!(usual < 40 && again > 40, "{usual} writes after a crash, {again} after a failed sync");
    server.wait_finished(&id).await;
    server.kill9();
    assert!(writes_at_start(&mut server, &faults) < 40, "once is enough");
}

#[tokio::test]
async fn acknowledged_tasks_survive_a_projection_that_cannot_be_written() {
    let faults = Faults::new();
    for rule in ["write eio projection.db-wal", "write torn projection.db-wal", "write short projection.db-wal"] {
        assert_survives(&faults, &[rule]).await;
    }
}

#[tokio::test]
async fn acknowledged_tasks_survive_a_store_that_cannot_be_read() {
    let faults = Faults::new();
    assert_survives(&faults, FAILING_READS).await;
}

#[tokio::test]
async fn acknowledged_tasks_survive_failing_watermarks() {
    let faults = Faults::new();
    for rule in ["write eio journal.mark", "write torn journal.mark"] {
        assert_survives(&faults, &[rule]).await;
    }
}

#[tokio::test]
async fn queries_are_refused_while_the_projection_cannot_be_read() {
    let faults = Faults::new();
    let mut server = start(&faults, CONFIG);
    server.set_paused("default", true).await;
    let mut accepted = Vec::new();
    for n in 0..24 {
        accepted.push(server.submit(size(n)).await);
    }
    server.get(&accepted[23]).await;
    faults.set(FAILING_READS);
    // A new revision makes the queries read the file.
    accepted.push(server.submit(size(24)).await);
    let mut refused = [0, 0];
    eventually(async || {
        for id in [&accepted[3], &accepted[24]] {
            if let Err(status) = get(&server, id).await {
                assert_unavailable(&status);
                refused[0] += 1;
            }
        }
        if let Err(status) = list(&server).await {
            assert_unavailable(&status);
            refused[1] += 1;
        }
        check(refused.iter().all(|count| *count >= 2), || format!("refused: {refused:?}"))
    })
    .await;
    // Attempts wait for their payloads.
    server.set_paused("default", false).await;
    faults.set(FAILING_READS);
    faults.wait_applied("read eio projection.db", 3).await;
    faults.clear();
    assert_completed(&server, &accepted).await;
    assert_eq!(list(&server).await.unwrap(), 25);
    assert_no_damage_logged(&server);
    server.kill9();
    server.start_again();
    assert_stored(&server, &accepted).await;
    assert_no_damage_logged(&server);
}

#[tokio::test]
async fn a_watch_is_refused_while_the_journal_cannot_be_read() {
    let faults = Faults::new();
    let mut server = start(&faults, "");
    let id = server.submit(noop()).await;
    server.wait_finished(&id).await;
    server.kill9();
    // Events from before the start are read from the journal.
    server.start_again();
    // A commit makes the pages that the start has read useless.
    server.submit(noop()).await;
    faults.set(&["read eio journal.db", "read eio journal.db-wal"]);
    let request = v1::WatchTasksRequest { resume_token: server.oldest_token().await, ..Default::default() };
    let mut steps = server.tasks().watch_tasks(request.clone()).await.unwrap().into_inner();
    let refused = loop {
        match steps.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the watch ended"),
            Err(status) => break status,
        }
    };
    assert_unavailable(&refused);
    faults.clear();
    let mut steps = server.tasks().watch_tasks(request).await.unwrap().into_inner();
    steps.message().await.unwrap().unwrap();
    assert_no_damage_logged(&server);
}

#[tokio::test]
async fn a_read_error_at_the_start_changes_no_file() {
    let faults = Faults::new();
    let mut server = start(&faults, CONFIG);
    let accepted = [server.submit(size(0)).await, server.submit(size(1)).await];
    assert_completed(&server, &accepted).await;
    server.signal(rustix::process::Signal::TERM);
    server.wait_exit();
    let data = server.path("data");
    for file in ["journal.db", "projection.db"] {
        // The first page can be read, so the error comes in the middle of a query.
        faults.set(&[&format!("read eio {file} 4096")]);
        let output = server.fail_to_start_again();
        assert!(output.contains(file) && output.contains("disk I/O error"), "{output}");
        assert!(!output.contains("corrupt") && !output.contains("backup"), "{output}");
        let copy = server.path("copy");
        let store = |arguments: &[&str]| {
            let variables = faults.variables().map(|(name, value)| format!("{name}={value}"));
            let command = variables.iter().map(|text| &**text).chain([BINARY, "store"]);
            run("env", command.chain(arguments.iter().copied()))
        };
        let (data, copy) = (data.to_str().unwrap(), copy.to_str().unwrap());
        for arguments in [&["check", data][..], &["backup", "--data-dir", data, "--to", copy]] {
            let (succeeded, output) = store(arguments);
            assert!(!succeeded && output.contains("disk I/O error") && !output.contains("corrupt"), "{output}");
        }
    }
    faults.clear();
    server.start_again();
    assert_completed(&server, &accepted).await;
    assert!(!server.log().contains("rebuilt") && !data.join("projection.db.damaged-1").exists(), "{}", server.log());
}
