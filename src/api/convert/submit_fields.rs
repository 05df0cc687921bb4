//! Parses the fields of a submission one by one. `submit` combines them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::model::limits::PayloadLimit;
use crate::model::spec::{JSON, OCTET_STREAM};
use crate::model::{
    Durability, FairnessKey, Namespace, OnUniqueConflict, PayloadSchema, Priority, RetryPolicy, TaskId, UniqueKey, id,
    limits,
};
use crate::proto::v1::{self, payload::Kind};

use super::invalid_fields::{FieldPath, InvalidFields, MessagePath};
use super::json;

/// Default content types, allocated once because a submission should need few allocations.
struct Defaults {
    json: Arc<str>,
    octet_stream: Arc<str>,
}

static DEFAULTS: LazyLock<Defaults> =
    LazyLock::new(|| Defaults { json: JSON.into(), octet_stream: OCTET_STREAM.into() });

const RETRY_FACTORS: RangeInclusive<f64> = 1.0..=10.0;

/// Settings of the submission that override those of the handler or the pool.
pub(super) struct Overrides {
    pub(super) priority: Priority,
    pub(super) durability: Option<Durability>,
    pub(super) timeout: Option<Duration>,
    attempts_max: Option<u32>,
    delay: Option<Duration>,
    factor: Option<f64>,
    delay_max: Option<Duration>,
    jitter: Option<f64>,
}

impl Overrides {
    pub(super) fn parse(invalid: &mut InvalidFields, path: MessagePath, request: &v1::SubmitTaskRequest) -> Self {
        let retry = request.retry.unwrap_or_default();
        let attempts_max = u32::try_from(retry.max_attempts).ok().filter(|n| *n <= limits::ATTEMPTS_MAX);
        if attempts_max.is_none() {
            let description = format_args!("is {}, must be from 1 to {}", retry.max_attempts, limits::ATTEMPTS_MAX);
            invalid.add(path.field("retry.max_attempts"), description);
        }
        if !(retry.factor == 0.0 || RETRY_FACTORS.contains(&retry.factor)) {
            invalid.add(path.field("retry.factor"), format_args!("is {}, must be from 1 to 10", retry.factor));
        }
        if let Some(jitter) = retry.jitter.filter(|jitter| !(0.0..=1.0).contains(jitter)) {
            invalid.add(path.field("retry.jitter"), format_args!("is {jitter}, must be from 0 to 1"));
        }
        let delays = Duration::ZERO..=limits::DELAY_MAX;
        let timeouts = limits::TIMEOUT_MIN..=limits::TIMEOUT_MAX;
        Self {
            priority: priority(invalid, path.field("priority"), request.priority),
            durability: durability(invalid, path.field("durability"), request.durability),
            timeout: invalid.duration(path.field("timeout"), request.timeout.as_ref(), timeouts),
            attempts_max: attempts_max.filter(|n| *n > 0),
            delay: invalid.duration(path.field("retry.delay"), retry.delay.as_ref(), delays.clone()),
            factor: (retry.factor != 0.0).then_some(retry.factor),
            delay_max: invalid.duration(path.field("retry.max_delay"), retry.max_delay.as_ref(), delays),
            jitter: retry.jitter,
        }
    }

    pub(super) fn retry(&self, handler: &RetryPolicy) -> RetryPolicy {
        RetryPolicy {
            attempts_max: self.attempts_max.unwrap_or(handler.attempts_max),
            delay: self.delay.unwrap_or(handler.delay),
            factor: self.factor.unwrap_or(handler.factor),
            delay_max: self.delay_max.unwrap_or(handler.delay_max),
            jitter: self.jitter.unwrap_or(handler.jitter),
        }
    }
}

pub(super) fn priority(invalid: &mut InvalidFields, field: impl Display, number: i32) -> Priority {
    match v1::Priority::try_from(number) {
        Ok(v1::Priority::Unspecified | v1::Priority::Normal) => Priority::Normal,
        Ok(v1::Priority::Low) => Priority::Low,
        Ok(v1::Priority::High) => Priority::High,
        Ok(v1::Priority::Critical) => Priority::Critical,
        Err(_) => {
            invalid.add(field, format_args!("is {number}, must be from 0 to 4"));
            Priority::Normal
        }
    }
}

fn durability(invalid: &mut InvalidFields, field: FieldPath, number: i32) -> Option<Durability> {
    match v1::Durability::try_from(number) {
        Ok(v1::Durability::Unspecified) => None,
        Ok(v1::Durability::Fsync) => Some(Durability::Fsync),
        Ok(v1::Durability::Memory) => Some(Durability::Memory),
        Err(_) => {
            invalid.add(field, format_args!("is {number}, must be from 0 to 2"));
            None
        }
    }
}

pub(super) fn optional_name(invalid: &mut InvalidFields, field: FieldPath, text: &str) -> Option<Box<str>> {
    if text.is_empty() {
        return None;
    }
    invalid.parsed(field, id::check_name(text)).map(|()| text.into())
}

pub(super) fn fairness_key(invalid: &mut InvalidFields, path: MessagePath, text: &str) -> Option<FairnessKey> {
    if text.is_empty() {
        return None;
    }
    invalid.parsed(path.field("fairness_key"), FairnessKey::parse(text))
}

