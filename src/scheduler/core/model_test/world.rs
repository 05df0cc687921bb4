//! A server around the core: its state, and what a turn of the service does. The other files have what each step does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::model::{Autoscale, Event, Namespace, Revision, TaskFilter, TaskId, TaskSpec, TaskState, Timestamp};
use crate::pool::Ticket;

use super::super::{BatchCancel, Core, Decisions, Deletion, Dispatch, PoolUpdate, ScheduleUpdate};
use super::batches::batch_key;
use super::cores::{AUTOSCALE, POOLS, handler_name, is_remote, new_core, pool_name};
use super::fairness::Fairness;
use super::history::{Cause, History};
use super::limits::Limits;
use super::pools::{
    Attempt, Pool, Worker, assignments_of_a_key_are_in_order, no_slot_of_a_namespace_goes_to_a_lower_priority,
};
use super::promotions::Promotions;
use super::schedules::schedule_key;
use super::steps::{Deleted, HANDLERS, Step};

pub struct World {
    pub core: Core,
    pub now: u64,
    /// What follows from all events, durable or not.
    pub live: History,
    /// What follows from the durable events.
    pub durable: History,
    pub pools: [Pool; POOLS.len()],
    /// Attempts that the pools were given and whose end is not durable.
    pub given: Vec<(Ticket, Arc<TaskSpec>)>,
    /// The pool that has to start a task on its last try.
    pub unstarted_trial: Option<usize>,
    pub pending: Pending,
    /// Submissions that were acknowledged.
    pub accepted: BTreeMap<Revision, TaskId>,
    pub journal: Vec<Event>,
    pub out: Decisions,
    pub specs: Vec<TaskSpec>,
    pub deletion: Option<(Deletion, TaskFilter, Revision)>,
    pub batch_cancels: VecDeque<BatchCancel>,
    pub epoch: u64,
    pub limits: Limits,
    pub fairness: Fairness,
    pub promotions: Promotions,
    /// Attempts that were live when a server ended.
    pub lost: Vec<Ticket>,
    /// Attempts of remote workers whose end is not durable. The workers still have them.
    pub unsettled: Vec<Attempt>,
    /// Submissions of tasks that may not start twice, with the fence of the attempt that has run.
    pub ran: BTreeMap<Revision, u64>,
}

/// What the core has decided and is not durable.
#[derive(Default)]
pub struct Pending {
    events: Vec<Event>,
    pub dispatches: Vec<Dispatch>,
    confirms: Vec<Ticket>,
    pub accepted: Vec<(Revision, TaskId)>,
}

impl World {
    pub fn new() -> Self {
        let mut core = new_core();
        core.begin_epoch(1);
        Self {
            core,
            now: 1_000_000_000,
            live: History::default(),
            durable: History::default(),
            pools: Default::default(),
            given: Vec::new(),
            unstarted_trial: None,
            pending: Pending::default(),
            accepted: BTreeMap::new(),
            journal: Vec::new(),
            out: Decisions::default(),
            specs: Vec::new(),
            deletion: None,
            batch_cancels: VecDeque::new(),
            epoch: 1,
            limits: Limits::default(),
            fairness: Fairness::default(),
            promotions: Promotions::default(),
            lost: Vec::new(),
            unsettled: Vec::new(),
            ran: BTreeMap::new(),
        }
    }

    pub fn at(&self) -> Timestamp {
        Timestamp(self.now)
    }

    /// Does what a turn of the service does.
    pub fn execute(&mut self, step: Step, commit: bool) {
        if let Step::Advance { ms } = step {
            self.now += ms * 1_000;
        }
        self.core.advance(self.at(), &mut self.out);
        self.observe(&Cause::Input);
        let cause = self.input(step);
        self.observe(&cause);
        // A new server looks at its timers first.
        self.core.advance(self.at(), &mut self.out);
        self.answer_recalls();
        self.observe(&Cause::Input);
        self.run_schedules();
        self.continue_batch_cancels();
        self.continue_deletion();
        self.release_children();
        self.core.dispatch(&mut self.out);
        self.reports_of_lost_attempts_change_nothing();
        self.stage();
        self.shrink_excess();
        if commit {
            self.commit();
        }
    }

