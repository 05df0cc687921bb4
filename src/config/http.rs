//! `[http]`: callers that are no gRPC clients.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::Problems;
use super::units::Span;

/// `[http]`: JSON, browsers and plain routes on the same port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Time in which a connection must say what it speaks and send the headers of an HTTP/1.1 call, and
    /// for which such a connection may be idle, 100ms to 1h. Default 15s.
    pub header_timeout: Span,
}

impl Default for Http {
    fn default() -> Self {
        Self { header_timeout: Span(Duration::from_secs(15)) }
    }
}

impl Http {
    pub(super) fn check(&self, problems: &mut Problems) {
        let (least, most) = (Span(Duration::from_millis(100)), Span(Duration::from_hours(1)));
        problems.within("http.header_timeout", self.header_timeout, least, most);
    }
}
