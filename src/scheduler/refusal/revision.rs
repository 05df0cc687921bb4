//! Revisions at which a watch cannot start.

use crate::model::{Coded, Details, ErrorCode, Revision};

#[derive(Clone, Debug, thiserror::Error)]
#[error("events up to revision {oldest} were deleted; list the tasks, then watch from the revision of the list")]
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
#[error("revision {wanted} does not exist yet, the newest is {newest}; use a revision of this server")]
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
