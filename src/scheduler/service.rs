//! The loop around the core: drains its inbox, lets the core decide, makes the events durable in one
//! write, and only then lets effects out.
//!
//! One commit is under way at a time; what is decided meanwhile waits for the next. So the more
//! there is to do, the more of it shares a sync (group commit).

use std::io;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime;
use tokio_util::sync::CancellationToken;

use crate::model::{
    CancelMode, CancelRequest, Catalog, Change, Clock, Durability, PoolName, PoolSpec, TaskId, Timestamp,
};
use crate::pool::{Attempt, Pool, Report, ReportSink, Surroundings, Ticket};
use crate::runners::{Registry, StopCause};
use crate::store::{Commit, KeptPool, PoolBounds, Recovery, Store, StoreError};
use crate::telemetry::Telemetry;
use crate::telemetry::vitals::Phase;

use super::core::{self, Core, Dispatch, Finished, Output, PoolUpdate, PoolView};
use super::handle::{Cancel, Handle, Interned, PoolMetrics, RetentionView, Shared};
use super::hub::Hub;
use super::keeper;
use super::observer::Observer;
use super::refusal::{Internal, Refusal, StoreUnavailable};
use super::requests::{Answer, Input, Reply, Request};

/// Inputs handled before effects are looked at.
const DRAIN_MAX: usize = 4_096;
/// How long a start that nobody waits for may stay unwritten, so that short tasks need one commit less.
const LINGER: Duration = Duration::from_millis(1);
/// Events of a commit that is written by the loop itself: to hand it over would take longer than the
/// loop could do anything useful meanwhile. A larger one is written while the next is decided.
const WRITTEN_HERE_MAX: usize = 256;
/// How often the loop looks around when nothing happens.
const IDLE_TICK: Duration = Duration::from_secs(1);
/// Time between attempts to write when the store refuses.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
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

/// Decided and not yet durable.
#[derive(Default)]
struct Pending {
    events: Vec<crate::model::Event>,
    dispatches: Vec<(u16, Vec<Arc<Attempt>>, [bool; 4])>,
    confirms: Vec<Arc<Attempt>>,
    answers: Vec<Answer>,
    /// Somebody waits for it.
    urgent: bool,
    since: Option<Instant>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.dispatches.is_empty() && self.answers.is_empty()
    }
}

