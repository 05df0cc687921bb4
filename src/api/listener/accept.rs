//! Accepts connections, sends old ones away, and ends all of them at the stop.
//!
//! A loop of our own, because the framework's cuts an old connection without the notice (GOAWAY) that
//! lets clients move their calls, gives all connections the same age, and spins when the process runs
//! out of file descriptors.

use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::transport::server::TcpConnectInfo;
use tower::Service;

use super::connection_limit::ConnectionPermit;
use super::detect::{self, Protocol};
use super::tls::{Tls, TlsConnection};
use crate::api::auth::CertificateNames;
use crate::api::security::Security;
use crate::api::server::Options;

/// Time that calls under way get after the stop; their streams have ended with the drain before.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// Pause after a connection could not be accepted, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes of all headers of one call; beyond, HTTP/1.1 answers 431 and HTTP/2 refuses the call.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Headers of one call of HTTP/1.1.
const HEADERS_MAX: usize = 100;
/// Bytes of an HTTP/1.1 connection that are held at once.
const BUFFER_BYTES: usize = 64 << 10;

/// What answers calls; every connection gets a clone that knows the peer.
pub trait Edge:
    Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static
{
    /// The same edge, for calls from this peer, with the names of its certificate.
    fn facing(&self, peer: TcpConnectInfo, certificate: Option<CertificateNames>) -> Self;
}

/// What every connection shares.
struct Shared<E> {
    http1: auto::Builder<TokioExecutor>,
    http2: auto::Builder<TokioExecutor>,
    edge: E,
    tls: Option<Arc<Tls>>,
    header_timeout: Duration,
    age: Duration,
    age_grace: Duration,
    stop: CancellationToken,
}

/// Serves every connection until `stop`, and a short while longer.
pub async fn serve<E: Edge>(
    listener: TcpListener,
    edge: E,
    security: &Security,
    options: &Options,
    stop: CancellationToken,
) {
    let shared = Arc::new(Shared {
        http1: http1(options),
        http2: http2(options),
        edge,
        tls: security.tls.clone(),
        header_timeout: options.header_timeout,
        age: options.connection_age,
        age_grace: options.connection_age_grace,
        stop: stop.clone(),
    });
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = open.join_next() => {}
            connected = listener.accept() => match connected {
                // One too many is closed at once.
                Ok((stream, address)) => if let Some(place) = security.admission.admit(address.ip()) {
                    open.spawn(accepted(shared.clone(), stream, place));
                },
                Err(error) => {
                    tracing::warn!(%error, connections = open.len(), "failed to accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    // New callers are refused by the system at once instead of waiting for somebody who has left.
    drop(listener);
    let all_ended = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_GRACE, all_ended).await.is_err() {
        tracing::warn!(connections = open.len(), "connections were still open and are cut");
        open.shutdown().await;
    }
}

fn http1(options: &Options) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        // Also the time that a connection may be idle between two calls.
        .header_read_timeout(options.header_timeout)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_BYTES);
    builder
}

fn http2(options: &Options) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new()).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_concurrent_streams(options.max_concurrent_streams)
        .keep_alive_interval(Some(options.keepalive_interval))
        .keep_alive_timeout(options.keepalive_timeout);
    builder
}

async fn accepted<E: Edge>(shared: Arc<Shared<E>>, stream: TcpStream, _place: ConnectionPermit) {
    let Ok(peer) = peer(&stream) else { return };
    let Some(tls) = shared.tls.clone() else { return connection(shared, stream, peer, None).await };
    let shaken = tokio::select! {
        shaken = tls.accept(stream) => shaken,
        // It has no call under way that could be waited for.
        () = shared.stop.cancelled() => return,
    };
    match shaken {
        Ok(TlsConnection { stream, names, mut certificate }) => {
            let address = peer.remote_addr;
            tokio::select! {
                () = connection(shared, stream, peer, names) => {}
                // Its calls end with it: they are of somebody who is not believed.
                () = certificate.revoked() => tracing::info!(peer = ?address, "cut: its certificate is not believed any more"),
            }
        }
        Err(error) => tracing::debug!(%error, peer = ?peer.remote_addr, "a handshake failed"),
    }
}

/// Serves whatever bytes a caller exchanges with us, such as a TCP stream.
async fn connection<E, T>(
    shared: Arc<Shared<E>>,
    stream: T,
    peer: TcpConnectInfo,
    certificate: Option<CertificateNames>,
) where
    E: Edge,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let sniffed = tokio::select! {
        sniffed = tokio::time::timeout(shared.header_timeout, detect::protocol(stream)) => sniffed,
        // It has no call under way that could be waited for.
        () = shared.stop.cancelled() => return,
    };
    let Ok(Ok((version, stream))) = sniffed else {
        return tracing::debug!("a connection did not say what it speaks");
    };
    let builder = match version {
        Protocol::Http1 => &shared.http1,
        Protocol::Http2 => &shared.http2,
    };
    let service = TowerToHyperService::new(shared.edge.facing(peer, certificate));
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = served.as_mut() => Some(ended),
        () = tokio::time::sleep(jittered(shared.age, RandomState::new().hash_one(()))) => None,
        () = shared.stop.cancelled() => None,
    };
    let ended = if let Some(ended) = ended {
        ended
    } else {
        // The client opens a new connection for new calls, and finishes the old ones on this.
        served.as_mut().graceful_shutdown();
        let Ok(ended) = tokio::time::timeout(shared.age_grace.max(STOP_GRACE), served).await else {
            return tracing::debug!("an old connection is cut");
        };
        ended
    };
    if let Err(error) = ended {
        tracing::debug!(error = &*error, "a connection failed");
    }
}

