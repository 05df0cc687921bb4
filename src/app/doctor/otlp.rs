//! Whether each configured collector is reachable and accepts the configured protocol.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::codegen::http::{Uri, uri::PathAndQuery};
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

use crate::model::SecretUrl;
use crate::telemetry::export::settings::{Collector, Protocol, Settings, Signal};

use super::report::Finding;

/// Advice for a collector that is unreachable or does not accept the protocol.
const NOT_EXPORTED: &str = "tasks run, but nothing is exported; check name, port (4317 for grpc, 4318 for \
                            http/protobuf), protocol (telemetry.protocol, OTEL_EXPORTER_OTLP_PROTOCOL) and network policies";
const TIMEOUT: Duration = Duration::from_secs(3);

/// The RPC that exports a signal. Its empty message is an empty list.
const fn export_path(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    }
}

/// Asks each collector about every signal that is sent to it.
pub(super) async fn check(settings: &Settings) -> Vec<Finding> {
    let ignored = |warning: &String| Finding::warning("otlp", warning).with_advice("correct or remove the variable");
    let mut findings: Vec<Finding> = settings.warnings.iter().map(ignored).collect();
    let mut unreachable: Vec<String> = Vec::new();
    for signal in Signal::ALL {
        let to = settings.destinations(signal);
        if let Some(collector) = &to.collector {
            findings.extend(unreadable(collector));
            let host = collector.endpoint.parse::<Uri>().ok().and_then(|uri| Some(uri.authority()?.to_string()));
            let host = host.unwrap_or_default();
            if unreachable.contains(&host) {
                continue;
            }
            findings.push(match probe(signal, collector).await {
                Ok(finding) => finding,
                Err(finding) => {
                    unreachable.push(host);
                    finding
                }
            });
        }
        if to.console {
            findings.push(Finding::ok("otlp", format!("{} are written to stdout", signal.name())));
        }
    }
    if settings.is_silent() {
        let text = if settings.disabled {
            "nothing is exported; OTEL_SDK_DISABLED is true"
        } else {
            "nothing is exported; neither telemetry.endpoint nor OTEL_EXPORTER_OTLP_ENDPOINT is set"
        };
        findings.push(Finding::ok("otlp", text));
    }
    findings
}

/// Reports unreadable certificates and keys, without which the server does not start.
fn unreadable(collector: &Collector) -> Vec<Finding> {
    let (certificate, key) = collector.identity.clone().unzip();
    let files = [collector.certificate.clone(), certificate, key].into_iter().flatten();
    let failed = files.filter_map(|path| Some((std::fs::read(&path).err()?, path)));
    let found = failed.map(|(error, path)| {
        Finding::failure("otlp", format!("failed to read {}: {error}", path.display()))
            .with_advice("correct OTEL_EXPORTER_OTLP_CERTIFICATE, _CLIENT_CERTIFICATE or _CLIENT_KEY")
    });
    found.collect()
}

/// # Errors
/// The finding, if no connection could be opened: that is the same for all signals.
async fn probe(signal: Signal, collector: &Collector) -> Result<Finding, Finding> {
    let endpoint = SecretUrl::from(&*collector.endpoint);
    // The settings contain only endpoints that are URLs.
    let Ok(uri) = collector.endpoint.parse::<Uri>() else {
        return Err(Finding::failure("otlp", format!("{endpoint:?} is not a URL")).with_advice(NOT_EXPORTED));
    };
    let warning = |text: String| Finding::warning("otlp", format!("{endpoint} {text}")).with_advice(NOT_EXPORTED);
    let silent = |_| format!("does not respond within {} s", TIMEOUT.as_secs());
    let secure = uri.scheme_str() == Some("https");
    let connected = timeout(TIMEOUT, connect(&uri, secure)).await;
    let stream = connected.unwrap_or_else(|elapsed| Err(silent(elapsed))).map_err(warning)?;
    let asked = timeout(TIMEOUT, async {
        match (secure, collector.protocol) {
            (true, _) => Ok(format!("is reachable for {}; not checked further, because it uses TLS", signal.name())),
            (false, Protocol::Http) => probe_http(stream, &uri, signal).await,
            (false, Protocol::Grpc) => probe_grpc(&uri, signal).await,
        }
    });
    Ok(match asked.await.unwrap_or_else(|elapsed| Err(silent(elapsed))) {
        Ok(text) => Finding::ok("otlp", format!("{endpoint} {text}")),
        Err(text) => warning(text),
    })
}

