//! What a plain request says: the fields of a form, a JSON object, or a query.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tonic::Status;
use tonic::codegen::http::HeaderMap;
use tonic::codegen::http::header::{CONTENT_TYPE, HeaderValue};

use crate::model::ErrorCode;

use super::super::descriptors;
use super::super::response::{JSON, edge};
use crate::api::convert::InvalidFields;
use crate::api::status;

const FORM: &str = "application/x-www-form-urlencoded";

/// Fields, not yet looked at.
#[derive(Debug)]
pub enum Fields {
    /// Texts by name.
    Texts(Map<String, Value>),
    /// A JSON object, still as it was sent, so that what is wrong can be shown in its place.
    Json(Vec<u8>),
}

impl Fields {
    /// Those behind the `?`.
    pub fn of_query(query: &str) -> Self {
        Self::of_form(query.as_bytes())
    }

    /// Those of a body. A body of another type is refused: any web page may send texts anywhere.
    ///
    /// # Errors
    /// `UNSUPPORTED`.
    pub fn of_body(headers: &HeaderMap, body: &[u8]) -> Result<Self, Status> {
        let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        let essence = content_type.map(|said| said.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii());
        match essence {
            None if body.is_empty() => Ok(Self::Texts(Map::new())),
            Some(said) if said.eq_ignore_ascii_case(FORM.as_bytes()) => Ok(Self::of_form(body)),
            Some(said) if said.eq_ignore_ascii_case(JSON.as_bytes()) && body.trim_ascii().is_empty() => {
                Ok(Self::Texts(Map::new()))
            }
            Some(said) if said.eq_ignore_ascii_case(JSON.as_bytes()) => Ok(Self::Json(body.to_vec())),
            _ => Err(edge(ErrorCode::Unsupported, format!("the body must have content-type {JSON} or {FORM}"))),
        }
    }

    fn of_form(text: &[u8]) -> Self {
        let pairs = form_urlencoded::parse(text);
        Self::Texts(pairs.map(|(name, value)| (name.into_owned(), value.into_owned().into())).collect())
    }

    /// The fields that a route knows; all others are refused.
    ///
    /// # Errors
    /// `INVALID_FIELD` with the name, and the place in JSON.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, Status> {
        let read = match self {
            Self::Texts(fields) => serde_json::from_value(fields.into()),
            Self::Json(text) => {
                descriptors::check(&text).map_err(|bad| status::of(&bad))?;
                serde_json::from_slice(&text)
            }
        };
        read.map_err(|error| edge(ErrorCode::InvalidField, format!("the fields cannot be read: {error}")))
    }

    /// A route that knows no fields.
    ///
    /// # Errors
    /// Some were given.
    pub fn none(self) -> Result<(), Status> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Nothing {}
        self.read().map(|Nothing {}| ())
    }
}

/// A number that a form can only say as a text.
///
/// # Errors
/// `INVALID_FIELD`, when it is none or out of range.
pub fn number(field: &str, said: Option<&Value>, range: std::ops::RangeInclusive<u64>) -> Result<Option<u64>, Status> {
    let read = match said {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(Value::String(text)) => text.parse().ok(),
        Some(said) => said.as_u64(),
    };
    let in_range = read.filter(|number| range.contains(number));
    if in_range.is_some() {
        return Ok(in_range);
    }
    let said = said.map(Value::to_string).unwrap_or_default();
    let wanted = format!("is {said}, it must be a whole number from {} to {}", range.start(), range.end());
    Err(status::of(&InvalidFields::one(field, wanted)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, Debug, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Known {
        a: String,
        #[serde(default)]
        b: Value,
    }

    fn of(content_type: Option<&'static str>, body: &str) -> Result<Known, String> {
        let mut headers = HeaderMap::new();
        headers.extend(content_type.map(|said| (CONTENT_TYPE, HeaderValue::from_static(said))));
        let fields = Fields::of_body(&headers, body.as_bytes()).map_err(|refused| refused.message().to_owned())?;
        fields.read().map_err(|refused| refused.message().to_owned())
    }

    #[test]
    fn a_form_and_an_object_say_the_same() {
        let expected = Known { a: "x y/ä".to_owned(), b: "1".into() };
        assert_eq!(of(Some("application/x-www-form-urlencoded"), "a=x+y%2F%C3%A4&b=1"), Ok(expected));
        let expected = Known { a: "x".to_owned(), b: serde_json::json!([1]) };
        assert_eq!(of(Some("application/json; charset=utf-8"), r#"{"a":"x","b":[1]}"#), Ok(expected));
    }

    #[test]
    fn what_a_web_page_may_send_anywhere_is_not_taken() {
        for content_type in [None, Some("text/plain"), Some("multipart/form-data; boundary=x")] {
            assert!(of(content_type, r#"{"a":"x"}"#).unwrap_err().contains("content-type"), "{content_type:?}");
        }
    }

    #[test]
    fn an_unknown_field_is_named_with_its_place() {
        let error = of(Some("application/json"), "{\"a\":\"x\",\n \"c\":1}").unwrap_err();
        assert!(error.contains("unknown field `c`") && error.contains("line 2 column 4"), "{error}");
        assert!(of(Some("application/x-www-form-urlencoded"), "a=x&c=1").unwrap_err().contains("unknown field `c`"));
    }

    #[test]
    fn a_number_may_be_a_text_and_has_its_range() {
        let of = |said: Value| number("n", Some(&said), 0..=3).map_err(|refused| refused.message().to_owned());
        assert_eq!(of(0.into()), Ok(Some(0)));
        assert_eq!(of("3".into()), Ok(Some(3)));
        assert_eq!(of("".into()), Ok(None));
        for bad in [4.into(), "-1".into(), "x".into(), 1.5.into(), Value::Bool(true)] {
            let error = of(bad).unwrap_err();
            assert!(error.contains("from 0 to 3"), "{error}");
        }
    }
}
