//! The server as a part of a program: functions of the program are handlers.

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::Child;

use lineshaft::proto::v1::{self, CancelMode, FailureReason, StopMethod, TaskState};
use lineshaft::{BoxError, Client, Server, ServerBuilder, StopReason, TaskContext};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc;

use crate::support::{KillOnDrop, TIMEOUT, check, eventually, example, seconds, task};

fn builder() -> ServerBuilder {
    Server::builder().listen("127.0.0.1:0".parse().unwrap())
}

fn client(server: &Server) -> Client {
    Client::new(server.local_address().to_string()).unwrap()
}

async fn drain(server: Server) {
    server.handle().drain();
    tokio::time::timeout(TIMEOUT, server.wait()).await.expect("the server drains").unwrap();
}

/// Submits a task that is not retried, and waits for its end.
async fn run(client: &Client, handler: &str, json: &str) -> v1::Task {
    let retry = Some(v1::RetryPolicy { max_attempts: 1, ..v1::RetryPolicy::default() });
    let request = v1::SubmitTaskRequest { retry, ..task(handler, json) };
    client.submit_task(request).await.unwrap().wait().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_of_the_program_read_the_results_of_parents() {
    let sum = async |context: TaskContext, (): ()| {
        let (mut parents, mut sum) = (context.parents(), 0);
        while let Some(parent) = parents.next().await? {
            sum += parent.result.ok_or("has not completed")?.json::<u64>()?;
        }
        Ok::<u64, BoxError>(sum)
    };
    let double = async |_, n: u64| Ok::<u64, BoxError>(2 * n);
    let server = builder().memory().handler("double", double).handler("sum", sum).start().await.unwrap();
    let client = client(&server);
    let mut task_ids = Vec::new();
    for n in 1_u64..=3 {
        task_ids.push(client.submit("double", n).await.unwrap().id().to_owned());
    }
    let dependencies = Some(v1::Dependencies { task_ids, ..v1::Dependencies::default() });
    let child = v1::SubmitTaskRequest { dependencies, ..task("sum", "null") };
    assert_eq!(client.submit_task(child).await.unwrap().result::<u64>().await.unwrap(), 12);
    assert_eq!(client.call::<u64>("sum", ()).await.unwrap(), 0, "it has no parents");
    drain(server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_of_the_program_leave_artifacts() {
    let report = async |context: TaskContext, fails: bool| {
        context.artifact("numbers.csv", b"old".to_vec(), "").await?;
        context.artifact("numbers.csv", b"1,2\n".to_vec(), "").await?;
        context.artifact("manifest", Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"), "text/toml").await?;
        for (name, path) in [("a/b", "Cargo.toml"), ("missing", "/missing")] {
            context.artifact(name, Path::new(path), "").await.expect_err(name);
        }
        if fails { Err("no luck".into()) } else { Ok::<_, BoxError>(()) }
    };
    let server = builder().memory().handler("report", report).start().await.unwrap();
    let client = client(&server);
    let manifest = std::fs::metadata(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap().len();
    let left = |task: v1::Task| -> Vec<_> {
        task.artifacts.into_iter().map(|one| (one.name, one.content_type, one.size_bytes)).collect()
    };
    let expected = [("manifest", "text/toml", manifest.cast_signed()), ("numbers.csv", "text/csv", 4)];
    let expected = expected.map(|(name, content_type, bytes)| (name.to_owned(), content_type.to_owned(), bytes));
    assert_eq!(left(run(&client, "report", "false").await), expected);
    assert_eq!(left(run(&client, "report", "true").await), []);
    drain(server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_of_the_program_are_handlers() {
    let server = builder()
        .memory()
        .handler("greet", async |_, name: String| Ok::<_, BoxError>(format!("Hello, {name}!")))
        .handler("fail", async |_, (): ()| Err::<(), _>("no luck"))
        .handler("panic", async |_, (): ()| if true { panic!("on purpose") } else { Ok::<(), BoxError>(()) })
        .handler("label", async |task: TaskContext, (): ()| {
            write!(task.stdout(), "written")?;
            Ok::<_, BoxError>((task.label("color").map(ToOwned::to_owned), task.handler().to_owned()))
        })
        .blocking_handler("sum", |_, numbers: Vec<u64>| Ok::<u64, BoxError>(numbers.iter().sum()))
        .description("greet", "Greets a person")
        .start()
        .await
        .unwrap();
    let client = client(&server);
    assert_eq!(client.call::<String>("greet", "Ada").await.unwrap(), "Hello, Ada!");
    assert_eq!(client.call::<u64>("sum", [1, 2, 3]).await.unwrap(), 6);
    assert_eq!(client.call::<u64>("compute", 0).await.map_err(|_| ()), Err(()), "a built-in handler returns an object");
    for (handler, json, reason) in [
        ("fail", "null", FailureReason::HandlerError),
        ("panic", "null", FailureReason::Panic),
        ("greet", "7", FailureReason::InvalidPayload),
    ] {
        let ended = run(&client, handler, json).await;
        assert_eq!(ended.failure.unwrap().reason(), reason, "{handler}");
    }
    let labels = [("color".to_owned(), "red".to_owned())].into();
    let labelled = v1::SubmitTaskRequest { labels, ..task("label", "null") };
    let found: (String, String) = client.submit_task(labelled).await.unwrap().result().await.unwrap();
    assert_eq!(found, ("red".to_owned(), "label".to_owned()));
    let request = v1::GetHandlerRequest { name: "greet".to_owned() };
    let handler = client.handlers().get_handler(request).await.unwrap().into_inner().handler.unwrap();
    assert_eq!((&*handler.runner, &*handler.description, &*handler.pool), ("function", "Greets a person", "functions"));
    drain(server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_are_cancelled_and_stopped_by_force() {
    let (contexts, mut started) = mpsc::unbounded_channel::<TaskContext>();
    let stubborn = contexts.clone();
    let server = builder()
        .memory()
        .handler("polite", move |context: TaskContext, ()| {
            let _ = contexts.send(context.clone());
            async move {
                context.cancellation().cancelled().await;
                Err::<(), BoxError>("stopped".into())
            }
        })
        .handler("stubborn", move |context: TaskContext, ()| {
            let _ = stubborn.send(context);
            std::future::pending::<Result<(), BoxError>>()
        })
        .start()
        .await
        .unwrap();
    let client = client(&server);
    for (handler, mode, method) in
        [("polite", CancelMode::Graceful, StopMethod::Token), ("stubborn", CancelMode::Force, StopMethod::Abort)]
    {
        let task = client.submit(handler, ()).await.unwrap();
        let context = started.recv().await.unwrap();
        let cancel = v1::CancelTaskRequest { task_id: task.id().to_owned(), mode: mode.into(), ..Default::default() };
        client.tasks().cancel_task(cancel).await.unwrap();
        let ended = task.wait().await.unwrap();
        assert_eq!((ended.state(), ended.cancel.unwrap().method()), (TaskState::Cancelled, method), "{handler}");
        assert_eq!(context.stop_reason(), Some(StopReason::Cancelled));
    }
    let late = v1::SubmitTaskRequest { timeout: seconds(1), ..task("polite", "null") };
    let late = client.submit_task(late).await.unwrap();
    let context = started.recv().await.unwrap();
    context.cancellation().cancelled().await;
    assert_eq!(context.stop_reason(), Some(StopReason::Timeout));
    late.cancel().await.unwrap();
    drain(server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_was_stopped_by_a_drain_runs_on_the_next_server() {
    let directory = tempfile::tempdir().unwrap();
    let (contexts, mut started) = mpsc::unbounded_channel::<TaskContext>();
    let first =
        builder().data_directory(directory.path().join("data")).handler("work", move |context: TaskContext, ()| {
            let _ = contexts.send(context.clone());
            async move {
                context.cancellation().cancelled().await;
                Err::<(), BoxError>("stopped".into())
            }
        });
    let server = first.start().await.unwrap();
    let id = client(&server).submit("work", ()).await.unwrap().id().to_owned();
    let context = started.recv().await.unwrap();
    server.handle().drain_within(std::time::Duration::ZERO);
    server.wait().await.unwrap();
    assert_eq!(context.stop_reason(), Some(StopReason::Stopping));
    let second = builder().data_directory(directory.path().join("data"));
    let server = second.handler("work", async |_, (): ()| Ok::<_, BoxError>("done")).start().await.unwrap();
    assert_eq!(client(&server).task(id).result::<String>().await.unwrap(), "done");
    drain(server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_are_not_valid_are_refused() {
    let file = |text: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    };
    let process = file("[[handler]]\nname = \"list\"\nrunner = \"process\"\nargv = [\"/bin/ls\"]\n");
    let same_name = file("[[handler]]\nname = \"h\"\nrunner = \"builtin\"\nbuiltin = \"io\"\n");
    let server = || builder().memory().handler("h", async |_, (): ()| Ok::<(), BoxError>(()));
    for (builder, text) in [
        (server().handler("h", async |_, (): ()| Ok::<(), BoxError>(())), "registered twice"),
        (server().handler("a b", async |_, (): ()| Ok::<(), BoxError>(())), "a b"),
        (server().description("i", "x"), "no handler"),
        (server().concurrency(0), "size"),
        (server().config_file(process.path()), "process"),
        (server().config_file(same_name.path()), "already the name of another handler"),
        (server().config_file("/no/such/file"), "/no/such/file"),
        (server().listen("0.0.0.0:0".parse().unwrap()), "without authentication"),
    ] {
        let error = builder.start().await.err().expect("a refusal").to_string();
        assert!(error.contains(text), "{error}");
    }
}

#[tokio::test]
async fn a_runtime_with_one_thread_is_refused() {
    let error = builder().memory().start().await.err().expect("a refusal").to_string();
    assert!(error.contains("multi-threaded"), "{error}");
}

/// The example on a free port.
fn start_example(directory: &Path) -> (Child, String) {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let data = directory.join("data").display().to_string();
    (example::start("library", &[&data, &free], &[]), free)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_serves_until_it_is_terminated() {
    let directory = tempfile::tempdir().unwrap();
    let (program, address) = start_example(directory.path());
    let mut program = KillOnDrop(program);
    let client = Client::new(address).unwrap();
    assert_eq!(client.call::<String>("greet", "Ada").await.unwrap(), "Hello, Ada!");
    assert_eq!(client.call::<u64>("fibonacci", 90).await.unwrap(), 2_880_067_194_370_816_120);
    let kept = client.submit("greet", "Grace").await.unwrap();
    kept.wait().await.unwrap();
    program.0.kill().unwrap();
    program.0.wait().unwrap();
    let (again, address) = start_example(directory.path());
    program.0 = again;
    let client = Client::new(address).unwrap();
    eventually(async || {
        let info = client.system().get_server_info(v1::GetServerInfoRequest {}).await;
        check(info.is_ok(), || format!("{info:?}"))
    })
    .await;
    assert_eq!(client.task(kept.id()).result::<String>().await.unwrap(), "Hello, Grace!", "it was stored");
    kill_process(Pid::from_child(&program.0), Signal::TERM).unwrap();
    let status = tokio::task::spawn_blocking(move || program.0.wait().unwrap()).await.unwrap();
    assert!(status.success(), "{status}");
}
