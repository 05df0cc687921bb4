//! Text from a server or a program, made safe for a terminal and for lines and columns.
//!
//! Control characters could move the cursor, change the title or imitate other output; characters that change the
//! direction of text or end a line elsewhere than in a terminal could hide it. They are written as escapes.

use std::borrow::Cow;
use std::fmt::Write as _;

/// One line: newlines and tabs are escaped, too.
pub fn line(text: &str) -> Cow<'_, str> {
    escape(text, |_| false)
}

/// Several lines: newlines and tabs stay.
pub fn lines(text: &str) -> Cow<'_, str> {
    escape(text, |char| matches!(char, '\n' | '\t'))
}

/// The text of bytes, as [`lines`]. Bytes that are not UTF-8 become `\xNN`.
pub fn bytes(data: &[u8]) -> String {
    let mut text = String::with_capacity(data.len());
    for chunk in data.utf8_chunks() {
        text.push_str(&lines(chunk.valid()));
        for byte in chunk.invalid() {
            // A string accepts every write.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// JSON with the same meaning: its strings have escapes. An encoder writes control characters of ASCII so by itself.
pub fn json(text: &[u8]) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in String::from_utf8_lossy(text).chars() {
        if char != '\n' && is_unsafe(char) {
            // A string accepts every write. All these characters have one UTF-16 unit.
            let _ = write!(escaped, "\\u{:04x}", u32::from(char));
        } else {
            escaped.push(char);
        }
    }
    escaped
}

fn escape(text: &str, keeps: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_escaped = |char: char| !keeps(char) && is_unsafe(char);
    if !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        if is_escaped(char) { escaped.extend(char.escape_default()) } else { escaped.push(char) }
    }
    Cow::Owned(escaped)
}

fn is_unsafe(char: char) -> bool {
    let changes_direction = matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    char.is_control() || changes_direction || matches!(char, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped_and_all_other_text_is_not() {
        let plain = "Größe 漢字 👩\u{200d}🚀 \"quoted\" \\n";
        assert!(matches!(line(plain), Cow::Borrowed(text) if text == plain));
        assert_eq!(line("a\u{1b}[31m\r\n\tb\u{9b}2J\u{7f}"), "a\\u{1b}[31m\\r\\n\\tb\\u{9b}2J\\u{7f}");
        assert_eq!(line("user\u{202e}nimda\u{2028}x"), "user\\u{202e}nimda\\u{2028}x");
        assert_eq!(lines("a\tb\r\n\u{1b}c"), "a\tb\\r\n\\u{1b}c");
        assert_eq!(
            json("{\"a\":\"ä\\u001b\u{9b}2J\u{7f}\u{202e}🚀\"}\n".as_bytes()),
            "{\"a\":\"ä\\u001b\\u009b2J\\u007f\\u202e🚀\"}\n"
        );
        assert_eq!(bytes(b"ok\n\xff\x1b\xc3\xa4"), "ok\n\\xff\\u{1b}ä");
    }
}
