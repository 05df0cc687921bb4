//! Decodes JSON to messages of the contract, by the JSON mapping of protobuf.

use prost_reflect::MessageDescriptor;
use serde::de::{DeserializeOwned, DeserializeSeed};

use crate::model::{Coded, Details, ErrorCode, FieldViolation};

use super::json_payload::{RewrittenJson, members, string_length};
use super::json_transcode::MessageSeed;
use super::query::UnknownFields;

/// Maximum nesting of lists and objects, about that of protobuf decoders.
const DEPTH_MAX: usize = 100;
/// Maximum number of values in a message. Each can take a hundred times as much memory in the service.
const VALUES_MAX: usize = 200_000;

/// JSON that cannot be decoded, with the position of the error.
#[derive(Debug, thiserror::Error)]
#[error("invalid JSON: {problem} at line {line} column {column}")]
pub struct JsonError {
    problem: String,
    /// Path of the field, such as `tasks[2].retry.maxAttempts`; empty if the error is not in a field.
    field: String,
    line: usize,
    column: usize,
}

impl JsonError {
    fn at(json: &[u8], offset: usize, problem: &str) -> Self {
        let before = &json[..offset.min(json.len())];
        let lines = || before.split(|byte| *byte == b'\n');
        let (line, column) = (lines().count(), 1 + lines().next_back().map_or(0, <[u8]>::len));
        Self { problem: problem.to_owned(), field: path_at(json, before.len()), line, column }
    }

    fn unknown_field(json: &[u8], offset: usize, name: &str) -> Self {
        Self::at(json, offset, &format!("unrecognized field name '{name}'"))
    }
}

/// Returns where the parser found an error in a text, and which.
fn position_in(text: &[u8], error: &serde_json::Error) -> (usize, String) {
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    let line_start: usize = lines.take(error.line().saturating_sub(1)).map(<[u8]>::len).sum();
    // serde_json counts the bytes that it has read of the line.
    let offset = (line_start + error.column()).saturating_sub(1);
    let problem = error.to_string();
    (offset, problem.rsplit_once(" at line ").map_or(&*problem, |(problem, _)| problem).to_owned())
}

impl Coded for JsonError {
    fn code(&self) -> ErrorCode {
        ErrorCode::InvalidField
    }

    fn details(&self) -> Details {
        let metadata = vec![("line", self.line.to_string()), ("column", self.column.to_string())];
        let violation = || FieldViolation { field: self.field.clone(), description: self.problem.clone() };
        let violations = if self.field.is_empty() { Vec::new() } else { vec![violation()] };
        Details { metadata, violations, ..Details::default() }
    }
}

