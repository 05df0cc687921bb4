//! What is measured is exposed, and the page of metrics is up to date.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_sdk::metrics::data::{AggregatedMetrics, HistogramDataPoint, MetricData};

use arc_swap::ArcSwap;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::ManualReader;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use tokio::time::Instant;

use super::registry::SharedReader;
use super::table::{Kind, Row, TABLE};
use super::*;
use crate::model::{
    Catalog, Event, Failure, FailureReason, HandlerName, HandlerSource, HandlerSpec, Holds, Namespace, Payload,
    PoolKind, PoolName, PoolSpec, Priority, Registration, ResourceUsage, RetryPolicy, Revision, SharedCatalog,
    TaskChange, TaskEvent, TaskOptions, TaskSpec, TaskState, Timestamp,
};
use crate::telemetry::Telemetry;
use crate::telemetry::export::settings::ExemplarFilter;
use crate::telemetry::host::HostSampler;
use crate::telemetry::liveness::Phase;

const SPAN: SampledSpan = SampledSpan { trace_id: [0xab; 16], span_id: [0xcd; 8] };

fn metrics() -> Metrics {
    builder().build()
}

fn builder() -> Builder {
    let resource = Resource::builder_empty().with_attribute(opentelemetry::KeyValue::new("service.name", "a \"b\""));
    Builder::new(resource.build())
}

fn handler(name: &str) -> HandlerName {
    HandlerName::parse(name).unwrap()
}

fn pool(name: &str) -> PoolName {
    PoolName::parse(name).unwrap()
}

/// A catalog with the pool `p` and the handler `h`.
fn catalog() -> SharedCatalog {
    let config = HandlerSpec {
        name: handler("h"),
        runner: "builtin",
        description: String::new(),
        payload_description: String::new(),
        pool: pool("p"),
        allowed_pools: Vec::new(),
        timeout: None,
        retry: RetryPolicy::default(),
        arg_pattern: None,
        grace: Duration::from_secs(1),
        blocking: false,
        source: HandlerSource::File,
        payload_schema: None,
    };
    let mut catalog = Catalog::default();
    catalog.handlers.insert(handler("h"), Arc::new(config));
    catalog.pools.insert(pool("p"), PoolSpec::with_defaults(pool("p"), 1));
    Arc::new(ArcSwap::from_pointee(catalog))
}

fn options(handler_name: &str, namespace: &str) -> Arc<TaskOptions> {
    Arc::new(TaskOptions {
        namespace: Namespace::parse(namespace).unwrap(),
        handler: handler(handler_name),
        ..TaskOptions::sample()
    })
}

fn event(options: &Arc<TaskOptions>, state: TaskState, change: TaskChange) -> Event {
    Event::Task(TaskEvent {
        revision: Revision(1),
        at: Timestamp(1),
        task: uuid::Uuid::nil().into(),
        options: options.clone(),
        previous: state,
        state,
        attempt: 1,
        holds: Holds::NONE,
        hold: None,
        change,
    })
}

fn submitted(options: &Arc<TaskOptions>) -> Event {
    let spec = Arc::new(TaskSpec {
        id: uuid::Uuid::nil().into(),
        options: options.clone(),
        payload: Box::default(),
        extras: None,
    });
    event(options, TaskState::Queued, TaskChange::Submitted { spec })
}

fn failed(options: &Arc<TaskOptions>) -> Event {
    let failure = Box::new(Failure::new(FailureReason::Timeout, "late"));
    event(options, TaskState::Failed, TaskChange::Failed { failure, usage: None, output: None })
}

fn completed(options: &Arc<TaskOptions>) -> Event {
    let change = TaskChange::Completed {
        result: Payload::default(),
        usage: Box::<ResourceUsage>::default(),
        output: None,
        artifacts: None,
    };
    event(options, TaskState::Completed, change)
}

#[track_caller]
fn has(text: &str, line: &str) {
    assert!(text.lines().any(|found| found == line), "{line:?} is not in\n{text}");
}

