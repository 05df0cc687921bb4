//! Workers of the Rust library, against the real server.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use lineshaft::proto::v1::{self, CancelMode, FailureReason, StopMethod, TaskState};
use lineshaft::{BoxError, Client, Payload, StopReason, TaskContext, Worker, WorkerError, WorkerHandle, permanent};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::support::{KillOnDrop, Proxy, Server, TIMEOUT, bytes, check, eventually, example, seconds, task};

const CONFIG: &str = "[server]\nworker_lease = \"5s\"\n";

/// A worker that runs in this process.
struct Running {
    handle: WorkerHandle,
    ended: JoinHandle<Result<(), WorkerError>>,
}

fn client(address: &str) -> Client {
    Client::new(address).unwrap()
}

fn start(worker: Worker) -> Running {
    let worker = worker.without_signals();
    Running { handle: worker.handle(), ended: tokio::spawn(worker.run()) }
}

impl Running {
    async fn end(self) -> Result<(), WorkerError> {
        tokio::time::timeout(TIMEOUT, self.ended).await.expect("the worker ends").unwrap()
    }

    async fn drain(self) -> Result<(), WorkerError> {
        self.handle.drain();
        self.end().await
    }
}

/// Waits until the server has the handlers of a worker.
async fn wait_for_handler(server: &Server, name: &str) {
    eventually(async || {
        let request = v1::GetHandlerRequest { name: name.to_owned() };
        server.handlers().get_handler(request).await.map_err(|status| status.to_string())
    })
    .await;
}

async fn wait_for_workers(server: &Server, count: usize) {
    eventually(async || {
        let request = v1::ListWorkersRequest { pool: "remote".to_owned(), ..Default::default() };
        let workers = server.pools().list_workers(request).await.unwrap().into_inner().workers;
        check(workers.len() == count, || format!("{workers:?}"))
    })
    .await;
}

/// Submits a task that is not retried, and waits for its end.
async fn run(server: &Server, handler: &str, json: &str) -> v1::Task {
    server.wait_finished(&server.submit(once(handler, json)).await).await
}

fn once(handler: &str, json: &str) -> v1::SubmitTaskRequest {
    let retry = Some(v1::RetryPolicy { max_attempts: 1, ..v1::RetryPolicy::default() });
    v1::SubmitTaskRequest { retry, ..task(handler, json) }
}

/// A function that runs until the test lets it end.
#[derive(Clone)]
struct Blocker {
    open: Arc<Semaphore>,
    started: mpsc::UnboundedSender<TaskContext>,
}

impl Blocker {
    fn new() -> (Self, mpsc::UnboundedReceiver<TaskContext>) {
        let (started, receiver) = mpsc::unbounded_channel();
        (Self { open: Arc::new(Semaphore::new(0)), started }, receiver)
    }

    async fn pass(self, context: TaskContext) -> Result<&'static str, BoxError> {
        let _ = self.started.send(context);
        self.open.acquire().await?.forget();
        Ok("passed")
    }

    fn let_one_pass(&self) {
        self.open.add_permits(1);
    }

    fn worker(&self, client: &Client) -> Worker {
        let gate = self.clone();
        Worker::new(client).handler("gate", move |context, ()| gate.clone().pass(context))
    }
}

