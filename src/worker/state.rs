//! The attempts of a worker and the reports about them, over all of its streams.

use std::collections::VecDeque;
use std::task::{Poll, Waker};

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::messages;
use super::outbox::{Outbox, Report, Token};
use crate::function::{Payload, StopReason};
use crate::model::{Failure, FailureReason, OutputStream, limits};
use crate::proto::v1::{self, attempt_finished::Outcome, worker_message::Kind};

/// Reports in one message.
const MESSAGES_MAX: usize = 10_000;
/// Bytes of results and output in one message, beyond which no further ones are added.
const BYTES_MAX: usize = 4 << 20;
/// Bytes of a result for a server that receives no chunks; its own limit is lower.
const WHOLE_RESULT_BYTES_MAX: usize = 8 << 20;

#[derive(Default)]
pub struct Shared {
    state: Mutex<State>,
    /// Cancelled when the worker leaves and has no attempts any more.
    drained: CancellationToken,
}

#[derive(Default)]
struct State {
    attempts: HashMap<Token, Entry>,
    outbox: Outbox,
    /// Attempts whose acceptance was not sent.
    unaccepted: VecDeque<Token>,
    /// Results of which the newest stream sends chunks, with the bytes sent. They take turns.
    transfers: VecDeque<(Token, usize)>,
    /// Bytes of a result that the server receives in chunks; 0: it receives none.
    chunked_bytes_max: usize,
    /// Number of the newest stream.
    stream: u64,
    /// Whether the server has welcomed the worker on that stream.
    is_open: bool,
    /// Wakes the stream when there is something to send.
    waker: Option<Waker>,
    /// The worker accepts no further attempts.
    is_draining: bool,
    /// It ends when it has no attempts any more.
    is_leaving: bool,
}

/// An attempt, until the server has acknowledged its end.
struct Entry {
    cancellation: CancellationToken,
    /// When it has reached its timeout.
    deadline: Option<Instant>,
    /// `None` if the function cannot be stopped by force.
    abort: Option<AbortHandle>,
    stop: Option<StopReason>,
    slot: Slot,
    /// Number of waits for other tasks.
    waits: usize,
    progress: Option<(f64, String)>,
    /// What the server has stored, one for each name.
    artifacts: Vec<v1::Artifact>,
    outcome: Option<Outcome>,
}

enum Slot {
    Held,
    /// The attempt waits for other tasks.
    Released,
    /// It wants to go on; the token is cancelled when it has a slot again.
    Wanted(CancellationToken),
}

/// What the server has assigned and the worker starts.
pub struct Accepted {
    pub token: Token,
    pub cancellation: CancellationToken,
}

impl Shared {
    /// Cancelled when the drain is complete.
    pub fn drained(&self) -> &CancellationToken {
        &self.drained
    }

    /// Begins a stream, which replaces an earlier one. Returns its number and the attempts of the worker.
    pub fn begin_stream(&self) -> (u64, Vec<String>) {
        let mut state = self.state.lock();
        state.stream += 1;
        state.is_open = false;
        (state.stream, state.attempts.keys().map(ToString::to_string).collect())
    }

    /// The server has welcomed the worker.
    pub fn open_stream(&self, welcome: &v1::WorkerWelcome) {
        let mut state = self.state.lock();
        for token in &welcome.stale {
            self.forget(&mut state, token);
        }
        let state = &mut *state;
        state.chunked_bytes_max = usize::try_from(welcome.max_result_bytes).unwrap_or(0);
        state.transfers.clear();
        state.unaccepted.clear();
        state.outbox.begin_stream(|token| state.attempts.contains_key(token));
        for (token, entry) in &state.attempts {
            if entry.outcome.is_some() {
                state.outbox.push(Report::Finished(token.clone()));
                continue;
            }
            if !matches!(entry.slot, Slot::Held) {
                state.outbox.push(Report::Suspended(token.clone()));
            }
            if matches!(entry.slot, Slot::Wanted(_)) {
                state.outbox.push(Report::Resuming(token.clone()));
            }
        }
        if state.is_draining {
            state.outbox.push(Report::Draining);
        }
        state.is_open = true;
        state.wake();
    }

    /// The next reports of a stream; none when the stream has to end. Pending: the waker is woken when there are some.
    pub fn poll_reports(&self, stream: u64, waker: &Waker) -> Poll<Option<Vec<v1::WorkerMessage>>> {
        let mut state = self.state.lock();
        if state.stream != stream {
            return Poll::Ready(None);
        }
        let is_empty = state.outbox.is_empty() && state.unaccepted.is_empty() && state.transfers.is_empty();
        let has_reports = state.is_open && !is_empty;
        if has_reports {
            return Poll::Ready(Some(state.take()));
        }
        if self.drained.is_cancelled() {
            return Poll::Ready(None);
        }
        state.waker = Some(waker.clone());
        Poll::Pending
    }

