//! The loop around the core: drains its inbox, lets the core decide, makes the events durable in one
//! write, and only then lets effects out.
//!
//! One commit is under way at a time; what is decided meanwhile waits for the next. So the more
//! there is to do, the more of it shares a sync (group commit). `serve` is what callers ask, `commit` the
//! way of what was decided.

mod commit;
mod serve;

use std::io;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime;
use tokio_util::sync::CancellationToken;

use crate::model::{Catalog, Clock, PoolSpec, Revision, TaskId, Timestamp};
use crate::pool::{Attempt, Pool, Report, WorkerContext};
use crate::runners::{Registry, StopCause};
use crate::store::{Commit, PoolOverride, PoolSettings, Recovery, Store, StoreError};
use crate::telemetry::Telemetry;
use crate::telemetry::liveness::Phase;

use commit::Pending;

use super::core::{self, Core, Finished, Output, RecoveryCounts};
use super::handle::{Handle, Interned, Shared};
use super::hub::Hub;
use super::journal_trim;
use super::message::Message;
use super::observer::Observer;
use super::views::Retention;

/// Inputs handled before effects are looked at.
const DRAIN_MAX: usize = 4_096;
/// How long a start that nobody waits for may stay unwritten, so that short tasks need one commit less.
const LINGER: Duration = Duration::from_millis(1);
/// How often the loop looks around when nothing happens.
const IDLE_TICK: Duration = Duration::from_secs(1);
/// Finished tasks forgotten at a time.
const SWEEP_STEPS: usize = 256;
/// How long an interrupted attempt may take to end before it is forced.
const INTERRUPT_GRACE: Duration = Duration::from_secs(5);

/// What the service is told once.
#[derive(Clone)]
pub struct Options {
    /// Bounds and pools of the core.
    pub core: core::Options,
    /// What submissions are resolved against.
    pub catalog: Arc<Catalog>,
    /// Time that running tasks get at shutdown.
    pub drain_limit: Duration,
    /// Events that the journal keeps for watchers.
    pub watch_window: u64,
    /// Where it tells about itself.
    pub telemetry: Telemetry,
}

/// The scheduler as a running part.
pub struct Service {
    core: Core,
    pools: Vec<Option<Pool>>,
    /// By pool, what the configuration says.
    configured: Vec<PoolSettings>,
    /// Live attempts by the index of their task.
    attempts: Vec<Option<Arc<Attempt>>>,
    shared: Arc<Shared>,
    inbox: mpsc::Receiver<Message>,
    pending: Pending,
    in_flight: Option<(Arc<Commit>, Pending)>,
    fault: Option<(StoreError, Instant)>,
    hurry_at: Option<Instant>,
    hurried: bool,
    watch_window: u64,
    telemetry: Telemetry,
    observer: Observer,
}

impl Service {
    /// Recovers what the store holds and starts the pools; nothing runs before [`Service::run`].
    ///
    /// # Errors
    /// When a pool's threads cannot be started.
    pub fn start(
        mut options: Options,
        store: Store,
        recovery: Recovery,
        registry: Arc<Registry>,
        clock: Arc<dyn Clock>,
        runtime: &runtime::Handle,
    ) -> io::Result<Self> {
        let (sender, inbox) = mpsc::channel();
        let configured = options.core.pools.iter().map(PoolSettings::of).collect();
        restore_pools(&mut options.core.pools, &recovery.pools);
        let (core, pending) = recover(options.core.clone(), recovery, clock.now());
        let durable = Revision(core.revision().0 - pending.events.len() as u64);
        let shared = Arc::new(share(&options, sender, store, clock, durable));
        let fault = shared.store.projection.fault();
        options.telemetry.liveness.set_projection_fault_check(move || fault.borrow().is_some());
        let context = worker_context(&shared, registry, &options.telemetry, runtime);
        let start = |spec| Pool::start(spec, context.clone()).map(Some);
        let pools = options.core.pools.iter().map(start).collect::<io::Result<_>>()?;
        Ok(Self {
            core,
            pools,
            configured,
            attempts: Vec::new(),
            shared,
            inbox,
            pending,
            in_flight: None,
            fault: None,
            hurry_at: None,
            hurried: false,
            watch_window: options.watch_window,
            observer: Observer::new(options.telemetry.clone(), options.catalog),
            telemetry: options.telemetry,
        })
    }

