//! The variables, and which of them wins.

use super::*;
use crate::telemetry::propagation::Format;

fn read(variables: &[(&str, &str)]) -> Settings {
    configured(variables, "", "")
}

fn configured(variables: &[(&str, &str)], endpoint: &str, protocol: &str) -> Settings {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Settings::read(&variables, endpoint, protocol).unwrap()
}

fn endpoints(settings: &Settings) -> [Option<&str>; 3] {
    Signal::ALL.map(|signal| settings.targets(signal).next().map(|target| target.endpoint.as_str()))
}

fn target(settings: &Settings, signal: Signal) -> &Target {
    settings.targets(signal).next().unwrap()
}

#[test]
fn nothing_is_exported_unless_somebody_says_so() {
    let settings = read(&[("OTEL_SERVICE_NAME", "tasks"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "  ")]);
    assert_eq!(endpoints(&settings), [None, None, None]);
    assert_eq!(settings.attributes, [KeyValue::new("service.name", "tasks")]);
    assert!(settings.is_silent());
    assert_eq!(settings.warnings, [""; 0]);
}

#[test]
fn one_endpoint_is_for_all_signals_and_gets_their_paths_over_http() {
    let http = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/")]);
    let paths =
        ["http://collector:4318/v1/traces", "http://collector:4318/v1/metrics", "http://collector:4318/v1/logs"];
    assert_eq!(endpoints(&http), paths.map(Some));
    assert_eq!(target(&http, Signal::Traces).protocol, Protocol::Http);

    let grpc = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317")]);
    assert_eq!(endpoints(&grpc), [Some("http://collector:4317"); 3]);
    assert_eq!(target(&grpc, Signal::Logs).protocol, Protocol::Grpc);
}

#[test]
fn the_paths_of_signals_come_before_a_query() {
    let settings = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h/base/?key=a/b")]);
    let paths = ["traces", "metrics", "logs"].map(|signal| format!("http://h/base/v1/{signal}?key=a/b"));
    assert_eq!(endpoints(&settings), paths.each_ref().map(|path| Some(path.as_str())));
    let grpc = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:4317/?key=1")]);
    assert_eq!(target(&grpc, Signal::Logs).protocol, Protocol::Grpc);
}

