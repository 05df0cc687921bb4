//! The connection to one remote worker, over all of its streams, and the table of its attempts.
//!
//! Commands for the worker wait in the link until its stream takes them. What adds one to a stream that has taken all wakes
//! it, once for all commands that are added under the same lock. The stream itself is not woken: after
//! [`Link::receive`] it looks for commands anyway.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::MutexGuard;
use tokio::time::Instant;

use super::entry::{Entry, LinkedAttempt, Start, not_sent};
use super::messages::{Assigned, Chunk, CloseReason, Command, Token, WorkerReport};
use crate::model::{Reservation, limits};
use crate::runners::sync::{Mutex, Notify};
use crate::runners::{Outcome, RunReport, StopListener};

/// Bytes of results that are not durable, beyond which the server reads no more of the worker's messages.
const UNSETTLED_BYTES_MAX: usize = 16 << 20;

pub struct Link<A> {
    lease: Duration,
    state: Mutex<State<A>>,
    /// Something is due earlier than [`Link::next_due`] returned last.
    pub(super) due_earlier: Notify,
}

struct State<A> {
    is_connected: bool,
    /// Number of the newest stream, from 1; 0 if there was none.
    stream: u64,
    /// For the newest stream.
    commands: Vec<Command>,
    /// Large payloads of which the newest stream has sent a part, and the bytes sent. They take turns.
    transfers: VecDeque<(Arc<Assigned>, usize)>,
    /// Why the newest stream ends after these commands.
    closed: Option<CloseReason>,
    /// Wakes the newest stream, if it waits for commands.
    waker: Option<Waker>,
    /// When the worker was last heard of, or when the link was made.
    heard_at: Instant,
    attempts: HashMap<Token, Entry<A>>,
    /// Attempts that have ended and whose end is not durable.
    unsettled: HashMap<Token, Unsettled>,
    unsettled_bytes: usize,
    /// Nothing is due before. May be earlier than the first time at which something is.
    next_due: Option<Instant>,
    is_over: bool,
}

/// The memory of a result that is not durable.
struct Unsettled {
    bytes: usize,
    /// Of a large result, which is not part of `bytes`.
    _memory: Option<Box<Reservation>>,
}

/// What a stream may do besides sending the commands that it was given.
#[derive(Clone, Copy, Debug)]
pub struct Polled {
    /// It may read more of the worker's messages; if not, it may again after a command.
    pub may_read: bool,
    /// [`Link::next_chunk`] returns one.
    pub has_chunks: bool,
}

/// An attempt that is no longer the link's, and how it has ended.
pub type Ended<A> = (A, RunReport);

/// What has happened to an attempt.
#[derive(Debug)]
pub enum Happened<A> {
    Ended(A, RunReport),
    /// It waits for others and needs no slot.
    Suspended(A),
    /// It wants to go on when it has a slot again.
    Resuming(A),
}

/// A new stream of the worker.
#[derive(Debug)]
pub struct Connected<A> {
    /// Number of the stream.
    pub stream: u64,
    /// Attempts that the worker has and that are not its own any more.
    pub stale: Vec<Token>,
    /// Number of attempts that go on.
    pub kept: usize,
    /// Attempts of earlier streams that the worker does not have.
    pub lost: Vec<Ended<A>>,
}

/// What a look at the clock has found.
#[derive(Debug)]
pub struct Checked<A> {
    pub ended: Vec<Ended<A>>,
    /// The link is over, and `ended` has all of its attempts.
    pub end: Option<LinkEnd>,
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

impl<A> std::fmt::Debug for Link<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("lease", &self.lease).finish_non_exhaustive()
    }
}

impl<A: LinkedAttempt> Link<A> {
    pub fn new(lease: Duration) -> Arc<Self> {
        let state = State {
            is_connected: false,
            stream: 0,
            commands: Vec::new(),
            transfers: VecDeque::new(),
            closed: None,
            waker: None,
            heard_at: Instant::now(),
            attempts: HashMap::new(),
            unsettled: HashMap::new(),
            unsettled_bytes: 0,
            next_due: None,
            is_over: false,
        };
        Arc::new(Self { lease, state: Mutex::new(state), due_earlier: Notify::default() })
    }