/// The scheduler as a running part.
pub struct Service {
    core: Core,
    pools: Vec<Option<Pool>>,
    /// By pool, what the configuration says.
    configured: Vec<PoolBounds>,
    /// Live attempts by the index of their task.
    attempts: Vec<Option<Arc<Attempt>>>,
    shared: Arc<Shared>,
    inbox: mpsc::Receiver<Input>,
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
        let reports = sender.clone();
        // A service that has gone wants no reports.
        let sink: ReportSink = Arc::new(move |report| drop(reports.send(Input::Report(report))));
        let configured = options.core.pools.iter().map(PoolBounds::of).collect();
        restore_pools(&mut options.core.pools, &recovery.pools);
        let retention = RetentionView { count: options.core.retention_count as u64, age: options.core.retention_age };
        let specs = options.core.pools.clone();
        let (core, pending) = recover(options.core, recovery, clock.now());
        let durable = crate::model::Revision(core.revision().0 - pending.events.len() as u64);
        let draining = CancellationToken::new();
        let hub = Arc::new(Hub::new(
            store.journal.clone(),
            durable,
            draining.clone(),
            options.telemetry.gauges.watches.clone(),
        ));
        let trouble = store.projection.trouble();
        options.telemetry.vitals.ask_projection(move || trouble.borrow().is_some());
        let observer = Observer::new(options.telemetry.clone(), options.catalog.clone());
        let shared = Arc::new(Shared {
            inbox: sender,
            catalog: options.catalog,
            clock: clock.clone(),
            hub,
            store,
            retention,
            draining,
            drain_limit: options.drain_limit,
            options: parking_lot::Mutex::new(Interned::default()),
        });
        let payloads = Handle { shared: shared.clone() };
        let around = Surroundings {
            registry,
            clock,
            reports: sink,
            payloads: Arc::new(move |id| Box::pin(payload(payloads.clone(), id))),
            runtime: runtime.clone(),
            metrics: options.telemetry.metrics.clone(),
            catalog: shared.catalog.clone(),
        };
        let start = |spec| Pool::start(spec, around.clone()).map(Some);
        let pools = specs.iter().map(start).collect::<io::Result<_>>()?;
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
            telemetry: options.telemetry,
            observer,
        })
    }

    /// What callers hold.
    pub fn handle(&self) -> Handle {
        Handle { shared: self.shared.clone() }
    }

    /// Serves until a drain is over: every attempt has ended, every event is durable. Blocks: for a
    /// thread of its own, so that a busy runtime cannot hold it up.
    pub fn run(mut self, runtime: &runtime::Handle) {
        let stop_keeper = CancellationToken::new();
        let (store, hub) = (self.shared.store.clone(), self.shared.hub.clone());
        let keeper = runtime.spawn(keeper::run(store, hub, self.watch_window, stop_keeper.clone()));
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
        self.observer.rest();
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
        self.observer.beat(self.fault.is_some());
        let tables = &*self.shared.store.projection;
        self.observer.look(now, &mut self.core, &self.pools, &self.shared.hub, tables);
    }

    /// What comes next; `None` when time itself is the input.
    fn next_input(&self) -> Option<Input> {
        let wait = self.wake_at().saturating_duration_since(Instant::now());
        if wait.is_zero() { self.inbox.try_recv().ok() } else { self.inbox.recv_timeout(wait).ok() }
    }

    fn drain_inbox(&mut self, now: Timestamp, first: Option<Input>, out: &mut Output) {
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

    fn take(&mut self, now: Timestamp, input: Input, out: &mut Output) {
        match input {
            Input::Report(report) => self.report(report, out),
            Input::Committed(result) => self.committed(result),
            Input::Request(request) => self.serve(now, request, out),
        }
    }

    fn report(&mut self, report: Report, out: &mut Output) {
        match report {
            Report::Started { ticket, worker, at } => self.core.started(ticket, at, worker, out),
            Report::Finished { ticket, at, ended, cause, bill, output } => {
                self.core.finished(Finished { ticket, at, ended, cause, bill, output }, out);
                if let Some(place) = self.attempts.get_mut(ticket.slot as usize)
                    && let Some(attempt) = place.take_if(|attempt| attempt.ticket() == ticket)
                {
                    attempt.settle(out.events.last().filter(|event| event.task == attempt.spec().id));
                }
            }
        }
    }

    fn serve(&mut self, now: Timestamp, request: Request, out: &mut Output) {
        match request {
            Request::Submit { specs, reply } => self.submit(now, specs, reply, out),
            Request::SubmitEach { specs, reply } => {
                if let Some(refusal) = self.store_refusal() {
                    return drop(reply.send(Err(refusal)));
                }
                let answers = specs.into_iter().map(|spec| self.core.submit(now, vec![spec], out)).collect();
                self.pending.answers.push(Answer::SubmittedEach(reply, answers));
            }
            Request::Cancel { cancel, reply } => self.cancel(now, cancel, reply, out),
            Request::Delete { filter, reply } => {
                if let Some(refusal) = self.store_refusal() {
                    return drop(reply.send(Err(refusal)));
                }
                let deleted = self.core.delete_matching(now, &filter, out);
                self.pending.answers.push(Answer::Deleted(reply, (deleted, self.core.revision())));
            }
            Request::Pools { reply } => {
                drop(reply.send(Ok((self.core.pool_views(), self.shared.hub.revision()))));
            }
            Request::UpdatePool { update, reply } => {
                let updated = self.update_pool(&update);
                drop(reply.send(updated.map(|view| (view, self.shared.hub.revision()))));
            }
            Request::ReadPools { pools, workers, reply } => {
                let read = self.read_pools(now, pools, workers);
                drop(reply.send(read.map(|metrics| (metrics, self.shared.hub.revision()))));
            }
            Request::ResetCounters { pool, reply } => drop(reply.send(self.reset_counters(now, &pool))),
            Request::LiveAttempt { task, reply } => drop(reply.send(Ok(self.live_attempt(&task)))),
            Request::Running { reply } => drop(reply.send(Ok(self.core.running()))),
            Request::StoreFault { reply } => {
                drop(reply.send(Ok(self.fault.as_ref().map(|(error, _)| error.to_string()))));
            }
            Request::Drain { limit } => self.drain(limit),
        }
    }

    fn submit(
        &mut self,
        now: Timestamp,
        specs: Vec<crate::model::TaskSpec>,
        reply: Reply<core::Submitted>,
        out: &mut Output,
    ) {
        if let Some(refusal) = self.store_refusal() {
            return drop(reply.send(Err(refusal)));
        }
        match self.core.submit(now, specs, out) {
            Ok(submitted) => self.pending.answers.push(Answer::Submitted(reply, submitted)),
            Err(refusal) => drop(reply.send(Err(refusal))),
        }
    }

    fn cancel(
        &mut self,
        now: Timestamp,
        cancel: Cancel,
        reply: Reply<(crate::model::TaskState, crate::model::Revision)>,
        out: &mut Output,
    ) {
        if let Some(refusal) = self.store_refusal() {
            return drop(reply.send(Err(refusal)));
        }
        let attempt = self.live_attempt(&cancel.id);
        let recalled = attempt.as_ref().is_some_and(|attempt| attempt.recall());
        let registered = attempt.as_ref().and_then(|a| self.shared.catalog.handlers.get(&a.spec().options.handler));
        let grace = cancel.grace.or_else(|| registered.map(|handler| handler.grace)).unwrap_or(INTERRUPT_GRACE);
        let request = CancelRequest {
            requested_at: now,
            reason: cancel.reason,
            requested_by: cancel.by,
            mode: cancel.mode,
            grace: if cancel.mode == CancelMode::Force { Duration::ZERO } else { grace },
        };
        match self.core.cancel(&cancel.id, request, recalled, out) {
            Ok(state) => {
                let answer = (state, self.core.revision());
                self.pending.answers.push(Answer::Cancelled(reply, answer));
            }
            Err(refusal) => drop(reply.send(Err(refusal))),
        }
    }

    fn update_pool(&mut self, update: &PoolUpdate) -> Result<PoolView, Refusal> {
        if let Some(refusal) = self.store_refusal() {
            return Err(refusal);
        }
        let before = self.core.pool_views().into_iter().find(|view| view.spec.name == update.name);
        let (index, view) = self.core.update_pool(update)?;
        let changed = self.resize(index, view.spec.size).and_then(|()| self.keep_pool(index, &view.spec));
        if let (Err(_), Some(PoolView { spec, .. })) = (&changed, before) {
            let back = PoolUpdate {
                name: spec.name,
                size: Some(spec.size),
                paused: Some(spec.paused),
                queue_limit: Some(spec.queue_limit),
                etag: None,
            };
            self.core.update_pool(&back)?;
            self.resize(index, spec.size)?;
        }
        changed?;
        if let Some(pool) = self.pools.get(usize::from(index)).and_then(Option::as_ref) {
            pool.set_paused(view.spec.paused);
        }
        Ok(view)
    }

    fn resize(&self, index: u16, size: usize) -> Result<(), Refusal> {
        let Some(pool) = self.pools.get(usize::from(index)).and_then(Option::as_ref) else { return Ok(()) };
        pool.resize(size).map_err(|error| Internal { cause: error.to_string() }.into())
    }

    /// Waits for the disk: operators do this, and seldom.
    fn keep_pool(&self, index: u16, spec: &PoolSpec) -> Result<(), Refusal> {
        let Some(configured) = self.configured.get(usize::from(index)).copied() else { return Ok(()) };
        let kept = KeptPool { name: spec.name.clone(), configured, set: PoolBounds::of(spec) };
        let written = self.shared.store.journal.keep_pool(&kept);
        written.map_err(|error| StoreUnavailable { cause: error.to_string() }.into())
    }

    fn read_pools(&mut self, now: Timestamp, pools: Vec<PoolName>, workers: bool) -> Result<Vec<PoolMetrics>, Refusal> {
        let names = if pools.is_empty() {
            self.core.pool_views().into_iter().map(|view| view.spec.name).collect()
        } else {
            pools
        };
        let mut metrics = Vec::new();
        for name in names {
            let (index, reading) = self.core.read_pool(now, &name)?;
            let Some(pool) = self.pools.get(usize::from(index)).and_then(Option::as_ref) else { continue };
            let stats = pool.stats();
            let rows = if workers { pool.workers() } else { Vec::new() };
            metrics.push(PoolMetrics::new(now, reading, &stats, rows));
        }
        Ok(metrics)
    }

    fn reset_counters(&mut self, now: Timestamp, pool: &PoolName) -> Result<crate::model::Revision, Refusal> {
        let index = self.core.reset_counters(now, pool)?;
        if let Some(pool) = self.pools.get(usize::from(index)).and_then(Option::as_ref) {
            pool.reset_counters();
        }
        Ok(self.shared.hub.revision())
    }

    fn live_attempt(&self, task: &TaskId) -> Option<Arc<Attempt>> {
        self.attempt(self.core.ticket(task)?)
    }

    fn attempt(&self, ticket: Ticket) -> Option<Arc<Attempt>> {
        let attempt = self.attempts.get(ticket.slot as usize)?.as_ref()?;
        (attempt.ticket() == ticket).then(|| attempt.clone())
    }

    fn store_refusal(&self) -> Option<Refusal> {
        let (error, _) = self.fault.as_ref()?;
        Some(StoreUnavailable { cause: error.to_string() }.into())
    }

    fn drain(&mut self, limit: Duration) {
        let hurry_at = Instant::now() + limit;
        self.hurry_at = Some(self.hurry_at.map_or(hurry_at, |earlier| earlier.min(hurry_at)));
        self.core.drain();
        for pool in self.pools.iter().flatten() {
            pool.set_paused(true);
        }
        self.telemetry.vitals.enter(Phase::Draining);
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

    /// Moves what the core decided to where it waits to be durable; tells stops at once, since they
    /// only end work.
    fn absorb(&mut self, now: Timestamp, out: &mut Output) {
        for ticket in std::mem::take(&mut out.recalls) {
            if self.attempt(ticket).is_some_and(|attempt| attempt.recall()) {
                self.core.recalled_expired(now, ticket, out);
            }
        }
        for (ticket, cause, grace) in out.stops.drain(..) {
            if let Some(attempt) = self.attempts.get(ticket.slot as usize).and_then(Option::as_ref)
                && attempt.ticket() == ticket
            {
                attempt.stop(cause, grace);
            }
        }
        for ticket in out.confirms.drain(..) {
            let attempt = self.attempts.get(ticket.slot as usize).and_then(Option::as_ref);
            self.pending.confirms.extend(attempt.filter(|attempt| attempt.ticket() == ticket).cloned());
        }
        for Dispatch { pool, assignments, held_back } in out.dispatches.drain(..) {
            let mut attempts = Vec::with_capacity(assignments.len());
            for assignment in assignments {
                let slot = assignment.ticket.slot as usize;
                let attempt = Attempt::new(assignment);
                if self.attempts.len() <= slot {
                    self.attempts.resize(slot + 1, None);
                }
                self.attempts[slot] = Some(attempt.clone());
                attempts.push(attempt);
            }
            self.pending.dispatches.push((pool, attempts, held_back));
        }
        self.pending.urgent |= out.events.iter().any(|event| !matches!(event.change, Change::Started { .. }));
        self.pending.events.append(&mut out.events);
    }

    fn commit(&mut self) {
        if self.in_flight.is_some() || self.pending.is_empty() {
            return;
        }
        if let Some((_, retry_at)) = &self.fault
            && Instant::now() < *retry_at
        {
            return;
        }
        if self.pending.events.is_empty() {
            let pending = std::mem::take(&mut self.pending);
            return self.release(pending);
        }
        let urgent = self.pending.urgent || !self.pending.confirms.is_empty() || !self.pending.answers.is_empty();
        let since = *self.pending.since.get_or_insert_with(Instant::now);
        if !urgent && since.elapsed() < LINGER {
            return;
        }
        let mut pending = std::mem::take(&mut self.pending);
        let events = std::mem::take(&mut pending.events);
        let sync = events.iter().any(|event| event.options.durability == Durability::Fsync);
        let commit = Arc::new(Commit { events, sync });
        self.observer.commit_begins();
        self.in_flight = Some((commit.clone(), pending));
        if commit.events.len() <= WRITTEN_HERE_MAX {
            let result = self.shared.store.journal.append_now(commit);
            return self.committed(result);
        }
        let inbox = self.shared.inbox.clone();
        // A service that has gone wants no answer.
        let done = Box::new(move |result| drop(inbox.send(Input::Committed(result))));
        self.shared.store.journal.append(commit, done);
    }

    fn committed(&mut self, result: Result<(), StoreError>) {
        let Some((commit, pending)) = self.in_flight.take() else { return };
        match result {
            Ok(()) => {
                if self.fault.take().is_some() {
                    tracing::info!("the store accepts writes again");
                }
                self.observer.durable(&commit.events);
                self.shared.store.projection.feed(commit.clone());
                self.shared.hub.publish(&commit);
                self.release(pending);
            }
            Err(error) => self.keep(commit, pending, error),
        }
    }

    /// The store refuses: whoever waits is told, what was decided stays decided and is tried again.
    fn keep(&mut self, commit: Arc<Commit>, pending: Pending, error: StoreError) {
        if self.fault.is_none() {
            tracing::error!(%error, "the store refuses writes; nothing is accepted until it does again");
        }
        self.observer.refused();
        let refusal = Refusal::from(StoreUnavailable { cause: error.to_string() });
        let newer = std::mem::take(&mut self.pending);
        for answer in pending.answers.into_iter().chain(newer.answers) {
            answer.refuse(refusal.clone());
        }
        let mut events = Arc::try_unwrap(commit).map_or_else(|shared| shared.events.clone(), |commit| commit.events);
        events.extend(newer.events);
        self.pending = Pending {
            events,
            dispatches: pending.dispatches.into_iter().chain(newer.dispatches).collect(),
            confirms: pending.confirms.into_iter().chain(newer.confirms).collect(),
            answers: Vec::new(),
            urgent: true,
            since: pending.since,
        };
        self.fault = Some((error, Instant::now() + RETRY_INTERVAL));
    }

    /// Its events are durable: let the effects out. Attempts first, so that nobody who was answered
    /// can see a lower priority start.
    fn release(&mut self, pending: Pending) {
        for attempt in pending.confirms {
            attempt.confirm();
        }
        for (index, attempts, held_back) in pending.dispatches {
            if let Some(pool) = self.pools.get(usize::from(index)).and_then(Option::as_ref) {
                pool.push(attempts, held_back);
            }
        }
        for answer in pending.answers {
            answer.send();
        }
    }
}

/// The payload of a task whose attempt does not carry it.
async fn payload(handle: Handle, id: TaskId) -> Result<Bytes, String> {
    handle.get(&id).await.map(|found| found.task.spec.payload.clone()).map_err(|refusal| refusal.to_string())
}

/// Pools come up as they were changed, except where the configuration has changed since.
fn restore_pools(configured: &mut [PoolSpec], kept: &[KeptPool]) {
    for kept in kept {
        let Some(spec) = configured.iter_mut().find(|spec| spec.name == kept.name) else { continue };
        let overruled = kept.apply(spec);
        let bounds = PoolBounds::of(spec);
        if !overruled.is_empty() {
            let settings = overruled.join(", ");
            tracing::warn!(pool = %kept.name, settings, "the configuration has changed and overrules what was set");
        }
        tracing::info!(pool = %kept.name, ?bounds, "changed while the server ran");
    }
}

fn recover(options: core::Options, recovery: Recovery, now: Timestamp) -> (Core, Pending) {
    let mut core = Core::new(options);
    for task in &recovery.tasks {
        core.restore(task, recovery.revision);
    }
    for event in &recovery.events {
        core.replay(event);
    }
    core.reset_all_counters(now);
    let mut out = Output::default();
    core.recover(now, &mut out);
    (core, Pending { events: out.events, urgent: true, ..Pending::default() })
}
