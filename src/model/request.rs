//! Request IDs, by which a repeated submission is recognised.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::clock::Timestamp;
use super::id::{Namespace, Revision, TaskId};

/// SHA-256 of everything that a submission asks for, with the defaults of handler and pool filled in. Submitter, trace
/// context and batch may differ between repetitions, since they describe the call.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SubmissionDigest(pub(super) [u8; 32]);

impl SubmissionDigest {
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SubmissionDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The request ID of a submission.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestKey {
    pub id: Box<str>,
    /// `None` if a version that kept no digests stored the task.
    pub digest: Option<SubmissionDigest>,
}

/// A request ID as a submission names it.
pub type RequestName = (Namespace, Arc<RequestKey>);

/// What the store remembers of the submission with a request ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RememberedRequest {
    /// The task may have been deleted.
    pub task: TaskId,
    /// Revision of the submission.
    pub submission: Revision,
    pub digest: SubmissionDigest,
    /// Time of the submission.
    pub at: Timestamp,
    /// Number of request IDs that the store remembers of later submissions.
    pub newer: u64,
}

/// How long request IDs are remembered, also after their tasks were deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestRetention {
    /// Number of request IDs, the newest.
    pub count: u64,
    /// Time since the submission.
    pub age: Duration,
}

impl Default for RequestRetention {
    /// Without a limit.
    fn default() -> Self {
        Self { count: u64::MAX, age: Duration::MAX }
    }
}

impl RequestRetention {
    /// Whether a request ID is remembered that was used at `at` and before `newer` others.
    pub fn covers(&self, now: Timestamp, at: Timestamp, newer: u64) -> bool {
        newer < self.count && now.since(at) < self.age
    }
}
