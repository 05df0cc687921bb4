//! Contract to model: parse, don't check. Beyond this module no `Option` of the contract exists.
//!
//! Every bad field becomes a violation with its path, the value and the limit; a message reports all
//! of its violations at once.

pub mod event;
mod fields;
pub mod filter;
pub mod json;
pub mod submit;
pub mod task;
pub mod time;

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::model::id::NameError;
use crate::model::{Coded, Details, ErrorCode, FieldViolation, HandlerName, PoolName, TaskId};

/// Violations that an answer names; more would not fit the headers that many clients accept.
const NAMED_MAX: usize = 20;

/// Where in the request a message stands, written before the names of its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is the request.
    Whole,
    /// In the field `task`.
    Task,
    /// An item of `tasks`.
    Item(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => Ok(()),
            Self::Task => f.write_str("task."),
            Self::Item(index) => write!(f, "tasks[{index}]."),
        }
    }
}

/// A field of a message at a place. Costs nothing until it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field(pub Place, pub &'static str);

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.0, self.1)
    }
}

/// Bad fields of one message.
#[derive(Debug, Default, thiserror::Error)]
#[error("{}", self.summary())]
pub struct InvalidFields {
    named: Vec<FieldViolation>,
    others: usize,
}

impl Coded for InvalidFields {
    fn code(&self) -> ErrorCode {
        ErrorCode::InvalidField
    }

    fn details(&self) -> Details {
        Details { violations: self.named.clone(), ..Details::default() }
    }
}

impl InvalidFields {
    /// One violation.
    pub fn one(field: impl fmt::Display, description: impl fmt::Display) -> Self {
        let mut fields = Self::default();
        fields.add(field, description);
        fields
    }

    fn summary(&self) -> String {
        match &self.named[..] {
            [] => "invalid".to_owned(),
            [one] => format!("`{}` {}", one.field, one.description),
            [one, rest @ ..] => {
                format!("`{}` {} (and {} more)", one.field, one.description, rest.len() + self.others)
            }
        }
    }

    /// Adds a violation.
    pub fn add(&mut self, field: impl fmt::Display, description: impl fmt::Display) {
        if self.named.len() < NAMED_MAX {
            let (field, description) = (field.to_string(), description.to_string());
            self.named.push(FieldViolation { field, description });
        } else {
            self.others += 1;
        }
    }

    /// Adds those of another message.
    pub fn extend(&mut self, more: Self) {
        let room = NAMED_MAX - self.named.len();
        self.others += more.others + more.named.len().saturating_sub(room);
        self.named.extend(more.named.into_iter().take(room));
    }

    /// The value, or a violation and nothing.
    pub fn take<T>(&mut self, field: impl fmt::Display, parsed: Result<T, NameError>) -> Option<T> {
        parsed.map_err(|error| self.add(field, error)).ok()
    }

    /// Refuses a text or list that is longer than allowed.
    pub fn at_most(&mut self, field: impl fmt::Display, length: usize, limit: usize, unit: &str) {
        if length > limit {
            self.add(field, format_args!("has {length} {unit}, at most {limit} are allowed"));
        }
    }

    /// A span within bounds; `None` when unset or bad.
    pub fn span(
        &mut self,
        field: impl fmt::Display,
        value: Option<&prost_types::Duration>,
        bounds: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let value = value?;
        match time::span(value) {
            Some(span) if bounds.contains(&span) => return Some(span),
            _ => {
                let (low, high) = (time::words(*bounds.start()), time::words(*bounds.end()));
                let (seconds, nanos) = (value.seconds, value.nanos);
                self.add(field, format_args!("is {seconds} s {nanos} ns, it must be from {low} to {high}"));
            }
        }
        None
    }

    /// Nothing bad was found.
    ///
    /// # Errors
    /// Itself, when something was.
    pub fn check(self) -> Result<(), Self> {
        if self.named.is_empty() { Ok(()) } else { Err(self) }
    }

