//! The first turn of the loop, which no message starts.

use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

use crate::model::{
    PoolName, PoolSpec, RecoveredTask, Revision, SystemClock, TaskChange, TaskFilter, TaskId, TaskOptions, TaskSpec,
    TaskState, Timestamp,
};
use crate::store::{self, Recover};

use super::{Options, Recovery, Service};

fn options() -> Options {
    Options::sample(vec![PoolSpec::with_defaults(PoolName::parse("p").unwrap(), 1)])
}

fn queued(id: &str) -> RecoveredTask {
    let (id, options) = (TaskId::parse(id).unwrap(), Arc::new(TaskOptions::sample()));
    RecoveredTask {
        spec: Arc::new(TaskSpec { id, options, payload: Box::default(), extras: None }),
        submission: Revision(1),
        revision: Revision(1),
        submitted_at: Timestamp(1),
        eligible_at: Timestamp(1),
        hold: None,
        since: Timestamp(1),
        interrupted: false,
        has_started: false,
        cancel: None,
        attempt: 0,
        crashes: 0,
        remote: None,
        state: TaskState::Queued,
        produced_bytes: 0,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovered_task_starts_in_the_first_turn_without_any_message() {
    let options = options();
    let mut recovery = Recovery::new(options.core.clone());
    let (store, _) = store::open(&store::Options::default(), &mut recovery).unwrap();
    recovery.restore(queued("a"), b"");
    let runtime = tokio::runtime::Handle::current();
    let service = Service::start(options, store, recovery, Arc::default(), Arc::new(SystemClock), &runtime).unwrap();
    let handle = service.handle();
    let mut events = handle.watch(TaskFilter::default(), Some(Revision(0)), "test".into()).unwrap();
    let thread = Builder::new().name("scheduler".to_owned()).spawn(move || service.run(&runtime)).unwrap();
    let event = tokio::time::timeout(Duration::from_secs(30), events.next()).await.expect("the loop does not wait");
    let event = event.unwrap().unwrap();
    let started = event.task().unwrap();
    assert!(matches!(started.change, TaskChange::Started { .. }), "{started:?}");
    handle.drain(Some(Duration::ZERO));
    thread.join().unwrap();
}
