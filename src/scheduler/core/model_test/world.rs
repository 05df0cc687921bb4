//! A server around the core: pools that start attempts, a journal, a projection that lags, and restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    CancelMode, Event, Namespace, Payload, PoolName, PoolSettings, PoolSpec, Priority, RememberedRequest, RequestKey,
    RequestRetention, RetryPolicy, Revision, StopMethod, Task, TaskChange, TaskExtras, TaskFilter, TaskId, TaskOptions,
    TaskSpec, TaskState, Timestamp,
};
use crate::pool::{Assignment, Ticket};
use crate::runners::{Outcome, StopCause};
use crate::scheduler::refusal::{Refusal, TaskExists};
use crate::store::fold;

use super::super::tests::{attempt_end, failed, request, spec};
use super::super::{
    Core, CoreOptions, Decisions, Deletion, Dispatch, PoolUpdate, StoredIds, Submission, Submitted, Undecided, Verdict,
};
use super::answers::Answers;
use super::history::{Cause, History, Known, RETENTION_AGE, RETENTION_COUNT, Start};
use super::steps::{Deleted, NewTask, Restart, Step};

pub const POOLS: [&str; 2] = ["default", "other"];
pub const PAYLOAD_BYTES_MAX: u64 = 1_000;
pub const ATTACHED_BYTES_MAX: u64 = 2_000;
/// Attempts of which a report may still arrive after a restart.
const LOST_MAX: usize = 30;

pub struct World {
    pub core: Core,
    pub now: u64,
    /// What follows from all events, durable or not.
    pub live: History,
    /// What follows from the durable events.
    pub durable: History,
    pub pools: [Pool; 2],
    pub pending: Pending,
    /// Submissions that were acknowledged.
    pub accepted: BTreeMap<Revision, TaskId>,
    pub journal: Vec<Event>,
    out: Decisions,
    specs: Vec<TaskSpec>,
    deletion: Option<(Deletion, TaskFilter, Revision)>,
    epoch: u64,
    /// Attempts that were live when a server ended.
    lost: Vec<Ticket>,
    /// Submissions of tasks that may not start twice, of which an attempt has run.
    ran: BTreeSet<Revision>,
}

/// What the core has decided and is not durable.
#[derive(Default)]
pub struct Pending {
    events: Vec<Event>,
    pub dispatches: Vec<Dispatch>,
    confirms: Vec<Ticket>,
    accepted: Vec<(Revision, TaskId)>,
}

/// A pool as its durable settings and the released dispatches made it.
#[derive(Default)]
pub struct Pool {
    pub settings: Option<PoolSettings>,
    pub held_back: [bool; Priority::COUNT],
    /// Not started.
    pub assigned: Vec<Assignment>,
    /// Started; not reported.
    pub claimed: Vec<Attempt>,
    /// Reported.
    pub running: Vec<Attempt>,
}

pub struct Attempt {
    pub ticket: Ticket,
    pub id: TaskId,
    submission: Revision,
    /// The handler runs, because the attempt needs no confirmation or has it.
    runs: bool,
    once: bool,
}

fn options() -> CoreOptions {
    let pool = |name: &str| PoolSpec { size: 2, ..PoolSpec::with_defaults(PoolName::parse(name).unwrap(), 2) };
    CoreOptions {
        pools: POOLS.map(pool).to_vec(),
        retention_count: RETENTION_COUNT,
        retention_age: RETENTION_AGE,
        payload_bytes_max: PAYLOAD_BYTES_MAX,
        attached_bytes_max: ATTACHED_BYTES_MAX,
        crashes_max: 3,
        requests: RequestRetention::default(),
    }
}

/// A core without tasks. It dispatches few attempts ahead, so that queues form.
pub fn new_core() -> Core {
    let mut core = Core::new(options());
    for pool in &mut core.pools {
        pool.prefetch = 0;
    }
    core
}

/// A core that continues after this revision of a projection.
pub fn begin_core(revision: Revision, subjects: &[Event]) -> Core {
    let mut core = new_core();
    for event in subjects {
        core.replay(event);
    }
    core.restore_revision(revision);
    core
}

/// A core that has read all events.
pub fn read_journal(journal: &[Event]) -> Core {
    let mut core = new_core();
    for event in journal {
        assert!(core.replay(event), "{event:?} is of an unknown task");
    }
    core
}

