//! How a function fails.

use std::any::Any;
use std::error::Error;
use std::fmt;

use super::payload::PayloadError;
use crate::model::{Failure, FailureReason};

/// An error of a function: any error, also a text or an `anyhow::Error`.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// An error that another attempt would meet too: the task is not retried. Made by [`permanent`].
#[derive(Debug)]
pub struct Permanent(BoxError);

/// Marks an error of a function as one that another attempt would meet too.
pub fn permanent(error: impl Into<BoxError>) -> Permanent {
    Permanent(error.into())
}

impl fmt::Display for Permanent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Permanent {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// Why a function did not return a result.
#[derive(Debug)]
pub(super) enum FunctionError {
    Argument(PayloadError),
    Returned(BoxError),
    Result(PayloadError),
}

impl FunctionError {
    pub fn into_failure(self) -> Failure {
        match self {
            Self::Argument(error) => Failure::new(FailureReason::InvalidPayload, format!("payload: {error}")),
            Self::Result(error) => permanently(Failure::new(FailureReason::HandlerError, format!("result: {error}"))),
            Self::Returned(error) => returned(&*error),
        }
    }
}

fn returned(error: &(dyn Error + Send + Sync + 'static)) -> Failure {
    let text = error.to_string();
    let (line, rest) = text.split_once('\n').map_or((&*text, ""), |(line, _)| (line, &*text));
    let causes = causes(error);
    let detail = if causes.is_empty() { rest.to_owned() } else { format!("{text}{causes}") };
    let failure = Failure { detail, ..Failure::new(FailureReason::HandlerError, line) };
    if error.is::<Permanent>() { permanently(failure) } else { failure }
}

/// The sources of an error, one in each line.
fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str("\ncaused by: ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn permanently(failure: Failure) -> Failure {
    Failure { retryable: false, ..failure }
}

pub(super) fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message");
    Failure::new(FailureReason::Panic, format!("panicked: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no picture")]
    struct NoPicture(#[source] std::io::Error);

    #[test]
    fn a_failure_has_one_line_and_the_causes_in_its_detail() {
        let error = NoPicture(std::io::Error::other("the disk is gone"));
        let failure = FunctionError::Returned(error.into()).into_failure();
        assert_eq!((&*failure.message, failure.retryable), ("no picture", true));
        assert_eq!(failure.detail, "no picture\ncaused by: the disk is gone");
        let failure = FunctionError::Returned("first\nsecond".into()).into_failure();
        assert_eq!((&*failure.message, &*failure.detail), ("first", "first\nsecond"));
    }

    #[test]
    fn a_permanent_error_is_not_retried() {
        let failure = FunctionError::Returned(permanent("too wide").into()).into_failure();
        assert_eq!((&*failure.message, failure.retryable, &*failure.detail), ("too wide", false, ""));
    }
}
