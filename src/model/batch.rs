//! Names of batches, what their callers ask for, and their events. `batch_state` has their state.

use std::fmt;
use std::sync::Arc;

use hashbrown::Equivalent;

use super::cancel::CancelRequest;
use super::clock::Timestamp;
use super::id::{BatchId, NameError, Namespace, Revision};
use super::limits::{BATCH_FAILURE_TEXT_MAX, BATCH_FAILURES_MAX};
use super::spec::TaskSpec;
use super::task_limit::LIMIT_BYTES;

/// About the bytes of a failed task that a batch keeps for its completion.
const FAILURE_BYTES: usize = 64 + BATCH_FAILURE_TEXT_MAX;
/// About the bytes of a task that is submitted later, without its parts of variable size.
const COMPLETION_BYTES: usize = 512;

/// The name of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchKey {
    pub namespace: Namespace,
    pub id: BatchId,
}

/// Beginning of the IDs of batches by which clients of the SDKs watch all tasks that they submit. They are not listed.
const SESSION_PREFIX: &str = "session:";

impl BatchKey {
    /// Whether the batch is the session of a client, and no batch that somebody has made.
    pub fn is_session(&self) -> bool {
        self.id.as_str().starts_with(SESSION_PREFIX)
    }
}

/// A [`BatchKey`] for look-ups.
#[derive(Clone, Copy, Debug, Hash)]
pub struct BatchKeyRef<'a> {
    pub namespace: &'a Namespace,
    pub id: &'a BatchId,
}

impl BatchKeyRef<'_> {
    pub fn to_key(self) -> BatchKey {
        BatchKey { namespace: self.namespace.clone(), id: self.id.clone() }
    }
}

impl Equivalent<BatchKey> for BatchKeyRef<'_> {
    fn equivalent(&self, key: &BatchKey) -> bool {
        *self.id == key.id && *self.namespace == key.namespace
    }
}

/// A batch as a caller names it: `NAMESPACE/ID`, or an ID alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchRef {
    pub namespace: Option<Namespace>,
    pub id: BatchId,
}

impl BatchRef {
    /// # Errors
    /// [`NameError`] if a part is not 1 to 64 of `[A-Za-z0-9._:-]`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            Some((namespace, id)) => {
                Ok(Self { namespace: Some(Namespace::parse(namespace)?), id: BatchId::parse(id)? })
            }
            None => Ok(Self { namespace: None, id: BatchId::parse(text)? }),
        }
    }
}

impl fmt::Display for BatchRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.id),
            None => fmt::Display::fmt(&self.id, f),
        }
    }
}

impl fmt::Display for BatchKey {
    /// As for tasks: a UUID, or an ID in the namespace `default`, stands for itself; others follow their namespace.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace == Namespace::default() || self.id.is_uuid() {
            return fmt::Display::fmt(&self.id, f);
        }
        write!(f, "{}/{}", self.namespace, self.id)
    }
}

/// What the caller asked for when the batch was created.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BatchSpec {
    /// May be empty.
    pub display_name: Box<str>,
    /// Sorted by key.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// Whether the batch finishes only once it is closed.
    pub open: bool,
    /// Submitted when the batch has finished. Its payload is empty until then.
    pub completion: Option<Arc<TaskSpec>>,
    /// Peer address or identity of the caller.
    pub created_by: Box<str>,
}

impl BatchSpec {
    /// Whether both ask for the same.
    pub fn repeats(&self, other: &Self) -> bool {
        let same_completion = match (&self.completion, &other.completion) {
            (Some(one), Some(other)) => one.repeats(other),
            (None, None) => true,
            _ => false,
        };
        let fields = |spec: &Self| (spec.display_name.clone(), spec.labels.clone(), spec.open);
        same_completion && fields(self) == fields(other)
    }

    /// Bytes of everything of variable size.
    pub(super) fn content_bytes(&self) -> usize {
        let labels: usize = self.labels.iter().map(|(key, value)| key.len() + value.len()).sum();
        let completion =
            self.completion.as_ref().map_or(0, |completion| COMPLETION_BYTES + completion.attached_bytes());
        self.display_name.len() + self.created_by.len() + labels + completion
    }

    /// About the bytes that a batch can occupy in memory because of it.
    pub(super) fn bytes(&self) -> usize {
        let failures = if self.completion.is_some() { BATCH_FAILURES_MAX * FAILURE_BYTES } else { 0 };
        self.content_bytes() + self.labels.len() * size_of::<(Box<str>, Box<str>)>() + failures
    }

    /// Bytes that the completion can add when it is submitted. They are reserved until then, so that no limit of the memory
    /// refuses it.
    pub fn reserved_bytes(&self) -> usize {
        let of_task = |task: &Arc<TaskSpec>| task.attached_bytes() + task.options.limits.len() * LIMIT_BYTES;
        self.completion.as_ref().map_or(0, of_task)
    }
}

/// A state change of a batch that does not follow from the events of its tasks.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchEvent {
    pub revision: Revision,
    pub at: Timestamp,
    pub batch: BatchKey,
    pub change: BatchChange,
}

#[derive(Clone, Debug, PartialEq)]
pub enum BatchChange {
    Created {
        spec: Arc<BatchSpec>,
    },
    /// Takes no more tasks.
    Closed,
    /// Takes no more tasks, and those that have not finished are cancelled one after another.
    CancelRequested {
        request: Box<CancelRequest>,
    },
    /// By the retention, or by a request. Its tasks were deleted before.
    Deleted,
}
