//! References to variables in the values of a file: "Environment variable substitution" of the specification.

use serde_json::Value;

use crate::telemetry::export::Variables;

/// Replaces the references in every value, not in keys. A value of which nothing is left is null.
///
/// # Errors
/// A reference that is none, by what stands in the file.
pub(super) fn substitute(value: &mut Value, variables: &Variables) -> Result<(), String> {
    match value {
        Value::String(text) if text.contains('$') => {
            let found = substituted(text, variables)?;
            *value = if found.is_empty() { Value::Null } else { Value::String(found) };
            Ok(())
        }
        Value::Array(values) => values.iter_mut().try_for_each(|value| substitute(value, variables)),
        Value::Object(fields) => fields.values_mut().try_for_each(|value| substitute(value, variables)),
        _ => Ok(()),
    }
}

/// What stands between two escapes is for itself: no reference reaches over one.
fn substituted(text: &str, variables: &Variables) -> Result<String, String> {
    let pieces: Result<Vec<_>, _> = text.split("$$").map(|piece| piece_of(piece, variables)).collect();
    Ok(pieces?.join("$"))
}

/// From left to right; what a variable holds is not looked at again.
fn piece_of(text: &str, variables: &Variables) -> Result<String, String> {
    let mut found = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((reference, tail)) = after.split_once('}') else { break };
        found.push_str(before);
        found.push_str(&resolved(reference, variables)?);
        rest = tail;
    }
    found.push_str(rest);
    Ok(found)
}

/// `NAME`, `env:NAME`, and both with `:-default`.
fn resolved(reference: &str, variables: &Variables) -> Result<String, String> {
    let (name, default) = reference.split_once(":-").unwrap_or((reference, ""));
    let name = name.strip_prefix("env:").unwrap_or(name);
    let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_name {
        return Err(format!("${{{reference}}} is no reference; write ${{NAME}}, ${{env:NAME}} or ${{NAME:-default}}"));
    }
    let value = variables.get(name).filter(|value| !value.is_empty());
    Ok(value.map_or(default, String::as_str).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(text: &str) -> Result<Value, String> {
        let variables = [
            ("STRING_VALUE", "value"),
            ("BOOL_VALUE", "true"),
            ("INT_VALUE", "1"),
            ("FLOAT_VALUE", "1.1"),
            ("HEX_VALUE", "0xdeadbeef"),
            ("INVALID_MAP_VALUE", "value\nkey:value"),
            ("DO_NOT_REPLACE_ME", "Never use this value"),
            ("REPLACE_ME", "${DO_NOT_REPLACE_ME}"),
            ("VALUE_WITH_ESCAPE", "value$$"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let mut value = Value::from(text);
        substitute(&mut value, &variables).map(|()| value)
    }

    #[test]
    fn references_become_what_the_table_of_the_specification_says() {
        for (input, output) in [
            ("${STRING_VALUE}", "value"),
            ("${BOOL_VALUE}", "true"),
            ("${INT_VALUE}", "1"),
            ("${FLOAT_VALUE}", "1.1"),
            ("${HEX_VALUE}", "0xdeadbeef"),
            ("${env:STRING_VALUE}", "value"),
            ("${INVALID_MAP_VALUE}", "value\nkey:value"),
            ("foo ${STRING_VALUE} ${FLOAT_VALUE}", "foo value 1.1"),
            ("${UNDEFINED_KEY:-fallback}", "fallback"),
            ("${REPLACE_ME}", "${DO_NOT_REPLACE_ME}"),
            ("${UNDEFINED_KEY:-${STRING_VALUE}}", "${STRING_VALUE}"),
            ("$${STRING_VALUE}", "${STRING_VALUE}"),
            ("$$${STRING_VALUE}", "$value"),
            ("$$$${STRING_VALUE}", "$${STRING_VALUE}"),
            ("$${STRING_VALUE:-fallback}", "${STRING_VALUE:-fallback}"),
            ("$${STRING_VALUE:-${STRING_VALUE}}", "${STRING_VALUE:-value}"),
            ("${UNDEFINED_KEY:-$${UNDEFINED_KEY}}", "${UNDEFINED_KEY:-${UNDEFINED_KEY}}"),
            ("$${STRING_VALUE} ${STRING_VALUE} $${FLOAT_VALUE}", "${STRING_VALUE} value ${FLOAT_VALUE}"),
            ("${VALUE_WITH_ESCAPE}", "value$$"),
            ("a $$ b", "a $ b"),
            ("a $ b", "a $ b"),
            ("not closed ${STRING_VALUE", "not closed ${STRING_VALUE"),
        ] {
            assert_eq!(after(input), Ok(Value::from(output)), "{input}");
        }
        assert_eq!(after("${UNDEFINED_KEY}"), Ok(Value::Null));
        for wrong in ["${STRING_VALUE:?error}", "${1API_KEY}", "${API_$KEY}", "${sys:KEY}", "${}"] {
            assert!(after(wrong).is_err_and(|error| error.contains(wrong)), "{wrong}");
        }
    }

    #[test]
    fn values_are_replaced_wherever_they_stand_and_keys_are_not() {
        let mut tree = serde_json::json!({"${A}": [{"b": "${A}"}, 7, true, null]});
        substitute(&mut tree, &[("A".to_owned(), "x".to_owned())].into()).unwrap();
        assert_eq!(tree, serde_json::json!({"${A}": [{"b": "x"}, 7, true, null]}));
    }
}
