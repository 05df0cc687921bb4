//! Revisions at which a watch cannot start.

use crate::model::{Coded, Details, ErrorCode, Revision};

#[derive(Clone, Debug, thiserror::Error)]
#[error("events up to revision {oldest} were deleted; start again with a snapshot")]
pub struct RevisionCompacted {
    /// The oldest revision after which a watch can start.
    pub oldest: Revision,
}

impl Coded for RevisionCompacted {
    fn code(&self) -> ErrorCode {
        ErrorCode::RevisionCompacted
    }

    fn details(&self) -> Details {
        Details::default().with_metadata("oldest_revision", self.oldest)
    }
}

#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "revision {wanted} does not exist yet, the newest is {newest}: the store was replaced by an older copy; start again with a snapshot"
)]
pub struct RevisionInFuture {
    pub wanted: Revision,
    pub newest: Revision,
}

impl Coded for RevisionInFuture {
    fn code(&self) -> ErrorCode {
        ErrorCode::RevisionInFuture
    }

    fn details(&self) -> Details {
        Details::default().with_metadata("newest_revision", self.newest)
    }
}