/// Whom calls of this connection come from. Fails when the peer has gone already.
fn peer(stream: &TcpStream) -> io::Result<TcpConnectInfo> {
    stream.set_nodelay(true)?;
    Ok(TcpConnectInfo { local_addr: stream.local_addr().ok(), remote_addr: Some(stream.peer_addr()?) })
}

/// The span give or take 10 %, so that connections made together do not come back together.
fn jittered(span: Duration, random: u64) -> Duration {
    let per_mille = 900 + u32::try_from(random % 201).unwrap_or(100);
    span.saturating_mul(per_mille) / 1_000
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use tonic::service::Routes;

    use super::*;
    use crate::api::SecurityOptions;
    use crate::api::middleware::guard::Guard;
    use crate::model::SystemClock;
    use crate::telemetry::Telemetry;
    use crate::telemetry::host::HostHealth;

    /// What a client says first: the preface, and settings without a wish.
    const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;

    fn options(connection_age: Duration) -> Options {
        Options {
            max_concurrent_streams: 3,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            connection_age,
            connection_age_grace: Duration::from_secs(1),
            header_timeout: Duration::from_millis(200),
            body_timeout: Duration::from_secs(1),
            allowed_origins: Vec::new(),
            hosts: Vec::new(),
            max_in_flight: 1,
            instance: String::new(),
            host: Arc::new(HostHealth::default),
            telemetry: Telemetry::off(),
        }
    }

    async fn dial(options: Options, stop: CancellationToken) -> (TcpStream, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let guard = Guard::new(Routes::default().prepare(), 1);
        let open = SecurityOptions { tls: None, auth: None, connections_max: 1, connections_per_address_max: 1 };
        let security = Security::open(open, Arc::new(SystemClock)).unwrap();
        let serving = tokio::spawn(async move { serve(listener, guard, &security, &options, stop).await });
        (TcpStream::connect(address).await.unwrap(), serving)
    }

    async fn greet(options: Options, stop: CancellationToken) -> (TcpStream, tokio::task::JoinHandle<()>) {
        let (mut stream, serving) = dial(options, stop).await;
        stream.write_all(HELLO).await.unwrap();
        (stream, serving)
    }

    /// Type and content of the next frame; `None` at the end.
    async fn frame(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let mut content = vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut content).await.ok()?;
        Some((head[3], content))
    }

    #[tokio::test]
    async fn an_old_connection_gets_notice_before_it_ends() {
        let (mut stream, _serving) = greet(options(Duration::from_millis(50)), CancellationToken::new()).await;
        let mut kinds = Vec::new();
        while let Some((kind, content)) = frame(&mut stream).await {
            if kind == SETTINGS && !content.is_empty() {
                assert!(content.chunks(6).any(|setting| setting == [0, 3, 0, 0, 0, 3]), "streams are bounded");
            }
            kinds.push(kind);
            if kind == GOAWAY {
                break;
            }
        }
        assert_eq!(kinds.last(), Some(&GOAWAY));
    }

    #[tokio::test(start_paused = true)]
    async fn the_stop_does_not_wait_for_a_client_that_stays() {
        let stop = CancellationToken::new();
        let (mut stream, serving) = greet(options(Duration::from_hours(1)), stop.clone()).await;
        assert_eq!(frame(&mut stream).await.unwrap().0, SETTINGS);
        stop.cancel();
        serving.await.unwrap();
        // The client never answers the notice; its connection is closed all the same.
        while frame(&mut stream).await.is_some() {}
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_say_what_it_speaks_is_cut_off() {
        for said in [&b""[..], &HELLO[..10], b"GET / HT"] {
            let (mut stream, _serving) = dial(options(Duration::from_hours(1)), CancellationToken::new()).await;
            stream.write_all(said).await.unwrap();
            let mut rest = Vec::new();
            // An orderly end or a reset.
            let _ = stream.read_to_end(&mut rest).await;
            assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{rest:?}");
        }
    }

    #[test]
    fn ages_differ_by_at_most_a_tenth_either_way() {
        let of = |random| jittered(Duration::from_mins(5), random);
        assert_eq!(of(0), Duration::from_secs(270));
        assert_eq!(of(200), Duration::from_secs(330));
        assert!((0..1_000).map(of).all(|age| (270..=330).contains(&age.as_secs())));
    }
}
