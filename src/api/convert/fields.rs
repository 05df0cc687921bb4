//! The fields of a submission: each is read, or named as bad. What they mean together is for `submit`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::model::spec::{JSON, OCTET_STREAM};
use crate::model::{Durability, Priority, RetryPolicy, Timestamp, TraceContext, TraceMode, id, limits};
use crate::proto::v1;
use crate::telemetry::scope;

use super::{Field, InvalidFields, Place, json};

/// Values that most tasks have; made once, because a submission should cost few allocations.
struct Usual {
    json: Arc<str>,
    octets: Arc<str>,
}

static USUAL: LazyLock<Usual> = LazyLock::new(|| Usual { json: JSON.into(), octets: OCTET_STREAM.into() });

/// What each further delay may be multiplied with.
const FACTORS: RangeInclusive<f64> = 1.0..=10.0;

/// What the submitter may wish differently from the handler.
pub struct Wishes {
    pub priority: Priority,
    pub durability: Option<Durability>,
    pub timeout: Option<Duration>,
    attempts_max: Option<u32>,
    delay: Option<Duration>,
    factor: Option<f64>,
    delay_max: Option<Duration>,
    jitter: Option<f64>,
}

impl Wishes {
    pub fn parse(bad: &mut InvalidFields, place: Place, request: &v1::SubmitTaskRequest) -> Self {
        let at = |field| Field(place, field);
        let retry = request.retry.unwrap_or_default();
        let attempts_max = u32::try_from(retry.max_attempts).ok().filter(|n| *n <= limits::ATTEMPTS_MAX);
        if attempts_max.is_none() {
            let text = format_args!("is {}, it must be from 1 to {}", retry.max_attempts, limits::ATTEMPTS_MAX);
            bad.add(at("retry.max_attempts"), text);
        }
        if !(retry.factor == 0.0 || FACTORS.contains(&retry.factor)) {
            bad.add(at("retry.factor"), format_args!("is {}, it must be from 1 to 10", retry.factor));
        }
        if let Some(jitter) = retry.jitter.filter(|jitter| !(0.0..=1.0).contains(jitter)) {
            bad.add(at("retry.jitter"), format_args!("is {jitter}, it must be from 0 to 1"));
        }
        let spans = Duration::ZERO..=limits::DELAY_MAX;
        let timeouts = limits::TIMEOUT_MIN..=limits::TIMEOUT_MAX;
        Self {
            priority: priority(bad, at("priority"), request.priority),
            durability: durability(bad, at("durability"), request.durability),
            timeout: bad.span(at("timeout"), request.timeout.as_ref(), timeouts),
            attempts_max: attempts_max.filter(|n| *n > 0),
            delay: bad.span(at("retry.delay"), retry.delay.as_ref(), spans.clone()),
            factor: (retry.factor != 0.0).then_some(retry.factor),
            delay_max: bad.span(at("retry.max_delay"), retry.max_delay.as_ref(), spans),
            jitter: retry.jitter,
        }
    }

    /// The handler's rule, with what was wished.
    pub fn retry(&self, of_handler: &RetryPolicy) -> RetryPolicy {
        RetryPolicy {
            attempts_max: self.attempts_max.unwrap_or(of_handler.attempts_max),
            delay: self.delay.unwrap_or(of_handler.delay),
            factor: self.factor.unwrap_or(of_handler.factor),
            delay_max: self.delay_max.unwrap_or(of_handler.delay_max),
            jitter: self.jitter.unwrap_or(of_handler.jitter),
        }
    }
}

/// A priority; unspecified is NORMAL.
pub fn priority(bad: &mut InvalidFields, field: impl Display, number: i32) -> Priority {
    match v1::Priority::try_from(number) {
        Ok(v1::Priority::Unspecified | v1::Priority::Normal) => Priority::Normal,
        Ok(v1::Priority::Low) => Priority::Low,
        Ok(v1::Priority::High) => Priority::High,
        Ok(v1::Priority::Critical) => Priority::Critical,
        Err(_) => {
            bad.add(field, format_args!("is {number}, which is not a priority; those are 0 to 4"));
            Priority::Normal
        }
    }
}

