//! Accepting submissions: all tasks of a submission or none, and each task once.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::model::{
    Durability, Event, MemoryFull, MemoryPart, PoolName, Revision, TaskChange, TaskEvent, TaskId, TaskSpec, TaskState,
    Timestamp,
};
use crate::scheduler::refusal::{BadField, Draining, QueueFull, Refusal, RequestIdReused, TaskExists};

use super::decisions::Decisions;
use super::holds::{Hold, Holds};
use super::state::{Core, attached_bytes};
use super::table::{self, TaskEntry};

/// An accepted task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// ID of the task; for a duplicate that of the first submission.
    pub id: TaskId,
    /// WAITING or QUEUED; for a duplicate the present state of the task.
    pub state: TaskState,
    /// Whether the submission repeats an earlier one, so that no task was added.
    pub duplicate: bool,
}

/// An accepted submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// In the order of the submission.
    pub accepted: Vec<Accepted>,
    /// Events of the added tasks have later revisions.
    pub after: Revision,
    /// Revision of the last `Submitted` event.
    pub revision: Revision,
    /// When the submission may be acknowledged: `Fsync` if any of the tasks requires it.
    pub durability: Durability,
}

impl Core {
    /// Accepts all of these tasks or none.
    ///
    /// # Errors
    /// [`Draining`], [`QueueFull`], [`MemoryFull`], `UnknownPool`, [`TaskExists`], [`RequestIdReused`], and [`BadField`] for an
    /// ID that appears twice in the submission.
    pub fn submit(&mut self, now: Timestamp, specs: Vec<TaskSpec>, out: &mut Decisions) -> Result<Submitted, Refusal> {
        if self.draining {
            return Err(Draining.into());
        }
        let accepted = self.deduplicate(now, &specs)?;
        self.check_queue_limits(&specs, &accepted)?;
        self.check_memory(&specs, &accepted)?;
        let after = self.revision;
        let mut durability = Durability::Memory;
        for (spec, accepted) in specs.into_iter().zip(&accepted) {
            if spec.options.durability == Durability::Fsync {
                durability = Durability::Fsync;
            }
            if !accepted.duplicate {
                self.add(now, spec, accepted.state, out);
            }
        }
        Ok(Submitted { accepted, after, revision: self.revision, durability })
    }

    fn add(&mut self, now: Timestamp, spec: TaskSpec, state: TaskState, out: &mut Decisions) {
        let event = TaskEvent {
            revision: self.revision.next(),
            at: now,
            task: spec.id.clone(),
            options: spec.options.clone(),
            previous: state,
            state,
            attempt: 0,
            change: TaskChange::Submitted { spec: Arc::new(spec) },
        };
        self.apply_submitted(&event);
        out.events.push(Event::Task(event));
    }

    /// Finds the tasks that are submitted again.
    fn deduplicate(&self, now: Timestamp, specs: &[TaskSpec]) -> Result<Vec<Accepted>, Refusal> {
        let (mut ids, mut request_ids) = (HashSet::new(), HashSet::new());
        let mut accepted = Vec::with_capacity(specs.len());
        for (index, spec) in specs.iter().enumerate() {
            accepted.push(self.find_duplicate(spec)?.unwrap_or_else(|| accept_new(now, spec)));
            if specs.len() == 1 {
                break;
            }
            let field = if !ids.insert(&spec.id) {
                "task_id"
            } else if spec.extras().request_id.as_deref().is_some_and(|key| !request_ids.insert(key)) {
                "request_id"
            } else {
                continue;
            };
            let description = "appears twice in this batch".to_owned();
            return Err(BadField { field: format!("tasks[{index}].{field}"), description }.into());
        }
        Ok(accepted)
    }

    fn find_duplicate(&self, spec: &TaskSpec) -> Result<Option<Accepted>, Refusal> {
        if let Some(key) = spec.extras().request_id.as_deref()
            && let Some(task) = self.tasks.find_request(&spec.options.namespace, key).and_then(|i| self.tasks.get(i))
        {
            return if is_repeated(task, spec) {
                Ok(Some(accept_duplicate(task)))
            } else {
                Err(RequestIdReused { request_id: key.into(), task: task.spec.id.clone() }.into())
            };
        }
        match self.tasks.find(&spec.id).and_then(|index| self.tasks.get(index)) {
            Some(task) if is_repeated(task, spec) && task.spec.extras().request_id == spec.extras().request_id => {
                Ok(Some(accept_duplicate(task)))
            }
            Some(task) => Err(TaskExists { task: task.spec.id.clone() }.into()),
            None => Ok(None),
        }
    }

    /// Refuses what would have to stay in memory beyond the limit. Payloads are left to the store instead.
    fn check_memory(&self, specs: &[TaskSpec], accepted: &[Accepted]) -> Result<(), Refusal> {
        let added = specs.iter().zip(accepted).filter(|(_, accepted)| !accepted.duplicate);
        let added: u64 = added.map(|(spec, _)| attached_bytes(spec)).sum();
        let limit = self.options.attached_bytes_max;
        if added > 0 && self.attached_bytes + added > limit {
            return Err(MemoryFull { part: MemoryPart::Attached, used: self.attached_bytes, limit }.into());
        }
        Ok(())
    }

    fn check_queue_limits(&self, specs: &[TaskSpec], accepted: &[Accepted]) -> Result<(), Refusal> {
        let mut added: HashMap<&PoolName, u64> = HashMap::new();
        for (spec, _) in specs.iter().zip(accepted).filter(|(_, accepted)| !accepted.duplicate) {
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

fn accept_new(now: Timestamp, spec: &TaskSpec) -> Accepted {
    let waits = spec.extras().delay.is_some_and(|delay| now.after(delay) > now);
    let state = Holds::one_if(waits, Hold::Delay).state();
    Accepted { id: spec.id.clone(), state, duplicate: false }
}

fn accept_duplicate(task: &TaskEntry) -> Accepted {
    Accepted { id: task.spec.id.clone(), state: task.state, duplicate: true }
}

/// Whether a submission asks for the same as the earlier one of `task`. Submitter and time may differ.
fn is_repeated(task: &TaskEntry, spec: &TaskSpec) -> bool {
    let (a, b) = (&task.spec.options, &spec.options);
    a.handler == b.handler
        && a.pool == b.pool
        && a.namespace == b.namespace
        && a.priority == b.priority
        && a.labels == b.labels
        && a.display_name == b.display_name
        && a.timeout == b.timeout
        && a.retry == b.retry
        && a.content_type == b.content_type
        && a.at_most_once == b.at_most_once
        && task.digest == table::digest(&spec.payload, &spec.extras().args)
}
