//! Carries the JSON of payloads through, byte for byte.
//!
//! In a payload, `"json": …` may be any JSON value. Read as the contract's message for such values it
//! would lose digits and its order, and take a thousand bytes for each number. So its text is put into
//! `data` before the message is read: `{"json":5}` becomes `{"data":"NQ==","contentType":"application/json"}`.

use std::ops::Range;

use base64::prelude::{BASE64_STANDARD, Engine};
use prost_reflect::{Kind, MessageDescriptor};
use serde::de::IgnoredAny;

/// The message with bytes and a content type.
pub const PAYLOAD: &str = "lineshaft.v1.Payload";

/// A JSON text of a message with its payloads as bytes.
pub struct Carried {
    /// The text.
    pub text: Vec<u8>,
    /// Pieces taken over as they were: where they begin now, and where they began.
    pieces: Vec<(usize, usize)>,
}

impl Carried {
    /// The message's text; what is no JSON of its shape stays as it is, for the reader to refuse.
    pub fn new(input: &MessageDescriptor, json: &str) -> Self {
        let carried = Self { text: Vec::with_capacity(json.len()), pieces: Vec::new() };
        let mut walk = Walk { json: json.as_bytes(), at: 0, taken: 0, carried };
        // Whatever does not fit ends the walk.
        let _ = walk.value(input, Shape::One);
        walk.take(json.len());
        walk.carried
    }

    /// Where a byte of this text was in the original.
    pub fn origin(&self, at: usize) -> usize {
        let piece = self.pieces.iter().rev().find(|(now, _)| *now <= at);
        piece.map_or(at, |(now, then)| then + (at - now))
    }
}

/// What JSON makes of a field.
#[derive(Clone, Copy)]
enum Shape {
    One,
    List,
    Map,
}

struct Walk<'a> {
    json: &'a [u8],
    at: usize,
    /// The original up to here is in the new text.
    taken: usize,
    carried: Carried,
}

