//! One remote worker, from its first stream to the end of its lease.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{HandlerName, TaskId};
use crate::pool::attempt::Attempt;
use crate::pool::stats::{RemoteStats, WorkerStats};
use crate::pool::sync::Mutex;
use crate::runners::remote::Link;
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
}

pub(super) struct RemoteWorker {
    pub id: Box<str>,
    /// `pool/id`.
    pub name: Arc<str>,
    pub key: WorkerKey,
    pub link: Arc<Link>,
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
    /// The running attempts, by fence.
    running: BTreeMap<u64, (TaskId, HandlerName)>,
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
        *if self.running.is_empty() { &mut self.idle } else { &mut self.busy } += passed;
    }
}

impl RemoteWorker {
    pub fn new(id: Box<str>, name: Arc<str>, key: WorkerKey, lease: Duration, meter: AttemptMeter) -> Self {
        let state = State {
            info: WorkerInfo::default(),
            is_leaving: false,
            running: BTreeMap::new(),
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

    pub fn leave(&self) {
        self.state.lock().is_leaving = true;
    }

    pub fn is_leaving(&self) -> bool {
        self.state.lock().is_leaving
    }

    pub fn running(&self) -> usize {
        self.state.lock().running.len()
    }

    pub fn attempt_started(&self, attempt: &Arc<Attempt>, waited: Duration) {
        self.meter.lock().started(attempt.spec().options.priority, waited, || attempt.exemplar());
        let (id, handler) = (attempt.spec().id.clone(), attempt.spec().options.handler.clone());
        let mut state = self.state.lock();
        state.advance();
        state.running.insert(attempt.ticket().fence, (id, handler));
    }

    pub fn attempt_ended(&self, attempt: &Attempt, completed: bool) {
        let mut state = self.state.lock();
        state.advance();
        state.running.remove(&attempt.ticket().fence);
        drop(state);
        if completed { &self.completed } else { &self.failed }.fetch_add(1, Ordering::Relaxed);
    }

    pub fn stats(&self) -> WorkerStats {
        let mut state = self.state.lock();
        state.advance();
        let info = &state.info;
        let remote = RemoteStats {
            handlers: info.handlers.clone(),
            slots: info.slots,
            running: state.running.len(),
            labels: info.labels.clone(),
            version: info.version.clone(),
            is_connected: self.link.is_connected(),
        };
        WorkerStats {
            name: self.id.to_string(),
            alive: remote.is_connected && !state.is_leaving,
            busy: !state.running.is_empty(),
            current: state.running.values().next().cloned(),
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
