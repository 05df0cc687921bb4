//! Uploaded handlers: an event each, restored by recovery, beside those of the configuration and of workers.

use std::sync::Arc;

use crate::model::limits::UPLOADED_HANDLERS_MAX;
use crate::model::{
    Catalog, Coded, ErrorCode, Event, HandlerName, HandlerSource, HandlerSpec, ModuleDigest, PoolKind, PoolName,
    PoolSpec, Revision, Timestamp, UploadSettings,
};

use super::tests::options;
use super::{Core, CoreOptions, Decisions, NewUpload};

fn name(name: &str) -> HandlerName {
    HandlerName::parse(name).unwrap()
}

fn pool(name: &str, kind: PoolKind) -> PoolSpec {
    PoolSpec { kind, ..PoolSpec::with_defaults(PoolName::parse(name).unwrap(), 1) }
}

/// With these pools; the handler `ours` is configured if `has_ours`.
fn configured(pools: &[PoolSpec], has_ours: bool) -> CoreOptions {
    let by_name = pools.iter().map(|pool| (pool.name.clone(), pool.clone())).collect();
    let mut catalog = Catalog { pools: by_name, ..Catalog::default() };
    if has_ours {
        let upload = crate::model::Upload {
            pool: PoolName::parse("threads").unwrap(),
            module: ModuleDigest::of(b""),
            settings: UploadSettings::default(),
        };
        catalog.upload(&name("ours"), &upload);
        let spec = HandlerSpec { source: HandlerSource::File, ..(*catalog.handlers[&name("ours")]).clone() };
        catalog.handlers.insert(name("ours"), Arc::new(spec));
    }
    CoreOptions { pools: pools.to_vec(), catalog: Arc::new(catalog), ..options() }
}

fn pools() -> Vec<PoolSpec> {
    vec![
        pool("calls", PoolKind::Async),
        pool("threads", PoolKind::Threads),
        pool("far", PoolKind::Remote),
        pool("more", PoolKind::Threads),
    ]
}

fn put(
    core: &mut Core,
    handler: &str,
    in_pool: Option<&str>,
    module: &[u8],
) -> Result<Vec<Event>, (ErrorCode, String)> {
    let pool = in_pool.map(|pool| PoolName::parse(pool).unwrap());
    let upload = NewUpload { name: name(handler), pool, settings: UploadSettings::default() };
    let mut out = Decisions::default();
    let result = core.put_handler(Timestamp(1), upload, ModuleDigest::of(module), &mut out);
    finished(result, out)
}

fn delete(core: &mut Core, handler: &str) -> Result<Vec<Event>, (ErrorCode, String)> {
    let mut out = Decisions::default();
    let result = core.delete_handler(Timestamp(2), name(handler), &mut out);
    finished(result, out)
}

fn finished(
    result: Result<(), crate::scheduler::refusal::Refusal>,
    out: Decisions,
) -> Result<Vec<Event>, (ErrorCode, String)> {
    assert!(result.is_ok() || out.events.is_empty(), "a refusal changes nothing");
    result.map(|()| out.events).map_err(|refusal| (refusal.code(), refusal.to_string()))
}

/// Name, pool and module of the uploads in the catalog.
fn listed(core: &Core) -> Vec<(String, String, HandlerSource)> {
    let catalog = core.catalog();
    let uploads = catalog.handlers.values().filter(|spec| matches!(spec.source, HandlerSource::Upload(_)));
    uploads.map(|spec| (spec.name.to_string(), spec.pool.to_string(), spec.source)).collect()
}

fn expected(handler: &str, in_pool: &str, module: &[u8]) -> (String, String, HandlerSource) {
    (handler.to_owned(), in_pool.to_owned(), HandlerSource::Upload(ModuleDigest::of(module)))
}

#[test]
fn an_upload_replaces_an_earlier_one_and_the_same_once_more_changes_nothing() {
    let mut core = Core::new(configured(&pools(), false));
    assert_eq!(put(&mut core, "count", None, b"1").unwrap().len(), 1);
    assert!(put(&mut core, "count", None, b"1").unwrap().is_empty());
    assert_eq!(listed(&core), [expected("count", "threads", b"1")], "the first pool in which it can run");
    assert_eq!(put(&mut core, "count", Some("more"), b"1").unwrap().len(), 1);
    assert_eq!(put(&mut core, "count", Some("more"), b"2").unwrap().len(), 1);
    assert_eq!(listed(&core), [expected("count", "more", b"2")]);
    assert_eq!(core.revision(), Revision(3));
}

