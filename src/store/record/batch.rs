//! The bytes of a batch, and of its events.

use std::sync::Arc;

use prost::Message;

use super::corruption::Corruption;
use super::task::{LabelRecord, TemplateRecord};
use super::values::{RequestRecord, name, variant};
use crate::model::{
    Batch, BatchChange, BatchCounts, BatchEvent, BatchFailure, BatchId, BatchKey, BatchSpec, FailureReason, Namespace,
    Revision, TaskId, Timestamp,
};

#[derive(Clone, PartialEq, Message)]
pub(super) struct BatchEventRecord {
    #[prost(message, optional, tag = "1")]
    key: Option<KeyRecord>,
    #[prost(oneof = "BatchChangeRecord", tags = "2, 3, 4, 5")]
    change: Option<BatchChangeRecord>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum BatchChangeRecord {
    #[prost(message, tag = "2")]
    Created(Box<BatchSpecRecord>),
    #[prost(bool, tag = "3")]
    Closed(bool),
    #[prost(message, tag = "4")]
    CancelRequested(Box<RequestRecord>),
    #[prost(bool, tag = "5")]
    Deleted(bool),
}

#[derive(Clone, PartialEq, Message)]
struct KeyRecord {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct BatchSpecRecord {
    #[prost(string, tag = "1")]
    display_name: String,
    #[prost(message, repeated, tag = "2")]
    labels: Vec<LabelRecord>,
    #[prost(bool, tag = "3")]
    open: bool,
    #[prost(message, optional, tag = "4")]
    completion: Option<TemplateRecord>,
    #[prost(string, tag = "5")]
    created_by: String,
}

#[derive(Clone, PartialEq, Message)]
struct FailureRecord {
    #[prost(string, tag = "1")]
    task: String,
    #[prost(uint32, tag = "2")]
    reason: u32,
    #[prost(string, tag = "3")]
    message: String,
}

/// A batch; its key and the revision of its creation are stored beside.
#[derive(Clone, PartialEq, Message)]
pub struct BatchRecord {
    #[prost(message, optional, tag = "1")]
    spec: Option<BatchSpecRecord>,
    #[prost(uint64, tag = "2")]
    created_at: u64,
    #[prost(uint64, tag = "3")]
    revision: u64,
    #[prost(uint64, tag = "4")]
    changed_at: u64,
    #[prost(uint64, optional, tag = "5")]
    first_task_at: Option<u64>,
    #[prost(uint64, optional, tag = "6")]
    closed_at: Option<u64>,
    #[prost(uint64, optional, tag = "7")]
    finished_at: Option<u64>,
    #[prost(message, optional, tag = "8")]
    cancel: Option<RequestRecord>,
    #[prost(string, optional, tag = "9")]
    completion: Option<String>,
    #[prost(uint64, tag = "10")]
    present: u64,
    /// By state.
    #[prost(uint64, repeated, tag = "11")]
    counts: Vec<u64>,
    #[prost(message, repeated, tag = "12")]
    failures: Vec<FailureRecord>,
}

impl From<&BatchEvent> for BatchEventRecord {
    fn from(event: &BatchEvent) -> Self {
        let change = match &event.change {
            BatchChange::Created { spec } => BatchChangeRecord::Created(Box::new((&**spec).into())),
            BatchChange::Closed => BatchChangeRecord::Closed(true),
            BatchChange::CancelRequested { request } => {
                BatchChangeRecord::CancelRequested(Box::new((&**request).into()))
            }
            BatchChange::Deleted => BatchChangeRecord::Deleted(true),
        };
        let BatchKey { namespace, id } = &event.batch;
        let key = KeyRecord { namespace: namespace.to_string(), id: id.to_string() };
        Self { key: Some(key), change: Some(change) }
    }
}

impl BatchEventRecord {
    pub(super) fn into_model(self, revision: Revision, at: Timestamp) -> Result<BatchEvent, Corruption> {
        let key = self.key.ok_or_else(|| Corruption::new("batch event without a batch"))?;
        let batch = BatchKey { namespace: name(&key.namespace, Namespace::parse)?, id: name(&key.id, BatchId::parse)? };
        let change = match self.change {
            Some(BatchChangeRecord::Created(spec)) => BatchChange::Created { spec: Arc::new(spec.into_model()?) },
            Some(BatchChangeRecord::Closed(_)) => BatchChange::Closed,
            Some(BatchChangeRecord::CancelRequested(request)) => {
                BatchChange::CancelRequested { request: Box::new(request.into_model()?) }
            }
            Some(BatchChangeRecord::Deleted(_)) => BatchChange::Deleted,
            None => {
                return Err(Corruption::new("batch event with an unknown change; a later version may have written it"));
            }
        };
        Ok(BatchEvent { revision, at, batch, change })
    }
}

impl From<&BatchSpec> for BatchSpecRecord {
    fn from(spec: &BatchSpec) -> Self {
        let completion = spec.completion.as_ref().map(Into::into);
        Self {
            display_name: spec.display_name.to_string(),
            labels: spec.labels.iter().map(Into::into).collect(),
            open: spec.open,
            completion,
            created_by: spec.created_by.to_string(),
        }
    }
}

impl BatchSpecRecord {
    fn into_model(self) -> Result<BatchSpec, Corruption> {
        Ok(BatchSpec {
            display_name: self.display_name.into(),
            labels: self.labels.into_iter().map(LabelRecord::into_model).collect(),
            open: self.open,
            completion: self.completion.map(TemplateRecord::into_model).transpose()?.map(Arc::new),
            created_by: self.created_by.into(),
        })
    }
}

impl From<&Batch> for BatchRecord {
    fn from(batch: &Batch) -> Self {
        let failure = |failure: &BatchFailure| FailureRecord {
            task: failure.task.to_string(),
            reason: failure.reason as u32,
            message: failure.message.to_string(),
        };
        Self {
            spec: Some((&*batch.spec).into()),
            created_at: batch.created_at.0,
            revision: batch.revision.0,
            changed_at: batch.changed_at.0,
            first_task_at: batch.first_task_at.map(|at| at.0),
            closed_at: batch.closed_at.map(|at| at.0),
            finished_at: batch.finished_at.map(|at| at.0),
            cancel: batch.cancel.as_deref().map(Into::into),
            completion: batch.completion.as_ref().map(ToString::to_string),
            present: batch.present,
            counts: batch.counts.0.to_vec(),
            failures: batch.failures.iter().map(failure).collect(),
        }
    }
}

impl BatchRecord {
    pub fn into_model(self, key: BatchKey, created: Revision) -> Result<Batch, Corruption> {
        let failure = |record: FailureRecord| {
            Ok::<_, Corruption>(BatchFailure {
                task: name(&record.task, TaskId::parse)?,
                reason: variant("failure reason", record.reason, FailureReason::from_number)?,
                message: record.message.into(),
            })
        };
        let counts = self.counts.try_into().map_err(|_| Corruption::new("batch with a wrong number of states"))?;
        Ok(Batch {
            key,
            spec: Arc::new(self.spec.ok_or_else(|| Corruption::new("batch without a spec"))?.into_model()?),
            created,
            created_at: Timestamp(self.created_at),
            revision: Revision(self.revision),
            changed_at: Timestamp(self.changed_at),
            first_task_at: self.first_task_at.map(Timestamp),
            closed_at: self.closed_at.map(Timestamp),
            finished_at: self.finished_at.map(Timestamp),
            cancel: self.cancel.map(RequestRecord::into_model).transpose()?.map(Box::new),
            completion: self.completion.as_deref().map(|id| name(id, TaskId::parse)).transpose()?,
            present: self.present,
            counts: BatchCounts(counts),
            failures: self.failures.into_iter().map(failure).collect::<Result<_, _>>()?,
        })
    }
}
