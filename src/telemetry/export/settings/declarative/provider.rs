//! What the file says about spans, points and log records, as settings.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use opentelemetry_sdk::metrics::Temporality;

use super::document::{
    Batch, Exporter, JaegerRemote, Limits, LoggerProvider, MeterProvider, Otlp, OtlpFile, ParentBased, Periodic,
    Processor, Prometheus, PullExporter, Ratio, Reader, Sampler, Simple, Tls, TracerProvider, Whole,
};
use crate::telemetry::export::sampling::{Remote, Root, SamplerKind};
use crate::telemetry::export::settings::words::{self, Words};
use crate::telemetry::export::settings::{
    Batching, Destination, MetricRoute, Protocol, QUEUE_MAX, RecordBounds, Route, Settings, Signal, SpanBounds, Target,
    endpoint, otlp, usual, variables,
};

/// An error, by the path of what it is about.
type Refused = String;

pub(super) fn traces(settings: &mut Settings, said: TracerProvider, all: Limits) -> Result<(), Refused> {
    settings.traces = routes(said.processors, Signal::Traces, usual::SPAN_DELAY)?;
    settings.sampler = said.sampler.as_ref().map_or_else(|| Ok(SamplerKind::default()), sampler)?;
    let own = said.limits.unwrap_or_default();
    let attributes = count(own.attribute_count_limit.or(all.attribute_count_limit));
    settings.span_bounds = SpanBounds {
        attributes,
        events: count(own.event_count_limit),
        links: count(own.link_count_limit),
        event_attributes: count(own.event_attribute_count_limit).or(count(all.attribute_count_limit)),
        link_attributes: count(own.link_attribute_count_limit).or(count(all.attribute_count_limit)),
        value_length: size(own.attribute_value_length_limit.or(all.attribute_value_length_limit)),
    };
    Ok(())
}

pub(super) fn logs(settings: &mut Settings, said: LoggerProvider, all: Limits) -> Result<(), Refused> {
    settings.logs = routes(said.processors, Signal::Logs, usual::RECORD_DELAY)?;
    let own = said.limits.unwrap_or_default();
    settings.record_bounds = RecordBounds {
        attributes: size(own.attribute_count_limit.or(all.attribute_count_limit)),
        value_length: size(own.attribute_value_length_limit.or(all.attribute_value_length_limit)),
    };
    Ok(())
}

pub(super) fn metrics(settings: &mut Settings, said: MeterProvider) -> Result<(), Refused> {
    for (at, reader) in said.readers.into_iter().enumerate() {
        let path = format!("meter_provider.readers[{at}]");
        match reader {
            Reader::Periodic(periodic) => settings.metrics.push(metric_route(*periodic, &path)?),
            Reader::Pull(pull) => {
                let PullExporter::Prometheus(said) = pull.exporter;
                let Prometheus { host, port } = said.unwrap_or_default();
                let path = format!("{path}.pull.exporter.prometheus/development");
                let port = within(port, 0..=u16::MAX.into(), &path, "port")?;
                settings.prometheus = Some(usual::prometheus(host, port));
            }
        }
    }
    let filter = meaning(said.exemplar_filter.as_deref(), words::EXEMPLAR_FILTERS, "meter_provider.exemplar_filter")?;
    settings.exemplars = filter.unwrap_or_default();
    Ok(())
}

/// What a word stands for, if there is one.
fn meaning<T: Copy>(said: Option<&str>, words: &Words<T>, path: &str) -> Result<Option<T>, Refused> {
    let found = said.map(|said| words::meaning(said, words)).transpose();
    found.map_err(|why| format!("{path}: {why}"))
}

fn metric_route(said: Periodic, path: &str) -> Result<MetricRoute, Refused> {
    let interval = within(said.interval, 1..=u64::MAX, &format!("{path}.periodic"), "interval")?;
    let path = format!("{path}.periodic.exporter");
    let (temporality, aggregation) = said.exporter.preferences();
    let place = |field: &str| format!("{path}.{}.{field}", said.exporter.name());
    let temporality = meaning(temporality, words::TEMPORALITIES, &place("temporality_preference"))?;
    let exponential = meaning(aggregation, words::AGGREGATIONS, &place("default_histogram_aggregation"))?;
    Ok(MetricRoute {
        interval: interval.map_or(usual::METRIC_INTERVAL, usual::millis),
        timeout: timeout(said.timeout, usual::BATCH_TIMEOUT),
        temporality: temporality.unwrap_or(Temporality::Cumulative),
        exponential: exponential.unwrap_or(false),
        to: destination(said.exporter, Signal::Metrics, &path)?,
    })
}