/// A core that has read the rows of a projection with the first `projected` events, and then the other events.
pub fn read_rows(journal: &[Event], projected: usize) -> Core {
    let (before, after) = journal.split_at(projected);
    let mut rows: BTreeMap<Revision, Option<Task>> = BTreeMap::new();
    let (mut submissions, mut subjects) = (BTreeMap::new(), BTreeMap::new());
    for event in before {
        match event {
            Event::Task(event) => {
                let submission = *submissions.entry(event.task.clone()).or_insert(event.revision);
                let row = rows.entry(submission).or_default();
                fold(row, event);
                if row.is_none() {
                    submissions.remove(&event.task);
                }
            }
            Event::Pool(pool) => drop(subjects.insert(pool.pool.clone(), event)),
        }
    }
    let subjects: Vec<Event> = subjects.into_values().cloned().collect();
    let mut core = begin_core(before.last().map_or(Revision(0), Event::revision), &subjects);
    for mut task in rows.into_values().flatten() {
        let payload = task.spec.payload.clone();
        task.spec = Arc::new(task.spec.without_payload());
        core.restore(task.into(), &payload);
    }
    for event in after {
        assert!(core.replay(event), "{event:?} is of an unknown task");
    }
    core
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
            pending: Pending::default(),
            accepted: BTreeMap::new(),
            journal: Vec::new(),
            out: Decisions::default(),
            specs: Vec::new(),
            deletion: None,
            epoch: 1,
            lost: Vec::new(),
            ran: BTreeSet::new(),
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
        self.continue_deletion();
        self.core.dispatch(&mut self.out);
        self.reports_of_lost_attempts_change_nothing();
        self.stage();
        if commit {
            self.commit();
        }
    }

    fn input(&mut self, step: Step) -> Cause {
        match step {
            Step::Submit(tasks) => {
                let specs: Vec<_> = tasks.iter().map(|task| self.spec(task)).collect();
                self.specs.extend(specs.iter().cloned());
                self.submit(specs);
            }
            Step::Repeat { pick } => {
                if let Some(spec) = self.specs.get(pick % self.specs.len().max(1)) {
                    self.submit(vec![spec.clone()]);
                }
            }
            Step::Claim { pool, report } => {
                if self.claim(pool) && report {
                    self.report(usize::MAX);
                }
            }
            Step::Report { pick } => self.report(pick),
            Step::End { pick, how } => self.end(pick, how),
            Step::Cancel { pick, force } => self.cancel(pick, force),
            Step::Advance { .. } => {}
            Step::UpdatePool { pool, paused, size } => self.update_pool(pool, paused, size),
            Step::Sweep { spare } => {
                self.core.sweep(self.at(), spare, &mut self.out);
                return Cause::Sweep(self.at());
            }
            Step::Delete(what) => self.begin_deletion(what),
            Step::Restart(restart) => return self.restart(restart),
        }
        Cause::Input
    }

    fn observe(&mut self, cause: &Cause) {
        for event in self.out.events.drain(..) {
            self.live.observe(&event, cause);
            self.pending.events.push(event);
        }
    }

    fn stage(&mut self) {
        self.observe(&Cause::Input);
        self.out.stops.clear();
        self.out.unattempted.clear();
        self.pending.confirms.append(&mut self.out.confirms);
        for dispatch in self.out.dispatches.drain(..) {
            let settings = self.live.pools.get(&PoolName::parse(POOLS[usize::from(dispatch.pool)]).unwrap());
            assert!(settings.is_none_or(|settings| !settings.paused), "a paused pool is given no attempts");
            for assignment in &dispatch.assignments {
                assignments_of_a_key_are_in_order(&self.live, &self.core, assignment);
            }
            self.pending.dispatches.push(dispatch);
        }
    }

    /// Makes the decisions durable and releases their effects.
    pub fn commit(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        self.journal.extend(pending.events);
        self.durable = self.live.clone();
        for (pool, name) in self.pools.iter_mut().zip(POOLS) {
            pool.settings = self.durable.pools.get(&PoolName::parse(name).unwrap()).copied();
        }
        self.accepted.extend(pending.accepted);
        for attempt in self.pools.iter_mut().flat_map(|pool| pool.running.iter_mut().chain(&mut pool.claimed)) {
            attempt.runs |= pending.confirms.contains(&attempt.ticket);
        }
        for Dispatch { pool, assignments, held_back } in pending.dispatches {
            let pool = &mut self.pools[usize::from(pool)];
            pool.assigned.extend(assignments);
            pool.held_back = held_back;
        }
    }

    fn spec(&self, task: &NewTask) -> TaskSpec {
        let id = format!("t{}", task.id);
        let basis = spec(&id, Priority::from_index(task.priority).unwrap());
        let options = TaskOptions {
            namespace: Namespace::parse(["a", "b", "c"][task.namespace]).unwrap(),
            pool: PoolName::parse(POOLS[task.pool]).unwrap(),
            at_most_once: task.once,
            retry: RetryPolicy { delay: Duration::from_secs(task.back_off_s), ..basis.options.retry.clone() },
            ..(*basis.options).clone()
        };
        let argument: Box<str> = "x".repeat(task.argument_bytes).into();
        let extras = TaskExtras {
            delay: (task.delay_ms > 0).then(|| Duration::from_millis(task.delay_ms)),
            expires_after: task.expires_ms.map(Duration::from_millis),
            request: task
                .request_id
                .map(|number| Arc::new(RequestKey { id: format!("request-{number}").into(), digest: None })),
            args: if argument.is_empty() { Box::default() } else { [argument].into() },
            ..TaskExtras::default()
        };
        // Different for each submission.
        let mut payload = self.specs.len().to_le_bytes().to_vec();
        payload.resize(task.payload_bytes.max(8), 7);
        TaskSpec { options: Arc::new(options), payload: payload.into(), extras: extras.boxed(), ..basis }
    }

    /// What a handle finds in the table of request IDs, which has all durable submissions.
    fn look_up(&self, specs: Vec<TaskSpec>) -> Submission {
        let found = |spec: &TaskSpec| {
            let id = spec.extras().request_id()?;
            let mut events = self.journal.iter().rev().filter_map(Event::task);
            events.find_map(|event| match &event.change {
                TaskChange::Submitted { spec: first }
                    if first.extras().request_id() == Some(id) && first.options.namespace == spec.options.namespace =>
                {
                    let (task, submission, at) = (event.task.clone(), event.revision, event.at);
                    let (_, digest) = first.request_with_digest()?;
                    Some(RememberedRequest { task, submission, digest, at, newer: 0 })
                }
                _ => None,
            })
        };
        let requests = specs.iter().enumerate().filter_map(|(index, spec)| Some((index, found(spec)?))).collect();
        let revision = self.journal.last().map_or(Revision(0), Event::revision);
        Submission { specs, stored: Some(Box::new(StoredIds { revision, requests, repeated: Vec::new() })) }
    }

    /// Submits as a handle does.
    fn decide(&mut self, submission: Submission) -> Result<Submitted, Refusal> {
        let Undecided { submission, written_to, tasks } =
            match self.core.submit(self.at(), submission, &mut self.out)? {
                Verdict::Accepted(submitted) => return Ok(submitted),
                Verdict::Undecided(undecided) => *undecided,
            };
        assert_eq!(written_to, None, "few submissions are not durable");
        let mut submission = submission;
        for (id, revision) in tasks {
            let repeated = submission.specs.iter().find(|spec| spec.id == id).unwrap();
            if !self.live.tasks[&id].spec.repeats(repeated) {
                return Err(TaskExists { task: id }.into());
            }
            submission.stored.get_or_insert_default().repeated.push(revision);
        }
        match self.core.submit(self.at(), submission, &mut self.out)? {
            Verdict::Accepted(submitted) => Ok(submitted),
            Verdict::Undecided(undecided) => panic!("still undecided: {undecided:?}"),
        }
    }

    fn submit(&mut self, specs: Vec<TaskSpec>) {
        let before = self.out.events.len();
        match self.decide(self.look_up(specs.clone())) {
            Ok(submitted) => {
                for (spec, accepted) in specs.iter().zip(&submitted.accepted) {
                    let known = self.live.tasks.get(&accepted.id);
                    let Some(state) = accepted.state else {
                        assert!(
                            accepted.duplicate && spec.extras().request.is_some(),
                            "only a request ID is remembered"
                        );
                        continue;
                    };
                    assert_eq!(known.is_some(), accepted.duplicate, "{} is new", accepted.id);
                    if let Some(known) = known {
                        assert_eq!(known.spec.payload, spec.payload, "a duplicate has the same content");
                        assert_eq!(known.state, state);
                    }
                }
                let added = self.out.events[before..].iter().filter_map(Event::task);
                let added: Vec<_> = added.map(|event| (event.revision, event.task.clone())).collect();
                let new = submitted.accepted.iter().filter(|accepted| !accepted.duplicate).count();
                assert_eq!(added.len(), new, "a submission adds all its new tasks");
                self.pending.accepted.extend(added);
            }
            Err(refusal) => {
                assert_eq!(self.out.events.len(), before, "a refused submission adds nothing");
                if let Refusal::TaskExists(exists) = refusal {
                    assert!(self.live.tasks.contains_key(&exists.task), "{} exists", exists.task);
                }
            }
        }
    }

    /// A free worker takes the most urgent attempt, unless the scheduler holds back a more urgent one.
    fn claim(&mut self, pool: usize) -> bool {
        let settings = self.pools[pool].settings.unwrap_or(PoolSettings { size: 2, queue_limit: 0, paused: false });
        let pool = &self.pools[pool];
        let urgency = |a: &Assignment| (a.spec.options.priority, std::cmp::Reverse(a.ticket.fence));
        let first = (0..pool.assigned.len()).max_by_key(|at| urgency(&pool.assigned[*at]));
        let Some(at) = first.filter(|_| !settings.paused && pool.claimed.len() + pool.running.len() < settings.size)
        else {
            return false;
        };
        let priority = pool.assigned[at].spec.options.priority;
        if pool.held_back[priority.index() + 1..].contains(&true) {
            return false;
        }
        nothing_more_urgent_waits(self, &pool.assigned[at]);
        the_payload_is_that_of_the_submission(&self.durable, &pool.assigned[at]);
        let index = usize::from(pool.assigned[at].ticket.pool);
        let Assignment { ticket, spec, submission, confirm, .. } = self.pools[index].assigned.remove(at);
        let (id, once) = (spec.id.clone(), spec.options.at_most_once);
        assert!(confirm || !once, "a task that may not start twice begins after its start is durable");
        let attempt = Attempt { ticket, id, submission, runs: !confirm, once };
        self.pools[index].claimed.push(attempt);
        true
    }

    /// Reports a start; the latest if there are not so many.
    fn report(&mut self, pick: usize) {
        let claimed: usize = self.pools.iter().map(|pool| pool.claimed.len()).sum();
        if claimed == 0 {
            return;
        }
        let mut pick = if pick == usize::MAX { claimed - 1 } else { pick % claimed };
        for pool in &mut self.pools {
            if pick < pool.claimed.len() {
                let attempt = pool.claimed.remove(pick);
                self.core.started(attempt.ticket, Timestamp(self.now), "w".into(), &mut self.out);
                pool.running.push(attempt);
                return;
            }
            pick -= pool.claimed.len();
        }
    }

    fn end(&mut self, pick: usize, how: u8) {
        let running: usize = self.pools.iter().map(|pool| pool.running.len()).sum();
        let mut pick = pick % running.max(1);
        let Some(pool) = self.pools.iter_mut().find(|pool| {
            let found = pick < pool.running.len();
            pick -= if found { 0 } else { pool.running.len() };
            found
        }) else {
            return;
        };
        let attempt = pool.running.remove(pick);
        let (outcome, cause) = match how {
            _ if !attempt.runs => (Outcome::Stopped(StopMethod::NeverStarted), Some(StopCause::Drain)),
            0..=2 => (Outcome::Completed(Payload::default()), None),
            3 | 4 => (failed(), None),
            5 => (Outcome::Stopped(StopMethod::Token), Some(StopCause::Timeout)),
            6 => (Outcome::Unavailable("no memory".into()), None),
            _ => (Outcome::Stopped(StopMethod::Token), Some(StopCause::Drain)),
        };
        if !matches!(outcome, Outcome::Unavailable(_)) {
            self.has_run(&attempt);
        }
        self.core.ended(attempt_end(attempt.ticket, self.now, outcome, cause), &mut self.out);
        let events = self.out.events.len();
        let repeated = attempt_end(attempt.ticket, self.now, Outcome::Completed(Payload::default()), None);
        self.core.ended(repeated, &mut self.out);
        assert_eq!(self.out.events.len(), events, "a second report of an attempt changes nothing");
    }

    fn has_run(&mut self, attempt: &Attempt) {
        if attempt.once && attempt.runs {
            assert!(self.ran.insert(attempt.submission), "{} runs at most once", attempt.id);
        }
    }

    fn cancel(&mut self, pick: usize, force: bool) {
        let Some(id) = self.live.tasks.keys().nth(pick % self.live.tasks.len().max(1)).cloned() else { return };
        let mut request = request(self.now);
        if force {
            (request.mode, request.grace) = (CancelMode::Force, Duration::ZERO);
        }
        let before = self.live.tasks[&id].state;
        match self.core.cancel(&id, request, &mut self.out) {
            Ok(_) => {
                self.answer_recalls();
                self.observe(&Cause::Input);
                let task = &self.live.tasks[&id];
                assert!(task.state == TaskState::Cancelled || task.is_cancelled, "an accepted cancel is an event");
            }
            Err(_) => assert!(matches!(before, TaskState::Completed | TaskState::Failed), "{id} is {before:?}"),
        }
    }

    fn answer_recalls(&mut self) {
        while let Some(ticket) = self.out.recalls.pop() {
            let in_pool = self.pools.iter_mut().map(|pool| &mut pool.assigned);
            let prepared = self.pending.dispatches.iter_mut().map(|dispatch| &mut dispatch.assignments);
            let mut won = false;
            for assignments in in_pool.chain(prepared) {
                let before = assignments.len();
                assignments.retain(|assignment| assignment.ticket != ticket);
                won |= assignments.len() < before;
            }
            self.core.recalled(self.at(), ticket, won, &mut self.out);
        }
    }

    fn update_pool(&mut self, pool: usize, paused: Option<bool>, size: Option<usize>) {
        let name = PoolName::parse(POOLS[pool]).unwrap();
        let update = PoolUpdate { name, size, paused, queue_limit: None, etag: None };
        let (_, view) = self.core.update_pool(self.at(), &update, &mut self.out).unwrap();
        assert!(paused.is_none_or(|paused| view.spec.paused == paused));
        assert!(size.is_none_or(|size| view.spec.size == size));
    }

    fn begin_deletion(&mut self, what: Deleted) {
        let mut filter = TaskFilter::default();
        match what {
            Deleted::All => {}
            Deleted::Namespace(n) => filter.namespaces = vec![Namespace::parse(["a", "b", "c"][n]).unwrap()],
            Deleted::Id(n) => filter.ids = vec![TaskId::parse(&format!("t{n}")).unwrap()],
            Deleted::Completed => filter.states = vec![TaskState::Completed],
        }
        self.deletion = Some((self.core.begin_deletion(filter.clone()), filter, self.core.revision()));
    }

    fn continue_deletion(&mut self) {
        let Some((mut deletion, filter, until)) = self.deletion.take() else { return };
        let complete = self.core.continue_deletion(self.at(), &mut deletion, 2, &mut self.out);
        self.observe(&Cause::Request(filter.clone(), until));
        if !complete {
            self.deletion = Some((deletion, filter, until));
        }
    }

    /// For example from a process that outlived the server.
    fn reports_of_lost_attempts_change_nothing(&mut self) {
        for ticket in &self.lost {
            self.core.started(*ticket, Timestamp(self.now), "w".into(), &mut self.out);
            let end = attempt_end(*ticket, self.now, Outcome::Completed(Payload::default()), None);
            self.core.ended(end, &mut self.out);
        }
        assert!(self.out.events.is_empty(), "a report from before a restart has no effect");
    }

    /// Ends the server and starts the next one, which has only the durable events.
    fn restart(&mut self, restart: Restart) -> Cause {
        if restart.clean {
            self.drain();
        }
        for attempt in self.pools.iter_mut().flat_map(|pool| pool.claimed.drain(..).chain(pool.running.drain(..))) {
            self.lost.push(attempt.ticket);
            if attempt.once && attempt.runs {
                assert!(self.ran.insert(attempt.submission), "{} runs at most once", attempt.id);
            }
        }
        self.lost.extend(self.pools.iter_mut().flat_map(|pool| pool.assigned.drain(..)).map(|a| a.ticket));
        self.lost.drain(..self.lost.len().saturating_sub(LOST_MAX));
        (self.pending, self.out, self.deletion) = (Pending::default(), Decisions::default(), None);
        self.live = self.durable.clone();
        self.now = self.now.saturating_add_signed(restart.clock_ms * 1_000);
        self.live.start = Start { revision: self.live.revision, at: self.at() };
        self.epoch += 1;
        let projected = self.journal.len() * usize::from(restart.projected) / 256;
        let mut cores = [read_journal(&self.journal), read_rows(&self.journal, projected)];
        let running = self.durable.tasks.values().filter(|task| task.state == TaskState::Running).count();
        let [from_journal, from_rows] = cores.each_mut().map(|core| {
            let mut out = Decisions::default();
            if !restart.clean {
                core.be_careful(Timestamp(self.now));
            }
            core.reset_all_counters(Timestamp(self.now));
            core.begin_epoch(self.epoch);
            core.recover(Timestamp(self.now), &mut out);
            (Answers::of(core), out)
        });
        from_rows.0.assert_same(&from_journal.0, "a restart decides the same, whatever it reads");
        assert_eq!(from_rows.1.events, from_journal.1.events, "a restart decides the same, whatever it reads");
        self.out = from_rows.1;
        let [by_journal, by_rows] = cores;
        self.core = if restart.from_rows { by_rows } else { by_journal };
        for (pool, name) in self.pools.iter_mut().zip(POOLS) {
            let settings = self.durable.pools.get(&PoolName::parse(name).unwrap()).copied();
            *pool = Pool { settings, ..Pool::default() };
        }
        Cause::Restart { running }
    }

    /// Ends all attempts and makes everything durable.
    fn drain(&mut self) {
        self.core.drain();
        self.commit();
        while self.pools.iter().any(|pool| !pool.claimed.is_empty()) {
            self.report(0);
        }
        self.observe(&Cause::Input);
        while self.core.running() > 0 {
            self.end(0, u8::MAX);
        }
        self.answer_recalls();
        self.stage();
        self.commit();
    }

    /// Runs without faults until every accepted task has ended.
    pub fn run_to_end(&mut self) {
        for pool in 0..POOLS.len() {
            self.execute(Step::UpdatePool { pool, paused: Some(false), size: None }, true);
        }
        for _ in 0..2_000 {
            if self.live.tasks.values().all(|task| task.state.is_terminal()) {
                return;
            }
            for pool in 0..POOLS.len() {
                self.execute(Step::Claim { pool, report: true }, true);
            }
            self.execute(Step::Report { pick: 0 }, true);
            self.execute(Step::End { pick: 0, how: 0 }, true);
            self.execute(Step::Advance { ms: 100 }, true);
        }
        panic!("a task does not end: {:?}", self.live.tasks);
    }
}

