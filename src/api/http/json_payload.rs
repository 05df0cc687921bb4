//! Preserves the exact text of JSON payloads when a message is decoded from JSON.
//!
//! The field `json` of a payload can be any JSON value. Decoded as `google.protobuf.Value`, it would lose digits and the
//! order of its fields, and take about a thousand bytes of memory for each number. So its text is moved to the field
//! `data` first: `{"json":5}` becomes `{"data":"NQ==","contentType":"application/json"}`.

use std::borrow::Cow;
use std::ops::Range;

use base64::prelude::{BASE64_STANDARD, Engine};
use hashbrown::HashSet;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use crate::model::limits;
use crate::proto::json::{PAYLOAD, is_json};

/// Entries of a map and members of a payload, far more than any has. An entry of ten bytes takes hundreds in memory.
pub const ENTRIES_MAX: usize = 1_000;

/// The JSON text of a message in which payloads have `data` instead of `json`.
pub struct RewrittenJson {
    pub text: Vec<u8>,
    /// Copied ranges: their offset in `text`, and in the original text.
    copies: Vec<(usize, usize)>,
    /// Offset in the original text of the first name that an object has twice. Decoding would use the last one.
    pub duplicate: Option<usize>,
}

impl RewrittenJson {
    /// Rewrites the JSON text of a message. Text that does not match the message is copied; decoding it then fails.
    pub fn new(input: &MessageDescriptor, json: &str) -> Self {
        let output = Self { text: Vec::with_capacity(json.len()), copies: Vec::new(), duplicate: None };
        let mut rewriter =
            Rewriter { json: json.as_bytes(), at: 0, copied: 0, payloads: limits::BATCH_TASKS_MAX + 1, output };
        // `None`: the text does not match the message from here on.
        let _ = rewriter.value(&Expected::Message(input.clone()));
        rewriter.copy_to(json.len());
        rewriter.output
    }

    /// Returns the offset in the original text for an offset in `text`.
    pub fn original_offset(&self, offset: usize) -> usize {
        let copy = self.copies.iter().rev().find(|(new, _)| *new <= offset);
        copy.map_or(offset, |(new, original)| original + (offset - new))
    }
}

/// What a JSON value stands for.
enum Expected {
    Message(MessageDescriptor),
    List(MessageDescriptor),
    /// With the message of its values, if they are messages.
    Map(Option<MessageDescriptor>),
    /// A scalar, or a message with a JSON form of its own.
    Other,
}

