//! Handlers that workers register: an event each, restored by recovery.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::limits::REGISTERED_HANDLERS_MAX;
use crate::model::{
    Catalog, Coded, ErrorCode, Event, HandlerName, HandlerSource, HandlerSpec, PoolKind, PoolName, PoolSpec,
    REMOTE_RUNNER, Registration, Revision, Timestamp,
};

use super::tests::options;
use super::{Core, CoreOptions, Decisions};

fn pool(name: &str) -> PoolName {
    PoolName::parse(name).unwrap()
}

fn handler(name: &str) -> HandlerName {
    HandlerName::parse(name).unwrap()
}

/// A configuration with the pool `default` of threads and these remote pools, and with handlers, by the name of their runner
/// and their pools.
fn configured(remote: &[&str], handlers: &[(&str, &'static str, &[&str])]) -> CoreOptions {
    let mut pools = options().pools;
    let far = |name: &&str| PoolSpec { kind: PoolKind::Remote, size: 0, ..PoolSpec::with_defaults(pool(name), 1) };
    pools.extend(remote.iter().map(far));
    let by_name = pools.iter().map(|pool| (pool.name.clone(), pool.clone())).collect();
    let mut catalog = Catalog { pools: by_name, ..Catalog::default() };
    for (name, runner, in_pools) in handlers {
        let registration = Registration { pools: [pool(remote[0])].into(), description: "ours".into() };
        catalog.register(&handler(name), &registration);
        let spec = HandlerSpec {
            runner,
            pool: pool(in_pools[0]),
            allowed_pools: in_pools[1..].iter().map(|name| pool(name)).collect(),
            source: HandlerSource::File,
            ..(*catalog.handlers[&handler(name)]).clone()
        };
        catalog.handlers.insert(spec.name.clone(), Arc::new(spec));
    }
    CoreOptions { pools, catalog: Arc::new(catalog), ..options() }
}

/// Offers the handlers in a pool, and returns the new events or the text of the refusal.
fn offer(core: &mut Core, in_pool: &str, handlers: &[&str]) -> Result<Vec<Event>, String> {
    let described = |name: &&str| (handler(name), format!("{name} in {in_pool}").into());
    let handlers: Vec<_> = handlers.iter().map(described).collect();
    let mut out = Decisions::default();
    match core.register_handlers(Timestamp(1), &pool(in_pool), &handlers, &mut out) {
        Ok(()) => Ok(out.events),
        Err(refusal) => {
            assert!(out.events.is_empty(), "a refused offer registers nothing");
            Err(refusal.to_string())
        }
    }
}

/// Pools and description of the registered handlers in the catalog.
fn registered(core: &Core) -> BTreeMap<String, (Vec<String>, String)> {
    let catalog = core.catalog();
    let registered = catalog.handlers.values().filter(|spec| spec.is_registered());
    let pools =
        |spec: &HandlerSpec| [&spec.pool].into_iter().chain(&spec.allowed_pools).map(ToString::to_string).collect();
    registered.map(|spec| (spec.name.to_string(), (pools(spec), spec.description.clone()))).collect()
}

fn expected(handlers: &[(&str, &[&str], &str)]) -> BTreeMap<String, (Vec<String>, String)> {
    let pools = |pools: &[&str]| pools.iter().map(|name| (*name).to_owned()).collect();
    handlers.iter().map(|(name, in_pools, text)| ((*name).to_owned(), (pools(in_pools), (*text).to_owned()))).collect()
}

#[test]
fn a_handler_is_registered_once_for_each_pool_and_keeps_its_first_description() {
    let mut core = Core::new(configured(&["far", "near"], &[]));
    let first = offer(&mut core, "far", &["resize", "thumb", "resize"]).unwrap();
    assert_eq!(first.iter().map(|event| event.revision().0).collect::<Vec<_>>(), [1, 2]);
    assert!(offer(&mut core, "far", &["thumb"]).unwrap().is_empty(), "nothing has changed");
    assert_eq!(offer(&mut core, "near", &["thumb", "resize"]).unwrap().len(), 2);
    assert!(offer(&mut core, "near", &["thumb"]).unwrap().is_empty());
    let both = &["far", "near"][..];
    assert_eq!(registered(&core), expected(&[("resize", both, "resize in far"), ("thumb", both, "thumb in far")]));
}

#[test]
fn a_replay_of_all_events_or_of_the_last_of_each_handler_restores_the_registrations() {
    let mut core = Core::new(configured(&["far", "near"], &[]));
    let mut events = offer(&mut core, "far", &["resize", "thumb"]).unwrap();
    events.extend(offer(&mut core, "near", &["resize"]).unwrap());
    for from in [0, 1] {
        let mut restored = Core::new(configured(&["far", "near"], &[]));
        assert!(events[from..].iter().all(|event| restored.replay(event)));
        assert_eq!(registered(&restored), registered(&core));
        assert_eq!(restored.revision(), Revision(3));
    }
}

#[test]
fn a_pool_that_is_gone_from_the_configuration_is_left_out() {
    let mut core = Core::new(configured(&["far"], &[]));
    let mut events = offer(&mut core, "far", &["resize", "thumb"]).unwrap();
    let mut core = Core::new(configured(&["near"], &[]));
    assert!(events.iter().all(|event| core.replay(event)));
    assert_eq!(registered(&core), expected(&[]), "tasks for them could not run");
    events.extend(offer(&mut core, "near", &["resize"]).unwrap());
    assert_eq!(registered(&core), expected(&[("resize", &["near"], "resize in far")]));
    let mut core = Core::new(configured(&["far", "near"], &[]));
    assert!(events.iter().all(|event| core.replay(event)));
    let both = [("resize", &["near"][..], "resize in far"), ("thumb", &["far"], "thumb in far")];
    assert_eq!(registered(&core), expected(&both));
}

#[test]
fn what_the_configuration_says_of_a_handler_wins() {
    let mut core = Core::new(configured(&["far"], &[]));
    let events = offer(&mut core, "far", &["resize"]).unwrap();
    let handlers: &[(&str, _, &[&str])] = &[
        ("resize", "builtin", &["default"]),
        ("ours", REMOTE_RUNNER, &["near", "far"]),
        ("own", REMOTE_RUNNER, &["near"]),
    ];
    let mut core = Core::new(configured(&["far", "near"], handlers));
    assert!(events.iter().all(|event| core.replay(event)));
    assert_eq!(core.catalog(), *core.options.catalog);
    let refused = offer(&mut core, "far", &["ours", "new", "resize"]).unwrap_err();
    assert!(refused.contains("hello.handlers[2].name") && refused.contains("runner `builtin`"), "{refused}");
    let refused = offer(&mut core, "far", &["own"]).unwrap_err();
    assert!(refused.contains("does not allow in pool `far`; add it to `allowed_pools`"), "{refused}");
    assert!(offer(&mut core, "far", &["ours"]).unwrap().is_empty());
    assert!(offer(&mut core, "near", &["ours", "own"]).unwrap().is_empty());
}

#[test]
fn workers_need_a_remote_pool() {
    let mut core = Core::new(configured(&["far"], &[]));
    let refused = offer(&mut core, "default", &["resize"]).unwrap_err();
    assert!(refused.contains("`default` is not a configured pool with kind = \"remote\""), "{refused}");
    let unknown = core.register_handlers(Timestamp(1), &pool("nowhere"), &[], &mut Decisions::default()).unwrap_err();
    assert_eq!(unknown.code(), ErrorCode::UnknownPool);
}

#[test]
fn the_number_of_registered_handlers_is_bounded() {
    let mut core = Core::new(configured(&["far", "near"], &[]));
    let names: Vec<_> = (0..=REGISTERED_HANDLERS_MAX).map(|number| format!("h{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    assert_eq!(offer(&mut core, "far", &names[2..]).unwrap().len(), REGISTERED_HANDLERS_MAX - 1);
    let refused = offer(&mut core, "far", &names[..2]).unwrap_err();
    assert!(refused.contains("hello.handlers[1].name") && refused.contains("10000"), "{refused}");
    offer(&mut core, "far", &names[1..]).unwrap();
    assert!(offer(&mut core, "far", &names[..1]).is_err());
    assert_eq!(offer(&mut core, "near", &names[1..]).unwrap().len(), REGISTERED_HANDLERS_MAX, "they are known");
}
