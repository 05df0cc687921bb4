//! Pools by behaviour: order, stealing, pausing, resizing, and that nothing is lost or run twice.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime;
use tokio::sync::{Semaphore, mpsc};

use crate::model::{
    FailureReason, HandlerName, HandlerSpec, Payload, PoolKind, PoolName, PoolSpec, Priority, RetryPolicy, SystemClock,
    TaskId, TaskOptions, TaskSpec, Timestamp,
};
use crate::runners::{BoxFuture, Ended, Outcome, Registry, Run, Runner};
use crate::telemetry::metrics::Metrics;

use super::{Assignment, Attempt, Pool, Report, Surroundings, Ticket};

/// Completes when the test lets it; panics for the payload `panic`.
struct Gated {
    gate: Arc<Semaphore>,
    order: Mutex<Vec<String>>,
}

impl Runner for Gated {
    fn run(&self, run: Run) -> BoxFuture<Outcome> {
        self.order.lock().push(run.task.to_string());
        assert!(&run.payload[..] != b"panic", "as it was told");
        let gate = self.gate.clone();
        Box::pin(async move {
            gate.acquire().await.expect("the gate stays").forget();
            Ended::Completed(Payload::default()).into()
        })
    }
}

/// An attempt with that fence.
pub(super) fn attempt(
    fence: u64,
    handler: &str,
    id: &str,
    priority: Priority,
    payload: &'static [u8],
    confirm: bool,
) -> Arc<Attempt> {
    let options = TaskOptions {
        handler: HandlerName::parse(handler).unwrap(),
        priority,
        at_most_once: confirm,
        ..TaskOptions::sample()
    };
    let spec =
        TaskSpec { id: TaskId::parse(id).unwrap(), options: Arc::new(options), payload: payload.into(), extras: None };
    let ticket = Ticket { index: 0, fence };
    Attempt::new(Assignment {
        ticket,
        spec: Arc::new(spec),
        attempt: 1,
        eligible_at: Timestamp::ZERO,
        confirm,
        payload_stored: false,
    })
}

struct World {
    pool: Pool,
    reports: mpsc::UnboundedReceiver<Report>,
    runner: Arc<Gated>,
    made: u64,
}

impl World {
    fn new(size: usize, kind: PoolKind, paused: bool) -> Self {
        let runner = Arc::new(Gated { gate: Arc::new(Semaphore::new(0)), order: Mutex::default() });
        let name = HandlerName::parse("gated").unwrap();
        let spec = HandlerSpec {
            name: name.clone(),
            runner: "builtin",
            description: String::new(),
            payload_description: String::new(),
            pool: PoolName::parse("p").unwrap(),
            allowed_pools: Vec::new(),
            timeout: None,
            retry: RetryPolicy::default(),
            accepts_args: false,
            grace: Duration::from_secs(1),
            blocking: false,
        };
        let mut registry = Registry::default();
        registry.register(spec, runner.clone());
        let (sender, reports) = mpsc::unbounded_channel();
        let pool_spec = PoolSpec { kind, size, paused, ..PoolSpec::with_defaults(PoolName::parse("p").unwrap(), 1) };
        let sink = Arc::new(move |report| drop(sender.send(report)));
        let runtime = runtime::Handle::current();
        let around = Surroundings {
            registry: Arc::new(registry),
            clock: Arc::new(SystemClock),
            reports: sink,
            payloads: Arc::new(|_| Box::pin(std::future::ready(Err("there is no store".to_owned())))),
            runtime,
            metrics: Metrics::off(),
            catalog: Arc::default(),
        };
        let pool = Pool::start(&pool_spec, around).unwrap();
        Self { pool, reports, runner, made: 0 }
    }

    fn attempt(&mut self, id: &str, priority: Priority) -> Arc<Attempt> {
        self.attempt_of("gated", id, priority, b"", false)
    }

    fn attempt_of(
        &mut self,
        handler: &str,
        id: &str,
        priority: Priority,
        payload: &'static [u8],
        confirm: bool,
    ) -> Arc<Attempt> {
        self.made += 1;
        attempt(self.made, handler, id, priority, payload, confirm)
    }

    fn push(&self, attempts: Vec<Arc<Attempt>>) {
        self.pool.push(attempts, [false; 4]);
    }

    /// Pushes attempts with these numbers.
    fn push_all(&mut self, numbers: Range<usize>) {
        let attempts = numbers.map(|n| self.attempt(&format!("t{n}"), Priority::Normal)).collect();
        self.push(attempts);
    }

    fn open(&self, times: usize) {
        self.runner.gate.add_permits(times);
    }

    async fn report(&mut self) -> Report {
        let next = tokio::time::timeout(Duration::from_secs(30), self.reports.recv());
        next.await.expect("a report comes").expect("the pool lives")
    }

