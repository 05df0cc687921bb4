//! What a program reports about its attempt: lines on a pipe.
//!
//! ```text
//! progress 0.5 resizing
//! content-type application/pdf
//! error the customer does not exist
//! no-retry
//! retry-after 30
//! ```

use std::sync::Arc;
use std::time::Duration;

use crate::model::limits::{DELAY_MAX, FAILURE_MESSAGE_BYTES_MAX};
use crate::model::spec::is_content_type;

/// Longer lines are not read.
const LINE_BYTES_MAX: usize = 4_096;

/// The last report of each kind.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// The beginning of a line; one byte longer than allowed if the line is too long.
    line: Vec<u8>,
    pub(super) content_type: Option<Arc<str>>,
    /// Why the attempt fails.
    pub(super) error: Option<String>,
    pub(super) retry: Option<RetryReport>,
}

/// Whether another attempt could succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetryReport {
    Never,
    After(Duration),
}

/// What the lines did not only change in [`Reports`].
#[derive(Debug, PartialEq)]
pub(super) enum Notice<'a> {
    /// A fraction, 0 to 1, and a note.
    Progress(f32, &'a str),
    /// A line that is no report, and what is wrong with it.
    Invalid(&'a str, &'static str),
}

impl Reports {
    /// Takes what was read from the pipe, which may end within a line.
    pub(super) fn push(&mut self, bytes: &[u8], notice: &mut dyn FnMut(Notice<'_>)) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = (LINE_BYTES_MAX + 1).saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                self.end_line(notice);
            }
        }
    }

    /// Takes the last line, which need not end with a line break.
    pub(super) fn finish(&mut self, notice: &mut dyn FnMut(Notice<'_>)) {
        self.end_line(notice);
    }

    fn end_line(&mut self, notice: &mut dyn FnMut(Notice<'_>)) {
        let line = std::mem::take(&mut self.line);
        let is_too_long = line.len() > LINE_BYTES_MAX;
        let text = String::from_utf8_lossy(&line[..line.len().min(LINE_BYTES_MAX)]);
        let text = text.trim();
        let taken = if is_too_long { Err("a line has more than 4096 bytes") } else { self.take(text, notice) };
        if let Err(problem) = taken {
            notice(Notice::Invalid(text, problem));
        }
    }

    fn take(&mut self, line: &str, notice: &mut dyn FnMut(Notice<'_>)) -> Result<(), &'static str> {
        let (kind, rest) = line.split_once(char::is_whitespace).map_or((line, ""), |(kind, rest)| (kind, rest.trim()));
        match kind {
            "" => {}
            "progress" => {
                let (fraction, note) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                let fraction = fraction.parse().ok().filter(|fraction| (0.0..=1.0).contains(fraction));
                let fraction = fraction.ok_or("progress must be a number from 0 to 1")?;
                notice(Notice::Progress(fraction, note.trim()));
            }
            "content-type" if is_content_type(rest) => self.content_type = Some(rest.into()),
            "content-type" => return Err("the content type must be 1 to 128 printable ASCII characters"),
            "error" => self.error = Some(shortened(rest)),
            "no-retry" => self.retry = Some(RetryReport::Never),
            "retry-after" => self.retry = Some(RetryReport::After(delay(rest)?)),
            _ => return Err("reports begin with progress, content-type, error, no-retry or retry-after"),
        }
        Ok(())
    }
}

/// A number of seconds, or a text such as `5m`.
fn delay(text: &str) -> Result<Duration, &'static str> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let delay = seconds.or_else(|| humantime::parse_duration(text).ok());
    delay.filter(|delay| *delay <= DELAY_MAX).ok_or("retry-after must be a number of seconds, or a text such as 5m")
}

fn shortened(text: &str) -> String {
    text[..text.floor_char_boundary(FAILURE_MESSAGE_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notices(reports: &mut Reports, parts: &[&[u8]]) -> Vec<String> {
        let mut found = Vec::new();
        let mut notice = |notice: Notice<'_>| {
            found.push(match notice {
                Notice::Progress(fraction, note) => format!("{fraction} {note}"),
                Notice::Invalid(line, problem) => format!("{}: {problem}", &line[..line.len().min(20)]),
            });
        };
        for part in parts {
            reports.push(part, &mut notice);
        }
        reports.finish(&mut notice);
        found
    }

    #[test]
    fn reports_are_lines_however_they_are_split() {
        let text =
            b"progress 0.25 first half\nprogress 1\r\n\ncontent-type application/pdf\nerror too wide\nretry-after 30";
        for size in [1, 2, 7, 1_000] {
            let mut reports = Reports::default();
            let parts: Vec<_> = text.chunks(size).collect();
            assert_eq!(notices(&mut reports, &parts), ["0.25 first half", "1 "]);
            assert_eq!(reports.content_type.as_deref(), Some("application/pdf"));
            assert_eq!(reports.error.as_deref(), Some("too wide"));
            assert_eq!(reports.retry, Some(RetryReport::After(Duration::from_secs(30))));
        }
    }

    #[test]
    fn the_last_report_of_a_kind_counts() {
        let mut reports = Reports::default();
        assert!(notices(&mut reports, &[b"retry-after 5m\nerror a\nno-retry\nerror b\n"]).is_empty());
        assert_eq!((reports.retry, reports.error.as_deref()), (Some(RetryReport::Never), Some("b")));
    }

    #[test]
    fn lines_that_are_no_reports_are_named_and_change_nothing() {
        let mut reports = Reports::default();
        let long = [b"error ".to_vec(), vec![b'x'; 10_000], b"\nprogress 0.5\n".to_vec()].concat();
        let found = notices(
            &mut reports,
            &[
                b"progress 1.5\nprogress\nprogress NaN\nprogress half\nhello\n",
                b"content-type \xff\nretry-after soon\nretry-after -1\nretry-after 9999999999\nretry-after\n",
                &long,
            ],
        );
        assert_eq!(found.len(), 12, "{found:?}");
        assert!(found[4].starts_with("hello: reports begin with"), "{found:?}");
        assert!(found[10].contains("more than 4096 bytes") && found[11] == "0.5 ", "{found:?}");
        assert!(reports.error.is_none() && reports.retry.is_none() && reports.content_type.is_none());
    }
}
