//! Reads the trace context of calls and passes it to processes, as W3C Trace Context and W3C Baggage.
//!
//! Malformed headers count as absent.

use std::sync::OnceLock;

use crate::model::TraceContext;

static PROPAGATORS: OnceLock<Propagators> = OnceLock::new();

/// Sets the propagators for the rest of the process. A second call changes nothing.
pub fn install(propagators: Propagators) {
    let _ = PROPAGATORS.set(propagators);
}

pub fn installed() -> Propagators {
    PROPAGATORS.get().copied().unwrap_or_default()
}

/// The formats that `OTEL_PROPAGATORS` lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propagators {
    pub trace_context: bool,
    pub baggage: bool,
}

impl Default for Propagators {
    /// As in the specification: `tracecontext,baggage`.
    fn default() -> Self {
        Self { trace_context: true, baggage: true }
    }
}

impl Propagators {
    /// Reads comma-separated names; also returns those that are not supported.
    pub fn parse(list: &str) -> (Self, Vec<&str>) {
        let (mut found, mut unknown) = (Self { trace_context: false, baggage: false }, Vec::new());
        for name in list.split(',').map(str::trim) {
            match name.to_ascii_lowercase().as_str() {
                "tracecontext" => found.trace_context = true,
                "baggage" => found.baggage = true,
                "" | "none" => {}
                _ => unknown.push(name),
            }
        }
        (found, unknown)
    }

    /// The trace context in a call's headers. `header` returns the first value of a lower-case name.
    pub fn extract<'h>(self, header: impl Fn(&'static str) -> Option<&'h str>) -> Option<TraceContext> {
        let parent = header("traceparent").filter(|_| self.trace_context);
        TraceContext::parse(parent, header("tracestate"), header("baggage").filter(|_| self.baggage))
    }

    /// Variables that pass the trace context to a process.
    pub fn variables(self, context: &TraceContext) -> Vec<(&'static str, String)> {
        let parent = context.traceparent().filter(|_| self.trace_context);
        let state = Some(context.state.to_string()).filter(|_| parent.is_some());
        let baggage = Some(context.baggage.to_string()).filter(|_| self.baggage);
        let all = [("TRACEPARENT", parent), ("TRACESTATE", state), ("BAGGAGE", baggage)];
        all.into_iter().filter_map(|(name, text)| Some((name, text.filter(|text| !text.is_empty())?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADERS: [(&str, &str); 3] = [
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", "vendor=1"),
        ("baggage", "user=7"),
    ];

    fn extracted(list: &str) -> Option<TraceContext> {
        let header = |name: &str| HEADERS.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        Propagators::parse(list).0.extract(header)
    }

    #[test]
    fn only_listed_propagators_are_used() {
        let both = extracted("tracecontext, Baggage").unwrap();
        let variables = Propagators::default().variables(&both);
        let expected = HEADERS.map(|(_, value)| value.to_owned());
        assert_eq!(variables.iter().map(|(_, value)| value.clone()).collect::<Vec<_>>(), expected);
        assert_eq!(Propagators::parse("baggage").0.variables(&both), [("BAGGAGE", "user=7".to_owned())]);
        let baggage = extracted("baggage").unwrap();
        assert_eq!((baggage.has_span(), &*baggage.baggage), (false, "user=7"));
        assert_eq!(&*extracted("tracecontext").unwrap().baggage, "");
        assert_eq!(extracted("none"), None);
    }

    #[test]
    fn unsupported_names_are_returned() {
        assert_eq!(Propagators::parse("b3,baggage,xray").1, ["b3", "xray"]);
        assert_eq!(Propagators::parse("tracecontext,baggage"), (Propagators::default(), Vec::new()));
    }
}
