//! Batches: counts, open and closed ones, completions, cancel, delete, and a crash in the middle.

use std::path::Path;

use lineshaft::proto::v1::{self, BatchState, TaskState, batch_service_client::BatchServiceClient};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::{Server, bytes, eventually, fields, millis, noop, reason, seconds, task};

/// A handler that appends its payload to the file, in a single write, and one that fails.
fn config(file: &Path) -> String {
    let file = file.display();
    format!(
        r#"
# More than the crashes of a test, so that no task is blamed for them.
[limits]
crashes_max = 100
[[pool]]
name = "default"
size = 4
[[pool]]
name = "naps"
kind = "async"
size = 1000
[[handler]]
name = "notify"
runner = "process"
argv = ["/bin/sh", "-c", "report=$(cat); echo \"$report\" >> {file}"]
[[handler]]
name = "fails"
runner = "process"
argv = ["/bin/sh", "-c", "echo broken >&2; exit 3"]
retry = {{ attempts = 1 }}
[[handler]]
name = "nap"
runner = "builtin"
builtin = "io"
pool = "naps"
"#
    )
}

struct Fixture {
    server: Server,
    reports: tempfile::NamedTempFile,
}

impl Fixture {
    fn new() -> Self {
        let reports = tempfile::NamedTempFile::new().unwrap();
        Self { server: Server::start(&config(reports.path())), reports }
    }

    fn batches(&self) -> BatchServiceClient<Channel> {
        BatchServiceClient::new(self.server.channel())
    }

    async fn create(&self, request: v1::CreateBatchRequest) -> Result<v1::CreateBatchResponse, Status> {
        self.batches().create_batch(request).await.map(tonic::Response::into_inner)
    }

    async fn get(&self, id: &str) -> Result<v1::Batch, Status> {
        let response = self.batches().get_batch(v1::GetBatchRequest { batch_id: id.into() }).await?;
        Ok(response.into_inner().batch.unwrap())
    }

    /// Waits until the batch has finished.
    async fn wait(&self, id: &str) -> v1::Batch {
        eventually(async || {
            let request = v1::WaitBatchRequest { batch_id: id.into(), timeout: None };
            let response = self.batches().wait_batch(request).await.unwrap().into_inner();
            let batch = response.batch.unwrap();
            if response.finished { Ok(batch) } else { Err(format!("not finished: {batch:?}")) }
        })
        .await
    }

    async fn close(&self, id: &str) -> Result<v1::Batch, Status> {
        let response = self.batches().close_batch(v1::CloseBatchRequest { batch_id: id.into() }).await?;
        Ok(response.into_inner().batch.unwrap())
    }

    async fn cancel(&self, id: &str) -> Result<v1::Batch, Status> {
        let request = v1::CancelBatchRequest { batch_id: id.into(), reason: "enough".into(), ..Default::default() };
        Ok(self.batches().cancel_batch(request).await?.into_inner().batch.unwrap())
    }

    async fn delete(&self, id: &str) -> Result<i64, Status> {
        let response = self.batches().delete_batch(v1::DeleteBatchRequest { batch_id: id.into() }).await?;
        Ok(response.into_inner().deleted_tasks)
    }

    async fn submit_all(&self, batch_id: &str, tasks: Vec<v1::SubmitTaskRequest>) -> v1::BatchSubmitTasksResponse {
        let request = v1::BatchSubmitTasksRequest { tasks, batch_id: batch_id.into() };
        self.server.tasks().batch_submit_tasks(request).await.unwrap().into_inner()
    }

    async fn submit(&self, batch_id: &str, task: v1::SubmitTaskRequest) -> Result<String, Status> {
        let request = v1::SubmitTaskRequest { batch_id: batch_id.into(), ..task };
        Ok(self.server.tasks().submit_task(request).await?.into_inner().task_id)
    }

    async fn list(&self, request: v1::ListBatchesRequest) -> v1::ListBatchesResponse {
        self.batches().list_batches(request).await.unwrap().into_inner()
    }

