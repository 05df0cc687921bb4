//! WorkerService: the streams of remote workers.

use std::time::Duration;

use futures_util::{Stream, StreamExt};
use prost::Message;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use crate::api::auth::{Caller, CallerExtractor, audit};
use crate::api::convert::InvalidFields;
use crate::api::convert::time::duration;
use crate::api::convert::worker::{self, Hello, Incoming};
use crate::api::middleware::response_memory::ResponseMemory;
use crate::api::status::into_status;
use crate::model::{Catalog, Coded, Details, ErrorCode, HandlerName, PoolName};
use crate::proto::v1::{self, server_message::Kind, worker_service_server::WorkerService};
use crate::scheduler::{CloseReason, Command, Draining, Handle, NotRemotePool, RemoteConnection};

/// Messages in one response, and their bytes, beyond which no further ones are added.
const MESSAGES_MAX: usize = 1_000;
const BYTES_MAX: usize = 256 << 10;
/// Heartbeats in a lease.
const HEARTBEATS: u32 = 3;

pub struct Workers {
    handle: Handle,
    callers: CallerExtractor,
}

impl Workers {
    pub fn new(handle: Handle, callers: CallerExtractor) -> Self {
        Self { handle, callers }
    }
}

/// The server ends the stream of a worker.
#[derive(Debug, thiserror::Error)]
enum StreamClosed {
    #[error("another stream has introduced itself with the same worker ID; choose a unique ID for each running worker")]
    Replaced,
    #[error("the worker was silent for longer than its lease of {}; its attempts were given to others", humantime::format_duration(*.0))]
    Silent(Duration),
    #[error("the worker has not acknowledged a cancel within {}; its attempts were given to others", humantime::format_duration(*.0))]
    CancelIgnored(Duration),
}

impl Coded for StreamClosed {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Replaced => ErrorCode::WorkerReplaced,
            Self::Silent(_) | Self::CancelIgnored(_) => ErrorCode::WorkerEvicted,
        }
    }

    fn details(&self) -> Details {
        Details::default()
    }
}

#[tonic::async_trait]
impl WorkerService for Workers {
    type WorkStream = BoxStream<v1::WorkResponse>;

    async fn work(&self, request: Request<Streaming<v1::WorkRequest>>) -> Result<Response<Self::WorkStream>, Status> {
        let caller = self.callers.extract(&request)?;
        let memory = ResponseMemory::Stream(caller.share_name());
        let (handle, requests) = (self.handle.clone(), request.into_inner());
        let responses: Self::WorkStream = Box::pin(responses(handle, requests, caller));
        Ok(memory.attach_to(responses))
    }
}

/// # Errors
/// `HandlerDenied`; `NotRemotePool` if the pool is not configured.
fn may_offer(caller: &Caller, handlers: &[HandlerName], catalog: &Catalog, pool: &PoolName) -> Result<(), Status> {
    let spec = catalog.pools.get(pool).ok_or_else(|| into_status(NotRemotePool { pool: Some(pool.clone()) }))?;
    handlers.iter().try_for_each(|handler| caller.may_offer(handler, spec)).map_err(into_status)
}

/// The responses of one stream of a worker.
fn responses(
    handle: Handle,
    mut requests: Streaming<v1::WorkRequest>,
    caller: Caller,
) -> impl Stream<Item = Result<v1::WorkResponse, Status>> {
    async_stream::try_stream! {
        let first = requests.next().await.transpose()?;
        let first = first.ok_or_else(|| into_status(InvalidFields::one("hello", "is required in the first message")))?;
        let Hello { info, descriptions, pool, unfinished } = worker::hello(first).map_err(into_status)?;
        let workers = handle.remote_workers(pool.as_ref()).map_err(into_status)?;
        may_offer(&caller, &info.handlers, &handle.catalog(), workers.pool())?;
        let offered = info.handlers.iter().cloned().zip(descriptions.into_iter().map(Into::into)).collect();
        handle.register_handlers(workers.pool().clone(), offered).await.map_err(into_status)?;
        let connection = workers.connect(info, &unfinished);
        audit::record(&caller, "Work", connection.worker().to_owned(), &Ok::<(), Status>(()));
        let (lease, interval) = (workers.lease(), workers.lease() / HEARTBEATS);
        yield welcome(&connection, workers.pool().to_string(), lease, interval);
        let draining = handle.draining();
        let mut stream = WorkerStream { connection, requests, interval, heartbeat_at: Instant::now() + interval };
        loop {
            match stream.next(&draining).await? {
                Step::Commands(messages, close) => {
                    if !messages.is_empty() {
                        stream.heartbeat_at = Instant::now() + interval;
                        yield v1::WorkResponse { welcome: None, messages };
                    }
                    if let Some(reason) = close {
                        Err(into_status(closed(reason, lease)))?;
                    }
                }
                Step::Reports(messages) => stream.take(messages),
                Step::Heartbeat => yield single(Kind::Heartbeat(v1::Heartbeat {})),
                Step::Drained => {
                    yield single(Kind::Draining(v1::ServerDraining {}));
                    Err(into_status(Draining))?;
                }
                Step::End => break,
            }
        }
    }
}