    /// Takes an attempt. `None` if it is known, or if the worker cannot start it.
    pub fn accept(&self, token: Token, deadline: Option<Instant>, is_offered: bool) -> Option<Accepted> {
        let mut state = self.state.lock();
        if state.attempts.contains_key(&token) {
            state.unaccepted.push_back(token);
            state.wake();
            return None;
        }
        let starts = is_offered && !state.is_draining;
        let cancellation = CancellationToken::new();
        let entry = Entry {
            cancellation: cancellation.clone(),
            deadline,
            abort: None,
            stop: None,
            slot: Slot::Held,
            waits: 0,
            progress: None,
            artifacts: Vec::new(),
            outcome: (!starts).then_some(Outcome::NotStarted(v1::AttemptNotStarted {})),
        };
        state.attempts.insert(token.clone(), entry);
        if starts {
            state.unaccepted.push_back(token.clone());
        } else {
            state.outbox.push(Report::Finished(token.clone()));
        }
        state.wake();
        starts.then_some(Accepted { token, cancellation })
    }

    /// Whether an attempt of a handler that is offered would start.
    pub fn starts(&self) -> bool {
        !self.state.lock().is_draining
    }

    /// The server has cancelled an attempt whose payload has not arrived completely.
    pub fn stopped_before_start(&self, token: Token) {
        let Some(Accepted { token, .. }) = self.accept(token, None, true) else { return };
        let stopped = v1::AttemptStopped { method: v1::StopMethod::NeverStarted.into() };
        self.end(&token, |_, _| Outcome::Stopped(stopped));
    }

    /// The server has memory for the result of an attempt.
    pub fn send_result(&self, token: &str) {
        let mut state = self.state.lock();
        let is_sent = state.transfers.iter().any(|(other, _)| **other == *token);
        if state.is_open && !is_sent {
            state.transfers.push_back((token.into(), 0));
            state.wake();
        }
    }

    /// The attempts can be stopped by force with these handles.
    pub fn started(&self, handles: Vec<(Token, AbortHandle)>) {
        let mut state = self.state.lock();
        for (token, handle) in handles {
            if let Some(entry) = state.attempts.get_mut(&token)
                && entry.outcome.is_none()
            {
                entry.abort = Some(handle);
            }
        }
    }

    /// The function has returned.
    pub fn finish(&self, token: &Token, result: Result<Payload, Failure>) {
        self.end(token, |entry, bytes_max| entry.outcome_of(result, bytes_max));
    }

    /// The function was dropped.
    pub fn aborted(&self, token: &Token) {
        let stopped = v1::AttemptStopped { method: v1::StopMethod::Abort.into() };
        self.end(token, |_, _| Outcome::Stopped(stopped));
    }