    fn input(&mut self, step: Step) -> Cause {
        match step {
            Step::Submit(tasks) => {
                let specs: Vec<_> = tasks.iter().map(|task| self.spec_with_parents(task, tasks.len())).collect();
                self.specs.extend(specs.iter().cloned());
                self.submit(specs);
            }
            Step::Repeat { pick } => {
                if let Some(spec) = self.specs.get(pick % self.specs.len().max(1)) {
                    self.submit(vec![spec.clone()]);
                }
            }
            Step::Claim { pool, worker, report } => {
                if self.claim(pool, worker) && report {
                    self.report(usize::MAX);
                }
            }
            Step::Report { pick } => self.report(pick),
            Step::End { pick, how } => self.end(pick, how),
            Step::Cancel { pick, force } => self.cancel(pick, force),
            Step::Update { pick, change } => self.update_task(pick, &change),
            Step::Advance { .. } => {}
            Step::UpdatePool { pool, paused, size } => self.update_pool(pool, paused, size),
            Step::ScalePool { pool, size } => self.scale_pool(pool, size),
            Step::SetMemory { low } => self.core.set_memory_low(low),
            Step::RegisterHandlers { pool, handlers } => self.register_handlers(pool, &handlers),
            Step::Connect { pool, worker, handlers, slots, keeps } => {
                self.connect(pool, worker, &handlers, slots, keeps);
            }
            Step::Disconnect { pool, worker } => self.disconnect(pool, worker),
            Step::LoseWorker { pool, worker } => self.lose_worker(pool, worker),
            Step::SetLimit { max } => self.set_limit(max),
            Step::Sweep { spare } => {
                let cause = Cause::Sweep(self.at());
                let more = self.core.sweep(self.at(), spare, &mut self.out);
                self.observe(&cause);
                if !more {
                    self.live.nothing_exceeds_the_retention(self.at());
                }
                return cause;
            }
            Step::Delete(what) => self.begin_deletion(what),
            Step::CreateBatch { key: (namespace, batch), open, completion } => {
                self.create_batch(batch_key(namespace, batch), open, completion.as_ref());
            }
            Step::CloseBatch(namespace, batch) => self.close_batch(&batch_key(namespace, batch)),
            Step::CancelBatch { key: (namespace, batch), force } => {
                self.cancel_batch(&batch_key(namespace, batch), force);
            }
            Step::DeleteBatch(namespace, batch) => self.delete_batch(&batch_key(namespace, batch)),
            Step::CreateSchedule((namespace, schedule), new) => {
                self.create_schedule(&schedule_key(namespace, schedule), &new);
            }
            Step::UpdateSchedule { key: (namespace, schedule), new, stale } => {
                self.replace_schedule(&schedule_key(namespace, schedule), &new, stale);
            }
            Step::PauseSchedule((namespace, schedule), paused) => {
                self.update_schedule(&schedule_key(namespace, schedule), ScheduleUpdate::Paused(paused), false);
            }
            Step::ConfigureSchedules(schedules) => self.configure_schedules(&schedules),
            Step::DeleteSchedule(namespace, schedule) => {
                self.update_schedule(&schedule_key(namespace, schedule), ScheduleUpdate::Delete, false);
            }
            Step::TriggerSchedule { key: (namespace, schedule), overlap } => {
                self.trigger_schedule(&schedule_key(namespace, schedule), overlap);
            }
            Step::Restart(restart) => return self.restart(restart),
        }
        Cause::Input
    }

    pub fn observe(&mut self, cause: &Cause) {
        self.limits.tick(self.now);
        for event in self.out.events.drain(..) {
            self.live.observe(&event, cause);
            self.limits.observe(&event);
            self.fairness.settle(&event);
            self.pending.events.push(event);
        }
    }

    pub fn stage(&mut self) {
        self.observe(&Cause::Input);
        self.out.stops.clear();
        self.out.unattempted.clear();
        self.pending.confirms.append(&mut self.out.confirms);
        let assigned = self.out.dispatches.iter().flat_map(|dispatch| &dispatch.assignments);
        if assigned.clone().any(|assignment| self.core.is_on_trial(assignment.ticket)) {
            // It goes before all others.
            self.fairness.forget();
        }
        self.fairness.observe(&self.core, &self.live, assigned.clone());
        self.promotions.observe(&self.core, &self.live, self.now, assigned);
        for dispatch in self.out.dispatches.drain(..) {
            let index = usize::from(dispatch.pool);
            let settings = self.live.pools.get(&pool_name(index));
            assert!(settings.is_none_or(|settings| !settings.paused), "a paused pool is given no attempts");
            let is_low = self.core.memory_is_low() && !is_remote(index);
            assert!(!is_low, "a pool is given attempts although memory is low");
            assert_eq!(dispatch.handler.is_some(), is_remote(index), "only remote pools have queues of handlers");
            for assignment in &dispatch.assignments {
                assignments_of_a_key_are_in_order(&self.live, &self.core, assignment);
                no_slot_of_a_namespace_goes_to_a_lower_priority(&self.live, &self.core, assignment);
                let options = &assignment.spec.options;
                let offers = |worker: &Worker| worker.offers(options);
                let can_run = !is_remote(index) || self.pools[index].workers.iter().any(offers);
                assert!(can_run, "no worker offers the handler of {}", assignment.spec.id);
            }
            self.pending.dispatches.push(dispatch);
        }
    }