/// A parser over the original text. Its methods return `None` where the text is not valid.
struct Rewriter<'a> {
    json: &'a [u8],
    at: usize,
    /// The original text before this offset is already in the output.
    copied: usize,
    /// Payloads that may still be rewritten.
    payloads: usize,
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

    fn value(&mut self, expected: &Expected) -> Option<()> {
        match (self.peek()?, expected) {
            (b'{', Expected::Message(message)) if message.full_name() == PAYLOAD => self.payload(message),
            (b'{', Expected::Message(message)) => {
                let mut seen = Vec::new();
                self.object(|rewriter, key| {
                    let Some(field) = rewriter.field(message, &key) else { return rewriter.skip().map(drop) };
                    rewriter.check_unique(&mut seen, &field, key.start)?;
                    rewriter.value(&expected_value(&field))
                })
            }
            (b'{', Expected::Map(values)) => {
                let mut seen = HashSet::new();
                let values = values.clone().map_or(Expected::Other, Expected::Message);
                self.object(|rewriter, key| {
                    let start = key.start;
                    if !seen.insert(name(&rewriter.json[key])?) {
                        rewriter.output.duplicate.get_or_insert(start);
                        return None;
                    }
                    (seen.len() <= ENTRIES_MAX).then(|| rewriter.value(&values))?
                })
            }
            (b'[', Expected::List(items)) => {
                self.at += 1;
                let items = Expected::Message(items.clone());
                while self.peek()? != b']' {
                    self.value(&items)?;
                    self.comma(b']')?;
                }
                self.expect(b']')
            }
            _ => self.skip().map(drop),
        }
    }

    fn field(&self, message: &MessageDescriptor, key: &Range<usize>) -> Option<FieldDescriptor> {
        let key = name(self.json.get(key.clone())?)?;
        message.get_field_by_json_name(&key).or_else(|| message.get_field_by_name(&key))
    }

    /// `None` for the second of two fields that exclude each other, as those of one `oneof` do.
    fn check_unique(&mut self, seen: &mut Vec<FieldDescriptor>, field: &FieldDescriptor, at: usize) -> Option<()> {
        let one = |field: &FieldDescriptor| field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
        let excludes =
            |other: &FieldDescriptor| other == field || one(other).is_some_and(|oneof| Some(oneof) == one(field));
        if seen.iter().any(excludes) {
            self.output.duplicate.get_or_insert(at);
            return None;
        }
        seen.push(field.clone());
        Some(())
    }

    /// Parses an object. Calls `member` at the value of each member, with the range of the key in its quotes.
    fn object(&mut self, mut member: impl FnMut(&mut Self, Range<usize>) -> Option<()>) -> Option<()> {
        self.expect(b'{')?;
        while self.peek()? != b'}' {
            let key = self.skip()?;
            self.expect(b':')?;
            self.peek()?;
            member(self, key)?;
            self.comma(b'}')?;
            // A comma before the end is not JSON.
            if self.json[..self.at].ends_with(b",") && self.peek()? == b'}' {
                return None;
            }
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
    fn payload(&mut self, message: &MessageDescriptor) -> Option<()> {
        // More do not fit into a batch. Rewritten, the smallest payloads are five times as long.
        self.payloads = self.payloads.checked_sub(1)?;
        let start = self.at;
        let (mut members, mut seen) = (Vec::new(), Vec::new());
        self.object(|rewriter, key| {
            if let Some(field) = rewriter.field(message, &key) {
                rewriter.check_unique(&mut seen, &field, key.start)?;
            }
            let value = rewriter.skip()?;
            members.push((key, value));
            (members.len() <= ENTRIES_MAX).then_some(())
        })?;
        let json = self.json;
        let is_json = |key: &Range<usize>, value: &Range<usize>| {
            let is_text = || std::str::from_utf8(&json[value.clone()]).is_ok_and(is_json);
            name(&json[key.clone()]).is_some_and(|name| name == "json") && is_text()
        };
        if !members.iter().any(|(key, value)| is_json(key, value)) {
            return Some(());
        }
        self.copy_to(start + 1);
        let mut has_content_type = false;
        for (key, value) in members {
            let text = &json[value.clone()];
            if is_json(&key, &value) {
                let data = BASE64_STANDARD.encode(text);
                self.output.text.extend_from_slice(format!("\"data\":\"{data}\",").as_bytes());
                continue;
            }
            match name(&json[key.clone()]).as_deref() {
                // An empty content type stands for the default, which is the one of JSON here.
                Some("contentType" | "content_type") if text == b"\"\"" || text == b"null" => continue,
                Some("contentType" | "content_type") => has_content_type = true,
                _ => {}
            }
            self.copy(key.start..value.end);
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

fn expected_value(field: &FieldDescriptor) -> Expected {
    // Messages of this package are durations, timestamps and the like.
    let own = |kind: Kind| match kind {
        Kind::Message(message) if message.package_name() != "google.protobuf" => Some(message),
        _ => None,
    };
    if field.is_map() {
        let Kind::Message(entry) = field.kind() else { return Expected::Other };
        return Expected::Map(own(entry.map_entry_value_field().kind()));
    }
    match own(field.kind()) {
        Some(message) if field.is_list() => Expected::List(message),
        Some(message) => Expected::Message(message),
        None => Expected::Other,
    }
}

/// The text of a string in its quotes.
fn name(quoted: &[u8]) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(quoted).ok()?;
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(text).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// Returns the exact text of a member of an object, which must be valid JSON.
pub fn member<'a>(json: &'a [u8], wanted: &str) -> Option<&'a [u8]> {
    let found = object(json).into_iter().rfind(|(key, _)| name(&json[key.clone()]).is_some_and(|name| name == wanted));
    json.get(found?.1)
}

/// Returns the names of the members of an object, which must be valid JSON, and their offsets.
pub fn members(json: &[u8]) -> Vec<(Cow<'_, str>, usize)> {
    let names = object(json).into_iter().filter_map(|(key, _)| Some((name(&json[key.clone()])?, key.start)));
    names.collect()
}

/// Returns the ranges of the keys and values of an object.
fn object(json: &[u8]) -> Vec<(Range<usize>, Range<usize>)> {
    let output = RewrittenJson { text: Vec::new(), copies: Vec::new(), duplicate: None };
    let mut rewriter = Rewriter { json, at: 0, copied: 0, payloads: 1, output };
    let mut found = Vec::new();
    // `None`: the text is not valid from here on.
    let _ = rewriter.object(|rewriter, key| {
        found.push((key, rewriter.skip()?));
        Some(())
    });
    found
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
    use serde::de::IgnoredAny;

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
            (
                "Payload",
                "{ \"json\":1 , \"contentType\":\"x/json\" }".to_owned(),
                format!(r#"{{{},"contentType":"x/json"}}"#, data("1")),
            ),
            ("Payload", r#"{"json":5,"contentType":""}"#.to_owned(), format!("{{{},{typed}}}", data("5"))),
            (
                "Payload",
                r#"{"js\u006fn":5,"content\u0054ype":"x/json"}"#.to_owned(),
                format!(r#"{{{},"content\u0054ype":"x/json"}}"#, data("5")),
            ),
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
            r#"{"payload":{"json":1,}}"#,
            r#"{"payload":{"json":"\ud800"}}"#,
            r#"{"payload":{"json":["\udc00\ud800"]}}"#,
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
    fn names_that_an_object_has_twice_are_found() {
        for (json, expected) in [
            (r#"{"taskId":"a","handler":"x"}"#, None),
            (r#"{"taskId":"a","task_id":"b"}"#, Some(14)),
            (r#"{"taskId":"a","t\u0061skId":"b"}"#, Some(14)),
            (r#"{"labels":{"a":"1","b":"2","a":"3"}}"#, Some(27)),
            (r#"{"labels":{"a":"1","A":"2"},"retry":{"maxAttempts":1}}"#, None),
            (r#"{"payload":{"json":{"a":1,"a":2}}}"#, None),
            (r#"{"payload":{"json":1,"json":2}}"#, Some(21)),
            (r#"{"payload":{"json":1,"data":"AA=="}}"#, Some(21)),
            (r#"{"payload":{"contentType":"x","content_type":"y"}}"#, Some(30)),
            (r#"{"unknown":1,"unknown":2}"#, None),
        ] {
            assert_eq!(rewritten("SubmitTaskRequest", json).duplicate, expected, "{json}");
        }
        let batch = r#"{"tasks":[{"taskId":"a"},{"taskId":"b","taskId":"c"}]}"#;
        assert_eq!(rewritten("BatchSubmitTasksRequest", batch).duplicate, Some(39));
    }

    #[test]
    fn the_text_of_a_member_is_exact() {
        let of = |json: &'static str| member(json.as_bytes(), "param").map(|text| std::str::from_utf8(text).unwrap());
        assert_eq!(of(r#" {"type":"x" , "param" : [ 1.50, {"a":1} ] ,"id":"y"}"#), Some(r#"[ 1.50, {"a":1} ]"#));
        assert_eq!(of(r#"{"p\u0061ram":123456789012345678901234567890}"#), Some("123456789012345678901234567890"));
        assert_eq!(of(r#"{"other":{"param":1}}"#), None);
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
        fn a_payload_is_exact_whatever_the_layout_is(
            blanks in proptest::collection::vec("[ \n\t]{0,2}", 12),
            value in r#"(-?(0|[1-9][0-9]{0,39})(\.[0-9]{1,30})?|"[a-z]{0,4}\\u00e4"|\[ 1 , 2 \]|\{"b":1 ,"a":2\}|null)"#,
            first in proptest::bool::ANY,
        ) {
            let b = &blanks;
            let json = format!("{}\"json\"{}:{}{value}{}", b[0], b[1], b[2], b[3]);
            let kind = format!("{}\"contentType\"{}:{}\"x/json\"{}", b[4], b[5], b[6], b[7]);
            let members = if first { format!("{json},{kind}") } else { format!("{kind},{json}") };
            let whole = format!("{}{{{}\"payload\":{{{members}}}{}}}{}", b[8], b[9], b[10], b[11]);
            let read: serde_json::Value = serde_json::from_str(&text("SubmitTaskRequest", &whole)).unwrap();
            let data = BASE64_STANDARD.decode(read["payload"]["data"].as_str().unwrap()).unwrap();
            proptest::prop_assert_eq!(String::from_utf8(data).unwrap(), value);
            proptest::prop_assert_eq!(&read["payload"]["contentType"], "x/json");
        }

        #[test]
        fn valid_json_stays_valid_and_invalid_json_stays_invalid(json in r#"(\{|\}|\[|\]|,|:|"payload"|"json"|"tasks"|1|"|\\| |null){0,24}"#) {
            for name in ["SubmitTaskRequest", "BatchSubmitTasksRequest", "Payload"] {
                let before = serde_json::from_str::<IgnoredAny>(&json).is_ok();
                proptest::prop_assert_eq!(serde_json::from_str::<IgnoredAny>(&text(name, &json)).is_ok(), before);
            }
        }
    }
}