/// Returns the protobuf encoding of a message in JSON.
pub fn decode(input: &MessageDescriptor, json: &[u8], unknown: UnknownFields) -> Result<Vec<u8>, JsonError> {
    let json = std::str::from_utf8(json).map_err(|error| JsonError::at(json, error.valid_up_to(), "not UTF-8"))?;
    let rewritten = RewrittenJson::new(input, json);
    let error_at = |(offset, problem): (usize, String)| {
        JsonError::at(json.as_bytes(), rewritten.original_offset(offset), &problem)
    };
    if let Some(complexity) = find_complexity(&rewritten.text) {
        return Err(error_at(complexity));
    }
    if let Some(offset) = rewritten.duplicate {
        return Err(JsonError::at(json.as_bytes(), offset, "duplicate field"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(&rewritten.text);
    let mut encoded = Vec::new();
    let message = MessageSeed { descriptor: input, unknown, out: &mut encoded };
    let decoded = message.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    decoded.map_err(|error| error_at(position_in(&rewritten.text, &error)))?;
    Ok(encoded)
}

/// Parses an object with known fields into a struct.
pub fn parse<T: DeserializeOwned>(json: &[u8], known: &[&str], unknown: UnknownFields) -> Result<T, JsonError> {
    if let Some((offset, problem)) = find_complexity(json) {
        return Err(JsonError::at(json, offset, &problem));
    }
    // Structs can also be parsed from a list.
    if json.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
        return Err(JsonError::at(json, 0, "must be an object"));
    }
    let parsed = serde_json::from_slice(json).map_err(|error| {
        let (offset, problem) = position_in(json, &error);
        JsonError::at(json, offset, &problem)
    })?;
    if unknown == UnknownFields::Refused {
        for (name, at) in members(json) {
            if !known.contains(&&*name) {
                return Err(JsonError::unknown_field(json, at, &name));
            }
        }
    }
    Ok(parsed)
}

/// Returns the path of the value or the key at an offset.
fn path_at(json: &[u8], offset: usize) -> String {
    enum Step<'a> {
        Member(Option<&'a [u8]>),
        Item(usize),
    }
    let (mut steps, mut at) = (Vec::new(), 0);
    while at < json.len() && (at < offset || (at == offset && json[at] == b'"')) {
        let mut length = 1;
        match json[at] {
            b'{' => steps.push(Step::Member(None)),
            b'[' => steps.push(Step::Item(0)),
            b'}' | b']' => drop(steps.pop()),
            b',' => match steps.last_mut() {
                Some(Step::Item(index)) => *index += 1,
                Some(member) => *member = Step::Member(None),
                None => {}
            },
            b'"' => {
                length = string_length(&json[at..]);
                if let Some(Step::Member(key @ None)) = steps.last_mut() {
                    *key = Some(&json[at..at + length]);
                }
            }
            _ => {}
        }
        at += length;
    }
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Member(Some(key)) => {
                let key = String::from_utf8_lossy(key);
                path.push_str(if path.is_empty() { "" } else { "." });
                path.push_str(key.trim_matches('"'));
            }
            Step::Item(index) => path.extend(["[", &index.to_string(), "]"]),
            Step::Member(None) => {}
        }
    }
    path
}

