//! Tests of the loop with a journal whose commits the test releases.

use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::sync::{Mutex, mpsc};

use crate::model::limits::OUTPUT_KEPT_BYTES;
use crate::model::{
    CancelMode, Durability, Event, HandlerName, MemoryPart, OutputStream, Payload, PoolKind, PoolName, PoolSpec,
    RequestKey, Revision, StoreId, SystemClock, TaskChange, TaskExtras, TaskFilter, TaskId, TaskOptions, TaskSpec,
    TaskState,
};
use crate::runners::{BoxFuture, Outcome, Registry, Run, RunReport, Runner, Runners};
use crate::scheduler::core::PoolUpdate;
use crate::scheduler::handle::Handle;
use crate::scheduler::refusal::Refusal;
use crate::scheduler::views::{CancelCommand, OutputSource, TaskParts};
use crate::store::{self, AppendDone, AppendError, COMMIT_BYTES_MAX, Commit, FaultyJournal, Journal, StoreError};
use crate::telemetry::panics;

use super::retention::DELETION_STEP;
use super::{Options, Recovery, Service};

/// Larger than a commit that the loop appends itself.
const MANY: usize = 300;

/// Bytes of a payload of which few fit into one commit.
const LARGE: usize = COMMIT_BYTES_MAX / 16;

pub(super) type Held = (Arc<Commit>, AppendDone);

/// Holds commits back that are appended in the background, until they are released.
pub(super) struct HeldJournal {
    pub(super) inner: FaultyJournal,
    appends_in_flight: usize,
    /// The bytes of each commit that was to be appended.
    appended: parking_lot::Mutex<Vec<usize>>,
    hold: mpsc::UnboundedSender<Held>,
    held: Mutex<mpsc::UnboundedReceiver<Held>>,
}

impl HeldJournal {
    /// The next large commit, once the loop has begun it.
    pub(super) async fn next(&self) -> Held {
        self.held.lock().await.recv().await.unwrap()
    }

    pub(super) fn make_durable(&self, (commit, done): Held) {
        done(self.inner.append(&commit));
    }

    async fn release(&self) {
        self.make_durable(self.next().await);
    }

    /// Releases every commit until the future is ready.
    async fn release_until<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        loop {
            tokio::select! {
                ready = &mut future => return ready,
                () = self.release() => {}
            }
        }
    }
}

impl Journal for HeldJournal {
    fn append(&self, commit: &Arc<Commit>) -> Result<(), AppendError> {
        self.appended.lock().push(commit.bytes);
        self.inner.append(commit)
    }

    fn append_in_background(&self, commit: Arc<Commit>, done: AppendDone) {
        self.appended.lock().push(commit.bytes);
        self.hold.send((commit, done)).unwrap();
    }

    fn appends_in_flight(&self) -> usize {
        self.appends_in_flight
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

    fn excess(&self, bytes: u64) -> Option<Revision> {
        self.inner.excess(bytes)
    }

    fn trim(&self, up_to: Revision) -> Result<(), StoreError> {
        self.inner.trim(up_to)
    }
}

pub(super) struct Fixture {
    pub(super) handle: Handle,
    pub(super) journal: Arc<HeldJournal>,
    thread: JoinHandle<()>,
}

impl Fixture {
    /// A running loop with a paused pool and a remote one. Its journal holds large commits.
    pub(super) fn start() -> Self {
        Self::start_with(1)
    }

    /// With more than one append in flight the journal holds all commits.
    pub(super) fn start_with(appends_in_flight: usize) -> Self {
        Self::start_handlers(appends_in_flight, Runners::new())
    }

    fn start_handlers(appends_in_flight: usize, handlers: Runners) -> Self {
        let pool = PoolSpec { paused: true, ..PoolSpec::with_defaults(PoolName::parse("default").unwrap(), 1) };
        let remote = PoolName::parse("remote").unwrap();
        let remote = PoolSpec { kind: PoolKind::Remote, size: 0, ..PoolSpec::with_defaults(remote, 1) };
        let mut options = Options::sample(vec![pool, remote]);
        options.core.retention.count = usize::MAX;
        let mut recovery = Recovery::new(options.core.clone());
        let (mut store, _) = store::open(&store::Options::default(), &mut recovery).unwrap();
        let (sender, receiver) = mpsc::unbounded_channel();
        let journal = Arc::new(HeldJournal {
            inner: FaultyJournal::new(store.journal),
            appends_in_flight,
            appended: parking_lot::Mutex::default(),
            hold: sender,
            held: Mutex::new(receiver),
        });
        store.journal = journal.clone();
        let runtime = tokio::runtime::Handle::current();
        let service = Service::start(
            options,
            store,
            recovery,
            Arc::new(Registry::from(handlers)),
            Arc::new(SystemClock),
            &runtime,
        );
        let service = service.unwrap();
        let handle = service.handle();
        let thread = std::thread::Builder::new().name("scheduler".to_owned());
        Self { handle, journal, thread: thread.spawn(move || service.run(&runtime)).unwrap() }
    }

