//! Accepting submissions: all tasks of a submission or none, and each task once.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::model::{
    Durability, Event, Holds, LimitHold, PoolName, RequestKey, Revision, TaskChange, TaskEvent, TaskId, TaskSpec,
    TaskState, Timestamp,
};
use crate::scheduler::refusal::{BadField, Draining, QueueFull, Refusal, RequestIdReused};

use super::decisions::Decisions;
use super::state::{Core, attached_bytes};
use super::submission::{Accepted, StoredIds, Submission, Submitted, Undecided, Verdict};

impl Core {
    /// Accepts all of these tasks or none.
    ///
    /// # Errors
    /// [`Draining`], [`QueueFull`], `MemoryFull`, `UnknownPool`, `BatchNotFound`, `BatchClosed`, `ParentNotFound`,
    /// [`RequestIdReused`], `UniqueKeyTaken`, and [`BadField`] for an ID that appears twice in the submission, and for a cycle of
    /// parents.
    pub fn submit(
        &mut self,
        now: Timestamp,
        submission: impl Into<Submission>,
        out: &mut Decisions,
    ) -> Result<Verdict, Refusal> {
        if self.draining {
            return Err(Draining.into());
        }
        let submission = submission.into();
        let mut open = OpenQuestions::default();
        let mut accepted = self.deduplicate(now, &submission, &mut open)?;
        if let Some(stored) = &submission.stored {
            self.requests.remove_stored(stored.revision);
        }
        if open.written_to.is_some() || !open.tasks.is_empty() {
            let OpenQuestions { written_to, tasks, .. } = open;
            return Ok(Verdict::Undecided(Box::new(Undecided { submission, written_to, tasks })));
        }
        let key_effects = self.resolve_unique_keys(now, &submission.specs, &mut accepted)?;
        if submission.repeats_only && accepted.iter().any(|accepted| !accepted.duplicate) {
            return Ok(Verdict::NotRepeated);
        }
        let mut specs = submission.specs;
        let is_batch = submission.creates_batch || specs.len() > 1;
        let order = self.resolve_parents(&mut specs, &accepted, is_batch)?;
        let new = || specs.iter().zip(&accepted).filter(|(_, accepted)| !accepted.duplicate).map(|(spec, _)| spec);
        let batch_bytes = self.check_batches(new(), submission.creates_batch)?;
        self.check_queue_limits(new())?;
        let limit_bytes = self.check_limits(new())?;
        self.check_attached(batch_bytes + limit_bytes + new().map(attached_bytes).sum::<u64>())?;
        let after = self.revision;
        for submission in &key_effects.reused {
            open.note(Some(TaskState::Completed), *submission);
        }
        let after_ended = open.before_ended.map_or(after, |before| before.min(after));
        let is_synced = specs.iter().any(|spec| spec.options.durability == Durability::Fsync);
        let durability = if is_synced { Durability::Fsync } else { Durability::Memory };
        match order {
            None => {
                let new = specs.into_iter().zip(&mut accepted).filter(|(_, accepted)| !accepted.duplicate);
                for (spec, accepted) in new {
                    accepted.state = Some(self.add(now, spec, out));
                }
            }
            Some(order) => {
                let mut specs: Vec<_> = specs.into_iter().map(Some).collect();
                for place in order {
                    if let Some(spec) = specs[place].take_if(|_| !accepted[place].duplicate) {
                        accepted[place].state = Some(self.add(now, spec, out));
                    }
                }
            }
        }
        let revision = self.revision;
        self.apply_unique_keys(now, key_effects, &mut accepted, out);
        Ok(Verdict::Accepted(Submitted { accepted, after, after_ended, revision, durability }))
    }

    /// Adds a task whose parents exist, and returns its state.
    pub(super) fn add(&mut self, now: Timestamp, spec: TaskSpec, out: &mut Decisions) -> TaskState {
        let parents = self.parents_of_new(&spec);
        let is_held = parents.iter().any(|(_, is_awaited)| *is_awaited);
        let (state, hold) = if is_held { (TaskState::Waiting, None) } else { self.state_of_new(now, &spec) };
        let mut event = TaskEvent {
            revision: self.revision.next(),
            at: now,
            task: spec.id.clone(),
            options: spec.options.clone(),
            previous: state,
            state,
            attempt: 0,
            holds: Holds::NONE,
            hold,
            change: TaskChange::Submitted { spec: Arc::new(spec) },
        };
        if let Some(index) = self.apply_submitted(&event) {
            self.add_parents(index, parents);
            event.holds = self.holds_of(index);
        }
        out.events.push(Event::Task(event));
        state
    }

    /// The state of a new task, and the limit that holds it.
    pub(super) fn state_of_new(&self, now: Timestamp, spec: &TaskSpec) -> (TaskState, Option<Box<LimitHold>>) {
        if spec.extras().delay.is_some_and(|delay| now.after(delay) > now) {
            return (TaskState::Waiting, None);
        }
        self.state_within_limits(spec)
    }

