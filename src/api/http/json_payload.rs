//! Preserves the exact text of JSON payloads when a message is decoded from JSON.
//!
//! The field `json` of a payload can be any JSON value. Decoded as `google.protobuf.Value`, it would lose digits and the
//! order of its fields, and take about a thousand bytes of memory for each number. So its text is moved to the field
//! `data` first: `{"json":5}` becomes `{"data":"NQ==","contentType":"application/json"}`.

use std::ops::Range;

use base64::prelude::{BASE64_STANDARD, Engine};
use prost_reflect::{Kind, MessageDescriptor};
use serde::de::IgnoredAny;

use crate::proto::json::PAYLOAD;

/// The JSON text of a message in which payloads have `data` instead of `json`.
pub struct RewrittenJson {
    pub text: Vec<u8>,
    /// Copied ranges: their offset in `text`, and in the original text.
    copies: Vec<(usize, usize)>,
}

impl RewrittenJson {
    /// Rewrites the JSON text of a message. Text that does not match the message is copied; decoding it then fails.
    pub fn new(input: &MessageDescriptor, json: &str) -> Self {
        let output = Self { text: Vec::with_capacity(json.len()), copies: Vec::new() };
        let mut rewriter = Rewriter { json: json.as_bytes(), at: 0, copied: 0, output };
        // `None`: the text does not match the message from here on.
        let _ = rewriter.value(input, Shape::One);
        rewriter.copy_to(json.len());
        rewriter.output
    }

    /// Returns the offset in the original text for an offset in `text`.
    pub fn original_offset(&self, offset: usize) -> usize {
        let copy = self.copies.iter().rev().find(|(new, _)| *new <= offset);
        copy.map_or(offset, |(new, original)| original + (offset - new))
    }
}

/// How a message field is written in JSON.
#[derive(Clone, Copy)]
enum Shape {
    One,
    List,
    Map,
}

/// A parser over the original text. Its methods return `None` where the text is not valid.
struct Rewriter<'a> {
    json: &'a [u8],
    at: usize,
    /// The original text before this offset is already in the output.
    copied: usize,
    output: RewrittenJson,
}

