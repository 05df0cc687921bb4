//! Metrics settings of OpenTelemetry variables: exemplars, histograms, and the Prometheus port.

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, number_data_point::Value};
use rustix::process::Signal;
use tonic::transport::Endpoint;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::collector::{Collector, text};
use crate::health_endpoints::{get, samples, wait_for_sample};
use crate::http1_client::Connection;
use crate::support::{Server, eventually_blocking, noop};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const DURATIONS: &str = r#"lineshaft_task_duration_seconds_count{handler="compute",pool="default",result="completed"}"#;

fn open_metrics(address: &str) -> String {
    let response = get(address, "/metrics", "accept: application/openmetrics-text;version=1.0.0\r\n");
    String::from_utf8(response.body).unwrap()
}

/// Runs a task for a caller with a sampled trace.
async fn run_traced(server: &Server) {
    let mut request = tonic::Request::new(noop());
    request.metadata_mut().insert("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01").parse().unwrap());
    let id = server.tasks().submit_task(request).await.unwrap().into_inner().task_id;
    server.wait_finished(&id).await;
}

/// Labels and value of each exemplar of a histogram.
fn exemplars(text: &str, histogram: &str) -> Vec<(String, f64)> {
    let of_histogram = text.lines().filter(|line| line.starts_with(&format!("{histogram}_bucket{{")));
    let exemplar = |line: &str| {
        let (_, exemplar) = line.split_once(" # {")?;
        let (labels, rest) = exemplar.split_once("} ").unwrap();
        let (value, at) = rest.split_once(' ').unwrap();
        assert!(at.parse::<f64>().unwrap() > 1.7e9, "{line}");
        Some((labels.to_owned(), value.parse().unwrap()))
    };
    of_histogram.filter_map(exemplar).collect()
}

