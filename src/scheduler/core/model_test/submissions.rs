//! Submitting tasks as a handle of the scheduler does.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    Event, Namespace, Priority, RememberedRequest, RequestKey, RetryPolicy, Revision, TaskChange, TaskEvent,
    TaskExtras, TaskOptions, TaskSpec,
};
use crate::scheduler::refusal::{Refusal, TaskExists};

use super::super::tests::spec;
use super::super::{StoredIds, Submission, Submitted, Undecided, Verdict};
use super::batches::batch_id;
use super::cores::{handler_name, is_remote, pool_name};
use super::fairness::fairness_key;
use super::history::Cause;
use super::limits::task_limits;
use super::steps::NewTask;
use super::unique_keys::{repeats_earlier, unique_key, uses_existing};
use super::world::World;

impl World {
    pub fn spec(&self, task: &NewTask) -> TaskSpec {
        let id = format!("t{}", task.id);
        let basis = spec(&id, Priority::from_index(task.priority).unwrap());
        let options = TaskOptions {
            namespace: Namespace::parse(["a", "b", "c"][task.namespace]).unwrap(),
            pool: pool_name(task.pool),
            handler: if is_remote(task.pool) { handler_name(task.handler) } else { basis.options.handler.clone() },
            at_most_once: task.once,
            batch: task.batch.map(batch_id),
            limits: task_limits(&task.limits),
            fairness_key: fairness_key(task.fairness_key),
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
            unique: task.unique.map(|(number, rule, reuse_s)| Box::new(unique_key(number, rule, reuse_s))),
            args: if argument.is_empty() { Box::default() } else { [argument].into() },
            ..TaskExtras::default()
        };
        // Different for each submission.
        let mut payload = self.specs.len().to_le_bytes().to_vec();
        payload.resize(task.payload_bytes.max(8), 7);
        TaskSpec { options: Arc::new(options), payload: payload.into(), extras: extras.boxed(), ..basis }
    }

    /// What a handle finds in the table of request IDs, which has all durable submissions.
    pub fn look_up(&self, specs: Vec<TaskSpec>) -> Submission {
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
        let creates_batch = specs.len() > 1;
        let requests = specs.iter().enumerate().filter_map(|(index, spec)| Some((index, found(spec)?))).collect();
        let revision = self.journal.last().map_or(Revision(0), Event::revision);
        Submission {
            specs,
            stored: Some(Box::new(StoredIds { revision, requests, repeated: Vec::new() })),
            repeats_only: false,
            // As BatchSubmitTasks, which submits several tasks.
            creates_batch,
        }
    }

    /// Submits as a handle does.
    pub fn decide(&mut self, submission: Submission) -> Result<Submitted, Refusal> {
        let Undecided { submission, written_to, tasks } =
            match self.core.submit(self.at(), submission, &mut self.out)? {
                Verdict::Accepted(submitted) => return Ok(submitted),
                Verdict::Undecided(undecided) => *undecided,
                Verdict::NotRepeated => panic!("new tasks are allowed"),
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
            other => panic!("still undecided: {other:?}"),
        }
    }

    pub fn submit(&mut self, specs: Vec<TaskSpec>) {
        let before = self.out.events.len();
        match self.decide(self.look_up(specs.clone())) {
            Ok(submitted) => {
                self.answer_recalls();
                for (place, (spec, accepted)) in specs.iter().zip(&submitted.accepted).enumerate() {
                    if repeats_earlier(&specs, &submitted.accepted, place) {
                        continue;
                    }
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
                        let is_same = known.spec.payload == spec.payload;
                        let is_result = self.live.reusable(spec, self.at()) == Some(&accepted.id);
                        let is_other = is_result || uses_existing(known, spec);
                        assert!(is_same || is_other, "a duplicate has the same content");
                        assert_eq!(known.state, state);
                    }
                }
                let added = self.out.events[before..].iter().filter_map(Event::task);
                // A replaced task can be the last one of a batch, whose completion is submitted then.
                let is_own = |event: &&TaskEvent| match &event.change {
                    TaskChange::Submitted { spec } => spec.extras().completes.is_none(),
                    _ => false,
                };
                let added = added.filter(is_own);
                let added: Vec<_> = added.map(|event| (event.revision, event.task.clone())).collect();
                let new = submitted.accepted.iter().filter(|accepted| !accepted.duplicate).count();
                assert_eq!(added.len(), new, "a submission adds all its new tasks");
                self.pending.accepted.extend(added);
                let before = self.live.clone();
                self.observe(&Cause::Input);
                self.unique_keys_are_resolved(&specs, &submitted.accepted, &before);
            }
            Err(refusal) => {
                assert_eq!(self.out.events.len(), before, "a refused submission adds nothing");
                match refusal {
                    Refusal::TaskExists(exists) => {
                        assert!(self.live.tasks.contains_key(&exists.task), "{} exists", exists.task);
                    }
                    Refusal::ParentNotFound(missing) => self.parent_is_missing(&specs, &missing),
                    Refusal::UniqueKeyTaken(taken) => self.unique_key_is_taken(&specs, &taken),
                    _ => {}
                }
            }
        }
    }
}
