//! Whether somebody listens where telemetry goes, and speaks what is configured.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::codegen::http::{Uri, uri::PathAndQuery};
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

use crate::telemetry::export::settings::{Protocol, Target};
use crate::telemetry::export::{Destination, Settings, SettingsError, Signal, open_lines, without_secrets};

use super::report::Finding;

/// What to do about a collector that is not reached, or not understood.
const NOT_EXPORTED: &str = "tasks run all the same, but nothing is exported: check name, port (4317 for grpc, 4318 for \
                            http/protobuf), protocol (telemetry.protocol, OTEL_EXPORTER_OTLP_PROTOCOL) and network policies";
/// How long the collector may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// The export of a signal: an empty message of it is an empty list.
const fn export(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    }
}

/// Asks each collector that the server would tell something, once for all signals that go the same way.
pub(super) async fn examine(settings: &Result<Settings, SettingsError>) -> Vec<Finding> {
    let settings = match settings {
        Ok(settings) => settings,
        Err(error) => {
            let advice = "correct the file; docs/observability.md tells what may stand in it";
            return vec![Finding::bad("otlp", error.to_string()).advise(advice)];
        }
    };
    let ignored = |warning: &String| {
        Finding::doubtful("otlp", warning).advise("correct the variable or the place in the file, or take it away")
    };
    let mut findings: Vec<Finding> = settings.warnings.iter().map(ignored).collect();
    let mut asked: Vec<(Protocol, String)> = Vec::new();
    for signal in Signal::ALL {
        for target in settings.targets(signal) {
            findings.extend(unreadable(target));
            let way = (target.protocol, target.endpoint.replacen(&format!("/v1/{}", signal.name()), "", 1));
            if !asked.contains(&way) {
                asked.push(way);
                findings.push(ask(signal, target).await);
            }
        }
    }
    findings.extend(written(settings));
    if let Some(zipkin) = &settings.zipkin {
        findings.push(ask_zipkin(&zipkin.endpoint).await);
    }
    if settings.is_silent() {
        let text = if settings.disabled {
            "nothing is exported: OTEL_SDK_DISABLED, or `disabled` in OTEL_CONFIG_FILE, turns everything off"
        } else {
            "nothing is exported: neither telemetry.endpoint nor OTEL_EXPORTER_OTLP_ENDPOINT names a collector"
        };
        findings.push(Finding::well("otlp", text));
    }
    findings
}

/// What is told of lines on standard output and in files, each once.
fn written(settings: &Settings) -> Vec<Finding> {
    let mut told = Vec::new();
    for signal in Signal::ALL {
        for destination in settings.destinations(signal) {
            let Destination::Lines(file) = destination else { continue };
            let finding = match file.as_deref().map(|path| (path, can_be_opened(path))) {
                None => Finding::well("otlp", "lines of telemetry stand on standard output, beside the log"),
                Some((path, Ok(()))) => {
                    Finding::well("otlp", format!("lines of telemetry are added to {}", path.display()))
                }
                Some((path, Err(error))) => {
                    Finding::bad("otlp", format!("{} cannot be written: {error}", path.display()))
                        .advise("a server would not start: correct output_stream in OTEL_CONFIG_FILE")
                }
            };
            if !told.contains(&finding) {
                told.push(finding);
            }
        }
    }
    told
}

/// Makes no file: whoever only looks leaves nothing behind.
fn can_be_opened(path: &Path) -> io::Result<()> {
    if path.exists() {
        return open_lines(path).map(drop);
    }
    std::fs::read_dir(path.parent().unwrap_or(Path::new("/"))).map(drop)
}

async fn ask_zipkin(endpoint: &str) -> Finding {
    let shown = without_secrets(endpoint);
    let Ok(uri) = endpoint.parse::<Uri>() else {
        return Finding::bad("otlp", format!("{shown:?} is no URL")).advise(NOT_EXPORTED);
    };
    match timeout(PATIENCE, reach(&uri, uri.scheme_str() == Some("https"))).await {
        Ok(Ok(_)) => Finding::well("otlp", format!("{shown} is reached; what Zipkin takes was not asked")),
        Ok(Err(why)) => Finding::doubtful("otlp", format!("{shown} {why}")).advise(NOT_EXPORTED),
        Err(_) => Finding::doubtful("otlp", format!("{shown} does not answer")).advise(NOT_EXPORTED),
    }
}

