//! Pools that follow their load and the memory, with a clock and a use of the machine that the test sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::model::{
    Autoscale, Catalog, Clock, HandlerName, Payload, PoolName, PoolSpec, TaskId, TaskOptions, TaskSpec, Timestamp,
};
use crate::runners::{BoxFuture, Outcome, Registry, Run, RunReport, Runner, Runners};
use crate::scheduler::core::PoolUpdate;
use crate::scheduler::handle::Handle;
use crate::scheduler::views::{Configuration, PoolMetrics, Resources};
use crate::store;

use super::{Options, Recovery, Service};

struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(SeqCst))
    }
}

/// Completes once the test has added a permit.
struct Gated(Arc<Semaphore>);

impl Runner for Gated {
    fn run(&self, _: Run) -> BoxFuture<RunReport> {
        let gate = self.0.clone();
        Box::pin(async move {
            gate.acquire().await.expect("the semaphore is open").forget();
            Outcome::Completed(Payload::default()).into()
        })
    }
}

fn name() -> PoolName {
    PoolName::parse("default").unwrap()
}

fn runners(gate: &Arc<Semaphore>) -> Runners {
    let mut runners = Runners::new();
    runners.insert(HandlerName::parse("work").unwrap(), Arc::new(Gated(gate.clone())));
    runners
}

fn pool(min: usize, max: usize) -> PoolSpec {
    PoolSpec { size: min, autoscale: Some(Autoscale { min, max }), ..PoolSpec::with_defaults(name(), 1) }
}

struct Fixture {
    handle: Handle,
    clock: Arc<TestClock>,
    gate: Arc<Semaphore>,
    thread: JoinHandle<()>,
}

impl Fixture {
    fn start(pool: PoolSpec) -> Self {
        let options = Options::sample(vec![pool]);
        let mut recovery = Recovery::new(options.core.clone());
        let (store, _) = store::open(&store::Options::default(), &mut recovery).unwrap();
        let (gate, clock) = (Arc::new(Semaphore::new(0)), Arc::new(TestClock(AtomicU64::new(1_000_000_000))));
        let runtime = tokio::runtime::Handle::current();
        let registry = Arc::new(Registry::from(runners(&gate)));
        let service = Service::start(options, store, recovery, registry, clock.clone(), &runtime).unwrap();
        let handle = service.handle();
        let thread = std::thread::Builder::new().name("scheduler".to_owned());
        Self { handle, clock, gate, thread: thread.spawn(move || service.run(&runtime)).unwrap() }
    }

    async fn submit(&self, count: usize) {
        for n in 0..count {
            self.submit_named(&format!("t{n}")).await;
        }
    }

    async fn submit_named(&self, id: &str) {
        let options = Arc::new(TaskOptions { pool: name(), ..TaskOptions::sample() });
        let id = TaskId::parse(id).unwrap();
        self.handle.submit(vec![TaskSpec { id, options, payload: Box::default(), extras: None }]).await.unwrap();
    }

    async fn reconfigure(&self, min: usize, max: usize) {
        let by_name = [(name(), pool(min, max))].into();
        let catalog = Arc::new(Catalog { pools: by_name, ..Catalog::default() });
        let configuration = Configuration { pools: vec![pool(min, max)], catalog, runners: runners(&self.gate) };
        self.handle.reconfigure(configuration).await.unwrap();
    }

    /// The size after this time, and after a look at the load.
    async fn size_after(&self, time: Duration, cpu: f64) -> usize {
        let now = self.clock.now().after(time);
        self.clock.0.store(now.0, SeqCst);
        self.handle.report_resources(Resources { cpu, memory_low: false });
        let size = self.metrics().await.snapshot.spec.size;
        assert_eq!(self.handle.pools().await.unwrap().0[0].spec.size, size);
        size
    }

    async fn metrics(&self) -> PoolMetrics {
        self.handle.pool_metrics_of(name(), false).await.unwrap().0
    }