async fn next(started: &mut mpsc::UnboundedReceiver<TaskContext>) -> TaskContext {
    tokio::time::timeout(TIMEOUT, started.recv()).await.expect("the function starts").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_return_results_and_failures() {
    let server = Server::start(CONFIG);
    let client = client(&server.address);
    let worker = Worker::new(&client)
        .handler("greet", async |_, name: String| Ok::<_, BoxError>(format!("Hello, {name}!")))
        .handler("raw", async |_, payload: Payload| {
            let text = [&*payload.data, b"!"].concat();
            Ok::<_, BoxError>(Payload::with_type(text, &format!("{}+x", payload.content_type)))
        })
        .handler("fail", async |_, (): ()| Err::<(), _>("no luck\nat all"))
        .handler("wide", async |_, (): ()| Err::<(), _>(permanent("too wide")))
        .handler("panic", async |_, (): ()| if true { panic!("on purpose") } else { Ok::<(), BoxError>(()) })
        .blocking_handler("sum", |_, numbers: Vec<u64>| Ok::<u64, BoxError>(numbers.iter().sum()))
        .blocking_handler(
            "panic-blocking",
            |_, (): ()| {
                if true { panic!("on a thread") } else { Ok::<(), BoxError>(()) }
            },
        )
        .description("greet", "Greets a person");
    let running = start(worker);
    wait_for_handler(&server, "greet").await;
    let greeting: String = client.call("greet", "Ada").await.unwrap();
    assert_eq!(greeting, "Hello, Ada!");
    assert_eq!(client.call::<u64>("sum", [1, 2, 3]).await.unwrap(), 6);
    let raw = client.submit("raw", Payload::with_type("abc", "text/plain")).await.unwrap().payload().await.unwrap();
    assert_eq!((&*raw.data, &*raw.content_type), (&b"abc!"[..], "text/plain+x"));
    let failure = async |handler: &str, json: &str| {
        let ended = run(&server, handler, json).await;
        assert_eq!(ended.state(), TaskState::Failed, "{handler}");
        ended.failure.unwrap()
    };
    let failed = failure("fail", "null").await;
    assert_eq!((failed.reason(), &*failed.message, failed.retryable), (FailureReason::HandlerError, "no luck", true));
    assert_eq!(failed.detail, "no luck\nat all");
    assert!(!failure("wide", "null").await.retryable);
    let failed = failure("greet", "7").await;
    assert_eq!((failed.reason(), failed.retryable), (FailureReason::InvalidPayload, false));
    for (handler, text) in [("panic", "on purpose"), ("panic-blocking", "on a thread")] {
        let failed = failure(handler, "null").await;
        assert_eq!(failed.reason(), FailureReason::Panic);
        assert!(failed.message.contains(text), "{failed:?}");
    }
    let failed = client.call::<()>("fail-nowhere", "x").await.unwrap_err();
    assert_eq!(failed.reason().as_deref(), Some("UNKNOWN_HANDLER"), "{failed}");
    running.drain().await.unwrap();
    wait_for_workers(&server, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_sees_its_task_and_reports_progress_and_output() {
    let server = Server::start(CONFIG);
    let (gate, mut started) = Blocker::new();
    let running = start(gate.worker(&client(&server.address)));
    wait_for_handler(&server, "gate").await;
    let labels = [("color".to_owned(), "red".to_owned())].into();
    let mut request =
        tonic::Request::new(v1::SubmitTaskRequest { labels, timeout: seconds(3_600), ..task("gate", "null") });
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    let id = server.tasks().submit_task(request).await.unwrap().into_inner().task_id;
    let context = next(&mut started).await;
    assert_eq!((context.task_id(), context.handler(), context.namespace()), (&*id, "gate", "default"));
    assert_eq!((context.attempt(), context.label("color"), context.label("size")), (1, Some("red"), None));
    assert!(context.deadline().unwrap() > std::time::Instant::now() + Duration::from_secs(3_000));
    let [("traceparent", found)] = &context.trace_context()[..] else { panic!("{:?}", context.trace_context()) };
    assert_eq!(found[..35], parent[..35], "the same trace");
    context.progress(0.5, "half");
    write!(context.stdout(), "out").unwrap();
    write!(context.stderr(), "err").unwrap();
    eventually(async || {
        let task = server.get(&id).await;
        check((task.progress, &*task.progress_note) == (0.5, "half"), || format!("{task:?}"))
    })
    .await;
    gate.let_one_pass();
    server.wait_finished(&id).await;
    let output = async |stream: v1::OutputStream| {
        let request = v1::ReadOutputRequest { task_id: id.clone(), stream: stream.into(), ..Default::default() };
        let mut chunks = server.tasks().read_output(request).await.unwrap().into_inner();
        let mut text = Vec::new();
        while let Some(chunk) = chunks.message().await.unwrap() {
            text.extend_from_slice(&chunk.data);
        }
        String::from_utf8(text).unwrap()
    };
    assert_eq!(output(v1::OutputStream::Stdout).await, "out");
    assert_eq!(output(v1::OutputStream::Stderr).await, "half\nerr", "with the notes of the progress");
    running.drain().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_one_batch_keep_the_trace_contexts_of_their_submissions() {
    let server = Server::start(CONFIG);
    let worker = Worker::new(&client(&server.address)).handler("trace", async |context: TaskContext, (): ()| {
        let headers = context.trace_context();
        Ok::<_, BoxError>(headers.first().map(|(_, parent)| parent[3..35].to_owned()).unwrap_or_default())
    });
    let running = start(worker);
    wait_for_handler(&server, "trace").await;
    let traces = ["a", "b", "c"].map(|digit| digit.repeat(32));
    let own = traces.each_ref().map(|trace| format!("00-{trace}-b7ad6b7169203331-01"));
    let mut tasks: Vec<_> =
        own.into_iter().map(|traceparent| v1::SubmitTaskRequest { traceparent, ..task("trace", "null") }).collect();
    tasks.push(task("trace", "null"));
    let mut request = tonic::Request::new(v1::BatchSubmitTasksRequest { tasks, ..Default::default() });
    let of_call = "d".repeat(32);
    request.metadata_mut().insert("traceparent", format!("00-{of_call}-b7ad6b7169203331-01").parse().unwrap());
    let ids = server.tasks().batch_submit_tasks(request).await.unwrap().into_inner().task_ids;
    for (id, trace) in ids.iter().zip(traces.iter().chain([&of_call])) {
        let task = server.wait_finished(id).await;
        assert_eq!(bytes(task.result.as_ref()), format!("{trace:?}"), "{:?}", task.failure);
    }
    running.drain().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_and_results_of_64_mib_go_through_the_server_and_survive_its_restart() {
    let config = "[server]\nworker_lease = \"1h\"\n[limits]\npayload_bytes = \"64MiB\"\nrequest_bytes = \"384MiB\"\n\
                  response_bytes = \"512MiB\"\nqueued_payload_bytes = \"256MiB\"\n";
    let mut server = Server::start(config);
    let client = client(&server.address);
    let reverse = async |_: TaskContext, payload: Payload| {
        let data: Vec<u8> = payload.data.iter().rev().copied().collect();
        Ok::<_, BoxError>(Payload::with_type(data, &payload.content_type))
    };
    let running = start(Worker::new(&client).handler("reverse", reverse));
    wait_for_handler(&server, "reverse").await;
    let sent: Vec<u8> = (0..64 << 20).map(|at: u32| u8::try_from(at % 251).unwrap()).collect();
    let payload = Payload::with_type(sent.clone(), "image/png");
    let result = |task: v1::Task| {
        assert_eq!(task.state(), TaskState::Completed, "{:?}", task.failure);
        let Some(v1::payload::Kind::Data(data)) = task.result.unwrap().kind else { panic!("no data") };
        data
    };
    let id = client.submit("reverse", payload).await.unwrap().id().to_owned();
    let task = large_task(&server, &id, false).await;
    assert!(result(task).iter().rev().eq(&sent));
    server.kill9();
    server.start_again();
    let task = large_task(&server, &id, true).await;
    let Some(v1::payload::Kind::Data(payload)) = task.payload.clone().unwrap().kind else { panic!("no data") };
    assert!(payload == sent);
    assert!(result(task).iter().rev().eq(&sent));
    drop(running);
}

/// A task that has ended, with its payload if wanted.
async fn large_task(server: &Server, id: &str, include_payload: bool) -> v1::Task {
    let tasks = server.tasks().max_decoding_message_size(256 << 20);
    eventually(async || {
        let request = v1::GetTaskRequest { task_id: id.to_owned(), include_payload, ..Default::default() };
        let task =
            tasks.clone().get_task(request).await.map_err(|status| status.to_string())?.into_inner().task.unwrap();
        let has_ended = task.finished_at.is_some();
        check(has_ended, || format!("{:?}", task.state())).map(|()| task)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_asks_a_function_to_stop_and_drops_it_after_the_grace_period() {
    let server = Server::start(CONFIG);
    let client = client(&server.address);
    let (contexts, mut started) = mpsc::unbounded_channel();
    let stubborn = contexts.clone();
    let worker = Worker::new(&client)
        .handler("polite", move |context: TaskContext, ()| {
            let contexts = contexts.clone();
            async move {
                let _ = contexts.send(context.clone());
                context.cancellation().cancelled().await;
                assert_eq!(context.stop_reason(), Some(StopReason::Cancelled));
                Err::<(), BoxError>("stopped".into())
            }
        })
        .handler("stubborn", move |context: TaskContext, ()| {
            let _ = stubborn.send(context);
            std::future::pending::<Result<(), BoxError>>()
        });
    let running = start(worker.concurrency(2));
    wait_for_handler(&server, "polite").await;
    for (handler, mode, method) in
        [("polite", CancelMode::Graceful, StopMethod::Token), ("stubborn", CancelMode::Force, StopMethod::Abort)]
    {
        let id = server.submit(task(handler, "null")).await;
        let context = next(&mut started).await;
        assert_eq!(context.stop_reason(), None);
        let cancel = v1::CancelTaskRequest { task_id: id.clone(), mode: mode.into(), ..Default::default() };
        server.tasks().cancel_task(cancel).await.unwrap();
        let ended = server.wait_finished(&id).await;
        assert_eq!(ended.state(), TaskState::Cancelled);
        assert_eq!(ended.cancel.unwrap().method(), method, "{handler}");
        assert!(context.is_cancelled());
    }
    running.drain().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_is_stopped_at_its_timeout() {
    let server = Server::start(CONFIG);
    let worker = Worker::new(&client(&server.address)).handler("wait", async |context: TaskContext, (): ()| {
        context.cancellation().cancelled().await;
        assert_eq!(context.stop_reason(), Some(StopReason::Timeout));
        Err::<(), BoxError>("late".into())
    });
    let running = start(worker);
    wait_for_handler(&server, "wait").await;
    let id = server.submit(v1::SubmitTaskRequest { timeout: seconds(1), ..once("wait", "null") }).await;
    let ended = server.wait_finished(&id).await;
    assert_eq!(ended.failure.unwrap().reason(), FailureReason::Timeout);
    running.drain().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_what_runs_and_leaves_the_rest() {
    let server = Server::start(CONFIG);
    let (gate, mut started) = Blocker::new();
    let running = start(gate.worker(&client(&server.address)).concurrency(1));
    wait_for_handler(&server, "gate").await;
    let first = server.submit(task("gate", "null")).await;
    let second = server.submit(task("gate", "null")).await;
    assert_eq!(next(&mut started).await.task_id(), first);
    running.handle.drain();
    // The server knows of the drain, and the attempt still runs.
    eventually(async || {
        let request = v1::ListWorkersRequest { pool: "remote".to_owned(), ..Default::default() };
        let workers = server.pools().list_workers(request).await.unwrap().into_inner().workers;
        check(workers.iter().all(|worker| !worker.alive), || format!("{workers:?}"))
    })
    .await;
    assert!(!running.ended.is_finished());
    gate.let_one_pass();
    running.end().await.unwrap();
    assert_eq!(server.wait_finished(&first).await.state(), TaskState::Completed);
    let left = server.get(&second).await;
    assert_eq!((left.state(), left.attempt), (TaskState::Queued, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_does_not_wait_gives_its_attempts_to_others() {
    let server = Server::start(CONFIG);
    let (gate, mut started) = Blocker::new();
    let running = start(gate.worker(&client(&server.address)).drain_timeout(Duration::ZERO));
    wait_for_handler(&server, "gate").await;
    let id = server.submit(task("gate", "null")).await;
    let context = next(&mut started).await;
    running.handle.stop();
    running.end().await.unwrap();
    assert_eq!(context.stop_reason(), Some(StopReason::Lost), "its end is settled");
    let other = start(gate.worker(&client(&server.address)));
    assert_eq!(next(&mut started).await.task_id(), id);
    gate.let_one_pass();
    let ended = server.wait_finished(&id).await;
    assert_eq!((ended.state(), ended.attempt), (TaskState::Completed, 1), "the stop has not spent an attempt");
    other.drain().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_outlives_a_broken_connection_and_a_killed_server() {
    let mut server = Server::start(CONFIG);
    let proxy = Proxy::start(&server.address).await;
    let (gate, mut started) = Blocker::new();
    let running = start(gate.worker(&client(&proxy.address)).concurrency(3));
    wait_for_handler(&server, "gate").await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let id = server.submit(task("gate", "null")).await;
        let context = next(&mut started).await;
        // Is durable when its state is seen.
        server.wait_for_state(&id, TaskState::Running).await;
        ids.push((id, context));
    }
    proxy.cut();
    // Output waits for the next stream.
    writeln!(ids[0].1.stdout(), "while disconnected").unwrap();
    gate.let_one_pass();
    assert_eq!(server.wait_finished(&ids[0].0).await.state(), TaskState::Completed);
    server.kill9();
    gate.let_one_pass();
    server.start_again();
    proxy.set_target(&server.address);
    let ended = server.wait_finished(&ids[1].0).await;
    assert_eq!((ended.state(), ended.attempt), (TaskState::Completed, 1), "it has not run twice");
    assert_eq!(server.get(&ids[2].0).await.state(), TaskState::Running);
    gate.let_one_pass();
    assert_eq!(server.wait_finished(&ids[2].0).await.attempt, 1);
    assert!(started.is_empty(), "nothing started again");
    running.drain().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_was_given_to_another_worker_is_dropped() {
    let server = Server::start("[server]\nworker_lease = \"3s\"\n");
    let proxy = Proxy::start(&server.address).await;
    let (gate, mut started) = Blocker::new();
    let silent = start(gate.worker(&client(&proxy.address)));
    wait_for_handler(&server, "gate").await;
    let id = server.submit(task("gate", "null")).await;
    let lost = next(&mut started).await;
    server.wait_for_state(&id, TaskState::Running).await;
    // The worker finds no server any more.
    proxy.set_target("127.0.0.1:1");
    proxy.cut();
    let other = start(gate.worker(&client(&server.address)));
    assert_eq!(next(&mut started).await.task_id(), id, "the lease has ended");
    proxy.set_target(&server.address);
    tokio::time::timeout(TIMEOUT, lost.cancellation().cancelled()).await.expect("the function is asked to stop");
    assert_eq!(lost.stop_reason(), Some(StopReason::Lost));
    gate.let_one_pass();
    gate.let_one_pass();
    assert_eq!(server.wait_finished(&id).await.state(), TaskState::Completed);
    other.drain().await.unwrap();
    silent.drain().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_waits_for_its_children_needs_no_slot() {
    let server = Server::start(CONFIG);
    let client = client(&server.address);
    let children = client.clone();
    let worker = Worker::new(&client)
        .handler("square", async |_, number: u64| Ok::<_, BoxError>(number * number))
        .handler("squares", move |_, numbers: Vec<u64>| {
            let client = children.clone();
            async move {
                let mut tasks = Vec::new();
                for number in numbers {
                    tasks.push(client.submit("square", number).await?);
                }
                let mut sum = 0;
                for task in tasks {
                    sum += task.result::<u64>().await?;
                }
                Ok::<_, BoxError>(sum)
            }
        });
    let running = start(worker.concurrency(1));
    wait_for_handler(&server, "squares").await;
    let sum: u64 = client.call("squares", (1..=10).collect::<Vec<u64>>()).await.unwrap();
    assert_eq!(sum, 385);
    running.drain().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_run_at_once_and_none_is_lost() {
    let server = Server::start(CONFIG);
    let client = client(&server.address);
    let worker = Worker::new(&client).handler("double", async |_, number: u64| Ok::<_, BoxError>(2 * number));
    let running = start(worker.concurrency(500));
    wait_for_handler(&server, "double").await;
    let tasks = (0..2_000).map(|number| task("double", &number.to_string())).collect();
    let batch = v1::BatchSubmitTasksRequest { tasks, batch_id: String::new() };
    let ids = client.tasks().batch_submit_tasks(batch).await.unwrap().into_inner().task_ids;
    for (number, id) in ids.into_iter().enumerate() {
        assert_eq!(client.task(id).result::<usize>().await.unwrap(), 2 * number);
    }
    running.drain().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_the_server_refuses_ends_with_the_reason() {
    let server = Server::start(CONFIG);
    let client = client(&server.address);
    let worker = || Worker::new(&client).handler("h", async |_, (): ()| Ok::<(), BoxError>(()));
    let Err(WorkerError::Refused(status)) = start(worker().pool("default")).end().await else { panic!("no refusal") };
    assert!(status.message().contains("default"), "{status}");
    for (worker, text) in [
        (Worker::new(&client), "no handlers"),
        (worker().concurrency(0), "concurrency is 0"),
        (worker().handler("h", async |_, (): ()| Ok::<(), BoxError>(())), "registered twice"),
        (worker().handler("a b", async |_, (): ()| Ok::<(), BoxError>(())), "a b"),
        (worker().description("i", "x"), "no handler"),
    ] {
        let error = start(worker).end().await.unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_greets_until_it_is_terminated() {
    let server = Server::start(CONFIG);
    let mut program = KillOnDrop(example::start("worker", &[], &[("LINESHAFT_SERVER", &server.address)]));
    wait_for_handler(&server, "greet-all").await;
    let ended = run(&server, "greet-all", r#"["Ada", "Grace"]"#).await;
    assert_eq!(bytes(ended.result.as_ref()), r#"["Hello, Ada!","Hello, Grace!"]"#, "{ended:?}");
    kill_process(Pid::from_child(&program.0), Signal::TERM).unwrap();
    let status = tokio::task::spawn_blocking(move || program.0.wait().unwrap()).await.unwrap();
    assert!(status.success(), "{status}");
    wait_for_workers(&server, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_leave_artifacts_also_after_a_broken_connection() {
    let server = Server::start(CONFIG);
    let proxy = Proxy::start(&server.address).await;
    let client = client(&proxy.address);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("large");
    std::fs::write(&file, vec![7; 5_000_000]).unwrap();
    let (blocker, mut started) = Blocker::new();
    let gate = blocker.clone();
    let report = move |context: TaskContext, (): ()| {
        let (gate, file) = (gate.clone(), file.clone());
        async move {
            context.artifact("small.txt", b"old".to_vec(), "").await?;
            gate.pass(context.clone()).await?;
            // The connection is broken.
            context.artifact("small.txt", b"new one".to_vec(), "").await?;
            context.artifact("large.bin", file, "application/x-large").await?;
            let refused = context.artifact("a/b", Vec::new(), "").await.expect_err("a path is no name").to_string();
            context.artifact("missing", std::path::Path::new("/missing"), "").await.expect_err("there is no file");
            Ok::<_, BoxError>(refused)
        }
    };
    let running = start(Worker::new(&client).handler("report", report));
    wait_for_handler(&server, "report").await;
    let task = server.submit(once("report", "null")).await;
    next(&mut started).await;
    proxy.cut();
    blocker.let_one_pass();
    let task = server.wait_finished(&task).await;
    let refused = bytes(task.result.as_ref());
    assert!(refused.contains("`name`"), "{refused}");
    let left = task.artifacts.iter().map(|one| (&*one.name, &*one.content_type, one.size_bytes)).collect::<Vec<_>>();
    assert_eq!(left, [("large.bin", "application/x-large", 5_000_000), ("small.txt", "text/plain", 7)], "{task:?}");
    running.drain().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_read_the_results_of_parents_also_after_a_broken_connection() {
    let server = Server::start(CONFIG);
    let proxy = Proxy::start(&server.address).await;
    let client = client(&proxy.address);
    let (blocker, mut started) = Blocker::new();
    let large = async |_, bytes: usize| match bytes {
        0 => Err(permanent("nothing")),
        bytes => Ok::<_, lineshaft::Permanent>(Payload::new(vec![7; bytes])),
    };
    let gate = blocker.clone();
    let join = move |context: TaskContext, (): ()| {
        let gate = gate.clone();
        async move {
            let (mut parents, mut found) = (context.parents(), Vec::new());
            while let Some(parent) = parents.next().await? {
                found.push((parent.task_id, parent.result.map(|result| result.data.len())));
                if found.len() == 1 {
                    gate.clone().pass(context.clone()).await?;
                }
            }
            Ok::<_, BoxError>(found)
        }
    };
    let running = start(Worker::new(&client).concurrency(4).handler("large", large).handler("join", join));
    wait_for_handler(&server, "join").await;
    let sizes = [900_000, 0, 1_000_000, 3];
    let mut parents = Vec::new();
    for size in sizes {
        parents.push(server.submit(once("large", &size.to_string())).await);
    }
    let dependencies = v1::Dependencies {
        task_ids: parents.clone(),
        on_parent_failure: v1::OnParentFailure::Run.into(),
        ..Default::default()
    };
    let child = v1::SubmitTaskRequest { dependencies: Some(dependencies), ..once("join", "null") };
    let child = server.submit(child).await;
    let task_id = next(&mut started).await.task_id().to_owned();
    proxy.cut();
    blocker.let_one_pass();
    let child = server.wait_finished(&child).await;
    let sizes = sizes.map(|size| (size > 0).then_some(size));
    let expected: Vec<(String, Option<usize>)> = parents.into_iter().zip(sizes).collect();
    assert_eq!(bytes(child.result.as_ref()), serde_json::to_string(&expected).unwrap(), "{child:?}");

    let request = v1::ReadParentResultsRequest { task_id, token: "7".to_owned(), skip: 0 };
    let refused = server.workers().read_parent_results(request).await.unwrap_err();
    assert_eq!(refused.message(), "`token` is not that of a running attempt of the task");
    running.drain().await.unwrap();
}
