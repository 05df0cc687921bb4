//! The client of the Rust library, against the real server.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use lineshaft::proto::v1::{self, TaskState};
use lineshaft::{BoxError, CallError, Client, Task, TaskContext, Watch, Worker, WorkerError, permanent};
use tokio::io::AsyncWrite;
use tokio::task::JoinHandle;

use crate::support::{Proxy, Server, TIMEOUT, eventually, task};

fn client(address: &str) -> Client {
    Client::new(address).unwrap()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(TIMEOUT, future).await.expect("in time")
}

fn ids(tasks: &[Task]) -> Vec<&str> {
    tasks.iter().map(Task::id).collect()
}

/// Starts a worker, and waits until the server knows the handler.
async fn start(client: &Client, worker: Worker, handler: &str) -> JoinHandle<Result<(), WorkerError>> {
    let running = tokio::spawn(worker.without_signals().run());
    eventually(async || {
        let request = v1::GetHandlerRequest { name: handler.to_owned() };
        client.handlers().get_handler(request).await.map_err(|status| status.to_string())
    })
    .await;
    running
}

/// The revisions of the events of a watch until a task has completed.
async fn revisions_until(watch: &mut Watch, task: &Task) -> Vec<u64> {
    let mut seen = Vec::new();
    loop {
        let event = within(watch.next()).await.unwrap();
        seen.push(event.revision);
        if event.task_id == task.id() && event.state() == TaskState::Completed {
            return seen;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_submitted_as_a_whole_and_in_order() {
    let server = Server::start("");
    let client = client(&server.address);
    let named = |name: &str| v1::SubmitTaskRequest { task_id: name.to_owned(), ..task("io", "0") };
    let tasks = client.submit_batch(["a", "b", "c"].map(named)).await.unwrap();
    assert_eq!(ids(&tasks), ["a", "b", "c"]);
    for task in &tasks {
        assert_eq!(task.wait().await.unwrap().state(), TaskState::Completed);
    }
    let unknown = v1::SubmitTaskRequest { handler: "nosuch".to_owned(), ..named("e") };
    let refused = client.submit_batch([named("d"), unknown]).await.unwrap_err();
    assert_eq!(refused.reason().as_deref(), Some("UNKNOWN_HANDLER"), "{refused}");
    assert!(client.task("d").wait().await.is_err(), "none of them was submitted");
    assert!(client.submit_batch([]).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_in_the_order_of_the_payloads_and_the_first_failure_ends_the_call() {
    let server = Server::start("");
    let client = client(&server.address);
    let double =
        async |_, n: u64| if n == 7_777 { Err(permanent("not this one").into()) } else { Ok::<u64, BoxError>(2 * n) };
    let worker = Worker::new(&client).handler("double", double).concurrency(500);
    let handle = worker.handle();
    let worker = start(&client, worker, "double").await;
    let doubled: Vec<u64> = within(client.map("double", 0..6_000_u64)).await.unwrap();
    assert_eq!(doubled, (0..6_000).map(|n| 2 * n).collect::<Vec<_>>());
    let failed = within(client.map::<u64, _>("double", [1_u64, 7_777])).await.unwrap_err();
    assert!(matches!(&failed, CallError::Failed { .. }), "{failed}");
    assert!(within(client.map::<u64, u64>("double", [])).await.unwrap().is_empty());
    let listed = client.batches().list_batches(v1::ListBatchesRequest::default()).await.unwrap().into_inner();
    assert_eq!(
        listed.batches.iter().map(|batch| batch.total).collect::<Vec<_>>(),
        [2, 6_000],
        "one batch for each call"
    );
    handle.drain();
    within(worker).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_returned_as_they_finish_however_they_end() {
    let server = Server::start("");
    let client = client(&server.address);
    let slow = client.submit("io", 3_600).await.unwrap();
    let quick = client.submit("io", 0).await.unwrap();
    let failing = v1::SubmitTaskRequest {
        retry: Some(v1::RetryPolicy { max_attempts: 1, ..Default::default() }),
        ..task("compute", "\"nonsense\"")
    };
    let failing = client.submit_task(failing).await.unwrap();
    let mut completed = client.as_completed([slow.clone(), quick.clone(), failing.clone()]);
    let mut ended = HashSet::new();
    for _ in 0..2 {
        let task = within(completed.next()).await.unwrap().unwrap();
        ended.insert((task.task_id.clone(), task.state()));
    }
    let expected = [(quick.id(), TaskState::Completed), (failing.id(), TaskState::Failed)];
    assert_eq!(ended, expected.map(|(id, state)| (id.to_owned(), state)).into());
    slow.cancel().await.unwrap();
    let last = within(completed.next()).await.unwrap().unwrap();
    assert_eq!((&*last.task_id, last.state()), (slow.id(), TaskState::Cancelled));
    assert!(matches!(last.into_result::<()>(), Err(CallError::Cancelled(_))));
    assert!(within(completed.next()).await.is_none());
    let unknown = within(client.as_completed([client.task("nosuch")]).next()).await.unwrap().unwrap_err();
    assert!(unknown.to_string().contains("nosuch"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_gives_its_slot_back_while_it_waits_for_tasks_to_finish() {
    let server = Server::start("");
    let client = client(&server.address);
    let children = client.clone();
    let worker = Worker::new(&client)
        .handler("square", async |_, n: u64| Ok::<_, BoxError>(n * n))
        .handler("sum", move |_: TaskContext, n: u64| {
            let client = children.clone();
            async move { Ok::<_, BoxError>(client.map::<u64, _>("square", 0..n).await?.iter().sum::<u64>()) }
        })
        .concurrency(1);
    let handle = worker.handle();
    let worker = start(&client, worker, "sum").await;
    assert_eq!(within(client.map::<u64, _>("sum", [10_u64, 4])).await.unwrap(), [285, 14]);
    handle.drain();
    within(worker).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_over_broken_connections_and_a_killed_server() {
    let mut server = Server::start("");
    let proxy = Proxy::start(&server.address).await;
    let client = client(&proxy.address);
    let filter = v1::TaskFilter { handler: "io".to_owned(), ..v1::TaskFilter::default() };
    let mut watch = client.watch(filter.clone()).await.unwrap();
    // Before the first message of the watch.
    proxy.cut();
    let first = client.submit("io", 0).await.unwrap();
    assert_eq!(revisions_until(&mut watch, &first).await.len(), 3, "QUEUED, RUNNING, COMPLETED");
    let token = watch.resume_token().to_owned();
    server.kill9();
    server.start_again();
    proxy.set_target(&server.address);
    let second = client.submit("io", 0).await.unwrap();
    let seen = revisions_until(&mut watch, &second).await;
    let mut again = client.watch_after(filter, token);
    assert_eq!(revisions_until(&mut again, &second).await, seen, "no event is lost or repeated");
    assert!(seen.len() == 3 && seen.is_sorted(), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_collected_over_broken_connections() {
    let mut server = Server::start("");
    let proxy = Proxy::start(&server.address).await;
    let client = client(&proxy.address);
    let tasks = client.submit_batch((0..2_500).map(|_| task("io", "0"))).await.unwrap();
    let mut completed = client.as_completed(tasks);
    let mut found = HashSet::new();
    while let Some(task) = within(completed.next()).await {
        let task = task.unwrap();
        assert_eq!(task.state(), TaskState::Completed);
        assert!(found.insert(task.task_id), "each once");
        match found.len() {
            100 => proxy.cut(),
            500 => {
                server.kill9();
                server.start_again();
                proxy.set_target(&server.address);
            }
            _ => {}
        }
    }
    assert_eq!(found.len(), 2_500);
}

/// Leaves a file that does not fit into the buffers between a server and a client, and a small one.
const REPORT: &str = r#"
[[handler]]
name = "report"
runner = "process"
argv = ["/bin/sh", "-c", "cd $LINESHAFT_ARTIFACTS; seq 2000000 >numbers.txt; printf a,b >small.csv"]
artifacts = true
"#;

fn numbers() -> Vec<u8> {
    (1..=2_000_000).flat_map(|number| format!("{number}\n").into_bytes()).collect()
}

/// Breaks the connections once, when half of the numbers has arrived.
struct CuttingWriter<'a> {
    content: Vec<u8>,
    proxy: Option<&'a Proxy>,
}

impl AsyncWrite for CuttingWriter<'_> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, part: &[u8]) -> Poll<io::Result<usize>> {
        self.content.extend(part);
        if self.content.len() > 7_000_000
            && let Some(proxy) = self.proxy.take()
        {
            proxy.cut();
        }
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn artifacts_are_listed_and_read_over_a_broken_connection() {
    let server = Server::start(REPORT);
    let proxy = Proxy::start(&server.address).await;
    let report = client(&proxy.address).submit("report", ()).await.unwrap();
    report.wait().await.unwrap();
    let listed = within(report.artifacts()).await.unwrap();
    let names: Vec<_> = listed.iter().map(|one| (&*one.name, &*one.content_type, one.size_bytes)).collect();
    assert_eq!(names, [("numbers.txt", "text/plain", 14_888_896), ("small.csv", "text/csv", 3)]);
    assert_eq!(within(report.artifact("small.csv")).await.unwrap(), b"a,b");

    let mut target = CuttingWriter { content: Vec::new(), proxy: Some(&proxy) };
    let read = within(report.read_artifact("numbers.txt", &mut target)).await.unwrap();
    assert_eq!((read.sha256, target.content), (listed[0].sha256.clone(), numbers()));
    assert!(target.proxy.is_none(), "no connection was broken");

    let missing = within(report.artifact("missing")).await.unwrap_err();
    assert_eq!(missing.reason().as_deref(), Some("ARTIFACT_NOT_FOUND"), "{missing}");
    let full = within(report.read_artifact("numbers.txt", io::Cursor::new([0; 10].as_mut_slice()))).await.unwrap_err();
    assert!(matches!(&full, CallError::Write(_)), "{full}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_artifact_is_an_error() {
    let server = Server::start(REPORT);
    let report = client(&server.address).submit("report", ()).await.unwrap();
    report.wait().await.unwrap();
    for object in files(&server.path("data/artifacts/objects")) {
        if std::fs::read(&object).unwrap() == b"a,b" {
            std::fs::write(object, "a;b").unwrap();
        }
    }
    let damaged = within(report.artifact("small.csv")).await.unwrap_err();
    assert!(matches!(&damaged, CallError::Checksum { .. }), "{damaged}");
}

/// The files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