/// Certificates and keys without which the server does not start.
fn unreadable(target: &Target) -> Vec<Finding> {
    let (certificate, key) = target.identity.clone().unzip();
    let files = [target.certificate.clone(), certificate, key].into_iter().flatten();
    let failed = files.filter_map(|path| Some((std::fs::read(&path).err()?, path)));
    let found = failed.map(|(error, path)| {
        Finding::bad("otlp", format!("{} cannot be read: {error}", path.display()))
            .advise("correct OTEL_EXPORTER_OTLP_CERTIFICATE, _CLIENT_CERTIFICATE or _CLIENT_KEY")
    });
    found.collect()
}

async fn ask(signal: Signal, target: &Target) -> Finding {
    let endpoint = without_secrets(&target.endpoint);
    // What is no endpoint is not among the settings.
    let Ok(uri) = target.endpoint.parse::<Uri>() else {
        return Finding::bad("otlp", format!("{endpoint:?} is no URL")).advise(NOT_EXPORTED);
    };
    let secure = uri.scheme_str() == Some("https");
    let answer = timeout(PATIENCE, async {
        let stream = reach(&uri, secure).await?;
        match (secure, target.protocol) {
            (true, _) => Ok("is reached; what it says behind TLS was not asked".to_owned()),
            (false, Protocol::Http | Protocol::HttpJson) => over_http(stream, &uri, signal, target.protocol).await,
            (false, Protocol::Grpc) => over_grpc(&uri, signal).await,
        }
    });
    let answer = answer.await.unwrap_or_else(|_| Err(format!("does not answer within {} s", PATIENCE.as_secs())));
    match answer {
        Ok(text) => Finding::well("otlp", format!("{endpoint} {text}")),
        Err(why) => Finding::doubtful("otlp", format!("{endpoint} {why}")).advise(NOT_EXPORTED),
    }
}

async fn reach(uri: &Uri, secure: bool) -> Result<TcpStream, String> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    TcpStream::connect((host, port)).await.map_err(|error| format!("cannot be reached: {error}"))
}

async fn over_grpc(uri: &Uri, signal: Signal) -> Result<String, String> {
    let channel =
        Endpoint::from(uri.clone()).connect().await.map_err(|error| format!("does not speak gRPC: {error}"))?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| format!("does not speak gRPC: {error}"))?;
    let codec = ProstCodec::<(), ()>::default();
    let answer = client.unary(tonic::Request::new(()), PathAndQuery::from_static(export(signal)), codec).await;
    match answer {
        Ok(_) => Ok(format!("takes {} by gRPC", signal.name())),
        Err(status) if status.code() == tonic::Code::Unauthenticated => {
            Ok("is reached by gRPC and asks for credentials, which OTEL_EXPORTER_OTLP_HEADERS may carry".to_owned())
        }
        Err(status) => Err(format!("refuses {}: {} {}", signal.name(), status.code(), status.message())),
    }
}