    pub fn is_connected(&self) -> bool {
        self.state.lock().is_connected
    }

    /// The attempt of the worker that was dispatched first.
    pub fn oldest(&self) -> Option<A> {
        let state = self.state.lock();
        let oldest = state.attempts.iter().min_by_key(|(token, _)| token.0);
        oldest.map(|(_, entry)| entry.attempt.clone())
    }

    /// Begins a stream, which replaces an earlier one. `unfinished` are the attempts that the worker has. `None` if the link
    /// is over.
    pub fn connect(&self, unfinished: &[Token]) -> Option<Connected<A>> {
        let mut state = self.state.lock();
        if state.is_over {
            return None;
        }
        let now = Instant::now();
        // A stream that is replaced notices it when it looks for commands.
        let replaced = state.waker.take();
        state.stream += 1;
        state.clear_commands();
        (state.is_connected, state.heard_at) = (true, now);
        let unfinished: HashSet<Token> = unfinished.iter().copied().collect();
        let is_known = |token: &Token| state.attempts.contains_key(token) || state.unsettled.contains_key(token);
        let foreign = unfinished.iter().copied().filter(|token| !is_known(token)).collect();
        let mut commands = Vec::new();
        let is_lost = |token: &Token, entry: &mut Entry<A>| entry.is_accepted() && !unfinished.contains(token);
        let lost = state.attempts.extract_if(is_lost).map(|(_, entry)| entry.lost()).collect();
        for (token, entry) in &mut state.attempts {
            entry.begin_stream(unfinished.contains(token), now, &mut commands);
        }
        state.push(commands);
        let connected = Connected { stream: state.stream, stale: foreign, kept: state.attempts.len(), lost };
        drop(state);
        if let Some(replaced) = replaced {
            replaced.wake();
        }
        Some(connected)
    }

    /// The stream has broken: from now on the lease runs. Returns false if the stream was replaced or closed before.
    pub fn disconnect(&self, stream: u64) -> bool {
        let mut state = self.state.lock();
        if state.stream != stream || !state.is_connected {
            return false;
        }
        (state.is_connected, state.waker, state.heard_at) = (false, None, Instant::now());
        state.clear_commands();
        true
    }

    /// Takes the commands for a stream, and wakes the context when there are some. The last one of a stream is
    /// [`Command::Close`].
    pub fn poll_commands(&self, stream: u64, context: &Context<'_>, commands: &mut VecDeque<Command>) -> Polled {
        let mut state = self.state.lock();
        if state.stream != stream {
            commands.push_back(Command::Close(CloseReason::Replaced));
            return Polled { may_read: false, has_chunks: false };
        }
        commands.extend(state.commands.drain(..));
        commands.extend(state.closed.map(Command::Close));
        state.waker = commands.is_empty().then(|| context.waker().clone());
        Polled { may_read: state.unsettled_bytes < UNSETTLED_BYTES_MAX, has_chunks: !state.transfers.is_empty() }
    }

    /// The next part of a large payload for a stream.
    pub fn next_chunk(&self, stream: u64) -> Option<Chunk> {
        let mut state = self.state.lock();
        if state.stream == stream { state.next_chunk() } else { None }
    }

    /// The attempt, if it is the worker's and has not ended.
    pub fn find(&self, token: Token) -> Option<A> {
        self.state.lock().attempts.get(&token).map(|entry| entry.attempt.clone())
    }

    /// Whether the stream is the newest one, and open.
    pub fn is_newest(&self, stream: u64) -> bool {
        let state = self.state.lock();
        state.stream == stream && state.is_connected
    }

    /// Processes messages of the worker on this stream, and returns what has happened to attempts, in order. Reports about
    /// attempts that are not the worker's are ignored, except that an end is acknowledged. The stream has to look for commands
    /// afterwards. `None` if the stream is not the newest one.
    pub fn receive(&self, stream: u64, reports: Vec<WorkerReport>) -> Option<Vec<Happened<A>>> {
        let mut state = self.state.lock();
        if state.stream != stream || !state.is_connected {
            return None;
        }
        (state.heard_at, state.waker) = (Instant::now(), None);
        Some(reports.into_iter().filter_map(|report| state.apply(report)).collect())
    }

