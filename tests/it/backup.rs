//! Back-ups taken from a server that is working, looked at, and restored.

use std::path::Path;

use lineshaft::proto::v1::{self, TaskState};

use crate::support::{BINARY, PATIENCE, Server, noop, run, task};

fn store(arguments: &[&str]) -> (bool, String) {
    run(BINARY, [&["store"], arguments].concat())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_back_up_taken_under_load_is_restored_with_all_that_was_acknowledged_before_it() {
    let mut server = Server::start("[[pool]]\nname = \"default\"\nsize = 2\n");
    let kept = v1::SubmitTaskRequest { delay: crate::support::seconds(3_600), ..noop() };
    let waiting = server.submit(kept).await;
    // Once it is answered, the tables have it: a check counts what they have, and they may lag behind.
    server.get(&waiting).await;
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
        let (done, said) = store(&["backup", "--data-dir", text(&data), "--to", text(&copy)]);
        assert!(done && said.contains("every checksum fits"), "{said}");
    }
    let (done, said) = store(&["check", text(&data)]);
    assert!(done && said.contains("a server is using it"), "{said}");
    let (done, said) = store(&["check", text(&copy), "-o", "json"]);
    let found: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert!(done && found["tasks"]["WAITING"] == 1 && found["in_use"] == false, "{said}");
    let (done, said) = store(&["backup", "--data-dir", text(&data), "--to", text(&copy)]);
    assert!(!done && said.contains("is there already"), "{said}");
    server.kill9();
    load.await.unwrap();

    // The way back that the manual describes.
    std::fs::rename(&data, server.path("data-lost")).unwrap();
    std::fs::rename(&copy, &data).unwrap();
    server.start_again();
    assert!(!server.log().contains("rebuilt"), "{}", server.log());
    assert_eq!(server.get(&waiting).await.state(), TaskState::Waiting);
    for id in &before[1..] {
        assert_eq!(server.ended(id).await.state(), TaskState::Completed, "{id}");
    }
    let new = server.submit(noop()).await;
    assert_eq!(server.ended(&new).await.state(), TaskState::Completed);
}

#[tokio::test]
async fn tables_that_the_trimmed_journal_cannot_bring_back_keep_the_server_from_starting_until_that_is_accepted() {
    let mut server = Server::start("[store]\nwatch_window_events = 1000\n");
    let waits = v1::SubmitTaskRequest { delay: crate::support::seconds(3_600), ..noop() };
    let early = server.submit(waits.clone()).await;
    let data = server.path("data");
    let trimmed = || {
        let (_, said) = store(&["check", text(&data), "-o", "json"]);
        serde_json::from_str::<serde_json::Value>(&said).is_ok_and(|found| found["trimmed"].as_u64() > Some(0))
    };
    let many = v1::BatchSubmitTasksRequest { tasks: vec![noop(); 1_000], batch_id: String::new() };
    server.tasks().batch_submit_tasks(many).await.unwrap();
    let begun = std::time::Instant::now();
    while !trimmed() {
        assert!(begun.elapsed() < PATIENCE, "the journal is not trimmed");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let late = server.submit(waits).await;
    server.kill9();
    let tables = data.join("projection.db");
    let length = usize::try_from(std::fs::metadata(&tables).unwrap().len()).unwrap();
    std::fs::write(&tables, vec![0x41; length]).unwrap();
    // The log alone may have every page.
    for end in ["wal", "shm"] {
        std::fs::remove_file(data.join(format!("projection.db-{end}"))).unwrap();
    }

    for _ in 0..2 {
        let said = server.fail_to_start_again();
        assert!(said.contains("projection.db` is not whole") && said.contains("live ones too"), "{said}");
        assert!(said.contains("restore a back-up"), "{said}");
        assert!(said.contains(&format!("lineshaft store rebuild {}", text(&data))), "{said}");
    }
    let (done, said) = store(&["rebuild", text(&data)]);
    assert!(done && said.contains("projection.db.damaged-1") && said.contains("every checksum fits"), "{said}");
    server.start_again();
    assert_eq!(server.get(&late).await.state(), TaskState::Waiting);
    let request = v1::GetTaskRequest { task_id: early, include_payload: false };
    assert_eq!(server.tasks().get_task(request).await.unwrap_err().code(), tonic::Code::NotFound);
    let new = server.submit(noop()).await;
    assert_eq!(server.ended(&new).await.state(), TaskState::Completed);
    let (done, said) = store(&["rebuild", text(&data)]);
    assert!(!done && said.contains("in use by another server"), "{said}");
}

#[tokio::test]
async fn a_stopped_store_is_copied_too_and_damage_is_named() {
    let mut server = Server::start("");
    let id = server.submit(noop()).await;
    server.ended(&id).await;
    server.kill9();
    let (data, copies) = (server.path("data"), tempfile::tempdir().unwrap());
    let copy = copies.path().join("copy");
    let (done, said) = store(&["backup", "--data-dir", text(&data), "--to", text(&copy)]);
    assert!(done && said.contains("1 COMPLETED"), "{said}");
    let journal = copy.join("journal.db");
    let mut bytes = std::fs::read(&journal).unwrap();
    let place = bytes.windows(7).position(|window| window == b"compute").unwrap();
    bytes[place] ^= 0x41;
    std::fs::write(&journal, bytes).unwrap();
    let (done, said) = store(&["check", text(&copy)]);
    assert!(!done && said.contains("journal.db` is damaged at commit"), "{said}");
    let (done, said) = store(&["check", text(copies.path())]);
    assert!(!done && said.contains("there is no store"), "{said}");
}
