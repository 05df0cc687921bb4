//! Batches: what follows from their events and those of their tasks, the calls for them, and their invariants.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::batch_state::batch_of;
use crate::model::{
    BatchChange, BatchEvent, BatchId, BatchKey, BatchSpec, CancelMode, CancelRequest, Namespace, Revision, TaskChange,
    TaskEvent, TaskId, TaskSpec, TaskState,
};
use crate::scheduler::refusal::Refusal;

use super::history::{Cause, History};
use super::steps::NewTask;
use super::world::World;

pub fn batch_key(namespace: usize, batch: u8) -> BatchKey {
    let namespace = Namespace::parse(["a", "b", "c"][namespace]).unwrap();
    BatchKey { namespace, id: batch_id(batch) }
}

pub fn batch_id(batch: u8) -> BatchId {
    BatchId::parse(&format!("b{batch}")).unwrap()
}

#[derive(Clone, Debug, Default)]
pub struct KnownBatch {
    spec: Arc<BatchSpec>,
    closed: bool,
    cancelled: bool,
    /// By submission: the last state, and whether the task exists.
    tasks: BTreeMap<Revision, (TaskState, bool)>,
    completion: Option<TaskId>,
    /// Its last task was deleted after its end.
    must_go: bool,
}

impl KnownBatch {
    fn count(&self, state: TaskState) -> u64 {
        self.tasks.values().filter(|(its, _)| *its == state).count() as u64
    }

    fn present(&self) -> u64 {
        self.tasks.values().filter(|(_, exists)| *exists).count() as u64
    }

    fn has_finished(&self) -> bool {
        let may_finish = self.closed || !self.spec.open && !self.tasks.is_empty();
        may_finish && self.tasks.values().all(|(state, _)| state.is_terminal())
    }
}

impl History {
    pub fn observe_batch(&mut self, event: &BatchEvent) {
        let known = self.batches.get_mut(&event.batch);
        match (&event.change, known) {
            (BatchChange::Created { spec }, None) => {
                let known = KnownBatch { spec: spec.clone(), ..KnownBatch::default() };
                self.batches.insert(event.batch.clone(), known);
            }
            (BatchChange::Closed, Some(known)) => {
                assert!(!known.closed, "{event:?} of a closed batch");
                known.closed = true;
            }
            (BatchChange::CancelRequested { .. }, Some(known)) => {
                assert!(!known.has_finished(), "{event:?} of a finished batch");
                (known.closed, known.cancelled) = (true, true);
            }
            (BatchChange::Deleted, Some(known)) => {
                assert_eq!(known.present(), 0, "{event:?} before its tasks");
                assert!(!known.has_finished() || known.spec.completion.is_none() || known.completion.is_some());
                self.batches.remove(&event.batch);
            }
            (change, known) => panic!("{change:?} of {known:?}"),
        }
    }

    /// An event of a task; `submission`: of the task.
    pub fn observe_in_batch(&mut self, event: &TaskEvent, submission: Revision) {
        let Some(key) = batch_of(event) else { return };
        if let TaskChange::Submitted { spec } = &event.change
            && spec.extras().completes.is_some()
        {
            let known = self.batches.get_mut(&key.to_key()).expect("the batch of a completion");
            return observe_completion(known, event, spec);
        }
        let known = self.batches.entry(key.to_key()).or_default();
        match &event.change {
            TaskChange::Submitted { .. } => {
                assert!(!known.closed, "{event:?} joins a closed batch");
                known.tasks.insert(submission, (event.state, true));
            }
            TaskChange::Deleted => {
                known.tasks.get_mut(&submission).expect("a task of the batch").1 = false;
                known.must_go = known.has_finished() && known.present() == 0;
            }
            _ => known.tasks.get_mut(&submission).expect("a task of the batch").0 = event.state,
        }
    }
}

fn observe_completion(known: &mut KnownBatch, event: &TaskEvent, spec: &TaskSpec) {
    assert!(known.has_finished(), "{event:?} before the end of its batch");
    assert_eq!(known.completion.replace(event.task.clone()), None, "the completion is submitted once");
    known.closed = true;
    let report: serde_json::Value = serde_json::from_slice(&spec.payload).unwrap();
    for (field, state) in
        [("completed", TaskState::Completed), ("failed", TaskState::Failed), ("cancelled_tasks", TaskState::Cancelled)]
    {
        assert_eq!(report[field], known.count(state), "{field} of {report}");
    }
    let (named, omitted) = (report["failures"].as_array().unwrap().len(), &report["failures_omitted"]);
    assert_eq!(named as u64 + omitted.as_u64().unwrap(), known.count(TaskState::Failed), "failures of {report}");
    assert_eq!(report["cancelled"], known.cancelled);
}

