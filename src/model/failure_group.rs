//! Failures that are alike, as one.

use std::fmt;

use ring::digest::{Context, SHA256};

use super::failure::Failure;
use super::id::HandlerName;

/// The failures of a handler with one cause: they have the same reason, exit code and signal, and their messages and the last lines of
/// their details differ only in words with a digit and in quoted texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FailureGroupId(u64);

impl FailureGroupId {
    pub fn of(handler: &HandlerName, failure: &Failure) -> Self {
        let (exit_code, signal) = (failure.exit_code.unwrap_or(0), failure.signal.unwrap_or(0));
        let numbers = [i32::from(failure.reason as u8), exit_code, signal].map(i32::to_le_bytes).concat();
        let mut digest = Context::new(&SHA256);
        // The parts that vary contain no NUL byte that could be another's: the handler has none, and the numbers have a fixed length.
        for part in [handler.as_str().as_bytes(), b"\0", &numbers, fingerprint(&failure.message).as_bytes(), b"\0"] {
            digest.update(part);
        }
        digest.update(fingerprint(failure.last_line()).as_bytes());
        let digest = digest.finish();
        Self(digest.as_ref().iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte)))
    }

    /// Inverse of `to_string`: 16 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_hex.then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

impl fmt::Display for FailureGroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The text without what differs between failures with one cause: words with a digit, and quoted texts.
fn fingerprint(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    let (mut rest, mut previous) = (message, ' ');
    while let Some(char) = rest.chars().next() {
        rest = &rest[char.len_utf8()..];
        // An apostrophe is no quote, nor is one that has no end.
        let is_quote = matches!(char, '"' | '\'' | '`') && !previous.is_alphanumeric();
        previous = char;
        match is_quote.then(|| rest.find(char)).flatten() {
            Some(end) => {
                text.push('#');
                rest = &rest[end + char.len_utf8()..];
            }
            None => text.push(char),
        }
    }
    let words =
        text.split_inclusive(|char: char| char.is_whitespace() || matches!(char, '=' | ',' | ';' | '(' | ')' | '/'));
    words.map(|word| if word.contains(|char: char| char.is_ascii_digit()) { "#" } else { word }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FailureReason;

    fn id(handler: &str, message: &str, detail: &str) -> FailureGroupId {
        let mut failure = Failure::new(FailureReason::HandlerError, message);
        failure.detail = detail.to_owned();
        FailureGroupId::of(&HandlerName::parse(handler).unwrap(), &failure)
    }

    #[test]
    fn failures_with_one_cause_are_one_group() {
        let group = id("h", "no row 17 in \"users\" after 3ms", "");
        assert_eq!(group, id("h", "no row 4 in \"orders\" after 12ms", ""));
        assert_ne!(group, id("other", "no row 4 in \"orders\" after 12ms", ""));
        assert_ne!(group, id("h", "refused", ""));
        assert_ne!(id("h", "can't read the file", ""), id("h", "can't find the module", ""), "no quoted text");
        assert_ne!(id("h", "expected ' at the end", ""), id("h", "expected ' before a word", ""), "no quoted text");
        assert_eq!(FailureGroupId::parse(&group.to_string()), Some(group));
        assert!(FailureGroupId::parse("+123456789abcdef").is_none() && FailureGroupId::parse("1").is_none());
    }

    #[test]
    fn the_last_line_of_the_detail_and_the_exit_code_count() {
        let group = id("h", "exited", "line 1\nKeyError: 'a'\n");
        assert_eq!(group, id("h", "exited", "other 7\nKeyError: 'b'"));
        assert_ne!(group, id("h", "exited", "line 1\nValueError: 'a'"));
        let with_code = |code| {
            let mut failure = Failure::new(FailureReason::HandlerError, format!("exit code {code}"));
            failure.exit_code = Some(code);
            FailureGroupId::of(&HandlerName::parse("h").unwrap(), &failure)
        };
        assert_ne!(with_code(1), with_code(2));
    }
}
