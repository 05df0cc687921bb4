//! The health port: health and metrics pages, grpc.health.v1 and KEDA's scaler. Nothing can be changed there.
//!
//! It responds before the store is recovered and until the very end, so that an orchestrator sees a server
//! that recovers or drains and does not restart it.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response, StatusCode};
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tower::{ServiceBuilder, ServiceExt};

use crate::api::http::Kind;
use crate::api::http::health::{self, Sources};
use crate::api::middleware::body_timeout::BodyTimeoutLayer;
use crate::api::middleware::public_calls::PublicCallsLayer;
use crate::api::middleware::public_places::{PUBLIC_BYTES_MAX, PublicPlaces};
use crate::api::middleware::response_memory::counted;
use crate::api::services::health::HealthService;
use crate::api::services::keda;
use crate::scheduler::Handle;

use super::listener;

/// For the message of a request.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The reference to an object of KEDA, with its metadata.
const SCALER_BYTES_MAX: usize = 64 << 10;

/// The handle of the scheduler, once the store is recovered.
pub type SchedulerCell = Arc<OnceLock<Handle>>;

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, sources: Sources, scheduler: SchedulerCell, stop: CancellationToken) {
    let health = HealthService::new(sources.telemetry.liveness.clone(), stop.clone());
    let recovering = Routes::new(HealthServer::new(health).max_decoding_message_size(PUBLIC_BYTES_MAX));
    let services =
        Arc::new(Services { recovering, ready: OnceLock::new(), scheduler, places: PublicPlaces::default() });
    let service = tower::service_fn(move |request| respond(sources.clone(), services.clone(), request));
    listener::serve(listener, "health", service, stop).await;
}

/// The gRPC services of the port.
struct Services {
    recovering: Routes,
    /// With KEDA's scaler, which needs the scheduler.
    ready: OnceLock<Routes>,
    scheduler: SchedulerCell,
    places: PublicPlaces,
}

impl Services {
    fn current(&self) -> Routes {
        let Some(handle) = self.scheduler.get() else { return self.recovering.clone() };
        let scaler = || keda::service(handle.clone()).max_decoding_message_size(SCALER_BYTES_MAX);
        let with_scaler = || self.recovering.clone().add_service(scaler()).prepare();
        self.ready.get_or_init(with_scaler).clone()
    }
}

async fn respond<B>(
    sources: Sources,
    services: Arc<Services>,
    request: Request<B>,
) -> Result<Response<Body>, Infallible>
where
    B: http_body::Body<Data = bytes::Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    if let Some(response) = health::respond(&sources, request.method(), request.uri().path(), request.headers()).await {
        return Ok(counted(&sources.memory, response));
    }
    if Kind::of(&request) == Kind::Grpc {
        let bounded = ServiceBuilder::new()
            .layer(PublicCallsLayer { places: services.places.clone(), all: true })
            .layer(BodyTimeoutLayer(BODY_TIMEOUT))
            .service(services.current());
        return bounded.oneshot(request.map(Body::new)).await.map(|response| counted(&sources.memory, response));
    }
    let text = "not found; this port serves /health, /health/live, /health/ready, /metrics, grpc.health.v1 and the \
                KEDA external scaler\n";
    let mut response = Response::new(Body::new(text.to_owned()));
    *response.status_mut() = StatusCode::NOT_FOUND;
    Ok(response)
}
