//! What a watch returns, and which commits wake it.

use std::pin::pin;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::model::{BatchId, HandlerName, Holds, MemoryAccount, Namespace, TaskId, TaskOptions, TaskState, Timestamp};
use crate::store::{Journal, MemoryJournal};

/// The number of a task, its options, and the options that the event replaces.
type NewEvent<'a> = (usize, &'a Arc<TaskOptions>, Option<&'a Arc<TaskOptions>>);

struct Events {
    hub: Arc<Hub>,
    journal: Arc<MemoryJournal>,
    last: Revision,
    all: Vec<TaskEvent>,
}

impl Events {
    fn new() -> Self {
        let journal = Arc::<MemoryJournal>::default();
        let hub = hub(&journal, Revision::default());
        Self { hub, journal, last: Revision::default(), all: Vec::new() }
    }

    fn publish(&mut self, events: &[NewEvent<'_>]) {
        let events = events.iter().map(|(task, options, before)| {
            self.last = self.last.next();
            let before = before.cloned();
            let change = if before.is_some() {
                TaskChange::Updated { delay: None, expires_after: None, before }
            } else {
                TaskChange::Eligible
            };
            TaskEvent {
                revision: self.last,
                at: Timestamp(self.last.0),
                task: task_id(*task),
                options: Arc::clone(options),
                previous: TaskState::Queued,
                state: TaskState::Queued,
                attempt: 0,
                holds: Holds::NONE,
                hold: None,
                change,
            }
        });
        let events: Vec<_> = events.collect();
        self.all.extend_from_slice(&events);
        let commit = Arc::new(Commit::new(events.into_iter().map(Event::Task).collect(), false));
        self.journal.append(&commit).unwrap();
        self.hub.publish(&commit);
    }

    fn watch(&self, filter: &TaskFilter, after: Option<Revision>) -> Watch {
        Watch::new(self.hub.clone(), filter.clone(), after, "test".into()).unwrap()
    }

    fn matching(&self, filter: &TaskFilter, after: Revision) -> Vec<Revision> {
        let matching = self.all.iter().filter(|event| event.revision > after && filter.matches_event(event));
        matching.map(|event| event.revision).collect()
    }
}

fn hub(journal: &Arc<MemoryJournal>, revision: Revision) -> Arc<Hub> {
    let memory = MemoryAccount::new(|_| 64 << 20);
    Arc::new(Hub::new(journal.clone(), revision, CancellationToken::new(), Arc::default(), memory))
}

fn task_id(number: usize) -> TaskId {
    TaskId::parse(&format!("t-{number}")).unwrap()
}

/// Of this namespace, batch and handler.
fn options(number: usize) -> Arc<TaskOptions> {
    Arc::new(TaskOptions {
        namespace: Namespace::parse(&format!("n-{number}")).unwrap(),
        batch: Some(BatchId::parse(&format!("b-{number}")).unwrap()),
        handler: HandlerName::parse(&format!("h-{number}")).unwrap(),
        ..TaskOptions::sample()
    })
}

/// Filters that the index finds by each of its keys, for the task and the options of this number.
fn indexed(number: usize) -> [TaskFilter; 4] {
    let TaskOptions { namespace, batch, handler, .. } = TaskOptions::clone(&options(number));
    [
        TaskFilter { ids: vec![task_id(number), task_id(number)], ..TaskFilter::default() },
        TaskFilter { batch, ..TaskFilter::default() },
        TaskFilter { namespaces: vec![namespace], ..TaskFilter::default() },
        TaskFilter { handler: Some(handler), ..TaskFilter::default() },
    ]
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn only_a_commit_that_may_concern_a_watch_wakes_it() {
    let mut events = Events::new();
    let (mine, others) = (options(1), options(2));
    for (filter, is_indexed) in
        indexed(1).into_iter().map(|filter| (filter, true)).chain([(TaskFilter::default(), false)])
    {
        let mut watch = events.watch(&filter, None);
        let wakes = Arc::<Wakes>::default();
        let counting = Waker::from(Arc::clone(&wakes));
        let mut next = pin!(watch.next());
        assert!(next.as_mut().poll(&mut Context::from_waker(&counting)).is_pending());
        events.publish(&[(2, &others, None), (3, &others, None)]);
        assert_eq!(wakes.0.load(Ordering::Relaxed), usize::from(!is_indexed), "{filter:?}");
        events.publish(&[(2, &others, None), (1, &mine, None)]);
        assert!(wakes.0.load(Ordering::Relaxed) > 0, "{filter:?}");
    }
    assert!(events.hub.register(&TaskFilter::default()).0.is_none());
}

#[test]
fn a_task_that_leaves_a_filter_by_an_update_concerns_its_watches() {
    let mut events = Events::new();
    for filter in &indexed(1)[1..] {
        let mut watch = events.watch(filter, None);
        events.publish(&[(7, &options(2), Some(&options(1)))]);
        let event = watch.next().now_or_never().unwrap().unwrap().expect("the event matches");
        assert_eq!(event.revision(), events.last);
    }
}

#[test]
fn a_watch_returns_each_matching_event_once_and_in_order_whenever_it_looks() {
    let mut random = 7_u64;
    let mut below = move |limit: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((random >> 33) % limit).unwrap()
    };
    for _ in 0..50 {
        let mut events = Events::new();
        let all: Vec<_> = (0..4).map(options).collect();
        let mut commit = |events: &mut Events| {
            for _ in 0..=below(3) {
                let picked: Vec<_> = (0..=below(4)).map(|_| (below(6), below(4), below(8))).collect();
                let picked = picked.iter().map(|(task, now, before)| (*task, &all[*now], all.get(*before)));
                events.publish(&picked.collect::<Vec<_>>());
            }
            below(2) == 0
        };
        commit(&mut events);
        let filters: Vec<_> = (0..3).flat_map(indexed).chain([TaskFilter::default()]).collect();
        let starts = [None, Some(Revision::default())];
        let mut watches: Vec<_> = filters
            .iter()
            .flat_map(|filter| starts.map(|start| (filter, start)))
            .map(|(filter, start)| (filter, start.unwrap_or(events.last), events.watch(filter, start), Vec::new()))
            .collect();
        for _ in 0..10 {
            let looks = commit(&mut events);
            for (_, _, watch, seen) in watches.iter_mut().filter(|_| looks) {
                while let Some(found) = watch.next().now_or_never() {
                    seen.extend(found.unwrap().map(|event| event.revision()));
                }
                assert_eq!(watch.reached(), events.last);
            }
        }
        for (filter, start, mut watch, mut seen) in watches {
            while let Some(found) = watch.next().now_or_never() {
                seen.extend(found.unwrap().map(|event| event.revision()));
            }
            assert_eq!(seen, events.matching(filter, start), "{filter:?} after {start:?}");
        }
    }
}

#[test]
fn no_event_is_returned_before_its_revision_is_the_newest_one() {
    const COMMITS: usize = 20_000;
    let mut events = Events::new();
    let (hub, mine) = (events.hub.clone(), options(1));
    let filters = indexed(1).into_iter().chain([TaskFilter::default()]);
    let watches: Vec<_> = filters.map(|filter| events.watch(&filter, None)).collect();
    let follow = |mut watch: Watch| {
        for _ in 0..COMMITS {
            let mut found = std::iter::repeat_with(|| watch.next().now_or_never()).flatten();
            let event = found.find_map(Result::unwrap).unwrap();
            assert!(event.revision() <= hub.revision());
        }
    };
    std::thread::scope(|scope| {
        for watch in watches {
            let thread = std::thread::Builder::new().name("watch".to_owned());
            thread.spawn_scoped(scope, || follow(watch)).unwrap();
        }
        for _ in 0..COMMITS {
            events.publish(&[(1, &mine, None)]);
        }
    });
}

#[tokio::test]
async fn a_resumed_watch_reads_the_journal_and_continues_with_new_events() {
    let mut events = Events::new();
    let (mine, others) = (options(1), options(2));
    events.publish(&[(1, &mine, None), (2, &others, None)]);
    // A later server, which has no events in memory.
    events.hub = hub(&events.journal, events.last);
    for filter in indexed(1) {
        let mut watch = events.watch(&filter, Some(Revision::default()));
        events.publish(&[(2, &others, None)]);
        events.publish(&[(1, &mine, None)]);
        let mut seen = Vec::new();
        while watch.reached() < events.last {
            seen.extend(watch.next().await.unwrap().map(|event| event.revision()));
        }
        assert_eq!(seen, events.matching(&filter, Revision::default()));
    }
}

#[tokio::test(start_paused = true)]
async fn events_of_other_tasks_move_a_watch_at_its_deadline() {
    let mut events = Events::new();
    let mut watch = events.watch(&indexed(1)[0], None);
    let deadline = Instant::now() + Duration::from_secs(1);
    let mut next = Box::pin(watch.next_until(Some(deadline)));
    assert!(futures_util::poll!(next.as_mut()).is_pending());
    events.publish(&[(2, &options(2), None)]);
    assert!(next.await.unwrap().is_none());
    assert_eq!((watch.reached(), Instant::now() >= deadline), (events.last, true));
    // Without new events, too.
    let deadline = Instant::now() + Duration::from_secs(1);
    assert!(watch.next_until(Some(deadline)).await.unwrap().is_none());
}

#[test]
fn a_watch_that_has_ended_leaves_the_index() {
    let mut events = Events::new();
    for filter in indexed(1) {
        let watch = events.watch(&filter, None);
        let other = events.watch(&filter, None);
        let unseen = Arc::downgrade(watch.unseen.as_ref().unwrap());
        drop(watch);
        assert!(unseen.upgrade().is_none());
        events.publish(&[(1, &options(1), None)]);
        assert!(other.unseen.as_ref().unwrap().take().is_some());
    }
}
