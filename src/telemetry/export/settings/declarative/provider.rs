//! What the file says about spans, points and log records, as settings.

use std::path::PathBuf;
use std::time::Duration;

use opentelemetry_sdk::metrics::Temporality;

use super::document::{
    Batch, Exporter, JaegerRemote, Limits, LoggerProvider, MeterProvider, Otlp, OtlpFile, ParentBased, Periodic,
    Processor, Prometheus, PullExporter, Ratio, Reader, Sampler, Simple, Tls, TracerProvider, Whole,
};
use crate::telemetry::export::sampling::{Remote, Root, SamplerKind};
use crate::telemetry::export::settings::{
    Batching, Destination, ExemplarFilter, MetricRoute, NO_LIMIT, Protocol, RecordBounds, Route, Settings, Signal,
    SpanBounds, Target, otlp,
};

/// An error, by the path of what it is about.
type Refused = String;

pub(super) fn traces(settings: &mut Settings, said: TracerProvider, all: Limits) -> Result<(), Refused> {
    settings.traces = routes(said.processors, Signal::Traces, 5_000)?;
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
    settings.logs = routes(said.processors, Signal::Logs, 1_000)?;
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
                let port = port.map_or(Ok(9_464), |port| u16::try_from(port.0));
                let port = port.map_err(|_| format!("{path}.pull.exporter.prometheus/development.port: too large"))?;
                settings.prometheus = Some((host.unwrap_or_else(|| "localhost".to_owned()), port));
            }
        }
    }
    settings.exemplars = match said.exemplar_filter.as_deref() {
        None | Some("trace_based") => ExemplarFilter::TraceBased,
        Some("always_on") => ExemplarFilter::AlwaysOn,
        Some("always_off") => ExemplarFilter::AlwaysOff,
        Some(_) => return Err("meter_provider.exemplar_filter: expected trace_based, always_on or always_off".into()),
    };
    Ok(())
}

fn metric_route(said: Periodic, path: &str) -> Result<MetricRoute, Refused> {
    let path = format!("{path}.periodic.exporter");
    let (temporality, aggregation) = match &said.exporter {
        Exporter::OtlpHttp(Some(otlp)) | Exporter::OtlpGrpc(Some(otlp)) => {
            (otlp.temporality_preference.as_deref(), otlp.default_histogram_aggregation.as_deref())
        }
        Exporter::OtlpFile(Some(file)) => {
            (file.temporality_preference.as_deref(), file.default_histogram_aggregation.as_deref())
        }
        Exporter::Console(Some(console)) => {
            (console.temporality_preference.as_deref(), console.default_histogram_aggregation.as_deref())
        }
        _ => (None, None),
    };
    let temporality = match temporality {
        None | Some("cumulative") => Temporality::Cumulative,
        Some("delta") => Temporality::Delta,
        Some("low_memory") => Temporality::LowMemory,
        Some(_) => return Err(format!("{path}.temporality_preference: expected cumulative, delta or low_memory")),
    };
    let exponential = match aggregation {
        None | Some("explicit_bucket_histogram") => false,
        Some("base2_exponential_bucket_histogram") => true,
        Some(_) => {
            let known = "explicit_bucket_histogram or base2_exponential_bucket_histogram";
            return Err(format!("{path}.default_histogram_aggregation: expected {known}"));
        }
    };
    Ok(MetricRoute {
        interval: millis(said.interval, 60_000).max(Duration::from_millis(1)),
        timeout: timeout(said.timeout, 30_000),
        temporality,
        exponential,
        to: destination(said.exporter, Signal::Metrics, &path)?,
    })
}

/// `delay` is that of a batch, in milliseconds, when nobody says otherwise.
fn routes(said: Vec<Processor>, signal: Signal, delay: u64) -> Result<Vec<Route>, Refused> {
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
                let timeout = Duration::from_secs(30);
                let batching = Batching { delay: Duration::ZERO, timeout, queue_max: 2_048, batch_max: 1 };
                Ok(Route { to: destination(exporter, signal, &format!("{path}.simple.exporter"))?, batching })
            }
        }
    };
    said.into_iter().enumerate().map(route).collect()
}

