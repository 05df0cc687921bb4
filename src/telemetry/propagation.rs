//! The formats of `OTEL_PROPAGATORS`: how a place in a trace is read from a call's headers, and told to a
//! process in its environment.
//!
//! The formats are asked in the order in which they are listed, and a later one that finds a span wins over
//! an earlier one (composite extract). What is malformed is as if it were not there. Baggage travels as W3C
//! Baggage only. A sampling decision without a span (`b3: 0`) has no form in OpenTelemetry and is nobody's
//! place.

use std::borrow::Cow;

use crate::model::trace::{DEBUG, SAMPLED, UNDECIDED};
use crate::model::{RemoteSpan, TraceContext};

/// One name of `OTEL_PROPAGATORS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// W3C Trace Context: `traceparent` and `tracestate`.
    TraceContext,
    /// W3C Baggage: `baggage`.
    Baggage,
    /// B3 of Zipkin, told in one header.
    B3,
    /// B3 of Zipkin, told in several headers.
    B3Multi,
    /// Jaeger: `uber-trace-id`.
    Jaeger,
    /// AWS X-Ray: `X-Amzn-Trace-Id`.
    XRay,
    /// The tracers that came with OpenTracing: `ot-tracer-…`.
    OtTrace,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::TraceContext, Self::Baggage, Self::B3, Self::B3Multi, Self::Jaeger, Self::XRay, Self::OtTrace];

    /// As in `OTEL_PROPAGATORS`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TraceContext => "tracecontext",
            Self::Baggage => "baggage",
            Self::B3 => "b3",
            Self::B3Multi => "b3multi",
            Self::Jaeger => "jaeger",
            Self::XRay => "xray",
            Self::OtTrace => "ottrace",
        }
    }
}

/// The formats that are spoken, in their order, none twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formats([Option<Format>; Format::ALL.len()]);

impl Default for Formats {
    /// Those of the specification: `tracecontext,baggage`.
    fn default() -> Self {
        Self::of([Format::TraceContext, Format::Baggage])
    }
}

impl Formats {
    /// These; each counts where it comes first.
    pub fn of(listed: impl IntoIterator<Item = Format>) -> Self {
        let mut formats = Self([None; Format::ALL.len()]);
        for format in listed {
            let free = formats.0.iter_mut().find(|place| place.is_none_or(|known| known == format));
            // There is a place for each that is not there yet.
            if let Some(place) = free {
                *place = Some(format);
            }
        }
        formats
    }

    /// Reads names with commas between them, and what of them is unknown; `none` stands for no format.
    pub fn parse(list: &str) -> (Self, Vec<String>) {
        let mut unknown = Vec::new();
        let mut named = |name: &str| {
            let known = Format::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(name));
            if known.is_none() && !name.is_empty() && !name.eq_ignore_ascii_case("none") {
                unknown.push(name.to_owned());
            }
            known
        };
        let formats = Self::of(list.split(',').map(str::trim).filter_map(&mut named));
        (formats, unknown)
    }

    /// In their order.
    pub fn iter(&self) -> impl Iterator<Item = Format> {
        self.0.into_iter().map_while(|format| format)
    }

    /// The place that a call's headers name; `header` has the first value of a name in lower case.
    pub fn read<'h>(&self, header: impl Fn(&'static str) -> Option<&'h str>) -> Option<TraceContext> {
        let (mut span, mut state, mut baggage) = (None, None, None);
        for format in self.iter() {
            let found = match format {
                Format::TraceContext => header(TRACEPARENT.header).and_then(RemoteSpan::parse),
                Format::Baggage => {
                    baggage = header(BAGGAGE.header);
                    None
                }
                Format::B3 | Format::B3Multi => b3(&header),
                Format::Jaeger => header(JAEGER.header).and_then(jaeger),
                Format::XRay => header(XRAY.header).and_then(xray),
                Format::OtTrace => ottrace(&header),
            };
            if found.is_some() {
                span = found;
                state = if format == Format::TraceContext { header(TRACESTATE.header) } else { None };
            }
        }
        if span.is_none() && baggage.is_none() {
            return None;
        }
        TraceContext::new(span, state, baggage)
    }

    /// The variables that tell a process its place, by the rules for environments as carriers of a context.
    pub fn variables(&self, place: &TraceContext) -> Vec<(&'static str, String)> {
        let mut told = Vec::new();
        let mut tell = |key: Key, value: String| told.push((key.variable, value));
        for format in self.iter() {
            if format == Format::Baggage {
                if !place.baggage.is_empty() {
                    tell(BAGGAGE, place.baggage.to_string());
                }
            } else if place.has_span() {
                write(format, place, &mut tell);
            }
        }
        told
    }
}

