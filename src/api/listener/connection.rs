//! Serves one connection: TLS handshake, protocol detection, HTTP, and the request to reconnect when it reaches its maximum age.

use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Either, ready};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tower::{Service, ServiceExt};

use crate::api::auth::{CertificateNames, ConnectionInfo};
use crate::api::headers;
use crate::api::middleware::request_memory::UNREAD_BYTES_MAX;

use super::admission::Permit;
use super::detect::{self, Protocol};
use super::idle_eviction::{ActiveCall, OpenConnection};
use super::lasting_calls::LastingCalls;
use super::send_timeout::{Pieces, SpawnWithSendTimeout};
use super::tls::{Tls, TlsConnection};
use super::write_timeout::WriteTimeout;

/// Time for the calls in flight after the stop. The drain has already ended their streams.
pub const STOP_GRACE: Duration = Duration::from_secs(2);
/// Time in which the streams of a revoked certificate get their status.
const REVOKED_GRACE: Duration = Duration::from_secs(1);
/// Bytes of all headers of one request. Beyond it, HTTP/1.1 returns 431 and HTTP/2 refuses the stream.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Headers of one HTTP/1.1 request.
const HEADERS_MAX: usize = 100;
/// Read buffer of one HTTP/1.1 connection.
const BUFFER_BYTES: usize = 64 << 10;
/// Bytes of one response that an HTTP/2 connection holds. More would be of no use to a peer that reads slowly.
const SEND_BUFFER_BYTES: usize = 64 << 10;

/// Limits of each connection.
#[derive(Clone, Debug)]
pub struct ConnectionOptions {
    /// Streams of one HTTP/2 connection.
    pub max_concurrent_streams: u32,
    /// Interval of pings on a quiet HTTP/2 connection.
    pub keepalive_interval: Duration,
    /// A connection without a reply to a ping within this time is closed.
    pub keepalive_timeout: Duration,
    /// Limit for detecting the protocol, for receiving the headers of an HTTP/1.1 request, and for the idle time
    /// between two of them.
    pub header_timeout: Duration,
    /// Limit for the time in which the peer takes nothing of a response.
    pub send_timeout: Duration,
    /// Age, ±10 %, at which the client is asked to open a new connection, so that clients spread over replicas.
    pub age: Duration,
    /// Time for the calls in flight after that. Those that wait for a task have until its end.
    pub age_grace: Duration,
}

/// A service that handles the requests of all connections.
pub trait RequestService:
    Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<S> RequestService for S where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

pub struct ConnectionServer<S> {
    http1: auto::Builder<SpawnWithSendTimeout>,
    http2: auto::Builder<SpawnWithSendTimeout>,
    options: ConnectionOptions,
    tls: Option<Arc<Tls>>,
    service: S,
    stop: CancellationToken,
}

impl<S: RequestService> ConnectionServer<S> {
    pub fn new(options: ConnectionOptions, tls: Option<Arc<Tls>>, service: S, stop: CancellationToken) -> Self {
        Self { http1: http1(&options), http2: http2(&options), options, tls, service, stop }
    }

