//! The loop of the workers, the run queue and the pool's handle under many interleavings of their threads, which shuttle
//! chooses. A lost wake-up appears as a deadlock.

use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use shuttle::future::block_on;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::sync::mpsc;
use shuttle::thread::JoinHandle;
use tokio::runtime;

use crate::artifacts::{ArtifactStore, Options};
use crate::model::{HandlerName, MemoryAccount, Payload, PoolName, PoolSpec, Priority, SystemClock};
use crate::runners::{BoxFuture, Outcome, Registry, ResultMemory, Run, RunReport, Runner, Runners, StopCause};
use crate::telemetry::metrics::Metrics;

use super::driver::Driver;
use super::run_queue::{Next, RunQueue};
use super::state::{PoolState, WorkerHandle, WorkerSlot};
use super::stats::WorkerCounters;
use super::worker::Worker;
use super::{Assignment, Attempt, Pool, Report, Ticket, WorkerContext};
use crate::runners::sync::{Mutex, run_interleaved, yield_now};

/// Interleavings of each test and scheduler.
const INTERLEAVINGS: usize = 300;
const NONE: [bool; 4] = [false; 4];

/// Runs a test with random switches, and with few switches at the worst places.
fn check(test: impl Fn() + Clone + Send + Sync + 'static) {
    run_interleaved(RandomScheduler::new(INTERLEAVINGS), test.clone());
    run_interleaved(PctScheduler::new(3, INTERLEAVINGS), test);
}

/// Counts the attempts that run at the same time.
#[derive(Default)]
struct Counting {
    running: AtomicUsize,
    max: AtomicUsize,
}

