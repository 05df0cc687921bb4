//! Handlers, and their uploads.

use crate::model::spec::is_content_type;
use crate::model::{
    ArgPattern, Catalog, HandlerName, HandlerSource, HandlerSpec, PayloadSchema, PoolName, UploadSettings, limits,
};
use crate::proto::v1;
use crate::scheduler::NewUpload;

use super::invalid_fields::InvalidFields;
use super::numbers::to_i64;
use super::submit_fields::check_args;
use super::task;
use super::time::duration;

pub fn handler(catalog: &Catalog, spec: &HandlerSpec) -> v1::Handler {
    let pool_timeout = catalog.pools.get(&spec.pool).map(|pool| pool.timeout);
    let timeout = spec.timeout.or(pool_timeout).unwrap_or(limits::TIMEOUT_DEFAULT);
    v1::Handler {
        name: spec.name.to_string(),
        runner: spec.runner.to_owned(),
        description: spec.description.clone(),
        payload_description: spec.payload_description.clone(),
        pool: spec.pool.to_string(),
        allowed_pools: spec.allowed_pools.iter().map(ToString::to_string).collect(),
        timeout: Some(duration(timeout)),
        retry: Some(task::retry(&spec.retry)),
        arg_pattern: spec.arg_pattern.as_ref().map_or_else(String::new, |pattern| pattern.as_str().to_owned()),
        grace: Some(duration(spec.grace)),
        source: spec.source.name().to_owned(),
        payload_schema: spec.payload_schema.as_ref().map_or_else(String::new, |schema| schema.as_str().to_owned()),
        module_sha256: match spec.source {
            HandlerSource::Upload(module) => module.to_string(),
            _ => String::new(),
        },
    }
}

/// Returns the bytes of the module, too.
///
/// # Errors
/// [`InvalidFields`], with every invalid field.
pub fn upload(handler: v1::WasmHandler) -> Result<(NewUpload, usize), InvalidFields> {
    let mut invalid = InvalidFields::default();
    let name = invalid.parsed("handler.name", HandlerName::parse(&handler.name));
    let module_bytes =
        bytes(&mut invalid, "handler.module_bytes", handler.module_bytes, 1..=to_i64(limits::MODULE_BYTES_MAX));
    invalid.check_length("handler.description", handler.description.len(), limits::DESCRIPTION_BYTES_MAX, "bytes");
    let named = (!handler.pool.is_empty()).then(|| PoolName::parse(&handler.pool));
    let pool = named.and_then(|pool| invalid.parsed("handler.pool", pool));
    let bounds = limits::TIMEOUT_MIN..=limits::TIMEOUT_MAX;
    let timeout = invalid.duration("handler.timeout", handler.timeout.as_ref(), bounds);
    check_args(&mut invalid, "handler.argv", &handler.argv);
    let arg_pattern = arg_pattern(&mut invalid, &handler.arg_pattern);
    let content_type = (!handler.content_type.is_empty()).then(|| handler.content_type.into());
    if content_type.as_deref().is_some_and(|text| !is_content_type(text)) {
        invalid
            .add("handler.content_type", "must be 1 to 128 printable ASCII characters, such as \"application/json\"");
    }
    let payload_schema = payload_schema(&mut invalid, &handler.payload_schema);
    let memory = to_i64(limits::GUEST_MEMORY_MIN)..=to_i64(limits::GUEST_MEMORY_MAX);
    let memory_bytes = match handler.memory_bytes {
        0 => None,
        given => bytes(&mut invalid, "handler.memory_bytes", given, memory),
    };
    let (Some(name), Some(module_bytes)) = (name, module_bytes) else { return Err(invalid) };
    invalid.check()?;
    let settings = UploadSettings {
        description: handler.description.into(),
        timeout,
        argv: handler.argv.into_iter().map(Into::into).collect(),
        arg_pattern,
        content_type,
        memory_bytes: memory_bytes.and_then(|bytes| u64::try_from(bytes).ok()),
        clock: handler.clock,
        payload_schema,
    };
    Ok((NewUpload { name, pool, settings }, usize::try_from(module_bytes).unwrap_or(0)))
}

fn bytes(invalid: &mut InvalidFields, field: &str, given: i64, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
    if range.contains(&given) {
        return Some(given);
    }
    invalid.add(field, format_args!("is {given}, must be from {} to {} bytes", range.start(), range.end()));
    None
}

fn arg_pattern(invalid: &mut InvalidFields, given: &str) -> Option<ArgPattern> {
    if given.is_empty() {
        return None;
    }
    invalid.check_length("handler.arg_pattern", given.len(), limits::ARG_BYTES_MAX, "bytes");
    let parsed = ArgPattern::parse(given);
    parsed
        .map_err(|error| invalid.add("handler.arg_pattern", format_args!("is {given:?}, which is invalid: {error}")))
        .ok()
}

fn payload_schema(invalid: &mut InvalidFields, given: &str) -> Option<PayloadSchema> {
    let field = "handler.payload_schema";
    invalid.check_length(field, given.len(), limits::UPLOADED_SCHEMA_BYTES_MAX, "bytes");
    if given.is_empty() || given.len() > limits::UPLOADED_SCHEMA_BYTES_MAX {
        return None;
    }
    PayloadSchema::parse(given).map_err(|error| invalid.add(field, error)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid() -> v1::WasmHandler {
        v1::WasmHandler { name: "count".into(), module_bytes: 8, ..v1::WasmHandler::default() }
    }

    #[test]
    fn what_is_not_set_has_its_default() {
        let (NewUpload { name, pool, settings }, bytes) = upload(valid()).unwrap();
        assert_eq!((name.as_str(), pool, settings, bytes), ("count", None, UploadSettings::default(), 8));
    }

    #[test]
    fn every_invalid_field_of_an_upload_is_named() {
        let handler = v1::WasmHandler {
            name: "a b".into(),
            module_bytes: 100_000_000,
            description: "d".repeat(limits::DESCRIPTION_BYTES_MAX + 1),
            pool: "p/q".into(),
            timeout: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
            argv: vec!["ok".into(), "a\0b".into()],
            arg_pattern: "(".into(),
            content_type: "a\nb".into(),
            memory_bytes: 5 << 30,
            clock: true,
            payload_schema: "{\"type\": 7}".into(),
        };
        let invalid = upload(handler).unwrap_err();
        let fields =
            ["name", "module_bytes", "description", "pool", "timeout", "argv[1]", "arg_pattern", "content_type"];
        let expected: Vec<_> =
            fields.iter().chain(&["payload_schema", "memory_bytes"]).map(|field| format!("handler.{field}")).collect();
        assert_eq!(invalid.paths(), expected);
        let large = upload(v1::WasmHandler { module_bytes: 100_000_000, ..valid() }).unwrap_err();
        assert_eq!(large.to_string(), "`handler.module_bytes` is 100000000, must be from 1 to 67108864 bytes");
    }
}
