//! Which variables decide what is exported.

use super::*;

fn read(variables: &[(&str, &str)]) -> Settings {
    configured(variables, "", "")
}

fn configured(variables: &[(&str, &str)], endpoint: &str, protocol: &str) -> Settings {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Settings::read(&variables, endpoint, protocol)
}

fn collector(settings: &Settings, signal: Signal) -> &Collector {
    settings.destinations(signal).collector.as_ref().unwrap()
}

fn endpoints(settings: &Settings) -> [Option<&str>; 3] {
    Signal::ALL.map(|signal| Some(settings.destinations(signal).collector.as_ref()?.endpoint.as_str()))
}

#[test]
fn one_endpoint_serves_all_signals_and_gets_their_paths_over_http() {
    let http = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/")]);
    let paths =
        ["http://collector:4318/v1/traces", "http://collector:4318/v1/metrics", "http://collector:4318/v1/logs"];
    assert_eq!(endpoints(&http), paths.map(Some));
    assert_eq!(collector(&http, Signal::Traces).endpoint_override, None, "the library reads the variable");
    let grpc = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317")]);
    assert_eq!(endpoints(&grpc), [Some("http://collector:4317"); 3]);
    assert_eq!(collector(&grpc, Signal::Logs).protocol, Protocol::Grpc);
}