#[test]
fn an_endpoint_that_cannot_be_used_is_ignored_and_not_shown() {
    for wrong in [
        "ftp://hush",
        "://hush:4317",
        "http://:4318",
        "http://me:hush@",
        "http://me:hush@bad host",
        "http://hush:99999",
    ] {
        let named = ("OTEL_EXPORTER_OTLP_ENDPOINT", wrong);
        let settings = read(&[named]);
        assert!(settings.is_silent(), "{wrong}: {settings:?}");
        let [warning] = &settings.warnings[..] else { panic!("{wrong}: {:?}", settings.warnings) };
        assert!(warning.starts_with("OTEL_EXPORTER_OTLP_ENDPOINT is ignored: expected http://"), "{warning}");
        assert!(!warning.contains("hush"), "{warning}");
        // Somebody has named another place than this machine.
        let settings = read(&[named, ("OTEL_TRACES_EXPORTER", "otlp,console")]);
        assert_eq!(settings.destinations(Signal::Traces), [&Destination::Lines(None)], "{wrong}");
        // What is named besides counts.
        let settings = read(&[named, ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://c:4318/logs")]);
        assert_eq!(endpoints(&settings), [None, None, Some("http://c:4318/logs")], "{wrong}");
        let own = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", wrong);
        let settings = read(&[own, ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317")]);
        assert_eq!(endpoints(&settings), [Some("http://c:4317"); 3], "{wrong}");
        assert_eq!(settings.warnings.len(), 1, "{wrong}");
        let configured = configured(&[], wrong, "");
        assert!(
            configured.is_silent() && configured.warnings[0].starts_with("telemetry.endpoint is ignored"),
            "{wrong}"
        );
    }
    for wrong in ["nonsense", "http://", "ftp://z"] {
        let settings = read(&[("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_EXPORTER_ZIPKIN_ENDPOINT", wrong)]);
        assert!(settings.is_silent(), "{wrong}");
        assert!(
            settings.warnings[0].starts_with("OTEL_EXPORTER_ZIPKIN_ENDPOINT is ignored"),
            "{:?}",
            settings.warnings
        );
    }
    let fine = ["http://[::1]:4318", "https://me:word@c", "http://c:4317/path"];
    assert!(fine.iter().all(|fine| !read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", fine)]).is_silent()));
}

#[test]
fn a_list_of_exporters_of_which_none_is_known_is_as_none() {
    for listed in ["otlpp", ",", "jaeger,xray"] {
        let settings = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"), ("OTEL_TRACES_EXPORTER", listed)]);
        assert_eq!(endpoints(&settings)[0], Some("http://c:4317"), "{listed}");
        let [warning] = &settings.warnings[..] else { panic!("{listed}: {:?}", settings.warnings) };
        assert!(warning.starts_with("OTEL_TRACES_EXPORTER is ignored: "), "{warning}");
        assert!(read(&[("OTEL_TRACES_EXPORTER", listed)]).is_silent(), "{listed}");
    }
    let partly = read(&[("OTEL_LOGS_EXPORTER", "otlpp,none"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317")]);
    assert_eq!(endpoints(&partly)[2], None);
    assert!(partly.warnings[0].starts_with("a part of OTEL_LOGS_EXPORTER is ignored: "), "{:?}", partly.warnings);
}

#[test]
fn numbers_out_of_range_are_told_the_range() {
    let any = "from 0 to 18446744073709551615";
    for (name, value, range) in [
        ("OTEL_EXPORTER_PROMETHEUS_PORT", "70000", "from 0 to 65535"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0", "above 0"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "99999999999999999999", "from 1 to 18446744073709551615"),
        ("OTEL_BSP_SCHEDULE_DELAY", "99999999999999999999", any),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "above 0"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1", "that is not negative"),
        ("OTEL_EXPORTER_PROMETHEUS_PORT", "http", "from 0 to 65535"),
    ] {
        let settings =
            read(&[(name, value), ("OTEL_TRACES_EXPORTER", "otlp"), ("OTEL_METRICS_EXPORTER", "prometheus,otlp")]);
        assert_eq!(settings.warnings, [format!("{name} is ignored: expected a whole number {range}")], "{value}");
        assert_eq!(settings.metrics[0].interval, Duration::from_mins(1));
    }
    let large = read(&[
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "5000000000"),
        ("OTEL_TRACES_EXPORTER", "otlp"),
        ("OTEL_METRICS_EXPORTER", "otlp"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "18446744073709551615"),
    ]);
    assert_eq!((large.span_bounds.events, &large.warnings[..]), (Some(u32::MAX), &[][..]));
    assert_eq!(large.metrics[0].interval, usual::NO_LIMIT);
    let queue = read(&[("OTEL_BLRP_MAX_QUEUE_SIZE", "2000000"), ("OTEL_LOGS_EXPORTER", "otlp")]);
    assert_eq!(queue.logs[0].batching.queue_max, 1_048_576);
    assert_eq!(queue.warnings, ["OTEL_BLRP_MAX_QUEUE_SIZE is more than a queue may hold: it holds 1048576"]);
}

#[test]
fn attributes_that_are_not_encoded_as_specified_are_discarded_as_a_whole() {
    for wrong in ["a=%ZZ,b=1", "b=1,a=%4", "a=100%", "a=%FF", "%+1=a"] {
        let settings = read(&[("OTEL_RESOURCE_ATTRIBUTES", wrong)]);
        assert_eq!(settings.attributes, [], "{wrong}");
        assert!(settings.warnings[0].starts_with("OTEL_RESOURCE_ATTRIBUTES is ignored"), "{:?}", settings.warnings);
    }
}

#[test]
fn only_true_makes_a_connection_insecure() {
    let settings = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4317"), ("OTEL_EXPORTER_OTLP_INSECURE", "yes")]);
    assert_eq!(endpoints(&settings), [Some("https://c:4317"); 3]);
    assert_eq!(settings.warnings, ["OTEL_EXPORTER_OTLP_INSECURE is ignored: expected true or false"]);
}

#[test]
fn a_signals_own_variable_wins_and_its_endpoint_stands_as_it_is() {
    let settings = read(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:9/in"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "300"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/all.pem"),
        ("OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", "/metrics.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/me.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/me.key"),
    ]);
    assert_eq!(endpoints(&settings)[0], Some("http://traces:9/in"));
    assert_eq!(endpoints(&settings)[2], Some("http://all:4318"));
    let [traces, metrics, logs] = Signal::ALL.map(|signal| target(&settings, signal).clone());
    assert_eq!((traces.timeout, metrics.timeout), (Duration::from_millis(300), Duration::from_secs(2)));
    assert_eq!((traces.protocol, logs.protocol), (Protocol::Http, Protocol::Grpc));
    assert_eq!((traces.certificate, metrics.certificate), (Some("/all.pem".into()), Some("/metrics.pem".into())));
    assert_eq!(logs.identity, Some(("/me.pem".into(), "/me.key".into())));
}

#[test]
fn exporters_choose_signals_and_otlp_without_an_endpoint_means_this_machine() {
    let settings = read(&[("OTEL_TRACES_EXPORTER", "otlp"), ("OTEL_METRICS_EXPORTER", "prometheus")]);
    assert_eq!(endpoints(&settings), [Some("http://localhost:4318/v1/traces"), None, None]);
    let grpc = read(&[("OTEL_LOGS_EXPORTER", "otlp"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
    assert_eq!(endpoints(&grpc), [None, None, Some("http://localhost:4317")]);
    let most = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), ("OTEL_METRICS_EXPORTER", "none")]);
    assert_eq!(endpoints(&most)[1], None);
    let unknown = read(&[("OTEL_TRACES_EXPORTER", "carrier-pigeon,OTLP,otlp")]);
    assert_eq!((unknown.traces.len(), unknown.warnings.len()), (1, 1));
}

#[test]
fn lines_zipkin_and_prometheus_are_exporters_too() {
    let settings = read(&[
        ("OTEL_TRACES_EXPORTER", "console,zipkin,otlp"),
        ("OTEL_METRICS_EXPORTER", "otlp/stdout,prometheus"),
        ("OTEL_LOGS_EXPORTER", "console"),
        ("OTEL_EXPORTER_ZIPKIN_ENDPOINT", "http://zipkin:9411/api/v2/spans"),
        ("OTEL_EXPORTER_PROMETHEUS_PORT", "9000"),
    ]);
    assert_eq!(settings.traces[0].to, Destination::Lines(None));
    assert_eq!(endpoints(&settings)[0], Some("http://localhost:4318/v1/traces"));
    let zipkin = settings.zipkin.unwrap();
    assert_eq!((&*zipkin.endpoint, zipkin.timeout), ("http://zipkin:9411/api/v2/spans", Duration::from_secs(10)));
    assert_eq!(settings.metrics[0].to, Destination::Lines(None));
    assert_eq!(settings.prometheus, Some(("localhost".to_owned(), 9_000)));
    // The log is on standard output as it is.
    assert_eq!(settings.logs, []);
    assert_eq!(settings.warnings, [""; 0]);
    assert!(!read(&[("OTEL_LOGS_EXPORTER", "zipkin")]).warnings.is_empty());
}

#[test]
fn a_disabled_sdk_exports_nothing_but_contexts_still_travel() {
    let settings = read(&[("OTEL_SDK_DISABLED", "TRUE"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317")]);
    assert_eq!(endpoints(&settings), [None, None, None]);
    assert_eq!(settings.propagators, Formats::default());
}

#[test]
fn a_file_stands_for_all_variables_and_must_be_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("otel.yaml");
    let named = [("OTEL_CONFIG_FILE", path.to_str().unwrap()), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317")];
    let variables = named.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let error = Settings::read(&variables, "", "").unwrap_err().to_string();
    assert!(error.starts_with("OTEL_CONFIG_FILE: failed to read") && error.contains("otel.yaml"), "{error}");
    std::fs::write(&path, "file_format: '1.0'\ndisabled: 7").unwrap();
    let error = Settings::read(&variables, "", "").unwrap_err().to_string();
    assert!(error.ends_with("otel.yaml: disabled: expected true or false"), "{error}");
    std::fs::write(&path, "file_format: '1.0'").unwrap();
    assert!(Settings::read(&variables, "http://file:4317", "").unwrap().is_silent());
}

#[test]
fn variables_win_over_the_configuration() {
    let file = configured(&[], "http://file:4317", "");
    assert_eq!(endpoints(&file), [Some("http://file:4317"); 3]);
    let both = configured(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://env:1")], "http://file:4317", "grpc");
    assert_eq!(endpoints(&both), [Some("http://env:1"); 3]);
    let protocol = configured(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")], "http://file:4317", "grpc");
    assert_eq!(endpoints(&protocol)[0], Some("http://file:4317/v1/traces"));
}

#[test]
fn without_a_scheme_grpc_is_secure_unless_said_otherwise() {
    let secure = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4317")]);
    assert_eq!(endpoints(&secure)[0], Some("https://c:4317"));
    let plain = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4317"), ("OTEL_EXPORTER_OTLP_INSECURE", "true")]);
    assert_eq!(endpoints(&plain)[0], Some("http://c:4317"));
}

#[test]
fn what_cannot_be_understood_is_ignored_reported_and_not_shown() {
    let settings = read(&[
        ("OTEL_SDK_DISABLED", "yes"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1"),
        ("OTEL_PROPAGATORS", "b3,pigeon,baggage"),
        ("OTEL_TRACES_SAMPLER", "mine"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/only.key"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=1,secret"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=1,secret"),
        ("OTEL_LOG_LEVEL", "loud"),
        ("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "few"),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "sometimes"),
        ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "0"),
        ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "round"),
    ]);
    assert_eq!((settings.traces.len(), settings.log_level), (1, None));
    assert_eq!(settings.propagators, Formats::of([Format::B3, Format::Baggage]));
    assert_eq!((settings.traces[0].batching.queue_max, settings.sampler), (2_048, SamplerKind::default()));
    assert_eq!(settings.attributes, []);
    let all = settings.warnings.join("\n");
    for name in [
        "SDK_DISABLED",
        "TIMEOUT",
        "PROTOCOL",
        "QUEUE_SIZE",
        "PROPAGATORS",
        "SAMPLER",
        "CLIENT_CERTIFICATE",
        "RESOURCE",
        "COMPRESSION",
        "TRACES_HEADERS",
        "LOG_LEVEL",
        "LOGRECORD",
        "EXEMPLAR_FILTER",
        "BATCH_SIZE",
        "AGGREGATION",
    ] {
        assert_eq!(all.matches(name).count(), 1, "{name}: {all}");
    }
    assert!(!all.contains("secret") && !all.contains("carrier"), "{all}");
    assert!(all.contains("\"pigeon\" is not known; those are tracecontext, baggage, b3, "), "{all}");
}

#[test]
fn batches_and_bounds_are_those_of_the_variables() {
    let settings = read(&[
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1000"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "7"),
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "9"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "3"),
        ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "20"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "250"),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "0"),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "ALWAYS_OFF"),
        ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "base2_exponential_bucket_histogram"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
        ("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", "5"),
        ("OTEL_LOG_LEVEL", "Debug"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b, x=,"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "Delta"),
        ("OTEL_RESOURCE_ATTRIBUTES", "team=a%20b, k8s.pod.name=p-0"),
    ]);
    let batches = settings.traces[0].batching;
    assert_eq!((batches.delay, batches.timeout), (Duration::from_millis(50), Duration::from_millis(7)));
    // A batch cannot be larger than the queue.
    assert_eq!((batches.queue_max, batches.batch_max), (100, 100));
    assert_eq!(settings.logs[0].batching.delay, Duration::from_secs(1));
    let bounds = settings.span_bounds;
    assert_eq!((bounds.attributes, bounds.events, bounds.value_length), (Some(9), Some(3), Some(20)));
    assert_eq!(settings.record_bounds, RecordBounds { attributes: Some(9), value_length: Some(5) });
    let MetricRoute { interval, timeout, temporality, exponential, .. } = settings.metrics[0];
    assert_eq!((interval, timeout), (Duration::from_millis(250), usual::NO_LIMIT));
    assert_eq!((temporality, exponential), (Temporality::Delta, true));
    assert_eq!((settings.exemplars, settings.log_level), (ExemplarFilter::AlwaysOff, Some("debug")));
    let target = target(&settings, Signal::Logs);
    assert_eq!((target.gzip, target.timeout, target.headers.len()), (true, usual::NO_LIMIT, 2));
    assert_eq!(target.headers["api-key"], "a b");
    assert!(!format!("{target:?}").contains("a b"), "headers are secrets");
    let pairs = [("team", "a b"), ("k8s.pod.name", "p-0")];
    assert_eq!(settings.attributes, pairs.map(|(key, value)| KeyValue::new(key, value)));
    assert_eq!(settings.warnings, [""; 0]);
}

/// Those that one can set, with a value that is not the usual one; the file has tests of its own.
const ALL: &str = "
OTEL_SDK_DISABLED=true OTEL_ENTITIES=a{b=c} OTEL_RESOURCE_ATTRIBUTES=a=b OTEL_SERVICE_NAME=a OTEL_LOG_LEVEL=debug
OTEL_PROPAGATORS=none OTEL_TRACES_SAMPLER=always_off OTEL_TRACES_SAMPLER_ARG=0.1
OTEL_BSP_SCHEDULE_DELAY=1 OTEL_BSP_EXPORT_TIMEOUT=1 OTEL_BSP_MAX_QUEUE_SIZE=1 OTEL_BSP_MAX_EXPORT_BATCH_SIZE=1
OTEL_BLRP_SCHEDULE_DELAY=1 OTEL_BLRP_EXPORT_TIMEOUT=1 OTEL_BLRP_MAX_QUEUE_SIZE=1 OTEL_BLRP_MAX_EXPORT_BATCH_SIZE=1
OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT=1 OTEL_ATTRIBUTE_COUNT_LIMIT=1
OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT=1 OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT=1 OTEL_SPAN_EVENT_COUNT_LIMIT=1
OTEL_SPAN_LINK_COUNT_LIMIT=1 OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT=1 OTEL_LINK_ATTRIBUTE_COUNT_LIMIT=1
OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT=1 OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT=1
OTEL_EXPORTER_ZIPKIN_ENDPOINT=http://z OTEL_EXPORTER_ZIPKIN_TIMEOUT=1
OTEL_EXPORTER_PROMETHEUS_HOST=h OTEL_EXPORTER_PROMETHEUS_PORT=1
OTEL_TRACES_EXPORTER=none OTEL_METRICS_EXPORTER=none OTEL_LOGS_EXPORTER=none
OTEL_METRICS_EXEMPLAR_FILTER=always_on OTEL_METRIC_EXPORT_INTERVAL=1 OTEL_METRIC_EXPORT_TIMEOUT=1
OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta
OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION=base2_exponential_bucket_histogram
";

/// What is said of collectors, for one signal or for all.
const OF_SIGNALS: &str = "ENDPOINT=d INSECURE=true CERTIFICATE=d CLIENT_CERTIFICATE=d CLIENT_KEY=d HEADERS=a=b \
                          COMPRESSION=gzip TIMEOUT=1 PROTOCOL=http/json";

#[test]
fn every_variable_of_the_specification_changes_something() {
    let usual = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4317"),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "c"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "c"),
        ("OTEL_TRACES_EXPORTER", "otlp,zipkin"),
        ("OTEL_METRICS_EXPORTER", "otlp,prometheus"),
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
    ];
    let prefixes = ["", "TRACES_", "METRICS_", "LOGS_"].map(|signal| format!("OTEL_EXPORTER_OTLP_{signal}"));
    let of_signals =
        prefixes.iter().flat_map(|prefix| OF_SIGNALS.split_whitespace().map(move |of| format!("{prefix}{of}")));
    let all: Vec<String> = ALL.split_whitespace().map(str::to_owned).chain(of_signals).collect();
    assert_eq!(all.len(), 38 + 36);
    let usually = read(&usual);
    for pair in all {
        let (name, value) = pair.split_once('=').unwrap();
        let settings = read(&[&usual[..], &[(name, value)]].concat());
        assert_eq!(settings.warnings, [""; 0], "{pair}");
        assert_ne!(settings, usually, "{pair}");
    }
}
