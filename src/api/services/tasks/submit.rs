//! Submits one task or a batch: convert, authorize, reserve the quota, send to the scheduler.

use std::sync::Arc;

use arc_swap::Guard;
use tonic::Status;

use crate::api::auth::{Caller, Reservation};
use crate::api::convert::shared_options::SharedOptions;
use crate::api::convert::submit::{self, SubmitContext, SubmitError};
use crate::api::convert::{InvalidFields, MessagePath, task};
use crate::api::status::{self, into_status};
use crate::model::{
    BatchRef, Catalog, Coded, Durability, ResumeToken, Revision, StoreId, TaskId, TaskSpec, TaskState, limits,
};
use crate::proto::v1;
use crate::scheduler::{Accepted, Handle, Internal, Refusal, Submitted};
use crate::telemetry::scope;
use crate::telemetry::trace::tracer;

use super::send_span::SendSpan;

/// The result of submitting one task.
pub struct SubmittedTask {
    pub id: TaskId,
    /// `None` if the task was deleted since.
    pub state: Option<TaskState>,
    pub duplicate: bool,
    /// Revision at which the result is true.
    pub revision: Revision,
    /// Continues with the first event of a new task.
    pub resume: ResumeToken,
    pub durability: Durability,
}

impl SubmittedTask {
    pub fn new(submitted: Submitted, store: StoreId) -> Result<Self, Internal> {
        let Submitted { accepted, after, revision, durability, .. } = submitted;
        let Some(Accepted { id, state, duplicate }) = accepted.into_iter().next() else {
            return Err(Internal { cause: "the scheduler returned no result for a submitted task".to_owned() });
        };
        let resume = ResumeToken { store, revision: after };
        Ok(Self { id, state, duplicate, revision, resume, durability })
    }
}

impl From<SubmittedTask> for v1::SubmitTaskResponse {
    fn from(submitted: SubmittedTask) -> Self {
        Self {
            task_id: submitted.id.to_string(),
            state: submitted.state.map(task::state).unwrap_or_default(),
            revision: submitted.revision.0,
            duplicate: submitted.duplicate,
            durability: task::durability(submitted.durability),
            resume_token: submitted.resume.encode(),
        }
    }
}

/// Converts the submissions of one call.
pub struct Converter<'a> {
    handle: &'a Handle,
    catalog: Guard<Arc<Catalog>>,
    context: SubmitContext<'a>,
    /// Of the last submission.
    shared: Option<Box<SharedOptions>>,
}

impl<'a> Converter<'a> {
    pub fn new(handle: &'a Handle, caller: &'a Caller, batch: Option<&'a BatchRef>) -> Self {
        let context = SubmitContext {
            new_id: Handle::new_task_id,
            now: handle.now(),
            submitted_by: caller.name(),
            default_namespace: caller.default_namespace(),
            batch,
            trace: scope::current_context().map(|active| active.context),
            has_send_span: false,
            places: 0,
        };
        Self { handle, catalog: handle.catalog(), context, shared: None }
    }

    /// Lets the tasks of the call, so many, name each other by their places.
    pub fn with_places(mut self, places: usize) -> Self {
        self.context.places = places;
        self
    }

    /// For submissions that get a [`SendSpan`].
    pub fn with_send_span(mut self) -> Self {
        self.context.has_send_span = tracer().is_some();
        self
    }

    /// Continues where another converter of the same call ended.
    pub fn after(self, shared: Option<Box<SharedOptions>>) -> Self {
        Self { shared, ..self }
    }

    pub fn into_shared(self) -> Option<Box<SharedOptions>> {
        self.shared
    }

    pub fn convert(&mut self, request: v1::SubmitTaskRequest, path: MessagePath) -> Result<TaskSpec, SubmitError> {
        let intern = |options| self.handle.intern(options);
        submit::convert(request, path, &self.catalog, &self.context, &mut self.shared, intern)
    }
}

