//! The trace context inside the record of a task spec.

use bytes::Bytes;
use prost::Message;

use crate::model::{Timestamp, TraceContext, TraceMode};

#[derive(Clone, PartialEq, Message)]
pub(super) struct TraceRecord {
    /// Trace id and span id, 24 bytes; empty when there is only baggage.
    #[prost(bytes = "bytes", tag = "1")]
    ids: Bytes,
    #[prost(uint32, tag = "2")]
    flags: u32,
    #[prost(uint32, tag = "3")]
    mode: u32,
    #[prost(uint64, tag = "4")]
    at: u64,
    #[prost(string, tag = "5")]
    state: String,
    #[prost(string, tag = "6")]
    baggage: String,
}

impl From<&TraceContext> for TraceRecord {
    fn from(trace: &TraceContext) -> Self {
        let ids = [&trace.trace_id.to_be_bytes()[..], &trace.span_id.to_be_bytes()].concat();
        Self {
            ids: if trace.has_span() { ids.into() } else { Bytes::new() },
            flags: trace.flags.into(),
            mode: trace.mode as u32,
            at: trace.at.0,
            state: trace.state.to_string(),
            baggage: trace.baggage.to_string(),
        }
    }
}

impl TraceRecord {
    /// Fields that cannot be decoded are ignored, because a task must not be lost over its trace.
    pub(super) fn into_model(self) -> TraceContext {
        let ids = self.ids.split_first_chunk::<16>().and_then(|(trace, span)| Some((*trace, span.try_into().ok()?)));
        let (trace, span) = ids.unwrap_or_default();
        TraceContext {
            trace_id: u128::from_be_bytes(trace),
            span_id: u64::from_be_bytes(span),
            flags: u8::try_from(self.flags).unwrap_or_default(),
            mode: u8::try_from(self.mode).ok().and_then(TraceMode::from_number).unwrap_or_default(),
            at: Timestamp(self.at),
            state: self.state.into(),
            baggage: self.baggage.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_trace_is_ignored() {
        let record = TraceRecord { ids: Bytes::from_static(b"short"), flags: 300, mode: 99, ..TraceRecord::default() };
        assert_eq!(record.into_model(), TraceContext::default());
    }
}
