//! Parsing and validation of payloads.

use std::fmt::Display;

use serde::de::DeserializeOwned;

use crate::model::{Failure, FailureReason};

pub(super) fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(FailureReason::InvalidPayload, message)
}

/// Parses a JSON payload; the error names the field and its position.
pub(super) fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(payload).map_err(|error| invalid(format!("payload: {error}")))
}

/// Checks that a number is within its range, both ends included.
pub(super) fn in_range<N: Copy + PartialOrd + Display>(field: &str, value: N, min: N, max: N) -> Result<N, Failure> {
    if value >= min && value <= max {
        return Ok(value);
    }
    Err(invalid(format!("payload: `{field}` is {value}, must be {min} to {max}")))
}
