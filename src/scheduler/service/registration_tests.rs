//! Tests of registered handlers: the catalog has them as soon as they are durable, and after a restart.

use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt;

use crate::model::{HandlerName, PoolKind, PoolName, PoolSpec, SystemClock};
use crate::runners::Registry;
use crate::scheduler::handle::Handle;
use crate::scheduler::refusal::Refusal;
use crate::store::{self, FaultyJournal};

use super::tests::Fixture;
use super::{Options, Recovery, Service};

fn name(name: &str) -> HandlerName {
    HandlerName::parse(name).unwrap()
}

fn remote_pool() -> PoolName {
    PoolName::parse("remote").unwrap()
}

async fn register(handle: &Handle, handler: &str) -> Result<(), Refusal> {
    handle.register_handlers(remote_pool(), vec![(name(handler), "of a worker".into())]).await
}

fn is_known(handle: &Handle, handler: &str) -> bool {
    handle.catalog().handlers.contains_key(&name(handler))
}

#[tokio::test]
async fn a_registered_handler_is_in_the_catalog_once_it_is_durable() {
    let fixture = Fixture::start_with(8);
    let mut first = register(&fixture.handle, "resize").boxed();
    assert!((&mut first).now_or_never().is_none());
    let held = fixture.journal.next().await;
    let mut again = register(&fixture.handle, "resize").boxed();
    assert!((&mut again).now_or_never().is_none());
    fixture.handled().await;
    assert!((&mut again).now_or_never().is_none(), "it changes nothing, but what it relies on is not durable");
    assert!(!is_known(&fixture.handle, "resize"));
    fixture.journal.make_durable(held);
    first.await.unwrap();
    again.await.unwrap();
    assert!(is_known(&fixture.handle, "resize"));
    assert_eq!(fixture.events().len(), 1);
    fixture.stop().await;
}

#[tokio::test]
async fn a_registration_that_the_store_refuses_at_first_is_in_the_catalog_when_it_is_durable() {
    let fixture = Fixture::start();
    fixture.journal.inner.fail_next(FaultyJournal::full(), false);
    let refused = register(&fixture.handle, "resize").await.unwrap_err();
    assert!(matches!(refused, Refusal::StoreUnavailable(_)));
    assert!(!is_known(&fixture.handle, "resize"));
    // The loop tries again by itself.
    while register(&fixture.handle, "thumb").await.is_err() {
        fixture.handled().await;
    }
    assert!(is_known(&fixture.handle, "resize") && is_known(&fixture.handle, "thumb"));
    fixture.stop().await;
}

/// Runs a server with a store in this directory.
async fn with_server(directory: &Path, test: impl AsyncFnOnce(&Handle)) {
    let pool = PoolSpec { kind: PoolKind::Remote, size: 0, ..PoolSpec::with_defaults(remote_pool(), 1) };
    let options = Options::sample(vec![pool]);
    let mut recovery = Recovery::new(options.core.clone());
    let on_disk = store::Options { directory: Some(directory.to_owned()), ..store::Options::default() };
    let (store, _) = store::open(&on_disk, &mut recovery).unwrap();
    let runtime = tokio::runtime::Handle::current();
    let service = Service::start(options, store, recovery, Arc::<Registry>::default(), Arc::new(SystemClock), &runtime);
    let service = service.unwrap();
    let handle = service.handle();
    let thread = tokio::task::spawn_blocking(move || service.run(&runtime));
    test(&handle).await;
    handle.drain(None);
    thread.await.unwrap();
}

#[tokio::test]
async fn registered_handlers_are_in_the_catalog_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    with_server(directory.path(), async |handle| register(handle, "resize").await.unwrap()).await;
    with_server(directory.path(), async |handle| {
        let catalog = handle.catalog();
        let spec = &catalog.handlers[&name("resize")];
        assert_eq!((spec.runner, &spec.pool, &*spec.description), ("remote", &remote_pool(), "of a worker"));
        drop(register(handle, "resize").await);
        assert_eq!(handle.pools().await.unwrap().1.0, 1, "nothing has changed");
    })
    .await;
}