async fn over_http(mut stream: TcpStream, uri: &Uri, signal: Signal, protocol: Protocol) -> Result<String, String> {
    // The empty message, which is an empty list.
    let (kind, body) = if protocol == Protocol::HttpJson { ("json", "{}") } else { ("x-protobuf", "") };
    let (path, length) = (uri.path(), body.len());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/{kind}\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    let told = |error: io::Error| format!("does not speak HTTP: {error}");
    stream.write_all(request.as_bytes()).await.map_err(told)?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.map_err(told)?;
    match answer.strip_prefix(b"HTTP/1.1 ").map(String::from_utf8_lossy).as_deref() {
        Some("200") => Ok(format!("takes {} by HTTP", signal.name())),
        Some(code @ ("401" | "403")) => Ok(format!(
            "is reached by HTTP and asks for credentials ({code}), which OTEL_EXPORTER_OTLP_HEADERS may carry"
        )),
        Some(code) => Err(format!("answers {code} to {} at {path}", signal.name())),
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
        let finding = examine(&Settings::read(&variables, endpoint, "")).await.remove(0);
        (finding.state, finding.text)
    }

    /// A collector that answers one request with these bytes.
    async fn collector(answer: &'static [u8]) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1_024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer).await;
        });
        format!("http://{address}")
    }

    fn nobody() -> String {
        format!("http://{}", std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
    }

    #[tokio::test]
    async fn without_an_endpoint_nothing_is_asked() {
        assert_eq!(found(&[]).await.0, State::Ok);
        let off = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"), ("OTEL_SDK_DISABLED", "TRUE")];
        assert_eq!(found(&off).await.0, State::Ok);
    }

    #[tokio::test]
    async fn files_and_zipkin_are_told_of_and_no_secret() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("otel.yaml");
        let text = |to: &str| {
            let exporter = format!("{{otlp_file/development: {{output_stream: 'file://{to}'}}}}");
            format!("{{file_format: '1.0', logger_provider: {{processors: [{{simple: {{exporter: {exporter}}}}}]}}}}")
        };
        let named = [("OTEL_CONFIG_FILE", file.to_str().unwrap())];
        for (to, state) in [(directory.path().join("lines"), State::Ok), ("/nosuch/lines".into(), State::Fail)] {
            std::fs::write(&file, text(to.to_str().unwrap())).unwrap();
            let (found, said) = found(&named).await;
            assert!(found == state && said.contains("lines"), "{said}");
        }
        let zipkin = nobody().replace("http://", "http://me:secret@");
        let said = [("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_EXPORTER_ZIPKIN_ENDPOINT", &*zipkin)];
        let (state, text) = found(&said).await;
        assert!(state == State::Warn && text.contains("cannot be reached") && !text.contains("secret"), "{text}");
        let (_, text) = found(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &*zipkin)]).await;
        assert!(text.contains("cannot be reached") && !text.contains("secret"), "{text}");
    }

    #[tokio::test]
    async fn an_endpoint_that_is_no_url_or_that_nobody_listens_on_is_told() {
        let (state, text) = found(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://:4317")]).await;
        assert!(state == State::Warn && text.contains("expected http://host:port"), "{text}");
        for (pairs, configured) in
            [(vec![("OTEL_EXPORTER_OTLP_ENDPOINT", nobody())], String::new()), (Vec::new(), nobody())]
        {
            let pairs: Vec<_> = pairs.iter().map(|(key, value)| (*key, value.as_str())).collect();
            let (state, text) = found_with(&pairs, &configured).await;
            assert_eq!(state, State::Warn);
            assert!(text.contains("cannot be reached"), "{text}");
        }
    }

    #[tokio::test]
    async fn signals_that_go_the_same_way_are_asked_once_and_others_each() {
        let (here, there) = (nobody(), nobody());
        let pairs = [("OTEL_EXPORTER_OTLP_ENDPOINT", here), ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", there.clone())];
        let pairs = pairs.map(|(key, value)| (key.to_owned(), value));
        let findings = examine(&Settings::read(&pairs.into(), "", "")).await;
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(findings[1].text.starts_with(&there), "{findings:?}");
    }

    #[tokio::test]
    async fn what_the_server_ignores_and_files_that_are_not_there_are_told() {
        let (state, text) = found(&[("OTEL_CONFIG_FILE", "/nosuch.yaml")]).await;
        assert!(state == State::Fail && text.contains("failed to read /nosuch.yaml"), "{text}");
        assert_eq!(found(&[("OTEL_TRACES_EXPORTER", "carrier-pigeon")]).await.0, State::Warn);
        let endpoint = nobody();
        let said = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint), ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nosuch.pem")];
        let (state, text) = found(&said).await;
        assert!(state == State::Fail && text.contains("/nosuch.pem cannot be read"), "{text}");
    }

    #[tokio::test]
    async fn an_http_collector_says_whether_it_takes_traces() {
        for (answer, state) in [
            (&b"HTTP/1.1 200 OK\r\n\r\n"[..], State::Ok),
            (b"HTTP/1.1 401 Unauthorized\r\n\r\n", State::Ok),
            (b"HTTP/1.1 404 Not Found\r\n\r\n", State::Warn),
            (b"SSH-2.0-OpenSSH_9.2\r\n", State::Warn),
        ] {
            let endpoint = collector(answer).await;
            let said = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")];
            let (found, text) = found(&said).await;
            assert_eq!(found, state, "{text}");
        }
    }

    #[tokio::test]
    async fn a_port_that_speaks_http_is_no_grpc_collector() {
        let endpoint = collector(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let said = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
        let (state, text) = found(&said).await;
        assert_eq!(state, State::Warn, "{text}");
    }
}
