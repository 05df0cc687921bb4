//! The client of the Rust library, against the real server.

use std::collections::HashSet;

use lineshaft::proto::v1::{self, TaskState};
use lineshaft::{BoxError, CallError, Client, Task, TaskContext, Watch, Worker, WorkerError, permanent};
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