/// Returns where a JSON text exceeds [`DEPTH_MAX`] or [`VALUES_MAX`].
fn find_complexity(json: &[u8]) -> Option<(usize, String)> {
    let (mut depth, mut values, mut at) = (0_usize, 1_usize, 0);
    while let Some(byte) = json.get(at) {
        match byte {
            b'[' | b'{' => (depth, values) = (depth + 1, values + 1),
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Some((at, format!("nested more than {DEPTH_MAX} levels deep")));
        }
        if values > VALUES_MAX {
            return Some((at, format!("more than {VALUES_MAX} values")));
        }
        at += if *byte == b'"' { string_length(&json[at..]) } else { 1 };
    }
    None
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::api::http::descriptors::Contract;
    use crate::proto::v1;

    fn read<T: Message + Default>(rpc: &str, json: &str, unknown: UnknownFields) -> Result<T, JsonError> {
        let contract = Contract::new().unwrap();
        let method = contract.method(&format!("/lineshaft.v1.TaskService/{rpc}")).unwrap();
        decode(&method.input, json.as_bytes(), unknown).map(|encoded| T::decode(&encoded[..]).unwrap())
    }

    fn read_submit(json: &str) -> Result<v1::SubmitTaskRequest, String> {
        read("SubmitTask", json, UnknownFields::Refused).map_err(|error| error.to_string())
    }

    #[test]
    fn a_submission_is_decoded() {
        let request = read_submit(r#"{"handler":"compute","payload":{"json":5000000},"timeout":"1.5s"}"#).unwrap();
        assert_eq!(request.handler, "compute");
        assert_eq!(request.timeout, Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }));
        let payload = request.payload.unwrap();
        assert_eq!(payload.kind, Some(v1::payload::Kind::Data("5000000".into())));
        assert_eq!(payload.content_type, "application/json");
    }

    #[test]
    fn errors_have_a_line_and_a_column() {
        for (json, expected) in [
            ("{\"tusk\":1}", "unrecognized field name 'tusk' at line 1 column 7"),
            ("{\n \"priority\": \"PRIORITY_HUGE\"}", "line 2"),
            ("{\"handler\":1}", "line 1 column 12"),
            ("{\"handler\":\"x\"} {}", "trailing characters at line 1 column 17"),
            ("", "line 1 column 1"),
            ("{\"payload\":{\"json\":[1,2,3]},\n\"tusk\":1}", "'tusk' at line 2 column 6"),
            ("{\"payload\":{\"json\":[1,2,3],\"tusk\":1}}", "'tusk' at line 1 column 33"),
            ("{\"payload\":{\"json\":[1,2,3}}", "line 1 column 26"),
        ] {
            let error = read_submit(json).unwrap_err();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }

    #[test]
    fn errors_name_the_field() {
        for (json, field) in [
            (r#"{"tusk":1}"#, "tusk"),
            (r#"{"handler":1}"#, "handler"),
            (r#"{"handler":"x","retry":{"maxAttempts":"many"}}"#, "retry.maxAttempts"),
            (r#"{"args":["a",7,"b"]}"#, "args[1]"),
            (r#"{"payload":{"json":[1,2,3],"tusk":1}}"#, "payload.tusk"),
            (r#"{"payload":{"json":1,"json":2}}"#, "payload.json"),
            (r#"{"labels":{"a":"1","a":"2"}}"#, "labels.a"),
            ("{} {}", ""),
        ] {
            let error = read::<v1::SubmitTaskRequest>("SubmitTask", json, UnknownFields::Refused).unwrap_err();
            let violations: Vec<_> = error.details().violations.into_iter().map(|found| found.field).collect();
            assert_eq!(violations.join(","), field, "{json}: {error}");
        }
    }

    #[test]
    fn unknown_fields_are_ignored_at_any_depth_and_the_others_are_read() {
        let json = r#"{"future":[{"json":"\ud800","x":1e999}],"handler":"x","future":{},"retry":{"tusk":{},"maxAttempts":3},
            "payload":{"json":[1.50],"tusk":[]},"tasks":{"x":null}}"#;
        let request: v1::SubmitTaskRequest = read("SubmitTask", json, UnknownFields::Ignored).unwrap();
        assert_eq!((&*request.handler, request.retry.unwrap().max_attempts), ("x", 3));
        assert_eq!(request.payload.unwrap().kind, Some(v1::payload::Kind::Data("[1.50]".into())));
        let batch = r#"{"tasks":[{"handler":"a","tusk":1},{"handler":"b"}]}"#;
        let batch: v1::BatchSubmitTasksRequest = read("BatchSubmitTasks", batch, UnknownFields::Ignored).unwrap();
        assert_eq!((batch.tasks.len(), &*batch.tasks[1].handler), (2, "b"));
        for (json, expected) in [
            (r#"{"tusk":}"#, "expected value at line 1 column 9"),
            (r#"{"tusk":1,}"#, "line 1 column 11"),
            (r#"{"priority":"PRIORITY_HUGE"}"#, "unrecognized enum value 'PRIORITY_HUGE'"),
        ] {
            let error = read::<v1::SubmitTaskRequest>("SubmitTask", json, UnknownFields::Ignored).unwrap_err();
            assert!(error.to_string().contains(expected), "{json}: {error}");
        }
    }

    #[test]
    fn an_unknown_condition_of_a_filter_is_an_error_in_any_case() {
        let json = r#"{"tusk":1,"filter":{"states":["TASK_STATE_FAILED"],"handlers":["x"]}}"#;
        let error = read::<v1::DeleteTasksRequest>("DeleteTasks", json, UnknownFields::Ignored).unwrap_err();
        assert_eq!(error.field, "filter.handlers");
    }

    #[test]
    fn complex_json_is_rejected_before_it_is_decoded() {
        let deep = format!("{{\"payload\":{{\"json\":{}}}}}", "[".repeat(100_000));
        assert!(read_submit(&deep).unwrap_err().contains("nested more than 100 levels deep at line 1 column 118"));
        let many = format!("{{\"args\":[{}\"\"]}}", "\"\",".repeat(VALUES_MAX));
        assert!(read_submit(&many).unwrap_err().contains("more than 200000 values"));
        let large = format!("{{\"payload\":{{\"json\":[{}0]}}}}", "0,".repeat(VALUES_MAX));
        assert!(read_submit(&large).is_ok(), "the json of a payload is not decoded");
        let text = format!("{{\"displayName\":\"{}\\\"[[[\"}}", "[{,".repeat(VALUES_MAX));
        assert!(read_submit(&text).is_ok(), "a string is one value");
    }
}
