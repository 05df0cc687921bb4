//! Query parameters, and what they say about unknown fields.
//!
//! Fields that this version does not know are ignored, as in the binary form of protobuf, so that newer clients can call
//! the server. A person who writes a request by hand asks for `?strict=true` to find typing errors.
//!
//! What selects tasks is strict in any case: without one of its conditions, a filter would match more tasks than the
//! caller meant. Query parameters are strict for the same reason.

use percent_encoding::percent_decode;
use prost_reflect::MessageDescriptor;
use serde_json::{Map, Value};
use tonic::Status;

use crate::api::convert::InvalidFields;
use crate::api::status::into_status;

const STRICT: &str = "strict";

/// What happens to the fields of a body that this version does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownFields {
    Ignored,
    Refused,
}

impl UnknownFields {
    /// What happens to those of a message.
    pub fn within(self, message: &MessageDescriptor) -> Self {
        if message.name().ends_with("Filter") { Self::Refused } else { self }
    }
}

/// The query of a request.
#[derive(Debug)]
pub struct Query {
    pub unknown_fields: UnknownFields,
    /// All parameters but `strict`.
    pub others: Map<String, Value>,
}

impl Query {
    /// # Errors
    /// `INVALID_FIELD`.
    pub fn parse(query: Option<&str>) -> Result<Self, Status> {
        let mut others = parse_form(query.unwrap_or_default().as_bytes())?;
        let unknown_fields = match others.remove(STRICT).as_ref().and_then(Value::as_str) {
            None | Some("false") => UnknownFields::Ignored,
            Some("true") => UnknownFields::Refused,
            Some(other) => {
                let problem = format!("is `{other}`, must be true or false");
                return Err(into_status(InvalidFields::one(STRICT, problem)));
            }
        };
        Ok(Self { unknown_fields, others })
    }

    /// Parses the query of a request whose parameters are in its body.
    ///
    /// # Errors
    /// `INVALID_FIELD`.
    pub fn parse_strict_only(query: Option<&str>) -> Result<UnknownFields, Status> {
        let Self { unknown_fields, others } = Self::parse(query)?;
        match others.keys().next() {
            None => Ok(unknown_fields),
            Some(name) => {
                let problem = "is not a query parameter of this path; send it in the body";
                Err(into_status(InvalidFields::one(name, problem)))
            }
        }
    }
}

/// Parses a form or a query, in which each name is UTF-8 and given once.
///
/// # Errors
/// `INVALID_FIELD`.
pub fn parse_form(text: &[u8]) -> Result<Map<String, Value>, Status> {
    // The parser replaces other bytes.
    let is_text = percent_decode(text).decode_utf8().is_ok();
    let mut fields = Map::new();
    for (name, value) in form_urlencoded::parse(text) {
        let replaced = |part: &str| !is_text && part.contains(char::REPLACEMENT_CHARACTER);
        let problem = if replaced(&name) || replaced(&value) {
            "is not UTF-8"
        } else if fields.contains_key(&*name) {
            "is given more than once"
        } else {
            fields.insert(name.into_owned(), value.into_owned().into());
            continue;
        };
        return Err(into_status(InvalidFields::one(&name, problem)));
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;

    use super::*;

    #[test]
    fn strict_is_asked_for_in_the_query() {
        for (query, expected) in [
            (None, UnknownFields::Ignored),
            (Some(""), UnknownFields::Ignored),
            (Some("strict=false"), UnknownFields::Ignored),
            (Some("strict=true"), UnknownFields::Refused),
        ] {
            assert_eq!(Query::parse_strict_only(query).unwrap(), expected, "{query:?}");
        }
        for bad in ["strict", "strict=1", "strict=true&strict=true", "stric=true", "strict=true&handler=x", "%FF"] {
            assert_eq!(Query::parse_strict_only(Some(bad)).unwrap_err().code(), tonic::Code::InvalidArgument, "{bad}");
        }
    }

    #[test]
    fn everything_that_selects_tasks_is_a_filter_by_its_name() {
        let pool = DescriptorPool::decode(crate::proto::DESCRIPTORS).unwrap();
        let strict = |message: &MessageDescriptor| UnknownFields::Ignored.within(message) == UnknownFields::Refused;
        let strict = pool.all_messages().filter(strict).map(|message| message.full_name().to_owned());
        assert_eq!(strict.collect::<Vec<_>>(), ["lineshaft.v1.TaskFilter"]);
    }
}
