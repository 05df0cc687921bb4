//! A new configuration in a core that has tasks.

use std::sync::Arc;

use crate::model::{
    Autoscale, Catalog, Coded, ErrorCode, PoolKind, PoolName, PoolSpec, Priority, TaskState, Timestamp,
};

use super::tests::{Fixture, SECOND, failed, options, spec};
use super::{Core, Decisions, PoolUpdate};

fn named(name: &str, size: usize) -> PoolSpec {
    PoolSpec { size, ..PoolSpec::with_defaults(PoolName::parse(name).unwrap(), 1) }
}

fn reconfigure(core: &mut Core, pools: Vec<PoolSpec>) {
    core.check_pools(&pools).unwrap();
    let by_name = pools.iter().map(|pool| (pool.name.clone(), pool.clone())).collect();
    core.reconfigure(pools, Arc::new(Catalog { pools: by_name, ..Catalog::default() }));
}

/// The replaced settings of the only pool.
fn replaced(core: &mut Core, out: &mut Decisions) -> Vec<&'static str> {
    core.forget_replaced_settings(Timestamp(9), out).into_iter().flat_map(|(_, names)| names).collect()
}

fn update(pool: &str, size: usize) -> PoolUpdate {
    PoolUpdate { name: PoolName::parse(pool).unwrap(), size: Some(size), paused: None, queue_limit: None, etag: None }
}

fn size_of(core: &Core, pool: &str) -> usize {
    core.pool_views().into_iter().find(|view| view.spec.name.as_str() == pool).unwrap().spec.size
}

#[test]
fn a_pool_that_is_not_configured_any_more_keeps_its_tasks_until_it_is_again() {
    let mut fixture = Fixture::new();
    fixture.submit(SECOND, vec![spec("a", Priority::Normal), spec("b", Priority::Normal)]).unwrap();
    let running = fixture.assigned().remove(0).ticket;
    fixture.core.started(running, Timestamp(SECOND), "w".into(), &mut fixture.out);
    reconfigure(&mut fixture.core, vec![named("other", 1)]);
    fixture.core.check();
    let refused = fixture.submit(2 * SECOND, vec![spec("c", Priority::Normal)]).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::UnknownPool);
    assert_eq!(fixture.core.pool_views().len(), 1);
    fixture.end(running, 3 * SECOND, failed(), None);
    assert_eq!(fixture.state("a"), TaskState::Waiting, "what ran ends as usual, and is retried");
    fixture.core.advance(Timestamp(60 * SECOND), &mut fixture.out);
    assert!(fixture.assigned().is_empty(), "nothing starts");
    reconfigure(&mut fixture.core, vec![named("other", 1), named("default", 7)]);
    assert_eq!(fixture.assigned().len(), 1, "the retry; the other one was dispatched before");
    assert_eq!(size_of(&fixture.core, "default"), 7);
    fixture.core.check();
}

#[test]
fn a_pool_keeps_its_size_within_new_bounds_and_gets_the_configured_one_when_it_autoscales_no_more() {
    let mut core = Core::new(options());
    let mut out = Decisions::default();
    core.update_pool(Timestamp(1), &update("default", 5), &mut out).unwrap();
    let bounds = |min, max| PoolSpec { autoscale: Some(Autoscale { min, max }), ..named("default", min) };
    for (min, max, expected, forgotten) in [(2, 9, 5, vec!["size"]), (6, 9, 6, vec![]), (1, 4, 4, vec![])] {
        reconfigure(&mut core, vec![bounds(min, max)]);
        assert_eq!(replaced(&mut core, &mut out), forgotten);
        assert_eq!(size_of(&core, "default"), expected, "{min} to {max}");
    }
    reconfigure(&mut core, vec![named("default", 3)]);
    assert_eq!(size_of(&core, "default"), 3);
    core.update_pool(Timestamp(2), &update("default", 7), &mut out).unwrap();
    assert_eq!(size_of(&core, "default"), 7);
}

