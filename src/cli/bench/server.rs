//! The server under test: its configuration, its pools, and the tasks that are sent to it.

use bytes::Bytes;

use crate::cli::server_process::{Result, ScratchDir, ServerProcess, task_client};
use crate::proto::v1::task_service_client::TaskServiceClient;
use crate::proto::v1::{BatchSubmitTasksRequest, Payload, SubmitTaskRequest, payload};

use super::Plan;
use tonic::transport::Channel;

/// Client of the tasks.
pub type Tasks = TaskServiceClient<Channel>;

/// Pool of what really runs.
pub const MAIN: &str = "main";
/// Pool that starts nothing, for scenarios that measure submission only.
pub const PARKED: &str = "parked";
/// Workers of the pool of processes.
pub const PROCESS_WORKERS: usize = 8;
/// Bytes of the payload of tasks that are only queued.
pub const PAYLOAD_BYTES: usize = 100;
/// Tasks of one batch.
pub const BATCH: usize = 1_000;

/// A server with a store of its own.
pub struct Server {
    /// The process.
    pub child: ServerProcess,
    /// Its directory, removed at the end.
    pub scratch: ScratchDir,
}

impl Server {
    /// Starts one with an empty store.
    pub async fn start(plan: &Plan) -> Result<Self> {
        Self::with(plan, &config(true, None)).await
    }

    /// Starts one with an empty store and this configuration.
    pub async fn with(plan: &Plan, config: &str) -> Result<Self> {
        let scratch = ScratchDir::new(&plan.directory, false)?;
        let child = ServerProcess::start(scratch.path(), config).await?;
        Ok(Self { child, scratch })
    }

    /// Starts one with an empty store and these variables for its telemetry, and no other.
    pub async fn telling(plan: &Plan, variables: &[(&str, String)]) -> Result<Self> {
        let scratch = ScratchDir::new(&plan.directory, false)?;
        let child = ServerProcess::start_with_telemetry(scratch.path(), &config(true, None), variables).await?;
        Ok(Self { child, scratch })
    }

    /// A client on a connection of its own.
    pub async fn tasks(&self) -> Result<Tasks> {
        Ok(task_client(self.child.connect().await?))
    }
}

/// The configuration: pools `main`, `parked` and `processes`, and the handler `true`.
/// `workers` are those of `main`; by default the server's own default.
pub fn config(parked_is_paused: bool, workers: Option<usize>) -> String {
    let size = workers.map_or_else(String::new, |size| format!("size = {size}\n"));
    format!(
        "[log]\nfilter = \"warn\"\n\
         [limits]\nqueued_payload_bytes = \"8GiB\"\n\
         [[pool]]\nname = \"{MAIN}\"\nqueue_limit = 100000000\n{size}\
         [[pool]]\nname = \"{PARKED}\"\nsize = 1\nqueue_limit = 100000000\npaused = {parked_is_paused}\n\
         [[pool]]\nname = \"processes\"\nsize = {PROCESS_WORKERS}\n\
         [[handler]]\nname = \"true\"\nrunner = \"process\"\nargv = [\"/bin/true\"]\npool = \"processes\"\n"
    )
}

/// A task that is only queued: `compute` in the pool that starts nothing, 100 bytes of payload.
pub fn parked() -> SubmitTaskRequest {
    // Spaces around a number are a number; whoever starts it computes for a very long time.
    let mut text = b"1000000000000".to_vec();
    text.resize(PAYLOAD_BYTES, b' ');
    SubmitTaskRequest { pool: PARKED.to_owned(), ..compute(Bytes::from(text)) }
}

/// A task that does nothing: the sum of no numbers.
pub fn no_op() -> SubmitTaskRequest {
    compute(Bytes::from_static(b"0"))
}

/// A task that computes until it is stopped.
pub fn spinning() -> SubmitTaskRequest {
    compute(Bytes::from_static(b"1000000000000"))
}

/// A task that runs `/bin/true`.
pub fn process() -> SubmitTaskRequest {
    SubmitTaskRequest { handler: "true".to_owned(), ..SubmitTaskRequest::default() }
}

fn compute(data: Bytes) -> SubmitTaskRequest {
    let payload = Payload { kind: Some(payload::Kind::Data(data)), ..Payload::default() };
    SubmitTaskRequest { handler: "compute".to_owned(), payload: Some(payload), ..SubmitTaskRequest::default() }
}

/// Many of the same.
pub fn batch(task: &SubmitTaskRequest, size: usize) -> BatchSubmitTasksRequest {
    BatchSubmitTasksRequest { tasks: vec![task.clone(); size], batch_id: String::new() }
}

/// Queues many tasks in batches of 10,000, one after the other. Answers the last revision.
pub async fn queue(tasks: &mut Tasks, task: &SubmitTaskRequest, count: usize) -> Result<u64> {
    const PIECE: usize = 10_000;
    let mut left = count;
    let mut revision = 0;
    while left > 0 {
        let size = left.min(PIECE);
        revision = tasks.batch_submit_tasks(batch(task, size)).await?.into_inner().revision;
        left -= size;
    }
    Ok(revision)
}
