//! Paths of request fields, and the error that lists the invalid fields of a request.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::model::id::NameError;
use crate::model::{Coded, Details, ErrorCode, FieldViolation};

use super::time;

/// Maximum number of listed violations. Many clients limit the size of the headers that carry them.
const LISTED_MAX: usize = 20;

/// Position of a message in the request. It is the prefix of the paths of its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessagePath {
    /// The request itself.
    Root,
    /// The field `task` of the request.
    Task,
    /// The field `hello` of the request.
    Hello,
    /// The field `completion` of the request.
    Completion,
    /// The field `update` of the request.
    Update,
    /// The field `spec.task` of the request.
    ScheduleTask,
    /// An item of the field `tasks` of the request.
    BatchItem(usize),
}

impl MessagePath {
    pub const fn field(self, name: &'static str) -> FieldPath {
        FieldPath { message: self, name }
    }
}

impl fmt::Display for MessagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Task => f.write_str("task."),
            Self::Hello => f.write_str("hello."),
            Self::Completion => f.write_str("completion."),
            Self::Update => f.write_str("update."),
            Self::ScheduleTask => f.write_str("spec.task."),
            Self::BatchItem(index) => write!(f, "tasks[{index}]."),
        }
    }
}

/// Path of a field, such as `tasks[3].handler`. Formatted only when an error is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldPath {
    message: MessagePath,
    name: &'static str,
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.message, self.name)
    }
}

/// The invalid fields of a request. The first [`LISTED_MAX`] are listed, the others are counted.
#[derive(Debug, Default, thiserror::Error)]
#[error("{}", self.summary())]
pub struct InvalidFields {
    listed: Vec<FieldViolation>,
    unlisted: usize,
}

impl Coded for InvalidFields {
    fn code(&self) -> ErrorCode {
        ErrorCode::InvalidField
    }

    fn details(&self) -> Details {
        Details { violations: self.listed.clone(), ..Details::default() }
    }
}

impl InvalidFields {
    pub fn one(field: impl fmt::Display, description: impl fmt::Display) -> Self {
        let mut fields = Self::default();
        fields.add(field, description);
        fields
    }

    fn summary(&self) -> String {
        match &self.listed[..] {
            [] => "invalid request".to_owned(),
            [one] => format!("`{}` {}", one.field, one.description),
            [one, rest @ ..] => {
                format!("`{}` {} (and {} more)", one.field, one.description, rest.len() + self.unlisted)
            }
        }
    }

    pub fn add(&mut self, field: impl fmt::Display, description: impl fmt::Display) {
        if self.listed.len() < LISTED_MAX {
            let (field, description) = (field.to_string(), description.to_string());
            self.listed.push(FieldViolation { field, description });
        } else {
            self.unlisted += 1;
        }
    }

    pub fn extend(&mut self, more: Self) {
        let free = LISTED_MAX - self.listed.len();
        self.unlisted += more.unlisted + more.listed.len().saturating_sub(free);
        self.listed.extend(more.listed.into_iter().take(free));
    }

    /// Returns the parsed value, or adds a violation and returns `None`.
    pub fn parsed<T>(&mut self, field: impl fmt::Display, result: Result<T, NameError>) -> Option<T> {
        result.map_err(|error| self.add(field, error)).ok()
    }

    /// Parses a text unless it is empty, which stands for an unset field.
    pub fn optional<T>(
        &mut self,
        field: impl fmt::Display,
        text: &str,
        parse: impl FnOnce(&str) -> Result<T, NameError>,
    ) -> Option<T> {
        if text.is_empty() { None } else { self.parsed(field, parse(text)) }
    }

    /// Adds a violation if a text or list is longer than `limit`.
    pub fn check_length(&mut self, field: impl fmt::Display, length: usize, limit: usize, unit: &str) {
        if length > limit {
            self.add(field, format_args!("has {length} {unit}, at most {limit} are allowed"));
        }
    }

    /// Returns a duration within `bounds`. Adds a violation if it is outside; returns `None` then and if it is unset.
    pub fn duration(
        &mut self,
        field: impl fmt::Display,
        value: Option<&prost_types::Duration>,
        bounds: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let value = value?;
        let parsed = time::parse_duration(value).filter(|parsed| bounds.contains(parsed));
        if parsed.is_none() {
            let (min, max) = (time::format_duration(*bounds.start()), time::format_duration(*bounds.end()));
            let shown = time::parse_duration(value).map_or_else(|| value.to_string(), time::format_duration);
            self.add(field, format_args!("is {shown}, must be from {min} to {max}"));
        }
        parsed
    }

    /// # Errors
    /// Itself, if any field is invalid.
    pub fn check(self) -> Result<(), Self> {
        if self.listed.is_empty() { Ok(()) } else { Err(self) }
    }

    #[cfg(test)]
    pub fn paths(&self) -> Vec<&str> {
        self.listed.iter().map(|violation| violation.field.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_invalid_fields_are_counted_and_the_first_are_listed() {
        let mut invalid = InvalidFields::default();
        for index in 0..30 {
            invalid.add(MessagePath::BatchItem(index).field("handler"), "must not be empty");
        }
        let mut all = InvalidFields::one("batch_id", "is bad");
        all.extend(invalid);
        assert_eq!(all.details().violations.len(), LISTED_MAX);
        assert_eq!(all.to_string(), "`batch_id` is bad (and 30 more)");
        assert_eq!(all.paths()[1], "tasks[0].handler");
    }

    #[test]
    fn a_duration_outside_its_bounds_is_reported_with_value_and_bounds() {
        let mut invalid = InvalidFields::default();
        let bounds = Duration::from_millis(1)..=Duration::from_hours(24);
        let given = |seconds, nanos| prost_types::Duration { seconds, nanos };
        assert_eq!(invalid.duration("a", None, bounds.clone()), None);
        assert_eq!(invalid.duration("b", Some(&given(86_400, 0)), bounds.clone()), Some(Duration::from_hours(24)));
        for (field, value) in
            [("c", given(86_400, 1)), ("d", given(-5, 0)), ("e", given(0, -5)), ("f", given(i64::MAX, 0))]
        {
            assert_eq!(invalid.duration(field, Some(&value), bounds.clone()), None);
        }
        assert_eq!(invalid.paths(), ["c", "d", "e", "f"]);
        assert_eq!(invalid.listed[0].description, "is 1day 1ns, must be from 1ms to 24h");
        assert_eq!(invalid.listed[1].description, "is -5s, must be from 1ms to 24h");
    }
}
