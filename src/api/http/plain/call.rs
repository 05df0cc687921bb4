//! A request of a plain route: its parameters, and the client for its RPCs.

use std::ops::RangeInclusive;

use serde::de::{DeserializeOwned, Error, Visitor};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};
use serde_json::{Map, Value};
use tonic::Status;
use tonic::codegen::http::HeaderMap;
use tonic::codegen::http::header::CONTENT_TYPE;
use tonic_types::StatusExt;

use crate::api::convert::InvalidFields;
use crate::api::headers;
use crate::api::status::into_status;
use crate::model::ErrorCode;

use super::super::json_decode;
use super::super::json_payload;
use super::super::loopback::LoopbackClient;
use super::super::query::{self, Query, UnknownFields};
use super::super::response::{JSON, edge_error};

const FORM: &str = "application/x-www-form-urlencoded";

/// Fields of the contract, and the parameters of plain routes that set them.
const PARAMETERS: [(&str, &str); 6] = [
    ("task_id", "id"),
    ("handler", "type"),
    ("filter.handler", "type"),
    ("display_name", "label"),
    ("page_token", "page"),
    ("limit", "limit_seconds"),
];

pub struct Call {
    pub client: LoopbackClient,
    pub params: Params,
    /// The `{id}` in the path; empty if the path has none.
    pub id: String,
}

/// Parameters that are not parsed yet.
#[derive(Debug)]
pub struct Params {
    given: Given,
    unknown: UnknownFields,
}

#[derive(Debug)]
enum Given {
    /// From a form or a query.
    Strings(Map<String, Value>),
    /// A JSON object. Parsed from its text, so that errors have a line and a column.
    Json(Vec<u8>),
}

impl Params {
    /// # Errors
    /// `INVALID_FIELD`.
    pub fn from_query(query: Option<&str>) -> Result<Self, Status> {
        let Query { others, .. } = Query::parse(query)?;
        Ok(Self { given: Given::Strings(others), unknown: UnknownFields::Refused })
    }

    /// Other content types are rejected, because any web page can send them to any server.
    ///
    /// # Errors
    /// `UNSUPPORTED`, `INVALID_FIELD`.
    pub fn from_body(headers: &HeaderMap, body: &[u8], unknown: UnknownFields) -> Result<Self, Status> {
        let given = match headers::media_type(headers).as_deref() {
            Some(FORM) => Given::Strings(query::parse_form(body)?),
            Some(JSON) if !body.trim_ascii().is_empty() => Given::Json(body.to_vec()),
            Some(JSON) => Given::Strings(Map::new()),
            None if body.is_empty() && !headers.contains_key(CONTENT_TYPE) => Given::Strings(Map::new()),
            _ => {
                let message = format!("unsupported content-type; must be {JSON} or {FORM}");
                return Err(edge_error(ErrorCode::Unsupported, message));
            }
        };
        Ok(Self { given, unknown })
    }

    /// The exact text of a parameter in JSON, which keeps all digits; `None` for a form or a query.
    pub fn exact(&self, name: &str) -> Option<Vec<u8>> {
        let Given::Json(text) = &self.given else { return None };
        json_payload::member(text, name).map(<[u8]>::to_vec)
    }

    /// Parses the parameters of a route. `T` must accept unknown fields: the request decides about them.
    ///
    /// # Errors
    /// `INVALID_FIELD`.
    pub fn parse<T: DeserializeOwned>(self) -> Result<T, Status> {
        let known = field_names::<T>();
        match self.given {
            Given::Json(text) => json_decode::parse(&text, known, self.unknown).map_err(into_status),
            Given::Strings(fields) => {
                let is_unknown = |name: &&String| !known.contains(&name.as_str());
                if let Some(name) = fields.keys().find(is_unknown).filter(|_| self.unknown == UnknownFields::Refused) {
                    let known = known.join(", ");
                    let problem = if known.is_empty() {
                        "is unknown; none is expected".to_owned()
                    } else {
                        format!("is unknown; expected {known}")
                    };
                    return Err(into_status(InvalidFields::one(name, problem)));
                }
                serde_json::from_value(fields.into())
                    .map_err(|error| edge_error(ErrorCode::InvalidField, format!("invalid parameters: {error}")))
            }
        }
    }

    /// For a route without parameters.
    ///
    /// # Errors
    /// `INVALID_FIELD`.
    pub fn parse_none(self) -> Result<(), Status> {
        #[derive(serde::Deserialize)]
        struct None {}
        self.parse().map(|None {}| ())
    }
}