/// `delay` is that of a batch when nobody says otherwise.
fn routes(said: Vec<Processor>, signal: Signal, delay: Duration) -> Result<Vec<Route>, Refused> {
    let provider = if signal == Signal::Traces { "tracer_provider" } else { "logger_provider" };
    let route = |(at, processor)| {
        let path = format!("{provider}.processors[{at}]");
        match processor {
            Processor::Batch(said) => {
                let batching = batching(&said, delay, &path)?;
                Ok(Route { to: destination(said.exporter, signal, &format!("{path}.batch.exporter"))?, batching })
            }
            // Nobody here waits for an export; but each is sent at once.
            Processor::Simple(Simple { exporter }) => {
                let (timeout, queue_max) = (usual::BATCH_TIMEOUT, usual::QUEUE);
                let batching = Batching { delay: Duration::ZERO, timeout, queue_max, batch_max: 1 };
                Ok(Route { to: destination(exporter, signal, &format!("{path}.simple.exporter"))?, batching })
            }
        }
    };
    said.into_iter().enumerate().map(route).collect()
}

fn batching(said: &Batch, delay: Duration, path: &str) -> Result<Batching, Refused> {
    let path = format!("{path}.batch");
    let items = |said: Option<Whole>, field: &str| within(said, 1..=QUEUE_MAX, &path, field);
    let queue_max = items(said.max_queue_size, "max_queue_size")?.map_or(usual::QUEUE, usual::size);
    let batch_max = items(said.max_export_batch_size, "max_export_batch_size")?.map_or(usual::BATCH, usual::size);
    Ok(Batching {
        delay: millis(said.schedule_delay, delay),
        timeout: timeout(said.export_timeout, usual::BATCH_TIMEOUT),
        queue_max,
        batch_max: batch_max.min(queue_max),
    })
}

fn destination(said: Exporter, signal: Signal, path: &str) -> Result<Destination, Refused> {
    match said {
        Exporter::OtlpHttp(said) => {
            let path = format!("{path}.otlp_http");
            let said = said.unwrap_or_default();
            let protocol = meaning(said.encoding.as_deref(), words::ENCODINGS, &format!("{path}.encoding"))?;
            let otherwise = endpoint::of_signal(usual::HTTP, signal);
            Ok(Destination::Collector(target(said, protocol.unwrap_or(Protocol::Http), otherwise, &path)?))
        }
        Exporter::OtlpGrpc(said) => {
            let path = format!("{path}.otlp_grpc");
            let target = target(said.unwrap_or_default(), Protocol::Grpc, usual::GRPC.to_owned(), &path)?;
            Ok(Destination::Collector(target))
        }
        Exporter::OtlpFile(said) => match said.and_then(|OtlpFile { output_stream, .. }| output_stream).as_deref() {
            None | Some("stdout") => Ok(Destination::Lines(None)),
            Some(stream) => {
                let file = stream.strip_prefix("file://").filter(|file| !file.is_empty());
                let refused = format!("{path}.otlp_file/development.output_stream: expected stdout or file:///path");
                Ok(Destination::Lines(Some(file.ok_or(refused)?.into())))
            }
        },
        Exporter::Console(_) => Ok(Destination::Lines(None)),
    }
}

fn target(said: Otlp, protocol: Protocol, otherwise: String, path: &str) -> Result<Target, Refused> {
    let refused = |field: &str, why: &str| format!("{path}.{field}: {why}");
    let Tls { ca_file, key_file, cert_file, insecure } = said.tls.unwrap_or_default();
    if key_file.is_some() != cert_file.is_some() {
        return Err(refused("tls", "key_file and cert_file go together"));
    }
    let listed = said.headers_list.as_deref().unwrap_or_default();
    let (mut headers, all) = otlp::header_list(listed);
    if !all {
        return Err(refused("headers_list", "expected key=value pairs with commas between them"));
    }
    for (at, header) in said.headers.unwrap_or_default().into_iter().enumerate() {
        let Some(value) = header.value else { continue };
        let malformed = || refused(&format!("headers[{at}]"), "no such header can be sent");
        let (name, value) = otlp::header(&header.name, &value).ok_or_else(malformed)?;
        headers.insert(name, value);
    }
    let gzip = meaning(said.compression.as_deref(), words::COMPRESSIONS, &format!("{path}.compression"))?;
    let insecure = insecure.is_some_and(|insecure| insecure.0);
    let endpoint = endpoint::with_scheme(&said.endpoint.unwrap_or(otherwise), protocol, insecure);
    if !endpoint::is_endpoint(&endpoint) {
        return Err(refused("endpoint", endpoint::EXPECTED));
    }
    Ok(Target {
        protocol,
        endpoint,
        headers,
        gzip: gzip.unwrap_or(false),
        timeout: timeout(said.timeout, usual::CALL_TIMEOUT),
        certificate: ca_file.map(PathBuf::from),
        identity: cert_file.map(PathBuf::from).zip(key_file.map(PathBuf::from)),
    })
}

