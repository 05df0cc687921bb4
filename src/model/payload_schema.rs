//! JSON schemas of payloads.

use std::fmt;
use std::sync::Arc;

use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::Value;

/// Largest schema.
pub const SCHEMA_BYTES_MAX: usize = 1 << 20;
/// Mismatches of a payload that are listed.
const LISTED_MAX: usize = 5;
/// Largest payload whose mismatches are located: the library collects all of them before it returns the first.
const LOCATED_BYTES_MAX: usize = 64 << 10;
/// The same for a schema with references. If it applies itself more than once to a part of a payload, which `anyOf` does, the time
/// grows exponentially with the nesting.
const LOCATED_BY_REFERENCE_BYTES_MAX: usize = 8 << 10;
const LOCATED_BY_REFERENCE_NESTING_MAX: usize = 8;
/// Bytes of a description; a keyword such as `enum` can be long.
const DESCRIPTION_BYTES_MAX: usize = 300;
/// Memory of a compiled regular expression.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// A compiled JSON schema. It refers to no other documents, and its regular expressions take linear time.
#[derive(Clone)]
pub struct PayloadSchema {
    text: Arc<str>,
    has_references: bool,
    validator: Arc<Validator>,
}

impl PayloadSchema {
    /// # Errors
    /// Why the text is no schema, as the end of a sentence about it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > SCHEMA_BYTES_MAX {
            return Err(format!("has {} bytes, at most {SCHEMA_BYTES_MAX} are allowed", text.len()));
        }
        let schema: Value = serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))?;
        let patterns = PatternOptions::regex().size_limit(REGEX_BYTES_MAX).dfa_size_limit(REGEX_BYTES_MAX);
        let validator = jsonschema::options().offline().with_pattern_options(patterns).build(&schema);
        let validator = validator.map_err(|error| format!("is not a JSON schema: {}", described(&error)))?;
        Ok(Self { text: text.into(), has_references: has_references(&schema), validator: Arc::new(validator) })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// # Errors
    /// Where the payload differs from the schema, and how, each as the end of a sentence about the payload. Values of the
    /// payload are not shown.
    pub fn check(&self, payload: &[u8]) -> Result<(), Vec<String>> {
        let value: Value = serde_json::from_slice(payload).map_err(|error| vec![format!("is not JSON: {error}")])?;
        // Remembers what it has found about each part, so that the time is bounded.
        if self.validator.is_valid(&value) {
            return Ok(());
        }
        if !self.locates(payload.len(), &value) {
            return Err(vec![
                "does not match the schema of the handler; it is too large or nested to name the place".to_owned(),
            ]);
        }
        Err(self.validator.iter_errors(&value).take(LISTED_MAX).map(|error| described(&error)).collect())
    }

    fn locates(&self, bytes: usize, payload: &Value) -> bool {
        if self.has_references {
            bytes <= LOCATED_BY_REFERENCE_BYTES_MAX && nesting(payload) <= LOCATED_BY_REFERENCE_NESTING_MAX
        } else {
            bytes <= LOCATED_BYTES_MAX
        }
    }
}

fn has_references(schema: &Value) -> bool {
    match schema {
        Value::Object(object) => {
            ["$ref", "$dynamicRef", "$recursiveRef"].iter().any(|keyword| object.contains_key(*keyword))
                || object.values().any(has_references)
        }
        Value::Array(values) => values.iter().any(has_references),
        _ => false,
    }
}

/// Arrays and objects around the innermost value.
fn nesting(value: &Value) -> usize {
    match value {
        Value::Object(object) => 1 + object.values().map(nesting).max().unwrap_or(0),
        Value::Array(values) => 1 + values.iter().map(nesting).max().unwrap_or(0),
        _ => 0,
    }
}

/// The JSON pointer and the problem.
fn described(error: &ValidationError<'_>) -> String {
    let pointer = error.instance_path().as_str();
    let place = if pointer.is_empty() { String::new() } else { format!("at `{pointer}`: ") };
    let mut text = format!("{place}{}", error.masked());
    if text.len() > DESCRIPTION_BYTES_MAX {
        text.truncate(text.floor_char_boundary(DESCRIPTION_BYTES_MAX));
        text.push('…');
    }
    text
}

impl fmt::Debug for PayloadSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PayloadSchema").field(&self.text).finish()
    }
}

