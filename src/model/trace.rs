//! Where a task comes from, in the terms of W3C Trace Context: what ties its run to its submission.

use super::clock::Timestamp;

/// Bytes of a `tracestate` that are kept; a longer one is left out.
pub const STATE_BYTES_MAX: usize = 512;
/// Bytes of a `baggage` that are kept; a longer one is left out.
pub const BAGGAGE_BYTES_MAX: usize = 1_024;

/// How the run of a task hangs together with its submission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum TraceMode {
    /// As the server is configured.
    #[default]
    Unset = 0,
    /// A child of the submission while that is fresh, otherwise a trace of its own.
    Auto = 1,
    /// A child of the submission, always.
    Parent = 2,
    /// A trace of its own, with a link to the submission.
    Link = 3,
}

impl TraceMode {
    /// Reverses `as u8`.
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

/// Bit of [`TraceContext::flags`]: the span is recorded.
#[cfg(test)]
const SAMPLED: u8 = 0x01;
/// The flags that W3C Trace Context knows: sampled, and a trace id that is random.
const W3C_FLAGS: u8 = 0x03;

/// A span of somebody else, by its numbers. Neither id is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteSpan {
    /// Names the trace.
    pub trace_id: u128,
    /// Names the span.
    pub span_id: u64,
    /// As [`TraceContext::flags`].
    pub flags: u8,
}

impl RemoteSpan {
    /// Reads a `traceparent`; `None` when it is malformed.
    pub fn parse(traceparent: &str) -> Option<Self> {
        let mut parts = traceparent.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |part: &str, length: usize| {
            part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        if !(hex(version, 2) && hex(trace, 32) && hex(span, 16) && hex(flags, 2)) || version == "ff" {
            return None;
        }
        // Version 0 ends here; later ones may say more.
        if version == "00" && parts.next().is_some() {
            return None;
        }
        let trace_id = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
        let span_id = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
        let flags = u8::from_str_radix(flags, 16).ok()?;
        Some(Self { trace_id, span_id, flags: flags & W3C_FLAGS })
    }
}

/// A place in a trace, and what travels with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceContext {
    /// Names the trace; zero when there is only baggage.
    pub trace_id: u128,
    /// Names the span; zero when there is only baggage.
    pub span_id: u64,
    /// As in W3C Trace Context.
    pub flags: u8,
    /// How a run follows.
    pub mode: TraceMode,
    /// When this place was passed.
    pub at: Timestamp,
    /// `tracestate` as it came.
    pub state: Box<str>,
    /// `baggage` as it came.
    pub baggage: Box<str>,
}

impl TraceContext {
    /// Reads the text forms; `None` when they say nothing. What is malformed or too long is left out,
    /// as the specification demands.
    pub fn parse(traceparent: Option<&str>, tracestate: Option<&str>, baggage: Option<&str>) -> Option<Self> {
        Self::new(traceparent.and_then(RemoteSpan::parse), tracestate, baggage)
    }

    /// The place of that span; `None` when there is neither a span nor baggage. What is too long or is no
    /// printable text is left out.
    pub fn new(span: Option<RemoteSpan>, tracestate: Option<&str>, baggage: Option<&str>) -> Option<Self> {
        let printable = |text: &&str| text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
        let fits = |text: Option<&str>, most: usize| {
            text.filter(printable).filter(|text| text.len() <= most).unwrap_or_default().into()
        };
        let baggage: Box<str> = fits(baggage, BAGGAGE_BYTES_MAX);
        if span.is_none() && baggage.is_empty() {
            return None;
        }
        // A state without a parent means nothing.
        let state = fits(tracestate.filter(|_| span.is_some()), STATE_BYTES_MAX);
        let context = Self { state, baggage, ..Self::default() };
        Some(match span {
            Some(RemoteSpan { trace_id, span_id, flags }) => Self { trace_id, span_id, flags, ..context },
            None => context,
        })
    }

    /// Whether it names a span, and not only baggage.
    pub fn has_span(&self) -> bool {
        self.trace_id != 0 && self.span_id != 0
    }

    #[cfg(test)]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The flags as W3C Trace Context has them.
    pub fn w3c_flags(&self) -> u8 {
        self.flags & W3C_FLAGS
    }

    /// The text form, `00-<32 hex>-<16 hex>-<2 hex>`; `None` when it names no span.
    pub fn traceparent(&self) -> Option<String> {
        self.has_span().then(|| format!("00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.w3c_flags()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_read_and_written_as_it_came() {
        let context = TraceContext::parse(Some(PARENT), Some("vendor=1"), Some("user=7")).unwrap();
        assert_eq!(context.traceparent().as_deref(), Some(PARENT));
        assert!(context.is_sampled());
        assert_eq!((&*context.state, &*context.baggage), ("vendor=1", "user=7"));
        let later = format!("01{}-more", &PARENT[2..]);
        assert_eq!(TraceContext::parse(Some(&later), None, None).unwrap().trace_id, context.trace_id);
    }

    #[test]
    fn what_is_malformed_is_as_if_it_were_not_there() {
        for bad in [
            "",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::parse(Some(bad), Some("a=1"), None), None, "{bad}");
        }
    }

    #[test]
    fn baggage_may_come_alone_and_too_much_of_it_is_left_out() {
        let alone = TraceContext::parse(None, Some("a=1"), Some("user=7")).unwrap();
        assert_eq!((alone.traceparent(), &*alone.state, &*alone.baggage), (None, "", "user=7"));
        let long = "x".repeat(BAGGAGE_BYTES_MAX + 1);
        assert_eq!(TraceContext::parse(None, None, Some(&long)), None);
        assert_eq!(TraceContext::parse(None, None, Some("a=\u{1}")), None);
    }
}
