//! Registered handlers: recovered from events, and written to stores of earlier versions.

use std::sync::Arc;

use super::pools::write_format_2;
use super::stores::{append, open_sqlite, write};
use crate::model::{
    Event, HandlerChange, HandlerEvent, HandlerName, PoolName, Registration, Revision, TaskState, Timestamp,
};
use crate::store::backup::check;
use crate::store::record::{decode_commit, encode_commit};
use crate::store::traits::Commit;

fn registered(revision: u64, handler: &str, pools: &[&str]) -> Event {
    let pools = pools.iter().map(|pool| PoolName::parse(pool).unwrap()).collect();
    let registration = Registration { pools, description: format!("{handler} of a worker").into() };
    Event::Handler(HandlerEvent {
        revision: Revision(revision),
        at: Timestamp(revision),
        handler: HandlerName::parse(handler).unwrap(),
        change: HandlerChange::Registered(registration),
    })
}

fn commit(events: Vec<Event>) -> Arc<Commit> {
    Arc::new(Commit::new(events, true))
}

#[test]
fn the_last_event_of_each_handler_is_recovered_after_the_journal_is_trimmed() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open_sqlite(directory.path()).unwrap();
    let changed = registered(3, "a", &["far", "near"]);
    let commits = [vec![registered(1, "a", &["far"]), registered(2, "b", &["far"])], vec![changed.clone()]];
    write(&store, &commits.map(commit));
    store.journal.trim(Revision(3)).unwrap();
    append(&store, &commit(vec![registered(4, "c", &["near"])])).unwrap();
    drop(store);
    let (_, recovery) = open_sqlite(directory.path()).unwrap();
    assert_eq!(recovery.subjects, [changed, registered(2, "b", &["far"])]);
    assert_eq!(recovery.events, [registered(4, "c", &["near"])]);
}

#[test]
fn a_handler_can_be_registered_in_a_store_of_an_earlier_version() {
    let directory = tempfile::tempdir().unwrap();
    write_format_2(directory.path());
    let (store, _) = open_sqlite(directory.path()).unwrap();
    write(&store, &[commit(vec![registered(7, "a", &["far"])])]);
    drop(store);
    check(directory.path()).unwrap();
    let (_, recovery) = open_sqlite(directory.path()).unwrap();
    let states: Vec<_> = recovery.tasks.iter().map(|task| task.state).collect();
    assert_eq!((states, recovery.subjects.len()), (vec![TaskState::Failed, TaskState::Waiting], 3));
    assert_eq!(recovery.subjects[2], registered(7, "a", &["far"]));
}

#[test]
fn an_event_without_pools_is_corrupt() {
    let mut bytes = Vec::new();
    encode_commit(&[registered(1, "a", &[])], &mut bytes);
    assert!(decode_commit(Revision(1), &bytes).unwrap_err().to_string().contains("without pools"));
}