fn sampler(said: &Sampler) -> Result<SamplerKind, Refused> {
    let path = "tracer_provider.sampler";
    match said {
        Sampler::ParentBased(said) => {
            let otherwise = ParentBased::default();
            let said = said.as_deref().unwrap_or(&otherwise);
            check_followed(said).map_err(|field| {
                format!("{path}.parent_based.{field}: only the default is supported, which follows the parent")
            })?;
            let root =
                said.root.as_ref().map_or(Ok(Root::On), |said| root(said, &format!("{path}.parent_based.root")))?;
            Ok(SamplerKind { root, parent_based: true })
        }
        said => Ok(SamplerKind { root: root(said, path)?, parent_based: false }),
    }
}

fn root(said: &Sampler, path: &str) -> Result<Root, Refused> {
    match said {
        Sampler::AlwaysOn(_) => Ok(Root::On),
        Sampler::AlwaysOff(_) => Ok(Root::Off),
        Sampler::TraceIdRatioBased(said) | Sampler::Probability(said) => {
            let Ratio { ratio } = said.unwrap_or_default();
            let ratio = ratio.map_or(1.0, |ratio| ratio.0);
            let known = (0.0..=1.0).contains(&ratio);
            known.then_some(Root::Ratio(ratio)).ok_or_else(|| format!("{path}: expected a ratio from 0 to 1"))
        }
        Sampler::JaegerRemote(said) => remote(said, &format!("{path}.jaeger_remote/development")),
        Sampler::ParentBased(_) => Err(format!("{path}: a sampler that is parent_based cannot stand here")),
    }
}

fn remote(said: &JaegerRemote, path: &str) -> Result<Root, Refused> {
    let initial_share = match root(&said.initial_sampler, &format!("{path}.initial_sampler"))? {
        Root::On => 1.0,
        Root::Off => 0.0,
        Root::Ratio(share) => share,
        Root::JaegerRemote(_) => {
            return Err(format!("{path}.initial_sampler: expected always_on, always_off or trace_id_ratio_based"));
        }
    };
    let endpoint = said.endpoint.clone();
    if !endpoint::is_endpoint(&endpoint) {
        return Err(format!("{path}.endpoint: {}", endpoint::EXPECTED));
    }
    let interval = within(said.interval, 1..=u64::MAX, path, "interval")?;
    let interval = interval.map_or(Remote::default().interval, Duration::from_millis);
    Ok(Root::JaegerRemote(Remote { endpoint, interval, initial_share }))
}

/// The field that says something else than that the parent is followed.
fn check_followed(said: &ParentBased) -> Result<(), &'static str> {
    let on = |said: &Option<Sampler>| matches!(said, None | Some(Sampler::AlwaysOn(_)));
    let off = |said: &Option<Sampler>| matches!(said, None | Some(Sampler::AlwaysOff(_)));
    for (field, follows) in [
        ("remote_parent_sampled", on(&said.remote_parent_sampled)),
        ("remote_parent_not_sampled", off(&said.remote_parent_not_sampled)),
        ("local_parent_sampled", on(&said.local_parent_sampled)),
        ("local_parent_not_sampled", off(&said.local_parent_not_sampled)),
    ] {
        if !follows {
            return Err(field);
        }
    }
    Ok(())
}

/// A whole number of a range, if there is one.
fn within(said: Option<Whole>, range: RangeInclusive<u64>, path: &str, field: &str) -> Result<Option<u64>, Refused> {
    match said {
        Some(Whole(said)) if !range.contains(&said) => {
            Err(format!("{path}.{field}: {}", variables::expected(&range, said > *range.end())))
        }
        said => Ok(said.map(|said| said.0)),
    }
}

fn millis(said: Option<Whole>, otherwise: Duration) -> Duration {
    said.map_or(otherwise, |said| usual::millis(said.0))
}

/// 0 is no limit.
fn timeout(said: Option<Whole>, otherwise: Duration) -> Duration {
    said.map_or(otherwise, |said| usual::timeout(said.0))
}

fn count(said: Option<Whole>) -> Option<u32> {
    said.map(|said| usual::count(said.0))
}

fn size(said: Option<Whole>) -> Option<usize> {
    said.map(|said| usual::size(said.0))
}
