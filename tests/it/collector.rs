//! A collector that keeps the received telemetry, over gRPC or HTTP, with or without TLS.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use prost::Message;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};
use tonic::{Request, Response, Status};

use crate::security::tls::Authority;
use crate::support::eventually;

/// Why a collector rejects items.
pub const REJECTED: &str = "made up by a test";

/// Received telemetry.
#[derive(Default)]
pub struct Received {
    pub spans: Vec<Span>,
    pub logs: Vec<LogRecord>,
    /// Names of metrics.
    pub metrics: Vec<String>,
    /// Metrics, export after export.
    pub points: Vec<Metric>,
    pub resources: Vec<Resource>,
    /// Values of the header `x-team`.
    pub teams: Vec<String>,
    /// Items of each export that the collector claims to reject.
    pub rejected: i64,
}

impl Received {
    fn take_spans(&mut self, request: ExportTraceServiceRequest) -> ExportTraceServiceResponse {
        for group in request.resource_spans {
            self.resources.extend(group.resource);
            self.spans.extend(group.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
        let partial = ExportTracePartialSuccess { rejected_spans: self.rejected, error_message: REJECTED.to_owned() };
        ExportTraceServiceResponse { partial_success: (self.rejected > 0).then_some(partial) }
    }

    fn take_logs(&mut self, request: ExportLogsServiceRequest) -> ExportLogsServiceResponse {
        for group in request.resource_logs {
            self.logs.extend(group.scope_logs.into_iter().flat_map(|scope| scope.log_records));
        }
        let partial =
            ExportLogsPartialSuccess { rejected_log_records: self.rejected, error_message: REJECTED.to_owned() };
        ExportLogsServiceResponse { partial_success: (self.rejected > 0).then_some(partial) }
    }

    fn take_metrics(&mut self, request: ExportMetricsServiceRequest) -> ExportMetricsServiceResponse {
        for group in request.resource_metrics {
            self.resources.extend(group.resource);
            let metrics = group.scope_metrics.into_iter().flat_map(|scope| scope.metrics);
            let metrics: Vec<_> = metrics.collect();
            self.metrics.extend(metrics.iter().map(|metric| metric.name.clone()));
            self.points.extend(metrics);
        }
        let partial =
            ExportMetricsPartialSuccess { rejected_data_points: self.rejected, error_message: REJECTED.to_owned() };
        ExportMetricsServiceResponse { partial_success: (self.rejected > 0).then_some(partial) }
    }
}

/// Listens on a port of its own until the test process ends.
pub struct Collector {
    pub endpoint: String,
    received: Arc<Mutex<Received>>,
}

struct Service(Arc<Mutex<Received>>);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut received = self.0.lock();
        received.teams.extend(request.metadata().get("x-team").and_then(|team| Some(team.to_str().ok()?.to_owned())));
        Ok(Response::new(received.take_spans(request.into_inner())))
    }
}

#[tonic::async_trait]
impl LogsService for Service {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        Ok(Response::new(self.0.lock().take_logs(request.into_inner())))
    }
}

#[tonic::async_trait]
impl MetricsService for Service {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        Ok(Response::new(self.0.lock().take_metrics(request.into_inner())))
    }
}

