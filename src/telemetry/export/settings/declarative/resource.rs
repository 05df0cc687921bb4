//! What the file tells about this process.

use opentelemetry::{Array, KeyValue, StringValue, Value as Told};
use serde_json::Value;

use super::document::{Attribute, AttributeType, Resource, number, truth, whole};
use crate::telemetry::export::settings::variables;

/// Those of the list first, so that the others win.
pub(super) fn attributes(resource: Resource) -> Result<Vec<KeyValue>, String> {
    let listed = resource.attributes_list.as_deref().unwrap_or_default();
    let listed = variables::pairs(listed).ok_or_else(|| format!("resource.attributes_list: {}", variables::PAIRS))?;
    let mut found: Vec<_> = listed.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect();
    for (at, Attribute { name, value, kind }) in resource.attributes.unwrap_or_default().into_iter().enumerate() {
        let Some(value) = value else { continue };
        let kind = kind.unwrap_or_default();
        let told = told(&value, kind);
        let told = told.ok_or_else(|| format!("resource.attributes[{at}].value: expected {}", expected(kind)))?;
        found.push(KeyValue::new(name, told));
    }
    Ok(found)
}

const fn expected(kind: AttributeType) -> &'static str {
    match kind {
        AttributeType::String => "a text, or a type that fits the value",
        AttributeType::Bool => "true or false",
        AttributeType::Int => "a whole number",
        AttributeType::Double => "a number",
        AttributeType::StringArray => "a list of texts",
        AttributeType::BoolArray => "a list of true and false",
        AttributeType::IntArray => "a list of whole numbers",
        AttributeType::DoubleArray => "a list of numbers",
    }
}

fn told(value: &Value, kind: AttributeType) -> Option<Told> {
    Some(match kind {
        AttributeType::String => text(value)?.into(),
        AttributeType::Bool => truth(value)?.into(),
        AttributeType::Int => int(value)?.into(),
        AttributeType::Double => number(value)?.into(),
        AttributeType::StringArray => Told::Array(Array::String(all(value, text)?)),
        AttributeType::BoolArray => Told::Array(Array::Bool(all(value, truth)?)),
        AttributeType::IntArray => Told::Array(Array::I64(all(value, int)?)),
        AttributeType::DoubleArray => Told::Array(Array::F64(all(value, number)?)),
    })
}

fn all<T>(value: &Value, one: fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    value.as_array()?.iter().map(one).collect()
}

fn text(value: &Value) -> Option<StringValue> {
    value.as_str().map(|text| text.to_owned().into())
}

fn int(value: &Value) -> Option<i64> {
    whole(value)?.try_into().ok()
}
