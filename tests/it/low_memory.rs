//! No task starts in the server while its memory is low.

use lineshaft::proto::v1::{self, TaskState, blocker::Kind};

use crate::health_endpoints::wait_for_sample;
use crate::support::{ControlGroup, Server, check, eventually, noop, task};

async fn lacks_memory(server: &Server, id: &str) -> bool {
    let request = v1::ExplainTaskRequest { task_id: id.to_owned() };
    let explained = server.tasks().explain_task(request).await.unwrap().into_inner();
    explained.blockers.iter().any(|blocker| blocker.kind == Some(Kind::LowMemory(true)))
}

#[tokio::test]
async fn tasks_wait_while_less_memory_is_unused_than_the_reserve() {
    // No machine has as much.
    let mut server = Server::start("[limits]\nmemory_reserve = \"1TiB\"\n");
    server.wait_logged("memory is low: no more tasks start in the server").await;
    let id = server.submit(noop()).await;
    assert!(lacks_memory(&server, &id).await);
    wait_for_sample(&server.address, r#"lineshaft_task_blocked{blocker="low_memory",pool="default"}"#, "1");
    assert_eq!(server.get(&id).await.state(), TaskState::Queued);
    std::fs::write(server.path("config.toml"), "[limits]\nmemory_reserve = 0\n").unwrap();
    server.kill9();
    server.start_again();
    assert_eq!(server.wait_finished(&id).await.state(), TaskState::Completed);
}

/// Keeps 512 MiB until it is stopped.
const CONFIG: &str = r#"
[limits]
memory_reserve = "500MiB"
[[handler]]
name = "hog"
runner = "process"
argv = ["/bin/sh", "-c", "(head -c 536870912 /dev/zero; sleep 3600) | tail"]
"#;

#[tokio::test]
async fn tasks_start_again_when_a_task_that_used_the_memory_has_ended() {
    // Of which the server uses less than 250 MiB.
    let Some(group) = ControlGroup::create(1 << 30) else {
        println!("this test needs control groups");
        return;
    };
    let server = Server::start_limited(CONFIG, Some(&group));
    let before = server.submit(noop()).await;
    assert_eq!(server.wait_finished(&before).await.state(), TaskState::Completed);
    let hog = server.submit(task("hog", "")).await;
    server.wait_logged("memory is low").await;
    let waiting = server.submit(noop()).await;
    assert!(lacks_memory(&server, &waiting).await);
    let cancel = v1::CancelTaskRequest { task_id: hog.clone(), ..Default::default() };
    server.tasks().cancel_task(cancel).await.unwrap();
    assert_eq!(server.wait_finished(&waiting).await.state(), TaskState::Completed);
    server.wait_logged("memory is no longer low").await;
    eventually(async || check(!lacks_memory(&server, &waiting).await, || "still named".to_owned())).await;
    assert_eq!(group.killed(), 0, "killed for memory");
}