    /// Makes the decisions durable and releases their effects.
    pub fn commit(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        self.journal.extend(pending.events);
        self.durable = self.live.clone();
        for (index, pool) in self.pools.iter_mut().enumerate() {
            pool.settings = self.durable.pools.get(&pool_name(index)).copied();
        }
        self.unsettled.clear();
        self.accepted.extend(pending.accepted);
        for attempt in self.pools.iter_mut().flat_map(|pool| pool.running.iter_mut().chain(&mut pool.claimed)) {
            attempt.runs |= pending.confirms.contains(&attempt.ticket);
        }
        for Dispatch { pool, handler, assignments, held_back } in pending.dispatches {
            let pool = &mut self.pools[usize::from(pool)];
            self.given.extend(assignments.iter().map(|assignment| (assignment.ticket, assignment.spec.clone())));
            pool.assigned.extend(assignments);
            pool.held_back.insert(handler, held_back);
        }
        self.unstarted_trial = self.core.pool_of_unstarted_trial();
        self.given.retain(|(ticket, spec)| self.core.ticket(&spec.id) == Some(*ticket));
    }

    fn update_pool(&mut self, pool: usize, paused: Option<bool>, size: Option<usize>) {
        // Its workers bring the slots of a remote pool, and its load those of one that autoscales.
        let size = size.filter(|_| !is_remote(pool) && AUTOSCALE[pool].is_none());
        let name = pool_name(pool);
        let update = PoolUpdate { name, size, paused, queue_limit: None, etag: None };
        let (_, view) = self.core.update_pool(self.at(), &update, &mut self.out).unwrap();
        assert!(paused.is_none_or(|paused| view.spec.paused == paused));
        assert!(size.is_none_or(|size| view.spec.size == size));
    }

    /// The pool gives the slots to attempts before the core has heard of them, and does not take them away.
    fn scale_pool(&mut self, pool: usize, size: usize) {
        let Some(Autoscale { min, max }) = AUTOSCALE[pool] else { return };
        self.core.scale_pool(u16::try_from(pool).unwrap(), size);
        self.pools[pool].scaled_to = Some(size.clamp(min, max));
    }

    fn register_handlers(&mut self, pool: usize, handlers: &[u8]) {
        let pool = pool_name(pool);
        let handler = |number: &u8| (handler_name(*number), "d".into());
        let handlers: Vec<_> = handlers.iter().map(handler).collect();
        self.core.register_handlers(self.at(), &pool, &handlers, &mut self.out).unwrap();
        let catalog = self.core.catalog();
        assert!(handlers.iter().all(|(handler, _)| catalog.handlers[handler].runs_in(&pool)));
    }

    fn begin_deletion(&mut self, what: Deleted) {
        let mut filter = TaskFilter::default();
        match what {
            Deleted::All => {}
            Deleted::Namespace(n) => filter.namespaces = vec![Namespace::parse(["a", "b", "c"][n]).unwrap()],
            Deleted::Id(n) => filter.ids = vec![TaskId::parse(&format!("t{n}")).unwrap()],
            Deleted::Completed => filter.states = vec![TaskState::Completed],
        }
        self.delete(self.core.begin_deletion(filter.clone()), filter);
    }

    pub fn delete(&mut self, deletion: Deletion, filter: TaskFilter) {
        self.deletion = Some((deletion, filter, self.core.revision()));
    }

    fn continue_deletion(&mut self) {
        let Some((mut deletion, filter, until)) = self.deletion.take() else { return };
        let complete = self.core.continue_deletion(self.at(), &mut deletion, 2, &mut self.out);
        self.observe(&Cause::Request(filter.clone(), until));
        if !complete {
            self.deletion = Some((deletion, filter, until));
        }
    }

    /// Runs without faults until every accepted task has ended.
    pub fn run_to_end(&mut self) {
        for pool in 0..POOLS.len() {
            self.execute(Step::UpdatePool { pool, paused: Some(false), size: None }, true);
            if is_remote(pool) {
                let handlers = (0..HANDLERS).collect();
                self.execute(Step::Connect { pool, worker: 0, handlers, slots: 1, keeps: true }, true);
            }
        }
        self.execute(Step::SetLimit { max: Some(1) }, true);
        self.execute(Step::SetMemory { low: false }, true);
        self.close_batches();
        self.delete_schedules();
        for _ in 0..2_000 {
            if self.live.tasks.values().all(|task| task.state.is_terminal()) {
                return;
            }
            for pool in 0..POOLS.len() {
                self.execute(Step::Claim { pool, worker: 0, report: true }, true);
            }
            self.execute(Step::Report { pick: 0 }, true);
            self.execute(Step::End { pick: 0, how: 0 }, true);
            self.execute(Step::Advance { ms: 100 }, true);
        }
        panic!("a task does not end: {:?}", self.live.tasks);
    }
}