fn write(format: Format, place: &TraceContext, tell: &mut impl FnMut(Key, String)) {
    let (trace, span) = (place.trace_id, place.span_id);
    let is_debug = place.flags & DEBUG != 0;
    let sampled = if place.is_sampled() { "1" } else { "0" };
    let decided = !place.is_undecided();
    match format {
        Format::TraceContext => {
            if let Some(parent) = place.traceparent() {
                tell(TRACEPARENT, parent);
            }
            if !place.state.is_empty() {
                tell(TRACESTATE, place.state.to_string());
            }
        }
        Format::B3 => {
            let ids = format!("{trace:032x}-{span:016x}");
            let decision = if is_debug { "d" } else { sampled };
            tell(B3, if decided { format!("{ids}-{decision}") } else { ids });
        }
        Format::B3Multi => {
            tell(B3_TRACE, format!("{trace:032x}"));
            tell(B3_SPAN, format!("{span:016x}"));
            // One of them: debug implies sampled.
            if is_debug {
                tell(B3_FLAGS, "1".to_owned());
            } else if decided {
                tell(B3_SAMPLED, sampled.to_owned());
            }
        }
        Format::Jaeger => {
            let debug = if is_debug { JAEGER_DEBUG } else { 0 };
            let flags = u8::from(place.is_sampled()) | debug;
            // The third part, the parent's parent, is history.
            tell(JAEGER, format!("{trace:032x}:{span:016x}:0:{flags:x}"));
        }
        Format::XRay => {
            let (seconds, rest) = (trace >> 96, trace & (u128::MAX >> 32));
            let ids = format!("Root=1-{seconds:08x}-{rest:024x};Parent={span:016x}");
            tell(XRAY, if decided { format!("{ids};Sampled={sampled}") } else { ids });
        }
        Format::OtTrace => {
            // These tracers know 64 bits.
            tell(OT_TRACE, format!("{:016x}", trace & u128::from(u64::MAX)));
            tell(OT_SPAN, format!("{span:016x}"));
            tell(OT_SAMPLED, place.is_sampled().to_string());
        }
        Format::Baggage => {}
    }
}

/// Where a part of a format stands.
#[derive(Clone, Copy)]
struct Key {
    /// As a header.
    header: &'static str,
    /// In an environment: upper case, with `_` for what is neither letter nor digit.
    variable: &'static str,
}

const fn key(header: &'static str, variable: &'static str) -> Key {
    Key { header, variable }
}

const TRACEPARENT: Key = key("traceparent", "TRACEPARENT");
const TRACESTATE: Key = key("tracestate", "TRACESTATE");
const BAGGAGE: Key = key("baggage", "BAGGAGE");
const B3: Key = key("b3", "B3");
const B3_TRACE: Key = key("x-b3-traceid", "X_B3_TRACEID");
const B3_SPAN: Key = key("x-b3-spanid", "X_B3_SPANID");
const B3_SAMPLED: Key = key("x-b3-sampled", "X_B3_SAMPLED");
const B3_FLAGS: Key = key("x-b3-flags", "X_B3_FLAGS");
const JAEGER: Key = key("uber-trace-id", "UBER_TRACE_ID");
const XRAY: Key = key("x-amzn-trace-id", "X_AMZN_TRACE_ID");
const OT_TRACE: Key = key("ot-tracer-traceid", "OT_TRACER_TRACEID");
const OT_SPAN: Key = key("ot-tracer-spanid", "OT_TRACER_SPANID");
const OT_SAMPLED: Key = key("ot-tracer-sampled", "OT_TRACER_SAMPLED");

/// Of the flags of `uber-trace-id`; the same bit as everywhere.
const JAEGER_SAMPLED: u8 = SAMPLED;
/// Of the flags of `uber-trace-id`.
const JAEGER_DEBUG: u8 = 0x02;

/// B3, <https://github.com/openzipkin/b3-propagation>: one header, or else several, whichever is configured.
fn b3<'h>(header: &impl Fn(&'static str) -> Option<&'h str>) -> Option<RemoteSpan> {
    header(B3.header).and_then(b3_single).or_else(|| b3_multi(header))
}