async fn connect(uri: &Uri, secure: bool) -> Result<TcpStream, String> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    TcpStream::connect((host, port)).await.map_err(|error| format!("is unreachable: {error}"))
}

async fn probe_grpc(uri: &Uri, signal: Signal) -> Result<String, String> {
    let channel =
        Endpoint::from(uri.clone()).connect().await.map_err(|error| format!("does not speak gRPC: {error}"))?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| format!("does not speak gRPC: {error}"))?;
    let codec = ProstCodec::<(), ()>::default();
    let response = client.unary(tonic::Request::new(()), PathAndQuery::from_static(export_path(signal)), codec).await;
    match response {
        Ok(_) => Ok(format!("accepts {} over gRPC", signal.name())),
        Err(status) if status.code() == tonic::Code::Unauthenticated => {
            Ok("is reachable over gRPC and requires credentials; set them in OTEL_EXPORTER_OTLP_HEADERS".to_owned())
        }
        Err(status) => Err(format!("rejects {}: {} {}", signal.name(), status.code(), status.message())),
    }
}

async fn probe_http(mut stream: TcpStream, uri: &Uri, signal: Signal) -> Result<String, String> {
    let path = uri.path();
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/x-protobuf\r\n\
         Content-Length: 0\r\nConnection: close\r\n\r\n"
    );
    let no_http = |error: io::Error| format!("does not speak HTTP: {error}");
    stream.write_all(request.as_bytes()).await.map_err(no_http)?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.map_err(no_http)?;
    let code = [b"HTTP/1.1 ", b"HTTP/1.0 "].into_iter().find_map(|version| status.strip_prefix(version));
    match code.map(String::from_utf8_lossy).as_deref() {
        Some("200") => Ok(format!("accepts {} over HTTP", signal.name())),
        Some(code @ ("401" | "403")) => Ok(format!(
            "is reachable over HTTP and requires credentials ({code}); set them in OTEL_EXPORTER_OTLP_HEADERS"
        )),
        Some(code) => Err(format!("returns {code} for {} at {path}", signal.name())),
        None => Err("does not speak HTTP".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;

    async fn found(pairs: &[(&str, &str)]) -> (State, String) {
        found_with(pairs, "").await
    }

    async fn found_with(pairs: &[(&str, &str)], endpoint: &str) -> (State, String) {
        let variables = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let finding = check(&Settings::read(&variables, endpoint, "")).await.remove(0);
        (finding.state, finding.text)
    }

    /// A collector that sends these bytes to every client.
    async fn collector(answer: &'static [u8]) -> String {
        collector_that(move |_| answer).await
    }

    /// A collector whose answer depends on the request.
    async fn collector_that(answer: impl Fn(&str) -> &'static [u8] + Send + 'static) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1_024];
                let length = stream.read(&mut request).await.unwrap_or(0);
                let _ = stream.write_all(answer(&String::from_utf8_lossy(&request[..length]))).await;
            }
        });
        format!("http://{address}")
    }

    #[tokio::test]
    async fn a_collector_is_asked_about_every_signal() {
        let endpoint = collector_that(|request| {
            if request.starts_with("POST /v1/logs") {
                b"HTTP/1.1 404 Not Found\r\n\r\n"
            } else {
                b"HTTP/1.1 200 OK\r\n\r\n"
            }
        });
        let pairs =
            [("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint.await), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")];
        let variables = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let findings = check(&Settings::read(&variables.into(), "", "")).await;
        let states: Vec<_> = findings.iter().map(|finding| finding.state).collect();
        assert_eq!(states, [State::Ok, State::Ok, State::Warn], "{findings:?}");
        assert!(findings[2].text.contains("returns 404 for logs"), "{findings:?}");
    }

    fn unused_endpoint() -> String {
        format!("http://{}", std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
    }

    #[tokio::test]
    async fn nothing_is_probed_without_an_endpoint() {
        assert_eq!(found(&[]).await.0, State::Ok);
        let off = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"), ("OTEL_SDK_DISABLED", "TRUE")];
        assert_eq!(found(&off).await.0, State::Ok);
    }

    #[tokio::test]
    async fn the_console_is_reported_and_secrets_of_an_endpoint_are_not_shown() {
        let (state, text) = found(&[("OTEL_TRACES_EXPORTER", "console")]).await;
        assert_eq!((state, &*text), (State::Ok, "traces are written to stdout"));
        let endpoint = unused_endpoint().replace("http://", "http://me:secret@");
        let (_, text) = found(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint)]).await;
        assert!(text.contains("is unreachable") && !text.contains("secret"), "{text}");
    }

    #[tokio::test]
    async fn an_invalid_or_unreachable_endpoint_gets_a_warning() {
        let (state, text) = found(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://:4317")]).await;
        assert!(state == State::Warn && text.contains("expected http://host:port"), "{text}");
        for (pairs, configured) in
            [(vec![("OTEL_EXPORTER_OTLP_ENDPOINT", unused_endpoint())], String::new()), (Vec::new(), unused_endpoint())]
        {
            let pairs: Vec<_> = pairs.iter().map(|(key, value)| (*key, value.as_str())).collect();
            let (state, text) = found_with(&pairs, &configured).await;
            assert_eq!(state, State::Warn);
            assert!(text.contains("is unreachable"), "{text}");
        }
    }

    #[tokio::test]
    async fn an_unreachable_collector_is_reported_once() {
        let (here, there) = (unused_endpoint(), unused_endpoint());
        let pairs = [("OTEL_EXPORTER_OTLP_ENDPOINT", here), ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", there.clone())];
        let pairs = pairs.map(|(key, value)| (key.to_owned(), value));
        let findings = check(&Settings::read(&pairs.into(), "", "")).await;
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(findings[1].text.starts_with(&there), "{findings:?}");
    }

    #[tokio::test]
    async fn ignored_variables_and_missing_files_are_reported() {
        let (state, text) = found(&[("OTEL_CONFIG_FILE", "/nosuch.yaml")]).await;
        assert!(state == State::Warn && text.ends_with("have no effect: OTEL_CONFIG_FILE"), "{text}");
        assert_eq!(found(&[("OTEL_TRACES_EXPORTER", "carrier-pigeon")]).await.0, State::Warn);
        let endpoint = unused_endpoint();
        let variables =
            [("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint), ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nosuch.pem")];
        let (state, text) = found(&variables).await;
        assert!(state == State::Fail && text.contains("failed to read /nosuch.pem"), "{text}");
    }

    #[tokio::test]
    async fn an_http_collector_is_probed_with_an_empty_export() {
        for (answer, state) in [
            (&b"HTTP/1.1 200 OK\r\n\r\n"[..], State::Ok),
            (b"HTTP/1.0 200 OK\r\n\r\n", State::Ok),
            (b"HTTP/1.1 401 Unauthorized\r\n\r\n", State::Ok),
            (b"HTTP/1.1 404 Not Found\r\n\r\n", State::Warn),
            (b"SSH-2.0-OpenSSH_9.2\r\n", State::Warn),
        ] {
            let endpoint = collector(answer).await;
            let variables =
                [("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")];
            let (found, text) = found(&variables).await;
            assert_eq!(found, state, "{text}");
        }
    }

    #[tokio::test]
    async fn an_http_server_is_not_a_grpc_collector() {
        let endpoint = collector(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
        let (state, text) = found(&variables).await;
        assert_eq!(state, State::Warn, "{text}");
    }
}