    async fn started(&mut self) -> u64 {
        loop {
            if let Report::Started { ticket, .. } = self.report().await {
                return ticket.fence;
            }
        }
    }

    async fn all_started(&mut self, count: usize) {
        for _ in 0..count {
            self.started().await;
        }
    }

    /// Lets them go, and waits for their ends.
    async fn all_ended(&mut self, count: usize) {
        self.open(count);
        for _ in 0..count {
            self.ended().await;
        }
    }

    async fn ended(&mut self) -> (u64, Ended) {
        loop {
            if let Report::Finished { ticket, ended, .. } = self.report().await {
                return (ticket.fence, ended);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_most_urgent_attempt_begins_first_and_equals_keep_their_order() {
    let mut world = World::new(1, PoolKind::Threads, true);
    let low = world.attempt("low", Priority::Low);
    let (first, second) = (world.attempt("n1", Priority::Normal), world.attempt("n2", Priority::Normal));
    let top = world.attempt("top", Priority::Critical);
    world.push(vec![low, first, second, top]);
    world.pool.set_paused(false);
    world.all_ended(4).await;
    assert_eq!(*world.runner.order.lock(), ["top", "n1", "n2", "low"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lower_priority_waits_while_a_higher_one_is_held_back() {
    let mut world = World::new(2, PoolKind::Threads, false);
    let low = world.attempt("low", Priority::Low);
    world.pool.push(vec![low], [false, false, true, false]);
    let high = world.attempt("high", Priority::High);
    world.pool.push(vec![high], [false, false, true, false]);
    assert_eq!(world.started().await, 2, "only the high one begins");
    world.pool.push(Vec::new(), [false; 4]);
    assert_eq!(world.started().await, 1, "then the low one may");
    world.open(2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recalled_attempt_never_begins_and_one_that_has_begun_cannot_be_recalled() {
    let mut world = World::new(1, PoolKind::Threads, false);
    let (first, second, third) = (
        world.attempt("a", Priority::Normal),
        world.attempt("b", Priority::Normal),
        world.attempt("c", Priority::Normal),
    );
    world.push(vec![first.clone(), second.clone(), third]);
    world.started().await;
    assert!(!first.recall());
    assert!(second.recall());
    world.open(2);
    world.ended().await;
    assert_eq!(world.started().await, 3);
    world.ended().await;
    assert_eq!(*world.runner.order.lock(), ["a", "c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_begins_once_a_pause_has_returned() {
    const ALL: usize = 3_000;
    let mut world = World::new(4, PoolKind::Threads, true);
    world.open(ALL);
    world.push_all(0..ALL);
    let (mut begun, mut ended) = (0, 0);
    while ended < ALL {
        world.pool.set_paused(false);
        let mut count = |report: &Report| match report {
            Report::Started { .. } => begun += 1,
            Report::Finished { .. } => ended += 1,
        };
        count(&world.report().await);
        world.pool.set_paused(true);
        while let Ok(report) = world.reports.try_recv() {
            count(&report);
        }
        assert_eq!(world.pool.stats().assigned, [0, ALL - begun, 0, 0], "every start is reported");
        while ended < begun {
            let report = world.report().await;
            assert!(matches!(report, Report::Finished { .. }), "{report:?} after the pause");
            ended += 1;
        }
    }
    assert_eq!(begun, ALL);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_fails_its_attempt_alone_and_the_worker_lives_on() {
    let mut world = World::new(1, PoolKind::Threads, false);
    let bad = world.attempt_of("gated", "bad", Priority::Normal, b"panic", false);
    let unknown = world.attempt_of("nobody", "unknown", Priority::Normal, b"", false);
    let good = world.attempt("good", Priority::Normal);
    world.push(vec![bad, unknown, good]);
    world.open(1);
    let (_, ended) = world.ended().await;
    assert!(
        matches!(ended, Ended::Failed(f) if f.reason == FailureReason::Panic && f.message.contains("as it was told"))
    );
    let (_, ended) = world.ended().await;
    assert!(matches!(ended, Ended::Failed(f) if f.message.contains("`nobody` is not registered")));
    assert!(matches!(world.ended().await, (3, Ended::Completed(_))));
    let row = world.pool.workers().remove(0);
    assert_eq!((row.name.as_str(), row.completed, row.failed, row.busy), ("PoolWorker-0", 1, 2, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_wants_confirmation_runs_only_after_it() {
    let mut world = World::new(1, PoolKind::Threads, false);
    world.open(1);
    let careful = world.attempt_of("gated", "careful", Priority::Normal, b"", true);
    world.push(vec![careful.clone()]);
    world.started().await;
    assert!(world.runner.order.lock().is_empty());
    careful.confirm();
    world.ended().await;
    assert_eq!(*world.runner.order.lock(), ["careful"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_come_and_go_while_others_run_and_nothing_is_lost() {
    let mut world = World::new(1, PoolKind::Threads, false);
    world.push_all(0..50);
    world.pool.resize(20).unwrap();
    world.all_started(20).await;
    assert_eq!((world.pool.stats().busy, world.pool.size()), (20, 20));
    world.pool.resize(3).unwrap();
    world.all_ended(50).await;
    world.pool.resize(5).unwrap();
    world.push_all(50..60);
    world.all_ended(10).await;
    let mut order = world.runner.order.lock().clone();
    order.sort();
    order.dedup();
    assert_eq!(order.len(), 60, "each ran once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_workers_run_at_once_and_leave() {
    let mut world = World::new(1_000, PoolKind::Threads, false);
    world.push_all(0..1_000);
    world.all_started(1_000).await;
    world.all_ended(1_000).await;
    world.pool.stop().await;
    assert_eq!(world.pool.stats().alive, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_async_pool_runs_on_the_runtime() {
    let mut world = World::new(500, PoolKind::Async, false);
    world.push_all(0..500);
    world.all_started(500).await;
    world.all_ended(500).await;
    world.pool.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_workers_count_adds_up_and_can_be_reset() {
    let mut world = World::new(3, PoolKind::Threads, false);
    world.open(40);
    let attempts = (0..40).map(|n| world.attempt(&format!("t{n}"), Priority::High)).collect();
    world.push(attempts);
    let bad = world.attempt_of("gated", "bad", Priority::Low, b"panic", false);
    world.push(vec![bad]);
    for _ in 0..41 {
        world.ended().await;
    }
    let rows = world.pool.workers();
    let names: Vec<_> = rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["PoolWorker-0", "PoolWorker-1", "PoolWorker-2"]);
    assert_eq!(rows.iter().map(|row| row.completed).sum::<u64>(), 40);
    assert_eq!(rows.iter().map(|row| row.failed).sum::<u64>(), 1);
    let stats = world.pool.stats();
    assert_eq!((stats.alive, stats.busy, stats.idle, stats.assigned), (3, 0, 3, [0; 4]));
    assert_eq!(stats.steals, rows.iter().map(|row| row.steals).sum::<u64>());
    world.pool.reset_counters();
    assert!(world.pool.workers().iter().all(|row| row.completed + row.failed + row.steals == 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_size_out_of_bounds_or_after_the_end_is_refused() {
    let world = World::new(2, PoolKind::Threads, false);
    assert!(world.pool.resize(0).is_err());
    assert!(world.pool.resize(1_001).is_err());
    assert_eq!(world.pool.size(), 2);
    world.pool.stop().await;
    assert!(world.pool.resize(2).is_err());
    world.pool.stop().await;
}

/// Xorshift: the same numbers for the same seed, which a failure names.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Pushes, recalls, pauses, held-back priorities and new sizes in any order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_nothing_is_lost_and_nothing_runs_twice() {
    for seed in 1..=12_u64 {
        let kind = if seed % 3 == 0 { PoolKind::Async } else { PoolKind::Threads };
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut world = World::new(4, kind, false);
        let (mut pushed, mut recalled) = (Vec::new(), Vec::new());
        for _ in 0..300 {
            match dice.roll(10) {
                0 => world.pool.set_paused(dice.roll(2) == 0),
                1 => world.pool.resize(usize::try_from(dice.roll(12)).unwrap() + 1).unwrap(),
                2 | 3 if !pushed.is_empty() => {
                    let attempt: &Arc<Attempt> = &pushed[usize::try_from(dice.roll(pushed.len() as u64)).unwrap()];
                    if attempt.recall() {
                        recalled.push(attempt.ticket().fence);
                    }
                }
                _ => {
                    let count = dice.roll(40);
                    world.open(usize::try_from(count).unwrap());
                    let priority = Priority::DESCENDING[usize::try_from(dice.roll(4)).unwrap()];
                    let wave: Vec<_> = (0..count).map(|_| world.attempt("t", priority)).collect();
                    pushed.extend(wave.iter().cloned());
                    world.pool.push(wave, std::array::from_fn(|_| dice.roll(5) == 0));
                }
            }
        }
        world.pool.push(Vec::new(), [false; 4]);
        world.pool.set_paused(false);
        recalled.sort_unstable();
        recalled.dedup();
        let expected = pushed.len() - recalled.len();
        let (mut started, mut ended) = (Vec::new(), Vec::new());
        while ended.len() < expected {
            match world.report().await {
                Report::Started { ticket, .. } => started.push(ticket.fence),
                Report::Finished { ticket, .. } => ended.push(ticket.fence),
            }
        }
        world.pool.stop().await;
        assert!(world.reports.try_recv().is_err(), "seed {seed}: more reports than attempts");
        started.sort_unstable();
        ended.sort_unstable();
        let left = (1..=pushed.len() as u64).filter(|fence| recalled.binary_search(fence).is_err());
        assert_eq!(started, left.collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(ended, started, "seed {seed}");
    }
}
