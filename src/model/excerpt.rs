//! The first and the last part of what an attempt wrote, as text.

use super::limits::OUTPUT_EXCERPT_BYTES;
use super::output::{Captured, Output};

/// An excerpt of both streams of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputExcerpt {
    pub attempt: u32,
    /// `None`: nothing was written.
    pub stdout: Option<StreamExcerpt>,
    pub stderr: Option<StreamExcerpt>,
}

/// Bytes that are not UTF-8 are replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamExcerpt {
    /// The first part; everything if nothing was left out.
    pub head: String,
    /// Bytes between the parts.
    pub omitted: u64,
    /// The last part; empty if nothing was left out.
    pub tail: String,
}

impl Output {
    pub fn excerpt(&self, attempt: u32) -> OutputExcerpt {
        OutputExcerpt { attempt, stdout: self.stdout.excerpt(), stderr: self.stderr.excerpt() }
    }
}

impl Captured {
    /// Parts of at most [`OUTPUT_EXCERPT_BYTES`] each; `None` if nothing was written.
    fn excerpt(&self) -> Option<StreamExcerpt> {
        if self.total == 0 {
            return None;
        }
        let kept = [&self.head[..], &self.tail[..]].concat();
        let is_complete = kept.len() as u64 == self.total;
        if is_complete && kept.len() <= 2 * OUTPUT_EXCERPT_BYTES {
            return Some(StreamExcerpt { head: text(&kept), ..StreamExcerpt::default() });
        }
        let (head, tail) = if is_complete { (&kept[..], &kept[..]) } else { (&self.head[..], &self.tail[..]) };
        let head = whole_at_end(&head[..head.len().min(OUTPUT_EXCERPT_BYTES)]);
        let tail = whole_at_start(&tail[tail.len().saturating_sub(OUTPUT_EXCERPT_BYTES)..]);
        let omitted = self.total.saturating_sub((head.len() + tail.len()) as u64);
        Some(StreamExcerpt { head: text(head), omitted, tail: text(tail) })
    }
}

/// Without what is cut off in the middle at the end: the last line, or a character if that line is long.
fn whole_at_end(bytes: &[u8]) -> &[u8] {
    let half = bytes.len() / 2;
    match bytes[half..].iter().rposition(|byte| *byte == b'\n') {
        Some(at) => &bytes[..=half + at],
        None => &bytes[..bytes.len() - unfinished(bytes)],
    }
}

/// Without what is cut off in the middle at the start.
fn whole_at_start(bytes: &[u8]) -> &[u8] {
    let line = bytes[..bytes.len() / 2].iter().position(|byte| *byte == b'\n').map(|at| at + 1);
    let is_continued = |byte: &&u8| **byte & 0b1100_0000 == 0b1000_0000;
    &bytes[line.unwrap_or_else(|| bytes.iter().take(3).take_while(is_continued).count())..]
}

/// The number of bytes at the end that are the beginning of a character.
pub fn unfinished(data: &[u8]) -> usize {
    let tail = &data[data.len().saturating_sub(3)..];
    let chunk = tail.utf8_chunks().last();
    let unfinished = chunk.map_or(&[][..], |chunk| chunk.invalid());
    let error = std::str::from_utf8(unfinished).err();
    if error.is_some_and(|error| error.error_len().is_none()) { unfinished.len() } else { 0 }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: usize = OUTPUT_EXCERPT_BYTES;

    fn captured(head: &[u8], tail: &[u8], dropped: u64) -> Captured {
        let total = (head.len() + tail.len()) as u64 + dropped;
        Captured { head: head.to_vec().into(), tail: tail.to_vec().into(), total }
    }

    fn excerpt(head: &[u8], tail: &[u8], dropped: u64) -> (String, u64, String) {
        let StreamExcerpt { head, omitted, tail } = captured(head, tail, dropped).excerpt().unwrap();
        (head, omitted, tail)
    }

    #[test]
    fn two_parts_that_meet_are_one_text() {
        assert_eq!(captured(b"", b"", 0).excerpt(), None);
        assert_eq!(excerpt(b"one\ntwo", b"", 0), ("one\ntwo".to_owned(), 0, String::new()));
        let all = vec![b'a'; 2 * PART];
        assert_eq!(excerpt(&all, b"", 0).1, 0);
        assert_eq!(excerpt(&all[PART..], &all[..PART], 0).0.len(), 2 * PART);
        assert_eq!(excerpt(b"a\xffb", b"", 0).0, "a\u{fffd}b");
    }

    #[test]
    fn parts_begin_and_end_with_whole_lines_and_all_bytes_are_counted() {
        let lines = (0..2_000).map(|n| format!("line {n}")).collect::<Vec<_>>().join("\n") + "\n";
        for (head, tail, dropped) in [
            (lines.as_bytes(), &b""[..], 0),
            (&lines.as_bytes()[..PART + 3], &lines.as_bytes()[lines.len() - PART - 5..], 70_000),
            // The last part spans the end of the head and the tail.
            (&lines.as_bytes()[..lines.len() - 10], &lines.as_bytes()[lines.len() - 10..], 0),
        ] {
            let (first, omitted, last) = excerpt(head, tail, dropped);
            assert!(lines.starts_with(&first) && first.ends_with('\n') && first.len() > PART - 12, "{first}");
            assert!(lines.ends_with(&last) && last.starts_with("line ") && last.len() > PART - 12, "{last}");
            let total = (head.len() + tail.len()) as u64 + dropped;
            assert_eq!((first.len() + last.len()) as u64 + omitted, total);
        }
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let line = "漢".repeat(10 * PART);
        let (head, omitted, tail) = excerpt(line.as_bytes(), b"", 0);
        assert!(head.chars().chain(tail.chars()).all(|char| char == '漢'));
        assert!(head.len() > PART - 3 && tail.len() > PART - 3 && head.len().max(tail.len()) <= PART);
        assert_eq!((head.len() + tail.len()) as u64 + omitted, line.len() as u64);
    }

    #[test]
    fn what_was_not_kept_is_counted_even_if_little_was() {
        assert_eq!(excerpt(b"first", b"last", 9), ("first".to_owned(), 9, "last".to_owned()));
        assert_eq!(excerpt(b"", b"", 9), (String::new(), 9, String::new()));
    }

    #[test]
    fn a_character_that_has_begun_is_found() {
        for (data, length) in [
            (&b""[..], 0),
            (b"abc", 0),
            ("aä".as_bytes(), 0),
            (&"aä".as_bytes()[..2], 1),
            (&"🚀".as_bytes()[..3], 3),
            (&"x漢".as_bytes()[..3], 2),
            (b"ab\xff", 0),
            (b"\xa4\xa4\xa4", 0),
        ] {
            assert_eq!(unfinished(data), length, "{data:?}");
        }
    }
}
