//! The first turn of the loop, which no message starts.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    PoolName, PoolSpec, RecoveredTask, Revision, SystemClock, TaskId, TaskOptions, TaskSpec, TaskState, Timestamp,
};
use crate::pool::Report;
use crate::scheduler::core::Decisions;
use crate::scheduler::message::Message;
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
        since: Timestamp(1),
        interrupted: false,
        has_started: false,
        cancel: None,
        attempt: 0,
        crashes: 0,
        state: TaskState::Queued,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovered_task_starts_in_the_first_turn_without_any_message() {
    let options = options();
    let mut recovery = Recovery::new(options.core.clone());
    let (store, _) = store::open(&store::Options::default(), &mut recovery).unwrap();
    recovery.restore(queued("a"), b"");
    let runtime = tokio::runtime::Handle::current();
    let mut service =
        Service::start(options, store, recovery, Arc::default(), Arc::new(SystemClock), &runtime).unwrap();
    service.turn(None, &mut Decisions::default());
    let first = service.inbox.recv_timeout(Duration::from_secs(30)).unwrap();
    assert!(matches!(first, Message::Report(Report::Started { .. })), "a worker starts it");
}
