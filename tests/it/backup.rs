//! Back-ups taken from a server that is working, looked at, and restored.

use std::path::Path;

use lineshaft::proto::v1::{self, TaskState};

use crate::support::{BINARY, Server, noop, run, task};

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
