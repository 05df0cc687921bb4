//! Building the service: recovery, pools, and what the handles share.

use std::io;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::runtime;
use tokio_util::sync::CancellationToken;

use crate::artifacts::ArtifactStore;
use crate::model::{
    Batch, Clock, Event, HandlerName, LimitId, MemoryAccount, PoolSettings, RecoveredTask, Revision, Schedule,
    SharedCatalog, TaskId, Timestamp, Upload,
};
use crate::pool::{Pool, WorkerContext};
use crate::runners::{Modules, ParentRead, Registry, ResultMemory};
use crate::scheduler::core::{Adoption, Core, CoreOptions, Decisions, PoolView};
use crate::scheduler::handle::{Handle, HandleInner};
use crate::scheduler::hub::Hub;
use crate::scheduler::message::Message;
use crate::scheduler::observer::Observer;
use crate::store::{Recover, Store};
use crate::telemetry::Telemetry;

use super::commit::record_unattempted;
use super::pending::Pending;
use super::state::{Batches, Deletions, Service};
use crate::scheduler::journal_trim::WatchWindow;

#[derive(Clone)]
pub struct Options {
    pub core: CoreOptions,
    /// Time that running tasks have to end during a drain, unless the drain request sets another.
    pub drain_limit: Duration,
    pub watch_window: WatchWindow,
    pub memory: MemoryAccount,
    /// How long a remote worker may be silent or disconnected before its attempts are given to others.
    pub worker_lease: Duration,
    pub modules: Arc<Modules>,
    pub artifacts: ArtifactStore,
    pub telemetry: Telemetry,
}

#[cfg(test)]
impl Options {
    /// Small limits and these pools.
    pub fn sample(pools: Vec<crate::model::PoolSpec>) -> Self {
        use crate::model::Catalog;

        let by_name = pools.iter().map(|pool| (pool.name.clone(), pool.clone())).collect();
        let core = CoreOptions {
            catalog: Arc::new(Catalog { pools: by_name, ..Catalog::default() }),
            pools,
            retention: crate::model::Retention {
                count: 10,
                bytes: 1 << 40,
                age: Duration::from_hours(1),
                requests: crate::model::RequestRetention::default(),
            },
            payload_bytes_max: 1 << 20,
            attached_bytes_max: 1 << 20,
            crashes_max: 3,
        };
        Self {
            core,
            drain_limit: Duration::ZERO,
            watch_window: WatchWindow { events: 1_000, bytes: u64::MAX },
            memory: MemoryAccount::new(|_| 64 << 20),
            worker_lease: Duration::from_secs(30),
            modules: Arc::new(Modules::new(std::path::Path::new(""), false)),
            artifacts: ArtifactStore::new(crate::artifacts::Options::sample(std::path::Path::new(""))),
            telemetry: Telemetry::off(),
        }
    }
}

impl Service {
    /// Decides about the recovered tasks and starts the pools. No task starts before [`Service::run`].
    ///
    /// # Errors
    /// If the threads of a pool cannot be started.
    pub fn start(
        options: Options,
        store: Store,
        recovery: Recovery,
        registry: Arc<Registry>,
        clock: Arc<dyn Clock>,
        runtime: &runtime::Handle,
    ) -> io::Result<Self> {
        let (sender, inbox) = mpsc::channel();
        let (core, Decisions { mut events, adoptions, stops, .. }) =
            recovery.finish(store.journal.epoch(), clock.now());
        let batches = Batches::new(core.unfinished_cancels());
        let durable = Revision(core.revision().0 - events.len() as u64);
        let mut pending = Pending::default();
        let closed = pending.add_each(&mut events).into();
        let catalog = Arc::new(ArcSwap::from_pointee(core.catalog()));
        let shared = Arc::new(handle_inner(&options, catalog.clone(), sender, store, clock, durable));
        options.telemetry.metrics.observe_memory(&options.memory);
        options.telemetry.metrics.observe_artifacts(options.artifacts.counts());
        options.artifacts.belongs_to(shared.store.journal.store_id());
        let fault = shared.store.projection.fault();
        options.telemetry.liveness.set_projection_fault_check(move || fault.borrow().is_some());
        let context = worker_context(&shared, registry, &options, runtime);
        let pool_views = core.views_by_index();
        let start_pool =
            |view: &Option<PoolView>| view.as_ref().map(|view| Pool::start(&view.spec, context.clone())).transpose();
        let mut pools: Vec<Option<Pool>> = pool_views.iter().map(start_pool).collect::<io::Result<_>>()?;
        for Adoption { assignment, worker, started_at } in adoptions {
            if let Some(Some(pool)) = pools.get_mut(usize::from(assignment.ticket.pool)) {
                pool.adopt(assignment, &worker, started_at);
            }
        }
        for (ticket, cause, grace) in stops {
            if let Some(Some(pool)) = pools.get(usize::from(ticket.pool)) {
                pool.stop_attempt(ticket, cause, grace);
            }
        }
        let service = Self {
            core,
            pools,
            pool_views,
            context,
            shared,
            inbox,
            pending,
            closed,
            in_flight: 0,
            fault: None,
            drain: None,
            autoscalers: HashMap::new(),
            deletions: Deletions::default(),
            batches,
            watch_window: options.watch_window,
            observer: Observer::new(options.telemetry.clone(), catalog, options.memory),
            telemetry: options.telemetry,
        };
        service.publish_remote_workers();
        Ok(service)
    }
}

