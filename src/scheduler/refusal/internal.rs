//! A bug or an unexpected failure of the server.

use crate::model::{Coded, ErrorCode};

#[derive(Clone, Debug, thiserror::Error)]
#[error("{cause}")]
pub struct Internal {
    /// Goes to the log; the caller receives an incident ID only.
    pub cause: String,
}

impl Internal {
    pub fn from_error(error: impl std::fmt::Display) -> Self {
        Self { cause: error.to_string() }
    }
}

impl Coded for Internal {
    fn code(&self) -> ErrorCode {
        ErrorCode::Internal
    }
}