    /// Returns when the loop has handled everything that was sent before.
    pub(super) async fn handled(&self) {
        self.handle.pools().await.unwrap();
    }

    fn update_pool(&self, update: PoolUpdate) -> impl Future<Output = Result<(), Refusal>> + Send + use<> {
        let handle = self.handle.clone();
        async move { handle.update_pool(update).await.map(drop) }
    }

    fn cancel(&self, id: &str) -> impl Future<Output = Result<(), Refusal>> + Send + use<> {
        let (handle, cancel) = (self.handle.clone(), cancel(id));
        async move { handle.cancel(cancel).await.map(drop) }
    }

    /// Submits a task with a large payload.
    /// Submits tasks and cancels them.
    async fn finish(&self, specs: Vec<TaskSpec>) {
        let ids: Vec<String> = specs.iter().map(|spec| spec.id.to_string()).collect();
        let submitted = self.handle.submit(specs);
        self.handled().await;
        self.journal.release_until(submitted).await.unwrap();
        for id in ids {
            self.journal.release_until(self.cancel(&id)).await.unwrap();
        }
    }

    fn submit_large(&self, id: &str) -> impl Future<Output = Result<(), Refusal>> + Send + use<> {
        let submitted = self.handle.submit(vec![TaskSpec { payload: vec![7; LARGE].into(), ..spec(id) }]);
        async move { submitted.await.map(drop) }
    }

    pub(super) fn events(&self) -> Vec<Event> {
        self.journal.read(Revision(0), usize::MAX).unwrap()
    }