    /// The ends of these attempts are durable. The worker hears of it with the next command, or after [`wake`](Self::wake).
    pub fn settle(&self, tokens: impl IntoIterator<Item = Token>) {
        let mut state = self.state.lock();
        let State { unsettled, unsettled_bytes, .. } = &mut *state;
        let settled = tokens.into_iter().filter(|token| match unsettled.remove(token) {
            Some(settled) => {
                *unsettled_bytes -= settled.bytes;
                true
            }
            None => false,
        });
        let settled: Vec<_> = settled.collect();
        if !settled.is_empty() {
            state.push([Command::Settle(settled)]);
        }
    }

    /// Wakes the stream if there are commands for it.
    pub fn wake(&self) {
        wake(self.state.lock());
    }

    /// Adds attempts, and sends those that are prepared to the worker. Returns them if the link is over.
    pub fn start(self: &Arc<Self>, starts: Vec<Start<A>>) -> Vec<Ended<A>> {
        let now = Instant::now();
        let mut state = self.state.lock();
        if state.is_over {
            return starts.into_iter().map(|start| (start.attempt, not_sent().into())).collect();
        }
        let mut is_earlier = false;
        for Start { attempt, assigned } in starts {
            is_earlier |= self.add(&mut state, Entry::new(attempt), assigned, now);
        }
        self.notify(is_earlier);
        wake(state);
        Vec::new()
    }

    /// Takes over an attempt of an earlier server, which the worker may have. Returns it if the link is over.
    pub fn adopt(self: &Arc<Self>, attempt: A) -> Option<Ended<A>> {
        let mut state = self.state.lock();
        if state.is_over {
            return Some((attempt, Outcome::WorkerLost.into()));
        }
        let is_earlier = self.add(&mut state, Entry::adopted(attempt), None, Instant::now());
        self.notify(is_earlier);
        None
    }

    /// Sends a prepared attempt, unless the link has ended it.
    pub fn send(&self, token: Token, assigned: Arc<Assigned>) {
        let now = Instant::now();
        let mut state = self.state.lock();
        let Some(entry) = state.attempts.get_mut(&token) else { return };
        let commands = [Some(entry.send(assigned, now)), entry.next_cancel(now)];
        let due = entry.due();
        state.push(commands.into_iter().flatten());
        let is_earlier = state.expect(due);
        self.notify(is_earlier);
        wake(state);
    }

    /// Takes back an attempt that cannot be prepared. `None` if the link has ended it.
    pub fn take(&self, token: Token) -> Option<A> {
        self.state.lock().attempts.remove(&token).map(|entry| entry.attempt)
    }

    /// Suspended attempts have slots again.
    pub fn resumed(&self, tokens: impl IntoIterator<Item = Token>) {
        let mut state = self.state.lock();
        state.push(tokens.into_iter().map(Command::Resumed));
        wake(state);
    }

    /// Adds an entry, and sends it. Returns whether something is due earlier than before.
    fn add(
        self: &Arc<Self>,
        state: &mut State<A>,
        mut entry: Entry<A>,
        assigned: Option<Arc<Assigned>>,
        now: Instant,
    ) -> bool {
        let token = entry.attempt.token();
        let listener: Weak<dyn StopListener> = Arc::<Self>::downgrade(self);
        let is_stopped = entry.attempt.stop().listen(listener, token.0);
        if let Some(assigned) = assigned {
            state.push([entry.send(assigned, now)]);
        }
        if is_stopped {
            state.push(entry.next_cancel(now));
        }
        let due = entry.due();
        state.attempts.insert(token, entry);
        state.expect(due)
    }

    fn notify(&self, is_earlier: bool) {
        if is_earlier {
            self.due_earlier.notify_one();
        }
    }