impl Walk<'_> {
    fn next(&mut self) -> Option<u8> {
        self.at += self.json[self.at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.json.get(self.at).copied()
    }

    fn expect(&mut self, wanted: u8) -> Option<()> {
        (self.next()? == wanted).then(|| self.at += 1)
    }

    /// Takes the original over, up to here.
    fn take(&mut self, to: usize) {
        self.copy(self.taken..to);
        self.taken = to;
    }

    fn copy(&mut self, range: Range<usize>) {
        self.carried.pieces.push((self.carried.text.len(), range.start));
        self.carried.text.extend_from_slice(&self.json[range]);
    }

    fn value(&mut self, message: &MessageDescriptor, shape: Shape) -> Option<()> {
        match (self.next()?, shape) {
            (b'{', Shape::One) if message.full_name() == PAYLOAD => self.payload(),
            (b'{', Shape::One) => self.object(|walk, key| match field(message, key) {
                Some((message, shape)) => walk.value(&message, shape),
                None => walk.skip().map(drop),
            }),
            (b'{', Shape::Map) => self.object(|walk, _| walk.value(message, Shape::One)),
            (b'[', Shape::List) => {
                self.at += 1;
                while self.next()? != b']' {
                    self.value(message, Shape::One)?;
                    self.comma(b']')?;
                }
                self.expect(b']')
            }
            _ => self.skip().map(drop),
        }
    }

    /// Every member, at its value.
    fn object(&mut self, mut member: impl FnMut(&mut Self, &[u8]) -> Option<()>) -> Option<()> {
        self.expect(b'{')?;
        while self.next()? != b'}' {
            let key = self.skip()?;
            self.expect(b':')?;
            self.next()?;
            let json = self.json;
            member(self, json.get(key)?)?;
            self.comma(b'}')?;
        }
        self.expect(b'}')
    }

    fn comma(&mut self, end: u8) -> Option<()> {
        if self.next()? == end { Some(()) } else { self.expect(b',') }
    }

    /// One value, whatever it is; answers where it is.
    fn skip(&mut self) -> Option<Range<usize>> {
        let start = { self.next().map(|_| self.at)? };
        let mut depth = 0_usize;
        loop {
            match self.json.get(self.at)? {
                b'"' => self.at += text_length(&self.json[self.at..]),
                b'[' | b'{' => (depth, self.at) = (depth + 1, self.at + 1),
                b']' | b'}' if depth > 0 => (depth, self.at) = (depth - 1, self.at + 1),
                b',' | b':' | b']' | b'}' if depth == 0 => break,
                _ => self.at += 1,
            }
            let over = self.json.get(self.at).is_none_or(|next| b",:]}".contains(next) || next.is_ascii_whitespace());
            if depth == 0 && over {
                break;
            }
        }
        Some(start..self.at)
    }

    /// A payload with `json` is written anew, all others stay.
    fn payload(&mut self) -> Option<()> {
        let start = self.at;
        let mut members = Vec::new();
        let mut before = self.at + 1;
        self.object(|walk, key| {
            let name = key.to_vec();
            let value = walk.skip()?;
            members.push((name, before..value.start, value.clone()));
            before = value.end + 1;
            Some(())
        })?;
        let json = self.json;
        let is_json = |value: &Range<usize>| serde_json::from_slice::<IgnoredAny>(&json[value.clone()]).is_ok();
        if !members.iter().any(|(name, _, value)| name == b"\"json\"" && is_json(value)) {
            return Some(());
        }
        self.take(start + 1);
        let mut typed = false;
        for (name, before, value) in members {
            let said = &json[value.clone()];
            match name.as_slice() {
                b"\"json\"" if is_json(&value) => {
                    let data = BASE64_STANDARD.encode(said);
                    self.carried.text.extend_from_slice(format!("\"data\":\"{data}\",").as_bytes());
                    continue;
                }
                // The default is that of JSON.
                b"\"contentType\"" | b"\"content_type\"" if said == b"\"\"" || said == b"null" => continue,
                b"\"contentType\"" | b"\"content_type\"" => typed = true,
                _ => {}
            }
            self.copy(before.start..value.end);
            self.carried.text.push(b',');
        }
        if typed {
            // The comma after the last member.
            self.carried.text.pop();
        } else {
            self.carried.text.extend_from_slice(b"\"contentType\":\"application/json\"");
        }
        self.taken = self.at - 1;
        Some(())
    }
}

/// The message that a field holds, if it can have a payload in it.
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

/// Bytes of the text that these begin with, quotes included.
pub fn text_length(json: &[u8]) -> usize {
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

    fn carried(name: &str, json: &str) -> Carried {
        let pool = DescriptorPool::decode(crate::proto::DESCRIPTORS).unwrap();
        Carried::new(&pool.get_message_by_name(&format!("lineshaft.v1.{name}")).unwrap(), json)
    }

    fn text(name: &str, json: &str) -> String {
        String::from_utf8(carried(name, json).text).unwrap()
    }

    #[test]
    fn the_json_of_a_payload_becomes_its_bytes_wherever_the_payload_is() {
        let data = |said: &str| format!("\"data\":\"{}\"", BASE64_STANDARD.encode(said));
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
    fn all_else_stays_as_it_is() {
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
    fn a_place_is_found_again_in_the_original() {
        let json = r#"{"payload":{"json":[1,2,3],"tusk":1},"tusk":2}"#;
        let carried = carried("SubmitTaskRequest", json);
        let new = String::from_utf8(carried.text.clone()).unwrap();
        for (now, then) in new.match_indices("tusk").zip(json.match_indices("tusk")) {
            assert_eq!(carried.origin(now.0), then.0);
        }
        assert_eq!(new.matches("tusk").count(), 2);
    }

    proptest::proptest! {
        #[test]
        fn no_text_confuses_the_walk(json in r#"(\{|\}|\[|\]|,|:|"payload"|"json"|"tasks"|1|"|\\| |null){0,24}"#) {
            for name in ["SubmitTaskRequest", "BatchSubmitTasksRequest", "Payload"] {
                let before = serde_json::from_str::<IgnoredAny>(&json).is_ok();
                proptest::prop_assert_eq!(serde_json::from_str::<IgnoredAny>(&text(name, &json)).is_ok(), before);
            }
        }
    }
}