/// What a caller may do with the tasks that it submits.
pub enum Authorized {
    /// Submit them, with a reservation of its quota if it has one.
    Submit(Option<Reservation>),
    /// Nothing more: they exceed its quota, but all of them repeat earlier submissions.
    Repeated(Submitted),
}

/// Checks the caller's permission for these tasks and reserves its quota. What repeats earlier submissions needs none.
///
/// # Errors
/// PERMISSION_DENIED, RATE_LIMITED, QUOTA_EXCEEDED.
pub async fn authorize(handle: &Handle, caller: &Caller, specs: &[TaskSpec]) -> Result<Authorized, Box<dyn Coded>> {
    caller.may_submit(specs).map_err(|error| Box::new(error) as Box<dyn Coded>)?;
    let exceeded = match caller.reserve(specs) {
        Ok(reservation) => return Ok(Authorized::Submit(reservation)),
        Err(exceeded) => exceeded,
    };
    // Boxed, as in `submit`, so that the future of a call without a quota stays small.
    match Box::pin(handle.submit_repeated(specs.to_vec())).await {
        Ok(Some(submitted)) => Ok(Authorized::Repeated(submitted)),
        // A refusal of a task that may be new says nothing about the others.
        Ok(None) | Err(_) => Err(Box::new(exceeded)),
    }
}

