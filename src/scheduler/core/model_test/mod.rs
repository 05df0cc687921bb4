//! Compares the core with a naive model over random commands, crashes and restarts, and checks the invariants after every
//! step. proptest shrinks a failing case and stores its seed in `proptest-regressions`, from where the next run repeats it.
//! `PROPTEST_CASES` raises the number of cases.

use std::ops::Range;

use proptest::prelude::*;

mod answers;
mod batches;
mod cores;
mod dependencies;
mod fairness;
mod history;
mod invariants;
mod limits;
mod pools;
mod promotions;
mod remote;
mod restarts;
mod schedules;
mod steps;
mod store;
mod submissions;
mod unique_keys;
mod updates;
mod workers;
mod world;

use crate::model::TaskState;
use schedules::NewSchedule;
use steps::{Deleted, NewTask, ParentName, Restart, Step};
use world::World;

/// Cases, unless more are asked for.
const CASES: u32 = 1_500;

fn config() -> ProptestConfig {
    let given = ProptestConfig::default();
    ProptestConfig { cases: given.cases.max(CASES), max_shrink_iters: 20_000, ..given }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn invariants_hold_after_every_step_and_every_task_ends(
        steps in proptest::collection::vec(steps::step(), 1..150),
    ) {
        let mut world = after(steps);
        world.run_to_end();
        invariants::check(&world);
    }
}

fn after(steps: impl IntoIterator<Item = (Step, bool)>) -> World {
    let mut world = World::new();
    for (step, commit) in steps {
        world.execute(step, commit);
        invariants::check(&world);
    }
    world
}

#[test]
fn a_run_is_not_missed_early_because_a_restart_cancels_the_one_before() {
    let schedule =
        NewSchedule { every_s: 4, overlap: 1, max_runs: None, catch_up_s: 10, jitter_ms: 0, task: NewTask::default() };
    let kill = Restart { clean: false, from_rows: false, projected: 0, clock_ms: -2 };
    after([
        (Step::CreateSchedule((0, 0), schedule), true),
        (Step::Advance { ms: 4_300 }, true),
        (Step::Claim { pool: 0, worker: 0, report: false }, true),
        (Step::Advance { ms: 346 }, true),
        (Step::Cancel { pick: 0, force: false }, true),
        (Step::Restart(kill), true),
        (Step::Advance { ms: 37_355 }, true),
    ]);
}

#[test]
fn a_configuration_can_replace_all_schedules_of_a_namespace_that_has_as_many_as_it_may() {
    let schedule =
        NewSchedule { every_s: 4, overlap: 1, max_runs: None, catch_up_s: 10, jitter_ms: 0, task: NewTask::default() };
    let configured = |ids: Range<u8>| {
        let schedules = ids.map(|id| ((0, id), schedule.clone()));
        (Step::ConfigureSchedules(schedules.collect()), true)
    };
    after([configured(0..4), configured(4..8)]);
}

#[test]
fn tasks_keep_their_places_of_a_reduced_limit_over_a_kill_that_loses_an_end() {
    let configured = 5;
    let task = |id| NewTask { id, limits: vec![configured], ..NewTask::default() };
    let kill = Restart { clean: false, from_rows: false, projected: 0, clock_ms: 0 };
    let mut world = after([
        (Step::Submit(vec![task(0), task(1)]), true),
        (Step::SetLimit { max: Some(1) }, true),
        (Step::Cancel { pick: 0, force: false }, false),
        (Step::Restart(kill), true),
    ]);
    assert!(world.live.tasks.values().all(|task| task.state == TaskState::Queued));
    world.run_to_end();
}

#[test]
fn a_retry_is_no_parent_of_itself_though_it_has_the_id_of_a_deleted_one() {
    let task = NewTask { id: 6, ..NewTask::default() };
    let retry = NewTask { parents: vec![ParentName::Existing(0)], retry_of: Some(0), ..task.clone() };
    let world = after([
        (Step::Submit(vec![task]), true),
        (Step::Cancel { pick: 0, force: false }, true),
        (Step::Submit(vec![retry]), true),
        (Step::Delete(Deleted::All), true),
        (Step::Repeat { pick: 1 }, true),
    ]);
    assert!(world.live.tasks.is_empty());
}

proptest! {
    // Each case opens a store three times.
    #![proptest_config(ProptestConfig { cases: config().cases / 100, ..config() })]

    #[test]
    fn a_restart_from_a_store_on_disk_changes_no_answer(
        steps in proptest::collection::vec(steps::step(), 1..150),
        projected in any::<prop::sample::Index>(),
    ) {
        let mut world = World::new();
        for (step, commit) in steps {
            world.execute(step, commit);
        }
        let projected = projected.index(world.journal.len() + 1);
        store::restarts_change_no_answer(&world.journal, projected, world.at());
    }
}
