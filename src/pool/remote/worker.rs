//! One remote worker, from its first stream to the end of its lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Failure, FailureReason, HandlerName, Timestamp, limits};
use crate::pool::WorkerLink;
use crate::pool::running::RunningAttempt;
use crate::pool::stats::{RemoteStats, WorkerStats};
use crate::runners::remote::Link;
use crate::runners::sync::Mutex;
use crate::telemetry::metrics::AttemptMeter;

/// Number of a worker in its pool. Never reused.
pub(super) type WorkerKey = u64;

/// How a worker introduces itself.
#[derive(Clone, Debug, Default)]
pub struct WorkerInfo {
    pub id: String,
    pub handlers: Arc<[HandlerName]>,
    /// Attempts that it runs at a time.
    pub slots: usize,
    pub labels: Vec<(String, String)>,
    /// Name and version of its library.
    pub version: String,
    /// Whether it receives payloads, and sends results, in chunks.
    pub chunks: bool,
}

pub(super) struct RemoteWorker {
    pub id: Box<str>,
    /// `pool/id`.
    pub name: Arc<str>,
    pub key: WorkerKey,
    pub link: Arc<WorkerLink>,
    pub meter: Mutex<AttemptMeter>,
    /// Held while a stream begins or ends in the link and in the queue, so that both have the same newest stream.
    pub streams: Mutex<()>,
    state: Mutex<State>,
    completed: AtomicU64,
    failed: AtomicU64,
}

struct State {
    info: WorkerInfo,
    is_leaving: bool,
    running: usize,
    /// Since when it has been busy or idle.
    since: Instant,
    busy: Duration,
    idle: Duration,
}

impl State {
    fn advance(&mut self) {
        let now = Instant::now();
        let passed = now.duration_since(self.since);
        self.since = now;
        *if self.running == 0 { &mut self.idle } else { &mut self.busy } += passed;
    }
}

impl RemoteWorker {
    pub fn new(id: Box<str>, name: Arc<str>, key: WorkerKey, lease: Duration, meter: AttemptMeter) -> Self {
        let state = State {
            info: WorkerInfo::default(),
            is_leaving: false,
            running: 0,
            since: Instant::now(),
            busy: Duration::ZERO,
            idle: Duration::ZERO,
        };
        Self {
            id,
            name,
            key,
            link: Link::new(lease),
            meter: Mutex::new(meter),
            streams: Mutex::default(),
            state: Mutex::new(state),
            completed: AtomicU64::default(),
            failed: AtomicU64::default(),
        }
    }

    pub fn connected(&self, info: WorkerInfo) {
        let mut state = self.state.lock();
        (state.info, state.is_leaving) = (info, false);
    }

    /// Whether it receives a payload of this size.
    pub fn receives(&self, payload_bytes: usize) -> bool {
        payload_bytes <= limits::INLINE_BYTES_MAX || self.state.lock().info.chunks
    }

    /// The failure of an attempt whose payload it does not receive.
    pub fn not_received(&self, payload_bytes: usize) -> Failure {
        let version = self.state.lock().info.version.clone();
        let library = if version.is_empty() { "its library" } else { &version };
        let limit = limits::INLINE_BYTES_MAX;
        let text = format!(
            "payload has {payload_bytes} bytes, worker `{}` receives at most {limit}; update {library}",
            self.name
        );
        Failure::new(FailureReason::InvalidPayload, text)
    }

    pub fn leave(&self) {
        self.state.lock().is_leaving = true;
    }

    pub fn is_leaving(&self) -> bool {
        self.state.lock().is_leaving
    }

    pub fn running(&self) -> usize {
        self.state.lock().running
    }

    /// Attempts start at this time.
    pub fn attempts_started(&self, started: &[RunningAttempt], at: Timestamp) {
        let mut meter = self.meter.lock();
        for RunningAttempt { attempt, .. } in started {
            let waited = at.since(attempt.eligible_at());
            meter.started(attempt.spec().options.priority, waited, || attempt.exemplar());
        }
        drop(meter);
        self.change_running(|running| running + started.len());
    }

    pub fn attempts_ended(&self, completed: usize, failed: usize) {
        self.change_running(|running| running - completed - failed);
        self.completed.fetch_add(completed as u64, Ordering::Relaxed);
        self.failed.fetch_add(failed as u64, Ordering::Relaxed);
    }

    fn change_running(&self, change: impl FnOnce(usize) -> usize) {
        let mut state = self.state.lock();
        state.advance();
        state.running = change(state.running);
    }

    pub fn stats(&self) -> WorkerStats {
        let (oldest, is_connected) = (self.link.oldest(), self.link.is_connected());
        let mut state = self.state.lock();
        state.advance();
        let info = &state.info;
        let remote = RemoteStats {
            handlers: info.handlers.clone(),
            slots: info.slots,
            running: state.running,
            labels: info.labels.clone(),
            version: info.version.clone(),
            is_connected,
        };
        WorkerStats {
            name: self.id.to_string(),
            alive: is_connected && !state.is_leaving,
            busy: state.running > 0,
            current: oldest.map(|RunningAttempt { attempt, .. }| {
                let spec = attempt.spec();
                (spec.id.clone(), spec.options.handler.clone())
            }),
            completed: self.completed.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            busy_time: state.busy,
            idle_time: state.idle,
            remote: Some(remote),
        }
    }

    pub fn reset_counters(&self) {
        let mut state = self.state.lock();
        state.advance();
        (state.busy, state.idle) = (Duration::ZERO, Duration::ZERO);
        for counter in [&self.completed, &self.failed] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}