    /// `outcome` gets the largest result that the server receives.
    fn end(&self, token: &Token, outcome: impl FnOnce(&Entry, usize) -> Outcome) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let bytes_max = if state.chunked_bytes_max == 0 { WHOLE_RESULT_BYTES_MAX } else { state.chunked_bytes_max };
        let Some(entry) = state.attempts.get_mut(token).filter(|entry| entry.outcome.is_none()) else { return };
        entry.outcome = Some(outcome(entry, bytes_max));
        entry.abort = None;
        state.outbox.push(Report::Finished(token.clone()));
        state.wake();
    }

    /// The server asks to stop an attempt. Returns a handle with which it is stopped by force.
    pub fn cancel(&self, token: &str, reason: StopReason) -> Option<AbortHandle> {
        let mut state = self.state.lock();
        state.outbox.push(Report::CancelAcknowledged(token.into()));
        state.wake();
        if reason == StopReason::Lost {
            return self.forget(&mut state, token);
        }
        let entry = state.attempts.get_mut(token)?;
        entry.stop(reason);
        entry.abort.clone()
    }

    /// Drops an attempt that is not the worker's any more.
    fn forget(&self, state: &mut State, token: &str) -> Option<AbortHandle> {
        let mut entry = state.attempts.remove(token)?;
        entry.stop(StopReason::Lost);
        self.check_drained(state);
        entry.abort
    }

    /// The server has acknowledged the ends of these attempts.
    pub fn settle(&self, tokens: &[String]) {
        let mut state = self.state.lock();
        for token in tokens {
            state.attempts.remove(&**token);
        }
        self.check_drained(&state);
    }

    /// The attempt has its slot again.
    pub fn resumed(&self, token: &str) {
        let mut state = self.state.lock();
        let Some(entry) = state.attempts.get_mut(token) else { return };
        if let Slot::Wanted(resumed) = std::mem::replace(&mut entry.slot, Slot::Held) {
            resumed.cancel();
        }
    }

    /// An attempt waits for other tasks.
    pub fn suspend(&self, token: &Token) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(entry) = state.attempts.get_mut(token).filter(|entry| entry.outcome.is_none()) else { return };
        entry.waits += 1;
        if matches!(entry.slot, Slot::Held) {
            entry.slot = Slot::Released;
            state.outbox.push(Report::Suspended(token.clone()));
            state.wake();
        }
    }

    /// An attempt wants to go on. Returns what is cancelled when it has a slot; `None` if it has one.
    pub fn resume(&self, token: &Token) -> Option<CancellationToken> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let entry = state.attempts.get_mut(token).filter(|entry| entry.outcome.is_none())?;
        entry.waits -= 1;
        if entry.waits == 0 && matches!(entry.slot, Slot::Released) {
            entry.slot = Slot::Wanted(CancellationToken::new());
            state.outbox.push(Report::Resuming(token.clone()));
        }
        let resumed = match &entry.slot {
            Slot::Wanted(resumed) => Some(resumed.clone()),
            Slot::Held | Slot::Released => None,
        };
        state.wake();
        resumed
    }

    /// Of reports in quick succession only the last is sent.
    pub fn progress(&self, token: &Token, fraction: f64, note: &str) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(entry) = state.attempts.get_mut(token).filter(|entry| entry.outcome.is_none()) else { return };
        if entry.progress.replace((fraction, note.to_owned())).is_none() {
            state.outbox.push(Report::Progress(token.clone()));
            state.wake();
        }
    }

    /// Replaces one with the same name.
    pub fn add_artifact(&self, token: &Token, artifact: v1::Artifact) {
        if let Some(entry) = self.state.lock().attempts.get_mut(token) {
            entry.artifacts.retain(|other| other.name != artifact.name);
            entry.artifacts.push(artifact);
        }
    }

    pub fn output(&self, token: &Token, stream: OutputStream, data: &[u8]) {
        let mut state = self.state.lock();
        if state.attempts.get(token).is_some_and(|entry| entry.outcome.is_none()) && !data.is_empty() {
            state.outbox.push_output(token, stream, data);
            state.wake();
        }
    }

    pub fn heartbeat(&self) {
        let mut state = self.state.lock();
        state.outbox.push(Report::Heartbeat);
        state.wake();
    }

    pub fn stop_reason(&self, token: &Token) -> Option<StopReason> {
        self.state.lock().attempts.get(token).map_or(Some(StopReason::Lost), |entry| entry.stop)
    }

    /// Accepts no further attempts. Returns how many there are.
    pub fn drain(&self) -> usize {
        let mut state = self.state.lock();
        state.is_draining = true;
        state.outbox.push(Report::Draining);
        state.wake();
        state.attempts.len()
    }

    /// Ends the stream when no attempt is left.
    pub fn leave(&self) {
        let mut state = self.state.lock();
        state.is_leaving = true;
        self.check_drained(&state);
    }

    fn check_drained(&self, state: &State) {
        if state.is_leaving && state.attempts.is_empty() {
            self.drained.cancel();
            state.wake_now();
        }
    }

    /// Asks all functions to stop.
    pub fn stop_all(&self) {
        for entry in self.state.lock().attempts.values_mut() {
            entry.stop(StopReason::Stopping);
        }
    }

    /// Stops all functions by force that can be. Returns the number of attempts that the worker has.
    pub fn abort_all(&self) -> usize {
        let (handles, count): (Vec<_>, _) = {
            let state = self.state.lock();
            (state.attempts.values().filter_map(|entry| entry.abort.clone()).collect(), state.attempts.len())
        };
        // A function that is dropped reports its end.
        handles.iter().for_each(AbortHandle::abort);
        count
    }

    pub fn unfinished(&self) -> usize {
        self.state.lock().attempts.len()
    }

    /// Asks functions to stop whose timeout has passed. The server does so too, unless the worker is not connected.
    pub fn stop_late(&self, now: Instant) {
        let mut state = self.state.lock();
        for entry in state.attempts.values_mut().filter(|entry| entry.outcome.is_none()) {
            if entry.deadline.is_some_and(|deadline| deadline <= now) {
                entry.stop(StopReason::Timeout);
            }
        }
    }
}