/// `{trace}-{span}[-{decision}[-{parent}]]`
fn b3_single(text: &str) -> Option<RemoteSpan> {
    let mut parts = text.trim().split('-');
    let (trace, span) = (parts.next()?, parts.next()?);
    let flags = match parts.next() {
        None => UNDECIDED,
        Some("0") => 0,
        Some("1") => SAMPLED,
        Some("d") => SAMPLED | DEBUG,
        Some(_) => return None,
    };
    // The parent's parent is of no use here.
    let is_whole = parts.next().is_none_or(|parent| hex::<16>(parent).is_some()) && parts.next().is_none();
    b3_span(trace, span, flags).filter(|_| is_whole)
}

fn b3_multi<'h>(header: &impl Fn(&'static str) -> Option<&'h str>) -> Option<RemoteSpan> {
    let (trace, span) = (header(B3_TRACE.header)?, header(B3_SPAN.header)?);
    let flags = match header(B3_SAMPLED.header) {
        _ if header(B3_FLAGS.header) == Some("1") => SAMPLED | DEBUG,
        None => UNDECIDED,
        Some("0" | "false") => 0,
        // The words are those of older tracers.
        Some("1" | "true") => SAMPLED,
        Some(_) => return None,
    };
    b3_span(trace, span, flags)
}

/// Trace ids have 128 bits, or 64 and zeros before them.
fn b3_span(trace: &str, span: &str, flags: u8) -> Option<RemoteSpan> {
    remote(hex::<32>(trace).or_else(|| hex::<16>(trace))?, hex::<16>(span)?, flags)
}

/// `{trace}:{span}:{parent}:{flags}`, <https://www.jaegertracing.io/sdk-migration/#propagation-format>: ids
/// without their leading zeros, all of it percent-encoded by some clients.
fn jaeger(text: &str) -> Option<RemoteSpan> {
    let text: Cow<'_, str> = percent_encoding::percent_decode_str(text.trim()).decode_utf8().ok()?;
    let parts: Vec<&str> = text.splitn(5, ':').collect();
    let [trace, span, _parent, flags] = parts[..] else { return None };
    let said = u8::try_from(short_hex(flags, 2)?).ok()?;
    let flags = if said & JAEGER_DEBUG != 0 { SAMPLED | DEBUG } else { said & JAEGER_SAMPLED };
    remote(short_hex(trace, 32)?, short_hex(span, 16)?, flags)
}

/// `Root=1-{8}-{24};Parent={16};Sampled={0, 1 or ?}` in any order, and more,
/// <https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader>. What
/// load balancers send, without a parent, names no span.
fn xray(text: &str) -> Option<RemoteSpan> {
    let (mut trace, mut span, mut flags) = (None, None, UNDECIDED);
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=')?;
        match (name, value) {
            ("Root", root) => {
                let (seconds, rest) = root.strip_prefix("1-")?.split_once('-')?;
                trace = Some((hex::<8>(seconds)? << 96) | hex::<24>(rest)?);
            }
            ("Parent", parent) => span = Some(hex::<16>(parent)?),
            ("Sampled", "1") => flags = SAMPLED,
            ("Sampled", "0") => flags = 0,
            ("Sampled", "?") => flags = UNDECIDED,
            ("Sampled", _) => return None,
            _ => {}
        }
    }
    remote(trace?, span?, flags)
}

/// <https://github.com/opentracing/basictracer-python/blob/master/basictracer/text_propagator.py>: ids without
/// their leading zeros.
fn ottrace<'h>(header: &impl Fn(&'static str) -> Option<&'h str>) -> Option<RemoteSpan> {
    let (trace, span) = (header(OT_TRACE.header)?, header(OT_SPAN.header)?);
    let flags = match header(OT_SAMPLED.header) {
        None => UNDECIDED,
        Some("true" | "1") => SAMPLED,
        Some("false" | "0") => 0,
        Some(_) => return None,
    };
    remote(short_hex(trace, 32)?, short_hex(span, 16)?, flags)
}

/// `None` for ids that are zero: they name nothing.
fn remote(trace_id: u128, span_id: u128, flags: u8) -> Option<RemoteSpan> {
    let span_id = u64::try_from(span_id).ok()?;
    (trace_id != 0 && span_id != 0).then_some(RemoteSpan { trace_id, span_id, flags })
}

/// A number of exactly so many lower-case digits.
fn hex<const DIGITS: usize>(text: &str) -> Option<u128> {
    short_hex(text, DIGITS).filter(|_| text.len() == DIGITS)
}

/// A number of at most so many lower-case digits.
fn short_hex(text: &str, digits_max: usize) -> Option<u128> {
    let is_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if text.len() > digits_max || !is_hex {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

#[cfg(test)]
#[path = "propagation_tests.rs"]
mod tests;
