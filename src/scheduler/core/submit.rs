//! Accepting tasks: all or none, each once.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::model::{Change, Durability, Event, PoolName, Revision, TaskId, TaskSpec, TaskState, Timestamp};
use crate::scheduler::refusal::{BadField, Draining, QueueFull, Refusal, RequestIdReused, TaskExists};

use super::table::{self, Slot};
use super::{Core, Output};

/// One accepted task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its id; for a duplicate that of the first submission.
    pub id: TaskId,
    /// WAITING or QUEUED; for a duplicate how the first submission stands.
    pub state: TaskState,
    /// Nothing was added.
    pub duplicate: bool,
}

/// The answer to a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// In the order of the submission.
    pub accepted: Vec<Accepted>,
    /// Events of what was added come after this revision.
    pub after: Revision,
    /// Revision at which this is true.
    pub revision: Revision,
    /// The weakest promise among them.
    pub durability: Durability,
}

impl Core {
    /// Accepts all of these tasks or none. The pool of each must exist.
    ///
    /// # Errors
    /// [`Draining`], [`QueueFull`], [`TaskExists`], [`RequestIdReused`], [`BadField`]
    /// for an id that appears twice, and `UnknownPool`.
    pub fn submit(&mut self, now: Timestamp, specs: Vec<TaskSpec>, out: &mut Output) -> Result<Submitted, Refusal> {
        if self.draining {
            return Err(Draining.into());
        }
        let twins = self.find_twins(&specs)?;
        self.check_bounds(&specs, &twins)?;
        let after = self.revision;
        let mut durability = Durability::Memory;
        let mut accepted = Vec::with_capacity(specs.len());
        for (spec, twin) in specs.into_iter().zip(twins) {
            if spec.options.durability == Durability::Fsync {
                durability = Durability::Fsync;
            }
            accepted.push(match twin {
                Some(twin) => twin,
                None => self.accept(now, spec, out),
            });
        }
        Ok(Submitted { accepted, after, revision: self.revision, durability })
    }

    fn accept(&mut self, now: Timestamp, spec: TaskSpec, out: &mut Output) -> Accepted {
        let waits = spec.extras().not_before.is_some_and(|at| at > now);
        let state = if waits { TaskState::Waiting } else { TaskState::Queued };
        let id = spec.id.clone();
        let event = Event {
            revision: self.revision.next(),
            at: now,
            task: id.clone(),
            options: spec.options.clone(),
            previous: state,
            state,
            attempt: 0,
            change: Change::Submitted { spec: Arc::new(spec) },
        };
        self.insert(&event);
        out.events.push(event);
        Accepted { id, state, duplicate: false }
    }

    /// For each spec the task that it repeats, if any.
    fn find_twins(&self, specs: &[TaskSpec]) -> Result<Vec<Option<Accepted>>, Refusal> {
        let (mut ids, mut request_ids) = (HashSet::new(), HashSet::new());
        let mut twins = Vec::with_capacity(specs.len());
        for (index, spec) in specs.iter().enumerate() {
            twins.push(self.find_twin(spec)?);
            if specs.len() == 1 {
                break;
            }
            let twice = if !ids.insert(&spec.id) {
                "task_id"
            } else if spec.extras().request_id.as_deref().is_some_and(|key| !request_ids.insert(key)) {
                "request_id"
            } else {
                continue;
            };
            let description = "appears twice in this batch".to_owned();
            return Err(BadField { field: format!("tasks[{index}].{twice}"), description }.into());
        }
        Ok(twins)
    }

    fn find_twin(&self, spec: &TaskSpec) -> Result<Option<Accepted>, Refusal> {
        if let Some(key) = spec.extras().request_id.as_deref()
            && let Some(twin) = self.tasks.find_request(&spec.options.namespace, key).and_then(|s| self.tasks.get(s))
        {
            return if repeats(twin, spec) {
                Ok(Some(duplicate(twin)))
            } else {
                Err(RequestIdReused { request_id: key.into(), task: twin.spec.id.clone() }.into())
            };
        }
        match self.tasks.find(&spec.id).and_then(|slot| self.tasks.get(slot)) {
            Some(twin) if repeats(twin, spec) && twin.spec.extras().request_id == spec.extras().request_id => {
                Ok(Some(duplicate(twin)))
            }
            Some(twin) => Err(TaskExists { task: twin.spec.id.clone() }.into()),
            None => Ok(None),
        }
    }

    fn check_bounds(&self, specs: &[TaskSpec], twins: &[Option<Accepted>]) -> Result<(), Refusal> {
        let mut added: HashMap<&PoolName, u64> = HashMap::new();
        for (spec, _) in specs.iter().zip(twins).filter(|(_, twin)| twin.is_none()) {
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

fn duplicate(twin: &Slot) -> Accepted {
    Accepted { id: twin.spec.id.clone(), state: twin.state, duplicate: true }
}

/// Whether a submission asks for the same as an earlier one; who asks and when does not matter.
fn repeats(twin: &Slot, spec: &TaskSpec) -> bool {
    let (a, b) = (&twin.spec.options, &spec.options);
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
        && twin.digest == table::digest(spec)
}