impl PartialEq for PayloadSchema {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for PayloadSchema {}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const SIZES: &str = r#"{
        "type": "object",
        "required": ["sizes"],
        "properties": {
            "sizes": { "type": "array", "items": { "type": "integer", "maximum": 9 }, "uniqueItems": true },
            "name": { "type": "string", "pattern": "^(a+)+$" }
        }
    }"#;

    fn problems(schema: &str, payload: &str) -> Vec<String> {
        PayloadSchema::parse(schema).unwrap().check(payload.as_bytes()).err().unwrap_or_default()
    }

    #[test]
    fn a_mismatch_is_described_by_its_json_pointer_and_without_the_value() {
        assert!(problems(SIZES, r#"{"sizes": [1, 2]}"#).is_empty());
        let found = problems(SIZES, r#"{"sizes": [1, "secret", 10]}"#);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("at `/sizes/1`: ") && found[0].contains("\"integer\""), "{found:?}");
        assert!(found[1].starts_with("at `/sizes/2`: "), "{found:?}");
        assert!(!found.concat().contains("secret"), "{found:?}");
        let found = problems(SIZES, "[]");
        assert!(found.len() == 1 && !found[0].starts_with("at"), "{found:?}");
        assert!(problems(SIZES, "").concat().contains("is not JSON"));
        assert!(problems(SIZES, "{").concat().contains("line 1"));
        let many = format!("{{\"sizes\": [{}]}}", vec!["10"; 100_000].join(","));
        assert!(problems(SIZES, &many).concat().contains("too large or nested"));
        let all: Vec<_> = (0..100).map(|n| (n + 10).to_string()).collect();
        assert_eq!(problems(SIZES, &format!("{{\"sizes\": [{}]}}", all.join(","))).len(), LISTED_MAX);
    }

    #[test]
    fn what_is_no_schema_is_refused_with_the_reason() {
        let refused = |text: &str| PayloadSchema::parse(text).unwrap_err();
        assert!(refused("{").contains("is not JSON") && refused("7").contains("is not a JSON schema"));
        let unknown_type = refused(r#"{"properties": {"a": {"type": "int"}}}"#);
        assert!(unknown_type.contains("at `/properties/a/type`"), "{unknown_type}");
        assert!(refused(r#"{"pattern": "(?=a)"}"#).contains("is not a JSON schema"), "needs backtracking");
        assert!(refused(r#"{"pattern": "(a{999}){999}"}"#).contains("is not a JSON schema"), "is too large");
        for reference in ["http://127.0.0.1:9/x.json", "file:///etc/passwd", "other.json", "#/$defs/missing"] {
            assert!(refused(&format!(r#"{{"$ref": "{reference}"}}"#)).contains("is not a JSON schema"), "{reference}");
        }
        assert!(refused(&"x".repeat(SCHEMA_BYTES_MAX + 1)).contains("at most 1048576"));
    }

    #[test]
    fn a_schema_that_applies_itself_twice_to_each_part_takes_no_exponential_time() {
        assert!(problems(r##"{"allOf": [{"$ref": "#"}]}"##, "7").is_empty());
        for keyword in ["allOf", "anyOf", "oneOf"] {
            let twice = format!(
                r##"{{"type": "object", "properties": {{"a": {{"{keyword}": [{{"$ref": "#"}}, {{"$ref": "#"}}]}}}}}}"##
            );
            let nested = |depth: usize, inner: &str| format!("{}{inner}{}", "{\"a\":".repeat(depth), "}".repeat(depth));
            let found = problems(&twice, &nested(100, "7"));
            assert!(found.len() == 1 && found[0].contains("too large or nested"), "{found:?}");
            assert!(problems(&twice, &nested(3, "7"))[0].starts_with("at `/a"), "{keyword}");
            assert_eq!(problems(&twice, &nested(100, "{}")).is_empty(), keyword != "oneOf");
        }
    }

    #[test]
    fn a_payload_of_the_largest_size_is_checked_in_linear_time() {
        let began = Instant::now();
        let name = "a".repeat(1 << 20);
        assert_eq!(problems(SIZES, &format!(r#"{{"sizes": [], "name": "{name}!"}}"#)).len(), 1);
        let sizes: Vec<_> = (0..150_000).map(|n| (-n).to_string()).collect();
        assert!(problems(SIZES, &format!(r#"{{"sizes": [{}]}}"#, sizes.join(","))).is_empty());
        // Quadratic time would be minutes, also on a slow machine.
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    }
}