    async fn wait_for(&self, condition: impl Fn(&PoolMetrics) -> bool) {
        while !condition(&self.metrics().await) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn pause(&self, paused: bool) {
        let update = PoolUpdate { name: name(), size: None, paused: Some(paused), queue_limit: None, etag: None };
        self.handle.update_pool(update).await.unwrap();
    }

    async fn stop(self) {
        self.gate.add_permits(1_000);
        self.handle.drain(Some(Duration::from_secs(60)));
        tokio::task::spawn_blocking(move || self.thread.join().unwrap()).await.unwrap();
    }
}

const STEP: Duration = Duration::from_millis(250);

#[tokio::test]
async fn a_pool_grows_while_tasks_wait_and_the_cpu_has_room_and_shrinks_when_it_needs_fewer_workers() {
    let fixture = Fixture::start(pool(1, 4));
    assert!(fixture.handle.autoscales());
    fixture.submit(6).await;
    // The pool is also given two attempts ahead for each worker, if there are so many.
    let all_run = |now: &PoolMetrics, size: usize| {
        let assigned: usize = now.stats.assigned.iter().sum();
        now.snapshot.running == size as u64 && now.stats.busy == size && assigned == (2 * size).min(6 - size)
    };
    fixture.wait_for(|now| all_run(now, 1)).await;
    assert_eq!(fixture.size_after(STEP, 0.95).await, 1, "the CPU has no room");
    for size in [2, 4, 4] {
        assert_eq!(fixture.size_after(STEP, 0.1).await, size);
        fixture.wait_for(|now| all_run(now, size)).await;
    }
    fixture.gate.add_permits(5);
    fixture.wait_for(|now| now.snapshot.counters.completed == 5).await;
    assert_eq!(fixture.size_after(STEP, 0.0).await, 4);
    // One task runs. A slot may be returned later than the end of its task is reported.
    while fixture.size_after(Duration::from_secs(30), 0.0).await > 1 {}
    assert_eq!(fixture.metrics().await.stats.busy, 1, "a worker that leaves ends its task");
    fixture.gate.add_permits(1);
    fixture.wait_for(|now| now.snapshot.counters.completed == 6 && now.stats.alive == 1).await;
    fixture.stop().await;
}

#[tokio::test]
async fn a_paused_pool_does_not_grow_and_a_new_configuration_changes_its_bounds_at_once() {
    let fixture = Fixture::start(pool(1, 4));
    fixture.submit(9).await;
    fixture.wait_for(|now| now.snapshot.running == 1).await;
    fixture.pause(true).await;
    assert_eq!(fixture.size_after(STEP, 0.0).await, 1);
    fixture.pause(false).await;
    assert_eq!(fixture.size_after(STEP, 0.0).await, 2);
    for (min, max, expected) in [(3, 5, 3), (1, 2, 2), (7, 7, 7)] {
        fixture.reconfigure(min, max).await;
        let size = fixture.metrics().await.snapshot.spec.size;
        assert_eq!(size, expected, "{min} to {max}");
        assert_eq!(fixture.handle.pools().await.unwrap().0[0].spec.size, size);
    }
    fixture.wait_for(|now| now.snapshot.running == 7).await;
    fixture.stop().await;
}

#[tokio::test]
async fn nothing_starts_while_memory_is_low_also_after_a_reload_and_a_pool_that_is_resumed() {
    let fixture = Fixture::start(pool(2, 2));
    let report = |memory_low| fixture.handle.report_resources(Resources { cpu: 0.0, memory_low });
    fixture.submit(1).await;
    fixture.wait_for(|now| now.snapshot.running == 1).await;
    report(true);
    fixture.submit_named("later").await;
    fixture.gate.add_permits(9);
    fixture.wait_for(|now| now.snapshot.counters.completed == 1).await;
    fixture.pause(true).await;
    fixture.pause(false).await;
    fixture.reconfigure(2, 2).await;
    let now = fixture.metrics().await;
    assert_eq!((now.snapshot.queued, now.snapshot.counters.attempts, now.snapshot.spec.paused), (1, 1, false));
    report(false);
    fixture.wait_for(|now| now.snapshot.counters.completed == 2).await;
    report(true);
    fixture.stop().await;
}
