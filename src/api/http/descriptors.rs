//! The contract as the JSON side sees it: its methods by path, and its messages from and to JSON.
//!
//! Reads the descriptor set, so a new RPC needs nothing here.

use std::collections::HashMap;

use prost::Message;
use prost_reflect::{DescriptorError, DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor};

use crate::model::{Coded, Details, ErrorCode};

use super::json_encode;
use super::json_payload::{Carried, text_length};

/// Lists and objects within each other; the wire itself allows about as many.
const DEPTH_MAX: usize = 100;
/// Values of one message: a few bytes of JSON can take a hundred times as much memory once they are read.
const VALUES_MAX: usize = 200_000;

/// Every method that can be called.
pub struct Contract {
    methods: HashMap<String, Method>,
    details: DescriptorPool,
}

/// One method.
#[derive(Clone)]
pub struct Method {
    /// What it takes.
    pub input: MessageDescriptor,
    /// What it answers.
    pub output: MessageDescriptor,
    /// Whether it takes a stream.
    pub takes_stream: bool,
    /// Whether it answers with a stream.
    pub answers_stream: bool,
}

impl Contract {
    /// Reads the descriptors that the binary carries.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn new() -> Result<Self, DescriptorError> {
        let mut methods = HashMap::new();
        for descriptors in [crate::proto::DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET] {
            for service in DescriptorPool::decode(descriptors)?.services() {
                for method in service.methods() {
                    let path = format!("/{}/{}", service.full_name(), method.name());
                    let found = Method {
                        input: method.input(),
                        output: method.output(),
                        takes_stream: method.is_client_streaming(),
                        answers_stream: method.is_server_streaming(),
                    };
                    methods.insert(path, found);
                }
            }
        }
        let details = DescriptorPool::decode(tonic_types::pb::FILE_DESCRIPTOR_SET)?;
        Ok(Self { methods, details })
    }

    /// The method at a path such as `/lineshaft.v1.TaskService/SubmitTask`.
    pub fn method(&self, path: &str) -> Option<&Method> {
        self.methods.get(path)
    }

    /// A detail of a refusal as JSON, for people; nothing when its type is not known.
    pub fn detail(&self, type_name: &str, value: &[u8]) -> Option<Vec<u8>> {
        let descriptor = self.details.get_message_by_name(type_name)?;
        json_encode::json(&DynamicMessage::decode(descriptor, value).ok()?).ok()
    }
}

/// JSON that is no message of the wanted kind.
#[derive(Debug, thiserror::Error)]
#[error("the JSON cannot be read: {what}")]
pub struct BadJson {
    what: String,
    line: usize,
    column: usize,
}

impl BadJson {
    fn at(json: &[u8], at: usize, what: &str) -> Self {
        let lines = || json[..at.min(json.len())].split(|byte| *byte == b'\n');
        let (line, column) = (lines().count(), 1 + lines().next_back().map_or(0, <[u8]>::len));
        Self { what: format!("{what} at line {line} column {column}"), line, column }
    }
}

impl Coded for BadJson {
    fn code(&self) -> ErrorCode {
        ErrorCode::InvalidField
    }

    fn details(&self) -> Details {
        let metadata = vec![("line", self.line.to_string()), ("column", self.column.to_string())];
        Details { metadata, ..Details::default() }
    }
}

/// The encoded message that a JSON text says. Nothing unknown is ignored.
///
/// # Errors
/// [`BadJson`], with the place.
pub fn read(input: &MessageDescriptor, json: &[u8]) -> Result<Vec<u8>, BadJson> {
    let json = std::str::from_utf8(json).map_err(|error| BadJson::at(json, error.valid_up_to(), "it is not UTF-8"))?;
    let carried = Carried::new(input, json);
    let found_again = |error: serde_json::Error| {
        let lines = carried.text.split_inclusive(|byte| *byte == b'\n');
        let line_start: usize = lines.take(error.line().saturating_sub(1)).map(<[u8]>::len).sum();
        // A column is the number of bytes that were read of its line.
        let at = (line_start + error.column()).saturating_sub(1);
        let what = error.to_string();
        let what = what.rsplit_once(" at line ").map_or(&*what, |(what, _)| what);
        BadJson::at(json.as_bytes(), carried.origin(at), what)
    };
    crowd(&carried.text).map_or(Ok(()), |(at, what)| Err(BadJson::at(json.as_bytes(), carried.origin(at), &what)))?;
    let mut reader = serde_json::Deserializer::from_slice(&carried.text);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let message = DynamicMessage::deserialize_with_options(input.clone(), &mut reader, &options);
    let message = message.and_then(|message| reader.end().map(|()| message)).map_err(found_again)?;
    Ok(message.encode_to_vec())
}