    /// What callers hold.
    pub fn handle(&self) -> Handle {
        Handle { shared: self.shared.clone() }
    }

    /// What it begins with: all that was recovered.
    pub fn recovery_counts(&self) -> RecoveryCounts {
        self.core.recovery_counts()
    }

    /// Serves until a drain is over: every attempt has ended, every event is durable. Blocks: for a
    /// thread of its own, so that a busy runtime cannot hold it up.
    pub fn run(mut self, runtime: &runtime::Handle) {
        let stop_keeper = CancellationToken::new();
        let (store, hub) = (self.shared.store.clone(), self.shared.hub.clone());
        let keeper = runtime.spawn(journal_trim::run(store, hub, self.watch_window, stop_keeper.clone()));
        let mut out = Output::default();
        self.show(self.shared.clock.now());
        while !self.is_done() {
            let first = self.next_input();
            let now = self.shared.clock.now();
            self.core.advance(now, &mut out);
            self.drain_inbox(now, first, &mut out);
            self.core.sweep(now, SWEEP_STEPS.max(2 * out.events.len()), &mut out);
            self.core.dispatch(&mut out);
            self.absorb(now, &mut out);
            self.hurry();
            self.commit();
            self.show(now);
        }
        self.observer.stop_heartbeat();
        stop_keeper.cancel();
        runtime.block_on(async {
            // It only sleeps or trims; either way it ends soon.
            let _ = keeper.await;
            for pool in self.pools.iter().flatten() {
                pool.stop().await;
            }
        });
    }

    /// Tells that the loop gets on, and how the pools stand.
    fn show(&mut self, now: Timestamp) {
        self.observer.heartbeat(self.fault.is_some());
        let tables = &*self.shared.store.projection;
        self.observer.look(now, &mut self.core, &self.pools, &self.shared.hub, tables);
    }

    /// What comes next; `None` when time itself is the input.
    fn next_input(&self) -> Option<Message> {
        let wait = self.wake_at().saturating_duration_since(Instant::now());
        if wait.is_zero() { self.inbox.try_recv().ok() } else { self.inbox.recv_timeout(wait).ok() }
    }

    fn drain_inbox(&mut self, now: Timestamp, first: Option<Message>, out: &mut Output) {
        let (mut next, mut taken) = (first, 0);
        while let Some(input) = next {
            self.take(now, input, out);
            self.absorb(now, out);
            taken += 1;
            next = if taken < DRAIN_MAX { self.inbox.try_recv().ok() } else { None };
        }
        self.absorb(now, out);
    }

    fn is_done(&self) -> bool {
        self.shared.draining.is_cancelled()
            && self.core.running() == 0
            && self.in_flight.is_none()
            && (self.pending.is_empty() || self.fault.is_some())
    }

    fn wake_at(&self) -> Instant {
        let now = Instant::now();
        let mut wake = now + IDLE_TICK;
        if let Some(due) = self.core.next_due() {
            wake = wake.min(now + due.since(self.shared.clock.now()) + Duration::from_micros(1));
        }
        if self.fault.is_none() && self.in_flight.is_none() && !self.pending.is_empty() {
            wake = wake.min(self.pending.since.map_or(now, |since| since + LINGER));
        }
        if let Some((_, retry_at)) = self.fault {
            wake = wake.min(retry_at.max(now));
        }
        match self.hurry_at.filter(|_| !self.hurried) {
            Some(hurry_at) => wake.min(hurry_at),
            None => wake,
        }
    }

    fn take(&mut self, now: Timestamp, input: Message, out: &mut Output) {
        match input {
            Message::Report(report) => self.report(report, out),
            Message::Committed(result) => self.committed(result),
            Message::Request(request) => self.serve(now, request, out),
        }
    }

