//! Registered and uploaded handlers: recovered from events, written to stores of earlier versions, and copied with their modules.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::pools::write_format_2;
use super::stores::{append, backup, check, open_sqlite, write};
use crate::model::{
    ArgPattern, Event, HandlerChange, HandlerEvent, HandlerName, ModuleDigest, PayloadSchema, PoolName, Registration,
    Revision, TaskState, Timestamp, Upload, UploadSettings,
};
use crate::store::record::{decode_commit, encode_commit};
use crate::store::traits::Commit;

fn registered(revision: u64, handler: &str, pools: &[&str]) -> Event {
    let pools = pools.iter().map(|pool| PoolName::parse(pool).unwrap()).collect();
    let registration = Registration { pools, description: format!("{handler} of a worker").into() };
    changed(revision, handler, HandlerChange::Registered(registration))
}

fn changed(revision: u64, handler: &str, change: HandlerChange) -> Event {
    let (revision, at) = (Revision(revision), Timestamp(revision));
    Event::Handler(HandlerEvent { revision, at, handler: HandlerName::parse(handler).unwrap(), change })
}

fn uploaded(revision: u64, handler: &str, module: &[u8], settings: UploadSettings) -> Event {
    let (pool, module) = (PoolName::parse("default").unwrap(), ModuleDigest::of(module));
    changed(revision, handler, HandlerChange::Uploaded(Arc::new(Upload { pool, module, settings })))
}

fn write_module(directory: &Path, module: &[u8]) {
    let path = ModuleDigest::of(module).path_in(directory);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, module).unwrap();
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

#[test]
fn an_upload_is_stored_with_all_its_settings() {
    let settings = UploadSettings {
        description: "counts words".into(),
        timeout: Some(Duration::from_millis(1_500)),
        argv: ["count".into(), "--words".into()].into(),
        arg_pattern: Some(ArgPattern::parse("[a-z]+").unwrap()),
        content_type: Some("application/json".into()),
        memory_bytes: Some(64 << 20),
        clock: true,
        payload_schema: Some(PayloadSchema::parse(r#"{"type": "string"}"#).unwrap()),
    };
    let events = [
        uploaded(1, "a", b"1", settings),
        uploaded(2, "b", b"2", UploadSettings::default()),
        changed(3, "a", HandlerChange::Deleted),
    ];
    let mut bytes = Vec::new();
    encode_commit(&events, &mut bytes);
    assert_eq!(decode_commit(Revision(1), &bytes).unwrap(), events);
    assert!(Event::all_encoded_bytes(&events, None) > bytes.len());
}

#[test]
fn a_deleted_handler_is_not_recovered() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open_sqlite(directory.path()).unwrap();
    let kept = uploaded(2, "b", b"b", UploadSettings::default());
    let events =
        vec![uploaded(1, "a", b"a", UploadSettings::default()), kept.clone(), changed(3, "a", HandlerChange::Deleted)];
    write(&store, &[commit(events)]);
    store.journal.trim(Revision(3)).unwrap();
    drop(store);
    let (_, recovery) = open_sqlite(directory.path()).unwrap();
    assert_eq!((recovery.revision, recovery.subjects), (Revision(3), vec![kept]));
}

#[test]
fn a_backup_has_the_modules_of_projection_and_journal_and_no_others() {
    let directory = tempfile::tempdir().unwrap();
    let (data, copy) = (directory.path().join("data"), directory.path().join("copy"));
    let (store, _) = open_sqlite(&data).unwrap();
    let upload =
        |revision, handler: &str, module: &[u8]| uploaded(revision, handler, module, UploadSettings::default());
    write(&store, &[commit(vec![upload(1, "a", b"a1"), upload(2, "b", b"b"), upload(3, "c", b"c")])]);
    // The projection does not have these.
    let later = vec![upload(4, "a", b"a2"), changed(5, "c", HandlerChange::Deleted), upload(6, "d", b"b")];
    append(&store, &commit(later)).unwrap();
    for module in [&b"a1"[..], b"a2", b"b", b"c"] {
        write_module(&data, module);
    }
    let report = backup(&data, &copy).unwrap();
    assert_eq!((report.modules, check(&copy).unwrap()), (2, report));
    for (module, is_copied) in [(&b"a1"[..], false), (b"a2", true), (b"b", true), (b"c", false)] {
        assert_eq!(ModuleDigest::of(module).path_in(&copy).exists(), is_copied, "{module:?}");
    }
    std::fs::remove_file(ModuleDigest::of(b"a2").path_in(&data)).unwrap();
    let error = backup(&data, &directory.path().join("other")).unwrap_err().to_string();
    assert!(error.contains("it is the module of handler `a`: upload it again"), "{error}");
    assert!(!directory.path().join("other").exists());
}