    /// Finds the tasks that are submitted again.
    fn deduplicate(
        &self,
        now: Timestamp,
        submission: &Submission,
        open: &mut OpenQuestions,
    ) -> Result<Vec<Accepted>, Refusal> {
        let count = submission.specs.len();
        let (mut ids, mut request_ids) = (HashSet::with_capacity(if count > 1 { count } else { 0 }), HashSet::new());
        let mut accepted = Vec::with_capacity(count);
        for (index, spec) in submission.specs.iter().enumerate() {
            let repeated = match spec.extras().request.as_deref() {
                Some(key) => self.find_request(now, index, (spec, key), submission.stored.as_deref(), open)?,
                None => None,
            };
            let repeated = repeated.or_else(|| self.find_task(spec, submission.stored.as_deref(), open));
            accepted.push(repeated.unwrap_or_else(|| accept_new(spec)));
            if count == 1 {
                break;
            }
            let field = if !ids.insert(&spec.id) {
                "task_id"
            } else if spec.extras().request_id().is_some_and(|id| !request_ids.insert(id)) {
                "request_id"
            } else {
                continue;
            };
            let description = "appears twice in this batch".to_owned();
            return Err(BadField { field: format!("tasks[{index}].{field}"), description }.into());
        }
        Ok(accepted)
    }

    /// Finds the first submission with the same request ID.
    fn find_request(
        &self,
        now: Timestamp,
        index: usize,
        (spec, key): (&TaskSpec, &RequestKey),
        stored: Option<&StoredIds>,
        open: &mut OpenQuestions,
    ) -> Result<Option<Accepted>, Refusal> {
        let looked_up = stored.map_or(Revision::default(), |stored| stored.revision);
        let retention = self.options.retention.requests;
        let (task, submission, digest) =
            if let Some((recent, newer)) = self.requests.find(&spec.options.namespace, &key.id) {
                if !retention.covers(now, recent.at, newer) {
                    return Ok(None);
                }
                (&recent.task, recent.submission, recent.digest)
            } else if looked_up < self.requests.complete_after() {
                open.written_to = Some(self.requests.complete_after());
                return Ok(None);
            } else {
                let Some(found) = stored.and_then(|stored| stored.request(index)) else { return Ok(None) };
                if !retention.covers(now, found.at, found.newer + self.requests.count_after(looked_up)) {
                    return Ok(None);
                }
                (&found.task, found.submission, found.digest)
            };
        if spec.request_with_digest().is_none_or(|(_, repeated)| repeated != digest) {
            return Err(RequestIdReused { request_id: key.id.clone(), task: task.clone() }.into());
        }
        let existing = self.tasks.find(task).and_then(|index| self.tasks.get(index));
        let state = existing.filter(|task| task.submission == submission).map(|task| task.state);
        open.note(state, submission);
        Ok(Some(Accepted { id: task.clone(), state, duplicate: true }))
    }

    /// Finds the task with the same ID.
    fn find_task(&self, spec: &TaskSpec, stored: Option<&StoredIds>, open: &mut OpenQuestions) -> Option<Accepted> {
        let task = self.tasks.find(&spec.id).and_then(|index| self.tasks.get(index))?;
        if stored.is_none_or(|stored| !stored.repeated.contains(&task.submission)) {
            open.tasks.push((spec.id.clone(), task.submission));
        }
        open.note(Some(task.state), task.submission);
        Some(Accepted { id: spec.id.clone(), state: Some(task.state), duplicate: true })
    }

    pub(super) fn check_queue_limits<'a>(&self, new: impl Iterator<Item = &'a TaskSpec>) -> Result<(), Refusal> {
        let mut added: HashMap<&PoolName, u64> = HashMap::new();
        for spec in new {
            *added.entry(&spec.options.pool).or_default() += 1;
        }
        for (name, count) in added {
            let pool = &self.pools[usize::from(self.pool_index(name)?)];
            let waiting = pool.waiting + pool.queued;
            let limit = pool.spec.queue_limit as u64;
            if waiting + count > limit {
                return Err(QueueFull { pool: name.clone(), waiting, limit }.into());
            }
        }
        Ok(())
    }
}

/// What the core cannot decide by itself, and what it has found meanwhile.
#[derive(Default)]
struct OpenQuestions {
    written_to: Option<Revision>,
    tasks: Vec<(TaskId, Revision)>,
    /// Before the first submission of the repeated tasks that have ended or were deleted.
    before_ended: Option<Revision>,
}

impl OpenQuestions {
    /// Takes note of a repeated task: its state, and the revision of its submission.
    fn note(&mut self, state: Option<TaskState>, submission: Revision) {
        if state.is_none_or(TaskState::is_terminal) {
            let before = Revision(submission.0.saturating_sub(1));
            self.before_ended = Some(self.before_ended.map_or(before, |earlier| earlier.min(before)));
        }
    }
}

/// Its state is set when it is added.
fn accept_new(spec: &TaskSpec) -> Accepted {
    Accepted { id: spec.id.clone(), state: None, duplicate: false }
}