    /// The reports that completions have received so far.
    fn reports(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.reports.path()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn batch(batch_id: &str) -> v1::CreateBatchRequest {
    v1::CreateBatchRequest { batch_id: batch_id.into(), ..v1::CreateBatchRequest::default() }
}

fn notify() -> Option<v1::SubmitTaskRequest> {
    Some(v1::SubmitTaskRequest { handler: "notify".into(), ..v1::SubmitTaskRequest::default() })
}

fn naps(count: usize) -> Vec<v1::SubmitTaskRequest> {
    (0..count).map(|_| task("nap", "3600")).collect()
}

#[tokio::test]
async fn the_counts_of_a_batch_are_those_of_its_tasks() {
    let fixture = Fixture::new();
    let mut tasks: Vec<_> = (0..20).map(|_| noop()).collect();
    tasks.extend([task("fails", "0"), task("nap", "3600")]);
    let submitted = fixture.submit_all("", tasks).await;
    let id = submitted.batch_id;
    let nap = submitted.task_ids.last().unwrap();
    let mut watch = fixture
        .batches()
        .watch_batch(v1::WatchBatchRequest { batch_id: id.clone(), interval: millis(100) })
        .await
        .unwrap()
        .into_inner();
    let almost = loop {
        let v1::WatchBatchResponse { batch, .. } = watch.message().await.unwrap().unwrap();
        let batch = batch.unwrap();
        let counts = batch.counts.unwrap();
        let all = counts.waiting + counts.queued + counts.running + counts.completed + counts.failed + counts.cancelled;
        assert_eq!((all, batch.total), (22, 22));
        if counts.completed + counts.failed == 21 && counts.running == 1 {
            break batch;
        }
    };
    assert_eq!((almost.state(), almost.finished_at), (BatchState::Active, None));
    assert!((almost.progress - 21.0 / 22.0).abs() < 1e-9 && almost.tasks_per_second > 0.0, "{almost:?}");
    assert!(almost.estimated_end_at.is_some(), "{almost:?}");
    let cancel = v1::CancelTaskRequest { task_id: nap.clone(), ..Default::default() };
    fixture.server.tasks().cancel_task(cancel).await.unwrap();
    let mut last = None;
    while let Some(message) = watch.message().await.unwrap() {
        last = message.batch;
    }
    let last = last.unwrap();
    let counts = last.counts.unwrap();
    assert_eq!((counts.completed, counts.failed, counts.cancelled), (20, 1, 1));
    assert_eq!((last.state(), last.closed, last.present_tasks), (BatchState::Finished, false, 22));
    assert_eq!(fixture.wait(&id).await, fixture.get(&id).await.unwrap());
    assert_eq!(fixture.server.get(nap).await.batch_id, id);
}

#[tokio::test]
async fn an_open_batch_grows_until_it_is_closed() {
    let fixture = Fixture::new();
    let labels = [("night".to_owned(), "1".to_owned())].into();
    let request = v1::CreateBatchRequest { open: true, display_name: "n".into(), labels, ..batch("nightly") };
    let created = fixture.create(request.clone()).await.unwrap();
    assert_eq!((created.duplicate, created.batch.unwrap().state()), (false, BatchState::Open));
    assert!(fixture.create(request.clone()).await.unwrap().duplicate, "the call can be repeated");
    let differs = fixture.create(v1::CreateBatchRequest { open: false, ..request }).await.unwrap_err();
    assert_eq!((differs.code(), reason(&differs).as_str()), (Code::AlreadyExists, "BATCH_EXISTS"));
    for _ in 0..2 {
        let id = fixture.submit("nightly", noop()).await.unwrap();
        fixture.server.wait_finished(&id).await;
        assert_eq!(fixture.get("nightly").await.unwrap().state(), BatchState::Open, "although all have finished");
    }
    let request = v1::WaitBatchRequest { batch_id: "nightly".into(), timeout: seconds(0) };
    assert!(!fixture.batches().wait_batch(request).await.unwrap().into_inner().finished);
    let closed = fixture.close("nightly").await.unwrap();
    assert_eq!((closed.state(), closed.closed, closed.total), (BatchState::Finished, true, 2));
    assert_eq!(fixture.close("nightly").await.unwrap(), closed, "closing again changes nothing");
    let refused = fixture.submit("nightly", noop()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "BATCH_CLOSED"));
    let unknown = fixture.submit("no-such-batch", noop()).await.unwrap_err();
    assert_eq!((unknown.code(), reason(&unknown).as_str()), (Code::NotFound, "BATCH_NOT_FOUND"));
}

#[tokio::test]
async fn a_batch_that_is_not_open_takes_tasks_after_its_end() {
    let fixture = Fixture::new();
    fixture.submit_all("b", vec![noop()]).await;
    assert_eq!(fixture.wait("b").await.total, 1);
    let id = fixture.submit("b", task("nap", "3600")).await.unwrap();
    let active = fixture.get("b").await.unwrap();
    assert_eq!((active.state(), active.finished_at, active.total), (BatchState::Active, None, 2));
    let cancel = v1::CancelTaskRequest { task_id: id, ..Default::default() };
    fixture.server.tasks().cancel_task(cancel).await.unwrap();
    assert_eq!(fixture.wait("b").await.counts.unwrap().cancelled, 1);
}

#[tokio::test]
async fn a_completion_gets_the_counts_and_the_failures() {
    let fixture = Fixture::new();
    fixture.create(v1::CreateBatchRequest { open: true, completion: notify(), ..batch("b") }).await.unwrap();
    let failed = fixture.submit("b", task("fails", "0")).await.unwrap();
    fixture.submit("b", noop()).await.unwrap();
    assert_eq!(fixture.get("b").await.unwrap().completion_task_id, "");
    fixture.close("b").await.unwrap();
    let completion = fixture.wait("b").await.completion_task_id;
    let completion = fixture.server.wait_finished(&completion).await;
    assert_eq!((completion.state(), completion.batch_id.as_str()), (TaskState::Completed, ""));
    let payload = fixture.server.get(&completion.task_id).await.payload;
    let reports = fixture.reports();
    let report = &reports[0];
    assert_eq!(serde_json::from_str::<serde_json::Value>(&bytes(payload.as_ref())).unwrap(), *report);
    let expected =
        serde_json::json!({"total": 2, "completed": 1, "failed": 1, "cancelled_tasks": 0, "cancelled": false});
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(report[field], *value, "{field} of {report}");
    }
    assert_eq!(report["failures"][0]["task_id"], failed);
    assert_eq!(
        (&report["failures"][0]["reason"], report["failures"].as_array().unwrap().len()),
        (&"HANDLER_ERROR".into(), 1)
    );
    assert_eq!(fixture.get("b").await.unwrap().total, 2, "the completion is not a task of the batch");
    // A batch that is not open has a last task, too, and its completion closes it.
    fixture.create(v1::CreateBatchRequest { completion: notify(), ..batch("c") }).await.unwrap();
    fixture.submit("c", noop()).await.unwrap();
    let finished = fixture.wait("c").await;
    assert!(finished.closed && !finished.completion_task_id.is_empty(), "{finished:?}");
    assert_eq!(reason(&fixture.submit("c", noop()).await.unwrap_err()), "BATCH_CLOSED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completion_is_submitted_once_over_crashes() {
    const TASKS: usize = 400;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut fixture = Fixture::new();
    fixture.create(v1::CreateBatchRequest { open: true, completion: notify(), ..batch("b") }).await.unwrap();
    fixture.submit_all("b", (0..TASKS).map(|n| task("nap", ["0", "0.05"][n % 2])).collect()).await;
    fixture.close("b").await.unwrap();
    for _ in 0..3 {
        // The moment of the crash is random.
        tokio::time::sleep(std::time::Duration::from_millis(random.random_range(0..150))).await;
        fixture.server.kill9();
        fixture.server.start_again();
    }
    let finished = fixture.wait("b").await;
    assert_eq!((finished.total, finished.counts.unwrap().completed), (400, 400), "seed {seed}");
    fixture.server.wait_finished(&finished.completion_task_id).await;
    let filter = Some(v1::TaskFilter { handler: "notify".into(), ..Default::default() });
    let listed = fixture.server.tasks().list_tasks(v1::ListTasksRequest { filter, ..Default::default() }).await;
    let ids: Vec<String> = listed.unwrap().into_inner().tasks.into_iter().map(|task| task.task_id).collect();
    assert_eq!(ids, std::slice::from_ref(&finished.completion_task_id), "seed {seed}");
    fixture.server.kill9();
    fixture.server.start_again();
    assert_eq!(fixture.get("b").await.unwrap(), finished, "seed {seed}: after a restart without work");
}

#[tokio::test]
async fn a_cancelled_batch_starts_no_more_tasks() {
    let fixture = Fixture::new();
    fixture.create(v1::CreateBatchRequest { open: true, completion: notify(), ..batch("b") }).await.unwrap();
    // More than may run at once, so that some are running and some are queued.
    fixture.submit_all("b", naps(3_000)).await;
    fixture.submit_all("other", naps(1)).await;
    eventually(async || {
        let running = fixture.get("b").await.unwrap().counts.unwrap().running;
        if running > 0 { Ok(()) } else { Err("no task runs".to_owned()) }
    })
    .await;
    let cancelled = fixture.cancel("b").await.unwrap();
    assert_eq!(cancelled.counts.unwrap().waiting, 0, "{cancelled:?}");
    // A task whose start is not reported yet counts as queued.
    let states = [TaskState::Queued, TaskState::Running].map(i32::from).to_vec();
    let filter = Some(v1::TaskFilter { batch_id: "b".to_owned(), states, ..v1::TaskFilter::default() });
    let request = v1::ListTasksRequest { filter, page_size: 1_000, ..v1::ListTasksRequest::default() };
    let unfinished = fixture.server.tasks().list_tasks(request).await.unwrap().into_inner().tasks;
    let goes_on = unfinished.iter().find(|task| task.cancel.is_none());
    assert!(goes_on.is_none(), "each is cancelled or is being stopped: {goes_on:?}");
    assert_eq!((cancelled.closed, cancelled.cancel_reason.as_str()), (true, "enough"));
    let finished = fixture.wait("b").await;
    assert_eq!((finished.counts.unwrap().cancelled, finished.total), (3_000, 3_000));
    fixture.server.wait_finished(&finished.completion_task_id).await;
    assert_eq!(
        (&fixture.reports()[0]["cancelled_tasks"], &fixture.reports()[0]["cancelled"]),
        (&3_000.into(), &true.into())
    );
    assert_eq!(fixture.cancel("b").await.unwrap().state(), BatchState::Finished, "cancelling again changes nothing");
    assert_eq!(fixture.get("other").await.unwrap().counts.unwrap().cancelled, 0);
    fixture.submit_all("done", vec![noop()]).await;
    fixture.wait("done").await;
    let refused = fixture.cancel("done").await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "BATCH_FINISHED"));
}