/// `request` has lost its key.
pub(super) fn unique_key(
    invalid: &mut InvalidFields,
    path: MessagePath,
    key: &str,
    request: &v1::SubmitTaskRequest,
) -> Option<UniqueKey> {
    let (on_conflict, within) = (request.on_unique_conflict, request.reuse_result_within.as_ref());
    let rule = match on_conflict {
        0 => Some(OnUniqueConflict::default()),
        number => u8::try_from(number).ok().and_then(OnUniqueConflict::from_number),
    };
    if rule.is_none() {
        invalid.add(path.field("on_unique_conflict"), format_args!("is {on_conflict}, must be from 0 to 3"));
    }
    if key.is_empty() && on_conflict != 0 {
        invalid.add(path.field("on_unique_conflict"), "must not be set without `unique_key`");
    }
    if key.is_empty() && within.is_some() {
        invalid.add(path.field("reuse_result_within"), "must not be set without `unique_key`");
    }
    let ages = limits::TIMEOUT_MIN..=limits::DELAY_MAX;
    let reuse_result_within = invalid.duration(path.field("reuse_result_within"), within, ages);
    let key = optional_name(invalid, path.field("unique_key"), key)?;
    Some(UniqueKey { key, on_conflict: rule?, reuse_result_within })
}

pub(super) fn payload(
    invalid: &mut InvalidFields,
    path: MessagePath,
    payload: Option<Kind>,
    PayloadLimit(bytes_max): PayloadLimit,
) -> Box<[u8]> {
    match payload {
        None => Box::default(),
        Some(Kind::Data(data)) => {
            invalid.check_length(path.field("payload"), data.len(), bytes_max, "bytes");
            // Copied, because a slice would keep the whole buffer of the request alive as long as the task.
            data[..data.len().min(bytes_max)].into()
        }
        Some(Kind::Json(value)) => {
            let text = json::to_text(&value).map_err(|error| invalid.add(path.field("payload.json"), error));
            let text = text.unwrap_or_default();
            invalid.check_length(path.field("payload"), text.len(), bytes_max, "bytes");
            text.into()
        }
    }
}

/// Checks the payload against the schema of the handler.
pub(super) fn check_payload(path: MessagePath, schema: &PayloadSchema, payload: &[u8]) -> Result<(), InvalidFields> {
    let Err(mismatches) = schema.check(payload) else { return Ok(()) };
    let mut invalid = InvalidFields::default();
    for mismatch in mismatches {
        invalid.add(path.field("payload"), mismatch);
    }
    Err(invalid)
}

/// The content type of a payload with this text in `payload.content_type`.
pub(super) fn content_type(
    invalid: &mut InvalidFields,
    path: MessagePath,
    content_type: &str,
    is_json: bool,
) -> Arc<str> {
    let field = path.field("payload.content_type");
    let default_type = if is_json { &DEFAULTS.json } else { &DEFAULTS.octet_stream };
    invalid.check_length(field, content_type.len(), limits::DISPLAY_NAME_BYTES_MAX, "bytes");
    // The content type is copied into HTTP headers and environment variables.
    if let Some(found) = content_type.chars().find(|c| !matches!(c, ' '..='~')) {
        invalid.add(field, format_args!("contains the character {found:?}, must be printable ASCII"));
    }
    if content_type.is_empty() || *content_type == **default_type { default_type.clone() } else { content_type.into() }
}

pub(super) fn task_id(
    invalid: &mut InvalidFields,
    path: MessagePath,
    given: &str,
    namespace: Option<&Namespace>,
    new_id: fn() -> TaskId,
) -> Option<TaskId> {
    match (given, namespace) {
        ("", _) => Some(new_id()),
        (text, Some(namespace)) => invalid.parsed(path.field("task_id"), TaskId::named(namespace, text)),
        (text, None) => invalid.parsed(path.field("task_id"), TaskId::parse(text)),
    }
}

pub(super) fn check_args(invalid: &mut InvalidFields, list: impl Display + Copy, args: &[String]) {
    invalid.check_length(list, args.len(), limits::ARGS_MAX, "values");
    for (index, arg) in args.iter().enumerate().take(limits::ARGS_MAX) {
        let field = format_args!("{list}[{index}]");
        invalid.check_length(field, arg.len(), limits::ARG_BYTES_MAX, "bytes");
        if arg.contains('\0') {
            invalid.add(field, "must not contain a NUL byte");
        }
    }
}

pub(super) type Labels = Box<[(Box<str>, Box<str>)]>;

pub(super) fn labels(invalid: &mut InvalidFields, path: MessagePath, labels: &BTreeMap<String, String>) -> Labels {
    invalid.check_length(path.field("labels"), labels.len(), limits::LABELS_MAX, "labels");
    for (key, value) in labels.iter().take(limits::LABELS_MAX) {
        let shortened = &key[..key.floor_char_boundary(limits::LABEL_KEY_BYTES_MAX)];
        let field = format_args!("{path}labels[{shortened:?}]");
        if key.is_empty() {
            invalid.add(field, "has an empty key");
        }
        invalid.check_length(field, key.len(), limits::LABEL_KEY_BYTES_MAX, "bytes in its key");
        invalid.check_length(field, value.len(), limits::LABEL_VALUE_BYTES_MAX, "bytes in its value");
    }
    labels.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect()
}
