//! Compares the core with a naive model over random commands, crashes and restarts, and checks the invariants after every
//! step. proptest shrinks a failing case and stores its seed in `proptest-regressions`, from where the next run repeats it.
//! `PROPTEST_CASES` raises the number of cases.

use proptest::prelude::*;

mod answers;
mod batches;
mod cores;
mod dependencies;
mod history;
mod invariants;
mod limits;
mod pools;
mod remote;
mod restarts;
mod schedules;
mod steps;
mod store;
mod submissions;
mod unique_keys;
mod workers;
mod world;

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
        let mut world = World::new();
        for (step, commit) in steps {
            world.execute(step, commit);
            invariants::check(&world);
        }
        world.run_to_end();
        invariants::check(&world);
    }
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