#[tokio::test]
async fn a_deleted_batch_takes_its_tasks_with_it() {
    let mut fixture = Fixture::new();
    let ids = fixture.submit_all("b", vec![noop(), noop()]).await.task_ids;
    let kept = fixture.submit_all("kept", vec![noop()]).await.task_ids;
    fixture.submit_all("runs", naps(1)).await;
    let refused = fixture.delete("runs").await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "BATCH_NOT_FINISHED"));
    assert!(refused.message().contains("1 tasks are unfinished"), "{refused}");
    for (id, open) in [("empty", false), ("open", true)] {
        let create = v1::CreateBatchRequest { batch_id: id.to_owned(), open, ..v1::CreateBatchRequest::default() };
        fixture.batches().create_batch(create).await.unwrap();
        let refused = fixture.delete(id).await.unwrap_err();
        assert!(refused.message().contains("it has no task yet; close it first"), "{refused}");
    }
    fixture.wait("b").await;
    fixture.wait("kept").await;
    assert_eq!(fixture.delete("b").await.unwrap(), 2);
    for restarted in [false, true] {
        if restarted {
            fixture.server.kill9();
            fixture.server.start_again();
        }
        assert_eq!(reason(&fixture.get("b").await.unwrap_err()), "BATCH_NOT_FOUND");
        let request = v1::GetTaskRequest { task_id: ids[0].clone(), ..Default::default() };
        assert_eq!(reason(&fixture.server.tasks().get_task(request).await.unwrap_err()), "TASK_NOT_FOUND");
        assert_eq!(fixture.server.get(&kept[0]).await.state(), TaskState::Completed);
    }
    // The ID can be used again.
    fixture.create(batch("b")).await.unwrap();
    assert_eq!(fixture.get("b").await.unwrap().total, 0);
    // A batch goes with its last task, also by another call.
    let filter = Some(v1::TaskFilter { batch_id: "kept".into(), ..Default::default() });
    fixture.server.tasks().delete_tasks(v1::DeleteTasksRequest { filter, validate_only: false }).await.unwrap();
    assert_eq!(reason(&fixture.get("kept").await.unwrap_err()), "BATCH_NOT_FOUND");
}

