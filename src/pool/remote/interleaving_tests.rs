//! Streams of workers that begin and end while attempts start, end and are stopped, under many interleavings that shuttle
//! chooses. A lost wake-up of a stream appears as a deadlock.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::task::Poll;
use std::time::Duration;

use shuttle::future::block_on;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::sync::mpsc;
use tokio::runtime;

use super::{RemoteConnection, RemoteWorkers, WorkerInfo};
use crate::artifacts::{ArtifactStore, Options};
use crate::model::{HandlerName, MemoryAccount, Payload, PoolName, PoolSpec, Priority, SystemClock, Timestamp};
use crate::pool::{Assignment, Attempt, Report, WorkerContext};
use crate::runners::remote::{CloseReason, Command, Token, WorkerReport};
use crate::runners::sync::{Mutex, run_interleaved};
use crate::runners::{Outcome, Registry, ResultMemory, StopCause};
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
    /// Gets the attempts that have ended.
    ended: Option<mpsc::Sender<Report>>,
}

impl Reported {
    fn add(&mut self, report: Report) {
        match report {
            Report::Started { .. } => self.starts += 1,
            Report::Finished { .. } => {
                if let Some(ended) = &self.ended {
                    ended.send(report).expect("the scheduler of the test waits");
                }
            }
            Report::Many(reports) => reports.into_iter().for_each(|report| self.add(report)),
            Report::Slots { total, .. } => self.slots = total,
        }
    }
}

fn pool() -> (RemoteWorkers, Arc<Mutex<Reported>>) {
    let reported = Arc::<Mutex<Reported>>::default();
    let sink = reported.clone();
    let reports = move |report| sink.lock().add(report);
    let context = WorkerContext {
        registry: Arc::new(Registry::default()),
        clock: Arc::new(SystemClock),
        reports: Arc::new(reports),
        payloads: Arc::new(|_| Box::pin(std::future::ready(Err("no store".to_owned())))),
        parents: Arc::new(|_, _| Box::pin(std::future::ready(Err("no store".to_owned())))),
        runtime: RUNTIME.handle().clone(),
        metrics: Metrics::off(),
        worker_lease: Duration::from_secs(30),
        catalog: Arc::default(),
        results: ResultMemory::new(MemoryAccount::new(|_| 0)),
        artifacts: ArtifactStore::new(Options::sample(Path::new(""))),
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

fn attempt(fence: u64) -> Arc<Attempt> {
    Attempt::new(Assignment::sample(fence, "h", "t", Priority::Normal, b"", false))
}

fn start(workers: &RemoteWorkers, attempt: Arc<Attempt>) {
    workers.push(&handler(), [attempt], [false; Priority::COUNT]);
    workers.start_pushed();
}

/// Waits as a stream does for the next commands.
fn next_commands(connection: &RemoteConnection) -> VecDeque<Command> {
    let mut commands = VecDeque::new();
    block_on(poll_fn(|context| {
        connection.poll_commands(context, &mut commands);
        if commands.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }));
    commands
}

/// Waits for commands until one is of the kind that is wanted, and returns the number of assignments until then.
fn wait_for(connection: &RemoteConnection, is_wanted: impl Fn(&Command) -> bool) -> usize {
    let mut assigned = 0;
    loop {
        for command in next_commands(connection) {
            assigned += usize::from(matches!(command, Command::Assign(_)));
            if is_wanted(&command) {
                return assigned;
            }
        }
    }
}

fn finish(connection: &RemoteConnection, fence: u64) {
    let report = Outcome::Completed(Payload::default()).into();
    connection.receive(vec![WorkerReport::Accepted(Token(fence)), WorkerReport::Finished(Token(fence), report, None)]);
}

#[test]
fn every_attempt_wakes_the_stream_of_its_worker() {
    check(|| {
        let (workers, _) = pool();
        let connection = workers.connect(worker(), &[]);
        let pushing = workers.clone();
        let pushing = shuttle::thread::spawn(move || {
            start(&pushing, attempt(1));
            start(&pushing, attempt(2));
        });
        let mut assigned = 0;
        while assigned < 2 {
            let commands = next_commands(&connection);
            assigned += commands.iter().filter(|command| matches!(command, Command::Assign(_))).count();
        }
        pushing.join().unwrap();
    });
}

#[test]
fn an_end_gives_the_slot_to_the_next_attempt_and_the_worker_hears_when_it_is_durable() {
    check(|| {
        let (workers, reported) = pool();
        let (sender, ended) = mpsc::channel();
        reported.lock().ended = Some(sender);
        let connection = workers.connect(WorkerInfo { slots: 1, ..worker() }, &[]);
        let scheduler = workers.clone();
        let scheduler = shuttle::thread::spawn(move || {
            start(&scheduler, attempt(1));
            start(&scheduler, attempt(2));
            for fence in 1..=2 {
                let Report::Finished { attempt, link: Some(link), .. } = ended.recv().unwrap() else { panic!() };
                assert_eq!(attempt.ticket().fence, fence);
                link.settle([Token(fence)]);
                link.wake();
            }
        });
        let mut settled = Vec::new();
        while settled.len() < 2 {
            for command in next_commands(&connection) {
                match command {
                    Command::Assign(assigned) => finish(&connection, assigned.token.0),
                    Command::Settle(tokens) => settled.extend(tokens),
                    other => panic!("{other:?}"),
                }
            }
        }
        scheduler.join().unwrap();
        assert_eq!((settled, reported.lock().starts), (vec![Token(1), Token(2)], 2));
    });
}

#[test]
fn a_stop_reaches_the_worker_whether_the_attempt_is_sent_or_about_to_be() {
    check(|| {
        let (workers, _) = pool();
        let connection = workers.connect(worker(), &[]);
        let stopped = attempt(1);
        let stopping = stopped.clone();
        let stopping =
            shuttle::thread::spawn(move || stopping.stop(Timestamp::ZERO, StopCause::Cancel, Duration::from_hours(1)));
        let pushing = workers.clone();
        let pushing = shuttle::thread::spawn(move || start(&pushing, stopped));
        let is_cancel = |command: &Command| matches!(command, Command::Cancel { cause: StopCause::Cancel, .. });
        assert_eq!(wait_for(&connection, is_cancel), 1, "first it is assigned");
        stopping.join().unwrap();
        pushing.join().unwrap();
    });
}

#[test]
fn an_attempt_that_was_not_accepted_is_sent_on_the_next_stream_and_the_replaced_stream_ends() {
    check(|| {
        let (workers, _) = pool();
        let old = workers.connect(worker(), &[]);
        let reading = shuttle::thread::spawn(move || {
            wait_for(&old, |command| matches!(command, Command::Close(CloseReason::Replaced)));
        });
        let pushing = workers.clone();
        let pushing = shuttle::thread::spawn(move || start(&pushing, attempt(1)));
        let new = workers.connect(worker(), &[]);
        wait_for(&new, |command| matches!(command, Command::Assign(_)));
        reading.join().unwrap();
        pushing.join().unwrap();
    });
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
        assert_eq!(workers.inner.attempts.queue.slots(), 2, "the worker is connected");
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
            start(&pushing, attempt(1));
        });
        workers.remove(&connection.worker);
        pushing.join().unwrap();
        let queued: usize = workers.inner.attempts.queue.counts().iter().sum();
        assert_eq!(queued + reported.lock().starts, 1);
    });
}
