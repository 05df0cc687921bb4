//! Filters for tasks and events.

use super::cancel::CancelRequest;
use super::clock::Timestamp;
use super::event::{TaskChange, TaskEvent};
use super::failure::Failure;
use super::failure_group::FailureGroupId;
use super::id::{BatchId, HandlerName, Namespace, PoolName, TaskId};
use super::limits::NAME_BYTES_MAX;
use super::priority::Priority;
use super::spec::{TaskOptions, TaskSpec};
use super::task::{Task, TaskState};

/// Matches if all conditions match; an empty or absent condition matches everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskFilter {
    /// Any of these ids.
    pub ids: Vec<TaskId>,
    pub batch: Option<BatchId>,
    /// All of these labels.
    pub labels: Vec<(Box<str>, Box<str>)>,
    /// Any of these states.
    pub states: Vec<TaskState>,
    pub pool: Option<PoolName>,
    pub handler: Option<HandlerName>,
    /// Any of these namespaces.
    pub namespaces: Vec<Namespace>,
    /// Any of these priorities.
    pub priorities: Vec<Priority>,
    /// Submitted at this time or later. Ignored for events.
    pub submitted_from: Option<Timestamp>,
    /// Submitted before this time. Ignored for events.
    pub submitted_until: Option<Timestamp>,
    /// FAILED with a failure of this group.
    pub failure_group: Option<FailureGroupId>,
    /// All of these occur in texts of the task: ID, display name, handler, arguments, failure, and reason of the cancel. In lower case.
    pub texts: Vec<Box<str>>,
}

impl TaskFilter {
    /// Memory of its parts of variable size.
    pub fn bytes(&self) -> usize {
        let labels: usize =
            self.labels.iter().map(|(key, value)| size_of::<(Box<str>, Box<str>)>() + key.len() + value.len()).sum();
        let names = (self.ids.len() + self.namespaces.len()) * NAME_BYTES_MAX;
        let texts: usize = self.texts.iter().map(|text| size_of::<Box<str>>() + text.len()).sum();
        labels + names + texts + self.states.len() + self.priorities.len()
    }

    /// Compares the task in its state after the event; one that was updated, also with the options that it had before. A `Deleted`
    /// event changes no state, so it matches only a filter without states.
    pub fn matches_event(&self, event: &TaskEvent) -> bool {
        let state_matches = || self.states.contains(&event.state) && !matches!(event.change, TaskChange::Deleted);
        (self.states.is_empty() || state_matches())
            && (self.ids.is_empty() || self.ids.contains(&event.task))
            && (self.matches_options(&event.options) || self.matches_options_before(&event.change))
            && self.failure_group.is_none_or(|group| match &event.change {
                TaskChange::Failed { failure, .. } => FailureGroupId::of(&event.options.handler, failure) == group,
                _ => false,
            })
            && self.matches_texts(|| texts_of_event(event))
    }

    pub fn matches_task(&self, task: &Task) -> bool {
        self.matches_all_but_failure(&task.spec, task.status.state, task.status.submitted_at)
            && self.failure_group.is_none_or(|group| {
                let failure = task.status.failure.as_deref().filter(|_| task.status.state == TaskState::Failed);
                failure.is_some_and(|failure| FailureGroupId::of(&task.spec.options.handler, failure) == group)
            })
            && self.matches_texts(|| texts_of_task(task))
    }

    /// Whether it has conditions for which failures have to be known.
    pub fn needs_failures(&self) -> bool {
        self.failure_group.is_some() || !self.texts.is_empty()
    }

    /// As [`TaskFilter::matches_task`], where failures are not known: a filter that needs them matches nothing.
    pub fn matches(&self, spec: &TaskSpec, state: TaskState, submitted_at: Timestamp) -> bool {
        !self.needs_failures() && self.matches_all_but_failure(spec, state, submitted_at)
    }

    /// `texts`: those of the task, in lower case.
    fn matches_texts(&self, texts: impl FnOnce() -> Vec<String>) -> bool {
        if self.texts.is_empty() {
            return true;
        }
        let texts = texts();
        self.texts.iter().all(|wanted| texts.iter().any(|text| text.contains(&**wanted)))
    }

    fn matches_all_but_failure(&self, spec: &TaskSpec, state: TaskState, submitted_at: Timestamp) -> bool {
        (self.states.is_empty() || self.states.contains(&state))
            && (self.ids.is_empty() || self.ids.contains(&spec.id))
            && self.matches_period(submitted_at)
            && self.matches_options(&spec.options)
    }

    pub fn matches_period(&self, submitted_at: Timestamp) -> bool {
        self.submitted_from.is_none_or(|from| submitted_at >= from)
            && self.submitted_until.is_none_or(|until| submitted_at < until)
    }

    /// Those that an update has replaced, so that a watch receives the event by which a task leaves it.
    fn matches_options_before(&self, change: &TaskChange) -> bool {
        match change {
            TaskChange::Updated { before, .. } => before.as_ref().is_some_and(|before| self.matches_options(before)),
            _ => false,
        }
    }

    fn matches_options(&self, options: &TaskOptions) -> bool {
        self.batch.as_ref().is_none_or(|batch| options.batch.as_ref() == Some(batch))
            && self.pool.as_ref().is_none_or(|pool| options.pool == *pool)
            && self.handler.as_ref().is_none_or(|handler| options.handler == *handler)
            && (self.namespaces.is_empty() || self.namespaces.contains(&options.namespace))
            && (self.priorities.is_empty() || self.priorities.contains(&options.priority))
            && self.labels.iter().all(|label| options.labels.contains(label))
    }
}

fn texts_of_task(task: &Task) -> Vec<String> {
    let (spec, status) = (&task.spec, &task.status);
    let receipt = status.cancel_receipt.as_deref().map(|receipt| &receipt.request);
    let cancel = status.cancel_request.as_deref().or(receipt);
    texts(&spec.id, &spec.options, &spec.extras().args, status.failure.as_deref(), cancel)
}

fn texts_of_event(event: &TaskEvent) -> Vec<String> {
    let (args, failure, cancel): (&[_], _, _) = match &event.change {
        TaskChange::Submitted { spec } => (&spec.extras().args, None, None),
        TaskChange::Retrying { failure, .. } | TaskChange::Failed { failure, .. } => (&[], Some(&**failure), None),
        TaskChange::CancelRequested { request } => (&[], None, Some(&**request)),
        TaskChange::Cancelled { receipt, .. } => (&[], None, Some(&receipt.request)),
        _ => (&[], None, None),
    };
    texts(&event.task, &event.options, args, failure, cancel)
}

/// In lower case.
fn texts(
    id: &TaskId,
    options: &TaskOptions,
    args: &[Box<str>],
    failure: Option<&Failure>,
    cancel: Option<&CancelRequest>,
) -> Vec<String> {
    let id = id.to_string();
    let names = [&*id, &*options.display_name, options.handler.as_str()];
    let failure = failure.into_iter().flat_map(|failure| [&*failure.message, &*failure.detail]);
    let reason = cancel.map(|request| &*request.reason);
    let all = names.into_iter().chain(args.iter().map(|arg| &**arg)).chain(failure).chain(reason);
    all.map(str::to_lowercase).collect()
}
