//! Trace context of a submission (W3C Trace Context and W3C Baggage), which connects the run of a task to it.

use super::clock::Timestamp;

/// Bytes of a `tracestate`; a longer one is dropped.
pub const STATE_BYTES_MAX: usize = 512;
/// Bytes of a `baggage`; a longer one is dropped.
pub const BAGGAGE_BYTES_MAX: usize = 1_024;

/// How the span of an attempt is connected to the span of its submission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum TraceMode {
    /// As configured for the server.
    #[default]
    Unset = 0,
    /// A child if the submission is recent, otherwise a new trace with a link to it.
    Auto = 1,
    /// Always a child.
    Parent = 2,
    /// A new trace with a link to the submission.
    Link = 3,
}

impl TraceMode {
    /// Inverse of `as u8`.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Unset,
            1 => Self::Auto,
            2 => Self::Parent,
            3 => Self::Link,
            _ => return None,
        })
    }
}

/// The flags that W3C Trace Context defines: sampled, and random trace ID.
const W3C_FLAGS: u8 = 0x03;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceContext {
    /// Zero if there is only baggage.
    pub trace_id: u128,
    /// Zero if there is only baggage.
    pub span_id: u64,
    pub flags: u8,
    pub mode: TraceMode,
    /// When the span was active.
    pub at: Timestamp,
    /// `tracestate` as received.
    pub state: Box<str>,
    /// `baggage` as received.
    pub baggage: Box<str>,
}

impl TraceContext {
    /// Parses the headers; `None` if there is neither a valid `traceparent` nor baggage. A `tracestate` or
    /// `baggage` that is too long or not printable is dropped, as the specification requires.
    pub fn parse(traceparent: Option<&str>, tracestate: Option<&str>, baggage: Option<&str>) -> Option<Self> {
        let span = traceparent.and_then(parse_traceparent);
        let is_printable = |text: &&str| text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
        let bounded = |text: Option<&str>, bytes_max: usize| {
            text.filter(is_printable).filter(|text| text.len() <= bytes_max).unwrap_or_default().into()
        };
        let baggage: Box<str> = bounded(baggage, BAGGAGE_BYTES_MAX);
        if span.is_none() && baggage.is_empty() {
            return None;
        }
        // A state without a parent has no meaning.
        let state = bounded(tracestate.filter(|_| span.is_some()), STATE_BYTES_MAX);
        let (trace_id, span_id, flags) = span.unwrap_or_default();
        Some(Self { trace_id, span_id, flags, state, baggage, ..Self::default() })
    }

    /// Whether there is a span, and not only baggage.
    pub fn has_span(&self) -> bool {
        self.trace_id != 0 && self.span_id != 0
    }

    pub fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }

    /// The trace ID, as `traceparent` has it; `None` if there is no span.
    pub fn trace_id_text(&self) -> Option<String> {
        self.has_span().then(|| format!("{:032x}", self.trace_id))
    }

    /// The flags that W3C Trace Context defines.
    pub fn w3c_flags(&self) -> u8 {
        self.flags & W3C_FLAGS
    }

    /// `00-<32 hex>-<16 hex>-<2 hex>`; `None` if there is no span.
    pub fn traceparent(&self) -> Option<String> {
        self.has_span().then(|| format!("00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.w3c_flags()))
    }
}

/// Trace ID, span ID and flags of a `traceparent`; `None` if it is malformed.
fn parse_traceparent(text: &str) -> Option<(u128, u64, u8)> {
    let mut parts = text.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    if !(is_hex(version, 2) && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2)) || version == "ff" {
        return None;
    }
    // Only later versions may have more parts.
    if version == "00" && parts.next().is_some() {
        return None;
    }
    let trace_id = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
    let span_id = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
    let flags = u8::from_str_radix(flags, 16).ok()?;
    Some((trace_id, span_id, flags & W3C_FLAGS))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_written_as_it_was_read() {
        let context = TraceContext::parse(Some(PARENT), Some("vendor=1"), Some("user=7")).unwrap();
        assert_eq!(context.traceparent().as_deref(), Some(PARENT));
        assert_eq!((&*context.state, &*context.baggage), ("vendor=1", "user=7"));
        assert_eq!(context.trace_id_text().as_deref(), PARENT.get(3..35));
    }

    #[test]
    fn a_traceparent_of_a_later_version_may_have_more_parts() {
        let later = format!("01{}-more", &PARENT[2..]);
        let context = TraceContext::parse(Some(&later), None, None).unwrap();
        assert_eq!(context.traceparent().as_deref(), Some(PARENT));
    }

    #[test]
    fn flags_that_w3c_does_not_define_are_not_written() {
        let context = TraceContext::parse(Some(PARENT), None, None).unwrap();
        let flagged = TraceContext { flags: context.flags | 0xf0, ..context };
        assert_eq!(flagged.traceparent().as_deref(), Some(PARENT));
    }

    #[test]
    fn a_malformed_traceparent_counts_as_absent() {
        for malformed in [
            "",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::parse(Some(malformed), Some("a=1"), None), None, "{malformed}");
        }
    }

    #[test]
    fn baggage_can_come_alone_and_is_dropped_if_it_is_too_long() {
        let alone = TraceContext::parse(None, Some("a=1"), Some("user=7")).unwrap();
        assert_eq!((alone.traceparent(), alone.trace_id_text()), (None, None));
        assert_eq!((&*alone.state, &*alone.baggage), ("", "user=7"));
        let long = "x".repeat(BAGGAGE_BYTES_MAX + 1);
        assert_eq!(TraceContext::parse(None, None, Some(&long)), None);
        assert_eq!(TraceContext::parse(None, None, Some("a=\u{1}")), None);
    }
}
