//! Whether somebody listens where telemetry goes, and speaks what is configured.

use std::collections::HashMap;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::codegen::http::{Uri, uri::PathAndQuery};
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

use super::report::Finding;

/// How long the collector may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// An export of nothing: an empty message of this method is an empty list of spans.
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Where telemetry goes, as OpenTelemetry's variables say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Destination {
    endpoint: Option<String>,
    http: bool,
    disabled: bool,
}

impl Destination {
    pub fn from_env(variables: impl Iterator<Item = (String, String)>) -> Self {
        let said: HashMap<String, String> = variables.filter(|(_, value)| !value.trim().is_empty()).collect();
        let first = |names: &[&str]| names.iter().find_map(|name| said.get(*name)).map(|value| value.trim().to_owned());
        let endpoint = first(&[
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
        ]);
        let protocol = first(&["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"]);
        Self {
            endpoint,
            http: protocol.is_some_and(|protocol| protocol.starts_with("http/")),
            disabled: said.get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")),
        }
    }
}

pub(super) async fn examine(destination: &Destination) -> Vec<Finding> {
    let Some(endpoint) = destination.endpoint.as_deref().filter(|_| !destination.disabled) else {
        return vec![Finding::well("otlp", "nothing is exported: OTEL_EXPORTER_OTLP_ENDPOINT is not set")];
    };
    let parsed = endpoint.parse::<Uri>().ok().filter(|uri| uri.scheme().is_some() && uri.host().is_some());
    let Some(uri) = parsed else {
        let advice = "write it like http://collector:4317";
        return vec![Finding::bad("otlp", format!("{endpoint:?} is no URL")).advise(advice)];
    };
    let secure = uri.scheme_str() == Some("https");
    let answer = timeout(PATIENCE, async {
        let stream = reach(&uri, secure).await?;
        match (secure, destination.http) {
            (true, _) => Ok("is reached; what it says behind TLS was not asked".to_owned()),
            (false, true) => over_http(stream, &uri).await,
            (false, false) => over_grpc(&uri).await,
        }
    });
    let answer = answer.await.unwrap_or_else(|_| Err(format!("does not answer within {} s", PATIENCE.as_secs())));
    vec![match answer {
        Ok(text) => Finding::well("otlp", format!("{endpoint} {text}")),
        Err(why) => Finding::doubtful("otlp", format!("{endpoint} {why}")).advise(
            "tasks run all the same, but nothing is exported: check name, port (4317 for grpc, 4318 for \
             http/protobuf), OTEL_EXPORTER_OTLP_PROTOCOL and network policies",
        ),
    }]
}

async fn reach(uri: &Uri, secure: bool) -> Result<TcpStream, String> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    TcpStream::connect((host, port)).await.map_err(|error| format!("cannot be reached: {error}"))
}

async fn over_grpc(uri: &Uri) -> Result<String, String> {
    let channel =
        Endpoint::from(uri.clone()).connect().await.map_err(|error| format!("does not speak gRPC: {error}"))?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| format!("does not speak gRPC: {error}"))?;
    let codec = ProstCodec::<(), ()>::default();
    let answer = client.unary(tonic::Request::new(()), PathAndQuery::from_static(EXPORT), codec).await;
    match answer {
        Ok(_) => Ok("takes traces by gRPC".to_owned()),
        Err(status) if status.code() == tonic::Code::Unauthenticated => {
            Ok("is reached by gRPC and asks for credentials, which OTEL_EXPORTER_OTLP_HEADERS may carry".to_owned())
        }
        Err(status) => Err(format!("refuses traces: {} {}", status.code(), status.message())),
    }
}

async fn over_http(mut stream: TcpStream, uri: &Uri) -> Result<String, String> {
    let path = format!("{}/v1/traces", uri.path().trim_end_matches('/'));
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/x-protobuf\r\n\
         Content-Length: 0\r\nConnection: close\r\n\r\n"
    );
    let told = |error: std::io::Error| format!("does not speak HTTP: {error}");
    stream.write_all(request.as_bytes()).await.map_err(told)?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.map_err(told)?;
    match answer.strip_prefix(b"HTTP/1.1 ").map(String::from_utf8_lossy).as_deref() {
        Some("200") => Ok("takes traces by HTTP".to_owned()),
        Some(code @ ("401" | "403")) => Ok(format!(
            "is reached by HTTP and asks for credentials ({code}), which OTEL_EXPORTER_OTLP_HEADERS may carry"
        )),
        Some(code) => Err(format!("answers {code} to traces at {path}")),
        None => Err("does not speak HTTP".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;

    fn destination(pairs: &[(&str, &str)]) -> Destination {
        Destination::from_env(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())))
    }

    async fn found(pairs: &[(&str, &str)]) -> (State, String) {
        let finding = examine(&destination(pairs)).await.remove(0);
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

    #[tokio::test]
    async fn without_an_endpoint_nothing_is_asked() {
        assert_eq!(found(&[]).await.0, State::Ok);
        let off = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"), ("OTEL_SDK_DISABLED", "TRUE")];
        assert_eq!(found(&off).await.0, State::Ok);
    }

    #[tokio::test]
    async fn an_endpoint_that_is_no_url_or_that_nobody_listens_on_is_told() {
        assert_eq!(found(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317")]).await.0, State::Fail);
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (state, text) = found(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{free}"))]).await;
        assert_eq!(state, State::Warn);
        assert!(text.contains("cannot be reached"), "{text}");
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
        let (state, text) = found(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]).await;
        assert_eq!(state, State::Warn, "{text}");
    }
}