fn handle_inner(
    options: &Options,
    catalog: SharedCatalog,
    inbox: mpsc::Sender<Message>,
    store: Store,
    clock: Arc<dyn Clock>,
    durable: Revision,
) -> HandleInner {
    let draining = CancellationToken::new();
    let (journal, meter) = (store.journal.clone(), options.telemetry.gauges.watches.clone());
    HandleInner {
        inbox,
        catalog,
        clock,
        hub: Arc::new(Hub::new(journal, durable, draining.clone(), meter, options.memory.clone())),
        liveness: options.telemetry.liveness.clone(),
        store,
        retention: options.core.retention,
        draining,
        drain_limit: options.drain_limit,
        options: Mutex::default(),
        memory: options.memory.clone(),
        request_lookup: Arc::default(),
        modules: options.modules.clone(),
        artifacts: options.artifacts.clone(),
        upload_turn: tokio::sync::Mutex::default(),
        remote_workers: Mutex::default(),
    }
}

fn worker_context(
    shared: &Arc<HandleInner>,
    registry: Arc<Registry>,
    options: &Options,
    runtime: &runtime::Handle,
) -> WorkerContext {
    let inbox = shared.inbox.clone();
    let handle = Handle { inner: shared.clone(), sharer: None };
    let of_parents = handle.clone();
    WorkerContext {
        registry,
        clock: shared.clock.clone(),
        // Fails only if the service has ended; then no report is needed.
        reports: Arc::new(move |report| drop(inbox.send(Message::Report(report)))),
        payloads: Arc::new(move |submission| Box::pin(payload(handle.clone(), submission))),
        parents: Arc::new(move |parent, bytes_max| Box::pin(parent_result(of_parents.clone(), parent, bytes_max))),
        results: ResultMemory::new(options.memory.clone()),
        artifacts: options.artifacts.clone(),
        runtime: runtime.clone(),
        metrics: options.telemetry.metrics.clone(),
        worker_lease: options.worker_lease,
        catalog: shared.catalog.clone(),
    }
}

async fn payload(handle: Handle, submission: Revision) -> Result<Bytes, String> {
    handle.payload(submission).await.map_err(|refusal| refusal.to_string())
}

async fn parent_result(handle: Handle, parent: TaskId, bytes_max: usize) -> Result<ParentRead, String> {
    handle.parent_result(&parent, bytes_max).await.map_err(|refusal| refusal.to_string())
}

fn log_changed_pools(core: &Core) {
    for spec in core.changed_pools() {
        let PoolSettings { size, queue_limit, paused } = PoolSettings::of(spec);
        tracing::info!(pool = %spec.name, size, queue_limit, paused, "restored pool settings made at run time");
    }
}

/// Records that the configuration has replaced settings that were changed while a server ran.
pub(super) fn forget_replaced_settings(core: &mut Core, now: Timestamp, out: &mut Decisions) {
    for (pool, replaced) in core.forget_replaced_settings(now, out) {
        let replaced = replaced.join(", ");
        tracing::warn!(%pool, replaced, "the changed configuration replaces pool settings made at run time");
    }
}

/// Rebuilds the core from the content of the store; [`Service::start`] continues with it.
pub struct Recovery {
    options: CoreOptions,
    core: Core,
    /// Whether the previous server crashed.
    crashed: bool,
}

impl Recovery {
    pub fn new(options: CoreOptions) -> Self {
        Self { core: Core::new(options.clone()), options, crashed: false }
    }

    /// Uploaded handlers, also those that the configuration hides.
    pub fn uploads(&self) -> impl Iterator<Item = (&HandlerName, &Arc<Upload>)> {
        self.core.uploads()
    }

    /// Decides about the tasks that were running.
    fn finish(self, epoch: u64, now: Timestamp) -> (Core, Decisions) {
        let Self { mut core, crashed, .. } = self;
        if crashed {
            core.be_careful(now);
        }
        core.reset_all_counters(now);
        let mut out = Decisions::default();
        core.begin_epoch(epoch);
        forget_replaced_settings(&mut core, now, &mut out);
        log_changed_pools(&core);
        core.recover(now, &mut out);
        record_unattempted(&mut out);
        (core, out)
    }
}

impl Recover for Recovery {
    fn begin(&mut self, revision: Revision, subjects: &[Event]) {
        self.core = Core::new(self.options.clone());
        for event in subjects {
            self.core.replay(event);
        }
        self.core.restore_revision(revision);
    }

    fn restore_batch(&mut self, batch: Batch) {
        self.core.restore_batch(batch);
    }

    fn restore_schedule(&mut self, schedule: Schedule) {
        self.core.restore_schedule(schedule);
    }

    fn restore_bucket(&mut self, limit: LimitId, full_at: u64) {
        self.core.restore_bucket(&limit, full_at);
    }

    fn restore(&mut self, task: RecoveredTask, payload: &[u8]) {
        self.core.restore(task, payload);
    }

    fn replay(&mut self, event: &Event) -> bool {
        self.core.replay(event)
    }

    fn crashed(&mut self) {
        self.crashed = true;
    }
}