impl World {
    pub fn create_batch(&mut self, key: BatchKey, open: bool, completion: Option<&NewTask>) {
        let completion = completion.map(|task| {
            let basis = self.spec(task);
            let id = TaskId::parse(&format!("completion-{}", self.core.revision().0)).unwrap();
            let options =
                crate::model::TaskOptions { namespace: key.namespace.clone(), batch: None, ..(*basis.options).clone() };
            Arc::new(TaskSpec { id, options: Arc::new(options), payload: Box::default(), extras: None })
        });
        let spec = BatchSpec { open, completion, ..BatchSpec::default() };
        let exists = self.live.batches.contains_key(&key);
        let before = self.out.events.len();
        match self.core.create_batch(self.at(), key, spec, &mut self.out) {
            Ok((_, duplicate)) => assert_eq!(duplicate, exists),
            Err(Refusal::BatchExists(_)) => assert!(exists),
            Err(Refusal::MemoryFull(_)) => assert_eq!(self.out.events.len(), before),
            Err(refusal) => panic!("{refusal}"),
        }
    }

    pub fn close_batch(&mut self, key: &BatchKey) {
        let closed = self.core.close_batch(self.at(), key, &mut self.out);
        assert_eq!(closed.is_ok(), self.live.batches.contains_key(key));
    }

    pub fn cancel_batch(&mut self, key: &BatchKey, force: bool) {
        let mode = if force { CancelMode::Force } else { CancelMode::Graceful };
        let grace = Duration::from_secs(1);
        let request =
            CancelRequest { requested_at: self.at(), reason: "".into(), requested_by: "".into(), mode, grace };
        let known = self.live.batches.get(key);
        let may_cancel = known.is_some_and(|known| !known.has_finished() || known.cancelled);
        let begun = self.core.cancel_batch(self.at(), key, request, Some(grace), &mut self.out);
        assert_eq!(begun.is_ok(), may_cancel, "{begun:?}");
        self.batch_cancels.extend(begun.ok().flatten());
    }

    pub fn delete_batch(&mut self, key: &BatchKey) {
        let may_delete = self.live.batches.get(key).is_some_and(KnownBatch::has_finished);
        let begun = self.core.delete_batch(self.at(), key, &mut self.out);
        assert_eq!(begun.is_ok(), may_delete, "{begun:?}");
        if let Ok(deletion) = begun {
            self.delete(
                deletion,
                crate::model::TaskFilter {
                    batch: Some(key.id.clone()),
                    namespaces: vec![key.namespace.clone()],
                    ..Default::default()
                },
            );
        }
    }

    /// Does what a turn of the service does for cancels of batches.
    pub fn continue_batch_cancels(&mut self) {
        let Some(mut cancel) = self.batch_cancels.pop_front() else { return };
        let is_done = self.core.continue_batch_cancel(&mut cancel, 3, |_| Duration::ZERO, &mut self.out);
        self.answer_recalls();
        self.observe(&Cause::Input);
        if !is_done {
            return self.batch_cancels.push_back(cancel);
        }
        let key = cancel.key();
        for (id, task) in &self.live.tasks {
            let options = &task.spec.options;
            if options.batch.as_ref() == Some(&key.id) && options.namespace == key.namespace {
                assert!(task.state.is_terminal() || task.is_cancelled, "{id} after the cancel of its batch");
            }
        }
    }

    /// Lets every batch finish.
    pub fn close_batches(&mut self) {
        let keys: Vec<_> = self.live.batches.keys().cloned().collect();
        for key in &keys {
            self.close_batch(key);
            self.observe(&Cause::Input);
        }
    }
}

/// The counts are those of the tasks, and what follows from the end of a batch has happened.
pub fn check(world: &World) {
    let known = &world.live.batches;
    assert_eq!(world.core.batches.iter().count(), known.len(), "batches");
    for (key, known) in known {
        let batch = world.core.batch(key).unwrap();
        assert_eq!(TaskState::ALL.map(|state| batch.counts.of(state)), TaskState::ALL.map(|state| known.count(state)));
        assert_eq!(batch.present, known.present(), "tasks of {key} that exist");
        assert_eq!((batch.closed_at.is_some(), batch.cancel.is_some()), (known.closed, known.cancelled), "{key}");
        assert_eq!(batch.finished_at.is_some(), known.has_finished(), "the end of {key}");
        assert_eq!(batch.completion, known.completion, "the completion of {key}");
        let is_due = known.spec.completion.is_some() && known.has_finished();
        assert_eq!(known.completion.is_some(), is_due, "the completion of {key} is submitted at its end");
        assert!(!known.must_go, "{key} goes with its last task");
    }
}
