//! A request of a plain route: its parameters, and the client for its RPCs.

use std::ops::RangeInclusive;

use percent_encoding::percent_decode;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tonic::Status;
use tonic::codegen::http::HeaderMap;
use tonic::codegen::http::header::CONTENT_TYPE;

use crate::api::convert::InvalidFields;
use crate::api::headers;
use crate::api::status::into_status;
use crate::model::ErrorCode;

use super::super::json_decode;
use super::super::json_payload;
use super::super::loopback::LoopbackClient;
use super::super::response::{JSON, edge_error};

const FORM: &str = "application/x-www-form-urlencoded";

pub struct Call {
    pub client: LoopbackClient,
    pub params: Params,
    /// The `{id}` in the path; empty if the path has none.
    pub id: String,
}

/// Parameters that are not parsed yet.
#[derive(Debug)]
pub enum Params {
    /// From a form or a query.
    Strings(Map<String, Value>),
    /// A JSON object. Parsed from its text, so that errors have a line and a column.
    Json(Vec<u8>),
}

impl Params {
    /// # Errors
    /// `INVALID_FIELD`.
    pub fn from_query(query: &str) -> Result<Self, Status> {
        Self::from_form(query.as_bytes())
    }

    /// Other content types are rejected, because any web page can send them to any server.
    ///
    /// # Errors
    /// `UNSUPPORTED`, `INVALID_FIELD`.
    pub fn from_body(headers: &HeaderMap, body: &[u8]) -> Result<Self, Status> {
        match headers::media_type(headers).as_deref() {
            Some(FORM) => return Self::from_form(body),
            Some(JSON) if !body.trim_ascii().is_empty() => return Ok(Self::Json(body.to_vec())),
            Some(JSON) => return Ok(Self::Strings(Map::new())),
            None if body.is_empty() && !headers.contains_key(CONTENT_TYPE) => return Ok(Self::Strings(Map::new())),
            _ => {}
        }
        Err(edge_error(ErrorCode::Unsupported, format!("unsupported content-type; must be {JSON} or {FORM}")))
    }

    fn from_form(text: &[u8]) -> Result<Self, Status> {
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
        Ok(Self::Strings(fields))
    }

    /// The exact text of a parameter in JSON, which keeps all digits; `None` for a form or a query.
    pub fn exact(&self, name: &str) -> Option<Vec<u8>> {
        let Self::Json(text) = self else { return None };
        json_payload::member(text, name).map(<[u8]>::to_vec)
    }

    /// Parses the parameters of a route. `T` should deny unknown fields.
    ///
    /// # Errors
    /// `INVALID_FIELD`.
    pub fn parse<T: DeserializeOwned>(self) -> Result<T, Status> {
        let parsed = match self {
            Self::Strings(fields) => serde_json::from_value(fields.into()),
            Self::Json(text) => {
                json_decode::check_complexity(&text).map_err(into_status)?;
                serde_json::from_slice(&text)
            }
        };
        parsed.map_err(|error| edge_error(ErrorCode::InvalidField, format!("invalid parameters: {error}")))
    }

    /// Checks that there are no parameters.
    ///
    /// # Errors
    /// `INVALID_FIELD`.
    pub fn parse_none(self) -> Result<(), Status> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct None {}
        self.parse().map(|None {}| ())
    }
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

#[cfg(test)]
mod tests {
    use tonic::codegen::http::HeaderValue;

    use super::*;

    #[derive(serde::Deserialize, Debug, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Known {
        a: String,
        #[serde(default)]
        b: Value,
    }

    fn parse(content_type: Option<&'static str>, body: &str) -> Result<Known, String> {
        let mut headers = HeaderMap::new();
        headers.extend(content_type.map(|value| (CONTENT_TYPE, HeaderValue::from_static(value))));
        let params = Params::from_body(&headers, body.as_bytes()).map_err(|status| status.message().to_owned())?;
        params.parse().map_err(|status| status.message().to_owned())
    }

    #[test]
    fn a_form_and_json_have_the_same_parameters() {
        let expected = Known { a: "x y/ä".to_owned(), b: "1".into() };
        assert_eq!(parse(Some("application/x-www-form-urlencoded"), "a=x+y%2F%C3%A4&b=1"), Ok(expected));
        let expected = Known { a: "x".to_owned(), b: serde_json::json!([1]) };
        assert_eq!(parse(Some("application/json; charset=utf-8"), r#"{"a":"x","b":[1]}"#), Ok(expected));
    }

    #[test]
    fn a_form_is_utf_8_and_has_each_parameter_once() {
        let form = |text| parse(Some("application/x-www-form-urlencoded"), text);
        assert_eq!(form("a=%EF%BF%BD").unwrap().a, "\u{fffd}");
        for not_text in ["a=%FF", "a=x&b=%C3", "a=%C3&b=%A4"] {
            assert!(form(not_text).unwrap_err().contains("is not UTF-8"), "{not_text}");
        }
        for repeated in ["a=1&a=2", "a=1&b=2&%61=1"] {
            assert!(form(repeated).unwrap_err().contains("is given more than once"), "{repeated}");
        }
        assert!(parse(Some("application/json"), r#"{"a":"x","a":"y"}"#).unwrap_err().contains("duplicate field `a`"));
    }

    #[test]
    fn content_types_that_any_web_page_can_send_are_rejected() {
        for content_type in [None, Some("text/plain"), Some("multipart/form-data; boundary=x")] {
            assert!(parse(content_type, r#"{"a":"x"}"#).unwrap_err().contains("content-type"), "{content_type:?}");
        }
    }

    #[test]
    fn an_unknown_field_is_reported_with_line_and_column() {
        let error = parse(Some("application/json"), "{\"a\":\"x\",\n \"c\":1}").unwrap_err();
        assert!(error.contains("unknown field `c`") && error.contains("line 2 column 4"), "{error}");
        assert!(parse(Some("application/x-www-form-urlencoded"), "a=x&c=1").unwrap_err().contains("unknown field `c`"));
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