#[test]
fn durable_events_are_counted_and_unregistered_names_count_as_other() {
    let metrics = metrics();
    let mut meter = CommitMeter::new(&metrics, catalog());
    let (known, unknown) = (options("h", "default"), options("gone", "team"));
    let events = [submitted(&known), submitted(&known), submitted(&unknown), completed(&known), failed(&known)];
    meter.durable(&events, Duration::from_millis(3));
    meter.refused();
    let text = metrics.expose(Format::Prometheus).unwrap();
    has(&text, r#"lineshaft_task_submitted_total{handler="h",pool="p",priority="normal"} 2"#);
    has(&text, r#"lineshaft_task_submitted_total{handler="other",pool="p",priority="normal"} 1"#);
    has(&text, r#"lineshaft_task_finished_total{handler="h",pool="p",result="completed"} 1"#);
    has(&text, r#"lineshaft_task_finished_total{error_type="TIMEOUT",handler="h",pool="p",result="failed"} 1"#);
    has(&text, r#"lineshaft_namespace_task_submitted_total{namespace="team"} 1"#);
    has(&text, r#"lineshaft_store_commit_duration_seconds_bucket{le="0.0025"} 0"#);
    has(&text, r#"lineshaft_store_commit_duration_seconds_bucket{le="0.005"} 1"#);
    has(&text, "lineshaft_store_commit_size_sum 5");
    has(&text, "lineshaft_store_commit_failures_total 1");
}

#[test]
fn the_number_of_namespace_series_is_limited() {
    let metrics = metrics();
    let mut meter = CommitMeter::new(&metrics, catalog());
    for number in 0..200 {
        meter.durable(&[submitted(&options("h", &format!("team-{number}")))], Duration::ZERO);
    }
    let text = metrics.expose(Format::Prometheus).unwrap();
    let series = text.lines().filter(|line| line.starts_with("lineshaft_namespace_task_submitted_total{")).count();
    assert_eq!(series, 65);
    has(&text, r#"lineshaft_namespace_task_submitted_total{namespace="other"} 136"#);
}

#[test]
fn registered_handlers_count_under_their_names_up_to_a_bound() {
    let (metrics, catalog) = (metrics(), catalog());
    let mut present = Catalog::clone(&catalog.load());
    present.pools.insert(pool("far"), PoolSpec { kind: PoolKind::Remote, ..PoolSpec::with_defaults(pool("far"), 1) });
    catalog.store(Arc::new(present.clone()));
    let mut commits = CommitMeter::new(&metrics, catalog.clone());
    let meter = PoolMeter::new(&metrics, &pool("far"), &catalog);
    let registration = Registration { pools: [pool("far")].into(), description: "".into() };
    (0..70).for_each(|number| present.register(&handler(&format!("f{number}")), &registration));
    catalog.store(Arc::new(present));
    for _ in 0..2 {
        let mut worker = meter.worker();
        for number in 0..70 {
            let name = format!("f{number}");
            let options = TaskOptions { pool: pool("far"), ..(*options(&name, "default")).clone() };
            commits.durable(&[submitted(&Arc::new(options))], Duration::ZERO);
            worker.ended(&handler(&name), AttemptResult::Completed, Duration::ZERO, || None);
        }
    }
    let text = metrics.expose(Format::Prometheus).unwrap();
    for (name, count) in [("f0", 2), ("f63", 2), ("other", 12)] {
        has(
            &text,
            &format!(r#"lineshaft_task_submitted_total{{handler="{name}",pool="far",priority="normal"}} {count}"#),
        );
        has(
            &text,
            &format!(r#"lineshaft_task_attempts_total{{handler="{name}",pool="far",result="completed"}} {count}"#),
        );
    }
    assert!(!text.contains("f64"), "{text}");
}

#[test]
fn attempts_are_measured_and_a_bucket_links_to_a_trace() {
    let metrics = metrics();
    let mut meter = PoolMeter::new(&metrics, &pool("p"), &catalog()).worker();
    meter.started(Priority::High, Duration::from_millis(2), || None);
    meter.ended(&handler("h"), AttemptResult::Completed, Duration::from_millis(700), || Some(SPAN));
    meter.ended(&handler("unknown"), AttemptResult::Failed(FailureReason::Panic), Duration::from_secs(2), || None);
    let text = metrics.expose(Format::OpenMetrics).unwrap();
    has(&text, "# TYPE lineshaft_task_duration_seconds histogram");
    has(&text, "# UNIT lineshaft_task_duration_seconds seconds");
    has(&text, "# TYPE lineshaft_task_attempts counter");
    has(&text, r#"lineshaft_task_wait_duration_seconds_bucket{pool="p",priority="high",le="0.0025"} 1"#);
    has(&text, r#"lineshaft_task_attempts_total{error_type="PANIC",handler="other",pool="p",result="failed"} 1"#);
    let trace = format!("# {{trace_id=\"{}\",span_id=\"{}\"}} 0.7 ", "ab".repeat(16), "cd".repeat(8));
    let bucket = r#"lineshaft_task_duration_seconds_bucket{handler="h",pool="p",result="completed",le="1.0"} 1 "#;
    assert!(text.lines().any(|line| line.starts_with(&format!("{bucket}{trace}"))), "{text}");
    assert_eq!(text.matches("trace_id").count(), 1);
    assert!(text.ends_with("# EOF\n"));
    let plain = metrics.expose(Format::Prometheus).unwrap();
    assert!(!plain.contains("trace_id") && !plain.contains("# EOF") && !plain.contains("# UNIT"));
}

/// Measures attempts inside and outside of a trace, a call and a commit.
fn measure(metrics: &Metrics) {
    let mut meter = PoolMeter::new(metrics, &pool("p"), &catalog()).worker();
    meter.started(Priority::High, Duration::from_millis(2), || None);
    meter.ended(&handler("h"), AttemptResult::Completed, Duration::from_millis(700), || Some(SPAN));
    meter.ended(&handler("h"), AttemptResult::Completed, Duration::ZERO, || None);
    CallMeter::new(metrics, vec!["a.B/C".to_owned()]).begin("/a.B/C", || None).end(0);
    CommitMeter::new(metrics, catalog()).durable(&[submitted(&options("h", "default"))], Duration::from_millis(3));
}

#[test]
fn the_exemplar_filter_can_keep_every_measurement_or_none() {
    let on = builder().exemplars(ExemplarFilter::AlwaysOn).build();
    measure(&on);
    let text = on.expose(Format::OpenMetrics).unwrap();
    let buckets = [
        r#"lineshaft_task_wait_duration_seconds_bucket{pool="p",priority="high",le="0.0025"} 1 # {} 0.002 "#,
        r#"lineshaft_task_duration_seconds_bucket{handler="h",pool="p",result="completed",le="0.0001"} 1 # {} 0 "#,
        r#"lineshaft_store_commit_duration_seconds_bucket{le="0.005"} 1 # {} 0.003 "#,
        r#"lineshaft_store_commit_size_bucket{le="1.0"} 1 # {} 1 "#,
    ];
    for bucket in buckets {
        assert!(text.lines().any(|line| line.starts_with(bucket)), "{bucket} is not in\n{text}");
    }
    assert_eq!(text.matches("# {trace_id").count(), 1, "{text}");
    assert!(text.lines().any(|line| line.starts_with("rpc_server") && line.contains(" # {} ")), "{text}");

    let off = builder().exemplars(ExemplarFilter::AlwaysOff).build();
    measure(&off);
    let mut worker = PoolMeter::new(&off, &pool("p"), &catalog()).worker();
    worker.started(Priority::High, Duration::ZERO, || panic!("the span is looked up although exemplars are off"));
    let text = off.expose(Format::OpenMetrics).unwrap();
    assert!(text.contains("lineshaft_task_duration_seconds_bucket") && !text.contains(" # {"), "{text}");
}

/// Name, kind and number of measurements of each metric that a reader collects; metrics that are no histograms have
/// the number 0.
fn collected(reader: &ManualReader) -> Vec<(String, &'static str, u64)> {
    let mut found = ResourceMetrics::default();
    reader.collect(&mut found).unwrap();
    let metrics = found.scope_metrics().flat_map(|scope| scope.metrics().collect::<Vec<_>>());
    let summary = metrics.map(|metric| match metric.data() {
        AggregatedMetrics::F64(MetricData::ExponentialHistogram(histogram)) => {
            (metric.name().to_owned(), "exponential", histogram.data_points().map(|p| p.count() as u64).sum())
        }
        AggregatedMetrics::F64(MetricData::Histogram(histogram)) => {
            (metric.name().to_owned(), "buckets", histogram.data_points().map(HistogramDataPoint::count).sum())
        }
        _ => (metric.name().to_owned(), "number", 0),
    });
    summary.collect()
}

#[test]
fn readers_of_exponential_histograms_get_the_same_counts_as_readers_of_buckets() {
    let [buckets, exponential] = [(); 2].map(|()| Arc::new(ManualReader::builder().build()));
    let metrics = builder()
        .reader(SharedReader(buckets.clone()), Histograms::Buckets)
        .reader(SharedReader(exponential.clone()), Histograms::Exponential)
        .build();
    let telemetry = Telemetry::new(metrics.clone());
    measure(&telemetry.metrics);
    let (in_buckets, in_exponential) = (collected(&buckets), collected(&exponential));
    assert!(in_buckets.contains(&("lineshaft.task.duration".to_owned(), "buckets", 2)), "{in_buckets:?}");
    let renamed = in_buckets.into_iter().map(|(name, kind, count)| match kind {
        "buckets" => (name, "exponential", count),
        other => (name, other, count),
    });
    assert_eq!(in_exponential, renamed.collect::<Vec<_>>());
    for provider in metrics.providers() {
        provider.shutdown().unwrap();
    }
    let mut found = ResourceMetrics::default();
    assert!(buckets.collect(&mut found).is_err() && exponential.collect(&mut found).is_err(), "both are shut down");
}

#[test]
fn calls_are_measured_by_method_and_status_and_a_dropped_call_is_cancelled() {
    let metrics = metrics();
    let meter = CallMeter::new(&metrics, vec!["a.B/C".to_owned()]);
    meter.begin("/a.B/C", || None).end(0);
    meter.begin("/a.B/C", || None).end(13);
    drop(meter.begin("/a.B/Unknown", || None));
    let text = metrics.expose(Format::Prometheus).unwrap();
    let count = |rest: &str| format!("rpc_server_call_duration_seconds_count{{{rest}}} 1");
    has(&text, &count(r#"rpc_method="a.B/C",rpc_status_code="OK",rpc_system_name="grpc""#));
    has(&text, &count(r#"error_type="INTERNAL",rpc_method="a.B/C",rpc_status_code="INTERNAL",rpc_system_name="grpc""#));
    has(&text, &count(r#"rpc_method="_OTHER",rpc_status_code="CANCELLED",rpc_system_name="grpc""#));
}

#[test]
fn published_state_is_exposed_as_it_is_at_collection() {
    let metrics = metrics();
    let telemetry = Telemetry::new(metrics.clone());
    let reading = PoolReading {
        name: pool("p"),
        size: 4,
        busy: 1,
        idle: 3,
        paused: true,
        queue_limit: 10,
        default_timeout: Duration::from_secs(300),
        waiting: 2,
        running: 1,
        queued: [0, 5, 0, 0],
        oldest: [None, Instant::now().checked_sub(Duration::from_secs(1)), None, None],
    };
    telemetry.gauges.pools.publish(vec![reading]);
    telemetry.liveness.enter(Phase::Serving);
    let text = metrics.expose(Format::Prometheus).unwrap();
    has(&text, r#"lineshaft_task_active{pool="p",state="queued"} 5"#);
    has(&text, r#"lineshaft_queue_length{pool="p",priority="normal"} 5"#);
    has(&text, r#"lineshaft_queue_oldest_task_age_seconds{pool="p",priority="high"} 0"#);
    assert!(!text.contains(r#"lineshaft_queue_oldest_task_age_seconds{pool="p",priority="normal"} 0"#), "{text}");
    has(&text, r#"lineshaft_pool_utilization_ratio{pool="p"} 0.25"#);
    has(&text, "lineshaft_server_ready 1");
    telemetry.liveness.heartbeat(true);
    has(&metrics.expose(Format::Prometheus).unwrap(), "lineshaft_server_ready 0");
}

#[tokio::test]
async fn every_sample_belongs_to_a_row_and_every_family_is_described_once() {
    let metrics = metrics();
    let telemetry = Telemetry::new(metrics.clone());
    telemetry.metrics.observe_host(&Arc::new(HostSampler::new()));
    telemetry.metrics.observe_runtime(&tokio::runtime::Handle::current().metrics());
    telemetry.metrics.observe_files(std::env::temp_dir());
    for format in [Format::Prometheus, Format::OpenMetrics] {
        let text = metrics.expose(format).unwrap();
        has(&text, r#"target_info{service_name="a \"b\""} 1"#);
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            assert!(name == "target_info" || TABLE.iter().any(|row| row.prometheus() == name), "{line}");
            assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
        }
        let families: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let unique: std::collections::HashSet<_> = families.iter().collect();
        assert_eq!(families.len(), unique.len());
        assert!(families.len() > 20, "{families:#?}");
    }
    has(&metrics.expose(Format::OpenMetrics).unwrap(), "# TYPE target info");
}

#[test]
fn metrics_can_be_off() {
    let metrics = Metrics::off();
    PoolMeter::new(&metrics, &pool("p"), &catalog()).worker().started(Priority::Low, Duration::ZERO, || Some(SPAN));
    assert_eq!(metrics.expose(Format::Prometheus), None);
}

/// Names of metrics of this server in PromQL.
fn names_in(text: &str) -> Vec<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = ["lineshaft_", "rpc_server_", "process_", "system_"];
    words.filter(|word| ours.iter().any(|prefix| word.starts_with(prefix))).collect()
}

/// Keys of matchers and groupings in PromQL.
fn labels_in(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for matchers in text.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
        let keys = matchers.split(',').filter_map(|matcher| matcher.split_once('='));
        found.extend(keys.map(|(key, _)| key.trim().trim_end_matches('!')));
    }
    for keyword in ["by (", "on (", "by(", "on("] {
        let groups = text.split(keyword).skip(1).filter_map(|rest| rest.split(')').next());
        found.extend(groups.flat_map(|keys| keys.split(',').map(str::trim)));
    }
    found
}

fn expressions() -> Vec<String> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/observability");
    let dashboard = std::fs::read_to_string(root.join("dashboard.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let mut found: Vec<String> = targets.map(|target| text(&target["expr"])).collect();
    found.extend(dashboard["annotations"]["list"].as_array().unwrap().iter().map(|note| text(&note["expr"])));
    assert!(found.len() > 40, "{} expressions", found.len());
    let alerts = std::fs::read_to_string(root.join("alerts.yaml")).unwrap();
    let of_alerts = alerts.split("expr:").skip(1).filter_map(|rest| rest.split("labels:").next());
    found.extend(of_alerts.map(ToOwned::to_owned));
    found
}

#[test]
fn dashboard_and_alerts_use_only_existing_metrics_and_attributes() {
    let mut names: Vec<String> = Vec::new();
    // The first is a label of Prometheus, not a synonym of task.
    let mut keys: Vec<String> = [concat!("jo", "b"), "instance", "le"].map(ToOwned::to_owned).to_vec();
    for row in TABLE {
        let name = row.prometheus();
        match row.kind {
            Kind::Histogram(_) => names.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}"))),
            _ => names.push(name),
        }
        keys.extend(row.attributes.iter().map(|key| key.replace('.', "_")));
    }
    let mut used = std::collections::HashSet::new();
    for expression in expressions() {
        for name in names_in(&expression).into_iter().filter(|name| !keys.iter().any(|key| key == name)) {
            assert!(names.iter().any(|known| known == name), "{name} does not exist: {expression}");
            used.insert(name.to_owned());
        }
        for key in labels_in(&expression) {
            assert!(keys.iter().any(|known| known == key), "the attribute {key} does not exist: {expression}");
        }
    }
    assert!(used.len() > 35, "only {} are used", used.len());
}

fn page() -> String {
    let mut text = "# Metrics\n\nAll metrics of the server. [observability.md](observability.md) describes how to use them. This page is \
         generated from\n`src/telemetry/metrics/table.rs`.\n\n\
         `GET /metrics` uses the Prometheus names, OTLP the OpenTelemetry names; both read the same instruments. In \
         Prometheus\nthe dots of attributes become underscores. Handlers and pools that are not configured count as \
         `other`, except for\nthe first 64 handlers that workers have registered. A series appears with its first \
         measurement.\n\n\
         | OpenTelemetry | Prometheus | kind | unit | attributes | meaning |\n|---|---|---|---|---|---|\n"
        .to_owned();
    for row in TABLE {
        let kind = match row.kind {
            Kind::Counter => "counter",
            Kind::UpDownCounter => "up-down counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let keys: Vec<_> = row.attributes.iter().map(|key| format!("`{key}`")).collect();
        let keys = if keys.is_empty() { "–".to_owned() } else { keys.join(" ") };
        let Row { name, unit, help, .. } = row;
        let prometheus = row.prometheus();
        writeln!(text, "| `{name}` | `{prometheus}` | {kind} | {unit} | {keys} | {help} |").unwrap();
    }
    text.push_str("\n## Buckets\n\n| histogram | upper bounds |\n|---|---|\n");
    for row in TABLE {
        if let Kind::Histogram(bounds) = row.kind {
            let bounds: Vec<_> = bounds.iter().map(ToString::to_string).collect();
            writeln!(text, "| `{}` | {} |", row.name, bounds.join(", ")).unwrap();
        }
    }
    text
}

#[test]
fn the_page_of_metrics_matches_the_table() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    if std::env::var_os("LINESHAFT_WRITE_DOCS").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, page(), "regenerate it: LINESHAFT_WRITE_DOCS=1 cargo test --lib page_of_metrics");
}
