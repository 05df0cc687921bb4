//! Behaviour of whole pools: order, pausing, resizing, statistics, and that every attempt runs exactly once.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime;
use tokio::sync::{Semaphore, mpsc};

use crate::artifacts::{ArtifactStore, Options};
use crate::model::{
    FailureReason, HandlerName, HandlerSource, HandlerSpec, MemoryAccount, Payload, PoolKind, PoolName, PoolSpec,
    Priority, RetryPolicy, SystemClock,
};
use crate::runners::{BoxFuture, Outcome, Registry, ResultMemory, Run, RunReport, Runner, Runners, StopCause};
use crate::telemetry::metrics::Metrics;

use super::{Assignment, Pool, Report, Ticket, WorkerContext};

/// Completes once the test has added a permit; panics for the payload `panic`.
struct Gated {
    gate: Arc<Semaphore>,
    order: Mutex<Vec<String>>,
    /// Runs that the server lacks a resource for.
    unavailable: AtomicUsize,
}

impl Runner for Gated {
    fn run(&self, run: Run) -> BoxFuture<RunReport> {
        if self.unavailable.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Box::pin(std::future::ready(Outcome::Unavailable("no file descriptors".into()).into()));
        }
        self.order.lock().push(run.task.to_string());
        assert!(&run.payload[..] != b"panic", "on request");
        let gate = self.gate.clone();
        Box::pin(async move {
            gate.acquire().await.expect("the semaphore is open").forget();
            Outcome::Completed(Payload::default()).into()
        })
    }
}

struct Fixture {
    pool: Pool,
    reports: mpsc::UnboundedReceiver<Report>,
    runner: Arc<Gated>,
    attempts: u64,
}