/// Where in a trace the submission stands; the same copy for all of a call that do not say more.
pub fn trace(bad: &mut InvalidFields, field: Field, number: i32, now: Timestamp) -> Option<Arc<TraceContext>> {
    let mode = match v1::TraceMode::try_from(number) {
        Ok(v1::TraceMode::Unspecified) => TraceMode::Unset,
        Ok(v1::TraceMode::Auto) => TraceMode::Auto,
        Ok(v1::TraceMode::Parent) => TraceMode::Parent,
        Ok(v1::TraceMode::Link) => TraceMode::Link,
        Err(_) => {
            bad.add(field, format_args!("is {number}, which is not a trace mode; those are 0 to 3"));
            return None;
        }
    };
    let found = scope::current_context()?.context;
    if mode == TraceMode::Unset && found.at != Timestamp::ZERO {
        return Some(found);
    }
    Some(Arc::new(TraceContext { mode, at: now, ..TraceContext::clone(&found) }))
}

fn durability(bad: &mut InvalidFields, field: Field, number: i32) -> Option<Durability> {
    match v1::Durability::try_from(number) {
        Ok(v1::Durability::Unspecified) => None,
        Ok(v1::Durability::Fsync) => Some(Durability::Fsync),
        Ok(v1::Durability::Memory) => Some(Durability::Memory),
        Err(_) => {
            bad.add(field, format_args!("is {number}, which is not a durability; those are 0 to 2"));
            None
        }
    }
}

pub fn optional_name(bad: &mut InvalidFields, field: Field, text: &str) -> Option<Box<str>> {
    if text.is_empty() {
        return None;
    }
    bad.take(field, id::check_name(text)).map(|()| text.into())
}

pub fn payload(bad: &mut InvalidFields, place: Place, payload: Option<v1::Payload>) -> (Box<[u8]>, Arc<str>) {
    let Some(v1::Payload { kind, content_type }) = payload else { return (Box::default(), USUAL.octets.clone()) };
    let (data, usual) = match kind {
        None => (Box::default(), &USUAL.octets),
        Some(v1::payload::Kind::Data(data)) => {
            bad.at_most(Field(place, "payload"), data.len(), limits::PAYLOAD_BYTES_MAX, "bytes");
            // A copy: the bytes of the request would keep its whole buffer alive while the task waits.
            (data[..data.len().min(limits::PAYLOAD_BYTES_MAX)].into(), &USUAL.octets)
        }
        Some(v1::payload::Kind::Json(value)) => {
            let text = json::text(&value).map_err(|fault| bad.add(Field(place, "payload.json"), fault));
            let text = text.unwrap_or_default();
            bad.at_most(Field(place, "payload"), text.len(), limits::PAYLOAD_BYTES_MAX, "bytes");
            (text.into(), &USUAL.json)
        }
    };
    (data, content_type_of(bad, Field(place, "payload.content_type"), content_type, usual))
}

fn content_type_of(bad: &mut InvalidFields, field: Field, given: String, usual: &Arc<str>) -> Arc<str> {
    bad.at_most(field, given.len(), limits::DISPLAY_NAME_BYTES_MAX, "bytes");
    // It ends up in headers and environments.
    if let Some(found) = given.chars().find(|c| !matches!(c, ' '..='~')) {
        bad.add(field, format_args!("has the character {found:?}, allowed are those of a MIME type"));
    }
    if given.is_empty() || *given == **usual { usual.clone() } else { given.into() }
}

pub fn check_args(bad: &mut InvalidFields, place: Place, args: &[String]) {
    bad.at_most(Field(place, "args"), args.len(), limits::ARGS_MAX, "values");
    for (index, arg) in args.iter().enumerate().take(limits::ARGS_MAX) {
        let field = format_args!("{place}args[{index}]");
        bad.at_most(field, arg.len(), limits::ARG_BYTES_MAX, "bytes");
        if arg.contains('\0') {
            bad.add(field, "has a NUL byte, which no argument can");
        }
    }
}

pub type Labels = Box<[(Box<str>, Box<str>)]>;

pub fn labels(bad: &mut InvalidFields, place: Place, labels: BTreeMap<String, String>) -> Labels {
    bad.at_most(Field(place, "labels"), labels.len(), limits::LABELS_MAX, "labels");
    for (key, value) in labels.iter().take(limits::LABELS_MAX) {
        let shown: &str = &key[..key.floor_char_boundary(limits::LABEL_KEY_BYTES_MAX)];
        let field = format_args!("{place}labels[{shown:?}]");
        if key.is_empty() {
            bad.add(field, "has an empty key");
        }
        bad.at_most(field, key.len(), limits::LABEL_KEY_BYTES_MAX, "bytes in its key");
        bad.at_most(field, value.len(), limits::LABEL_VALUE_BYTES_MAX, "bytes in its value");
    }
    labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect()
}