impl Rewriter<'_> {
    /// Skips whitespace and returns the next byte.
    fn peek(&mut self) -> Option<u8> {
        self.at += self.json[self.at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.json.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Copies the original text up to this offset.
    fn copy_to(&mut self, offset: usize) {
        self.copy(self.copied..offset);
        self.copied = offset;
    }

    fn copy(&mut self, range: Range<usize>) {
        self.output.copies.push((self.output.text.len(), range.start));
        self.output.text.extend_from_slice(&self.json[range]);
    }

    fn value(&mut self, message: &MessageDescriptor, shape: Shape) -> Option<()> {
        match (self.peek()?, shape) {
            (b'{', Shape::One) if message.full_name() == PAYLOAD => self.payload(),
            (b'{', Shape::One) => self.object(|rewriter, key| match field(message, key) {
                Some((message, shape)) => rewriter.value(&message, shape),
                None => rewriter.skip().map(drop),
            }),
            (b'{', Shape::Map) => self.object(|rewriter, _| rewriter.value(message, Shape::One)),
            (b'[', Shape::List) => {
                self.at += 1;
                while self.peek()? != b']' {
                    self.value(message, Shape::One)?;
                    self.comma(b']')?;
                }
                self.expect(b']')
            }
            _ => self.skip().map(drop),
        }
    }

    /// Parses an object. Calls `member` at the value of each member, with the key in its quotes.
    fn object(&mut self, mut member: impl FnMut(&mut Self, &[u8]) -> Option<()>) -> Option<()> {
        self.expect(b'{')?;
        while self.peek()? != b'}' {
            let key = self.skip()?;
            self.expect(b':')?;
            self.peek()?;
            let json = self.json;
            member(self, json.get(key)?)?;
            self.comma(b'}')?;
        }
        self.expect(b'}')
    }

    fn comma(&mut self, end: u8) -> Option<()> {
        if self.peek()? == end { Some(()) } else { self.expect(b',') }
    }

    /// Skips one value and returns its range.
    fn skip(&mut self) -> Option<Range<usize>> {
        let start = { self.peek().map(|_| self.at)? };
        let mut depth = 0_usize;
        loop {
            match self.json.get(self.at)? {
                b'"' => self.at += string_length(&self.json[self.at..]),
                b'[' | b'{' => (depth, self.at) = (depth + 1, self.at + 1),
                b']' | b'}' if depth > 0 => (depth, self.at) = (depth - 1, self.at + 1),
                b',' | b':' | b']' | b'}' if depth == 0 => break,
                _ => self.at += 1,
            }
            let ended = self.json.get(self.at).is_none_or(|next| b",:]}".contains(next) || next.is_ascii_whitespace());
            if depth == 0 && ended {
                break;
            }
        }
        Some(start..self.at)
    }

    /// Rewrites a payload if it has the field `json`.
    fn payload(&mut self) -> Option<()> {
        let start = self.at;
        let mut members = Vec::new();
        let mut before = self.at + 1;
        self.object(|rewriter, key| {
            let name = key.to_vec();
            let value = rewriter.skip()?;
            members.push((name, before..value.start, value.clone()));
            before = value.end + 1;
            Some(())
        })?;
        let json = self.json;
        let is_json = |value: &Range<usize>| serde_json::from_slice::<IgnoredAny>(&json[value.clone()]).is_ok();
        if !members.iter().any(|(name, _, value)| name == b"\"json\"" && is_json(value)) {
            return Some(());
        }
        self.copy_to(start + 1);
        let mut has_content_type = false;
        for (name, before, value) in members {
            let text = &json[value.clone()];
            match name.as_slice() {
                b"\"json\"" if is_json(&value) => {
                    let data = BASE64_STANDARD.encode(text);
                    self.output.text.extend_from_slice(format!("\"data\":\"{data}\",").as_bytes());
                    continue;
                }
                // An empty content type stands for the default, which is the one of JSON here.
                b"\"contentType\"" | b"\"content_type\"" if text == b"\"\"" || text == b"null" => continue,
                b"\"contentType\"" | b"\"content_type\"" => has_content_type = true,
                _ => {}
            }
            self.copy(before.start..value.end);
            self.output.text.push(b',');
        }
        if has_content_type {
            // Removes the comma after the last member.
            self.output.text.pop();
        } else {
            self.output.text.extend_from_slice(b"\"contentType\":\"application/json\"");
        }
        self.copied = self.at - 1;
        Some(())
    }
}

/// Returns the message type of a field, if a payload can be inside it.
fn field(message: &MessageDescriptor, key: &[u8]) -> Option<(MessageDescriptor, Shape)> {
    let key = std::str::from_utf8(key).ok()?.strip_prefix('"')?.strip_suffix('"')?;
    let field = message.get_field_by_json_name(key).or_else(|| message.get_field_by_name(key))?;
    let Kind::Message(inner) = field.kind() else { return None };
    let (inner, shape) = if field.is_map() {
        let Kind::Message(value) = inner.map_entry_value_field().kind() else { return None };
        (value, Shape::Map)
    } else {
        (inner, if field.is_list() { Shape::List } else { Shape::One })
    };
    (inner.package_name() != "google.protobuf").then_some((inner, shape))
}

/// Returns the length of the string at the start of `json`, including its quotes.
pub fn string_length(json: &[u8]) -> usize {
    let mut length = 1;
    while let Some(byte) = json.get(length) {
        length += match byte {
            b'"' => return length + 1,
            b'\\' => 2,
            _ => 1,
        };
    }
    json.len()
}

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;

    use super::*;

    fn rewritten(name: &str, json: &str) -> RewrittenJson {
        let pool = DescriptorPool::decode(crate::proto::DESCRIPTORS).unwrap();
        RewrittenJson::new(&pool.get_message_by_name(&format!("lineshaft.v1.{name}")).unwrap(), json)
    }

    fn text(name: &str, json: &str) -> String {
        String::from_utf8(rewritten(name, json).text).unwrap()
    }

    #[test]
    fn the_json_of_a_payload_is_moved_to_data() {
        let data = |json: &str| format!("\"data\":\"{}\"", BASE64_STANDARD.encode(json));
        let typed = "\"contentType\":\"application/json\"";
        let exact = r#"{ "z": 9007199254740993, "a": [1e400, "}\"]"] }"#;
        for (name, json, expected) in [
            ("Payload", r#"{"json":5}"#.to_owned(), format!("{{{},{typed}}}", data("5"))),
            ("Payload", format!(r#"{{"json":{exact}}}"#), format!("{{{},{typed}}}", data(exact))),
            (
                "Payload",
                r#"{"contentType":"x/json", "json" : 5 }"#.to_owned(),
                format!(r#"{{"contentType":"x/json",{}}}"#, data("5")),
            ),
            ("Payload", r#"{"json":5,"contentType":""}"#.to_owned(), format!("{{{},{typed}}}", data("5"))),
            (
                "SubmitTaskRequest",
                r#" {"handler":"x","payload":{"json":null},"args":[]} "#.to_owned(),
                format!(r#" {{"handler":"x","payload":{{{},{typed}}},"args":[]}} "#, data("null")),
            ),
            (
                "BatchSubmitTasksRequest",
                r#"{"tasks":[{"payload":{"json":1}},{"payload":{"json":2}}]}"#.to_owned(),
                format!(
                    r#"{{"tasks":[{{"payload":{{{},{typed}}}}},{{"payload":{{{},{typed}}}}}]}}"#,
                    data("1"),
                    data("2")
                ),
            ),
        ] {
            assert_eq!(text(name, &json), expected);
        }
    }

    #[test]
    fn all_other_text_is_copied() {
        for json in [
            r#"{"handler":"x","labels":{"json":"y"},"displayName":"{\"json\":1}"}"#,
            r#"{"payload":{"data":"AA=="}}"#,
            r#"{"payload":null}"#,
            r#"{"payload":[{"json":1}]}"#,
            r#"{"nothing":{"payload":{"json":1}}}"#,
            r#"{"payload":{"json":}}"#,
            r#"{"payload":{"json":tru}}"#,
            r#"{"payload":{"json":1"#,
            r#"{"payload""#,
            r#"{"payload":{"json":"#,
            "",
            "}",
            "[[[[",
            "\"",
            "{\"a\\",
        ] {
            assert_eq!(text("SubmitTaskRequest", json), json);
        }
    }

    #[test]
    fn offsets_are_mapped_to_the_original_text() {
        let json = r#"{"payload":{"json":[1,2,3],"tusk":1},"tusk":2}"#;
        let rewritten = rewritten("SubmitTaskRequest", json);
        let text = String::from_utf8(rewritten.text.clone()).unwrap();
        for (new, original) in text.match_indices("tusk").zip(json.match_indices("tusk")) {
            assert_eq!(rewritten.original_offset(new.0), original.0);
        }
        assert_eq!(text.matches("tusk").count(), 2);
    }

    proptest::proptest! {
        #[test]
        fn valid_json_stays_valid_and_invalid_json_stays_invalid(json in r#"(\{|\}|\[|\]|,|:|"payload"|"json"|"tasks"|1|"|\\| |null){0,24}"#) {
            for name in ["SubmitTaskRequest", "BatchSubmitTasksRequest", "Payload"] {
                let before = serde_json::from_str::<IgnoredAny>(&json).is_ok();
                proptest::prop_assert_eq!(serde_json::from_str::<IgnoredAny>(&text(name, &json)).is_ok(), before);
            }
        }
    }
}