    /// The paths of the bad fields.
    #[cfg(test)]
    pub fn paths(&self) -> Vec<&str> {
        self.named.iter().map(|violation| violation.field.as_str()).collect()
    }
}

/// Why a submission cannot be resolved against what the operator registered.
#[derive(Debug, thiserror::Error)]
pub enum Unresolved {
    /// Bad fields.
    #[error(transparent)]
    Fields(#[from] InvalidFields),
    /// No such handler.
    #[error("handler `{1}` is not registered; `ListHandlers` tells which are")]
    Handler(Field, HandlerName),
    /// No such pool.
    #[error("pool `{1}` is not configured; `ListPools` tells which are")]
    Pool(Field, PoolName),
    /// Not for this handler.
    #[error("handler `{handler}` may not run in pool `{pool}`: {why}")]
    NotAllowed {
        /// Where the pool was named.
        field: Field,
        /// The handler.
        handler: HandlerName,
        /// The pool.
        pool: PoolName,
        /// The rule.
        why: &'static str,
    },
}

impl Coded for Unresolved {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Fields(_) => ErrorCode::InvalidField,
            Self::Handler(..) => ErrorCode::UnknownHandler,
            Self::Pool(..) => ErrorCode::UnknownPool,
            Self::NotAllowed { .. } => ErrorCode::PoolNotAllowed,
        }
    }

    fn details(&self) -> Details {
        match self {
            Self::Fields(fields) => fields.details(),
            Self::Handler(field, name) => Details {
                metadata: vec![("handler", name.to_string()), ("field", field.to_string())],
                resource: Some(("handler", name.to_string())),
                ..Details::default()
            },
            Self::Pool(field, name) => Details {
                metadata: vec![("pool", name.to_string()), ("field", field.to_string())],
                resource: Some(("pool", name.to_string())),
                ..Details::default()
            },
            Self::NotAllowed { field, handler, pool, why } => Details {
                metadata: vec![("handler", handler.to_string()), ("pool", pool.to_string())],
                violations: vec![FieldViolation {
                    field: field.to_string(),
                    description: format!("is `{pool}`, where handler `{handler}` may not run: {why}"),
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
    TaskId::parse(text).map_err(|error| InvalidFields::one("task_id", error))
}

/// The name of a request that names a pool.
///
/// # Errors
/// [`InvalidFields`] naming the field.
pub fn pool_name(field: &str, text: &str) -> Result<PoolName, InvalidFields> {
    PoolName::parse(text).map_err(|error| InvalidFields::one(field, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_field_counts_but_only_as_many_are_named_as_headers_can_hold() {
        let mut bad = InvalidFields::default();
        for index in 0..30 {
            bad.add(Field(Place::Item(index), "handler"), "must not be empty");
        }
        let mut all = InvalidFields::one("batch_id", "is bad");
        all.extend(bad);
        assert_eq!(all.details().violations.len(), NAMED_MAX);
        assert_eq!(all.to_string(), "`batch_id` is bad (and 30 more)");
        assert_eq!(all.paths()[1], "tasks[0].handler");
    }

    #[test]
    fn a_span_out_of_bounds_is_named_with_its_value_and_its_bounds() {
        let mut bad = InvalidFields::default();
        let bounds = Duration::from_millis(1)..=Duration::from_hours(24);
        let given = |seconds, nanos| prost_types::Duration { seconds, nanos };
        assert_eq!(bad.span("a", None, bounds.clone()), None);
        assert_eq!(bad.span("b", Some(&given(86_400, 0)), bounds.clone()), Some(Duration::from_hours(24)));
        for (field, value) in
            [("c", given(86_400, 1)), ("d", given(-1, 0)), ("e", given(0, -5)), ("f", given(i64::MAX, 0))]
        {
            assert_eq!(bad.span(field, Some(&value), bounds.clone()), None);
        }
        assert_eq!(bad.paths(), ["c", "d", "e", "f"]);
        assert_eq!(bad.named[0].description, "is 86400 s 1 ns, it must be from 1ms to 24h");
    }
}
