//! Export over TLS, with right and wrong certificates.

use std::path::Path;

use lineshaft::proto::v1::TaskState;
use tempfile::TempDir;

use crate::collector::{Collector, Over, Received, body};
use crate::health_endpoints::samples;
use crate::security::tls::Authority;
use crate::support::{Server, check, eventually, noop};

/// Certificate files for the exporter.
struct Files(TempDir);

impl Files {
    fn new(authority: &Authority, other: &Authority) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        let (certificate, key) = authority.sign("lineshaft", &[]);
        let texts = [("ca", authority.pem()), ("other-ca", other.pem()), ("own", certificate), ("key", key)];
        for (name, text) in texts {
            std::fs::write(files.path(name), text).unwrap();
        }
        files
    }

    fn path(&self, name: &str) -> String {
        Path::new(self.0.path()).join(name).display().to_string()
    }
}

/// A server that exports at once, with a short timeout.
fn serve(collector: &Collector, protocol: &str, files: &Files, certificates: &[(&str, &str)]) -> Server {
    let own = certificates.iter().map(|(variable, name)| ((*variable).to_owned(), files.path(name)));
    let own: Vec<_> = own.collect();
    let mut variables = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"),
        ("OTEL_BSP_SCHEDULE_DELAY", "10"),
        ("OTEL_BLRP_SCHEDULE_DELAY", "10"),
    ];
    variables.extend(own.iter().map(|(variable, path)| (&**variable, &**path)));
    Server::start_with("", &variables)
}

/// Runs tasks until telemetry of this signal has this outcome.
async fn run(server: &Server, signal: &str, outcome: &str) {
    let name = format!("lineshaft_telemetry_items_total{{outcome=\"{outcome}\",signal=\"{signal}\"}}");
    eventually(async || {
        let id = server.submit(noop()).await;
        assert_eq!(server.wait_finished(&id).await.state(), TaskState::Completed);
        let counted = samples(&server.address).get(&name).is_some_and(|items| items != "0");
        check(counted, || format!("no {signal} are {outcome}: {}", server.log()))
    })
    .await;
}

fn stop(server: &mut Server) {
    server.signal(rustix::process::Signal::TERM);
    assert!(server.wait_exit().success(), "{}", server.log());
}

fn has_span(received: &Received) -> Option<()> {
    received.spans.iter().any(|span| span.name == "process default").then_some(())
}

fn has_serving_record(received: &Received) -> Option<()> {
    received.logs.iter().any(|record| body(record) == "serving").then_some(())
}

const FOR_ALL: [(&str, &str); 3] = [
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", "ca"),
    ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "own"),
    ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "key"),
];

async fn everything_arrives(over: Over<'_>, protocol: &str, files: &Files) {
    let collector = Collector::start_over(over).await;
    let mut server = serve(&collector, protocol, files, &FOR_ALL);
    run(&server, "traces", "exported").await;
    stop(&mut server);
    collector.wait_for(has_span).await;
    collector.wait_for(has_serving_record).await;
    collector
        .wait_for(|received| received.metrics.iter().any(|name| name == "lineshaft.task.submitted").then_some(()))
        .await;
    assert!(!server.log().contains("telemetry was lost"), "{protocol}: {}", server.log());
}

/// The certificates are right for traces and wrong for the other signals.
async fn spans_only_arrive(over: Over<'_>, protocol: &str, files: &Files) {
    let collector = Collector::start_over(over).await;
    let mixed = [
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "other-ca"),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "own"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "key"),
        ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "ca"),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "own"),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "key"),
    ];
    let mut server = serve(&collector, protocol, files, &mixed);
    run(&server, "logs", "failed").await;
    run(&server, "traces", "exported").await;
    stop(&mut server);
    collector.wait_for(has_span).await;
    assert!(collector.read(|received| received.logs.is_empty() && received.metrics.is_empty()), "{protocol}");
    let log = server.log();
    let warned = log.lines().find(|line| line.contains("telemetry dropped: the export failed"));
    assert!(warned.is_some_and(|line| line.contains("certificate")), "{protocol}: {log}");
    assert!(log.contains("telemetry was lost"), "{protocol}: {log}");
}

/// The collector refuses a client without a certificate.
async fn nothing_arrives_without_a_client_certificate(over: Over<'_>, protocol: &str, files: &Files) {
    let collector = Collector::start_over(over).await;
    let server = serve(&collector, protocol, files, &FOR_ALL[..1]);
    run(&server, "traces", "failed").await;
    let nothing =
        |received: &Received| received.spans.is_empty() && received.logs.is_empty() && received.metrics.is_empty();
    assert!(collector.read(nothing), "{protocol}");
    assert!(server.log().contains("telemetry dropped"), "{protocol}: {}", server.log());
}

#[tokio::test]
async fn grpc_exports_verify_the_collector_and_show_a_client_certificate() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (files, over) = (Files::new(&authority, &other), Over::GrpcTls(&authority));
    everything_arrives(over, "grpc", &files).await;
    spans_only_arrive(over, "grpc", &files).await;
    nothing_arrives_without_a_client_certificate(over, "grpc", &files).await;
}

#[tokio::test]
async fn http_exports_verify_the_collector_and_show_a_client_certificate() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (files, over) = (Files::new(&authority, &other), Over::HttpTls(&authority));
    everything_arrives(over, "http/protobuf", &files).await;
    spans_only_arrive(over, "http/protobuf", &files).await;
    nothing_arrives_without_a_client_certificate(over, "http/protobuf", &files).await;
}