fn batching(said: &Batch, delay: u64, path: &str) -> Result<Batching, Refused> {
    let positive = |said: Option<Whole>, usual: usize, field: &str| match size(said) {
        Some(0) => Err(format!("{path}.batch.{field}: expected a whole number above 0")),
        said => Ok(said.unwrap_or(usual).min(1 << 20)),
    };
    let queue_max = positive(said.max_queue_size, 2_048, "max_queue_size")?;
    let batch_max = positive(said.max_export_batch_size, 512, "max_export_batch_size")?;
    Ok(Batching {
        delay: millis(said.schedule_delay, delay),
        timeout: timeout(said.export_timeout, 30_000),
        queue_max,
        batch_max: batch_max.min(queue_max),
    })
}

fn destination(said: Exporter, signal: Signal, path: &str) -> Result<Destination, Refused> {
    match said {
        Exporter::OtlpHttp(said) => {
            let path = format!("{path}.otlp_http");
            let said = said.unwrap_or_default();
            let protocol = match said.encoding.as_deref() {
                None | Some("protobuf") => Protocol::Http,
                Some("json") => Protocol::HttpJson,
                Some(_) => return Err(format!("{path}.encoding: expected protobuf or json")),
            };
            let usual = format!("{}/v1/{}", otlp::HTTP, signal.name());
            Ok(Destination::Collector(target(said, protocol, usual, &path)?))
        }
        Exporter::OtlpGrpc(said) => {
            let path = format!("{path}.otlp_grpc");
            let target = target(said.unwrap_or_default(), Protocol::Grpc, otlp::GRPC.to_owned(), &path)?;
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

fn target(said: Otlp, protocol: Protocol, usual: String, path: &str) -> Result<Target, Refused> {
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
    let gzip = match said.compression.as_deref() {
        None | Some("none") => false,
        Some("gzip") => true,
        Some(_) => return Err(refused("compression", "expected gzip or none")),
    };
    let insecure = insecure.is_some_and(|insecure| insecure.0);
    Ok(Target {
        protocol,
        endpoint: otlp::with_scheme(said.endpoint.unwrap_or(usual), protocol, insecure),
        headers,
        gzip,
        timeout: timeout(said.timeout, 10_000),
        certificate: ca_file.map(PathBuf::from),
        identity: cert_file.map(PathBuf::from).zip(key_file.map(PathBuf::from)),
    })
}

fn sampler(said: &Sampler) -> Result<SamplerKind, Refused> {
    let path = "tracer_provider.sampler";
    match said {
        Sampler::ParentBased(said) => {
            let usual = ParentBased::default();
            let said = said.as_deref().unwrap_or(&usual);
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
    let usual = Remote::default();
    let initial_share = match root(&said.initial_sampler, &format!("{path}.initial_sampler"))? {
        Root::On => 1.0,
        Root::Off => 0.0,
        Root::Ratio(share) => share,
        Root::JaegerRemote(_) => {
            return Err(format!("{path}.initial_sampler: expected always_on, always_off or trace_id_ratio_based"));
        }
    };
    let endpoint = said.endpoint.clone();
    if !Remote::is_endpoint(&endpoint) {
        return Err(format!("{path}.endpoint: expected http://host:port or https://host:port"));
    }
    let interval = said.interval.map_or(usual.interval, |millis| Duration::from_millis(millis.0));
    if interval.is_zero() {
        return Err(format!("{path}.interval: expected at least 1"));
    }
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

fn millis(said: Option<Whole>, usual: u64) -> Duration {
    Duration::from_millis(said.map_or(usual, |said| said.0)).min(NO_LIMIT)
}

/// 0 is no limit.
fn timeout(said: Option<Whole>, usual: u64) -> Duration {
    let timeout = millis(said, usual);
    if timeout.is_zero() { NO_LIMIT } else { timeout }
}

fn count(said: Option<Whole>) -> Option<u32> {
    said.map(|said| u32::try_from(said.0).unwrap_or(u32::MAX))
}

fn size(said: Option<Whole>) -> Option<usize> {
    said.map(|said| usize::try_from(said.0).unwrap_or(usize::MAX))
}