    pub(super) async fn stop(self) {
        self.handle.drain(None);
        tokio::task::spawn_blocking(move || self.thread.join().unwrap()).await.unwrap();
    }
}

fn spec(id: &str) -> TaskSpec {
    let options = TaskOptions { pool: PoolName::parse("default").unwrap(), ..TaskOptions::sample() };
    TaskSpec { id: TaskId::parse(id).unwrap(), options: Arc::new(options), payload: Box::default(), extras: None }
}

fn cancel(id: &str) -> CancelCommand {
    let id = TaskId::parse(id).unwrap();
    CancelCommand { id, reason: "".into(), by: "test".into(), mode: CancelMode::Graceful, grace: None }
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
async fn a_command_that_comes_after_the_end_of_the_loop_is_refused_as_draining() {
    let fixture = Fixture::start();
    let (handle, cancel) = (fixture.handle.clone(), fixture.cancel("a"));
    let pool = PoolName::parse("default").unwrap();
    let update = PoolUpdate { name: pool.clone(), size: None, queue_limit: None, paused: Some(true), etag: None };
    let update = fixture.update_pool(update);
    fixture.stop().await;
    let submit = handle.submit(vec![spec("a")]);
    let refusals = [
        submit.await.err(),
        cancel.await.err(),
        update.await.err(),
        handle.delete(TaskFilter::default()).await.err(),
        handle.reset_counters(pool.clone()).await.err(),
        handle.pools().await.err(),
        handle.pool_metrics_of(pool, false).await.err(),
    ];
    for (n, refusal) in refusals.into_iter().enumerate() {
        assert!(matches!(refusal, Some(Refusal::Draining(_))), "command {n}: {refusal:?}");
    }
    assert_eq!(handle.drain_and_count_running(None).await.unwrap(), 0);
}

#[tokio::test]
async fn a_refusal_waits_until_the_task_that_it_reports_is_durable() {
    let fixture = Fixture::start();
    let with_request_id = |id| {
        let request = Some(Arc::new(RequestKey { id: "r".into(), digest: None }));
        with_extras(spec(id), TaskExtras { request, ..Default::default() })
    };
    let mut first = many("a");
    first[0] = with_request_id("a0");
    let repeated = first[1].clone();
    let submitted = fixture.handle.submit_found(fixture.handle.look_up(first).await.unwrap());
    let exists = fixture.handle.submit(vec![other(spec("a5"))]);
    let reused = fixture.handle.look_up(vec![other(with_request_id("a0"))]).await.unwrap();
    let reused = fixture.handle.submit_found(reused);
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
async fn a_cancel_of_many_tasks_has_a_result_for_each_when_all_are_durable() {
    let fixture = Fixture::start();
    let submitted = fixture.handle.submit(many("a"));
    fixture.handled().await;
    fixture.journal.release().await;
    submitted.await.unwrap();
    fixture.cancel("a1").await.unwrap();
    let ids = (0..MANY).map(|n| format!("a{n}")).chain(["unknown".to_owned()]);
    let (handle, cancels) = (fixture.handle.clone(), ids.map(|id| cancel(&id)).collect());
    let mut cancelled = async move { handle.cancel_each(cancels).await }.boxed();
    assert!((&mut cancelled).now_or_never().is_none());
    fixture.handled().await;
    assert!((&mut cancelled).now_or_never().is_none(), "the reply left before the ends were durable");
    fixture.journal.release().await;
    let results = cancelled.await.unwrap();
    let (last, others) = results.split_last().unwrap();
    assert!(matches!(last, Err(Refusal::TaskNotFound(_))), "{last:?}");
    assert_eq!(others.len(), MANY);
    assert!(others.iter().all(|result| matches!(result, Ok(TaskState::Cancelled))), "{others:?}");
    fixture.stop().await;
}

#[tokio::test]
async fn a_large_deletion_lets_other_calls_pass_and_is_answered_when_it_is_durable() {
    let fixture = Fixture::start();
    for batch in 0..30 {
        fixture.finish(many(&format!("{batch}-"))).await;
    }
    let handle = fixture.handle.clone();
    let mut deleted = async move { handle.delete(TaskFilter::default()).await }.boxed();
    assert!((&mut deleted).now_or_never().is_none());
    // Sent after the deletion and served between two of its steps.
    let submitted = fixture.handle.submit(vec![spec("new")]);
    fixture.handled().await;
    assert!((&mut deleted).now_or_never().is_none(), "the deletion is not durable");
    let deleted = fixture.journal.release_until(deleted).await.unwrap().0;
    submitted.await.unwrap();
    assert_eq!(deleted, 30 * MANY as u64);
    fixture.stop().await;
}

#[tokio::test]
async fn a_large_deletion_does_not_run_ahead_of_the_journal_however_large_its_events_are() {
    const TASK_BYTES: usize = 2_048;
    let fixture = Fixture::start();
    for batch in 0..15 {
        let mut specs = many(&format!("{batch}-"));
        for spec in &mut specs {
            let name = format!("{}{}", spec.id, "x".repeat(TASK_BYTES));
            Arc::make_mut(&mut spec.options).display_name = name.into();
        }
        fixture.finish(specs).await;
    }
    let handle = fixture.handle.clone();
    let mut deleted = async move { handle.delete(TaskFilter::default()).await }.boxed();
    assert!((&mut deleted).now_or_never().is_none());
    for _ in 0..20 {
        fixture.handled().await;
    }
    let submitted = fixture.handle.submit(vec![spec("new")]);
    fixture.handled().await;
    fixture.journal.release_until(submitted).await.unwrap();
    let events = fixture.events();
    let before = events.iter().filter_map(Event::task).take_while(|event| event.task.to_string() != "new");
    let before = before.filter(|event| matches!(event.change, TaskChange::Deleted)).count();
    let most = COMMIT_BYTES_MAX / TASK_BYTES + DELETION_STEP;
    assert!((1..=most).contains(&before), "{before} of {} tasks", 15 * MANY);
    fixture.journal.release_until(deleted).await.unwrap();
    fixture.stop().await;
}

fn submitted_ids(events: &[Event]) -> Vec<String> {
    let submissions = events.iter().filter_map(Event::task).filter(|event| event.previous == event.state);
    submissions.map(|event| event.task.to_string()).collect()
}

#[tokio::test]
async fn what_piles_up_while_the_store_refuses_is_appended_in_commits_within_the_bound() {
    let fixture = Fixture::start();
    let mut replies = vec![async { fixture.handle.submit(many("a")).await.map(drop) }.boxed()];
    assert!((&mut replies[0]).now_or_never().is_none());
    let first = fixture.journal.next().await;
    let large: Vec<String> = (0..40).map(|n| format!("b{n}")).collect();
    for id in &large {
        replies.push(fixture.submit_large(id).boxed());
    }
    let update = PoolUpdate {
        name: PoolName::parse("default").unwrap(),
        size: Some(2),
        paused: None,
        queue_limit: None,
        etag: None,
    };
    replies.push(async { fixture.handle.update_pool(update).await.map(drop) }.boxed());
    assert!(replies.last_mut().unwrap().now_or_never().is_none());
    fixture.handled().await;
    fixture.journal.inner.fail_next(FaultyJournal::full(), false);
    fixture.journal.make_durable(first);
    for reply in fixture.journal.release_until(join_all(replies)).await {
        assert!(matches!(reply, Err(Refusal::StoreUnavailable(_))));
    }
    assert!(fixture.events().is_empty());
    // The loop tries again by itself, and accepts calls once everything is durable that was decided.
    let accepted = async {
        while fixture.handle.submit(vec![spec("c")]).await.is_err() {
            fixture.handled().await;
        }
    };
    fixture.journal.release_until(accepted).await;
    let appended = fixture.journal.appended.lock().clone();
    assert!(appended.iter().all(|bytes| *bytes <= COMMIT_BYTES_MAX), "{appended:?}");
    let events = fixture.events();
    assert!(events.iter().map(|event| event.revision().0).eq(1..=events.len() as u64));
    let expected = (0..MANY).map(|n| format!("a{n}")).chain(large).chain(["c".to_owned()]);
    assert_eq!(submitted_ids(&events), expected.collect::<Vec<_>>());
    let (pools, _) = fixture.handle.pools().await.unwrap();
    assert_eq!((pools[0].spec.size, events.len()), (2, MANY + 42), "the pool's update is kept too");
    fixture.stop().await;
}

#[tokio::test]
async fn a_decision_that_fills_a_commit_is_answered_with_the_next_one() {
    let fixture = Fixture::start();
    let submitted = fixture.handle.submit(many("a"));
    let mut held = vec![fixture.journal.next().await];
    let mut replies: Vec<_> = (0..40).map(|n| fixture.submit_large(&format!("b{n}")).boxed()).collect();
    // Full commits are sent ahead.
    held.push(fixture.journal.next().await);
    held.push(fixture.journal.next().await);
    fixture.journal.make_durable(held.remove(0));
    submitted.await.unwrap();
    let mut unanswered = 0;
    for held in held {
        assert!(held.0.bytes <= COMMIT_BYTES_MAX);
        for (n, reply) in replies.iter_mut().enumerate() {
            assert!(reply.now_or_never().is_none(), "{n} was answered before it was durable");
        }
        let tasks = submitted_ids(&held.0.events);
        let expected = unanswered..unanswered + tasks.len();
        assert_eq!(tasks, expected.map(|n| format!("b{n}")).collect::<Vec<_>>());
        fixture.journal.make_durable(held);
        for reply in replies.drain(..tasks.len()) {
            reply.await.unwrap();
        }
        unanswered += tasks.len();
    }
    // The loop appends the last, small commit itself.
    for reply in replies {
        reply.await.unwrap();
    }
    fixture.stop().await;
}

#[tokio::test]
async fn decisions_do_not_wait_for_the_appends_before_them_if_the_journal_wants_several() {
    let fixture = Fixture::start_with(8);
    let mut replies: Vec<_> = Vec::new();
    let mut held = std::collections::VecDeque::new();
    for n in 0..8 {
        replies.push(fixture.handle.submit(vec![spec(&format!("a{n}"))]).boxed());
        held.push_back(fixture.journal.next().await);
    }
    for n in 8..12 {
        replies.push(fixture.handle.submit(vec![spec(&format!("a{n}"))]).boxed());
        fixture.handled().await;
    }
    for (n, reply) in replies.into_iter().enumerate() {
        let mut reply = reply;
        if n <= 8 {
            assert!((&mut reply).now_or_never().is_none(), "{n} was answered before it was durable");
            fixture.journal.make_durable(held.pop_front().unwrap());
        }
        reply.await.unwrap();
        if n == 0 {
            // What was decided while eight were in flight shares the next one.
            held.push_back(fixture.journal.next().await);
            assert_eq!(held.back().unwrap().0.events.len(), 4);
        }
    }
    fixture.stop().await;
}

#[test]
fn a_server_that_cannot_rely_on_its_journal_exits_with_a_log_line() {
    let tests = [
        ("its_journal_has_an_unknown_outcome", "failed to sync `some/journal.db`: no luck"),
        (
            "its_journal_belongs_to_another_server",
            "`some/journal.db` now belongs to another server (epoch 8; that of this server is 7)",
        ),
    ];
    for (test, cause) in tests {
        let (code, text) = panics::run_ignored_test(&format!("scheduler::service::tests::{test}"));
        assert_eq!(code, Some(1), "{text}");
        let line = text.lines().find(|line| line.contains("the server exits")).unwrap_or_else(|| panic!("{text}"));
        assert!(line.contains(cause), "{line}");
    }
}

async fn append_with(error: AppendError) {
    panics::install_for_test();
    let fixture = Fixture::start();
    fixture.journal.inner.fail_next(error, true);
    let answer = fixture.handle.submit(vec![spec("a")]).await;
    panic!("the call was answered: {answer:?}");
}

#[tokio::test]
#[ignore = "ends the process; another test starts it"]
async fn its_journal_has_an_unknown_outcome() {
    append_with(FaultyJournal::sync_failed()).await;
}

#[tokio::test]
#[ignore = "ends the process; another test starts it"]
async fn its_journal_belongs_to_another_server() {
    let fenced = StoreError::Fenced { path: "some/journal.db".into(), epoch: 7, owner: 8 };
    append_with(AppendError::Fenced(fenced)).await;
}

/// Writes some output and completes.
struct Writes;

impl Runner for Writes {
    fn run(&self, run: Run) -> BoxFuture<RunReport> {
        run.output.write(OutputStream::Stdout, b"hello");
        Box::pin(async { Outcome::Completed(Payload { data: "".into(), content_type: "".into() }).into() })
    }
}

#[tokio::test]
async fn the_output_of_an_attempt_can_be_read_before_its_end_is_durable() {
    let mut handlers = Runners::new();
    handlers.insert(HandlerName::parse("work").unwrap(), Arc::new(Writes));
    let fixture = Fixture::start_handlers(8, handlers);
    let name = PoolName::parse("default").unwrap();
    let resume = PoolUpdate { name, size: None, paused: Some(false), queue_limit: None, etag: None };
    fixture.journal.release_until(fixture.update_pool(resume)).await.unwrap();
    let submitted = fixture.handle.submit(vec![spec("a")]);
    let is_end = |event: &Event| event.task().is_some_and(|event| event.state == TaskState::Completed);
    let end = loop {
        let held = fixture.journal.next().await;
        if held.0.events.iter().any(is_end) {
            break held;
        }
        fixture.journal.make_durable(held);
    };
    submitted.await.unwrap();
    let id = TaskId::parse("a").unwrap();
    let assert_readable = async |has_ended: bool| {
        assert_eq!(fixture.handle.get(&id).await.unwrap().task.status.state.is_terminal(), has_ended);
        for attempt in [0, 1] {
            let source = fixture.handle.output(&id, attempt).await.unwrap();
            let OutputSource::Stored { attempt: 1, output } = &source else { panic!("{source:?}") };
            assert_eq!(&*output.stdout.head, b"hello");
        }
        let other = fixture.handle.output(&id, 2).await.unwrap();
        assert!(matches!(other, OutputSource::Empty), "{other:?}");
    };
    assert_readable(false).await;
    fixture.journal.make_durable(end);
    fixture.handled().await;
    assert_readable(true).await;
    fixture.stop().await;
}

#[tokio::test]
async fn a_large_task_is_read_once_there_is_memory_for_it() {
    let fixture = Fixture::start();
    let submitted = fixture.handle.submit(vec![TaskSpec { payload: vec![7; 3 << 20].into(), ..spec("a") }]);
    fixture.journal.release_until(submitted).await.unwrap();
    let (id, caller, memory) = (TaskId::parse("a").unwrap(), Arc::<str>::from("me"), fixture.handle.memory());
    let (used, limit) = (|| memory.used(MemoryPart::Responses), memory.limit(MemoryPart::Responses));
    let (_, share) = fixture.handle.get_for_response(&id, TaskParts::default(), &caller).await.unwrap();
    let usual = used();
    drop(share);
    let with_output = TaskParts { payload: false, output: true };
    let (_, share) = fixture.handle.get_for_response(&id, with_output, &caller).await.unwrap();
    assert_eq!(used(), usual + 4 * OUTPUT_KEPT_BYTES as u64, "what is read for the excerpt counts");
    drop(share);
    let held = memory.share_now(MemoryPart::Responses, &"other".into(), limit - usual);
    let with_payload = TaskParts { payload: true, output: false };
    let mut waiting = pin!(fixture.handle.get_for_response(&id, with_payload, &caller));
    assert!(waiting.as_mut().now_or_never().is_none());
    assert_eq!(used(), limit - usual, "it holds nothing while it waits");
    drop(held);
    let (found, share) = waiting.await.unwrap();
    assert_eq!(found.task.spec.payload.len(), 3 << 20);
    assert!(used() > 6 << 20 && used() > usual);
    drop(share);
    assert_eq!(used(), 0);
}
