//! Exporters beside OTLP in its usual forms, and the file that says what all of them do.

use lineshaft::proto::v1::TaskState;
use serde_json::Value;

use crate::collector::{Collector, Over};
use crate::support::{Server, task};

/// The lines of a text that are telemetry, by the field that they are told in.
fn lines(text: &str, field: &str) -> Vec<Value> {
    let parsed = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    parsed.filter(|line| line.get(field).is_some()).collect()
}

fn names(lines: &[Value]) -> Vec<String> {
    let all = |value: &Value, path: &[&str]| {
        let mut found = vec![value.clone()];
        for field in path {
            found = found.iter().flat_map(|value| value[field].as_array().unwrap().clone()).collect();
        }
        found
    };
    let spans = lines.iter().flat_map(|line| all(line, &["resourceSpans", "scopeSpans", "spans"]));
    spans.map(|span| span["name"].as_str().unwrap().to_owned()).collect()
}

async fn run_one(server: &Server) {
    let id = server.submit(task("compute", "1000")).await;
    assert_eq!(server.ended(&id).await.state(), TaskState::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_go_to_zipkin_to_standard_output_and_as_json_to_a_collector() {
    let collector = Collector::start_over(Over::Http).await;
    let zipkin = format!("{}/api/v2/spans", collector.endpoint);
    let mut server = Server::start_with(
        "",
        &[
            ("OTEL_TRACES_EXPORTER", "otlp,zipkin,console"),
            ("OTEL_LOGS_EXPORTER", "console"),
            ("OTEL_METRICS_EXPORTER", "none"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-team=%41"),
            ("OTEL_EXPORTER_ZIPKIN_ENDPOINT", &zipkin),
            ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "3"),
        ],
    );
    run_one(&server).await;
    server.signal(rustix::process::Signal::TERM);
    assert!(server.wait_exit().success());
    let wanted = ["lineshaft.v1.TaskService/SubmitTask", "send default", "process default"];
    let told = collector.read(|told| {
        assert!(told.teams.iter().all(|team| team == "A") && !told.teams.is_empty(), "{:?}", told.teams);
        let named = |span: &Value| span["name"].as_str().unwrap().to_owned();
        let handlers = told.zipkin.iter().filter_map(|span| span["tags"]["lineshaft.handler"].as_str());
        assert!(handlers.clone().count() > 0 && handlers.into_iter().all(|handler| handler == "com"));
        [told.spans.iter().map(|span| span.name.clone()).collect(), told.zipkin.iter().map(named).collect()]
    });
    let log = server.log();
    let said = names(&lines(&log, "resourceSpans"));
    for found in [&told[0], &told[1], &said] {
        assert!(wanted.iter().all(|name| found.iter().any(|found| found.eq_ignore_ascii_case(name))), "{found:?}");
    }
    assert!(log.contains("(http/json) and standard output and") && log.contains("(zipkin)"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_file_says_what_is_exported_where_and_variables_do_not_interfere() {
    let collector = Collector::start().await;
    let directory = tempfile::tempdir().unwrap();
    let (file, points) = (directory.path().join("otel.yaml"), directory.path().join("points.jsonl"));
    let text = r#"
file_format: "1.0"
resource: {attributes: [{name: service.name, value: "${SERVICE}"}]}
tracer_provider:
  processors:
    - batch: {exporter: {otlp_grpc: {endpoint: "${COLLECTOR}", headers: [{name: x-team, value: "${TEAM:-file}"}]}}}
meter_provider:
  readers:
    - periodic: {exporter: {otlp_file/development: {output_stream: "file://${POINTS}"}}}
"#;
    std::fs::write(&file, text).unwrap();
    let mut server = Server::start_with(
        "",
        &[
            ("OTEL_CONFIG_FILE", file.to_str().unwrap()),
            ("COLLECTOR", &collector.endpoint),
            ("POINTS", points.to_str().unwrap()),
            ("SERVICE", "from-the-file"),
            ("OTEL_SERVICE_NAME", "from-a-variable"),
            ("OTEL_TRACES_EXPORTER", "none"),
            ("OTEL_LOGS_EXPORTER", "otlp"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-team=variable,x-other=secret"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "1"),
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "no endpoint"),
        ],
    );
    run_one(&server).await;
    server.signal(rustix::process::Signal::TERM);
    assert!(server.wait_exit().success());
    collector.read(|told| {
        assert!(told.spans.iter().any(|span| span.name == "process default"));
        assert!(told.teams.iter().all(|team| team == "file") && !told.teams.is_empty(), "{:?}", told.teams);
        assert!(told.logs.is_empty() && told.metrics.is_empty());
        let name = crate::collector::text(&told.resources[0].attributes, "service.name");
        assert_eq!(name.as_deref(), Some("from-the-file"));
    });
    let points = std::fs::read_to_string(points).unwrap();
    assert!(!lines(&points, "resourceMetrics").is_empty() && points.contains("lineshaft.task.submitted"), "{points}");
}

#[test]
fn a_file_that_asks_for_what_there_is_not_keeps_the_server_from_starting() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("otel.yaml");
    std::fs::write(&file, "{file_format: '1.0', meter_provider: {readers: [], views: []}}").unwrap();
    let said = Server::refused("", &[("OTEL_CONFIG_FILE", file.to_str().unwrap())]);
    assert!(said.contains("otel.yaml: meter_provider.views: unknown field"), "{said}");
}