    pub async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, permit: Permit) {
        tokio::select! {
            () = permit.evicted() => {}
            () = self.serve_tcp(stream, peer, permit.open_connection()) => {}
        }
    }

    async fn serve_tcp(&self, stream: TcpStream, peer: SocketAddr, open: Option<Arc<OpenConnection>>) {
        // Fails only if the peer has already closed the connection.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let Some(tls) = &self.tls else { return self.serve_http(stream, peer, Default::default(), open).await };
        let handshake = tokio::select! {
            handshake = tls.accept(stream) => handshake,
            // No call is in flight that the stop would have to wait for.
            () = self.stop.cancelled() => return,
        };
        match handshake {
            Ok(TlsConnection { stream, names, mut certificate }) => {
                let revoked = CancellationToken::new();
                let mut serving = pin!(self.serve_http(stream, peer, (names, revoked.clone()), open));
                tokio::select! {
                    () = serving.as_mut() => {}
                    () = certificate.revoked() => {
                        revoked.cancel();
                        // The streams end with a status at once. Other calls in flight end too: their caller is no longer
                        // trusted.
                        let _ = tokio::time::timeout(REVOKED_GRACE, serving).await;
                        tracing::info!(%peer, "closed a connection: client certificate revoked");
                    }
                }
            }
            Err(error) => tracing::debug!(%error, %peer, "TLS handshake failed"),
        }
    }

    /// The calls in flight of an old connection have had their time and none waits for a task, or the server stops.
    async fn grace_ended(&self, lasting_calls: &LastingCalls) {
        let stopped = async {
            self.stop.cancelled().await;
            tokio::time::sleep(STOP_GRACE).await;
        };
        let idle = async {
            tokio::time::sleep(self.options.age_grace).await;
            while lasting_calls.none_waits().now_or_never().is_none() {
                lasting_calls.none_waits().await;
                // For the rest of their answers.
                tokio::time::sleep(self.options.age_grace.max(STOP_GRACE)).await;
            }
        };
        tokio::select! {
            () = idle => {}
            () = stopped => {}
        }
    }

    async fn serve_http<T>(
        &self,
        stream: T,
        peer: SocketAddr,
        (certificate, revoked): (Option<CertificateNames>, CancellationToken),
        open: Option<Arc<OpenConnection>>,
    ) where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let detected = tokio::select! {
            // A separate timeout, because hyper's starts with the first byte.
            detected = tokio::time::timeout(self.options.header_timeout, detect::protocol(stream)) => detected,
            // No call is in flight that the stop would have to wait for.
            () = self.stop.cancelled() => return,
        };
        let Ok(Ok((protocol, stream))) = detected else {
            return tracing::debug!(%peer, "closed a connection: no request within the header timeout");
        };
        let connection = ConnectionInfo::new(peer, certificate, revoked.clone());
        let lasting_calls = LastingCalls::default();
        let service = service_fn(|mut request: Request<Incoming>| {
            let refused = headers::refuse(&request);
            request.extensions_mut().insert(connection.clone());
            let call = open.clone().map(ActiveCall::start);
            let lasting = lasting_calls.start(request.uri());
            match refused {
                Some(refused) => Either::Left(ready(Ok(refused.map(Pieces::new)))),
                // No async block, since it would have room for this future twice.
                None => Either::Right(self.service.clone().oneshot(request).map(move |response| {
                    let response = response?;
                    let response = match lasting {
                        Some(call) => response.map(|body| call.hold_until_end_of(body)),
                        None => response,
                    };
                    let response = match call {
                        Some(call) => response.map(|body| call.hold_until_end_of(body)),
                        None => response,
                    };
                    Ok::<_, Infallible>(response.map(Pieces::new))
                })),
            }
        });
        let stream = TokioIo::new(WriteTimeout::new(stream, self.options.send_timeout));
        let builder = match protocol {
            Protocol::Http1 => &self.http1,
            Protocol::Http2 => &self.http2,
        };
        let mut serving = pin!(builder.serve_connection(stream, service));
        let ended = tokio::select! {
            ended = serving.as_mut() => Some(ended),
            () = tokio::time::sleep(jittered(self.options.age, RandomState::new().hash_one(()))) => None,
            () = self.stop.cancelled() => None,
            () = revoked.cancelled() => None,
        };
        let ended = if let Some(ended) = ended {
            ended
        } else {
            // The client sends new calls over a new connection, and finishes the calls in flight on this one.
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                ended = serving => ended,
                () = self.grace_ended(&lasting_calls) => {
                    return tracing::debug!(%peer, "closed an old connection with calls in flight");
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error = &*error, %peer, "connection failed");
        }
    }
}

fn http1(options: &ConnectionOptions) -> auto::Builder<SpawnWithSendTimeout> {
    let mut builder = auto::Builder::new(SpawnWithSendTimeout(options.send_timeout)).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        // Also the limit for the idle time between two requests.
        .header_read_timeout(options.header_timeout)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_BYTES);
    builder
}

fn http2(options: &ConnectionOptions) -> auto::Builder<SpawnWithSendTimeout> {
    let mut builder = auto::Builder::new(SpawnWithSendTimeout(options.send_timeout)).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_concurrent_streams(options.max_concurrent_streams)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .initial_stream_window_size(UNREAD_BYTES_MAX)
        .keep_alive_interval(Some(options.keepalive_interval))
        .keep_alive_timeout(options.keepalive_timeout);
    builder
}

/// The duration ±10 %, so that connections that were opened together are not renewed together.
fn jittered(duration: Duration, random: u64) -> Duration {
    let per_mille = 900 + u32::try_from(random % 201).unwrap_or(100);
    duration.saturating_mul(per_mille) / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_varies_by_a_tenth_either_way() {
        let age = |random| jittered(Duration::from_mins(5), random);
        assert_eq!(age(0), Duration::from_secs(270));
        assert_eq!(age(200), Duration::from_secs(330));
        assert!((0..1_000).map(age).all(|age| (270..=330).contains(&age.as_secs())));
    }
}