    fn report(&mut self, report: Report, out: &mut Output) {
        match report {
            Report::Started { ticket, worker, at } => self.core.started(ticket, at, worker, out),
            Report::Finished { ticket, at, outcome, cause, usage, output } => {
                self.core.finished(Finished { ticket, at, outcome, cause, usage, output }, out);
                if let Some(place) = self.attempts.get_mut(ticket.index as usize)
                    && let Some(attempt) = place.take_if(|attempt| attempt.ticket() == ticket)
                {
                    attempt.record_end(out.events.last().filter(|event| event.task == attempt.spec().id));
                }
            }
        }
    }

    fn drain(&mut self, limit: Duration) {
        let hurry_at = Instant::now() + limit;
        self.hurry_at = Some(self.hurry_at.map_or(hurry_at, |earlier| earlier.min(hurry_at)));
        self.core.drain();
        for pool in self.pools.iter().flatten() {
            pool.set_paused(true);
        }
        self.telemetry.liveness.enter(Phase::Draining);
        self.shared.draining.cancel();
    }

    /// The drain's limit is over: interrupt what still runs.
    fn hurry(&mut self) {
        if self.hurried || self.hurry_at.is_none_or(|at| Instant::now() < at) {
            return;
        }
        self.hurried = true;
        for ticket in self.core.running_tickets() {
            if let Some(attempt) = self.attempt(ticket) {
                attempt.stop(StopCause::Drain, INTERRUPT_GRACE);
            }
        }
    }
}

/// What all handles share.
fn share(
    options: &Options,
    inbox: mpsc::Sender<Message>,
    store: Store,
    clock: Arc<dyn Clock>,
    durable: Revision,
) -> Shared {
    let draining = CancellationToken::new();
    let (journal, meter) = (store.journal.clone(), options.telemetry.gauges.watches.clone());
    Shared {
        inbox,
        catalog: options.catalog.clone(),
        clock,
        hub: Arc::new(Hub::new(journal, durable, draining.clone(), meter)),
        liveness: options.telemetry.liveness.clone(),
        store,
        retention: Retention { count: options.core.retention_count as u64, age: options.core.retention_age },
        draining,
        drain_limit: options.drain_limit,
        options: parking_lot::Mutex::new(Interned::default()),
    }
}

/// What the pools lean on.
fn worker_context(
    shared: &Arc<Shared>,
    registry: Arc<Registry>,
    telemetry: &Telemetry,
    runtime: &runtime::Handle,
) -> WorkerContext {
    let reports = shared.inbox.clone();
    let payloads = Handle { shared: shared.clone() };
    WorkerContext {
        registry,
        clock: shared.clock.clone(),
        // A service that has gone wants no reports.
        reports: Arc::new(move |report| drop(reports.send(Message::Report(report)))),
        payloads: Arc::new(move |id| Box::pin(payload(payloads.clone(), id))),
        runtime: runtime.clone(),
        metrics: telemetry.metrics.clone(),
        catalog: shared.catalog.clone(),
    }
}

/// The payload of a task whose attempt does not carry it.
async fn payload(handle: Handle, id: TaskId) -> Result<Bytes, String> {
    handle.payload(&id).await.map_err(|refusal| refusal.to_string())
}

/// Pools come up as they were changed, except where the configuration has changed since.
fn restore_pools(configured: &mut [PoolSpec], kept: &[PoolOverride]) {
    for kept in kept {
        let Some(spec) = configured.iter_mut().find(|spec| spec.name == kept.name) else { continue };
        let overruled = kept.apply(spec);
        let bounds = PoolSettings::of(spec);
        if !overruled.is_empty() {
            let settings = overruled.join(", ");
            tracing::warn!(pool = %kept.name, settings, "the configuration has changed and overrules what was set");
        }
        tracing::info!(pool = %kept.name, ?bounds, "changed while the server ran");
    }
}

fn recover(options: core::Options, recovery: Recovery, now: Timestamp) -> (Core, Pending) {
    let mut core = Core::new(options);
    for task in recovery.tasks {
        core.restore(task, recovery.revision);
    }
    for event in &recovery.events {
        core.replay(event);
    }
    core.reset_all_counters(now);
    let mut out = Output::default();
    core.recover(now, &mut out);
    commit::tell(&mut out);
    (core, Pending { events: out.events, urgent: true, ..Pending::default() })
}