    /// When [`take_overdue`](Self::take_overdue) has something to do.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.state.lock().next_due
    }

    /// Tells the worker which grace periods have ended, and returns the attempts whose deadline has passed; a stop of these
    /// has to be requested.
    pub(super) fn take_overdue(&self, now: Instant) -> Vec<A> {
        let mut state = self.state.lock();
        if state.next_due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        let (mut next_due, mut cancels, mut overdue) = (None, Vec::new(), Vec::new());
        for entry in state.attempts.values_mut() {
            if entry.due().is_some_and(|due| due <= now) {
                let cancel = entry.next_cancel(now);
                if cancel.is_none() {
                    overdue.push(entry.attempt.clone());
                    continue;
                }
                cancels.extend(cancel);
            }
            next_due = earlier(next_due, entry.due());
        }
        state.next_due = next_due;
        state.push(cancels);
        wake(state);
        overdue
    }

    /// The worker has so much longer for its answers and its next stream.
    pub(super) fn postpone(&self, time: Duration, now: Instant) {
        let mut state = self.state.lock();
        state.heard_at = now.min(state.heard_at + time);
        for entry in state.attempts.values_mut() {
            entry.postpone(time, now);
        }
    }

    /// Looks for what is overdue; call it about every second. `leaves`: the worker accepts no further attempts.
    pub(super) fn check(&self, leaves: bool) -> Checked<A> {
        let now = Instant::now();
        let mut state = self.state.lock();
        let end = state.end_at(now, self.lease, leaves);
        let ended = match end {
            Some(end) => state.end(end),
            None => state.withdraw_unaccepted(now, leaves),
        };
        wake(state);
        Checked { ended, end }
    }
}

impl<A: LinkedAttempt> StopListener for Link<A> {
    fn stop_requested(&self, key: u64) {
        let mut state = self.state.lock();
        let Some(entry) = state.attempts.get_mut(&Token(key)) else { return };
        let (cancel, due) = (entry.next_cancel(Instant::now()), entry.due());
        state.push(cancel);
        let is_earlier = state.expect(due);
        self.notify(is_earlier);
        wake(state);
    }
}

impl<A: LinkedAttempt> State<A> {
    fn push(&mut self, commands: impl IntoIterator<Item = Command>) {
        // What matters is sent again on the next stream.
        if !self.is_connected {
            return;
        }
        for command in commands {
            if let Command::Assign(assigned) = &command
                && assigned.is_chunked()
            {
                self.transfers.push_back((assigned.clone(), 0));
            }
            self.commands.push(command);
        }
    }

    fn clear_commands(&mut self) {
        self.commands.clear();
        self.transfers.clear();
    }

    /// Drops the transfers of attempts that have ended meanwhile.
    fn next_chunk(&mut self) -> Option<Chunk> {
        let now = Instant::now();
        while let Some((assigned, offset)) = self.transfers.pop_front() {
            let token = assigned.token;
            if !self.attempts.get_mut(&token).is_some_and(|entry| entry.chunk_sent(now)) {
                continue;
            }
            let end = (offset + limits::CHUNK_BYTES).min(assigned.payload.len());
            let data = assigned.payload.slice(offset..end);
            if end < assigned.payload.len() {
                self.transfers.push_back((assigned, end));
            }
            return Some(Chunk { token, offset, data });
        }
        None
    }

    /// Records that something is due. Returns whether nothing was due before that.
    fn expect(&mut self, due: Option<Instant>) -> bool {
        let is_earlier = due.is_some_and(|due| self.next_due.is_none_or(|next| due < next));
        if is_earlier {
            self.next_due = due;
        }
        is_earlier
    }

    fn apply(&mut self, report: WorkerReport) -> Option<Happened<A>> {
        match report {
            WorkerReport::Accepted(token) => self.attempts.get_mut(&token)?.accept(),
            WorkerReport::Progress(token, fraction, note) => {
                self.attempts.get(&token)?.attempt.report_progress(fraction, &note);
            }
            WorkerReport::Output(token, stream, data) => {
                self.attempts.get(&token)?.attempt.write_output(stream, &data);
            }
            WorkerReport::CancelAcknowledged(token) => self.attempts.get_mut(&token)?.acknowledge_cancel(),
            WorkerReport::Suspended(token) => return Some(Happened::Suspended(self.running(token)?)),
            WorkerReport::Resuming(token) => return Some(Happened::Resuming(self.running(token)?)),
            WorkerReport::Finished(token, report, memory) => return self.finished(token, report, memory),
        }
        None
    }