/// Refuses what would take far more memory than its length.
///
/// # Errors
/// [`BadJson`], with the place.
pub fn check(json: &[u8]) -> Result<(), BadJson> {
    crowd(json).map_or(Ok(()), |(at, what)| Err(BadJson::at(json, at, &what)))
}

/// Where there is too much of it, and of what.
fn crowd(json: &[u8]) -> Option<(usize, String)> {
    let (mut depth, mut values, mut at) = (0_usize, 1_usize, 0);
    while let Some(byte) = json.get(at) {
        match byte {
            b'[' | b'{' => (depth, values) = (depth + 1, values + 1),
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Some((at, format!("it is nested more than {DEPTH_MAX} levels deep")));
        }
        if values > VALUES_MAX {
            return Some((at, format!("it has more than {VALUES_MAX} values")));
        }
        at += if *byte == b'"' { text_length(&json[at..]) } else { 1 };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1;

    fn read_submit(json: &str) -> Result<v1::SubmitTaskRequest, String> {
        let contract = Contract::new().unwrap();
        let method = contract.method("/lineshaft.v1.TaskService/SubmitTask").unwrap();
        let encoded = read(&method.input, json.as_bytes()).map_err(|error| error.to_string())?;
        Ok(v1::SubmitTaskRequest::decode(&encoded[..]).unwrap())
    }

    #[test]
    fn every_method_of_the_contract_can_be_found() {
        let contract = Contract::new().unwrap();
        let watch = contract.method("/lineshaft.v1.TaskService/WatchTasks").unwrap();
        assert!(watch.answers_stream && !watch.takes_stream);
        assert!(contract.method("/lineshaft.v1.TaskService/SubmitTasks").unwrap().takes_stream);
        assert!(contract.method("/grpc.health.v1.Health/Check").is_some());
        assert!(contract.method("/lineshaft.v1.TaskService/Nothing").is_none());
        assert!(contract.methods.len() > 20);
    }

    #[test]
    fn the_readmes_first_line_is_a_submission() {
        let request = read_submit(r#"{"handler":"compute","payload":{"json":5000000},"timeout":"1.5s"}"#).unwrap();
        assert_eq!(request.handler, "compute");
        assert_eq!(request.timeout, Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }));
        let payload = request.payload.unwrap();
        assert_eq!(payload.kind, Some(v1::payload::Kind::Data("5000000".into())));
        assert_eq!(payload.content_type, "application/json");
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_place() {
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
    fn deep_and_crowded_json_is_refused_before_it_is_read() {
        let deep = format!("{{\"payload\":{{\"json\":{}}}}}", "[".repeat(100_000));
        assert!(read_submit(&deep).unwrap_err().contains("nested more than 100 levels deep at line 1 column 118"));
        let crowded = format!("{{\"args\":[{}\"\"]}}", "\"\",".repeat(VALUES_MAX));
        assert!(read_submit(&crowded).unwrap_err().contains("more than 200000 values"));
        let large = format!("{{\"payload\":{{\"json\":[{}0]}}}}", "0,".repeat(VALUES_MAX));
        assert!(read_submit(&large).is_ok(), "a payload is only bytes");
        let text = format!("{{\"displayName\":\"{}\\\"[[[\"}}", "[{,".repeat(VALUES_MAX));
        assert!(read_submit(&text).is_ok(), "a text is one value, whatever it says");
    }
}
