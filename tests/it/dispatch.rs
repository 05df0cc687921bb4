//! What becomes of tasks between their submission and their start.

use lineshaft::proto::v1::{self, TaskState};

use crate::support::{Server, check, eventually, noop, task};

const ONE_WORKER: &str = "[[pool]]\nname = \"default\"\nsize = 1\n";

fn resident_mib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

#[tokio::test]
async fn payloads_of_cancelled_tasks_are_freed_although_no_worker_is_free() {
    const COUNT: u64 = 300;
    let server = Server::start(ONE_WORKER);
    let running = server.submit(task("io", "3600")).await;
    server.wait_started(&running).await;
    let large = || {
        let data = vec![b'x'; 1 << 20].into();
        let payload = Some(v1::Payload { kind: Some(v1::payload::Kind::Data(data)), content_type: String::new() });
        v1::SubmitTaskRequest { payload, ..noop() }
    };
    let cancel = async |id: String| {
        let request = v1::CancelTaskRequest { task_id: id, ..Default::default() };
        server.tasks().cancel_task(request).await.unwrap().into_inner().state()
    };
    let before = resident_mib(&server);
    for _ in 0..COUNT {
        let id = server.submit(large()).await;
        assert_eq!(cancel(id).await, TaskState::Cancelled);
    }
    eventually(async || {
        let grown = resident_mib(&server).saturating_sub(before);
        check(grown < COUNT / 3, || format!("{grown} MiB more are resident after {COUNT} cancelled tasks of 1 MiB"))
    })
    .await;
}
