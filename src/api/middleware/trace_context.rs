//! Reads the caller's trace context from the headers of a call.

use std::cell::OnceCell;

use tonic::codegen::http::{HeaderMap, HeaderValue};

use crate::model::TraceContext;
use crate::telemetry::propagation;

/// `None` without a valid trace context in one of the configured propagation formats.
pub fn extract(headers: &HeaderMap) -> Option<TraceContext> {
    let (states, baggages) = (OnceCell::new(), OnceCell::new());
    propagation::installed().extract(|name| {
        let mut lines = headers.get_all(name).iter();
        let first = lines.next()?;
        let joined_lines = match name {
            "tracestate" => &states,
            "baggage" => &baggages,
            _ => return first.to_str().ok(),
        };
        if lines.next().is_none() {
            first.to_str().ok()
        } else {
            joined_lines.get_or_init(|| joined(headers, name)).as_deref()
        }
    })
}

/// Several lines of a list header mean the same as one line with commas. `None` if one of them is malformed.
fn joined(headers: &HeaderMap, name: &str) -> Option<String> {
    let lines: Result<Vec<_>, _> = headers.get_all(name).iter().map(HeaderValue::to_str).collect();
    lines.ok().map(|lines| lines.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_may_span_several_lines() {
        let read = |lists: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            headers.append("traceparent", super::super::test_support::TRACEPARENT.parse().unwrap());
            for (name, value) in lists {
                headers.append(*name, value.parse().unwrap());
            }
            let context = extract(&headers).unwrap();
            (context.state.to_string(), context.baggage.to_string())
        };
        let lines = [("tracestate", "a=1"), ("baggage", "user=7"), ("tracestate", "b=2,c=3"), ("baggage", "at=8")];
        assert_eq!(read(&lines), ("a=1,b=2,c=3".to_owned(), "user=7,at=8".to_owned()));
        assert_eq!(read(&lines[..2]), ("a=1".to_owned(), "user=7".to_owned()));
        let malformed = [("tracestate", "a=1"), ("tracestate", "b=\u{e4}"), ("baggage", "user=7")];
        assert_eq!(read(&malformed), (String::new(), "user=7".to_owned()));
    }
}