struct WorkerStream {
    connection: RemoteConnection,
    requests: Streaming<v1::WorkRequest>,
    interval: Duration,
    heartbeat_at: Instant,
}

/// What happens next on the stream.
enum Step {
    /// Messages to send, and why the stream ends after them, if it does.
    Commands(Vec<v1::ServerMessage>, Option<CloseReason>),
    Reports(Vec<Incoming>),
    Heartbeat,
    Drained,
    End,
}

impl WorkerStream {
    async fn next(&mut self, draining: &CancellationToken) -> Result<Step, Status> {
        tokio::select! {
            command = self.connection.commands.recv() => {
                let Some(command) = command else { return Ok(Step::End) };
                let (messages, close) = gathered(&mut self.connection, command);
                Ok(Step::Commands(messages, close))
            }
            request = self.requests.next(), if self.connection.has_room() => match request.transpose()? {
                None => Ok(Step::End),
                Some(request) => worker::messages(request).map(Step::Reports).map_err(into_status),
            },
            () = sleep_until(self.heartbeat_at) => {
                self.heartbeat_at = Instant::now() + self.interval;
                Ok(Step::Heartbeat)
            }
            () = draining.cancelled() => Ok(Step::Drained),
        }
    }

    fn take(&self, messages: Vec<Incoming>) {
        // Otherwise the stream was replaced, and the next command ends it.
        if self.connection.heard() {
            for message in messages {
                match message {
                    Incoming::Report(report) => self.connection.report(report),
                    Incoming::Draining => self.connection.leave(),
                    Incoming::Heartbeat => {}
                }
            }
        }
    }
}

fn welcome(connection: &RemoteConnection, pool: String, lease: Duration, interval: Duration) -> v1::WorkResponse {
    let welcome = v1::WorkerWelcome {
        pool,
        lease: Some(duration(lease)),
        heartbeat_interval: Some(duration(interval)),
        stale: connection.reconnected.stale.iter().map(ToString::to_string).collect(),
    };
    v1::WorkResponse { welcome: Some(welcome), messages: Vec::new() }
}

fn single(kind: Kind) -> v1::WorkResponse {
    v1::WorkResponse { welcome: None, messages: vec![v1::ServerMessage { kind: Some(kind) }] }
}

/// The messages for a command and for those that wait behind it, and why the stream ends after them, if it does. Ends of
/// attempts that follow each other share a message.
fn gathered(connection: &mut RemoteConnection, first: Command) -> (Vec<v1::ServerMessage>, Option<CloseReason>) {
    let mut messages: Vec<v1::ServerMessage> = Vec::new();
    let (mut next, mut bytes) = (Some(first), 0);
    while let Some(command) = next {
        if let Command::Close(reason) = command {
            return (messages, Some(reason));
        }
        if let Command::Settle(token) = &command
            && let Some(Kind::Settled(settled)) = messages.last_mut().and_then(|last| last.kind.as_mut())
        {
            settled.tokens.push(token.to_string());
        } else if let Some(message) = worker::command(command) {
            bytes += message.encoded_len();
            messages.push(message);
        }
        let has_room = messages.len() < MESSAGES_MAX && bytes < BYTES_MAX;
        next = has_room.then(|| connection.commands.try_recv().ok()).flatten();
    }
    (messages, None)
}

fn closed(reason: CloseReason, lease: Duration) -> StreamClosed {
    match reason {
        CloseReason::Replaced => StreamClosed::Replaced,
        CloseReason::Silent => StreamClosed::Silent(lease),
        CloseReason::CancelIgnored => StreamClosed::CancelIgnored(lease),
    }
}