#[test]
fn a_replay_of_all_events_restores_the_uploads() {
    let mut core = Core::new(configured(&pools(), false));
    let mut events = Vec::new();
    for (handler, module) in [("a", b"1"), ("b", b"2"), ("a", b"3"), ("c", b"4")] {
        events.extend(put(&mut core, handler, None, module).unwrap());
    }
    events.extend(delete(&mut core, "b").unwrap());
    let mut restored = Core::new(configured(&pools(), false));
    assert!(events.iter().all(|event| restored.replay(event)));
    let uploads = [expected("a", "threads", b"3"), expected("c", "threads", b"4")];
    assert_eq!((listed(&core), listed(&restored)), (uploads.to_vec(), uploads.to_vec()));
    // A pool that is gone from the configuration takes its handlers along, until it is back.
    let mut without = Core::new(configured(&pools()[..1], false));
    assert!(events.iter().all(|event| without.replay(event)));
    assert!(listed(&without).is_empty());
    assert_eq!(without.uploads().count(), 2);
}

#[test]
fn what_the_configuration_or_a_worker_has_named_is_not_replaced_and_a_hidden_upload_can_be_deleted() {
    let mut core = Core::new(configured(&pools(), false));
    let events = put(&mut core, "ours", None, b"1").unwrap();
    let mut core = Core::new(configured(&pools(), true));
    assert!(events.iter().all(|event| core.replay(event)));
    assert!(listed(&core).is_empty(), "the configuration wins");
    let (refused, text) = put(&mut core, "ours", None, b"2").unwrap_err();
    assert_eq!(refused, ErrorCode::HandlerNotUploaded);
    assert!(text.contains("its source is `file`"), "{text}");
    assert_eq!(delete(&mut core, "ours").unwrap().len(), 1);
    assert_eq!(delete(&mut core, "ours").unwrap_err().0, ErrorCode::HandlerNotUploaded);

    let far = PoolName::parse("far").unwrap();
    let offer = |core: &mut Core, handler: &str| {
        let offered = [(name(handler), "of a worker".into())];
        core.register_handlers(Timestamp(3), &far, &offered, &mut Decisions::default())
    };
    offer(&mut core, "resize").unwrap();
    for refused in [put(&mut core, "resize", None, b"1").unwrap_err(), delete(&mut core, "resize").unwrap_err()] {
        assert!(refused.0 == ErrorCode::HandlerNotUploaded && refused.1.contains("`worker`"), "{refused:?}");
    }
    put(&mut core, "count", None, b"1").unwrap();
    let refused = offer(&mut core, "count").unwrap_err().to_string();
    assert!(refused.contains("hello.handlers[0].name") && refused.contains("runner `wasm`"), "{refused}");
    assert_eq!(delete(&mut core, "nothing").unwrap_err().0, ErrorCode::UnknownHandler);
}

#[test]
fn an_upload_needs_a_pool_of_threads() {
    let mut core = Core::new(configured(&pools(), false));
    for (in_pool, kind) in [("calls", "async"), ("far", "remote")] {
        let (refused, text) = put(&mut core, "count", Some(in_pool), b"1").unwrap_err();
        assert!(refused == ErrorCode::InvalidField && text.contains("`handler.pool`") && text.contains(kind), "{text}");
    }
    assert_eq!(put(&mut core, "count", Some("nowhere"), b"1").unwrap_err().0, ErrorCode::UnknownPool);
    let mut core = Core::new(configured(&pools()[..1], false));
    let (_, text) = put(&mut core, "count", None, b"1").unwrap_err();
    assert!(text.contains("no pool has kind \"threads\""), "{text}");
}

#[test]
fn the_number_of_uploads_is_bounded() {
    let mut core = Core::new(configured(&pools(), false));
    for number in 0..UPLOADED_HANDLERS_MAX {
        put(&mut core, &format!("h{number}"), None, b"1").unwrap();
    }
    let (refused, text) = put(&mut core, "another", None, b"1").unwrap_err();
    assert!(refused == ErrorCode::InvalidField && text.contains("`handler.name` is `another`"), "{text}");
    put(&mut core, "h0", None, b"2").unwrap();
    delete(&mut core, "h1").unwrap();
    put(&mut core, "another", None, b"1").unwrap();
}
