//! Tests of the loop with a journal whose commits the test releases.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Mutex, mpsc};

use crate::model::{
    CancelMode, Durability, Event, PoolName, PoolSpec, Revision, StoreId, SystemClock, TaskExtras, TaskFilter, TaskId,
    TaskOptions, TaskSpec,
};
use crate::scheduler::handle::Handle;
use crate::scheduler::refusal::Refusal;
use crate::scheduler::views::CancelCommand;
use crate::store::{self, AppendDone, Commit, Journal, StoreError};

use super::{Options, Recovery, Service};

/// Larger than a commit that the loop appends itself.
const MANY: usize = 300;

type Held = (Arc<Commit>, AppendDone);

/// Holds large commits back until they are released.
struct HeldJournal {
    inner: Arc<dyn Journal>,
    hold: mpsc::UnboundedSender<Held>,
    held: Mutex<mpsc::UnboundedReceiver<Held>>,
}

impl HeldJournal {
    /// The next large commit, once the loop has begun it.
    async fn next(&self) -> Held {
        self.held.lock().await.recv().await.unwrap()
    }

    fn make_durable(&self, (commit, done): Held) {
        done(self.inner.append(&commit));
    }

    async fn release(&self) {
        self.make_durable(self.next().await);
    }
}

impl Journal for HeldJournal {
    fn append(&self, commit: &Arc<Commit>) -> Result<(), StoreError> {
        self.inner.append(commit)
    }

    fn append_in_background(&self, commit: Arc<Commit>, done: AppendDone) {
        self.hold.send((commit, done)).unwrap();
    }

    fn epoch(&self) -> u64 {
        self.inner.epoch()
    }

    fn store_id(&self) -> StoreId {
        self.inner.store_id()
    }

    fn durability(&self) -> Durability {
        self.inner.durability()
    }

    fn read(&self, after: Revision, limit: usize) -> Result<Vec<Event>, StoreError> {
        self.inner.read(after, limit)
    }

    fn oldest(&self) -> Revision {
        self.inner.oldest()
    }

    fn trim(&self, up_to: Revision) -> Result<(), StoreError> {
        self.inner.trim(up_to)
    }
}

struct Fixture {
    handle: Handle,
    journal: Arc<HeldJournal>,
    thread: JoinHandle<()>,
}

impl Fixture {
    /// A running loop whose only pool is paused.
    fn start() -> Self {
        let pool = PoolSpec { paused: true, ..PoolSpec::with_defaults(PoolName::parse("default").unwrap(), 1) };
        let mut options = Options::sample(vec![pool]);
        options.core.retention_count = usize::MAX;
        let mut recovery = Recovery::new(options.core.clone());
        let (mut store, _) = store::open(&store::Options::default(), &mut recovery).unwrap();
        let (sender, receiver) = mpsc::unbounded_channel();
        let journal = Arc::new(HeldJournal { inner: store.journal, hold: sender, held: Mutex::new(receiver) });
        store.journal = journal.clone();
        let runtime = tokio::runtime::Handle::current();
        let service = Service::start(options, store, recovery, Arc::default(), Arc::new(SystemClock), &runtime);
        let service = service.unwrap();
        let handle = service.handle();
        let thread = std::thread::Builder::new().name("scheduler".to_owned());
        Self { handle, journal, thread: thread.spawn(move || service.run(&runtime)).unwrap() }
    }

    /// Returns when the loop has handled everything that was sent before.
    async fn handled(&self) {
        self.handle.pools().await.unwrap();
    }

    fn cancel(&self, id: &str) -> impl Future<Output = Result<(), Refusal>> + Send + use<> {
        let (handle, id) = (self.handle.clone(), TaskId::parse(id).unwrap());
        let cancel =
            CancelCommand { id, reason: "".into(), by: "test".into(), mode: CancelMode::Graceful, grace: None };
        async move { handle.cancel(cancel).await.map(drop) }
    }

    async fn stop(self) {
        self.handle.drain(None);
        tokio::task::spawn_blocking(move || self.thread.join().unwrap()).await.unwrap();
    }
}

fn spec(id: &str) -> TaskSpec {
    let options = TaskOptions { pool: PoolName::parse("default").unwrap(), ..TaskOptions::sample() };
    TaskSpec { id: TaskId::parse(id).unwrap(), options: Arc::new(options), payload: Box::default(), extras: None }
}

