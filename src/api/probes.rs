//! A port of its own for probes, scrapers and scalers: plaintext, always open, and nothing can be changed there.
//!
//! It answers before the store is recovered and until the very end, so that an orchestrator sees a
//! server that recovers or drains, and does not take it for dead.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http::header::CONTENT_TYPE;
use tonic::codegen::http::{Request, Response, StatusCode};
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tower::ServiceExt;

use crate::scheduler::Handle;

use super::health::Probe;
use super::http::health::{self, View};

/// The scheduler, once the store is recovered.
pub type Later = Arc<OnceLock<Handle>>;

/// Connections at a time; more wait for their turn.
const CONNECTIONS_MAX: usize = 64;
/// Streams of one connection: KEDA keeps one connection to a server, and a stream open for each trigger.
const STREAMS_MAX: u32 = 256;
/// Time in which the headers of a call must be complete.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Age at which a connection ends, so that nobody keeps one of the places.
const CONNECTION_AGE: Duration = Duration::from_mins(10);
/// Pause after a connection could not be accepted, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop`.
pub(super) async fn serve(listener: TcpListener, view: View, scheduler: Later, stop: CancellationToken) {
    let probe = Probe::new(view.telemetry.vitals.clone(), stop.clone());
    let routes = Routes::new(HealthServer::new(probe));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(Some(HEADER_TIMEOUT));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut open = JoinSet::new();
    loop {
        // It is never closed.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection for probes");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let (builder, view, routes, scheduler) = (builder.clone(), view.clone(), routes.clone(), scheduler.clone());
        open.spawn(async move {
            let answer = move |request| answer(view.clone(), with_scaler(routes.clone(), &scheduler), request);
            let answer = tower::service_fn(answer);
            let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(answer));
            // Whoever has gone, or has stayed too long, is not missed.
            let _ = tokio::time::timeout(CONNECTION_AGE, served).await;
            drop(place);
        });
        while open.try_join_next().is_some() {}
    }
    open.shutdown().await;
}

/// The services, with KEDA's once there is a scheduler to ask.
fn with_scaler(routes: Routes, scheduler: &Later) -> Routes {
    match scheduler.get() {
        Some(handle) => routes.add_service(super::keda::service(handle.clone())),
        None => routes,
    }
}

async fn answer<B>(view: View, routes: Routes, request: Request<B>) -> Result<Response<Body>, Infallible>
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if let Some(response) = health::answer(&view, request.method(), request.uri().path(), request.headers()).await {
        return Ok(response);
    }
    let content = request.headers().get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    if content.starts_with(b"application/grpc") {
        return routes.oneshot(request.map(Body::new)).await;
    }
    let text = "/health, /health/live, /health/ready, /metrics, grpc.health.v1 and KEDA's scaler are here\n";
    let mut response = Response::new(Body::new(text.to_owned()));
    *response.status_mut() = StatusCode::NOT_FOUND;
    Ok(response)
}
