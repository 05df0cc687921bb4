//! The streams of a worker: it connects again whenever one breaks.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use tokio::time::{Instant, MissedTickBehavior};
use tonic::{Code, Status, Streaming};

use super::attempt;
use super::incoming::IncomingPayloads;
use super::outbox::Token;
use super::state::Shared;
use crate::client::{Client, from_message, may_help, pause_after, reason};
use crate::function::{Handlers, StopReason};
use crate::proto::v1::{self, server_message::Kind};

/// Time between the introduction and the answer.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// Heartbeat intervals after which a server that sends nothing counts as lost.
const SILENCE_MAX: u32 = 3;
const HEARTBEAT_MIN: Duration = Duration::from_millis(100);

/// What a worker is and what connects it.
pub struct Connection {
    pub client: Client,
    pub shared: Arc<Shared>,
    pub handlers: Handlers,
    pub id: String,
    pub pool: String,
    pub slots: usize,
    pub labels: BTreeMap<String, String>,
}

impl Connection {
    /// Keeps a stream open until the drain is complete.
    ///
    /// # Errors
    /// The status with which the server refuses the worker for good.
    pub async fn keep(self) -> Result<(), Status> {
        let (mut pauses, mut was_welcome) = (0, false);
        loop {
            let mut is_welcome = false;
            let ended = self.stream(&mut is_welcome).await;
            was_welcome |= is_welcome;
            if self.shared.drained().is_cancelled() {
                return Ok(());
            }
            let status = ended.err().unwrap_or_else(|| Status::unavailable("the server has closed the stream"));
            if is_final(&status, was_welcome) {
                return Err(status);
            }
            pauses = if is_welcome { 0 } else { pauses + 1 };
            // Of an outage, the first error is a warning.
            if pauses <= 1 {
                tracing::warn!(
                    worker = self.id,
                    error = status.message(),
                    "the worker is not connected; connecting again"
                );
            }
            tokio::select! {
                () = tokio::time::sleep(pause_after(pauses)) => self.shared.stop_late(Instant::now()),
                () = self.shared.drained().cancelled() => return Ok(()),
            }
        }
    }

    /// Introduces the worker, and exchanges messages until the stream ends.
    async fn stream(&self, is_welcome: &mut bool) -> Result<(), Status> {
        let (number, unfinished) = self.shared.begin_stream();
        let requests =
            Requests { shared: self.shared.clone(), number, hello: Some(self.hello(unfinished)), is_late: false };
        let mut client = self.client.workers();
        let introduced = async {
            let mut responses = client.work(requests).await?.into_inner();
            let first = responses.message().await?;
            let welcome = first.and_then(|first| first.welcome);
            let welcome = welcome.ok_or_else(|| Status::internal("the first message of the server has no welcome"))?;
            Ok::<_, Status>((responses, welcome))
        };
        let begun = tokio::time::timeout(WELCOME_TIMEOUT, introduced).await;
        let (responses, welcome) =
            begun.map_err(|_| Status::unavailable("the server does not welcome the worker"))??;
        *is_welcome = true;
        self.shared.open_stream(&welcome);
        tracing::info!(worker = self.id, pool = welcome.pool, slots = self.slots, "the worker is connected");
        let interval = welcome.heartbeat_interval.and_then(|interval| Duration::try_from(interval).ok());
        self.exchange(responses, interval.unwrap_or_default().max(HEARTBEAT_MIN)).await
    }