#[tokio::test]
async fn batches_are_listed_newest_first_by_their_conditions() {
    let fixture = Fixture::new();
    for number in 0..5 {
        let labels = [("kind".to_owned(), ["even", "odd"][number % 2].to_owned())].into();
        fixture.create(v1::CreateBatchRequest { labels, ..batch(&format!("b{number}")) }).await.unwrap();
    }
    fixture.submit("b2", noop()).await.unwrap();
    fixture.wait("b2").await;
    let batch_id = "session:of-a-client".to_owned();
    let session = v1::BatchSubmitTasksRequest { tasks: vec![noop()], batch_id: batch_id.clone() };
    fixture.server.tasks().batch_submit_tasks(session).await.unwrap();
    assert_eq!(fixture.get(&batch_id).await.unwrap().batch_id, batch_id, "it is not listed");
    let ids = |response: &v1::ListBatchesResponse| {
        response.batches.iter().map(|batch| batch.batch_id.clone()).collect::<Vec<_>>()
    };
    let first = fixture.list(v1::ListBatchesRequest { page_size: 3, ..Default::default() }).await;
    assert_eq!(ids(&first), ["b4", "b3", "b2"]);
    let page_token = first.next_page_token;
    let rest = v1::ListBatchesRequest { page_size: 3, page_token: page_token.clone(), ..Default::default() };
    let rest = fixture.list(rest).await;
    assert_eq!((ids(&rest), rest.next_page_token.as_str()), (vec!["b1".to_owned(), "b0".to_owned()], ""));
    let states = vec![BatchState::Finished.into()];
    assert_eq!(ids(&fixture.list(v1::ListBatchesRequest { states, ..Default::default() }).await), ["b2"]);
    let labels = [("kind".to_owned(), "odd".to_owned())].into();
    assert_eq!(ids(&fixture.list(v1::ListBatchesRequest { labels, ..Default::default() }).await), ["b3", "b1"]);
    let other = v1::ListBatchesRequest { page_token, namespace: "x".into(), ..Default::default() };
    assert_eq!(fields(&fixture.batches().list_batches(other).await.unwrap_err()), ["page_token"]);
}