#[test]
fn the_weights_of_the_accept_header_decide_the_format() {
    let server = Server::start("");
    for (accept, expected) in [
        ("application/openmetrics-text;q=0.2, text/plain;q=0.5", "text/plain"),
        ("text/plain;q=0.5, application/openmetrics-text;Q=0.7", "application/openmetrics-text"),
        ("application/openmetrics-text;Q=0, */*", "text/plain"),
    ] {
        let response = get(&server.address, "/metrics", &format!("accept: {accept}\r\n"));
        assert!(response.header("content-type").starts_with(expected), "{accept}: {response:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_filter_always_on_keeps_every_measurement_as_an_exemplar() {
    let server = Server::start_with("", &[("OTEL_METRICS_EXEMPLAR_FILTER", "Always_On")]);
    let id = server.submit(noop()).await;
    server.wait_finished(&id).await;
    wait_for_sample(&server.address, DURATIONS, "1");
    let text = open_metrics(&server.address);
    for histogram in ["lineshaft_task_wait_duration_seconds", "lineshaft_task_duration_seconds"] {
        let found = exemplars(&text, histogram);
        assert!(
            matches!(&found[..], [(labels, value)] if labels.is_empty() && *value >= 0.0),
            "{histogram}: {found:?}"
        );
    }
    for histogram in ["lineshaft_store_commit_size", "lineshaft_store_commit_duration_seconds"] {
        assert!(!exemplars(&text, histogram).is_empty(), "{histogram}: {text}");
    }
    assert!(!text.contains("trace_id"), "{text}");
    run_traced(&server).await;
    let text = wait_for_text(&server.address, |text| text.contains(TRACE));
    assert!(exemplars(&text, "rpc_server_call_duration_seconds").iter().any(|(labels, _)| labels.contains(TRACE)));
}

/// Waits for a page that fulfils the condition.
fn wait_for_text(address: &str, condition: impl Fn(&str) -> bool) -> String {
    eventually_blocking(|| {
        let text = open_metrics(address);
        if condition(&text) { Ok(text) } else { Err(text) }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_filter_always_off_keeps_no_exemplars() {
    let server = Server::start_with("", &[("OTEL_METRICS_EXEMPLAR_FILTER", "always_off")]);
    run_traced(&server).await;
    wait_for_sample(&server.address, DURATIONS, "1");
    let text = open_metrics(&server.address);
    assert!(text.ends_with("# EOF\n") && !text.contains(" # {") && !text.contains(TRACE), "{text}");
}

/// The last received points of a metric.
fn last<'a>(points: &'a [Metric], name: &str) -> Option<&'a Data> {
    points.iter().rev().find(|metric| metric.name == name)?.data.as_ref()
}

/// Count of all points of a histogram, sum of their buckets, and whether it is exponential.
fn counted(data: &Data) -> (u64, u64, bool) {
    match data {
        Data::Histogram(histogram) => {
            let points = &histogram.data_points;
            let buckets = points.iter().flat_map(|point| &point.bucket_counts).sum();
            (points.iter().map(|point| point.count).sum(), buckets, false)
        }
        Data::ExponentialHistogram(histogram) => {
            let points = &histogram.data_points;
            assert!(points.iter().all(|point| (-10..=20).contains(&point.scale)), "{points:?}");
            let buckets = points.iter().flat_map(|point| point.positive.iter().flat_map(|side| &side.bucket_counts));
            let buckets: u64 = buckets.sum();
            let zeros: u64 = points.iter().map(|point| point.zero_count).sum();
            (points.iter().map(|point| point.count).sum(), buckets + zeros, true)
        }
        other => panic!("no histogram: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exported_histograms_can_be_exponential_while_metrics_pages_keep_their_buckets() {
    for (aggregation, exponential) in
        [("base2_exponential_bucket_histogram", true), ("explicit_bucket_histogram", false)]
    {
        let collector = Collector::start().await;
        let variables = [
            ("OTEL_METRICS_EXPORTER", "otlp"),
            ("OTEL_TRACES_EXPORTER", "none"),
            ("OTEL_LOGS_EXPORTER", "none"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", aggregation),
        ];
        let mut server = Server::start_with("", &variables);
        for _ in 0..3 {
            let id = server.submit(noop()).await;
            server.wait_finished(&id).await;
        }
        let shown = wait_for_sample(&server.address, DURATIONS, "3");
        let rest = r#"handler="compute",pool="default""#;
        let bucket = format!(r#"lineshaft_task_duration_seconds_bucket{{{rest},result="completed",le="3600.0"}}"#);
        assert_eq!(shown[&bucket], "3");
        assert_eq!(shown[&format!(r#"lineshaft_task_submitted_total{{{rest},priority="normal"}}"#)], "3");
        let workers = &shown[r#"lineshaft_pool_worker_limit{pool="default"}"#];
        // The interval is one minute: this is the export at shutdown.
        server.signal(Signal::TERM);
        assert!(server.wait_exit().success(), "{}", server.log());
        let points = collector.read(|received| received.points.clone());
        let ran = last(&points, "lineshaft.task.duration").unwrap_or_else(|| panic!("{}", server.log()));
        assert_eq!(counted(ran), (3, 3, exponential), "{ran:?}");
        let (commits, in_buckets, _) = counted(last(&points, "lineshaft.store.commit.duration").unwrap());
        assert!(commits >= 3 && commits == in_buckets);
        for (name, expected) in [("lineshaft.task.submitted", "3"), ("lineshaft.pool.worker.limit", workers)] {
            let Some(Data::Sum(sum)) = last(&points, name) else { panic!("{name} is no sum") };
            let of_default = |point: &&NumberDataPoint| text(&point.attributes, "pool").as_deref() == Some("default");
            let point = sum.data_points.iter().find(of_default).unwrap();
            let value = match point.value.unwrap() {
                Value::AsInt(value) => value.to_string(),
                Value::AsDouble(value) => value.to_string(),
            };
            assert_eq!(&value, expected, "{name}");
        }
        let kinds = points.iter().filter_map(|metric| metric.data.as_ref()).filter_map(|data| match data {
            Data::Histogram(_) => Some(false),
            Data::ExponentialHistogram(_) => Some(true),
            _ => None,
        });
        assert!(kinds.clone().count() > 3 && kinds.clone().all(|kind| kind == exponential), "{aggregation}");
    }
}

/// Addresses of the Prometheus port, from the log.
pub fn prometheus_addresses(server: &Server) -> Vec<String> {
    let log = server.log();
    let lines = log.lines().filter(|line| line.contains("Prometheus endpoint listening"));
    let address = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["address"].as_str().unwrap().to_owned()
    };
    lines.map(address).collect()
}

pub const PROMETHEUS: [(&str, &str); 2] =
    [("OTEL_METRICS_EXPORTER", "prometheus"), ("OTEL_EXPORTER_PROMETHEUS_PORT", "0")];

#[tokio::test(flavor = "multi_thread")]
async fn the_prometheus_exporter_opens_a_port_that_serves_only_metrics() {
    let mut server = Server::start_with("", &PROMETHEUS);
    let id = server.submit(noop()).await;
    server.wait_finished(&id).await;
    let addresses = prometheus_addresses(&server);
    assert!(addresses[0].starts_with("127.0.0.1:") && addresses.len() <= 2, "{addresses:?}");
    assert!(!server.log().contains("can read the metrics"), "{}", server.log());
    for address in &addresses {
        wait_for_sample(address, DURATIONS, "1");
        assert!(samples(address).len() > 50);
        assert!(open_metrics(address).ends_with("# EOF\n"));
        for path in ["/", "/metrics/", "/health", "/health/ready", "/api/stats"] {
            assert_eq!(get(address, path, "").status, 404, "{path}");
        }
        let post = b"POST /metrics HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n";
        let refused = Connection::open_at(address).send(post);
        assert_eq!((refused.status, refused.header("allow")), (405, "GET, HEAD"));
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let refused = HealthClient::new(channel).check(HealthCheckRequest::default()).await.unwrap_err();
        assert!(refused.message().contains("404 Not Found"), "{refused:?}");
    }
    server.signal(Signal::TERM);
    assert!(server.wait_exit().success(), "{}", server.log());
}

#[test]
fn a_public_prometheus_port_gets_a_warning_and_none_is_open_by_default() {
    let server = Server::start_with("", &[PROMETHEUS[1]]);
    assert_eq!(prometheus_addresses(&server), Vec::<String>::new(), "open although Prometheus is not an exporter");
    let everywhere = [PROMETHEUS[0], PROMETHEUS[1], ("OTEL_EXPORTER_PROMETHEUS_HOST", "0.0.0.0")];
    let server = Server::start_with("", &everywhere);
    let addresses = prometheus_addresses(&server);
    assert!(matches!(&addresses[..], [one] if one.starts_with("0.0.0.0:")), "{addresses:?}");
    let warning = server.log().lines().find(|line| line.contains("can read the metrics")).map(str::to_owned);
    assert!(warning.is_some_and(|line| line.contains("WARN") && line.contains(&addresses[0])), "{}", server.log());
    let disabled = [PROMETHEUS[0], PROMETHEUS[1], ("OTEL_SDK_DISABLED", "true")];
    assert_eq!(prometheus_addresses(&Server::start_with("", &disabled)), Vec::<String>::new());
}

#[test]
fn the_server_does_not_start_if_the_prometheus_port_is_in_use() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    let port = taken.port().to_string();
    let error = Server::fail_to_start("", &[PROMETHEUS[0], ("OTEL_EXPORTER_PROMETHEUS_PORT", &port)]);
    assert!(error.contains(&format!("failed to listen on {taken} for Prometheus")), "{error}");
    assert!(error.contains("OTEL_EXPORTER_PROMETHEUS_PORT") && !error.contains("serving"), "{error}");
    let nowhere = [PROMETHEUS[0], PROMETHEUS[1], ("OTEL_EXPORTER_PROMETHEUS_HOST", "no host at all")];
    let error = Server::fail_to_start("", &nowhere);
    assert!(error.contains("no host at all") && error.contains("OTEL_EXPORTER_PROMETHEUS_HOST"), "{error}");
}
