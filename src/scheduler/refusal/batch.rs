//! Conditions of one batch.

use crate::model::{BatchKey, Coded, Details, ErrorCode};

#[derive(Clone, Debug, thiserror::Error)]
#[error("batch `{batch}` does not exist or was deleted")]
pub struct BatchNotFound {
    pub batch: BatchKey,
}

impl Coded for BatchNotFound {
    fn code(&self) -> ErrorCode {
        ErrorCode::BatchNotFound
    }

    fn details(&self) -> Details {
        Details::default().with_resource("batch", &self.batch)
    }
}

/// The chosen batch ID is used by a batch with different content.
#[derive(Clone, Debug, thiserror::Error)]
#[error("batch `{batch}` already exists with different content")]
pub struct BatchExists {
    pub batch: BatchKey,
}

impl Coded for BatchExists {
    fn code(&self) -> ErrorCode {
        ErrorCode::BatchExists
    }

    fn details(&self) -> Details {
        Details::default().with_resource("batch", &self.batch)
    }
}

/// A batch takes no more tasks.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "batch `{batch}` is closed and takes no more tasks; create a batch that takes tasks until you close it with `open`"
)]
pub struct BatchClosed {
    pub batch: BatchKey,
}

impl Coded for BatchClosed {
    fn code(&self) -> ErrorCode {
        ErrorCode::BatchClosed
    }

    fn details(&self) -> Details {
        precondition(&self.batch, "must not be closed")
    }
}

/// All tasks of the batch have ended, so that it cannot be cancelled.
#[derive(Clone, Debug, thiserror::Error)]
#[error("batch `{batch}` has already finished")]
pub struct BatchFinished {
    pub batch: BatchKey,
}

impl Coded for BatchFinished {
    fn code(&self) -> ErrorCode {
        ErrorCode::BatchFinished
    }

    fn details(&self) -> Details {
        precondition(&self.batch, "must not be FINISHED")
    }
}

/// A batch that has not finished cannot be deleted.
#[derive(Clone, Debug, thiserror::Error)]
#[error("batch `{batch}` has not finished, {}", why_unfinished(*.has_tasks, *.unfinished))]
pub struct BatchNotFinished {
    pub batch: BatchKey,
    pub has_tasks: bool,
    pub unfinished: u64,
}

fn why_unfinished(has_tasks: bool, unfinished: u64) -> String {
    match unfinished {
        0 if has_tasks => "it is open; close it first".to_owned(),
        0 => "it has no task yet; close it first".to_owned(),
        _ => format!("{unfinished} tasks are unfinished; wait for them, or cancel the batch first"),
    }
}

impl Coded for BatchNotFinished {
    fn code(&self) -> ErrorCode {
        ErrorCode::BatchNotFinished
    }

    fn details(&self) -> Details {
        precondition(&self.batch, "must be FINISHED").with_metadata("unfinished", self.unfinished)
    }
}

fn precondition(batch: &BatchKey, description: &str) -> Details {
    Details { precondition: Some((format!("batch:{batch}"), description.to_owned())), ..Details::default() }
}
