//! What may stand in a file, and what becomes of it.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_sdk::metrics::Temporality;

use super::*;
use crate::telemetry::export::sampling::{Remote, Root, SamplerKind};
use crate::telemetry::export::settings::{Destination, ExemplarFilter, Protocol, Signal};

fn parsed(text: &str, variables: &[(&str, &str)]) -> Result<Settings, String> {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    parse(text, &variables.iter().map(pair).collect())
}

/// The starting point that the project OpenTelemetry gives to its users, version 1.1, shortened by its comments.
const USUAL: &str = include_str!("usual.yaml");

#[test]
fn the_usual_file_says_what_the_usual_variables_say() {
    let settings = parsed(USUAL, &[]).unwrap();
    let http = |signal: Signal| format!("http://localhost:4318/v1/{}", signal.name());
    for signal in Signal::ALL {
        let target = settings.targets(signal).next().unwrap();
        assert_eq!((&target.endpoint, target.protocol, target.gzip), (&http(signal), Protocol::Http, true));
        assert_eq!((target.timeout, &target.certificate), (Duration::from_secs(10), &None));
    }
    let [spans, records] = [&settings.traces[0], &settings.logs[0]].map(|route| route.batching);
    assert_eq!((spans.delay, records.delay), (Duration::from_secs(5), Duration::from_secs(1)));
    assert_eq!((spans.queue_max, spans.batch_max), (2_048, 512));
    assert_eq!((settings.span_bounds.attributes, settings.record_bounds.attributes), (Some(128), Some(128)));
    assert_eq!((settings.sampler, settings.exemplars), (SamplerKind::default(), ExemplarFilter::TraceBased));
    assert_eq!(settings.propagators, variables::propagators_of("tracecontext,baggage").0);
    assert_eq!(settings.attributes, [KeyValue::new("service.name", "unknown_service")]);
    assert_eq!((settings.log_level, settings.disabled), (Some("info"), false));
    assert_eq!(settings.warnings.len(), 1, "there is no instrumentation: {:?}", settings.warnings);
}

#[test]
fn variables_count_where_the_file_refers_to_them() {
    let said = [
        ("OTEL_SDK_DISABLED", "false"),
        ("OTEL_SERVICE_NAME", "1.10"),
        ("OTEL_RESOURCE_ATTRIBUTES", "team=a%20b,service.name=other"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0x10"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "api-key=secret"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta"),
        ("OTEL_TRACES_EXPORTER", "none"),
    ];
    let settings = parsed(USUAL, &said).unwrap();
    let target = settings.targets(Signal::Traces).next().unwrap();
    assert_eq!((&*target.endpoint, &target.headers["api-key"]), ("http://c:1/v1/traces", &"secret".parse().unwrap()));
    assert_eq!(settings.traces[0].batching.queue_max, 16);
    assert_eq!(settings.metrics[0].temporality, Temporality::Delta);
    let named: Vec<_> = settings.attributes.iter().map(|told| (told.key.as_str(), told.value.as_str())).collect();
    let told = [("team", "a b"), ("service.name", "other"), ("service.name", "1.10")];
    assert_eq!(named, told.map(|(key, value)| (key, value.into())), "the last one wins");
    assert!(parsed(USUAL, &[("OTEL_SDK_DISABLED", "true")]).unwrap().is_silent());
}

