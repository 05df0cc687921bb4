//! Spans that have ended, on their way into a batch.

use opentelemetry::{Context, StringValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    SdkTracerProvider, ShouldSample, Span, SpanData, SpanExporter, SpanLimits, SpanProcessor,
};

use super::batch::{self, Queue};
use super::settings::Settings;

/// Makes spans that end in each of the queues.
pub(super) fn provider(
    queues: Vec<Queue<SpanData>>,
    settings: &Settings,
    resource: Resource,
    sampler: Box<dyn ShouldSample>,
) -> SdkTracerProvider {
    let bounds = settings.span_bounds;
    let usual = SpanLimits::default();
    let limits = SpanLimits {
        max_events_per_span: bounds.events.unwrap_or(usual.max_events_per_span),
        max_attributes_per_span: bounds.attributes.unwrap_or(usual.max_attributes_per_span),
        max_links_per_span: bounds.links.unwrap_or(usual.max_links_per_span),
        max_attributes_per_event: bounds.event_attributes.unwrap_or(usual.max_attributes_per_event),
        max_attributes_per_link: bounds.link_attributes.unwrap_or(usual.max_attributes_per_link),
    };
    let builder = SdkTracerProvider::builder().with_resource(resource).with_sampler(sampler).with_span_limits(limits);
    queues.into_iter().fold(builder, |builder, queue| builder.with_span_processor(Enqueue(queue))).build()
}

#[derive(Debug)]
struct Enqueue(Queue<SpanData>);

impl SpanProcessor for Enqueue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        // Recorded for a processor that looks at them, and not to be sent.
        if span.span_context.is_sampled() {
            self.0.put(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: std::time::Duration) -> OTelSdkResult {
        // The owner of the runtime closes the queue.
        Ok(())
    }
}

/// Sends batches of spans.
pub(super) struct Sink<E> {
    exporter: E,
    value_length: Option<usize>,
}

impl<E: SpanExporter> Sink<E> {
    pub fn new(mut exporter: E, resource: &Resource, value_length: Option<usize>) -> Self {
        exporter.set_resource(resource);
        Self { exporter, value_length }
    }
}

impl<E: SpanExporter + 'static> batch::Sink<SpanData> for Sink<E> {
    async fn send(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        if let Some(most) = self.value_length {
            for span in &mut batch {
                shorten(span, most);
            }
        }
        self.exporter.export(batch).await
    }
}

/// The library knows no bound for the length of texts.
fn shorten(span: &mut SpanData, most: usize) {
    let events = span.events.events.iter_mut().flat_map(|event| &mut event.attributes);
    let links = span.links.links.iter_mut().flat_map(|link| &mut link.attributes);
    for attribute in span.attributes.iter_mut().chain(events).chain(links) {
        if let Value::String(text) = &attribute.value
            && let Some((end, _)) = text.as_str().char_indices().nth(most)
        {
            attribute.value = Value::String(StringValue::from(text.as_str()[..end].to_owned()));
        }
    }
}
