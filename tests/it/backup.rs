//! Backup, check, restore and rebuild of a store with the binary.

use std::path::Path;
use std::process::Stdio;

use lineshaft::proto::v1::{self, TaskState};

use rustix::process::Signal;

use crate::support::{BINARY, Server, check, eventually, eventually_blocking, noop, run, seconds, task};

fn store(arguments: &[&str]) -> (bool, String) {
    run(BINARY, [&["store"], arguments].concat())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_contains_everything_acknowledged_before_it() {
    let mut server = Server::start("[[pool]]\nname = \"default\"\nsize = 2\n");
    let delayed = v1::SubmitTaskRequest { delay: seconds(3_600), ..noop() };
    let waiting = server.submit(delayed).await;
    // A check counts the tasks in the projection, which may lag; a list waits until it has the task.
    server.tasks().list_tasks(v1::ListTasksRequest::default()).await.unwrap();
    let (sender, mut accepted) = tokio::sync::mpsc::unbounded_channel();
    let mut tasks = server.tasks();
    let load = tokio::spawn(async move {
        loop {
            let Ok(answer) = tasks.submit_task(task("compute", "1000")).await else { return };
            let _ = sender.send(answer.into_inner().task_id);
        }
    });
    let (data, copies) = (server.path("data"), tempfile::tempdir().unwrap());
    let mut before = vec![waiting.clone()];
    let mut copy = copies.path().to_owned();
    for n in 0..3 {
        for _ in 0..100 {
            before.push(accepted.recv().await.unwrap());
        }
        copy = copies.path().join(format!("copy-{n}"));
        let (ok, output) = store(&["backup", "--data-dir", text(&data), "--to", text(&copy)]);
        assert!(ok && output.contains("all checksums match"), "{output}");
    }
    let (ok, output) = store(&["check", text(&data)]);
    assert!(ok && output.contains("a server is using the store"), "{output}");
    let (ok, output) = store(&["check", text(&copy), "-o", "json"]);
    let found: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert!(ok && found["tasks"]["WAITING"] == 1 && found["in_use"] == false, "{output}");
    let (ok, output) = store(&["backup", "--data-dir", text(&data), "--to", text(&copy)]);
    assert!(!ok && output.contains("already exists"), "{output}");
    server.kill9();
    load.await.unwrap();

    // Restore as documented in docs/operations.md.
    std::fs::rename(&data, server.path("data-lost")).unwrap();
    std::fs::rename(&copy, &data).unwrap();
    server.start_again();
    assert!(!server.log().contains("rebuilt"), "{}", server.log());
    assert_eq!(server.get(&waiting).await.state(), TaskState::Waiting);
    for id in &before[1..] {
        assert_eq!(server.wait_finished(id).await.state(), TaskState::Completed, "{id}");
    }
    let new = server.submit(noop()).await;
    assert_eq!(server.wait_finished(&new).await.state(), TaskState::Completed);
}

#[tokio::test]
async fn a_projection_that_a_trimmed_journal_cannot_restore_prevents_the_start_until_it_is_rebuilt() {
    let mut server = Server::start("[store]\nwatch_window_events = 1000\n");
    let delayed = v1::SubmitTaskRequest { delay: seconds(3_600), ..noop() };
    let early = server.submit(delayed.clone()).await;
    let data = server.path("data");
    let trimmed = || {
        let (_, output) = store(&["check", text(&data), "-o", "json"]);
        serde_json::from_str::<serde_json::Value>(&output).is_ok_and(|found| found["trimmed"].as_u64() > Some(0))
    };
    let many = v1::BatchSubmitTasksRequest { tasks: vec![noop(); 1_000], batch_id: String::new() };
    server.tasks().batch_submit_tasks(many).await.unwrap();
    eventually(async || check(trimmed(), || "the journal is not trimmed".to_owned())).await;
    let late = server.submit(delayed).await;
    server.kill9();
    let projection = data.join("projection.db");
    let length = usize::try_from(std::fs::metadata(&projection).unwrap().len()).unwrap();
    std::fs::write(&projection, vec![0x41; length]).unwrap();
    // The log alone may contain every page.
    for end in ["wal", "shm"] {
        std::fs::remove_file(data.join(format!("projection.db-{end}"))).unwrap();
    }

    for _ in 0..2 {
        let output = server.fail_to_start_again();
        assert!(
            output.contains("projection.db` cannot be read") && output.contains("including unfinished ones"),
            "{output}"
        );
        assert!(output.contains("restore a backup"), "{output}");
        assert!(output.contains(&format!("lineshaft store rebuild {}", text(&data))), "{output}");
    }
    let (ok, output) = store(&["rebuild", text(&data)]);
    assert!(ok && output.contains("projection.db.damaged-1") && output.contains("all checksums match"), "{output}");
    server.start_again();
    assert_eq!(server.get(&late).await.state(), TaskState::Waiting);
    let request = v1::GetTaskRequest { task_id: early, ..Default::default() };
    assert_eq!(server.tasks().get_task(request).await.unwrap_err().code(), tonic::Code::NotFound);
    let new = server.submit(noop()).await;
    assert_eq!(server.wait_finished(&new).await.state(), TaskState::Completed);
    let (ok, output) = store(&["rebuild", text(&data)]);
    assert!(!ok && output.contains("in use by another server"), "{output}");
}

#[tokio::test]
async fn the_store_of_a_stopped_server_can_be_backed_up_and_checked() {
    let mut server = Server::start("");
    let id = server.submit(noop()).await;
    server.wait_finished(&id).await;
    // An orderly stop writes the projection.
    server.signal(Signal::TERM);
    server.wait_exit();
    let (data, copies) = (server.path("data"), tempfile::tempdir().unwrap());
    let copy = copies.path().join("copy");
    let (ok, output) = store(&["backup", "--data-dir", text(&data), "--to", text(&copy)]);
    assert!(ok && output.contains("1 COMPLETED"), "{output}");
    let journal = copy.join("journal.db");
    let mut bytes = std::fs::read(&journal).unwrap();
    let offset = bytes.windows(7).position(|window| window == b"compute").unwrap();
    bytes[offset] ^= 0x41;
    std::fs::write(&journal, bytes).unwrap();
    let (ok, output) = store(&["check", text(&copy)]);
    assert!(!ok && output.contains("journal.db` is corrupt at commit"), "{output}");
    let (ok, output) = store(&["check", text(copies.path())]);
    assert!(!ok && output.contains("there is no store"), "{output}");
}

#[tokio::test]
async fn a_backup_replaces_what_a_killed_one_has_left() {
    let server = Server::start("");
    let copies = tempfile::tempdir().unwrap();
    let (copy, partial) = (copies.path().join("copy"), copies.path().join("copy.partial"));
    std::fs::create_dir(&partial).unwrap();
    std::fs::write(partial.join("journal.db"), "the beginning of a copy").unwrap();
    // As long as a backup is writing, it keeps its directory locked.
    let writing = std::fs::File::open(&partial).unwrap();
    writing.try_lock().unwrap();
    let data = server.path("data");
    let backup = ["backup", "--data-dir", text(&data), "--to", text(&copy)];
    let (ok, output) = store(&backup);
    assert!(!ok && output.contains("copy.partial`: it already exists"), "{output}");
    drop(writing);
    let (ok, output) = store(&backup);
    assert!(ok && copy.exists() && !partial.exists(), "{output}");
}

#[tokio::test]
async fn a_backup_that_a_signal_ends_leaves_nothing() {
    let mut server = Server::start("");
    server.set_paused("default", true).await;
    // So large that copying it takes far longer than to see that it has begun.
    for _ in 0..48 {
        server.submit(task("compute", &"1".repeat(1_000_000))).await;
    }
    server.kill9();
    let (data, copies) = (server.path("data"), tempfile::tempdir().unwrap());
    let (copy, partial) = (copies.path().join("copy"), copies.path().join("copy.partial"));
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        // The backup may complete before the signal; then it does not count.
        loop {
            #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
            let mut command = std::process::Command::new(BINARY);
            command.args(["store", "backup", "--data-dir", text(&data), "--to", text(&copy)]);
            let mut backup = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            eventually_blocking(|| {
                let begun = partial.exists() || backup.try_wait().unwrap().is_some();
                check(begun, || "the backup has not begun".to_owned())
            });
            rustix::process::kill_process(rustix::process::Pid::from_child(&backup), signal).unwrap();
            let ended = backup.wait().unwrap();
            if copy.exists() {
                std::fs::remove_dir_all(&copy).unwrap();
                continue;
            }
            assert_eq!(ended.code(), Some(128 + signal.as_raw()), "{signal:?}");
            assert_eq!(std::fs::read_dir(copies.path()).unwrap().count(), 0, "{signal:?} left files");
            break;
        }
    }
}
