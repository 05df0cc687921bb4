//! Batches, and the requests that name or create them.

use std::time::Duration;

use crate::model::{Batch, BatchId, BatchRef, BatchSpec, BatchState, Namespace, TaskState, Timestamp, limits};
use crate::proto::v1;
use crate::scheduler::BatchFilter;

use super::invalid_fields::{InvalidFields, MessagePath};
use super::numbers::to_i64;
use super::submit::namespace;
use super::submit_fields::labels;
use super::time::timestamp;

/// Parses the ID in a request.
///
/// # Errors
/// [`InvalidFields`] naming `batch_id`.
pub fn batch_ref(text: &str) -> Result<BatchRef, InvalidFields> {
    BatchRef::parse(text).map_err(|error| InvalidFields::one("batch_id", error))
}

/// The parts of a batch to create, except its completion.
pub struct NewBatch {
    /// `None`: the server generates it.
    pub id: Option<BatchId>,
    pub namespace: Namespace,
    pub spec: BatchSpec,
}

/// # Errors
/// [`InvalidFields`], with every invalid field.
pub fn new_batch(
    request: &v1::CreateBatchRequest,
    created_by: &str,
    default_namespace: Option<&Namespace>,
) -> Result<NewBatch, InvalidFields> {
    let mut invalid = InvalidFields::default();
    let path = MessagePath::Root;
    let namespace = namespace(&mut invalid, path.field("namespace"), &request.namespace, default_namespace);
    let id = Some(&request.batch_id).filter(|id| !id.is_empty());
    let id = id.and_then(|id| invalid.parsed("batch_id", BatchId::parse(id)));
    let name_length = request.display_name.len();
    invalid.check_length("display_name", name_length, limits::DISPLAY_NAME_BYTES_MAX, "bytes");
    let labels = labels(&mut invalid, path, &request.labels);
    if let Some(completion) = &request.completion {
        check_completion(&mut invalid, completion, namespace.as_ref());
    }
    invalid.check()?;
    let Some(namespace) = namespace else { return Err(InvalidFields::one("namespace", "is invalid")) };
    let spec = BatchSpec {
        display_name: request.display_name.as_str().into(),
        labels,
        open: request.open,
        completion: None,
        created_by: created_by.into(),
    };
    Ok(NewBatch { id, namespace, spec })
}

/// Checks the fields of a completion that have another meaning than those of a submission.
fn check_completion(invalid: &mut InvalidFields, task: &v1::SubmitTaskRequest, namespace: Option<&Namespace>) {
    let path = MessagePath::Completion;
    let has_content = task.payload.as_ref().is_some_and(|payload| *payload != v1::Payload::default());
    for (field, is_set, why) in [
        ("payload", has_content, "the report of the batch is the payload"),
        ("task_id", !task.task_id.is_empty(), "the server generates it"),
        ("request_id", !task.request_id.is_empty(), "the task is submitted once"),
        ("batch_id", !task.batch_id.is_empty(), "the task does not belong to a batch"),
        ("dependencies", task.dependencies.is_some(), "the task waits for the tasks of the batch"),
        ("unique_key", !task.unique_key.is_empty(), "the task is submitted in any case"),
    ] {
        if is_set {
            invalid.add(path.field(field), format_args!("must not be set: {why}"));
        }
    }
    if let Some(namespace) = namespace
        && !task.namespace.is_empty()
        && task.namespace != namespace.as_str()
    {
        let given = &task.namespace;
        invalid.add(path.field("namespace"), format_args!("is `{given}`, must be that of the batch, `{namespace}`"));
    }
}