#[tokio::test]
async fn bad_input_names_its_field() {
    let fixture = Fixture::new();
    let long = "x".repeat(129);
    let request = v1::CreateBatchRequest { batch_id: "a b".into(), display_name: long, ..Default::default() };
    assert_eq!(fields(&fixture.create(request).await.unwrap_err()), ["batch_id", "display_name"]);
    let completion = v1::SubmitTaskRequest {
        task_id: "t".into(),
        request_id: "r".into(),
        batch_id: "b".into(),
        namespace: "other".into(),
        ..task("notify", "1")
    };
    let request = v1::CreateBatchRequest { completion: Some(completion), ..Default::default() };
    let names = ["payload", "task_id", "request_id", "batch_id", "namespace"].map(|name| format!("completion.{name}"));
    assert_eq!(fields(&fixture.create(request).await.unwrap_err()), names);
    let completion = Some(v1::SubmitTaskRequest { handler: "nosuch".into(), ..Default::default() });
    let refused = fixture.create(v1::CreateBatchRequest { completion, ..Default::default() }).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::NotFound, "UNKNOWN_HANDLER"));
    for id in ["", "a b", "a/b/c", &"x".repeat(65)] {
        assert_eq!(fields(&fixture.get(id).await.unwrap_err()), ["batch_id"], "{id}");
    }
    let request = v1::WatchBatchRequest { batch_id: "b".into(), interval: millis(1) };
    assert_eq!(fields(&fixture.batches().watch_batch(request).await.unwrap_err()), ["interval"]);
    let request = v1::WaitBatchRequest { batch_id: "b".into(), timeout: seconds(61) };
    assert_eq!(fields(&fixture.batches().wait_batch(request).await.unwrap_err()), ["timeout"]);
    let request = v1::CancelBatchRequest { batch_id: "b".into(), mode: 9, grace: seconds(-1), ..Default::default() };
    assert_eq!(fields(&fixture.batches().cancel_batch(request).await.unwrap_err()), ["grace", "mode"]);
    let request = v1::ListBatchesRequest { states: vec![0], page_size: -1, ..Default::default() };
    assert_eq!(fields(&fixture.batches().list_batches(request).await.unwrap_err()), ["page_size"]);
    let elsewhere = v1::SubmitTaskRequest { batch_id: "team/b".into(), ..noop() };
    assert_eq!(fields(&fixture.server.tasks().submit_task(elsewhere).await.unwrap_err()), ["batch_id"]);
    let tasks = vec![v1::SubmitTaskRequest { batch_id: "other".into(), ..noop() }];
    let request = v1::BatchSubmitTasksRequest { tasks, batch_id: "b".into() };
    let refused = fixture.server.tasks().batch_submit_tasks(request).await.unwrap_err();
    assert_eq!(fields(&refused), ["tasks[0].batch_id"]);
}