/// Inside a key no task overtakes an older one. Exempt is one on its last try, which goes before all others.
fn assignments_of_a_key_are_in_order(live: &History, core: &Core, assignment: &Assignment) {
    let task = &live.tasks[&assignment.spec.id];
    if core.is_on_trial(assignment.ticket) {
        return;
    }
    let queued = live.tasks.iter().filter(|(id, other)| other.state == TaskState::Queued && core.ticket(id).is_none());
    for (id, other) in queued.filter(|(_, other)| other.key() == task.key()) {
        assert!(other.place > task.place, "{id} waits longer than {}", assignment.spec.id);
    }
}

/// No attempt starts while a task of higher priority can start in the same pool. Exempt is a task on its last try, for
/// which all others wait.
fn nothing_more_urgent_waits(world: &World, assignment: &Assignment) {
    if world.core.is_on_trial(assignment.ticket) {
        return;
    }
    let options = &assignment.spec.options;
    let claimed = |id: &TaskId| world.pools.iter().any(|pool| pool.claimed.iter().any(|attempt| attempt.id == *id));
    for (id, task) in &world.durable.tasks {
        // Not only the durable state: it may have started or ended since then.
        let is_same = |now: &Known| now.state == TaskState::Queued && now.place == task.place;
        let is_queued = task.state == TaskState::Queued && world.live.tasks.get(id).is_some_and(is_same);
        let more_urgent = task.spec.options.pool == options.pool && task.spec.options.priority > options.priority;
        assert!(!(is_queued && more_urgent) || claimed(id), "{id} waits while {} starts", assignment.spec.id);
    }
}

fn the_payload_is_that_of_the_submission(durable: &History, assignment: &Assignment) {
    let task = &durable.tasks[&assignment.spec.id];
    assert_eq!(assignment.submission, task.submission, "the submission identifies the stored payload");
    if !assignment.payload_stored {
        assert_eq!(assignment.spec.payload, task.spec.payload, "the payload that runs is the one submitted");
    }
    assert_eq!(assignment.spec.extras().args, task.spec.extras().args);
}
