//! The trace context of a submission: its own, or that of its call.

use std::sync::Arc;

use crate::model::trace::STATE_BYTES_MAX;
use crate::model::{Timestamp, TraceContext, TraceMode};
use crate::proto::v1;

use super::invalid_fields::{FieldPath, InvalidFields, MessagePath};

/// Bytes of an invalid `traceparent` that the error shows; a valid one of version 00 has 55.
const SHOWN_BYTES: usize = 64;

pub(super) fn trace_mode(invalid: &mut InvalidFields, field: FieldPath, number: i32) -> TraceMode {
    match v1::TraceMode::try_from(number) {
        Ok(v1::TraceMode::Unspecified) => TraceMode::Unset,
        Ok(v1::TraceMode::Auto) => TraceMode::Auto,
        Ok(v1::TraceMode::Parent) => TraceMode::Parent,
        Ok(v1::TraceMode::Link) => TraceMode::Link,
        Err(_) => {
            invalid.add(field, format_args!("is {number}, must be from 0 to 3"));
            TraceMode::Unset
        }
    }
}

/// The trace context in the fields of the submission; `None` if they are empty, or not valid. A header that is not valid is
/// ignored, as the specification requires, but a field is an error: a client has set it for this task.
pub(super) fn own_trace(
    invalid: &mut InvalidFields,
    path: MessagePath,
    traceparent: &str,
    tracestate: &str,
) -> Option<TraceContext> {
    invalid.check_length(path.field("tracestate"), tracestate.len(), STATE_BYTES_MAX, "bytes");
    if let Some(found) = tracestate.chars().find(|c| !matches!(c, ' '..='~' | '\t')) {
        invalid
            .add(path.field("tracestate"), format_args!("contains the character {found:?}, must be printable ASCII"));
    }
    if traceparent.is_empty() {
        if !tracestate.is_empty() {
            invalid.add(path.field("tracestate"), "has no meaning without `traceparent`");
        }
        return None;
    }
    let parsed = TraceContext::parse(Some(traceparent), Some(tracestate).filter(|state| !state.is_empty()), None);
    if parsed.is_none() {
        let shown = &traceparent[..traceparent.floor_char_boundary(SHOWN_BYTES)];
        let expected = "must be a W3C trace context: 00-TRACE-SPAN-FLAGS in hexadecimal";
        invalid.add(path.field("traceparent"), format_args!("is {shown:?}, {expected}"));
    }
    parsed
}

/// The trace context of the call with the mode of the submission. Submissions of one call that set no mode share one copy.
pub(super) fn trace_of_call(
    mode: TraceMode,
    call: Option<&Arc<TraceContext>>,
    now: Timestamp,
) -> Option<Arc<TraceContext>> {
    let call = call?;
    if mode == TraceMode::Unset && call.at != Timestamp::ZERO {
        return Some(call.clone());
    }
    Some(Arc::new(TraceContext { mode, at: now, ..TraceContext::clone(call) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn parse(traceparent: &str, tracestate: &str) -> Result<Option<TraceContext>, String> {
        let mut invalid = InvalidFields::default();
        let own = own_trace(&mut invalid, MessagePath::BatchItem(2), traceparent, tracestate);
        invalid.check().map(|()| own).map_err(|error| error.to_string())
    }

    #[test]
    fn a_valid_trace_context_is_that_of_the_submission() {
        let own = parse(PARENT, "vendor=1").unwrap().unwrap();
        assert_eq!((own.traceparent().as_deref(), &*own.state, &*own.baggage), (Some(PARENT), "vendor=1", ""));
        assert_eq!(parse("", "").unwrap(), None);
    }

    #[test]
    fn an_invalid_trace_context_is_an_error_of_its_field() {
        let zeros = PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32));
        for invalid in ["x", &PARENT[1..], &PARENT.to_uppercase(), &zeros, &format!("{PARENT}-more")] {
            let error = parse(invalid, "").unwrap_err();
            assert!(error.starts_with(&format!("`tasks[2].traceparent` is \"{invalid}")), "{error}");
        }
        assert!(parse("", "a=1").unwrap_err().contains("`tasks[2].tracestate` has no meaning without `traceparent`"));
        assert!(
            parse(PARENT, &"a".repeat(513)).unwrap_err().contains("`tasks[2].tracestate` has 513 bytes, at most 512")
        );
        assert!(parse(PARENT, "a=\n").unwrap_err().contains("must be printable ASCII"));
        let long = format!("{}ä", "x".repeat(63));
        assert!(parse(&long, "").unwrap_err().contains(&"x".repeat(63)));
    }
}
