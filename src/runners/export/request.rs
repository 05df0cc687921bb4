//! What a payload asks for.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value as Json;

use super::error::ExportError;
use super::format::Format;

/// Values of all filters.
const VALUES_MAX: usize = 1_000;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Request {
    pub format: Format,
    /// `None`: all.
    pub columns: Option<Vec<String>>,
    /// By column.
    filters: BTreeMap<String, Json>,
    /// Columns; a `-` before one is for descending.
    pub order: Vec<String>,
    /// Maximum number of rows.
    pub limit: Option<u64>,
}

/// A condition on a column.
#[derive(Debug, PartialEq)]
pub(super) enum Condition {
    IsNull,
    /// One of these. Not empty.
    In(Vec<Scalar>),
    /// The value compared by each operator. Not empty.
    Range(Vec<(&'static str, Operator, Scalar)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    From,
    To,
    Before,
}

/// A value that is bound to a parameter.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
}

impl Request {
    pub fn parse(payload: &[u8]) -> Result<Self, ExportError> {
        if payload.is_empty() {
            return Ok(Self::default());
        }
        // A list would be taken for the values of the fields.
        if payload.trim_ascii_start().first() != Some(&b'{') {
            let fields = "`format`, `columns`, `filters`, `order` and `limit`";
            return Err(ExportError::Request(format!("the payload must be an object with the fields {fields}")));
        }
        serde_json::from_slice(payload)
            .map_err(|error| ExportError::Request(format!("the payload is invalid: {error}")))
    }

    /// The filters with their paths in the payload.
    pub fn conditions(&self) -> Result<Vec<(&str, Condition)>, ExportError> {
        let mut values = 0;
        let mut conditions = Vec::new();
        for (column, filter) in &self.filters {
            let condition = Condition::parse(filter)
                .map_err(|problem| ExportError::Request(format!("`filters.{column}` {problem}")))?;
            values += condition.values();
            conditions.push((column.as_str(), condition));
        }
        if values > VALUES_MAX {
            return Err(ExportError::Request(format!(
                "`filters` has {values} values, at most {VALUES_MAX} are allowed"
            )));
        }
        Ok(conditions)
    }
}

impl Condition {
    fn parse(filter: &Json) -> Result<Self, String> {
        match filter {
            Json::Null => Ok(Self::IsNull),
            Json::Array(values) if values.is_empty() => Err("is an empty list; give it at least one value".to_owned()),
            Json::Array(values) => Ok(Self::In(values.iter().map(Scalar::parse).collect::<Result<_, _>>()?)),
            Json::Object(bounds) if bounds.is_empty() => Err("is empty; give it `from`, `to` or `before`".to_owned()),
            Json::Object(bounds) => {
                let bound = |(name, value): (&String, &Json)| {
                    let (name, operator) = match name.as_str() {
                        "from" => ("from", Operator::From),
                        "to" => ("to", Operator::To),
                        "before" => ("before", Operator::Before),
                        _ => return Err(format!("has `{name}`; the bounds are `from`, `to` and `before`")),
                    };
                    Ok((name, operator, Scalar::parse(value)?))
                };
                Ok(Self::Range(bounds.iter().map(bound).collect::<Result<_, _>>()?))
            }
            scalar => Ok(Self::In(vec![Scalar::parse(scalar)?])),
        }
    }

    fn values(&self) -> usize {
        match self {
            Self::IsNull => 0,
            Self::In(values) => values.len(),
            Self::Range(bounds) => bounds.len(),
        }
    }
}

impl Operator {
    pub fn sql(self) -> &'static str {
        match self {
            Self::From => ">=",
            Self::To => "<=",
            Self::Before => "<",
        }
    }
}

impl Scalar {
    fn parse(value: &Json) -> Result<Self, String> {
        match value {
            Json::Bool(value) => Ok(Self::Bool(*value)),
            Json::String(text) => Ok(Self::Text(text.clone())),
            Json::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(integer), _) => Ok(Self::Integer(integer)),
                (None, Some(float)) => Ok(Self::Float(float)),
                (None, None) => Err(format!("has the number {number}, which is too large; write it as a text")),
            },
            Json::Null => Err("has null in a list or bound; null is allowed alone".to_owned()),
            Json::Array(_) | Json::Object(_) => {
                Err("has a list or an object as a value; values are texts, numbers or booleans".to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_values_lists_null_or_bounds() {
        let payload = br#"{"filters": {"a": "x", "b": [1, 2.5, true], "c": null, "d": {"from": 1, "before": "2"}}}"#;
        let request = Request::parse(payload).unwrap();
        let text = |text: &str| Scalar::Text(text.to_owned());
        let expected = [
            ("a", Condition::In(vec![text("x")])),
            ("b", Condition::In(vec![Scalar::Integer(1), Scalar::Float(2.5), Scalar::Bool(true)])),
            ("c", Condition::IsNull),
            (
                "d",
                Condition::Range(vec![
                    ("before", Operator::Before, text("2")),
                    ("from", Operator::From, Scalar::Integer(1)),
                ]),
            ),
        ];
        assert_eq!(request.conditions().unwrap(), expected);
    }

    #[test]
    fn an_error_names_the_field_and_the_limit() {
        for (payload, expected) in [
            (r#"{"fromat": "csv"}"#.to_owned(), "unknown field `fromat`"),
            (r#"{"format": "xml"}"#.to_owned(), "unknown variant `xml`, expected one of `csv`"),
            ("[]".to_owned(), "must be an object with the fields `format`"),
            (r#"{"filters": {"a": []}}"#.to_owned(), "`filters.a` is an empty list"),
            (r#"{"filters": {"a": {"gt": 1}}}"#.to_owned(), "`filters.a` has `gt`; the bounds are"),
            (r#"{"filters": {"a": [[1]]}}"#.to_owned(), "`filters.a` has a list or an object as a value"),
            (r#"{"filters": {"a": {"from": null}}}"#.to_owned(), "`filters.a` has null"),
            (format!(r#"{{"filters": {{"a": {:?}}}}}"#, vec![0; 1_001]), "`filters` has 1001 values, at most 1000"),
        ] {
            let error = Request::parse(payload.as_bytes()).and_then(|request| request.conditions().map(drop));
            let error = error.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