/// # Errors
/// [`InvalidFields`], with every invalid field.
pub fn filter(request: &v1::ListBatchesRequest) -> Result<BatchFilter, InvalidFields> {
    let mut invalid = InvalidFields::default();
    invalid.check_length("labels", request.labels.len(), limits::LABELS_MAX, "labels");
    invalid.check_length("states", request.states.len(), limits::FILTER_VALUES_MAX, "values");
    let mut states = Vec::new();
    for (index, number) in request.states.iter().enumerate().take(limits::FILTER_VALUES_MAX) {
        match v1::BatchState::try_from(*number) {
            Ok(v1::BatchState::Open) => states.push(BatchState::Open),
            Ok(v1::BatchState::Active) => states.push(BatchState::Active),
            Ok(v1::BatchState::Finished) => states.push(BatchState::Finished),
            Ok(v1::BatchState::Unspecified) | Err(_) => {
                invalid.add(format_args!("states[{index}]"), format_args!("is {number}, must be from 1 to 3"));
            }
        }
    }
    let namespace = invalid.optional("namespace", &request.namespace, Namespace::parse);
    invalid.check()?;
    let label = |(key, value): (&String, &String)| (key.as_str().into(), value.as_str().into());
    let labels = request.labels.iter().map(label).collect();
    Ok(BatchFilter { namespaces: namespace.into_iter().collect(), labels, states })
}

/// Tasks that finished per second, on average since the first was submitted.
pub fn average_rate(batch: &Batch, now: Timestamp) -> f64 {
    let first = batch.first_task_at.unwrap_or(now);
    rate(batch.counts.finished(), batch.finished_at.unwrap_or(now).since(first))
}

/// Events per second; 0 if no time has passed.
pub fn rate(count: u64, time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "an approximation")]
    let count = count as f64;
    if time.is_zero() { 0.0 } else { count / time.as_secs_f64() }
}

/// Converts a batch; `tasks_per_second` is its present rate.
pub fn batch(batch: &Batch, tasks_per_second: f64, now: Timestamp) -> v1::Batch {
    let Batch { spec, counts, .. } = batch;
    let count = |state| to_i64(counts.of(state));
    v1::Batch {
        batch_id: batch.key.to_string(),
        namespace: batch.key.namespace.to_string(),
        display_name: spec.display_name.to_string(),
        labels: spec.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        state: state(batch.state()).into(),
        closed: batch.closed_at.is_some(),
        counts: Some(v1::BatchCounts {
            waiting: count(TaskState::Waiting),
            queued: count(TaskState::Queued),
            running: count(TaskState::Running),
            completed: count(TaskState::Completed),
            failed: count(TaskState::Failed),
            cancelled: count(TaskState::Cancelled),
        }),
        total: to_i64(counts.total()),
        progress: progress(batch),
        tasks_per_second,
        estimated_end_at: estimated_end(batch, tasks_per_second, now).map(timestamp),
        created_at: Some(timestamp(batch.created_at)),
        first_task_at: batch.first_task_at.map(timestamp),
        closed_at: batch.closed_at.map(timestamp),
        finished_at: batch.finished_at.map(timestamp),
        cancel_requested_at: batch.cancel.as_ref().map(|cancel| timestamp(cancel.requested_at)),
        cancel_reason: batch.cancel.as_ref().map(|cancel| cancel.reason.to_string()).unwrap_or_default(),
        completion_task_id: batch.completion.as_ref().map(ToString::to_string).unwrap_or_default(),
        present_tasks: to_i64(batch.present),
        created_by: spec.created_by.to_string(),
        revision: batch.revision.0,
    }
}

fn state(state: BatchState) -> v1::BatchState {
    match state {
        BatchState::Open => v1::BatchState::Open,
        BatchState::Active => v1::BatchState::Active,
        BatchState::Finished => v1::BatchState::Finished,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a fraction")]
fn progress(batch: &Batch) -> f64 {
    match batch.counts.total() {
        0 if batch.finished_at.is_some() => 1.0,
        0 => 0.0,
        total => batch.counts.finished() as f64 / total as f64,
    }
}

fn estimated_end(batch: &Batch, tasks_per_second: f64, now: Timestamp) -> Option<Timestamp> {
    let unfinished = batch.counts.unfinished();
    if batch.state() != BatchState::Active || unfinished == 0 || tasks_per_second <= 0.0 {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let seconds = unfinished as f64 / tasks_per_second;
    Duration::try_from_secs_f64(seconds).ok().map(|left| now.after(left).min(Timestamp::LAST_SHOWN))
}
