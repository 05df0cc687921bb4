//! Contract to model: parse, don't check. Beyond this module no `Option` of the contract exists.
//!
//! Every bad field becomes a violation with its path, the value and the limit; a message reports all
//! of its violations at once.

pub mod event;
pub mod filter;
pub mod json;
pub mod submit;
pub mod task;
pub mod time;

use std::time::Duration;

use crate::model::id::NameError;
use crate::model::{Coded, Details, ErrorCode, FieldViolation, HandlerName, PoolName, TaskId};

/// Bad fields of one message.
#[derive(Debug, Default, thiserror::Error)]
#[error("{}", first(.0))]
pub struct InvalidFields(pub Vec<FieldViolation>);

fn first(violations: &[FieldViolation]) -> String {
    match violations {
        [] => "invalid".to_owned(),
        [one] => format!("`{}` {}", one.field, one.description),
        [one, rest @ ..] => format!("`{}` {} (and {} more)", one.field, one.description, rest.len()),
    }
}

impl Coded for InvalidFields {
    fn code(&self) -> ErrorCode {
        ErrorCode::InvalidField
    }

    fn details(&self) -> Details {
        Details { violations: self.0.clone(), ..Details::default() }
    }
}

impl InvalidFields {
    /// One violation.
    pub fn one(field: &str, description: impl Into<String>) -> Self {
        let mut fields = Self::default();
        fields.add(field, description);
        fields
    }

    /// Adds a violation.
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.0.push(FieldViolation { field: field.into(), description: description.into() });
    }

    /// The value, or a violation and nothing.
    pub fn take<T>(&mut self, field: &str, parsed: Result<T, NameError>) -> Option<T> {
        parsed.map_err(|error| self.add(field, error.to_string())).ok()
    }

    /// Refuses a text or list that is longer than allowed.
    pub fn at_most(&mut self, field: &str, length: usize, limit: usize, unit: &str) {
        if length > limit {
            self.add(field, format!("has {length} {unit}, at most {limit} are allowed"));
        }
    }

    /// A span within bounds; `None` when unset or bad.
    pub fn span(
        &mut self,
        field: &str,
        value: Option<&prost_types::Duration>,
        bounds: std::ops::RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let value = value?;
        match time::span(value) {
            Some(span) if bounds.contains(&span) => return Some(span),
            _ => {
                let (low, high) = (bounds.start(), bounds.end());
                let (low, high) = (humantime::format_duration(*low), humantime::format_duration(*high));
                let given = format!("{} s {} ns", value.seconds, value.nanos);
                self.add(field, format!("is {given}, it must be from {low} to {high}"));
            }
        }
        None
    }

    /// Nothing bad was found.
    ///
    /// # Errors
    /// Itself, when something was.
    pub fn check(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

/// Why a submission cannot be resolved against what the operator registered.
#[derive(Debug, thiserror::Error)]
pub enum Unresolved {
    /// Bad fields.
    #[error(transparent)]
    Fields(#[from] InvalidFields),
    /// No such handler.
    #[error("handler `{0}` is not registered; `ListHandlers` tells which are")]
    Handler(HandlerName),
    /// No such pool.
    #[error("pool `{0}` is not configured; `ListPools` tells which are")]
    Pool(PoolName),
    /// Not for this handler.
    #[error("handler `{handler}` may not run in pool `{pool}`")]
    NotAllowed {
        /// The handler.
        handler: HandlerName,
        /// The pool.
        pool: PoolName,
    },
}

impl Coded for Unresolved {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Fields(_) => ErrorCode::InvalidField,
            Self::Handler(_) => ErrorCode::UnknownHandler,
            Self::Pool(_) => ErrorCode::UnknownPool,
            Self::NotAllowed { .. } => ErrorCode::PoolNotAllowed,
        }
    }

    fn details(&self) -> Details {
        match self {
            Self::Fields(fields) => fields.details(),
            Self::Handler(name) => Details { resource: Some(("handler", name.to_string())), ..Details::default() },
            Self::Pool(name) => Details { resource: Some(("pool", name.to_string())), ..Details::default() },
            Self::NotAllowed { handler, pool } => Details {
                metadata: vec![("handler", handler.to_string()), ("pool", pool.to_string())],
                violations: vec![FieldViolation {
                    field: "pool".to_owned(),
                    description: format!("is `{pool}`, which handler `{handler}` does not allow"),
                }],
                ..Details::default()
            },
        }
    }
}

/// The id of a request that names a task.
///
/// # Errors
/// [`InvalidFields`] naming `task_id`.
pub fn task_id(text: &str) -> Result<TaskId, InvalidFields> {
    TaskId::parse(text).map_err(|error| InvalidFields::one("task_id", error.to_string()))
}

/// The name of a request that names a pool.
///
/// # Errors
/// [`InvalidFields`] naming the field.
pub fn pool_name(field: &str, text: &str) -> Result<PoolName, InvalidFields> {
    PoolName::parse(text).map_err(|error| InvalidFields::one(field, error.to_string()))
}
