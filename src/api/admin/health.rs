//! A port of its own for probes, scrapers and scalers: plaintext, always open, and nothing can be changed there.
//!
//! It answers before the store is recovered and until the very end, so that an orchestrator sees a
//! server that recovers or drains, and does not take it for dead.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http::header::CONTENT_TYPE;
use tonic::codegen::http::{Request, Response, StatusCode};
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tower::ServiceExt;

use crate::scheduler::Handle;

use super::listener;
use crate::api::http::health::{self, View};
use crate::api::services::health::Probe;

/// The scheduler, once the store is recovered.
pub type Later = Arc<OnceLock<Handle>>;

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, view: View, scheduler: Later, stop: CancellationToken) {
    let probe = Probe::new(view.telemetry.liveness.clone(), stop.clone());
    let services = Arc::new(Services { early: Routes::new(HealthServer::new(probe)), all: OnceLock::new(), scheduler });
    listener::serve(listener, "probes", stop, move |request| answer(view.clone(), services.clone(), request)).await;
}

/// What is answered over gRPC.
struct Services {
    early: Routes,
    /// With KEDA's scaler, made once there is a scheduler to ask.
    all: OnceLock<Routes>,
    scheduler: Later,
}

impl Services {
    fn now(&self) -> Routes {
        let Some(handle) = self.scheduler.get() else { return self.early.clone() };
        let make = || self.early.clone().add_service(crate::api::services::keda::service(handle.clone())).prepare();
        self.all.get_or_init(make).clone()
    }
}

async fn answer<B>(view: View, services: Arc<Services>, request: Request<B>) -> Result<Response<Body>, Infallible>
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if let Some(response) = health::answer(&view, request.method(), request.uri().path(), request.headers()).await {
        return Ok(response);
    }
    let content = request.headers().get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    if content.starts_with(b"application/grpc") {
        return services.now().oneshot(request.map(Body::new)).await;
    }
    let text = "/health, /health/live, /health/ready, /metrics, grpc.health.v1 and KEDA's scaler are here\n";
    let mut response = Response::new(Body::new(text.to_owned()));
    *response.status_mut() = StatusCode::NOT_FOUND;
    Ok(response)
}
