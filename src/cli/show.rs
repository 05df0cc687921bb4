//! How answers are shown: aligned columns, or the contract's JSON.

use std::sync::LazyLock;
use std::time::Duration;

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};

use crate::proto::{DESCRIPTORS, v1};

use super::say;

static CONTRACT: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).expect("the contract was compiled into the binary"));

/// Where answers go.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
}

impl Output {
    /// JSON or columns.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether answers are JSON.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// Shows one message: as a line of JSON, or what `table` makes of it.
    pub fn one<M: Message + Name>(self, message: &M, table: impl FnOnce(&M) -> String) {
        let text = if self.json { json(message) } else { table(message) };
        say::line(text);
    }
}

fn json<M: Message + Name>(message: &M) -> String {
    let shown = || {
        let descriptor = CONTRACT.get_message_by_name(&M::full_name())?;
        let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).ok()?;
        let mut text = Vec::new();
        let mut serializer = serde_json::Serializer::new(&mut text);
        let options = SerializeOptions::new().skip_default_fields(false).stringify_64_bit_integers(false);
        dynamic.serialize_with_options(&mut serializer, &options).ok()?;
        String::from_utf8(text).ok()
    };
    shown().expect("every message of the contract has a JSON form")
}

/// Rows under headings, aligned; the last column is not padded.
pub fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = headings.map(|heading| heading.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut lines = vec![row_of(&headings.map(str::to_owned), &widths)];
    lines.extend(rows.iter().map(|row| row_of(row, &widths)));
    lines.join("\n")
}

fn row_of(cells: &[String], widths: &[usize]) -> String {
    let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

/// Names and values, one a line; empty values are left out.
pub fn fields(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let shown = pairs.iter().filter(|(_, value)| !value.is_empty());
    shown.map(|(name, value)| format!("{name:width$}  {value}")).collect::<Vec<_>>().join("\n")
}

/// A state without its prefix.
pub fn state(number: i32) -> String {
    let name = v1::TaskState::try_from(number).map_or("UNKNOWN", |state| state.as_str_name());
    name.trim_start_matches("TASK_STATE_").to_owned()
}

/// A priority without its prefix.
pub fn priority(number: i32) -> String {
    let name = v1::Priority::try_from(number).map_or("UNKNOWN", |priority| priority.as_str_name());
    name.trim_start_matches("PRIORITY_").to_owned()
}

/// A span, at most to the microsecond.
pub fn span(value: Option<&prost_types::Duration>) -> String {
    let Some(value) = value else { return String::new() };
    let seconds = u64::try_from(value.seconds).unwrap_or(0);
    let micros = u64::try_from(value.nanos / 1_000).unwrap_or(0);
    humantime::format_duration(Duration::from_micros(seconds * 1_000_000 + micros)).to_string()
}

/// A moment.
pub fn moment(value: Option<&prost_types::Timestamp>) -> String {
    let Some(value) = value else { return String::new() };
    let seconds = u64::try_from(value.seconds).unwrap_or(0);
    let micros = u64::try_from(value.nanos / 1_000).unwrap_or(0);
    crate::model::Timestamp(seconds * 1_000_000 + micros).to_string()
}

/// A failure in a few words.
pub fn failure(failure: Option<&v1::Failure>) -> String {
    let Some(failure) = failure else { return String::new() };
    let reason = v1::FailureReason::try_from(failure.reason).map_or("UNKNOWN", |reason| reason.as_str_name());
    format!("{}: {} (attempt {})", reason.trim_start_matches("FAILURE_REASON_"), failure.message, failure.attempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_blanks() {
        let shown =
            table(["ID", "STATE"], &[["long-name".to_owned(), "Q".to_owned()], ["x".to_owned(), String::new()]]);
        assert_eq!(shown, "ID         STATE\nlong-name  Q\nx");
    }

    #[test]
    fn json_is_that_of_the_contract_with_defaults_shown() {
        let message = v1::CancelTaskResponse { state: 3, revision: 7 };
        assert_eq!(json(&message), r#"{"state":"TASK_STATE_RUNNING","revision":7}"#);
    }
}