#[test]
fn an_unusable_endpoint_is_ignored_and_not_shown() {
    for wrong in ["ftp://hush", "http://:4318", "http://me:hush@", "http://me:hush@bad host", "http://hush:99999"] {
        let named = ("OTEL_EXPORTER_OTLP_ENDPOINT", wrong);
        let settings = read(&[named, ("OTEL_TRACES_EXPORTER", "otlp,console")]);
        assert_eq!(endpoints(&settings), [None; 3], "{wrong}");
        assert!(settings.destinations(Signal::Traces).console);
        let [warning] = &settings.warnings[..] else { panic!("{wrong}: {:?}", settings.warnings) };
        assert!(warning.starts_with("OTEL_EXPORTER_OTLP_ENDPOINT is ignored: expected http://"), "{warning}");
        assert!(!warning.contains("hush"), "{warning}");
        let settings = read(&[named, ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://c:4318/logs")]);
        assert_eq!(endpoints(&settings), [None, None, Some("http://c:4318/logs")], "{wrong}");
        let configured = configured(&[], wrong, "");
        assert!(configured.is_silent() && configured.warnings[0].starts_with("telemetry.endpoint is ignored"));
    }
}

#[test]
fn the_variable_of_a_signal_wins_over_the_one_for_all() {
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
    let [traces, metrics, logs] = Signal::ALL.map(|signal| collector(&settings, signal).clone());
    assert_eq!((traces.timeout, metrics.timeout), (Duration::from_millis(300), Duration::from_secs(2)));
    assert_eq!((traces.protocol, logs.protocol), (Protocol::Http, Protocol::Grpc));
    assert_eq!((traces.certificate, metrics.certificate), (Some("/all.pem".into()), Some("/metrics.pem".into())));
    assert_eq!(logs.identity, Some(("/me.pem".into(), "/me.key".into())));
}

#[test]
fn exporters_choose_signals_and_otlp_without_an_endpoint_means_this_machine() {
    let settings = read(&[("OTEL_TRACES_EXPORTER", "OTLP"), ("OTEL_METRICS_EXPORTER", "prometheus")]);
    assert_eq!(endpoints(&settings), [Some("http://localhost:4318/v1/traces"), None, None]);
    assert_eq!(settings.prometheus, Some(("localhost".to_owned(), 9_464)));
    let grpc = read(&[("OTEL_LOGS_EXPORTER", "otlp"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
    assert_eq!(endpoints(&grpc), [None, None, Some("http://localhost:4317")]);
    let console = read(&[("OTEL_TRACES_EXPORTER", "console,none"), ("OTEL_LOGS_EXPORTER", "console")]);
    assert!(
        console.destinations(Signal::Traces).console && !console.destinations(Signal::Logs).console,
        "the log is on standard output anyway"
    );
    let most = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), ("OTEL_METRICS_EXPORTER", "none")]);
    assert_eq!(endpoints(&most)[1], None);
}

#[test]
fn unsupported_exporters_are_ignored_with_a_warning() {
    let unknown = read(&[("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317")]);
    assert_eq!(endpoints(&unknown)[0], Some("http://c:4317"), "as if the variable were unset");
    assert!(unknown.warnings[0].starts_with("OTEL_TRACES_EXPORTER is ignored: \"zipkin\" is not supported"));
    let partly = read(&[("OTEL_LOGS_EXPORTER", "otlpp,none"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317")]);
    assert_eq!(endpoints(&partly)[2], None);
    assert!(partly.warnings[0].starts_with("a part of OTEL_LOGS_EXPORTER is ignored: "), "{:?}", partly.warnings);
}

#[test]
fn a_disabled_sdk_exports_nothing_but_trace_contexts_still_propagate() {
    let named = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317");
    let settings = read(&[("OTEL_SDK_DISABLED", "TRUE"), named, ("OTEL_METRICS_EXPORTER", "prometheus")]);
    assert!(settings.disabled && settings.is_silent() && settings.prometheus.is_none());
    assert!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "  ")]).is_silent(), "an empty variable counts as unset");
    assert_eq!(settings.propagators, Propagators::default());
}

#[test]
fn variables_win_over_the_configuration_file() {
    let file = configured(&[], "http://file:4317", "");
    assert_eq!(endpoints(&file), [Some("http://file:4317"); 3]);
    assert_eq!(collector(&file, Signal::Logs).endpoint_override.as_deref(), Some("http://file:4317"));
    let both = configured(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://env:1")], "http://file:4317", "grpc");
    assert_eq!(endpoints(&both), [Some("http://env:1"); 3]);
    let protocol = configured(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")], "http://file:4317", "grpc");
    assert_eq!(endpoints(&protocol)[0], Some("http://file:4317/v1/traces"));
}

#[test]
fn a_grpc_endpoint_without_a_scheme_is_secure_unless_insecure_is_true() {
    let secure = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4317"), ("OTEL_EXPORTER_OTLP_INSECURE", "yes")]);
    assert_eq!(endpoints(&secure)[0], Some("https://c:4317"));
    assert_eq!(secure.warnings, ["OTEL_EXPORTER_OTLP_INSECURE is ignored: expected one of true, false"]);
    let plain = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4317"), ("OTEL_EXPORTER_OTLP_INSECURE", "true")]);
    assert_eq!(endpoints(&plain)[0], Some("http://c:4317"));
}

#[test]
fn a_malformed_value_is_ignored_with_one_warning_that_does_not_show_it() {
    let settings = read(&[
        ("OTEL_SDK_DISABLED", "secret"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "secret"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1"),
        ("OTEL_BLRP_MAX_QUEUE_SIZE", "2000000"),
        ("OTEL_BSP_SCHEDULE_DELAY", "0"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/only.key"),
        ("OTEL_EXPORTER_PROMETHEUS_PORT", "70000"),
        ("OTEL_LOG_LEVEL", "secret"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "secret"),
        ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "secret"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "secret"),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "secret"),
        (HISTOGRAMS, "secret"),
    ]);
    assert_eq!((settings.span_queue_max, settings.log_queue_max), (QUEUE_DEFAULT, QUEUE_DEFAULT));
    assert_eq!((settings.span_delay, settings.metric_interval), (Duration::from_secs(5), Duration::from_mins(1)));
    let all = settings.warnings.join("\n");
    let names = "DISABLED PROTOCOL BSP_MAX BSP_SCHEDULE BLRP METRIC_EXPORT SAMPLER_ARG _PORT LEVEL FILTER AGGREG \
                 COMPRESSION LOGS_TIMEOUT TEMPORALITY";
    for name in names.split(' ').chain(["SAMPLER "]) {
        assert_eq!(all.matches(name).count(), 1, "{name}: {all}");
    }
    assert!(all.contains("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE") && !all.contains("secret"), "{all}");
}

#[test]
fn a_timeout_of_zero_is_no_limit() {
    let settings = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "0")]);
    assert_eq!(collector(&settings, Signal::Traces).timeout, Duration::from_millis(NO_LIMIT));
    assert!(settings.warnings.is_empty());
}

#[test]
fn unsupported_variables_are_named_in_one_warning() {
    let settings = read(&[("OTEL_ENTITIES", "secret{a=b}"), ("OTEL_CONFIG_FILE", "/secret.yaml")]);
    let expected = "these variables are not supported and have no effect: OTEL_CONFIG_FILE, OTEL_ENTITIES";
    assert_eq!(settings.warnings, [expected]);
    let b3 = read(&[("OTEL_PROPAGATORS", "b3,baggage")]);
    assert_eq!(b3.propagators, Propagators { trace_context: false, baggage: true });
    assert!(b3.warnings[0].starts_with("a part of OTEL_PROPAGATORS is ignored: \"b3\" is not supported"));
}

#[test]
fn a_value_that_is_not_utf8_is_ignored() {
    let broken = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://\u{fffd}:4317");
    let settings = read(&[broken, ("LS_COLORS", "\u{fffd}")]);
    assert_eq!(endpoints(&settings), [None; 3]);
    assert_eq!(settings.warnings, ["OTEL_EXPORTER_OTLP_ENDPOINT is ignored: it is not valid UTF-8"]);
}
