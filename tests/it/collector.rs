//! A collector of the test's own: it keeps what it is told over OTLP.

use std::sync::Arc;
use std::time::{Duration, Instant};

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
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::support::PATIENCE;

/// What was told.
#[derive(Default)]
pub struct Told {
    pub spans: Vec<Span>,
    pub logs: Vec<LogRecord>,
    /// Names.
    pub metrics: Vec<String>,
    pub resources: Vec<Resource>,
    /// Values of the header `x-team`.
    pub teams: Vec<String>,
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
        for group in request.into_inner().resource_spans {
            told.resources.extend(group.resource);
            told.spans.extend(group.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Service {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let mut told = self.0.lock();
        for group in request.into_inner().resource_logs {
            told.logs.extend(group.scope_logs.into_iter().flat_map(|scope| scope.log_records));
        }
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Service {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let mut told = self.0.lock();
        for group in request.into_inner().resource_metrics {
            told.resources.extend(group.resource);
            let metrics = group.scope_metrics.into_iter().flat_map(|scope| scope.metrics);
            told.metrics.extend(metrics.map(|metric| metric.name));
        }
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

impl Collector {
    /// On a thread of its own: a test that waits for a server's end must not keep it from listening.
    pub async fn start() -> Self {
        let (tell, told_endpoint) = tokio::sync::oneshot::channel();
        let told = Arc::<Mutex<Told>>::default();
        let services = told.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let serve = move || {
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(format!("http://{}", listener.local_addr().unwrap())).unwrap();
                let server = tonic::transport::Server::builder()
                    .add_service(TraceServiceServer::new(Service(services.clone())))
                    .add_service(LogsServiceServer::new(Service(services.clone())))
                    .add_service(MetricsServiceServer::new(Service(services)))
                    .serve_with_incoming(TcpListenerStream::new(listener));
                server.await.unwrap();
            });
        };
        std::thread::Builder::new().name("collector".to_owned()).spawn(serve).unwrap();
        Self { endpoint: told_endpoint.await.unwrap(), told }
    }

    /// What was told, once it is enough.
    pub async fn once<T>(&self, enough: impl Fn(&Told) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
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