/// Runs a future to its end, also if the call ends before: its tasks may be accepted then, and their quota must be counted.
pub async fn to_its_end<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(future).await {
        Ok(output) => output,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Converts and submits one task, and waits until it is durable.
pub async fn request(
    handle: &Handle,
    request: v1::SubmitTaskRequest,
    path: MessagePath,
    caller: &Caller,
) -> Result<SubmittedTask, Status> {
    let spec = Converter::new(handle, caller, None).convert(request, path).map_err(into_status)?;
    one(handle, spec, caller, |refusal| refusal.in_message(path)).await
}

/// Submits one task, and waits until it is durable. `explain` converts a refusal to the terms of the request.
pub async fn one(
    handle: &Handle,
    spec: TaskSpec,
    caller: &Caller,
    explain: impl FnOnce(Refusal) -> Refusal,
) -> Result<SubmittedTask, Status> {
    let submitted =
        submit(handle, vec![spec], caller, false).await?.map_err(|refusal| into_status(explain(refusal)))?;
    SubmittedTask::new(submitted, handle.store_id()).map_err(into_status)
}

/// Submits all tasks of a batch, or none, and waits until they are durable.
pub async fn batch(
    handle: &Handle,
    request: v1::BatchSubmitTasksRequest,
    caller: &Caller,
) -> Result<v1::BatchSubmitTasksResponse, Status> {
    let mut invalid = InvalidFields::default();
    let batch = match request.batch_id.as_str() {
        "" => invalid.parsed("batch_id", BatchRef::parse(&Handle::new_task_id().to_string())),
        text => invalid.parsed("batch_id", BatchRef::parse(text)),
    };
    if request.tasks.is_empty() {
        invalid.add("tasks", "must not be empty");
    }
    invalid.check_length("tasks", request.tasks.len(), limits::BATCH_TASKS_MAX, "tasks");
    let parents = request.tasks.iter().filter_map(|task| task.dependencies.as_ref());
    let parents = parents.map(|parents| parents.task_ids.len() + parents.batch_indices.len()).sum();
    invalid.check_length("tasks", parents, limits::BATCH_PARENTS_MAX, "parents in all");
    invalid.check().map_err(into_status)?;
    let specs = batch_specs(handle, request.tasks, batch.as_ref(), caller).map_err(into_status)?;
    let key = common_batch(&specs).or_else(|| batch.as_ref().map(ToString::to_string));
    let submitted = submit(handle, specs, caller, true).await?.map_err(into_status)?;
    let is_repeated = submitted.accepted.iter().all(|accepted| accepted.duplicate);
    let repeated = if is_repeated { first_batch(handle, &submitted.accepted).await } else { None };
    let duplicates = submitted.accepted.iter().map(|accepted| accepted.duplicate);
    let has_duplicates = duplicates.clone().any(|duplicate| duplicate);
    Ok(v1::BatchSubmitTasksResponse {
        batch_id: repeated.or(key).unwrap_or_default(),
        task_ids: submitted.accepted.iter().map(|accepted| accepted.id.to_string()).collect(),
        revision: submitted.revision.0,
        durability: task::durability(submitted.durability),
        resume_token: handle.resume_token(submitted.after_ended).encode(),
        duplicates: if has_duplicates { duplicates.collect() } else { Vec::new() },
    })
}

/// The batch of tasks that were all submitted before, empty if they have none; `None` if they were deleted, or the store cannot be
/// read.
async fn first_batch(handle: &Handle, repeated: &[Accepted]) -> Option<String> {
    let present = repeated.iter().find(|accepted| accepted.state.is_some())?;
    let task = handle.get(&present.id).await.ok()?.task;
    Some(task::batch_id(&task.spec.options))
}

/// The batch of the tasks; `None` if they are of several namespaces, each of which has a batch of its own.
fn common_batch(specs: &[TaskSpec]) -> Option<String> {
    let first = &specs.first()?.options;
    specs.iter().all(|spec| spec.options.namespace == first.namespace).then(|| task::batch_id(first))
}

/// Converts all tasks of a batch, or returns the invalid fields of all of them.
fn batch_specs(
    handle: &Handle,
    requests: Vec<v1::SubmitTaskRequest>,
    batch: Option<&BatchRef>,
    caller: &Caller,
) -> Result<Vec<TaskSpec>, SubmitError> {
    let mut converter = Converter::new(handle, caller, batch).with_places(requests.len()).with_send_span();
    let mut specs = Vec::with_capacity(requests.len());
    let (mut invalid, mut other_error) = (InvalidFields::default(), None);
    for (index, request) in requests.into_iter().enumerate() {
        match converter.convert(request, MessagePath::BatchItem(index)) {
            Ok(spec) => specs.push(spec),
            Err(SubmitError::InvalidFields(fields)) => invalid.extend(fields),
            Err(error) => {
                other_error.get_or_insert(error);
            }
        }
    }
    invalid.check()?;
    other_error.map_or(Ok(specs), Err)
}

/// Submits all of these tasks, or none, and waits until they are durable. `creates_batch`: whether a batch that does not
/// exist is created.
async fn submit(
    handle: &Handle,
    mut specs: Vec<TaskSpec>,
    caller: &Caller,
    creates_batch: bool,
) -> Result<Result<Submitted, Refusal>, Status> {
    let reservation = match authorize(handle, caller, &specs).await.map_err(|error| status::to_status(&*error))? {
        Authorized::Submit(reservation) => reservation,
        Authorized::Repeated(submitted) => return Ok(Ok(submitted)),
    };
    let span = SendSpan::start(&mut specs, handle.now());
    let sent = handle.submit_all(specs, creates_batch);
    let submitted = match reservation {
        None => sent.await,
        Some(reservation) => {
            let counted = async move {
                let submitted = sent.await;
                if let Ok(submitted) = &submitted {
                    reservation.commit(submitted.revision);
                }
                submitted
            };
            Box::pin(to_its_end(counted)).await
        }
    };
    span.end(&submitted);
    Ok(submitted)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_submission_is_counted_although_its_call_has_ended() {
        let (decide, decided) = oneshot::channel();
        let (count, counted) = oneshot::channel();
        let call = to_its_end(async move {
            decided.await.unwrap();
            count.send(()).unwrap();
        });
        assert!(call.now_or_never().is_none(), "the call ends here, before the decision");
        decide.send(()).unwrap();
        counted.await.unwrap();
    }
}