impl Runner for Counting {
    fn run(&self, _: Run) -> BoxFuture<RunReport> {
        self.max.fetch_max(self.running.fetch_add(1, SeqCst) + 1, SeqCst);
        yield_now();
        self.running.fetch_sub(1, SeqCst);
        Box::pin(std::future::ready(Outcome::Completed(Payload::default()).into()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Started(u64),
    Finished(u64),
}

/// A pool with the real workers, each in a thread of shuttle. The caller is the scheduler.
struct Fixture {
    pool: Pool,
    state: Arc<PoolState>,
    runner: Arc<Counting>,
    reports: mpsc::Receiver<Seen>,
    seen: Vec<Seen>,
    threads: Vec<JoinHandle<()>>,
}

/// Not used: the workers do not run on it, and no test waits for time.
static RUNTIME: LazyLock<runtime::Runtime> =
    LazyLock::new(|| runtime::Builder::new_current_thread().build().expect("a runtime"));

impl Fixture {
    fn new(size: usize) -> Self {
        let runner = Arc::<Counting>::default();
        let mut registry = Runners::new();
        registry.insert(HandlerName::parse("h").unwrap(), runner.clone());
        let (sender, reports) = mpsc::channel();
        let sender = Mutex::new(sender);
        let sink = move |report| {
            let seen = match report {
                Report::Started { ticket, .. } => Seen::Started(ticket.fence),
                Report::Finished { attempt, .. } => Seen::Finished(attempt.ticket().fence),
                Report::Many(_) | Report::Slots { .. } => return,
            };
            // Fails only if the test has ended.
            let _ = sender.lock().send(seen);
        };
        let context = WorkerContext {
            registry: Arc::new(Registry::from(registry)),
            clock: Arc::new(SystemClock),
            reports: Arc::new(sink),
            payloads: Arc::new(|_| Box::pin(std::future::ready(Err("no store".to_owned())))),
            parents: Arc::new(|_, _| Box::pin(std::future::ready(Err("no store".to_owned())))),
            runtime: RUNTIME.handle().clone(),
            metrics: Metrics::off(),
            worker_lease: Duration::from_secs(30),
            catalog: Arc::default(),
            results: ResultMemory::new(MemoryAccount::new(|_| 0)),
            artifacts: ArtifactStore::new(Options::sample(Path::new(""))),
        };
        let spec = PoolSpec::with_defaults(PoolName::parse("p").unwrap(), size);
        let state = Arc::new(PoolState::new(&spec, context));
        state.set_target(&mut state.workers.lock(), size);
        let threads = (0..size).map(|index| start_worker(&state, index)).collect();
        let pool = Pool::without_workers(state.clone());
        Self { pool, state, runner, reports, seen: Vec::new(), threads }
    }

    fn push(&mut self, attempts: &[(u64, Priority)]) {
        let sample = |(fence, priority): &(u64, Priority)| Assignment::sample(*fence, "h", "t", *priority, b"", false);
        let batch = self.pool.prepare(attempts.iter().map(sample).collect(), None);
        self.pool.push(batch, NONE);
    }

    /// Waits for a report.
    fn receive(&mut self) -> Seen {
        let seen = self.reports.recv().expect("workers report");
        self.seen.push(seen);
        seen
    }

    /// Waits until that many attempts have ended.
    fn wait_for_ends(&mut self, ends: usize) {
        while self.seen.iter().filter(|seen| matches!(seen, Seen::Finished(_))).count() < ends {
            self.receive();
        }
    }

    /// Reads the reports that have arrived.
    fn poll(&mut self) -> &[Seen] {
        while let Ok(seen) = self.reports.try_recv() {
            self.seen.push(seen);
        }
        &self.seen
    }

    /// Ends the pool, and checks that exactly these attempts have run, each once.
    fn finish(mut self, expected: &[u64]) {
        self.state.shut_down();
        for thread in self.threads.drain(..) {
            thread.join().expect("the worker leaves");
        }
        let mut started: Vec<_> = self.poll().iter().filter(|seen| matches!(seen, Seen::Started(_))).collect();
        started.sort_unstable_by_key(|seen| format!("{seen:?}"));
        let expected: Vec<_> = expected.iter().map(|fence| Seen::Started(*fence)).collect();
        assert_eq!(started, expected.iter().collect::<Vec<_>>(), "each attempt starts once");
        assert_eq!(self.seen.len(), 2 * expected.len(), "each attempt ends once");
        assert_eq!(self.pool.stats().busy, 0);
    }
}

fn start_worker(state: &Arc<PoolState>, index: usize) -> JoinHandle<()> {
    let counters = Arc::new(WorkerCounters::default());
    let worker = Worker::new(state.clone(), index, counters.clone());
    // Stands for the handle of the thread, which is never joined.
    let handle = WorkerHandle::Task(RUNTIME.spawn(std::future::ready(())));
    state.workers.lock().slots.push(WorkerSlot { alive: true, counters, handle });
    shuttle::thread::spawn(move || block_on(worker.run()))
}

fn ticket(fence: u64) -> Ticket {
    Ticket { index: 0, pool: 0, fence }
}

#[test]
fn every_attempt_runs_once_whichever_worker_is_woken() {
    check(|| {
        let mut fixture = Fixture::new(2);
        fixture.push(&[(1, Priority::Normal)]);
        fixture.push(&[(2, Priority::Low), (3, Priority::High), (4, Priority::Low)]);
        fixture.wait_for_ends(2);
        fixture.push(&[(5, Priority::Normal)]);
        fixture.wait_for_ends(5);
        assert!(fixture.runner.max.load(SeqCst) <= 2, "no more attempts run than there are slots");
        fixture.finish(&[1, 2, 3, 4, 5]);
    });
}

#[test]
fn after_a_pause_every_start_is_reported_and_nothing_starts() {
    check(|| {
        let mut fixture = Fixture::new(2);
        fixture.push(&[(1, Priority::Normal), (2, Priority::Normal), (3, Priority::High)]);
        fixture.pool.set_paused(true);
        let starts = |seen: &[Seen]| seen.iter().filter(|seen| matches!(seen, Seen::Started(_))).count();
        let reported = starts(fixture.poll());
        let queued: usize = fixture.pool.stats().assigned.iter().sum();
        assert_eq!(reported + queued, 3, "an attempt that is not queued has reported its start");
        fixture.wait_for_ends(reported);
        assert_eq!(starts(fixture.poll()), reported, "a paused pool starts nothing");
        fixture.pool.set_paused(false);
        fixture.wait_for_ends(3);
        fixture.finish(&[1, 2, 3]);
    });
}

#[test]
fn an_attempt_is_either_recalled_or_started() {
    check(|| {
        let mut fixture = Fixture::new(2);
        fixture.push(&[(1, Priority::Normal), (2, Priority::Normal), (3, Priority::Normal)]);
        let mut lost: Vec<u64> = [2, 1, 3].into_iter().filter(|fence| !fixture.pool.recall(ticket(*fence))).collect();
        lost.sort_unstable();
        for fence in 1..=3 {
            let is_known = fixture.pool.attempt(ticket(fence)).is_some();
            assert_eq!(is_known, lost.contains(&fence), "a recalled attempt is forgotten at once");
        }
        fixture.wait_for_ends(lost.len());
        fixture.finish(&lost);
    });
}

#[test]
fn a_worker_that_leaves_takes_no_attempt_with_it() {
    check(|| {
        let mut fixture = Fixture::new(2);
        fixture.push(&[(1, Priority::Normal), (2, Priority::Normal)]);
        let state = fixture.state.clone();
        state.set_target(&mut state.workers.lock(), 1);
        fixture.push(&[(3, Priority::Normal)]);
        fixture.wait_for_ends(3);
        fixture.finish(&[1, 2, 3]);
    });
}

#[test]
fn an_attempt_that_needs_a_confirmation_runs_only_after_it_or_is_stopped() {
    check(|| {
        let mut fixture = Fixture::new(1);
        let confirmed = Assignment::sample(1, "h", "t", Priority::Normal, b"", true);
        let stopped = Assignment::sample(2, "h", "t", Priority::Normal, b"", true);
        let batch = fixture.pool.prepare(vec![confirmed, stopped], None);
        fixture.pool.push(batch, NONE);
        assert_eq!(fixture.receive(), Seen::Started(1));
        assert_eq!(fixture.runner.max.load(SeqCst), 0, "it waits for its confirmation");
        fixture.pool.confirm(ticket(1));
        fixture.pool.stop_attempt(ticket(2), StopCause::Drain, Duration::ZERO);
        fixture.wait_for_ends(2);
        fixture.finish(&[1, 2]);
    });
}

#[test]
fn counts_add_up_while_workers_run() {
    check(|| {
        let mut fixture = Fixture::new(2);
        fixture.push(&[(1, Priority::Normal), (2, Priority::Normal), (3, Priority::Normal)]);
        for _ in 0..3 {
            let completed: u64 = fixture.pool.workers().iter().map(|worker| worker.completed).sum();
            let queued: usize = fixture.pool.stats().assigned.iter().sum();
            assert!(completed + queued as u64 <= 3, "{completed} completed, {queued} queued");
        }
        fixture.wait_for_ends(3);
        let workers = fixture.state.workers.lock();
        let completed: u64 = workers.slots.iter().map(|slot| slot.counters.snapshot(0, true).completed).sum();
        drop(workers);
        assert_eq!(completed, 3);
        fixture.finish(&[1, 2, 3]);
    });
}

/// Attempts of the drivers below.
#[derive(Default)]
struct Runs {
    running: AtomicUsize,
    done: AtomicUsize,
}

/// Starts attempts, each of which gives its slot back and takes one again before it ends.
fn drive(queue: &Arc<RunQueue>, runs: &Runs) {
    let mut driver = Driver::new(0, queue.clone());
    let run = || {
        assert_eq!(runs.running.fetch_add(1, SeqCst), 0, "one driver has the slot");
        yield_now();
        runs.running.fetch_sub(1, SeqCst);
    };
    loop {
        match driver.next() {
            Next::Start(attempt) => {
                run();
                driver.suspend();
                yield_now();
                block_on(driver.resume(&attempt));
                run();
                runs.done.fetch_add(1, SeqCst);
            }
            Next::Park => block_on(driver.park()),
            Next::Leave => return,
        }
    }
}

#[test]
fn a_slot_that_is_given_back_and_taken_again_is_never_shared_or_lost() {
    check(|| {
        let (queue, runs) = (Arc::new(RunQueue::new(2)), Arc::<Runs>::default());
        queue.set_slots(1);
        let drivers = [(); 2].map(|()| {
            let (queue, runs) = (queue.clone(), runs.clone());
            shuttle::thread::spawn(move || drive(&queue, &runs))
        });
        let attempts = [(1, Priority::Low), (2, Priority::High), (3, Priority::Low)]
            .map(|(fence, priority)| Attempt::new(Assignment::sample(fence, "h", "t", priority, b"", false)));
        queue.push(attempts, NONE);
        for set in [RunQueue::set_paused, RunQueue::set_resting] {
            set(&queue, true);
            set(&queue, false);
        }
        while runs.done.load(SeqCst) < 3 {
            yield_now();
        }
        queue.set_slots(0);
        for driver in drivers {
            driver.join().expect("the driver leaves");
        }
    });
}