#[test]
fn what_is_not_provided_is_not_exported() {
    let settings = parsed("file_format: '1.0'", &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1")]).unwrap();
    assert!(settings.is_silent() && !settings.disabled);
    assert_eq!(settings.propagators, variables::propagators_of("").0);
}

#[test]
fn each_processor_and_reader_has_its_own_exporter() {
    let text = "
file_format: '1.1'
tracer_provider:
  processors:
    - simple: {exporter: {console: }}
    - batch:
        exporter:
          otlp_grpc:
            endpoint: collector:4317
            tls: {insecure: true}
            headers: [{name: Api-Key, value: a}, {name: gone, value: }]
            headers_list: api-key=b,other=c
            timeout: 0
  sampler: {parent_based: {root: {trace_id_ratio_based: {ratio: 0.5}}}}
meter_provider:
  readers:
    - pull: {exporter: {prometheus/development: {port: 9000}}}
    - periodic:
        interval: 100
        exporter:
          otlp_file/development:
            output_stream: file:///var/log/points.jsonl
            default_histogram_aggregation: base2_exponential_bucket_histogram
  exemplar_filter: always_on
resource:
  attributes: [{name: n, value: 7, type: int}, {name: l, value: [a, b], type: string_array}]
";
    let settings = parsed(text, &[]).unwrap();
    assert_eq!((&settings.traces[0].to, settings.traces[0].batching.batch_max), (&Destination::Lines(None), 1));
    let Destination::Collector(grpc) = &settings.traces[1].to else { panic!("{:?}", settings.traces) };
    assert_eq!((&*grpc.endpoint, grpc.protocol), ("http://collector:4317", Protocol::Grpc));
    assert_eq!((&grpc.headers["api-key"], &grpc.headers["other"]), (&"a".parse().unwrap(), &"c".parse().unwrap()));
    assert_eq!(grpc.headers.len(), 2);
    assert!(grpc.timeout > Duration::from_hours(24), "0 is no limit");
    assert_eq!(settings.sampler, SamplerKind { root: Root::Ratio(0.5), parent_based: true });
    assert_eq!(settings.prometheus, Some(("localhost".to_owned(), 9_000)));
    let points = &settings.metrics[0];
    assert_eq!(points.to, Destination::Lines(Some("/var/log/points.jsonl".into())));
    assert_eq!((points.interval, points.exponential), (Duration::from_millis(100), true));
    assert_eq!((settings.exemplars, settings.attributes.len()), (ExemplarFilter::AlwaysOn, 2));
    assert!(settings.logs.is_empty());
}

#[test]
fn a_sampling_server_may_decide() {
    let sampled = |sampler: &str| {
        let text = format!("{{file_format: '1.0', tracer_provider: {{processors: [], sampler: {sampler}}}}}");
        parsed(&text, &[]).map(|settings| settings.sampler)
    };
    let said = "{jaeger_remote/development: {endpoint: 'http://c:14250', initial_sampler: {always_on: }}}";
    let usual = Remote { endpoint: "http://c:14250".to_owned(), initial_share: 1.0, ..Remote::default() };
    let expected = SamplerKind { root: Root::JaegerRemote(usual.clone()), parent_based: false };
    assert_eq!(sampled(said), Ok(expected));
    let said = "{endpoint: 'http://c:14250', interval: 500, initial_sampler: {trace_id_ratio_based: {ratio: 0.5}}}";
    let often = Remote { interval: Duration::from_millis(500), initial_share: 0.5, ..usual };
    let expected = SamplerKind { root: Root::JaegerRemote(often), parent_based: true };
    assert_eq!(sampled(&format!("{{parent_based: {{root: {{jaeger_remote/development: {said}}}}}}}")), Ok(expected));
    for (said, place) in [
        ("{endpoint: 'c:14250', initial_sampler: {always_on: }}", ".endpoint: expected"),
        ("{endpoint: 'http://:14250', initial_sampler: {always_on: }}", ".endpoint: expected"),
        ("{endpoint: 'http://c', interval: 0, initial_sampler: {always_on: }}", ".interval: expected"),
        ("{endpoint: 'http://c', initial_sampler: {parent_based: }}", ".initial_sampler: a sampler that"),
        ("{endpoint: 'http://c'}", "initial_sampler"),
    ] {
        let error = sampled(&format!("{{jaeger_remote/development: {said}}}")).unwrap_err();
        assert!(error.contains("tracer_provider.sampler.jaeger_remote/development"), "{error}");
        assert!(error.contains(place), "{error}");
    }
}

#[test]
fn what_cannot_be_done_is_refused_by_its_place_and_shows_no_secret() {
    for (text, place) in [
        ("{", "line"),
        ("disabled: false", "file_format"),
        ("file_format: '2.0'", "file_format"),
        ("{file_format: '1.0', disabled: '${SECRET}'}", "disabled: expected true or false"),
        ("{file_format: '1.0', log_level: loud}", "log_level"),
        ("{file_format: '1.0', disabled: '${SECRET:?no}'}", "${SECRET:?no}"),
        ("{file_format: '1.0', tracer_provider: {processors: [{batch: {exporter: {jaeger: }}}]}}", "`jaeger`"),
        (
            "{file_format: '1.0', tracer_provider: {processors: [{batch: {schedule_delay: -1, exporter: {console: }}}]}}",
            "tracer_provider.processors[0].batch.schedule_delay: expected a whole number",
        ),
        (
            "{file_format: '1.0', tracer_provider: {processors: [{batch: {max_queue_size: 0, exporter: {console: }}}]}}",
            "tracer_provider.processors[0].batch.max_queue_size",
        ),
        (
            "{file_format: '1.0', tracer_provider: {processors: [], sampler: {parent_based: {local_parent_sampled: {always_off: }}}}}",
            "sampler.parent_based.local_parent_sampled",
        ),
        (
            "{file_format: '1.0', logger_provider: {processors: [{batch: {exporter: {otlp_http: {headers_list: '${SECRET}'}}}}]}}",
            "logger_provider.processors[0].batch.exporter.otlp_http.headers_list",
        ),
        (
            "{file_format: '1.0', logger_provider: {processors: [{batch: {exporter: {otlp_http: {compression: '${SECRET}'}}}}]}}",
            "otlp_http.compression",
        ),
        ("{file_format: '1.0', meter_provider: {readers: [], views: []}}", "meter_provider.views: unknown field"),
        ("{file_format: '1.0', resource: {attributes: [{name: a, value: 7}]}}", "resource.attributes[0].value"),
        ("{file_format: '1.0', resource: '${SECRET}'}", "resource: expected struct Resource"),
        ("{file_format: '${SECRET}'}", "file_format: expected"),
        (
            "{file_format: '1.0', resource: {attributes: [{name: a, type: '${SECRET}'}]}}",
            "resource.attributes[0].type: expected one of `string`",
        ),
        (
            "{file_format: '1.0', tracer_provider: {processors: [{batch: {exporter: '${SECRET}'}}]}}",
            "tracer_provider.processors[0].batch.exporter: expected one of `otlp_http`",
        ),
        (
            "{file_format: '1.0', tracer_provider: {processors: ['${SECRET}']}}",
            "tracer_provider.processors[0]: expected `batch` or `simple`",
        ),
        (
            "{file_format: '1.0', tracer_provider: {processors: [], sampler: '${SECRET}'}}",
            "tracer_provider.sampler: expected one of `always_on`",
        ),
        (
            "{file_format: '1.0', tracer_provider: {processors: [], sampler: {parent_based: {root: '${SECRET}'}}}}",
            "tracer_provider.sampler.parent_based.root: expected one of `always_on`",
        ),
        ("{file_format: '1.0', meter_provider: {readers: ['${SECRET}']}}", "meter_provider.readers[0]: expected"),
        (
            "{file_format: '1.0', meter_provider: {readers: [{pull: {exporter: '${SECRET}'}}]}}",
            "meter_provider.readers[0].pull.exporter: expected",
        ),
        ("{file_format: '1.0', meter_provider: {readers: [], exemplar_filter: '${SECRET}'}}", "exemplar_filter"),
        (
            "{file_format: '1.0', logger_provider: {processors: [{batch: {exporter: {otlp_http: {endpoint: '${SECRET}://'}}}}]}}",
            "logger_provider.processors[0].batch.exporter.otlp_http.endpoint: expected http://",
        ),
    ] {
        for secret in ["hush", "a, expected hush", "`hush`, expected hush"] {
            let error = parsed(text, &[("SECRET", secret)]).unwrap_err();
            assert!(error.contains(place) && !error.contains("hush"), "{text}: {error}");
        }
    }
}

#[test]
fn of_a_list_of_propagators_it_is_not_shown_which_one_is_not_known() {
    let warned = parsed("{file_format: '1.0', propagator: {composite_list: 'b3,${S}'}}", &[("S", "hush")]).unwrap();
    let [warning] = &warned.warnings[..] else { panic!("{:?}", warned.warnings) };
    assert!(warning.contains("composite_list") && !warning.contains("hush"), "{warning}");
    assert_eq!(warned.propagators, variables::propagators_of("b3").0);
}

#[test]
fn a_file_that_is_no_mapping_is_told_what_it_should_be() {
    for text in ["", "# nothing", "[a, b]", "'${S}'", "7"] {
        let error = parsed(text, &[("S", "hush")]).unwrap_err();
        assert_eq!(error, "expected a mapping with file_format", "{text}");
    }
}

#[test]
fn numbers_beyond_their_range_are_refused_with_it() {
    let reader = "meter_provider.readers[0]";
    let batch = "tracer_provider.processors[0].batch";
    for (text, error) in [
        (
            "meter_provider: {readers: [{periodic: {interval: 0, exporter: {console: }}}]}",
            format!("{reader}.periodic.interval: expected a whole number above 0"),
        ),
        (
            "meter_provider: {readers: [{pull: {exporter: {prometheus/development: {port: 70000}}}}]}",
            format!("{reader}.pull.exporter.prometheus/development.port: expected a whole number from 0 to 65535"),
        ),
        (
            "tracer_provider: {processors: [{batch: {max_queue_size: 1048577, exporter: {console: }}}]}",
            format!("{batch}.max_queue_size: expected a whole number from 1 to 1048576"),
        ),
        (
            "tracer_provider: {processors: [{batch: {max_export_batch_size: 0, exporter: {console: }}}]}",
            format!("{batch}.max_export_batch_size: expected a whole number from 1 to 1048576"),
        ),
    ] {
        assert_eq!(parsed(&format!("{{file_format: '1.0', {text}}}"), &[]), Err(error), "{text}");
    }
}

#[test]
fn what_a_variable_brings_is_read_as_the_value_that_it_spells() {
    let told = |kind: &str, value: &str| {
        let text =
            format!("{{file_format: '1.0', resource: {{attributes: [{{name: a, type: {kind}, value: {value}}}]}}}}");
        let variables = [("HEX", "0xdeadbeef"), ("OCTAL", "0o17"), ("TRUE", "True"), ("BELOW", "-7"), ("SHARE", "0.5")];
        parsed(&text, &[&variables[..], &[("SIGN", "0x+1"), ("LARGE", "18446744073709551615")]].concat())
            .map(|settings| settings.attributes[0].value.clone())
    };
    assert_eq!(told("int", "'${HEX}'"), Ok(3_735_928_559_i64.into()));
    assert_eq!(told("int", "0xdeadbeef"), Ok(3_735_928_559_i64.into()));
    assert_eq!(told("int", "'${OCTAL}'"), Ok(15.into()));
    assert_eq!(told("int", "'${BELOW}'"), Ok((-7).into()));
    assert_eq!(told("bool", "'${TRUE}'"), Ok(true.into()));
    assert_eq!(told("double", "'${SHARE}'"), Ok(0.5.into()));
    assert_eq!(told("double", "'${HEX}'"), Ok(3_735_928_559_f64.into()));
    for (kind, value) in [("int", "'${SIGN}'"), ("int", "'${LARGE}'"), ("int", "'${SHARE}'"), ("bool", "'${HEX}'")] {
        let error = told(kind, value).unwrap_err();
        assert!(error.starts_with("resource.attributes[0].value: expected"), "{error}");
    }
}

#[test]
fn an_endpoint_that_cannot_be_used_is_refused_by_its_place() {
    for (exporter, endpoint) in [
        ("otlp_grpc", "ftp://x"),
        ("otlp_grpc", "://x:4317"),
        ("otlp_grpc", "me:hush@bad host"),
        ("otlp_http", "http://:4318"),
        ("otlp_http", ""),
    ] {
        let text = format!(
            "{{file_format: '1.0', tracer_provider: {{processors: [{{batch: {{exporter: {{{exporter}: {{endpoint: '{endpoint}'}}}}}}}}]}}}}"
        );
        let error = parsed(&text, &[]).unwrap_err();
        let place = format!("tracer_provider.processors[0].batch.exporter.{exporter}.endpoint: expected http://host");
        assert!(error.starts_with(&place) && !error.contains("hush"), "{error}");
    }
}

#[test]
fn the_fields_at_the_top_are_those_of_the_document() {
    let error = serde_json::from_str::<Document>("{\"?\": 0}").unwrap_err().to_string();
    let listed = Document::FIELDS.map(|field| format!("`{field}`")).join(", ");
    assert!(error.contains(&format!("expected one of {listed} at")), "{error}");
}
