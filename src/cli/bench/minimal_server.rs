//! A minimal server of the contract: it accepts submissions and responds after a group commit. It runs in this process on its
//! own runtime and shares the CPU cores with the load generator, as the real server does.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;
use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::server::TaskClient;
use crate::cli::server_process::{Result, connect, task_client};
use crate::proto::v1::submit_tasks_response::Outcome;
use crate::proto::v1::task_service_server::{TaskService, TaskServiceServer};
#[cfg_attr(not(test), expect(clippy::wildcard_imports, reason = "every message of one service"))]
use crate::proto::v1::*;

/// Bytes of one task in the journal: the size of the specification and payload of a queued task.
const ENTRY_BYTES: usize = 256;
/// The journal begins anew at its start when it is this long. As in the journal of the server, its blocks are there from the
/// beginning: an append that makes a file longer takes longer.
const JOURNAL_BYTES: usize = 32 << 20;
/// Entries in the journal's queue; further callers wait.
const QUEUE_MAX: usize = 100_000;
/// Buffered responses per stream.
const RESPONSES_MAX: usize = 1_024;

/// A running server. It is stopped when this is dropped.
pub struct MinimalServer {
    address: String,
    runtime: Option<Runtime>,
}

impl MinimalServer {
    /// Starts a server that responds after a durable append in the directory.
    pub fn start(directory: &Path) -> Result<Self> {
        let service = Service { journal: Journal::open(directory)? };
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?.to_string();
        let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("minimal-server").enable_all().build()?;
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
            let server = TaskServiceServer::new(service).max_decoding_message_size(64 << 20);
            tonic::transport::Server::builder().add_service(server).serve_with_incoming(incoming).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        });
        Ok(Self { address, runtime: Some(runtime) })
    }

    /// A client with a new connection.
    pub async fn client(&self) -> Result<TaskClient> {
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

/// One file and one thread. All waiting entries are written together, made durable, and acknowledged.
#[derive(Clone)]
struct Journal(mpsc::Sender<(usize, oneshot::Sender<()>)>);

impl Journal {
    fn open(directory: &Path) -> Result<Self> {
        let mut file = File::create(directory.join("journal"))?;
        file.write_all(&vec![0; JOURNAL_BYTES])?;
        file.sync_all()?;
        file.rewind()?;
        let (sender, mut queue) = mpsc::channel::<(usize, oneshot::Sender<()>)>(QUEUE_MAX);
        std::thread::Builder::new().name("minimal-journal".to_owned()).spawn(move || {
            let mut drained = Vec::new();
            let mut written = 0;
            while queue.blocking_recv_many(&mut drained, QUEUE_MAX) > 0 {
                let tasks: usize = drained.iter().map(|(tasks, _)| tasks).sum();
                let entries = vec![1; tasks * ENTRY_BYTES];
                if written + entries.len() > JOURNAL_BYTES {
                    written = 0;
                }
                let restarted = if written == 0 { file.rewind() } else { Ok(()) };
                written += entries.len();
                if restarted.and_then(|()| file.write_all(&entries)).and_then(|()| file.sync_data()).is_err() {
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
    journal: Journal,
}

impl Journal {
    async fn commit(&self, tasks: usize) -> Result<(), Status> {
        let (acknowledge, durable) = oneshot::channel();
        let sent = self.0.send((tasks, acknowledge)).await;
        sent.map_err(|_| Status::unavailable("the journal thread has ended"))?;
        durable.await.map_err(|_| Status::unavailable("the journal thread has ended"))
    }
}

/// A response of the same size as a real one.
fn accepted() -> SubmitTaskResponse {
    SubmitTaskResponse {
        task_id: new_id(),
        state: TaskState::Queued.into(),
        revision: 1,
        duplicate: false,
        durability: Durability::Fsync.into(),
        resume_token: "AQAAAAAAAAABAAAAAA".to_owned(),
    }
}

fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn unsupported<T>() -> Result<T, Status> {
    Err(Status::unimplemented("the minimal server only accepts submissions"))
}

#[tonic::async_trait]
impl TaskService for Service {
    type SubmitTasksStream = ResponseStream<SubmitTasksResponse>;
    type RunTaskStream = ResponseStream<RunTaskResponse>;
    type WatchTasksStream = ResponseStream<WatchTasksResponse>;
    type ReadOutputStream = ResponseStream<ReadOutputResponse>;
    type CancelTasksStream = ResponseStream<CancelTasksResponse>;
    type UpdateTasksStream = ResponseStream<UpdateTasksResponse>;
    type RetryTasksStream = ResponseStream<RetryTasksResponse>;

    async fn submit_task(&self, _: Request<SubmitTaskRequest>) -> Result<Response<SubmitTaskResponse>, Status> {
        self.journal.commit(1).await?;
        Ok(Response::new(accepted()))
    }

    async fn batch_submit_tasks(
        &self,
        request: Request<BatchSubmitTasksRequest>,
    ) -> Result<Response<BatchSubmitTasksResponse>, Status> {
        let tasks = request.into_inner().tasks;
        self.journal.commit(tasks.len()).await?;
        Ok(Response::new(BatchSubmitTasksResponse {
            batch_id: new_id(),
            task_ids: tasks.iter().map(|_| new_id()).collect(),
            revision: 1,
            durability: Durability::Fsync.into(),
            resume_token: "AQAAAAAAAAABAAAAAA".to_owned(),
            duplicates: Vec::new(),
        }))
    }

    async fn submit_tasks(
        &self,
        request: Request<Streaming<SubmitTasksRequest>>,
    ) -> Result<Response<Self::SubmitTasksStream>, Status> {
        // All received requests are committed together, as the real server does.
        let mut ready = request.into_inner().ready_chunks(RESPONSES_MAX);
        let journal = self.journal.clone();
        let (responses, stream) = mpsc::channel(RESPONSES_MAX);
        tokio::spawn(async move {
            while let Some(items) = ready.next().await {
                if journal.commit(items.len()).await.is_err() {
                    return;
                }
                for item in items {
                    let Ok(item) = item else { return };
                    let outcome = Some(Outcome::Accepted(accepted()));
                    if responses.send(Ok(SubmitTasksResponse { sequence: item.sequence, outcome })).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn run_task(&self, _: Request<RunTaskRequest>) -> Result<Response<Self::RunTaskStream>, Status> {
        unsupported()
    }

    async fn get_task(&self, _: Request<GetTaskRequest>) -> Result<Response<GetTaskResponse>, Status> {
        unsupported()
    }

    async fn explain_task(&self, _: Request<ExplainTaskRequest>) -> Result<Response<ExplainTaskResponse>, Status> {
        unsupported()
    }

    async fn list_tasks(&self, _: Request<ListTasksRequest>) -> Result<Response<ListTasksResponse>, Status> {
        unsupported()
    }

    async fn list_failure_groups(
        &self,
        _: Request<ListFailureGroupsRequest>,
    ) -> Result<Response<ListFailureGroupsResponse>, Status> {
        unsupported()
    }

    async fn list_limits(&self, _: Request<ListLimitsRequest>) -> Result<Response<ListLimitsResponse>, Status> {
        unsupported()
    }

    async fn wait_task(&self, _: Request<WaitTaskRequest>) -> Result<Response<WaitTaskResponse>, Status> {
        unsupported()
    }

    async fn watch_tasks(&self, _: Request<WatchTasksRequest>) -> Result<Response<Self::WatchTasksStream>, Status> {
        unsupported()
    }

    async fn cancel_task(&self, _: Request<CancelTaskRequest>) -> Result<Response<CancelTaskResponse>, Status> {
        unsupported()
    }

    async fn cancel_tasks(&self, _: Request<CancelTasksRequest>) -> Result<Response<Self::CancelTasksStream>, Status> {
        unsupported()
    }

    async fn update_tasks(&self, _: Request<UpdateTasksRequest>) -> Result<Response<Self::UpdateTasksStream>, Status> {
        unsupported()
    }

    async fn retry_tasks(&self, _: Request<RetryTasksRequest>) -> Result<Response<Self::RetryTasksStream>, Status> {
        unsupported()
    }

    async fn update_task(&self, _: Request<UpdateTaskRequest>) -> Result<Response<UpdateTaskResponse>, Status> {
        unsupported()
    }

    async fn retry_task(&self, _: Request<RetryTaskRequest>) -> Result<Response<RetryTaskResponse>, Status> {
        unsupported()
    }

    async fn delete_tasks(&self, _: Request<DeleteTasksRequest>) -> Result<Response<DeleteTasksResponse>, Status> {
        unsupported()
    }

    async fn read_output(&self, _: Request<ReadOutputRequest>) -> Result<Response<Self::ReadOutputStream>, Status> {
        unsupported()
    }
}
