//! Reads what a collector has rejected of an export that it accepted otherwise (`partial_success` of OTLP).
//!
//! The OTLP library only logs such an answer, in the thread and before the end of the export.

use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::counts::Counts;
use super::settings::Signal;

pub struct Rejections {
    pub counts: [Arc<Counts>; 3],
}

impl Rejections {
    /// Whether these events of the OTLP library are about a partial success.
    pub fn are_in(metadata: &Metadata<'_>) -> bool {
        metadata.target() == "opentelemetry-otlp" && metadata.name().ends_with(".PartialSuccess")
    }
}

impl<S: Subscriber> Layer<S> for Rejections {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut found = Found::default();
        event.record(&mut found);
        if let Some((signal, items)) = found.rejected {
            self.counts[signal as usize].set_rejected(u64::try_from(items).unwrap_or(0), found.message);
        }
    }
}

#[derive(Default)]
struct Found {
    rejected: Option<(Signal, i64)>,
    message: String,
}

impl Visit for Found {
    fn record_i64(&mut self, field: &Field, value: i64) {
        let signal = match field.name() {
            "rejected_spans" => Signal::Traces,
            "rejected_data_points" => Signal::Metrics,
            "rejected_log_records" => Signal::Logs,
            _ => return,
        };
        self.rejected = Some((signal, value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "error_message" {
            value.clone_into(&mut self.message);
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn std::fmt::Debug) {}
}