/// The names of the fields of a struct, as they are in JSON.
fn field_names<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    struct Names<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Names<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Self::Error> {
            Err(Self::Error::custom("not a struct"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _name: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            self.deserialize_any(visitor)
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut names: &[&str] = &[];
    let _ = T::deserialize(Names(&mut names));
    names
}

/// Parses an optional whole number. A form or query has it as a string.
///
/// # Errors
/// `INVALID_FIELD`.
pub fn number(field: &str, value: Option<&Value>, range: RangeInclusive<u64>) -> Result<Option<u64>, Status> {
    let Some(value) = value.filter(|value| !value.is_null() && **value != "") else { return Ok(None) };
    let number = value.as_str().map_or_else(|| value.as_u64(), |text| text.parse().ok());
    if let Some(number) = number.filter(|number| range.contains(number)) {
        return Ok(Some(number));
    }
    let (min, max) = (range.start(), range.end());
    Err(into_status(InvalidFields::one(field, format!("is {value}, must be a whole number from {min} to {max}"))))
}

/// Names the parameters of the plain route in an error that lists fields of the contract.
pub fn with_parameters(status: Status) -> Status {
    let mut details = status.get_error_details();
    let Some(mut invalid) = details.bad_request().cloned() else { return status };
    let mut message = status.message().to_owned();
    for violation in &mut invalid.field_violations {
        if let Some((field, parameter)) = PARAMETERS.iter().find(|(field, _)| *field == violation.field) {
            message = message.replacen(&format!("`{field}`"), &format!("`{parameter}`"), 1);
            (*parameter).clone_into(&mut violation.field);
        }
    }
    details.set_bad_request(invalid.field_violations);
    Status::with_error_details(status.code(), message, details)
}

#[cfg(test)]
mod tests {
    use tonic::codegen::http::HeaderValue;
    use tonic_types::StatusExt;

    use super::*;

    #[derive(Deserialize, Debug, PartialEq)]
    struct Known {
        a: String,
        #[serde(default)]
        b: Value,
    }

    const FORM_TYPE: Option<&str> = Some("application/x-www-form-urlencoded");
    const JSON_TYPE: Option<&str> = Some("application/json; charset=utf-8");

    fn parse_with(unknown: UnknownFields, content_type: Option<&'static str>, body: &str) -> Result<Known, Status> {
        let mut headers = HeaderMap::new();
        headers.extend(content_type.map(|value| (CONTENT_TYPE, HeaderValue::from_static(value))));
        Params::from_body(&headers, body.as_bytes(), unknown)?.parse()
    }

    fn parse(content_type: Option<&'static str>, body: &str) -> Result<Known, String> {
        parse_with(UnknownFields::Ignored, content_type, body).map_err(|status| status.message().to_owned())
    }

    #[test]
    fn a_form_and_json_have_the_same_parameters() {
        let expected = Known { a: "x y/ä".to_owned(), b: "1".into() };
        assert_eq!(parse(FORM_TYPE, "a=x+y%2F%C3%A4&b=1"), Ok(expected));
        let expected = Known { a: "x".to_owned(), b: serde_json::json!([1]) };
        assert_eq!(parse(JSON_TYPE, r#"{"a":"x","b":[1]}"#), Ok(expected));
    }

    #[test]
    fn a_form_is_utf_8_and_has_each_parameter_once() {
        let form = |text| parse(FORM_TYPE, text);
        assert_eq!(form("a=%EF%BF%BD").unwrap().a, "\u{fffd}");
        for not_text in ["a=%FF", "a=x&b=%C3", "a=%C3&b=%A4"] {
            assert!(form(not_text).unwrap_err().contains("is not UTF-8"), "{not_text}");
        }
        for repeated in ["a=1&a=2", "a=1&b=2&%61=1"] {
            assert!(form(repeated).unwrap_err().contains("is given more than once"), "{repeated}");
        }
        assert!(parse(JSON_TYPE, r#"{"a":"x","a":"y"}"#).unwrap_err().contains("duplicate field `a`"));
    }

    #[test]
    fn content_types_that_any_web_page_can_send_are_rejected() {
        for content_type in [None, Some("text/plain"), Some("multipart/form-data; boundary=x")] {
            assert!(parse(content_type, r#"{"a":"x"}"#).unwrap_err().contains("content-type"), "{content_type:?}");
        }
    }

    #[test]
    fn an_unknown_field_is_ignored_unless_the_request_is_strict() {
        for (content_type, body) in [(FORM_TYPE, "a=x&c=1"), (JSON_TYPE, "{\"a\":\"x\",\n \"c\":[{}]}")] {
            assert_eq!(parse(content_type, body).unwrap().a, "x");
            let error = parse_with(UnknownFields::Refused, content_type, body).unwrap_err();
            assert_eq!(error.get_details_bad_request().unwrap().field_violations[0].field, "c", "{error}");
        }
        let json = parse_with(UnknownFields::Refused, JSON_TYPE, "{\"a\":\"x\",\n \"c\":1}").unwrap_err();
        assert!(json.message().contains("unrecognized field name 'c' at line 2 column 2"), "{json}");
        let query = Params::from_query(Some("a=x&c=1")).unwrap().parse::<Known>().unwrap_err();
        assert!(query.message().contains("`c` is unknown; expected a, b"), "{query}");
    }

    #[test]
    fn an_error_in_json_names_its_field() {
        for (body, field) in [(r#"{"a":1}"#, "a"), (r#"{"a":"x","a":"y"}"#, "a")] {
            let error = parse_with(UnknownFields::Ignored, JSON_TYPE, body).unwrap_err();
            assert_eq!(error.get_details_bad_request().unwrap().field_violations[0].field, field, "{error}");
        }
        assert!(parse(JSON_TYPE, r#"["x"]"#).unwrap_err().contains("must be an object"));
    }

    #[test]
    fn a_number_can_be_a_string_and_has_a_range() {
        let parse = |value: Value| number("n", Some(&value), 0..=3).map_err(|status| status.message().to_owned());
        assert_eq!(parse(0.into()), Ok(Some(0)));
        assert_eq!(parse("3".into()), Ok(Some(3)));
        assert_eq!(parse("".into()), Ok(None));
        for bad in [4.into(), "-1".into(), "x".into(), 1.5.into(), Value::Bool(true)] {
            let error = parse(bad).unwrap_err();
            assert!(error.contains("from 0 to 3"), "{error}");
        }
    }
}
