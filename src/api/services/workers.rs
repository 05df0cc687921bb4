//! WorkerService: the streams of remote workers.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{FutureExt, Stream, StreamExt};
use prost::Message;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use crate::api::auth::{Caller, CallerExtractor, audit};
use crate::api::convert::InvalidFields;
use crate::api::convert::numbers::to_i64;
use crate::api::convert::time::duration;
use crate::api::convert::worker::{self, Hello, Incoming};
use crate::api::middleware::response_memory::ResponseMemory;
use crate::api::status::into_status;
use crate::model::limits::PayloadLimit;
use crate::model::{Catalog, Coded, Details, ErrorCode, HandlerName, PoolName};
use crate::proto::v1::{self, server_message::Kind, worker_service_server::WorkerService};
use crate::scheduler::{CloseReason, Command, Draining, Handle, NotRemotePool, Polled, RemoteConnection, WorkerReport};

use super::artifact_checks::ArtifactChecks;
use super::artifact_uploads;
use super::parent_results;
use super::result_transfers::ResultTransfers;

/// Messages in one response, and their bytes, beyond which no further ones are added.
const MESSAGES_MAX: usize = 1_000;
const BYTES_MAX: usize = 256 << 10;
/// Requests that are read in a row, before other tasks have their turn.
const REQUESTS_MAX: usize = 16;
/// How often a stream looks for memory for a result.
const MEMORY_INTERVAL: Duration = Duration::from_millis(100);
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
    type ReadParentResultsStream = BoxStream<v1::ReadParentResultsResponse>;

    async fn work(&self, request: Request<Streaming<v1::WorkRequest>>) -> Result<Response<Self::WorkStream>, Status> {
        let caller = self.callers.extract(&request)?;
        let memory = ResponseMemory::Stream(caller.share_name());
        let (handle, requests) = (self.handle.clone(), request.into_inner());
        let responses: Self::WorkStream = Box::pin(responses(handle, requests, caller));
        Ok(memory.attach_to(responses))
    }

    async fn read_parent_results(
        &self,
        request: Request<v1::ReadParentResultsRequest>,
    ) -> Result<Response<Self::ReadParentResultsStream>, Status> {
        let caller = self.callers.extract(&request)?;
        let results = parent_results::read(self.handle.clone(), request.into_inner(), &caller).await?;
        Ok(ResponseMemory::Stream(caller.share_name()).attach_to(results))
    }

    async fn upload_artifact(
        &self,
        request: Request<Streaming<v1::UploadArtifactRequest>>,
    ) -> Result<Response<v1::UploadArtifactResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        artifact_uploads::receive(self.handle.clone(), request.into_inner(), &caller).await.map(Response::new)
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
        let limit = handle.catalog().payload_limit;
        yield welcome(&connection, workers.pool().to_string(), lease, interval, limit);
        let results = ResultTransfers::new(handle.memory().clone(), caller.sharer.clone(), limit);
        let draining = handle.draining().cancelled_owned();
        let checks = ArtifactChecks::new(handle.artifacts().clone());
        let mut stream = WorkerStream::new(connection, requests, (results, checks), limit, interval, draining);
        loop {
            match poll_fn(|context| stream.poll_step(context)).await? {
                Step::Commands(messages) => yield v1::WorkResponse { welcome: None, messages },
                Step::Close(reason) => Err(into_status(closed(reason, lease)))?,
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

/// An open stream. Its parts are polled by hand, because a `select` makes and drops a future for each at every message.
struct WorkerStream {
    connection: RemoteConnection,
    requests: Streaming<v1::WorkRequest>,
    /// Commands that were taken from the connection and are not sent yet.
    commands: VecDeque<Command>,
    results: ResultTransfers,
    checks: ArtifactChecks,
    limit: PayloadLimit,
    /// Set while results wait for memory.
    memory_retry: Option<Pin<Box<Sleep>>>,
    interval: Duration,
    /// When the last response was sent.
    sent_at: Instant,
    heartbeat: Pin<Box<Sleep>>,
    draining: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// What happens next on the stream.
enum Step {
    /// Messages to send, at least one.
    Commands(Vec<v1::ServerMessage>),
    Close(CloseReason),
    Heartbeat,
    Drained,
    End,
}

impl WorkerStream {
    fn new(
        connection: RemoteConnection,
        requests: Streaming<v1::WorkRequest>,
        (results, checks): (ResultTransfers, ArtifactChecks),
        limit: PayloadLimit,
        interval: Duration,
        draining: WaitForCancellationFutureOwned,
    ) -> Self {
        let sent_at = Instant::now();
        Self {
            connection,
            requests,
            commands: VecDeque::new(),
            results,
            checks,
            limit,
            memory_retry: None,
            interval,
            sent_at,
            heartbeat: Box::pin(sleep_until(sent_at + interval)),
            draining: Box::pin(draining),
        }
    }

    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Result<Step, Status>> {
        if self.draining.poll_unpin(context).is_ready() {
            return Poll::Ready(Ok(Step::Drained));
        }
        let mut polled = Polled { may_read: false, has_chunks: false };
        for _ in 0..REQUESTS_MAX {
            while let Some(end) = self.checks.poll_next(context) {
                self.connection.receive(vec![end]);
            }
            // Before each request, also because a request leads to commands for which the stream is not woken.
            polled = self.connection.poll_commands(context, &mut self.commands);
            if let Some(step) = self.next_commands().or_else(|| self.next_requested(context)) {
                return Poll::Ready(Ok(step));
            }
            let request = if polled.may_read { self.requests.poll_next_unpin(context)? } else { Poll::Pending };
            match request {
                Poll::Ready(None) => return Poll::Ready(Ok(Step::End)),
                Poll::Ready(Some(request)) => self.receive(request)?,
                Poll::Pending => {
                    return match self.next_chunk(polled) {
                        Some(step) => Poll::Ready(Ok(step)),
                        None => self.poll_heartbeat(context).map(Ok),
                    };
                }
            }
        }
        if let Some(step) = self.next_chunk(polled) {
            return Poll::Ready(Ok(step));
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn receive(&mut self, request: v1::WorkRequest) -> Result<(), Status> {
        let incoming = worker::messages(request, self.limit).map_err(into_status)?;
        let Incoming { mut reports, announced, chunks, is_draining } = incoming;
        for report in &reports {
            if let WorkerReport::Finished(token, ..) = report {
                self.results.forget(*token);
            }
        }
        for announced in announced {
            let token = announced.token;
            if self.connection.task_of(token).is_some() {
                // Its result may take longer than a worker has to accept it.
                reports.push(WorkerReport::Accepted(token));
                reports.extend(self.results.announce(announced));
            } else {
                // Of an attempt that is not the worker's, the end is acknowledged without its result.
                reports.push(WorkerReport::Finished(token, announced.report, None));
            }
        }
        for (index, chunk) in &chunks {
            reports.extend(self.results.receive(*index, chunk).map_err(into_status)?);
        }
        self.checks.begin(&self.connection, &mut reports);
        self.connection.receive(reports);
        if is_draining {
            self.connection.leave();
        }
        Ok(())
    }

    /// The next part of a large payload. After commands and requests, so that these do not wait for all of it.
    fn next_chunk(&mut self, polled: Polled) -> Option<Step> {
        if !polled.has_chunks {
            return None;
        }
        let chunk = self.connection.next_chunk()?;
        self.sent_at = Instant::now();
        Some(Step::Commands(vec![worker::payload_chunk(chunk)]))
    }

    /// Asks for the results for which there is memory, and is woken later if some wait.
    fn next_requested(&mut self, context: &mut Context<'_>) -> Option<Step> {
        if !self.results.is_waiting() {
            return None;
        }
        let requested: Vec<_> =
            std::iter::from_fn(|| self.results.next_request()).map(worker::result_requested).collect();
        if self.results.is_waiting() {
            let sleep = || Box::pin(sleep_until(Instant::now() + MEMORY_INTERVAL));
            let retry = self.memory_retry.get_or_insert_with(sleep);
            while retry.poll_unpin(context).is_ready() {
                retry.set(tokio::time::sleep(MEMORY_INTERVAL));
            }
        } else {
            self.memory_retry = None;
        }
        if requested.is_empty() {
            return None;
        }
        self.sent_at = Instant::now();
        Some(Step::Commands(requested))
    }

    fn poll_heartbeat(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        while self.heartbeat.poll_unpin(context).is_ready() {
            let due = self.sent_at + self.interval;
            if due <= Instant::now() {
                self.sent_at = Instant::now();
                self.heartbeat.as_mut().reset(self.sent_at + self.interval);
                return Poll::Ready(Step::Heartbeat);
            }
            // Other messages were sent meanwhile.
            self.heartbeat.as_mut().reset(due);
        }
        Poll::Pending
    }

    /// The messages for the next commands. Ends of attempts that follow each other share a message.
    fn next_commands(&mut self) -> Option<Step> {
        if let Some(Command::Close(reason)) = self.commands.front() {
            return Some(Step::Close(*reason));
        }
        let mut messages: Vec<v1::ServerMessage> = Vec::with_capacity(self.commands.len().min(MESSAGES_MAX));
        let mut bytes = 0;
        while messages.len() < MESSAGES_MAX
            && bytes < BYTES_MAX
            && let Some(command) = self.commands.pop_front_if(|command| !matches!(command, Command::Close(_)))
        {
            if let Command::Stale(token) = &command {
                self.results.forget(*token);
            }
            if let Command::Settle(tokens) = &command
                && let Some(Kind::Settled(settled)) = messages.last_mut().and_then(|last| last.kind.as_mut())
            {
                settled.tokens.extend(tokens.iter().map(ToString::to_string));
            } else if let Some(message) = worker::command(command) {
                bytes += message.encoded_len();
                messages.push(message);
            }
        }
        if messages.is_empty() {
            return None;
        }
        self.sent_at = Instant::now();
        Some(Step::Commands(messages))
    }
}

fn welcome(
    connection: &RemoteConnection,
    pool: String,
    lease: Duration,
    interval: Duration,
    PayloadLimit(bytes_max): PayloadLimit,
) -> v1::WorkResponse {
    let welcome = v1::WorkerWelcome {
        pool,
        lease: Some(duration(lease)),
        heartbeat_interval: Some(duration(interval)),
        stale: connection.stale.iter().map(ToString::to_string).collect(),
        max_result_bytes: to_i64(bytes_max),
    };
    v1::WorkResponse { welcome: Some(welcome), messages: Vec::new() }
}

fn single(kind: Kind) -> v1::WorkResponse {
    v1::WorkResponse { welcome: None, messages: vec![v1::ServerMessage { kind: Some(kind) }] }
}

fn closed(reason: CloseReason, lease: Duration) -> StreamClosed {
    match reason {
        CloseReason::Replaced => StreamClosed::Replaced,
        CloseReason::Silent => StreamClosed::Silent(lease),
        CloseReason::CancelIgnored => StreamClosed::CancelIgnored(lease),
    }
}