impl Fixture {
    fn new(size: usize, kind: PoolKind, paused: bool) -> Self {
        let runner = Arc::new(Gated {
            gate: Arc::new(Semaphore::new(0)),
            order: Mutex::default(),
            unavailable: AtomicUsize::new(0),
        });
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
            arg_pattern: None,
            grace: Duration::from_secs(1),
            blocking: false,
            source: HandlerSource::File,
            payload_schema: None,
        };
        let mut registry = Runners::new();
        registry.insert(spec.name, runner.clone());
        let (sender, reports) = mpsc::unbounded_channel();
        let pool_spec = PoolSpec { kind, size, paused, ..PoolSpec::with_defaults(PoolName::parse("p").unwrap(), 1) };
        let sink = Arc::new(move |report| drop(sender.send(report)));
        let runtime = runtime::Handle::current();
        let context = WorkerContext {
            registry: Arc::new(Registry::from(registry)),
            clock: Arc::new(SystemClock),
            reports: sink,
            payloads: Arc::new(|_| Box::pin(std::future::ready(Err("no store".to_owned())))),
            parents: Arc::new(|_, _| Box::pin(std::future::ready(Err("no store".to_owned())))),
            runtime,
            metrics: Metrics::off(),
            worker_lease: Duration::from_secs(30),
            catalog: Arc::default(),
            results: ResultMemory::new(MemoryAccount::new(|_| 0)),
            artifacts: ArtifactStore::new(Options::sample(Path::new(""))),
        };
        let pool = Pool::start(&pool_spec, context).unwrap();
        Self { pool, reports, runner, attempts: 0 }
    }

    fn attempt(&mut self, id: &str, priority: Priority) -> Assignment {
        self.attempt_of("gated", id, priority, b"", false)
    }

    fn attempt_of(
        &mut self,
        handler: &str,
        id: &str,
        priority: Priority,
        payload: &'static [u8],
        confirm: bool,
    ) -> Assignment {
        self.attempts += 1;
        Assignment::sample(self.attempts, handler, id, priority, payload, confirm)
    }

    fn push(&mut self, attempts: Vec<Assignment>) {
        self.push_and_hold_back(attempts, [false; 4]);
    }

    fn push_and_hold_back(&mut self, attempts: Vec<Assignment>, held_back: [bool; 4]) {
        let batch = self.pool.prepare(attempts, None);
        self.pool.push(batch, held_back);
    }

    /// Pushes attempts of tasks with these numbers.
    fn push_all(&mut self, numbers: Range<usize>) {
        let attempts = numbers.map(|n| self.attempt(&format!("t{n}"), Priority::Normal)).collect();
        self.push(attempts);
    }

    fn let_complete(&self, count: usize) {
        self.runner.gate.add_permits(count);
    }

    async fn report(&mut self) -> Report {
        let next = tokio::time::timeout(Duration::from_secs(30), self.reports.recv());
        next.await.expect("a report in time").expect("the pool is alive")
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

    /// Lets that many attempts complete and waits for their ends.
    async fn complete(&mut self, count: usize) {
        self.let_complete(count);
        for _ in 0..count {
            self.ended().await;
        }
    }

    async fn ended(&mut self) -> (u64, Outcome) {
        loop {
            if let Report::Finished { attempt, outcome, .. } = self.report().await {
                self.pool.forget(attempt.ticket());
                return (attempt.ticket().fence, outcome);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_start_by_priority_then_in_push_order() {
    let mut fixture = Fixture::new(1, PoolKind::Threads, true);
    let low = fixture.attempt("low", Priority::Low);
    let (first, second) = (fixture.attempt("n1", Priority::Normal), fixture.attempt("n2", Priority::Normal));
    let top = fixture.attempt("top", Priority::Critical);
    fixture.push(vec![low, first, second, top]);
    fixture.pool.set_paused(false);
    fixture.complete(4).await;
    assert_eq!(*fixture.runner.order.lock(), ["top", "n1", "n2", "low"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_attempt_waits_behind_a_running_one_while_a_younger_one_starts() {
    let mut fixture = Fixture::new(1, PoolKind::Threads, false);
    // A worker whose attempts are short.
    fixture.let_complete(2_000);
    fixture.push_all(0..2_000);
    for _ in 0..2_000 {
        fixture.ended().await;
    }
    fixture.pool.set_paused(true);
    fixture.push_all(0..40);
    fixture.pool.set_paused(false);
    // The first attempt runs until the end of the test; a second worker comes.
    assert_eq!(fixture.started().await, 2_001);
    fixture.pool.resize(2).unwrap();
    assert_eq!(fixture.started().await, 2_002, "the oldest one that waits");
    fixture.let_complete(40);
    for _ in 0..40 {
        fixture.ended().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_for_which_the_server_lacks_a_resource_wait_and_keep_their_order() {
    let mut fixture = Fixture::new(1, PoolKind::Threads, false);
    fixture.runner.unavailable.store(3, SeqCst);
    fixture.push_all(0..4);
    fixture.let_complete(4);
    for fence in 1..=4 {
        let (ended, outcome) = fixture.ended().await;
        assert!(ended == fence && matches!(outcome, Outcome::Completed(_)), "{ended}: {outcome:?}");
    }
    assert_eq!(*fixture.runner.order.lock(), ["t0", "t1", "t2", "t3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_waits_for_a_resource_can_be_stopped() {
    let mut fixture = Fixture::new(1, PoolKind::Threads, false);
    fixture.runner.unavailable.store(usize::MAX, SeqCst);
    let waiting = fixture.attempt("t", Priority::Normal);
    let ticket = waiting.ticket;
    fixture.push(vec![waiting]);
    fixture.started().await;
    fixture.pool.stop_attempt(ticket, StopCause::Drain, Duration::ZERO);
    assert!(matches!(fixture.ended().await, (1, Outcome::Unavailable(_))), "it is not spent");
    fixture.runner.unavailable.store(0, SeqCst);
    let next = fixture.attempt("next", Priority::Normal);
    fixture.push(vec![next]);
    fixture.complete(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lower_priority_waits_while_a_higher_one_is_held_back() {
    let mut fixture = Fixture::new(2, PoolKind::Threads, false);
    let low = fixture.attempt("low", Priority::Low);
    fixture.push_and_hold_back(vec![low], [false, false, true, false]);
    let high = fixture.attempt("high", Priority::High);
    fixture.push_and_hold_back(vec![high], [false, false, true, false]);
    assert_eq!(fixture.started().await, 2, "only the high one starts");
    fixture.push(Vec::new());
    assert_eq!(fixture.started().await, 1, "then the low one starts");
    fixture.let_complete(2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_output_of_an_attempt_can_be_followed_once_its_start_is_reported() {
    let mut fixture = Fixture::new(1, PoolKind::Threads, false);
    let unconfirmed = fixture.attempt_of("gated", "t", Priority::Normal, b"", true);
    let ticket = unconfirmed.ticket;
    fixture.push(vec![unconfirmed]);
    fixture.started().await;
    assert!(fixture.pool.attempt(ticket).and_then(|attempt| attempt.output()).is_some(), "it does not run yet");
    fixture.pool.confirm(ticket);
    fixture.complete(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recalled_attempt_never_starts_and_a_started_one_cannot_be_recalled() {
    let mut fixture = Fixture::new(1, PoolKind::Threads, false);
    let (first, second, third) = (
        fixture.attempt("a", Priority::Normal),
        fixture.attempt("b", Priority::Normal),
        fixture.attempt("c", Priority::Normal),
    );
    let (first_ticket, second_ticket) = (first.ticket, second.ticket);
    fixture.push(vec![first, second, third]);
    fixture.started().await;
    assert!(!fixture.pool.recall(first_ticket));
    assert!(fixture.pool.recall(second_ticket));
    assert!(!fixture.pool.recall(second_ticket), "it is not known any more");
    fixture.let_complete(2);
    fixture.ended().await;
    assert_eq!(fixture.started().await, 3);
    fixture.ended().await;
    assert_eq!(*fixture.runner.order.lock(), ["a", "c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recalled_attempt_is_freed_although_no_worker_is_free() {
    let mut fixture = Fixture::new(1, PoolKind::Threads, false);
    let running = fixture.attempt("running", Priority::Normal);
    fixture.push(vec![running]);
    fixture.started().await;
    let kept = fixture.attempt("kept", Priority::Normal);
    fixture.push(vec![kept]);
    for n in 0..10_000 {
        let recalled = fixture.attempt(&format!("t{n}"), Priority::Normal);
        let (ticket, spec) = (recalled.ticket, Arc::downgrade(&recalled.spec));
        let batch = fixture.pool.prepare(vec![recalled], None);
        if n % 3 == 0 {
            assert!(fixture.pool.recall(ticket), "before it is queued");
        }
        fixture.pool.push(batch, [false; 4]);
        assert_eq!(fixture.pool.recall(ticket), n % 3 != 0);
        assert!(spec.upgrade().is_none(), "the spec and its payload are freed");
        assert_eq!(fixture.pool.stats().assigned, [0, 1, 0, 0]);
    }
    fixture.complete(1).await;
    assert_eq!(fixture.started().await, 2, "the attempt that was not recalled");
    fixture.complete(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_attempt_starts_after_a_pause_has_returned() {
    const ALL: usize = 3_000;
    let mut fixture = Fixture::new(4, PoolKind::Threads, true);
    fixture.let_complete(ALL);
    fixture.push_all(0..ALL);
    let (mut started, mut ended) = (0, 0);
    while ended < ALL {
        fixture.pool.set_paused(false);
        let mut count = |report: &Report| match report {
            Report::Started { .. } => started += 1,
            Report::Finished { .. } => ended += 1,
            Report::Many(_) | Report::Slots { .. } => unreachable!("the pool has workers of its own"),
        };
        count(&fixture.report().await);
        fixture.pool.set_paused(true);
        while let Ok(report) = fixture.reports.try_recv() {
            count(&report);
        }
        assert_eq!(fixture.pool.stats().assigned, [0, ALL - started, 0, 0], "every start is reported");
        while ended < started {
            let report = fixture.report().await;
            assert!(matches!(report, Report::Finished { .. }), "{report:?} after the pause");
            ended += 1;
        }
    }
    assert_eq!(started, ALL);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_or_an_unknown_handler_fails_only_its_own_attempt() {
    let mut fixture = Fixture::new(1, PoolKind::Threads, false);
    let bad = fixture.attempt_of("gated", "bad", Priority::Normal, b"panic", false);
    let unknown = fixture.attempt_of("nosuch", "unknown", Priority::Normal, b"", false);
    let good = fixture.attempt("good", Priority::Normal);
    fixture.push(vec![bad, unknown, good]);
    fixture.let_complete(1);
    let (_, outcome) = fixture.ended().await;
    assert!(
        matches!(outcome, Outcome::Failed(f) if f.reason == FailureReason::Panic && f.message.contains("on request"))
    );
    let (_, outcome) = fixture.ended().await;
    assert!(matches!(outcome, Outcome::Failed(f) if f.message.contains("`nosuch` is not registered")));
    assert!(matches!(fixture.ended().await, (3, Outcome::Completed(_))));
    let row = fixture.pool.workers().remove(0);
    assert_eq!((row.name.as_str(), row.completed, row.failed, row.busy), ("PoolWorker-0", 1, 2, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_needs_confirmation_runs_only_after_it() {
    let mut fixture = Fixture::new(1, PoolKind::Threads, false);
    fixture.let_complete(1);
    let confirmed = fixture.attempt_of("gated", "confirmed", Priority::Normal, b"", true);
    let ticket = confirmed.ticket;
    fixture.push(vec![confirmed]);
    fixture.started().await;
    assert!(fixture.runner.order.lock().is_empty());
    fixture.pool.confirm(ticket);
    fixture.ended().await;
    assert_eq!(*fixture.runner.order.lock(), ["confirmed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resizing_while_attempts_run_loses_none() {
    let mut fixture = Fixture::new(1, PoolKind::Threads, false);
    fixture.push_all(0..50);
    fixture.pool.resize(20).unwrap();
    fixture.all_started(20).await;
    assert_eq!((fixture.pool.stats().busy, fixture.pool.size()), (20, 20));
    fixture.pool.resize(3).unwrap();
    fixture.complete(50).await;
    fixture.pool.resize(5).unwrap();
    fixture.push_all(50..60);
    fixture.complete(10).await;
    let mut order = fixture.runner.order.lock().clone();
    order.sort();
    order.dedup();
    assert_eq!(order.len(), 60, "each ran once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_workers_run_at_once_and_stop() {
    let mut fixture = Fixture::new(1_000, PoolKind::Threads, false);
    fixture.push_all(0..1_000);
    fixture.all_started(1_000).await;
    fixture.complete(1_000).await;
    fixture.pool.stop().await;
    assert_eq!(fixture.pool.stats().alive, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_async_pool_runs_on_the_runtime() {
    let mut fixture = Fixture::new(500, PoolKind::Async, false);
    fixture.push_all(0..500);
    fixture.all_started(500).await;
    fixture.complete(500).await;
    fixture.pool.stop().await;
}

#[tokio::test]
async fn a_remote_pool_starts_no_workers() {
    let fixture = Fixture::new(0, PoolKind::Remote, false);
    assert_eq!(fixture.pool.stats().alive, 0);
    fixture.pool.resize(0).unwrap();
    fixture.pool.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_counters_add_up_and_can_be_reset() {
    let mut fixture = Fixture::new(3, PoolKind::Threads, false);
    fixture.let_complete(40);
    let attempts = (0..40).map(|n| fixture.attempt(&format!("t{n}"), Priority::High)).collect();
    fixture.push(attempts);
    let bad = fixture.attempt_of("gated", "bad", Priority::Low, b"panic", false);
    fixture.push(vec![bad]);
    for _ in 0..41 {
        fixture.ended().await;
    }
    let rows = fixture.pool.workers();
    let names: Vec<_> = rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["PoolWorker-0", "PoolWorker-1", "PoolWorker-2"]);
    assert_eq!(rows.iter().map(|row| row.completed).sum::<u64>(), 40);
    assert_eq!(rows.iter().map(|row| row.failed).sum::<u64>(), 1);
    let stats = fixture.pool.stats();
    assert_eq!((stats.alive, stats.busy, stats.idle, stats.assigned), (3, 0, 3, [0; 4]));
    fixture.pool.reset_counters();
    assert!(fixture.pool.workers().iter().all(|row| row.completed + row.failed == 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resize_rejects_sizes_out_of_bounds_and_a_stopped_pool() {
    let fixture = Fixture::new(2, PoolKind::Threads, false);
    assert!(fixture.pool.resize(0).is_err());
    assert!(fixture.pool.resize(1_001).is_err());
    assert_eq!(fixture.pool.size(), 2);
    fixture.pool.stop().await;
    assert!(fixture.pool.resize(2).is_err());
    fixture.pool.stop().await;
}

/// Xorshift: reproducible from the seed, which a failed assertion prints.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Pushes, recalls, pauses, held-back priorities and resizes in random order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_attempt_runs_exactly_once_under_random_operations() {
    for seed in 1..=12_u64 {
        let kind = if seed % 3 == 0 { PoolKind::Async } else { PoolKind::Threads };
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut fixture = Fixture::new(4, kind, false);
        let (mut pushed, mut recalled) = (Vec::new(), Vec::new());
        for _ in 0..300 {
            match dice.roll(10) {
                0 => fixture.pool.set_paused(dice.roll(2) == 0),
                1 => fixture.pool.resize(usize::try_from(dice.roll(12)).unwrap() + 1).unwrap(),
                2 | 3 if !pushed.is_empty() => {
                    let ticket: Ticket = pushed[usize::try_from(dice.roll(pushed.len() as u64)).unwrap()];
                    if fixture.pool.recall(ticket) {
                        recalled.push(ticket.fence);
                    }
                }
                _ => {
                    let count = dice.roll(40);
                    fixture.let_complete(usize::try_from(count).unwrap());
                    let priority = Priority::DESCENDING[usize::try_from(dice.roll(4)).unwrap()];
                    let wave: Vec<_> = (0..count).map(|_| fixture.attempt("t", priority)).collect();
                    pushed.extend(wave.iter().map(|assignment| assignment.ticket));
                    fixture.push_and_hold_back(wave, std::array::from_fn(|_| dice.roll(5) == 0));
                }
            }
        }
        fixture.push(Vec::new());
        fixture.pool.set_paused(false);
        recalled.sort_unstable();
        let expected = pushed.len() - recalled.len();
        let (mut started, mut ended) = (Vec::new(), Vec::new());
        while ended.len() < expected {
            match fixture.report().await {
                Report::Started { ticket, .. } => started.push(ticket.fence),
                Report::Finished { attempt, .. } => ended.push(attempt.ticket().fence),
                Report::Many(_) | Report::Slots { .. } => unreachable!("the pool has workers of its own"),
            }
        }
        fixture.pool.stop().await;
        assert!(fixture.reports.try_recv().is_err(), "seed {seed}: more reports than attempts");
        started.sort_unstable();
        ended.sort_unstable();
        let left = (1..=pushed.len() as u64).filter(|fence| recalled.binary_search(fence).is_err());
        assert_eq!(started, left.collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(ended, started, "seed {seed}");
    }
}
