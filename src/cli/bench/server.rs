//! The server under test: its configuration, its pools, and the tasks that the scenarios submit.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tonic::transport::Channel;

use super::settings::Settings;
use crate::cli::server_process::{Result, ScratchDir, ServerProcess, task_client};
use crate::proto::v1::task_service_client::TaskServiceClient;
use crate::proto::v1::{BatchSubmitTasksRequest, ListTasksRequest, Payload, SubmitTaskRequest, payload};

pub type TaskClient = TaskServiceClient<Channel>;

const MAIN_POOL: &str = "main";
/// Pool that starts nothing, for scenarios that measure submission only.
pub const PAUSED_POOL: &str = "paused";
/// Workers of the pool for processes.
pub const PROCESS_WORKERS: usize = 8;
/// Payload size of tasks that are only queued.
pub const PAYLOAD_BYTES: usize = 100;
/// Tasks per batch.
pub const BATCH: usize = 1_000;

/// Time in which no event must appear for a server to have nothing left to do.
const SETTLED_AFTER: Duration = Duration::from_millis(200);
const SETTLE_TIMEOUT: Duration = Duration::from_mins(10);

pub struct Server {
    pub process: ServerProcess,
    /// Directory of the store; removed when this is dropped.
    pub scratch: ScratchDir,
}

impl Server {
    /// Starts a server with an empty store.
    pub async fn start(settings: &Settings) -> Result<Self> {
        Self::start_with_config(settings, &config(true, None)).await
    }

    pub async fn start_with_config(settings: &Settings, config: &str) -> Result<Self> {
        let scratch = ScratchDir::new(&settings.directory, false)?;
        let process = ServerProcess::start(&settings.program, scratch.path(), config).await?;
        Ok(Self { process, scratch })
    }

    /// Starts a server with an empty store and these `OTEL_*` variables only.
    pub async fn start_with_telemetry(settings: &Settings, variables: &[(&str, String)]) -> Result<Self> {
        let scratch = ScratchDir::new(&settings.directory, false)?;
        let (program, config) = (&settings.program, config(true, None));
        let process = ServerProcess::start_with_telemetry(program, scratch.path(), &config, variables).await?;
        Ok(Self { process, scratch })
    }

    /// A client with a new connection.
    pub async fn client(&self) -> Result<TaskClient> {
        Ok(task_client(self.process.connect().await?))
    }

    /// Waits until the server has nothing left to do: the projection contains every event, and retention adds no more. Returns
    /// when that was so.
    pub async fn settled(&self) -> Result<Instant> {
        let mut client = self.client().await?;
        let started = Instant::now();
        let mut last = None;
        while started.elapsed() < SETTLE_TIMEOUT {
            // The response waits for the projection.
            let request = ListTasksRequest { page_size: 1, ..ListTasksRequest::default() };
            let revision = client.list_tasks(request).await?.into_inner().revision;
            match last {
                Some((known, at)) if known == revision => return Ok(at),
                _ => last = Some((revision, Instant::now())),
            }
            tokio::time::sleep(SETTLED_AFTER).await;
        }
        Err(format!("the server was still busy {SETTLE_TIMEOUT:?} after the load").into())
    }
}

/// The configuration: pools `main`, `paused`, `remote` and `processes`, and the handler `true`. `workers` is the size of `main`;
/// `None` is the server's default.
pub fn config(paused: bool, workers: Option<usize>) -> String {
    let size = workers.map_or_else(String::new, |size| format!("size = {size}\n"));
    format!(
        "[log]\nfilter = \"warn\"\n\
         [limits]\nqueued_payload_bytes = \"8GiB\"\n\
         [[pool]]\nname = \"{MAIN_POOL}\"\nqueue_limit = 100000000\n{size}\
         [[pool]]\nname = \"{PAUSED_POOL}\"\nsize = 1\nqueue_limit = 100000000\npaused = {paused}\n\
         [[pool]]\nname = \"remote\"\nkind = \"remote\"\nqueue_limit = 100000000\n\
         [[pool]]\nname = \"processes\"\nsize = {PROCESS_WORKERS}\n\
         [[handler]]\nname = \"true\"\nrunner = \"process\"\nargv = [\"/bin/true\"]\npool = \"processes\"\n"
    )
}

/// A task in the paused pool, with a payload of 100 bytes.
pub fn queued_task() -> SubmitTaskRequest {
    // Spaces after a number are valid JSON. If the pool is not paused, the task computes for a very long time.
    let mut text = b"1000000000000".to_vec();
    text.resize(PAYLOAD_BYTES, b' ');
    SubmitTaskRequest { pool: PAUSED_POOL.to_owned(), ..compute(Bytes::from(text)) }
}

/// A task that does nothing: the sum of no numbers.
pub fn no_op_task() -> SubmitTaskRequest {
    compute(Bytes::from_static(b"0"))
}

/// A task that computes until it is stopped.
pub fn endless_task() -> SubmitTaskRequest {
    compute(Bytes::from_static(b"1000000000000"))
}

/// A task that runs `/bin/true`.
pub fn process_task() -> SubmitTaskRequest {
    SubmitTaskRequest { handler: "true".to_owned(), ..SubmitTaskRequest::default() }
}

fn compute(data: Bytes) -> SubmitTaskRequest {
    let payload = Payload { kind: Some(payload::Kind::Data(data)), ..Payload::default() };
    SubmitTaskRequest { handler: "compute".to_owned(), payload: Some(payload), ..SubmitTaskRequest::default() }
}

/// A batch of copies of a task: the one that it names, or a new one with each call.
pub fn batch(task: &SubmitTaskRequest, size: usize) -> BatchSubmitTasksRequest {
    let mut task = task.clone();
    let batch_id = std::mem::take(&mut task.batch_id);
    BatchSubmitTasksRequest { tasks: vec![task; size], batch_id }
}

/// Submits copies of a task in batches of 10,000, one after the other. Returns the resume token of the last batch.
pub async fn submit_many(client: &mut TaskClient, task: &SubmitTaskRequest, count: usize) -> Result<String> {
    const BATCH_MAX: usize = 10_000;
    let mut left = count;
    let mut resume_token = String::new();
    while left > 0 {
        let size = left.min(BATCH_MAX);
        resume_token = client.batch_submit_tasks(batch(task, size)).await?.into_inner().resume_token;
        left -= size;
    }
    Ok(resume_token)
}
