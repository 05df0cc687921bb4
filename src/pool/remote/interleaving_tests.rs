//! Streams of workers that begin and end at the same time, under many interleavings that shuttle chooses.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use tokio::runtime;

use super::{RemoteWorkers, WorkerInfo};
use crate::model::{HandlerName, PoolName, PoolSpec, Priority, SystemClock};
use crate::pool::sync::{Mutex, run_interleaved};
use crate::pool::{Assignment, Attempt, Report, WorkerContext};
use crate::runners::Registry;
use crate::telemetry::metrics::Metrics;

/// Interleavings of each test and scheduler.
const INTERLEAVINGS: usize = 300;

/// Takes the tasks that drive attempts, and never runs them.
static RUNTIME: LazyLock<runtime::Runtime> =
    LazyLock::new(|| runtime::Builder::new_current_thread().build().expect("a runtime"));

fn check(test: impl Fn() + Clone + Send + Sync + 'static) {
    run_interleaved(RandomScheduler::new(INTERLEAVINGS), test.clone());
    run_interleaved(PctScheduler::new(3, INTERLEAVINGS), test);
}

/// What a pool has reported.
#[derive(Default)]
struct Reported {
    /// The newest number of slots.
    slots: usize,
    starts: usize,
}

fn pool() -> (RemoteWorkers, Arc<Mutex<Reported>>) {
    let reported = Arc::<Mutex<Reported>>::default();
    let sink = reported.clone();
    let reports = move |report| match report {
        Report::Started { .. } => sink.lock().starts += 1,
        Report::Finished { .. } => unreachable!("nothing drives the attempts"),
        Report::Slots { total, .. } => sink.lock().slots = total,
    };
    let context = WorkerContext {
        registry: Arc::new(Registry::default()),
        clock: Arc::new(SystemClock),
        reports: Arc::new(reports),
        payloads: Arc::new(|_| Box::pin(std::future::ready(Err("no store".to_owned())))),
        runtime: RUNTIME.handle().clone(),
        metrics: Metrics::off(),
        worker_lease: Duration::from_secs(30),
        catalog: Arc::default(),
    };
    let spec = PoolSpec::with_defaults(PoolName::parse("p").unwrap(), 0);
    (RemoteWorkers::new(&spec, context), reported)
}

fn handler() -> HandlerName {
    HandlerName::parse("h").unwrap()
}

fn worker() -> WorkerInfo {
    WorkerInfo { id: "w".into(), handlers: [handler()].into(), slots: 2, ..WorkerInfo::default() }
}

#[test]
fn a_stream_that_ends_while_its_successor_begins_does_not_close_the_worker() {
    check(|| {
        let (workers, reported) = pool();
        let old = workers.connect(worker(), &[]);
        let ending = shuttle::thread::spawn(move || {
            old.leave();
            drop(old);
        });
        let _new = workers.connect(worker(), &[]);
        ending.join().unwrap();
        assert_eq!(workers.inner.queue.slots(), 2, "the worker is connected");
        assert_eq!(reported.lock().slots, 2, "the newest report is the last");
    });
}

#[test]
fn an_attempt_for_a_worker_that_is_being_removed_stays_queued_or_is_driven() {
    check(|| {
        let (workers, reported) = pool();
        let connection = workers.connect(worker(), &[]);
        let pushing = workers.clone();
        let pushing = shuttle::thread::spawn(move || {
            let assignment = Assignment::sample(1, "h", "t", Priority::Normal, b"", false);
            pushing.push(&handler(), [Attempt::new(assignment)], [false; Priority::COUNT]);
            pushing.start_pushed();
        });
        workers.remove(&connection.worker);
        pushing.join().unwrap();
        let queued: usize = workers.inner.queue.counts().iter().sum();
        assert_eq!(queued + reported.lock().starts, 1);
    });
}