    async fn exchange(&self, mut responses: Streaming<v1::WorkResponse>, interval: Duration) -> Result<(), Status> {
        let mut ticks = tokio::time::interval(interval / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard_at = Instant::now();
        let mut incoming = IncomingPayloads::default();
        loop {
            tokio::select! {
                response = responses.message() => {
                    let Some(response) = response? else { return Ok(()) };
                    heard_at = Instant::now();
                    self.handle(response.messages, &mut incoming)?;
                }
                now = ticks.tick() => {
                    if now.saturating_duration_since(heard_at) > SILENCE_MAX * interval {
                        return Err(Status::unavailable("the server sends nothing"));
                    }
                    self.shared.stop_late(now);
                    self.shared.heartbeat();
                }
            }
        }
    }

    fn handle(&self, messages: Vec<v1::ServerMessage>, incoming: &mut IncomingPayloads) -> Result<(), Status> {
        let mut handles = Vec::new();
        for message in messages {
            match message.kind {
                Some(Kind::Assigned(assigned)) if self.waits_for_payload(&assigned) => incoming.begin(assigned),
                Some(Kind::Assigned(assigned)) => handles.extend(self.start(assigned)),
                Some(Kind::Chunk(chunk)) => {
                    handles.extend(incoming.add(&chunk)?.and_then(|assigned| self.start(assigned)));
                }
                Some(Kind::ResultRequested(requested)) => self.shared.send_result(&requested.token),
                Some(Kind::Settled(settled)) => self.shared.settle(&settled.tokens),
                Some(Kind::Resumed(resumed)) => self.shared.resumed(&resumed.token),
                Some(Kind::Cancel(cancel)) => {
                    self.shared.started(std::mem::take(&mut handles));
                    if incoming.remove(&cancel.token) && cancel.reason() != v1::StopReason::Stale {
                        self.shared.stopped_before_start(cancel.token.as_str().into());
                    }
                    self.cancel(&cancel);
                }
                Some(Kind::Draining(_)) => tracing::info!(worker = self.id, "the server drains"),
                // A kind of a later version only shows that the server is alive.
                Some(Kind::Heartbeat(_)) | None => {}
            }
        }
        self.shared.started(handles);
        Ok(())
    }

    /// Whether the attempt starts when its payload has arrived in chunks.
    fn waits_for_payload(&self, assigned: &v1::AttemptAssigned) -> bool {
        assigned.payload_bytes != 0 && self.shared.starts() && self.handlers.contains_key(&assigned.handler)
    }

    /// Starts an attempt. Returns the handle with which it is stopped by force, if it can be.
    fn start(&self, mut assigned: v1::AttemptAssigned) -> Option<(Token, tokio::task::AbortHandle)> {
        let timeout = assigned.timeout.and_then(|timeout| Duration::try_from(timeout).ok());
        let deadline = timeout.filter(|timeout| !timeout.is_zero()).map(|timeout| Instant::now() + timeout);
        let handler = self.handlers.get(&assigned.handler);
        let token: Token = std::mem::take(&mut assigned.token).into();
        let accepted = self.shared.accept(token.clone(), deadline, handler.is_some())?;
        let function = handler?.function.clone();
        let is_blocking = function.is_blocking;
        let payload = from_message(assigned.payload.take());
        let deadline = deadline.map(Instant::into_std);
        let run =
            attempt::run(self.client.clone(), self.shared.clone(), accepted, assigned, function, payload, deadline);
        let task = tokio::spawn(run);
        (!is_blocking).then(|| (token, task.abort_handle()))
    }

    fn cancel(&self, cancel: &v1::AttemptCancel) {
        let reason = match cancel.reason() {
            v1::StopReason::Stale => StopReason::Lost,
            v1::StopReason::Timeout => StopReason::Timeout,
            v1::StopReason::Cancel | v1::StopReason::Unspecified => StopReason::Cancelled,
        };
        let Some(handle) = self.shared.cancel(&cancel.token, reason) else { return };
        let grace = cancel.grace.and_then(|grace| Duration::try_from(grace).ok()).unwrap_or_default();
        if grace.is_zero() {
            handle.abort();
            return;
        }
        tokio::spawn(async move {
            tokio::time::sleep(grace).await;
            handle.abort();
        });
    }

    fn hello(&self, unfinished: Vec<String>) -> v1::WorkRequest {
        let handler = |handler: &crate::function::Handler| v1::WorkerHandler {
            name: handler.name.clone(),
            description: handler.description.clone(),
        };
        let hello = v1::WorkerHello {
            worker_id: self.id.clone(),
            pool: self.pool.clone(),
            handlers: self.handlers.values().map(handler).collect(),
            slots: i32::try_from(self.slots).unwrap_or(i32::MAX),
            labels: self.labels.clone(),
            version: concat!("lineshaft-rust/", env!("CARGO_PKG_VERSION")).to_owned(),
            unfinished,
            chunks: true,
        };
        v1::WorkRequest { hello: Some(hello), messages: Vec::new() }
    }
}

/// Whether connecting again makes no sense. A worker that has been connected keeps trying: its token may be replaced, its pool
/// configured again.
fn is_final(status: &Status, was_welcome: bool) -> bool {
    if reason(status).as_deref() == Some("WORKER_REPLACED") {
        return true;
    }
    let refuses = !may_help(status) && !matches!(status.code(), Code::Aborted | Code::DeadlineExceeded);
    !was_welcome && refuses
}

/// The requests of one stream. Reports that happen while others are on their way share a message.
struct Requests {
    shared: Arc<Shared>,
    number: u64,
    hello: Option<v1::WorkRequest>,
    /// Whether the functions that are ready had their turn since the first report.
    is_late: bool,
}

impl Stream for Requests {
    type Item = v1::WorkRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<v1::WorkRequest>> {
        if let Some(hello) = self.hello.take() {
            return Poll::Ready(Some(hello));
        }
        if !std::mem::replace(&mut self.is_late, true) {
            // The tasks that are ready run before this one is polled again, and their reports go into the same message.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.is_late = false;
        match self.shared.poll_reports(self.number, context.waker()) {
            Poll::Ready(Some(messages)) => Poll::Ready(Some(v1::WorkRequest { hello: None, messages })),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}
