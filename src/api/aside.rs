//! Ports beside the server's own: plaintext and always open, so there are bounds on how many are served and for
//! how long, and nothing can be changed there.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};

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

/// Serves with what `answer` says, until `stop`. `callers` are those who come here, for the log.
pub(super) async fn serve<A, F>(listener: TcpListener, callers: &'static str, stop: CancellationToken, answer: A)
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
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
                    tracing::warn!(%error, "failed to accept a connection for {callers}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let (builder, answer) = (builder.clone(), tower::service_fn(answer.clone()));
        open.spawn(async move {
            let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(answer));
            // Whoever has gone, or has stayed too long, is not missed.
            let _ = tokio::time::timeout(CONNECTION_AGE, served).await;
            drop(place);
        });
        while open.try_join_next().is_some() {}
    }
    open.shutdown().await;
}
