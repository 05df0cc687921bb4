//! Memory of the server under large payloads, in a control group where the machine allows it.

use std::path::{Path, PathBuf};

use futures_util::{StreamExt, stream};
use lineshaft::proto::v1::{self, TaskState, payload::Kind};
use tonic::Code;

use crate::support::{Server, bytes};

/// Less than the payloads of all tasks, and enough for the documented sum.
const LIMIT: u64 = 256 << 20;
const PAYLOAD_BYTES: usize = 1 << 20;
/// More tasks than the limit has room for.
const TASKS: usize = 320;
const CONFIG: &str = "
[limits]
queued_payload_bytes = \"48MiB\"
[[pool]]
name = \"default\"
size = 4
queue_limit = 320
paused = true
[[handler]]
name = \"size\"
runner = \"process\"
argv = [\"/usr/bin/wc\", \"-c\"]
";

/// A control group with a memory limit; removed when dropped.
struct ControlGroup {
    path: PathBuf,
    /// The file that counts processes killed for memory, and the word before the count.
    kills: (&'static str, &'static str),
}

impl ControlGroup {
    /// `None` where this process may not create one; then only the measured memory is compared with the limit.
    fn create(limit: u64) -> Option<Self> {
        let kinds = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", ("memory.oom_control", "oom_kill ")),
            ("/sys/fs/cgroup", "memory.max", ("memory.events", "oom_kill ")),
        ];
        kinds.into_iter().find_map(|(root, file, kills)| {
            let path = Path::new(root).join(format!("lineshaft-test-{}", std::process::id()));
            std::fs::create_dir(&path).ok()?;
            let group = Self { path, kills };
            // Without the memory controller the file is missing and cannot be created.
            std::fs::write(group.path.join(file), limit.to_string()).ok()?;
            Some(group)
        })
    }

    fn killed(&self) -> u64 {
        let text = std::fs::read_to_string(self.path.join(self.kills.0)).unwrap();
        let count = text.lines().find_map(|line| line.strip_prefix(self.kills.1)).unwrap();
        count.parse().unwrap()
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // Fails while a process is still in it; then the directory stays, and nothing else.
        let _ = std::fs::remove_dir(&self.path);
    }
}

/// The most memory that the process has had resident so far.
fn peak(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn large(n: usize) -> v1::SubmitTaskRequest {
    let data = vec![u8::try_from(n % 251).unwrap(); PAYLOAD_BYTES];
    let payload = v1::Payload { kind: Some(Kind::Data(data.into())), content_type: String::new() };
    v1::SubmitTaskRequest { handler: "size".to_owned(), payload: Some(payload), ..Default::default() }
}

/// Submits large tasks until the queue is full.
async fn fill(server: &Server) -> Vec<String> {
    let tasks = server.tasks();
    let submit = |n| {
        let mut tasks = tasks.clone();
        async move { tasks.submit_task(large(n)).await }
    };
    let results: Vec<_> = stream::iter(0..=TASKS).map(submit).buffer_unordered(4).collect().await;
    let (accepted, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(refused.len(), 1, "the queue has room for all but one: {refused:?}");
    assert_eq!(refused[0].as_ref().unwrap_err().code(), Code::ResourceExhausted);
    accepted.into_iter().map(|accepted| accepted.unwrap().into_inner().task_id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_within_the_budget_under_large_payloads_and_after_a_crash() {
    let group = ControlGroup::create(LIMIT);
    println!("control group: {:?}", group.as_ref().map(|group| &group.path));
    let mut server = Server::start_limited(CONFIG, group.as_ref().map(|group| &*group.path));
    let accepted = fill(&server).await;
    let before = peak(&server);
    server.kill9();
    server.start_again();
    let restarted = peak(&server);
    println!("peak {} MiB, {} MiB after the restart", before >> 20, restarted >> 20);
    server.set_paused("default", false).await;
    for id in &accepted {
        let task = server.wait_finished(id).await;
        let result = (task.state(), bytes(task.result.as_ref()));
        assert_eq!(result, (TaskState::Completed, format!("{PAYLOAD_BYTES}\n")), "{:?}", task.failure);
    }
    let drained = peak(&server);
    println!("{} MiB after all tasks have run", drained >> 20);
    assert_eq!(group.as_ref().map_or(0, ControlGroup::killed), 0, "killed for memory");
    assert!(drained.max(before) <= LIMIT, "{before} and {drained} bytes exceed the limit");
    assert!(drained <= before + before / 5, "{drained} bytes after the restart, {before} before");
}