/// Transport of a collector.
#[derive(Clone, Copy)]
pub enum Over<'a> {
    /// gRPC without TLS.
    Grpc,
    /// HTTP without TLS.
    Http,
    /// gRPC with TLS for clients with a certificate of this authority.
    GrpcTls(&'a Authority),
    /// HTTP with TLS for clients with a certificate of this authority.
    HttpTls(&'a Authority),
}

impl Collector {
    pub async fn start() -> Self {
        Self::start_over(Over::Grpc).await
    }

    /// Runs on a thread of its own, because a test may block while it waits for the exit of a server.
    pub async fn start_over(over: Over<'_>) -> Self {
        let (address_sender, address) = tokio::sync::oneshot::channel();
        let received = Arc::<Mutex<Received>>::default();
        let shared = received.clone();
        let identity = |authority: &Authority| authority.sign("collector", &["127.0.0.1"]);
        let grpc_tls = |authority: &Authority| {
            let (certificate, key) = identity(authority);
            let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
            tls.client_ca_root(Certificate::from_pem(authority.pem()))
        };
        let (scheme, grpc, http) = match over {
            Over::Grpc => ("http", None, None),
            Over::Http => ("http", None, Some(None)),
            Over::GrpcTls(authority) => ("https", Some(grpc_tls(authority)), None),
            Over::HttpTls(authority) => ("https", None, Some(Some(acceptor(authority, &identity(authority))))),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let serve = move || {
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                address_sender.send(listener.local_addr().unwrap()).unwrap();
                match http {
                    Some(acceptor) => over_http(listener, acceptor, shared).await,
                    None => over_grpc(listener, grpc, shared).await,
                }
            });
        };
        std::thread::Builder::new().name("collector".to_owned()).spawn(serve).unwrap();
        Self { endpoint: format!("{scheme}://{}", address.await.unwrap()), received }
    }

    /// Waits until `find` returns something from the received telemetry.
    pub async fn wait_for<T>(&self, find: impl Fn(&Received) -> Option<T>) -> T {
        eventually(async || {
            let received = self.received.lock();
            let names = || received.spans.iter().map(|span| &*span.name).collect::<Vec<_>>();
            find(&received).ok_or_else(|| format!("not received; the spans are {:?}", names()))
        })
        .await
    }

    /// Waits for the span of a task by its name.
    pub async fn span(&self, name: &str, task: &str) -> Span {
        self.wait_for(|received| {
            received.spans.iter().find(|span| span.name == name && is_of_task(span, task)).cloned()
        })
        .await
    }

    /// All spans of a task with this name.
    pub fn spans(&self, name: &str, task: &str) -> Vec<Span> {
        let received = self.received.lock();
        received.spans.iter().filter(|span| span.name == name && is_of_task(span, task)).cloned().collect()
    }

    /// Claims to reject this number of items of each export from now on.
    pub fn reject(&self, items: i64) {
        self.received.lock().rejected = items;
    }

    pub fn read<T>(&self, look: impl FnOnce(&Received) -> T) -> T {
        look(&self.received.lock())
    }
}

async fn over_grpc(listener: TcpListener, tls: Option<ServerTlsConfig>, received: Arc<Mutex<Received>>) {
    let mut server = tonic::transport::Server::builder();
    if let Some(tls) = tls {
        server = server.tls_config(tls).unwrap();
    }
    let router = server
        .add_service(TraceServiceServer::new(Service(received.clone())))
        .add_service(LogsServiceServer::new(Service(received.clone())))
        .add_service(MetricsServiceServer::new(Service(received)));
    router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
}

fn acceptor(authority: &Authority, (certificate, key): &(String, String)) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config = builder.with_client_cert_verifier(clients).with_single_cert(chain, key).unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn over_http(listener: TcpListener, acceptor: Option<TlsAcceptor>, received: Arc<Mutex<Received>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, received) = (acceptor.clone(), received.clone());
        tokio::spawn(async move {
            match acceptor {
                None => listen(stream, received).await,
                // Some tests expect refused connections.
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        listen(stream, received).await;
                    }
                }
            }
        });
    }
}

async fn listen(stream: impl AsyncRead + AsyncWrite + Unpin, received: Arc<Mutex<Received>>) {
    let service = hyper::service::service_fn(move |request| take(request, received.clone()));
    // What was received before a connection breaks is kept.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn take(
    request: hyper::Request<Incoming>,
    received: Arc<Mutex<Received>>,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let header = |name: &str| Some(request.headers().get(name)?.to_str().ok()?.to_owned());
    let team = header("x-team");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut received = received.lock();
    received.teams.extend(team);
    let response = match &*path {
        "/v1/traces" => received.take_spans(decoded(&body)).encode_to_vec(),
        "/v1/logs" => received.take_logs(decoded(&body)).encode_to_vec(),
        "/v1/metrics" => received.take_metrics(decoded(&body)).encode_to_vec(),
        _ => panic!("{path} is no path of OTLP"),
    };
    Ok(hyper::Response::new(response.into()))
}

fn decoded<T: Message + Default>(body: &[u8]) -> T {
    T::decode(body).unwrap()
}

fn is_of_task(span: &Span, task: &str) -> bool {
    text(&span.attributes, "messaging.message.id").as_deref() == Some(task)
}

/// The value of an attribute as text.
pub fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    Some(match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}

/// The text of a log record.
pub fn body(record: &LogRecord) -> String {
    match record.body.as_ref().and_then(|body| body.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        other => format!("{other:?}"),
    }
}

pub fn hex(id: &[u8]) -> String {
    id.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}
