//! A collector of the test's own: it keeps what it is told over OTLP, with gRPC or HTTP, in the clear or not.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
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
use crate::support::TIMEOUT;

/// What was told.
#[derive(Default)]
pub struct Told {
    pub spans: Vec<Span>,
    pub logs: Vec<LogRecord>,
    /// Names.
    pub metrics: Vec<String>,
    /// What was measured, export after export.
    pub points: Vec<Metric>,
    pub resources: Vec<Resource>,
    /// Values of the header `x-team`.
    pub teams: Vec<String>,
}

impl Told {
    fn take_spans(&mut self, request: ExportTraceServiceRequest) {
        for group in request.resource_spans {
            self.resources.extend(group.resource);
            self.spans.extend(group.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }

    fn take_logs(&mut self, request: ExportLogsServiceRequest) {
        for group in request.resource_logs {
            self.logs.extend(group.scope_logs.into_iter().flat_map(|scope| scope.log_records));
        }
    }

    fn take_metrics(&mut self, request: ExportMetricsServiceRequest) {
        for group in request.resource_metrics {
            self.resources.extend(group.resource);
            let metrics = group.scope_metrics.into_iter().flat_map(|scope| scope.metrics);
            let metrics: Vec<_> = metrics.collect();
            self.metrics.extend(metrics.iter().map(|metric| metric.name.clone()));
            self.points.extend(metrics);
        }
    }
}

/// Listens on a port of its own, as long as the test's process lives.
pub struct Collector {
    pub endpoint: String,
    told: Arc<Mutex<Told>>,
}

struct Service(Arc<Mutex<Told>>);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut told = self.0.lock();
        told.teams.extend(request.metadata().get("x-team").and_then(|team| Some(team.to_str().ok()?.to_owned())));
        told.take_spans(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Service {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.0.lock().take_logs(request.into_inner());
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Service {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.0.lock().take_metrics(request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

/// How a collector is spoken to.
#[derive(Clone, Copy)]
pub enum Over<'a> {
    /// gRPC in the clear.
    Grpc,
    /// HTTP in the clear.
    Http,
    /// gRPC with TLS, only to those to whom this authority has given a certificate.
    GrpcTls(&'a Authority),
    /// HTTP with TLS, likewise.
    HttpTls(&'a Authority),
}

impl Collector {
    pub async fn start() -> Self {
        Self::start_over(Over::Grpc).await
    }

    /// On a thread of its own: a test that waits for a server's end must not keep it from listening.
    pub async fn start_over(over: Over<'_>) -> Self {
        let (tell, told_address) = tokio::sync::oneshot::channel();
        let told = Arc::<Mutex<Told>>::default();
        let kept = told.clone();
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
                tell.send(listener.local_addr().unwrap()).unwrap();
                match http {
                    Some(acceptor) => over_http(listener, acceptor, kept).await,
                    None => over_grpc(listener, grpc, kept).await,
                }
            });
        };
        std::thread::Builder::new().name("collector".to_owned()).spawn(serve).unwrap();
        Self { endpoint: format!("{scheme}://{}", told_address.await.unwrap()), told }
    }

    /// What was told, once it is enough.
    pub async fn once<T>(&self, enough: impl Fn(&Told) -> Option<T>) -> T {
        let until = Instant::now() + TIMEOUT;
        loop {
            if let Some(found) = enough(&self.told.lock()) {
                return found;
            }
            let names = || self.told.lock().spans.iter().map(|span| span.name.clone()).collect::<Vec<_>>();
            assert!(Instant::now() < until, "it was never told: {:?}", names());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The span of that name that tells about the task, once it has ended.
    pub async fn span(&self, name: &str, task: &str) -> Span {
        self.once(|told| told.spans.iter().find(|span| span.name == name && is_about(span, task)).cloned()).await
    }

    /// All spans of that name that tell about the task.
    pub fn spans(&self, name: &str, task: &str) -> Vec<Span> {
        let told = self.told.lock();
        told.spans.iter().filter(|span| span.name == name && is_about(span, task)).cloned().collect()
    }

    pub fn read<T>(&self, look: impl FnOnce(&Told) -> T) -> T {
        look(&self.told.lock())
    }
}

async fn over_grpc(listener: TcpListener, tls: Option<ServerTlsConfig>, told: Arc<Mutex<Told>>) {
    let mut server = tonic::transport::Server::builder();
    if let Some(tls) = tls {
        server = server.tls_config(tls).unwrap();
    }
    let router = server
        .add_service(TraceServiceServer::new(Service(told.clone())))
        .add_service(LogsServiceServer::new(Service(told.clone())))
        .add_service(MetricsServiceServer::new(Service(told)));
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

async fn over_http(listener: TcpListener, acceptor: Option<TlsAcceptor>, told: Arc<Mutex<Told>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, told) = (acceptor.clone(), told.clone());
        tokio::spawn(async move {
            match acceptor {
                None => listen(stream, told).await,
                // Those who are not let in are what some tests are about.
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        listen(stream, told).await;
                    }
                }
            }
        });
    }
}

async fn listen(stream: impl AsyncRead + AsyncWrite + Unpin, told: Arc<Mutex<Told>>) {
    let service = hyper::service::service_fn(move |request| take(request, told.clone()));
    // A connection that breaks off has told what it has told.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn take(
    request: hyper::Request<Incoming>,
    told: Arc<Mutex<Told>>,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let header = |name: &str| Some(request.headers().get(name)?.to_str().ok()?.to_owned());
    let team = header("x-team");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut told = told.lock();
    told.teams.extend(team);
    match &*path {
        "/v1/traces" => told.take_spans(decoded(&body)),
        "/v1/logs" => told.take_logs(decoded(&body)),
        "/v1/metrics" => told.take_metrics(decoded(&body)),
        _ => panic!("{path} is no path of OTLP"),
    }
    Ok(hyper::Response::new(Full::default()))
}

fn decoded<T: Message + Default>(body: &[u8]) -> T {
    T::decode(body).unwrap()
}

fn is_about(span: &Span, task: &str) -> bool {
    text(&span.attributes, "messaging.message.id").as_deref() == Some(task)
}

/// The value of an attribute, as a text.
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