fn with_extras(spec: TaskSpec, extras: TaskExtras) -> TaskSpec {
    TaskSpec { extras: extras.boxed(), ..spec }
}

/// The same task with another payload.
fn other(spec: TaskSpec) -> TaskSpec {
    TaskSpec { payload: Box::from(*b"other"), ..spec }
}

fn many(prefix: &str) -> Vec<TaskSpec> {
    (0..MANY).map(|n| spec(&format!("{prefix}{n}"))).collect()
}

#[tokio::test]
async fn a_refusal_waits_until_the_task_that_it_reports_is_durable() {
    let fixture = Fixture::start();
    let with_request_id = |id| with_extras(spec(id), TaskExtras { request_id: Some("r".into()), ..Default::default() });
    let mut first = many("a");
    first[0] = with_request_id("a0");
    let repeated = first[1].clone();
    let submitted = fixture.handle.submit(first);
    let exists = fixture.handle.submit(vec![other(spec("a5"))]);
    let reused = fixture.handle.submit(vec![other(with_request_id("b"))]);
    let duplicate = fixture.handle.submit(vec![repeated]);
    let mut waiting = [exists.boxed(), reused.boxed(), duplicate.boxed()];
    fixture.handled().await;
    for (n, reply) in waiting.iter_mut().enumerate() {
        assert!(reply.now_or_never().is_none(), "reply {n} left before the tasks were durable");
    }
    fixture.journal.release().await;
    submitted.await.unwrap();
    let [exists, reused, duplicate] = waiting;
    assert!(matches!(exists.await, Err(Refusal::TaskExists(_))));
    assert!(matches!(reused.await, Err(Refusal::RequestIdReused(_))));
    assert!(duplicate.await.unwrap().accepted[0].duplicate);
    fixture.stop().await;
}

#[tokio::test]
async fn a_cancel_is_refused_after_the_end_that_refuses_it_is_durable() {
    let fixture = Fixture::start();
    let extras = TaskExtras { expires_after: Some(Duration::from_micros(1)), ..Default::default() };
    let expiring = many("a").into_iter().map(|spec| with_extras(spec, extras.clone())).collect();
    let submitted = fixture.handle.submit(expiring);
    let submission = fixture.journal.next().await;
    // The tasks have expired by the next turn of the loop. Neither their submission nor their end is durable.
    let mut finished = fixture.cancel("a0").boxed();
    assert!((&mut finished).now_or_never().is_none());
    fixture.handled().await;
    assert!((&mut finished).now_or_never().is_none(), "the refusal left before the end was durable");
    fixture.journal.make_durable(submission);
    submitted.await.unwrap();
    assert!((&mut finished).now_or_never().is_none(), "the refusal left before the end was durable");
    // The next commit contains the ends.
    fixture.journal.release().await;
    assert!(matches!(finished.await, Err(Refusal::TaskFinished(_))));
    fixture.stop().await;
}

#[tokio::test]
async fn a_large_deletion_lets_other_calls_pass_and_is_answered_when_it_is_durable() {
    let fixture = Fixture::start();
    for batch in 0..30 {
        let specs = many(&format!("{batch}-"));
        let ids: Vec<String> = specs.iter().map(|spec| spec.id.to_string()).collect();
        let submitted = fixture.handle.submit(specs);
        fixture.handled().await;
        fixture.journal.release().await;
        submitted.await.unwrap();
        for id in ids {
            fixture.cancel(&id).await.unwrap();
        }
    }
    let handle = fixture.handle.clone();
    let mut deleted = async move { handle.delete(TaskFilter::default()).await }.boxed();
    assert!((&mut deleted).now_or_never().is_none());
    // Sent after the deletion and served between two of its steps.
    let submitted = fixture.handle.submit(vec![spec("new")]);
    fixture.handled().await;
    assert!((&mut deleted).now_or_never().is_none(), "the deletion is not durable");
    let deleted = loop {
        tokio::select! {
            deleted = &mut deleted => break deleted.unwrap().0,
            () = fixture.journal.release() => {}
        }
    };
    submitted.await.unwrap();
    assert_eq!(deleted, 30 * MANY as u64);
    fixture.stop().await;
}