    /// An attempt that runs in the worker.
    fn running(&mut self, token: Token) -> Option<A> {
        let entry = self.attempts.get_mut(&token)?;
        entry.accept();
        Some(entry.attempt.clone())
    }

    fn finished(&mut self, token: Token, report: RunReport, memory: Option<Box<Reservation>>) -> Option<Happened<A>> {
        let Some(entry) = self.attempts.remove(&token) else {
            if !self.unsettled.contains_key(&token) {
                self.push([Command::Settle(vec![token])]);
            }
            return None;
        };
        let bytes = match &report.outcome {
            Outcome::Completed(result) if memory.is_none() => result.data.len(),
            _ => 0,
        };
        self.unsettled.insert(token, Unsettled { bytes, _memory: memory });
        self.unsettled_bytes += bytes;
        let (attempt, report) = entry.finished(report);
        Some(Happened::Ended(attempt, report))
    }

    /// Why the link ends now, if it does.
    fn end_at(&self, now: Instant, lease: Duration, leaves: bool) -> Option<LinkEnd> {
        let has_work = !self.attempts.is_empty() || !self.unsettled.is_empty();
        if self.is_over || (leaves && !self.is_connected && !has_work) {
            return Some(LinkEnd::Left);
        }
        let is_overdue = |since: Instant| now.duration_since(since) >= lease;
        if is_overdue(self.heard_at) {
            return Some(if self.is_connected { LinkEnd::Closed(CloseReason::Silent) } else { LinkEnd::LeaseEnded });
        }
        let ignores_cancel = |entry: &Entry<A>| entry.ignores_cancel_since().is_some_and(is_overdue);
        let is_ignored = self.is_connected && self.attempts.values().any(ignores_cancel);
        is_ignored.then_some(LinkEnd::Closed(CloseReason::CancelIgnored))
    }

    /// Ends the link, and returns all of its attempts.
    fn end(&mut self, end: LinkEnd) -> Vec<Ended<A>> {
        if let LinkEnd::Closed(reason) = end {
            self.closed = Some(reason);
        }
        (self.is_over, self.is_connected) = (true, false);
        self.attempts.drain().map(|(_, entry)| entry.lost()).collect()
    }

    /// Takes attempts back that the worker has not accepted in time.
    fn withdraw_unaccepted(&mut self, now: Instant, leaves: bool) -> Vec<Ended<A>> {
        let is_connected = self.is_connected;
        let is_given_up = |_: &Token, entry: &mut Entry<A>| entry.is_given_up(now, is_connected, leaves);
        let given_up: Vec<_> = self.attempts.extract_if(is_given_up).collect();
        self.push(given_up.iter().map(|(token, _)| Command::Stale(*token)));
        given_up.into_iter().map(|(_, entry)| entry.not_accepted()).collect()
    }
}

/// Wakes the stream if there is something for it, after the lock is released.
fn wake<A>(mut state: MutexGuard<'_, State<A>>) {
    let has_commands = !state.commands.is_empty() || state.closed.is_some();
    let waker = if has_commands { state.waker.take() } else { None };
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::runners::StopSignal;

    #[derive(Clone)]
    pub struct Attempt(Arc<StopSignal>);

    impl LinkedAttempt for Attempt {
        fn token(&self) -> Token {
            Token(1)
        }

        fn at_most_once(&self) -> bool {
            false
        }

        fn stop(&self) -> &StopSignal {
            &self.0
        }

        fn write_output(&self, _: crate::model::OutputStream, _: &[u8]) {}

        fn report_progress(&self, _: f32, _: &str) {}
    }

    #[tokio::test]
    async fn an_attempt_for_a_lost_worker_was_not_sent_unless_an_earlier_server_has_sent_it() {
        let link = Link::new(Duration::ZERO);
        assert!(link.check(true).end.is_some(), "the worker is gone");
        let attempt = Attempt(Arc::default());
        let started = link.start(vec![Start { attempt: attempt.clone(), assigned: None }]);
        assert!(matches!(started[0].1.outcome, Outcome::Unavailable(_)));
        let adopted = link.adopt(attempt).unwrap();
        assert!(matches!(adopted.1.outcome, Outcome::WorkerLost));
    }
}
