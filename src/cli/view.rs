//! How values are shown: the form of times, and colours.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Style};

use crate::model::{Clock, SystemClock, Timestamp};
use crate::proto::v1;

use super::time::{TimeForm, format_duration, unix_micros};
use super::{format, output, terminal};

#[derive(Clone, Copy, Debug)]
pub struct View {
    times: TimeForm,
    now: Timestamp,
    colored: bool,
    /// Columns of the terminal; `None`: stdout is not a terminal.
    pub width: Option<usize>,
}

impl View {
    /// For stdout. By default, times are relative for people and RFC 3339 for other programs.
    pub fn of_stdout(times: Option<TimeForm>) -> Self {
        let default = if output::is_terminal() { TimeForm::Relative } else { TimeForm::Utc };
        let width = output::terminal_width();
        Self { times: times.unwrap_or(default), now: SystemClock.now(), colored: output::is_colored(), width }
    }

    /// The same, later.
    pub fn renewed(self) -> Self {
        Self { now: SystemClock.now(), width: output::terminal_width(), ..self }
    }

    #[must_use]
    pub fn with_width(self, width: Option<usize>) -> Self {
        Self { width, ..self }
    }

    #[must_use]
    pub fn uncolored(self) -> Self {
        Self { colored: false, ..self }
    }

    pub fn is_colored(&self) -> bool {
        self.colored
    }

    pub fn now(&self) -> Timestamp {
        self.now
    }

    pub fn time(&self, at: Option<&prost_types::Timestamp>) -> Cell {
        self.at(at.map(|_| Timestamp(u64::try_from(unix_micros(at)).unwrap_or(0))))
    }

    /// Whole seconds since a time.
    pub fn age(&self, since: Option<&prost_types::Timestamp>) -> Cell {
        let Some(since) = since.and_then(|time| u64::try_from(unix_micros(Some(time))).ok()) else {
            return Cell::default();
        };
        let seconds = self.now.since(Timestamp(since)).as_secs();
        Cell::from(format_duration(Duration::from_secs(seconds))).ordered_by(seconds)
    }

    pub fn at(&self, at: Option<Timestamp>) -> Cell {
        at.map(|at| Cell::from(self.times.format(at, self.now)).ordered_by(at.0)).unwrap_or_default()
    }

    /// The text in a colour, if stdout has colours.
    pub fn paint(&self, text: &str, color: Option<AnsiColor>) -> String {
        let Some(color) = color.filter(|_| self.colored && !text.is_empty()) else { return text.to_owned() };
        let style = Style::new().fg_color(Some(color.into()));
        format!("{style}{text}{style:#}")
    }
}

/// A value in a table, or of a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// One line without control characters.
    pub text: String,
    pub color: Option<AnsiColor>,
    order: Option<i128>,
}

impl Cell {
    pub fn number(number: impl Display + Into<i128> + Copy) -> Self {
        Self::from(number.to_string()).ordered_by(number)
    }

    pub fn duration(duration: Option<&prost_types::Duration>) -> Self {
        let order = duration.map(|duration| i128::from(duration.seconds) * 1_000_000_000 + i128::from(duration.nanos));
        Self { order, ..Self::from(format::duration(duration)) }
    }

    pub fn state(number: i32) -> Self {
        let color = match v1::TaskState::try_from(number) {
            Ok(v1::TaskState::Completed) => Some(AnsiColor::Green),
            Ok(v1::TaskState::Failed) => Some(AnsiColor::Red),
            Ok(v1::TaskState::Cancelled) => Some(AnsiColor::Magenta),
            Ok(v1::TaskState::Running) => Some(AnsiColor::Cyan),
            Ok(v1::TaskState::Waiting) => Some(AnsiColor::Yellow),
            _ => None,
        };
        Self { color, ..Self::from(format::task_state(number)).ordered_by(number) }
    }

    #[must_use]
    pub fn colored(mut self, color: AnsiColor) -> Self {
        self.color = Some(color);
        self
    }

    /// Sorts by this number instead of by the text.
    #[must_use]
    pub fn ordered_by(mut self, number: impl Into<i128>) -> Self {
        self.order = Some(number.into());
        self
    }

    /// Numbers before texts.
    pub fn sort_key(&self) -> (bool, i128, &str) {
        (self.order.is_none(), self.order.unwrap_or_default(), if self.order.is_none() { &self.text } else { "" })
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        let text = match terminal::line(&text) {
            Cow::Borrowed(_) => text,
            Cow::Owned(escaped) => escaped,
        };
        Self { text, color: None, order: None }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self { text: terminal::line(text).into_owned(), color: None, order: None }
    }
}

/// Text that a terminal can show: without control characters, except newlines and those of its colours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text(String);

impl Text {
    /// A text that has no control characters of others.
    pub fn from_safe(text: String) -> Self {
        Self(text)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn and(mut self, more: &Self) -> Self {
        self.0.push_str(&more.0);
        self
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(terminal::lines(&text).into_owned())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl Display for Text {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One line per name and value. Empty values are left out.
pub fn fields(view: &View, pairs: &[(&str, Cell)]) -> Text {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let present = pairs.iter().filter(|(_, value)| !value.text.is_empty());
    let field = |(name, value): &(&str, Cell)| format!("{name:width$}  {}", view.paint(&value.text, value.color));
    Text(present.map(field).collect::<Vec<_>>().join("\n"))
}

/// A text below its name, with indented lines; empty if there is no text.
pub fn block(name: &str, text: &str) -> Text {
    let lines = text.lines().map(|line| format!("\n  {}", terminal::line(line)));
    Text(if text.is_empty() { String::new() } else { format!("\n{name}{}", lines.collect::<String>()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_with_newlines_stays_in_its_field_and_its_block() {
        let forged = "x\nstate  COMPLETED";
        let view = View::of_stdout(None);
        let text = fields(&view, &[("name", forged.into()), ("none", Cell::default())]);
        assert_eq!(text.to_string(), "name  x\\nstate  COMPLETED");
        assert_eq!(block("detail", forged).to_string(), "\ndetail\n  x\n  state  COMPLETED");
        assert_eq!(block("detail", ""), Text::default());
    }
}
