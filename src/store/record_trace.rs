//! The bytes of a task's place in a trace, a part of its spec's record.

use bytes::Bytes;
use prost::Message;

use crate::model::{Timestamp, TraceContext, TraceMode};

#[derive(Clone, PartialEq, Message)]
pub(super) struct TraceRecord {
    /// Trace and span, 24 bytes; empty when there is only baggage.
    #[prost(bytes = "bytes", tag = "1")]
    place: Bytes,
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
        let place = [&trace.trace_id.to_be_bytes()[..], &trace.span_id.to_be_bytes()].concat();
        Self {
            place: if trace.has_span() { place.into() } else { Bytes::new() },
            flags: trace.flags.into(),
            mode: trace.mode as u32,
            at: trace.at.0,
            state: trace.state.to_string(),
            baggage: trace.baggage.to_string(),
        }
    }
}

impl TraceRecord {
    /// A trace is no reason to lose a task: what cannot be read is as if it were not there.
    pub(super) fn into_model(self) -> TraceContext {
        let ids = self.place.split_first_chunk::<16>().and_then(|(trace, span)| Some((*trace, span.try_into().ok()?)));
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
    use std::sync::Arc;

    use super::super::record_parts::SpecRecord;
    use super::*;
    use crate::model::TaskId;
    use crate::store::samples;

    /// As servers wrote it that knew no traces: payload `abc` and the argument `-v`.
    const OLDER: &[u8] = b"\x0a\x03abc\x12\x02-v";

    #[test]
    fn records_of_older_servers_are_read_and_a_task_without_a_trace_is_still_written_like_that() {
        let id = TaskId::parse("t").unwrap();
        let spec = SpecRecord::decode(OLDER).unwrap().into_model(id, Arc::new(samples::options(0)));
        let spec = Arc::new(spec);
        assert_eq!(
            (&spec.payload[..], &*spec.extras().args, &spec.extras().trace),
            (&b"abc"[..], &["-v".into()][..], &None)
        );
        assert_eq!(SpecRecord::from(&spec).encode_to_vec(), OLDER);
    }

    #[test]
    fn a_place_that_cannot_be_read_costs_the_trace_and_not_the_task() {
        let record =
            TraceRecord { place: Bytes::from_static(b"short"), flags: 300, mode: 99, ..TraceRecord::default() };
        assert_eq!(record.into_model(), TraceContext::default());
    }
}
