//! The least that any server of this contract does: answers submissions at once, or after one bare group
//! commit. It lives in this process on a runtime of its own, so it shares the cores as a server would.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::server::Tasks;
use crate::cli::server_process::{Result, connect, task_client};
use crate::proto::v1::submit_tasks_response::Outcome;
use crate::proto::v1::task_service_server::{TaskService, TaskServiceServer};
#[cfg_attr(not(test), expect(clippy::wildcard_imports, reason = "every message of one service"))]
use crate::proto::v1::*;

/// Bytes that one task takes in the bare journal: as many as a queued task has for its spec and payload.
const ENTRY_BYTES: usize = 256;
/// Entries that wait for the journal; then callers wait.
const WAITING_MAX: usize = 100_000;
/// Answers of one stream that are not sent yet.
const ANSWERS_MAX: usize = 1_024;

/// The running bare server; ends when dropped.
pub struct MinimalServer {
    address: String,
    runtime: Option<Runtime>,
}

impl MinimalServer {
    /// Starts one that answers at once, or, with a directory, when a bare append there is durable.
    pub fn start(journal: Option<&Path>) -> Result<Self> {
        let service = Service { journal: journal.map(Journal::open).transpose()? };
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?.to_string();
        let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("echo").enable_all().build()?;
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
            let server = TaskServiceServer::new(service).max_decoding_message_size(64 << 20);
            tonic::transport::Server::builder().add_service(server).serve_with_incoming(incoming).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        });
        Ok(Self { address, runtime: Some(runtime) })
    }

    /// A client on a connection of its own.
    pub async fn tasks(&self) -> Result<Tasks> {
        Ok(task_client(connect(&self.address).await?))
    }
}

impl Drop for MinimalServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// One file, one thread: everything that waits is written at once, made durable, and answered.
#[derive(Clone)]
struct Journal(mpsc::Sender<(usize, oneshot::Sender<()>)>);

impl Journal {
    fn open(directory: &Path) -> Result<Self> {
        let mut file = File::create(directory.join("bare-journal"))?;
        let (sender, mut waiting) = mpsc::channel::<(usize, oneshot::Sender<()>)>(WAITING_MAX);
        std::thread::Builder::new().name("bare-journal".to_owned()).spawn(move || {
            let mut drained = Vec::new();
            while waiting.blocking_recv_many(&mut drained, WAITING_MAX) > 0 {
                let tasks: usize = drained.iter().map(|(tasks, _)| tasks).sum();
                if file.write_all(&vec![1; tasks * ENTRY_BYTES]).and_then(|()| file.sync_data()).is_err() {
                    return;
                }
                for (_, done) in drained.drain(..) {
                    let _ = done.send(());
                }
            }
        })?;
        Ok(Self(sender))
    }
}

struct Service {
    journal: Option<Journal>,
}

impl Service {
    async fn commit(journal: Option<&Journal>, tasks: usize) -> Result<(), Status> {
        let Some(journal) = journal else { return Ok(()) };
        let (done, durable) = oneshot::channel();
        let sent = journal.0.send((tasks, done)).await;
        sent.map_err(|_| Status::unavailable("the bare journal has ended"))?;
        durable.await.map_err(|_| Status::unavailable("the bare journal has ended"))
    }
}

/// An answer of the size of a real one.
fn accepted() -> SubmitTaskResponse {
    SubmitTaskResponse {
        task_id: new_id(),
        state: TaskState::Queued.into(),
        revision: 1,
        duplicate: false,
        durability: Durability::Fsync.into(),
        after_revision: 1,
    }
}

fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn not_here<T>() -> Result<T, Status> {
    Err(Status::unimplemented("the bare service only takes submissions"))
}

#[tonic::async_trait]
impl TaskService for Service {
    type SubmitTasksStream = Answers<SubmitTasksResponse>;
    type RunTaskStream = Answers<RunTaskResponse>;
    type WatchTasksStream = Answers<WatchTasksResponse>;
    type ReadOutputStream = Answers<ReadOutputResponse>;

    async fn submit_task(&self, _: Request<SubmitTaskRequest>) -> Result<Response<SubmitTaskResponse>, Status> {
        Self::commit(self.journal.as_ref(), 1).await?;
        Ok(Response::new(accepted()))
    }

    async fn batch_submit_tasks(
        &self,
        request: Request<BatchSubmitTasksRequest>,
    ) -> Result<Response<BatchSubmitTasksResponse>, Status> {
        let tasks = request.into_inner().tasks;
        Self::commit(self.journal.as_ref(), tasks.len()).await?;
        Ok(Response::new(BatchSubmitTasksResponse {
            batch_id: new_id(),
            task_ids: tasks.iter().map(|_| new_id()).collect(),
            revision: 1,
            durability: Durability::Fsync.into(),
            after_revision: 1,
        }))
    }

    async fn submit_tasks(
        &self,
        request: Request<Streaming<SubmitTasksRequest>>,
    ) -> Result<Response<Self::SubmitTasksStream>, Status> {
        // What is at hand is committed together, as the real service does for a stream.
        let mut ready = request.into_inner().ready_chunks(ANSWERS_MAX);
        let journal = self.journal.clone();
        let (answers, stream) = mpsc::channel(ANSWERS_MAX);
        tokio::spawn(async move {
            while let Some(items) = ready.next().await {
                if Self::commit(journal.as_ref(), items.len()).await.is_err() {
                    return;
                }
                for item in items {
                    let Ok(item) = item else { return };
                    let outcome = Some(Outcome::Accepted(accepted()));
                    if answers.send(Ok(SubmitTasksResponse { sequence: item.sequence, outcome })).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn run_task(&self, _: Request<RunTaskRequest>) -> Result<Response<Self::RunTaskStream>, Status> {
        not_here()
    }

    async fn get_task(&self, _: Request<GetTaskRequest>) -> Result<Response<GetTaskResponse>, Status> {
        not_here()
    }

    async fn list_tasks(&self, _: Request<ListTasksRequest>) -> Result<Response<ListTasksResponse>, Status> {
        not_here()
    }

    async fn wait_task(&self, _: Request<WaitTaskRequest>) -> Result<Response<WaitTaskResponse>, Status> {
        not_here()
    }

    async fn watch_tasks(&self, _: Request<WatchTasksRequest>) -> Result<Response<Self::WatchTasksStream>, Status> {
        not_here()
    }

    async fn cancel_task(&self, _: Request<CancelTaskRequest>) -> Result<Response<CancelTaskResponse>, Status> {
        not_here()
    }

    async fn delete_tasks(&self, _: Request<DeleteTasksRequest>) -> Result<Response<DeleteTasksResponse>, Status> {
        not_here()
    }

    async fn read_output(&self, _: Request<ReadOutputRequest>) -> Result<Response<Self::ReadOutputStream>, Status> {
        not_here()
    }
}
