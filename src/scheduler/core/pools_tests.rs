//! Changes of pools: an event each, restored by recovery.

use crate::model::{
    Autoscale, Coded, ErrorCode, Event, PoolKind, PoolName, PoolSettings, PoolSpec, Revision, Timestamp,
};

use super::tests::options;
use super::{Core, CoreOptions, Decisions, PoolUpdate, PoolView};

fn name() -> PoolName {
    PoolName::parse("default").unwrap()
}

fn configured(size: usize) -> CoreOptions {
    CoreOptions { pools: vec![PoolSpec { size, ..PoolSpec::with_defaults(name(), 1) }], ..options() }
}

fn view(core: &Core) -> PoolView {
    core.pool_views().remove(0)
}

/// The events of a core with one changed pool, and its view.
fn changed() -> (Vec<Event>, PoolView) {
    let mut core = Core::new(configured(1));
    let mut out = Decisions::default();
    let resize = PoolUpdate { name: name(), size: Some(5), paused: None, queue_limit: None, etag: None };
    let (_, resized) = core.update_pool(Timestamp(1), &resize, &mut out).unwrap();
    let pause = PoolUpdate { size: None, paused: Some(true), etag: Some(resized.etag.clone()), ..resize };
    let (_, paused) = core.update_pool(Timestamp(2), &pause, &mut out).unwrap();
    assert_ne!(resized.etag, paused.etag);
    assert_eq!(paused, view(&core));
    (out.events, paused)
}

#[test]
fn a_change_is_an_event_and_a_replay_restores_the_settings_and_the_etag() {
    let (events, before) = changed();
    let revisions: Vec<_> = events.iter().map(|event| event.revision().0).collect();
    assert_eq!(revisions, [1, 2]);
    // The whole log, or only the last event of the pool and the later events.
    for from in [0, 1] {
        let mut core = Core::new(configured(1));
        for event in &events[from..] {
            core.replay(event);
        }
        assert_eq!(view(&core), before);
        assert_eq!((before.spec.size, before.spec.paused), (5, true));
        assert_eq!(core.revision(), Revision(2));
    }
}

#[test]
fn a_setting_whose_configuration_has_changed_replaces_the_earlier_change() {
    let (events, _) = changed();
    let mut core = Core::new(configured(3));
    for event in &events {
        core.replay(event);
    }
    let PoolSettings { size, paused, .. } = PoolSettings::of(&view(&core).spec);
    assert_eq!((size, paused), (3, true));
    let mut out = Decisions::default();
    assert_eq!(core.forget_replaced_settings(Timestamp(3), &mut out), [(name(), vec!["size"])]);
    assert_eq!(out.events.len(), 1);
}

#[test]
fn the_size_of_a_remote_pool_cannot_be_set() {
    let remote = PoolSpec { kind: PoolKind::Remote, size: 0, ..PoolSpec::with_defaults(name(), 1) };
    let mut core = Core::new(CoreOptions { pools: vec![remote], ..options() });
    let mut out = Decisions::default();
    let pause = PoolUpdate { name: name(), size: None, paused: Some(true), queue_limit: Some(7), etag: None };
    let resize = PoolUpdate { size: Some(1), ..pause.clone() };
    let refusal = core.update_pool(Timestamp(1), &resize, &mut out).unwrap_err();
    assert_eq!((refusal.code(), &*refusal.details().violations[0].field), (ErrorCode::InvalidField, "size"));
    assert!(refusal.to_string().contains("of kind REMOTE"), "{refusal}");
    assert!(out.events.is_empty());
    let (_, paused) = core.update_pool(Timestamp(1), &pause, &mut out).unwrap();
    assert_eq!(PoolSettings::of(&paused.spec), PoolSettings { size: 0, queue_limit: 7, paused: true });
}

#[test]
fn the_size_of_a_pool_that_autoscales_is_no_setting_and_stays_within_its_bounds() {
    let autoscale = Some(Autoscale { min: 2, max: 6 });
    let pool = PoolSpec { size: 2, autoscale, ..PoolSpec::with_defaults(name(), 1) };
    let options = CoreOptions { pools: vec![pool], ..options() };
    let mut core = Core::new(options.clone());
    let mut out = Decisions::default();
    let pause = PoolUpdate { name: name(), size: None, paused: Some(true), queue_limit: None, etag: None };
    let resize = PoolUpdate { size: Some(4), ..pause.clone() };
    let refusal = core.update_pool(Timestamp(1), &resize, &mut out).unwrap_err();
    assert_eq!((refusal.code(), &*refusal.details().violations[0].field), (ErrorCode::InvalidField, "size"));
    assert!(refusal.to_string().contains("autoscale from 2 to 6 workers"), "{refusal}");
    let before = view(&core);
    for (size, expected) in [(5, 5), (1, 2), (9, 6)] {
        core.scale_pool(0, size);
        assert_eq!((view(&core).spec.size, view(&core).etag), (expected, before.etag.clone()));
    }
    core.update_pool(Timestamp(1), &pause, &mut out).unwrap();
    assert_eq!((view(&core).spec.size, view(&core).spec.paused), (6, true), "a change of another setting leaves it");
    let mut restarted = Core::new(options);
    assert!(out.events.iter().all(|event| restarted.replay(event)));
    assert_eq!((view(&restarted).spec.size, view(&restarted).spec.paused), (2, true));
}

#[test]
fn a_change_of_a_pool_that_is_not_configured_changes_only_the_revision() {
    let (events, _) = changed();
    let mut core = Core::new(CoreOptions { pools: Vec::new(), ..options() });
    for event in &events {
        core.replay(event);
    }
    assert_eq!((core.pool_views().len(), core.changed_pools().count(), core.revision()), (0, 0, Revision(2)));
}
