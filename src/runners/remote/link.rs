//! The connection to one remote worker, over all of its streams.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;

use std::sync::Arc;

use super::messages::{Assigned, CloseReason, Command, Token, WorkerReport};
use crate::model::OutputStream;
use crate::runners::{Outcome, OutputBuffer, ProgressSink, RunReport, StopCause};

/// Bytes of results that are not durable, beyond which the server reads no more of the worker's messages.
const UNSETTLED_BYTES_MAX: usize = 16 << 20;
/// Time in which a worker has to accept an attempt.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Link {
    lease: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None` while the worker is not connected.
    commands: Option<mpsc::UnboundedSender<Command>>,
    /// Number of the newest stream, from 1; 0 if there was none.
    stream: u64,
    /// When the worker was last heard of, or when the link was made.
    heard_at: Instant,
    attempts: HashMap<Token, LinkedAttempt>,
    /// Attempts that have ended and whose end is not durable, with the bytes of their results.
    unsettled: HashMap<Token, usize>,
    unsettled_bytes: usize,
    is_over: bool,
}

struct LinkedAttempt {
    /// Until the worker has accepted it, so that it can be sent again on another stream.
    assigned: Option<Box<Assigned>>,
    /// When it was last sent.
    sent_at: Instant,
    /// The last request to stop, and since when its acknowledgement is missing.
    cancel: Option<Cancel>,
    output: Arc<OutputBuffer>,
    progress: ProgressSink,
    events: mpsc::UnboundedSender<AttemptEvent>,
}

#[derive(Clone, Copy)]
struct Cancel {
    cause: StopCause,
    kill_at: Instant,
    unacknowledged_since: Option<Instant>,
}

impl std::fmt::Debug for LinkedAttempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkedAttempt").field("is_accepted", &self.assigned.is_none()).finish_non_exhaustive()
    }
}

/// What happens to an attempt, for its runner. The end of the channel means that the worker is lost.
#[derive(Debug)]
pub(super) enum AttemptEvent {
    Finished(RunReport),
    NotAccepted,
    Suspended,
    Resuming,
}

/// A stream of the worker.
#[derive(Debug)]
pub struct Connected {
    /// Number of the stream.
    pub stream: u64,
    pub commands: mpsc::UnboundedReceiver<Command>,
    pub reconnected: Reconnected,
}

/// What became of the attempts of the earlier streams.
#[derive(Debug, Default)]
pub struct Reconnected {
    /// Attempts that the worker has and that are not its own any more.
    pub stale: Vec<Token>,
    /// Number of attempts that go on.
    pub kept: usize,
}

/// Why a link has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEnd {
    /// The worker has not connected again within its lease.
    LeaseEnded,
    /// Its stream was closed.
    Closed(CloseReason),
    /// It has left, and has no attempts any more.
    Left,
}

impl Link {
    pub fn new(lease: Duration) -> Arc<Self> {
        let state = State {
            commands: None,
            stream: 0,
            heard_at: Instant::now(),
            attempts: HashMap::new(),
            unsettled: HashMap::new(),
            unsettled_bytes: 0,
            is_over: false,
        };
        Arc::new(Self { lease, state: Mutex::new(state) })
    }

    pub fn is_connected(&self) -> bool {
        self.state.lock().commands.is_some()
    }

    /// Begins a stream, which replaces an earlier one. `unfinished` are the attempts that the worker has. `None` if the link
    /// is over.
    pub fn connect(&self, unfinished: &[Token]) -> Option<Connected> {
        let (sender, commands) = mpsc::unbounded_channel();
        let mut state = self.state.lock();
        if state.is_over {
            return None;
        }
        if let Some(replaced) = state.commands.replace(sender.clone()) {
            // Fails if the stream is being dropped.
            let _ = replaced.send(Command::Close(CloseReason::Replaced));
        }
        state.stream += 1;
        let now = Instant::now();
        state.heard_at = now;
        let unfinished: HashSet<Token> = unfinished.iter().copied().collect();
        let is_known = |token: &Token| state.attempts.contains_key(token) || state.unsettled.contains_key(token);
        let foreign = unfinished.iter().copied().filter(|token| !is_known(token)).collect();
        // An accepted attempt that the worker does not have is lost; dropping it tells its runner.
        state.attempts.retain(|token, attempt| attempt.assigned.is_some() || unfinished.contains(token));
        for (token, attempt) in &mut state.attempts {
            attempt.begin_stream(*token, unfinished.contains(token), now, &sender);
        }
        let reconnected = Reconnected { stale: foreign, kept: state.attempts.len() };
        Some(Connected { stream: state.stream, commands, reconnected })
    }

    /// The stream has broken: from now on the lease runs. Returns false if the stream was replaced or closed before.
    pub fn disconnect(&self, stream: u64) -> bool {
        let mut state = self.state.lock();
        let was_connected = state.stream == stream && state.commands.take().is_some();
        if was_connected {
            state.heard_at = Instant::now();
        }
        was_connected
    }

    /// The worker has sent something on this stream. Returns false if the stream is not the newest one.
    pub fn heard(&self, stream: u64) -> bool {
        let mut state = self.state.lock();
        let is_newest = state.stream == stream && state.commands.is_some();
        if is_newest {
            state.heard_at = Instant::now();
        }
        is_newest
    }

    /// Whether the server may read more of the worker's messages. If not, it may again after an end is durable.
    pub fn has_room(&self) -> bool {
        self.state.lock().unsettled_bytes < UNSETTLED_BYTES_MAX
    }

    /// Passes a report on. One about an attempt that is not the worker's is ignored, except that its end is acknowledged.
    pub fn report(&self, report: WorkerReport) {
        match report {
            WorkerReport::Accepted(token) => self.with_attempt(token, |attempt| attempt.assigned = None),
            WorkerReport::Progress(token, fraction, note) => {
                if let Some((_, progress)) = self.sinks(token) {
                    progress(fraction, &note);
                }
            }
            WorkerReport::Output(token, stream, data) => self.write_output(token, stream, &data),
            WorkerReport::Finished(token, report) => self.finished(token, report),
            WorkerReport::CancelAcknowledged(token) => self.with_attempt(token, |attempt| {
                if let Some(cancel) = &mut attempt.cancel {
                    cancel.unacknowledged_since = None;
                }
            }),
            WorkerReport::Suspended(token) => self.event(token, AttemptEvent::Suspended),
            WorkerReport::Resuming(token) => self.event(token, AttemptEvent::Resuming),
        }
    }

    fn with_attempt(&self, token: Token, change: impl FnOnce(&mut LinkedAttempt)) {
        if let Some(attempt) = self.state.lock().attempts.get_mut(&token) {
            change(attempt);
        }
    }

    fn sinks(&self, token: Token) -> Option<(Arc<OutputBuffer>, ProgressSink)> {
        let state = self.state.lock();
        let attempt = state.attempts.get(&token)?;
        Some((attempt.output.clone(), attempt.progress.clone()))
    }

    fn write_output(&self, token: Token, stream: OutputStream, data: &Bytes) {
        if let Some((output, _)) = self.sinks(token) {
            output.write(stream, data);
        }
    }

    fn event(&self, token: Token, event: AttemptEvent) {
        self.with_attempt(token, |attempt| {
            attempt.assigned = None;
            // Fails if the runner has stopped waiting.
            let _ = attempt.events.send(event);
        });
    }

    fn finished(&self, token: Token, report: RunReport) {
        let mut state = self.state.lock();
        if let Some(attempt) = state.attempts.remove(&token) {
            let bytes = match &report.outcome {
                Outcome::Completed(result) => result.data.len(),
                _ => 0,
            };
            state.unsettled.insert(token, bytes);
            state.unsettled_bytes += bytes;
            // Fails if the runner has stopped waiting.
            let _ = attempt.events.send(AttemptEvent::Finished(report));
        } else if !state.unsettled.contains_key(&token) {
            state.send(Command::Settle(token));
        }
    }

    /// The end of an attempt is durable.
    pub fn settle(&self, token: Token) {
        let mut state = self.state.lock();
        if let Some(bytes) = state.unsettled.remove(&token) {
            state.unsettled_bytes -= bytes;
            state.send(Command::Settle(token));
        }
    }

    /// Sends an attempt to the worker and returns what happens to it. `None` if the worker is lost.
    pub(super) fn assign(
        &self,
        assigned: Box<Assigned>,
        output: Arc<OutputBuffer>,
        progress: ProgressSink,
    ) -> Option<mpsc::UnboundedReceiver<AttemptEvent>> {
        self.add(assigned.token, Some(assigned), output, progress)
    }

    /// Takes over an attempt of an earlier server, which the worker may have.
    pub(super) fn adopt(
        &self,
        token: Token,
        output: Arc<OutputBuffer>,
        progress: ProgressSink,
    ) -> Option<mpsc::UnboundedReceiver<AttemptEvent>> {
        self.add(token, None, output, progress)
    }

    fn add(
        &self,
        token: Token,
        assigned: Option<Box<Assigned>>,
        output: Arc<OutputBuffer>,
        progress: ProgressSink,
    ) -> Option<mpsc::UnboundedReceiver<AttemptEvent>> {
        let (events, receiver) = mpsc::unbounded_channel();
        let mut state = self.state.lock();
        if state.is_over {
            return None;
        }
        if let Some(assigned) = &assigned {
            state.send(Command::Assign(assigned.clone()));
        }
        let attempt = LinkedAttempt { assigned, sent_at: Instant::now(), cancel: None, output, progress, events };
        state.attempts.insert(token, attempt);
        Some(receiver)
    }

    /// Asks the worker to stop an attempt.
    pub(super) fn cancel(&self, token: Token, cause: StopCause, grace: Duration) {
        let now = Instant::now();
        let mut state = self.state.lock();
        let Some(attempt) = state.attempts.get_mut(&token) else { return };
        let since = attempt.cancel.and_then(|cancel| cancel.unacknowledged_since).unwrap_or(now);
        attempt.cancel = Some(Cancel { cause, kill_at: now + grace, unacknowledged_since: Some(since) });
        state.send(Command::Cancel { token, cause, grace });
    }

    /// Takes an attempt back that the worker has not accepted, or may not finish.
    pub(super) fn withdraw(&self, token: Token) {
        let mut state = self.state.lock();
        if state.attempts.remove(&token).is_some() {
            state.send(Command::Stale(token));
        }
    }

    pub(super) fn resumed(&self, token: Token) {
        self.state.lock().send(Command::Resumed(token));
    }

    /// Looks for what is overdue; call it about every second. Returns the end of the link if it is over, after which the
    /// runners of its attempts see that the worker is lost. `leaves`: the worker accepts no further attempts.
    pub fn check(&self, leaves: bool) -> Option<LinkEnd> {
        let now = Instant::now();
        let mut state = self.state.lock();
        let is_connected = state.commands.is_some();
        let has_work = !state.attempts.is_empty() || !state.unsettled.is_empty();
        if state.is_over || (leaves && !is_connected && !has_work) {
            state.end(None);
            return Some(LinkEnd::Left);
        }
        if now.duration_since(state.heard_at) >= self.lease {
            let reason = is_connected.then_some(CloseReason::Silent);
            state.end(reason);
            return Some(reason.map_or(LinkEnd::LeaseEnded, LinkEnd::Closed));
        }
        let is_overdue = |since: Instant, limit| now.duration_since(since) >= limit;
        for attempt in state.attempts.values().filter(|attempt| attempt.assigned.is_some()) {
            // A worker that has left will not accept what was on its way.
            let is_given_up = if is_connected { is_overdue(attempt.sent_at, ACCEPT_TIMEOUT) } else { leaves };
            if is_given_up {
                let _ = attempt.events.send(AttemptEvent::NotAccepted);
            }
        }
        if !is_connected {
            return None;
        }
        let ignores = |cancel: Cancel| cancel.unacknowledged_since.is_some_and(|since| is_overdue(since, self.lease));
        if state.attempts.values().any(|attempt| attempt.cancel.is_some_and(ignores)) {
            state.end(Some(CloseReason::CancelIgnored));
            return Some(LinkEnd::Closed(CloseReason::CancelIgnored));
        }
        None
    }
}

impl State {
    fn send(&self, command: Command) {
        if let Some(commands) = &self.commands {
            // Fails if the stream is being dropped; what matters is sent again on the next one.
            let _ = commands.send(command);
        }
    }

    fn end(&mut self, reason: Option<CloseReason>) {
        if let Some(reason) = reason {
            self.send(Command::Close(reason));
        }
        self.is_over = true;
        self.commands = None;
        self.attempts.clear();
    }
}

impl LinkedAttempt {
    /// Sends what the worker has missed.
    fn begin_stream(&mut self, token: Token, has: bool, now: Instant, commands: &mpsc::UnboundedSender<Command>) {
        self.sent_at = now;
        if has {
            self.assigned = None;
        }
        if let Some(assigned) = &self.assigned {
            let _ = commands.send(Command::Assign(assigned.clone()));
        }
        if let Some(cancel) = &mut self.cancel {
            cancel.unacknowledged_since = Some(now);
            let grace = cancel.kill_at.saturating_duration_since(now);
            let _ = commands.send(Command::Cancel { token, cause: cancel.cause, grace });
        }
    }
}