impl State {
    fn wake(&mut self) {
        if self.is_open
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }

    fn wake_now(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// The next reports, as many as fit into a message. Acceptances come first; of an attempt that has ended, the end is enough.
    fn take(&mut self) -> Vec<v1::WorkerMessage> {
        let mut taken = Vec::with_capacity(MESSAGES_MAX.min(self.unaccepted.len() + 16));
        let mut bytes = 0;
        while taken.len() < MESSAGES_MAX
            && let Some(token) = self.unaccepted.pop_front()
        {
            if self.attempts.get(&token).is_some_and(|entry| entry.outcome.is_none()) {
                taken.push(messages::accepted(&token));
            }
        }
        while taken.len() < MESSAGES_MAX
            && bytes < BYTES_MAX
            && let Some(report) = self.outbox.pop()
        {
            let Some(message) = self.message(report) else { continue };
            bytes += payload_bytes(&message);
            taken.push(message);
        }
        taken.extend(self.next_chunk());
        taken
    }

    /// The next part of a result that the server has requested.
    fn next_chunk(&mut self) -> Option<v1::WorkerMessage> {
        while let Some((token, offset)) = self.transfers.pop_front() {
            let Some(Outcome::Result(result)) = self.attempts.get(&token).and_then(|entry| entry.outcome.as_ref())
            else {
                continue;
            };
            let Some(v1::payload::Kind::Data(data)) = &result.kind else { continue };
            let end = (offset + limits::CHUNK_BYTES).min(data.len());
            let chunk = messages::chunk(&token, offset, data.slice(offset.min(end)..end));
            if end < data.len() {
                self.transfers.push_back((token, end));
            }
            return Some(chunk);
        }
        None
    }

    /// `None` if the report has nothing to say any more.
    fn message(&mut self, report: Report) -> Option<v1::WorkerMessage> {
        Some(match report {
            Report::Progress(token) => {
                let (fraction, note) = self.attempts.get_mut(&token)?.progress.take()?;
                messages::progress(&token, fraction, note)
            }
            Report::Output { token, stream, data, omitted } => messages::output(&token, stream, data, omitted),
            Report::Finished(token) => {
                let Entry { outcome, artifacts, .. } = self.attempts.get(&token)?;
                let outcome = outcome.clone()?;
                let artifacts = if matches!(outcome, Outcome::Result(_)) { artifacts.clone() } else { Vec::new() };
                if self.chunked_bytes_max == 0 {
                    messages::finished(&token, outcome, artifacts)
                } else {
                    messages::finished_or_announced(&token, outcome, artifacts)
                }
            }
            Report::CancelAcknowledged(token) => messages::cancel_acknowledged(&token),
            Report::Suspended(token) => messages::suspended(&token),
            Report::Resuming(token) => messages::resuming(&token),
            Report::Draining => messages::of(Kind::Draining(v1::WorkerDraining {})),
            Report::Heartbeat => messages::of(Kind::Heartbeat(v1::Heartbeat {})),
        })
    }
}

impl Entry {
    /// The first reason counts.
    fn stop(&mut self, reason: StopReason) {
        self.stop.get_or_insert(reason);
        self.cancellation.cancel();
    }

    fn outcome_of(&self, result: Result<Payload, Failure>, bytes_max: usize) -> Outcome {
        match result {
            Ok(result) if result.data.len() > bytes_max => {
                let bytes = result.data.len();
                let text = format!("result has {bytes} bytes, at most {bytes_max} are allowed");
                Outcome::Failure(messages::failure(Failure::new(FailureReason::ResultTooLarge, text)))
            }
            Ok(result) => Outcome::Result(crate::client::to_message(result)),
            // Unless the server has asked for it, it takes the stop as the loss of the worker, and the task runs elsewhere.
            Err(_) if self.stop.is_some() => {
                Outcome::Stopped(v1::AttemptStopped { method: v1::StopMethod::Token.into() })
            }
            Err(failure) => Outcome::Failure(messages::failure(failure)),
        }
    }
}

fn payload_bytes(message: &v1::WorkerMessage) -> usize {
    match &message.kind {
        Some(Kind::Output(output)) => output.data.len(),
        Some(Kind::Finished(v1::AttemptFinished { outcome: Some(Outcome::Result(result)), .. })) => {
            result.kind.as_ref().map_or(0, |kind| match kind {
                v1::payload::Kind::Data(data) => data.len(),
                v1::payload::Kind::Json(_) => 0,
            })
        }
        _ => 0,
    }
}
