//! Formats results: aligned columns, or the contract's JSON.

use std::io;

use prost::{Message, Name};

use crate::proto::{json, v1};

use super::time::{format_duration, from_proto, unix_micros};
use super::{output, terminal};

/// Prints responses in the chosen format.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    json: bool,
}

impl Printer {
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    pub fn is_json(self) -> bool {
        self.json
    }

    /// Prints a message as one line of JSON, or as the text that `table` returns. On a terminal, neither can control it.
    pub fn print<M: Message + Name>(self, message: &M, table: impl FnOnce(&M) -> String) {
        if !self.json {
            return output::stdout_text(&table(message));
        }
        match json::encode_message(message) {
            Ok(mut line) => {
                line.push(b'\n');
                if output::is_terminal() {
                    line = terminal::json(&line).into_bytes();
                }
                output::stdout_bytes(&line);
            }
            Err(error) => output::check_write(Err(io::Error::other(format!("the response is invalid: {error}")))),
        }
    }
}

/// Aligns rows below their headings. The last column is not padded.
pub fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let rows: Vec<_> = rows.iter().map(|row| row.each_ref().map(|cell| terminal::line(cell).into_owned())).collect();
    let mut widths = headings.map(|heading| heading.chars().count());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut lines = vec![aligned(&headings.map(str::to_owned), &widths)];
    lines.extend(rows.iter().map(|row| aligned(row, &widths)));
    lines.join("\n")
}

fn aligned(cells: &[String], widths: &[usize]) -> String {
    let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

/// One line per name and value. Empty values are left out.
pub fn fields(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let present = pairs.iter().filter(|(_, value)| !value.is_empty());
    let field = |(name, value): &(&str, String)| format!("{name:width$}  {}", terminal::line(value));
    present.map(field).collect::<Vec<_>>().join("\n")
}

/// A text below its name, with indented lines; empty if there is no text.
pub fn block(name: &str, text: &str) -> String {
    let lines = text.lines().map(|line| format!("\n  {}", terminal::line(line)));
    if text.is_empty() { String::new() } else { format!("\n{name}{}", lines.collect::<String>()) }
}

pub fn task_state(number: i32) -> String {
    without_prefix(v1::TaskState::try_from(number).map(|state| state.as_str_name()), "TASK_STATE_")
}

pub fn priority(number: i32) -> String {
    without_prefix(v1::Priority::try_from(number).map(|priority| priority.as_str_name()), "PRIORITY_")
}

pub fn pool_kind(number: i32) -> String {
    without_prefix(v1::PoolKind::try_from(number).map(|kind| kind.as_str_name()), "POOL_KIND_")
}

pub fn stop_method(number: i32) -> String {
    without_prefix(v1::StopMethod::try_from(number).map(|method| method.as_str_name()), "STOP_METHOD_")
}

/// The name of an enum value without the prefix that repeats the name of the enum.
fn without_prefix<E>(name: Result<&str, E>, prefix: &str) -> String {
    name.unwrap_or("UNKNOWN").trim_start_matches(prefix).to_owned()
}

pub fn duration(value: Option<&prost_types::Duration>) -> String {
    value.map(|value| format_duration(from_proto(value))).unwrap_or_default()
}

pub fn timestamp(value: Option<&prost_types::Timestamp>) -> String {
    let micros = value.map(|_| u64::try_from(unix_micros(value)).unwrap_or(0));
    micros.map(|micros| crate::model::Timestamp(micros).to_string()).unwrap_or_default()
}

pub fn failure(failure: Option<&v1::Failure>) -> String {
    let Some(failure) = failure else { return String::new() };
    let reason = v1::FailureReason::try_from(failure.reason).map(|reason| reason.as_str_name());
    let reason = without_prefix(reason, "FAILURE_REASON_");
    format!("{reason}: {} (attempt {})", terminal::line(&failure.message), failure.attempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_without_trailing_blanks() {
        let text = table(["ID", "STATE"], &[["long-name".to_owned(), "Q".to_owned()], ["x".to_owned(), String::new()]]);
        assert_eq!(text, "ID         STATE\nlong-name  Q\nx");
    }

    #[test]
    fn a_value_with_newlines_stays_in_its_cell_its_field_and_its_block() {
        let forged = || "x\nstate  COMPLETED".to_owned();
        assert_eq!(table(["A", "B"], &[[forged(), "1".to_owned()]]).lines().count(), 2);
        assert_eq!(fields(&[("name", forged()), ("none", String::new())]), "name  x\\nstate  COMPLETED");
        assert_eq!(block("detail", &forged()), "\ndetail\n  x\n  state  COMPLETED");
        assert_eq!(block("detail", ""), "");
    }
}
