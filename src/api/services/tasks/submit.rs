//! Submitting one task or a batch.

use std::cell::RefCell;
use std::sync::Arc;

use tonic::Status;

use crate::api::auth::{Caller, Reservation};
use crate::api::convert::{InvalidFields, Place, Unresolved, submit, task};
use crate::api::status;
use crate::model::{BatchId, Coded, TaskOptions, TaskSpec, Timestamp, limits};
use crate::proto::v1;
use crate::scheduler::{Accepted, Handle, Internal, Refusal, Submitted};

use super::{refused, send_span};

/// Turns submissions of one caller into what the scheduler is asked to accept.
pub struct Submitter<'a> {
    handle: &'a Handle,
    caller: &'a Caller,
    batch: Option<&'a BatchId>,
    now: Timestamp,
    /// Neighbours often ask for the same: the last options are looked at before all that are shared.
    last: RefCell<Option<Arc<TaskOptions>>>,
}

impl<'a> Submitter<'a> {
    pub fn new(handle: &'a Handle, caller: &'a Caller) -> Self {
        Self { handle, caller, batch: None, now: handle.now(), last: RefCell::default() }
    }

    /// The spec of one submission.
    ///
    /// # Errors
    /// [`Unresolved`], with every bad field.
    pub fn spec(&self, request: v1::SubmitTaskRequest, place: Place) -> Result<TaskSpec, Unresolved> {
        let intern = |options| self.intern(options);
        let context = submit::Context {
            catalog: self.handle.catalog(),
            intern: &intern,
            now: self.now,
            submitted_by: self.caller.name(),
            home: self.caller.home(),
            batch: self.batch,
        };
        submit::spec(request, place, &context)
    }

    fn intern(&self, options: TaskOptions) -> Arc<TaskOptions> {
        let mut last = self.last.borrow_mut();
        match &*last {
            Some(last) if **last == options => last.clone(),
            _ => last.insert(self.handle.intern(options)).clone(),
        }
    }
}

/// Whether the caller may submit these, and what they take from its limits.
///
/// # Errors
/// `Denied`, `Limited`.
pub fn admit(caller: &Caller, specs: &[TaskSpec]) -> Result<Option<Reservation>, Box<dyn Coded>> {
    caller.may_submit(specs).map_err(|denied| Box::new(denied) as Box<dyn Coded>)?;
    caller.reserve(specs).map_err(|limited| Box::new(limited) as Box<dyn Coded>)
}

/// Sends tasks that the caller may submit, all or none. The future resolves when they are durable.
fn send(
    handle: &Handle,
    mut specs: Vec<TaskSpec>,
    caller: &Caller,
) -> Result<impl Future<Output = Result<Submitted, Refusal>> + Send + use<>, Status> {
    let reservation = admit(caller, &specs).map_err(|error| status::of(&*error))?;
    let sending = send_span::begin(&mut specs, handle.now());
    let answer = handle.submit(specs);
    Ok(async move {
        let answer = answer.await;
        sending.end(&answer);
        if let (Some(reservation), Ok(submitted)) = (reservation, &answer) {
            reservation.commit(submitted.revision);
        }
        answer
    })
}

/// Sends one task at once; the future resolves when it is durable.
pub fn one(
    handle: &Handle,
    request: v1::SubmitTaskRequest,
    place: Place,
    caller: &Caller,
) -> Result<impl Future<Output = Result<v1::SubmitTaskResponse, Status>> + Send + use<>, Status> {
    let spec = Submitter::new(handle, caller).spec(request, place).map_err(refused)?;
    let answer = send(handle, vec![spec], caller)?;
    Ok(async move { answer.await.map_err(refused).and_then(|submitted| accepted(submitted).map_err(refused)) })
}

/// The answer to a submission of one task.
///
/// # Errors
/// [`Internal`] when there is none.
pub fn accepted(submitted: Submitted) -> Result<v1::SubmitTaskResponse, Internal> {
    let (revision, after_revision) = (submitted.revision.0, submitted.after.0);
    let durability = task::durability(submitted.durability);
    let Some(Accepted { id, state, duplicate }) = submitted.accepted.into_iter().next() else {
        return Err(Internal { cause: "a submission without an answer".to_owned() });
    };
    let (task_id, state) = (id.to_string(), task::state(state));
    Ok(v1::SubmitTaskResponse { task_id, state, revision, duplicate, durability, after_revision })
}

/// Submits all tasks of a batch or none.
pub async fn batch(
    handle: &Handle,
    request: v1::BatchSubmitTasksRequest,
    caller: &Caller,
) -> Result<v1::BatchSubmitTasksResponse, Status> {
    let mut bad = InvalidFields::default();
    let batch = match request.batch_id.as_str() {
        "" => bad.take("batch_id", BatchId::parse(&handle.new_task_id().to_string())),
        text => bad.take("batch_id", BatchId::parse(text)),
    };
    if request.tasks.is_empty() {
        bad.add("tasks", "is empty, at least 1 task is wanted");
    }
    bad.at_most("tasks", request.tasks.len(), limits::BATCH_TASKS_MAX, "tasks");
    bad.check().map_err(refused)?;
    let specs = specs(handle, request.tasks, batch.as_ref(), caller).map_err(refused)?;
    let submitted = send(handle, specs, caller)?.await.map_err(refused)?;
    Ok(v1::BatchSubmitTasksResponse {
        batch_id: batch.as_ref().map(ToString::to_string).unwrap_or_default(),
        task_ids: submitted.accepted.iter().map(|accepted| accepted.id.to_string()).collect(),
        revision: submitted.revision.0,
        durability: task::durability(submitted.durability),
        after_revision: submitted.after.0,
    })
}

/// All of them, or the bad fields of all.
fn specs(
    handle: &Handle,
    requests: Vec<v1::SubmitTaskRequest>,
    batch: Option<&BatchId>,
    caller: &Caller,
) -> Result<Vec<TaskSpec>, Unresolved> {
    let submitter = Submitter { batch, ..Submitter::new(handle, caller) };
    let mut specs = Vec::with_capacity(requests.len());
    let (mut bad, mut unresolved) = (InvalidFields::default(), None);
    for (index, request) in requests.into_iter().enumerate() {
        match submitter.spec(request, Place::Item(index)) {
            Ok(spec) => specs.push(spec),
            Err(Unresolved::Fields(fields)) => bad.extend(fields),
            Err(other) => {
                unresolved.get_or_insert(other);
            }
        }
    }
    bad.check()?;
    unresolved.map_or(Ok(specs), Err)
}