#[test]
fn a_change_made_at_run_time_lasts_until_the_configuration_of_the_setting_changes() {
    let mut core = Core::new(options());
    let mut out = Decisions::default();
    core.update_pool(Timestamp(1), &update("default", 5), &mut out).unwrap();
    let changed_etag = core.pool_views()[0].etag.clone();
    reconfigure(&mut core, vec![PoolSpec { queue_limit: 9, ..named("default", 1) }]);
    assert_eq!((size_of(&core, "default"), core.pool_views()[0].spec.queue_limit), (5, 9));
    assert!(replaced(&mut core, &mut out).is_empty(), "the change had set the size only");
    // The same after a restart, also if the pool is configured only later.
    let mut restarted = Core::new(crate::scheduler::CoreOptions { pools: vec![named("other", 1)], ..options() });
    assert!(out.events.iter().all(|event| restarted.replay(event)));
    reconfigure(&mut restarted, vec![named("default", 1)]);
    assert_eq!((size_of(&restarted, "default"), restarted.pool_views()[0].etag.clone()), (5, changed_etag));
    reconfigure(&mut core, vec![named("default", 2)]);
    assert_eq!(size_of(&core, "default"), 2);
}

#[test]
fn a_change_that_the_configuration_has_replaced_does_not_return_with_the_configuration() {
    let mut core = Core::new(options());
    let mut out = Decisions::default();
    let all = PoolUpdate { paused: Some(true), queue_limit: Some(50), ..update("default", 5) };
    core.update_pool(Timestamp(1), &all, &mut out).unwrap();
    reconfigure(&mut core, vec![named("default", 2)]);
    assert_eq!(replaced(&mut core, &mut out), ["size"]);
    assert!(replaced(&mut core, &mut out).is_empty(), "told once");
    reconfigure(&mut core, vec![named("default", 1)]);
    let mut restarted = Core::new(options());
    assert!(out.events.iter().all(|event| restarted.replay(event)));
    for core in [core, restarted] {
        let PoolSpec { size, queue_limit, paused, .. } = core.pool_views().remove(0).spec;
        assert_eq!((size, queue_limit, paused), (1, 50, true), "the others still apply");
        assert_eq!(core.changed_pools().count(), 1);
    }
}

#[test]
fn the_kind_of_a_pool_cannot_change() {
    let core = Core::new(options());
    let remote = PoolSpec { kind: PoolKind::Remote, ..named("default", 0) };
    let refused = core.check_pools(&[named("new", 1), remote]).unwrap_err();
    assert_eq!(refused.details().violations[0].field, "pool[1].kind");
    assert!(refused.to_string().contains("is of kind \"threads\"; restart"), "{refused}");
}

#[test]
fn the_limit_of_a_namespace_counts_the_attempts_that_have_begun_before() {
    let limited = |max| PoolSpec { max_running_per_namespace: max, ..named("default", 4) };
    let mut fixture = Fixture::new();
    fixture.submit(SECOND, (0..3).map(|n| spec(&format!("t{n}"), Priority::Normal)).collect()).unwrap();
    let begun = fixture.assigned();
    reconfigure(&mut fixture.core, vec![limited(Some(3))]);
    fixture.submit(SECOND, vec![spec("a", Priority::High), spec("b", Priority::High)]).unwrap();
    assert!(fixture.assigned().is_empty(), "three have their slots");
    fixture.core.check();
    reconfigure(&mut fixture.core, vec![limited(Some(4))]);
    assert_eq!(fixture.assigned().len(), 1);
    fixture.core.check();
    let ticket = begun[0].ticket;
    fixture.core.started(ticket, Timestamp(SECOND), "w".into(), &mut fixture.out);
    fixture.end(ticket, 2 * SECOND, failed(), None);
    assert_eq!(fixture.assigned().len(), 1);
    fixture.submit(SECOND, vec![spec("c", Priority::High)]).unwrap();
    assert!(fixture.assigned().is_empty());
    reconfigure(&mut fixture.core, vec![limited(None)]);
    assert_eq!(fixture.assigned().len(), 1);
    fixture.core.check();
}
