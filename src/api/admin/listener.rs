//! Ports beside the server's own: plaintext and always open, so there are bounds on how many are served and for
//! how long, and nothing can be changed there.
//!
//! Whoever comes gets in, for it may be a probe on which the server's life depends: when the places are taken,
//! the connection that has been idle longest gives way.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};

use crate::api::listener::detect::{self, Protocol};

/// Connections at a time; one more takes the place of another.
const CONNECTIONS_MAX: usize = 64;
/// Streams of one connection: KEDA keeps one connection to a server, and a stream open for each trigger.
const STREAMS_MAX: u32 = 256;
/// Time in which a connection must say what it speaks, and in which the headers of a call must be complete.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Age at which a connection ends, so that nobody keeps one of the places.
const CONNECTION_AGE: Duration = Duration::from_mins(10);
/// Pause after a connection could not be accepted, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves with what `answer` says, until `stop`. `callers` are those who come here, for the log.
pub async fn serve<A, F>(listener: TcpListener, callers: &'static str, stop: CancellationToken, answer: A)
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    let protocols = Arc::new(Protocols::new());
    let mut open = JoinSet::new();
    let mut guests: Vec<Guest> = Vec::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = open.join_next() => guests.retain(|guest| !guest.task.is_finished()),
            // One too many until somebody has given way, and no more than that.
            accepted = listener.accept(), if open.len() <= CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    if open.len() == CONNECTIONS_MAX && let Some(idlest) = guests.iter().min_by_key(|guest| guest.rank()) {
                        idlest.task.abort();
                    }
                    let doings = Arc::new(Mutex::new(Doings { calls: 0, since: Instant::now() }));
                    let task = open.spawn(connection(protocols.clone(), stream, answer.clone(), doings.clone()));
                    guests.push(Guest { task, doings });
                }
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection for {callers}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    open.shutdown().await;
}

/// An open connection.
struct Guest {
    task: AbortHandle,
    doings: Arc<Mutex<Doings>>,
}

impl Guest {
    /// The least gives way first: who has no call under way, and then whose last call began or ended longest ago.
    fn rank(&self) -> (bool, Instant) {
        let doings = self.doings.lock();
        (doings.calls > 0, doings.since)
    }
}

/// What a connection is about.
struct Doings {
    /// Calls under way.
    calls: usize,
    /// When a call last began or ended, or when the connection came.
    since: Instant,
}

/// A call under way.
struct Call(Arc<Mutex<Doings>>);

impl Call {
    fn begin(doings: Arc<Mutex<Doings>>) -> Self {
        {
            let mut doings = doings.lock();
            doings.calls += 1;
            doings.since = Instant::now();
        }
        Self(doings)
    }

    /// The call lasts as long as its answer.
    fn lasting(self, answer: Body) -> Body {
        Body::new(answer.map_err(move |error| {
            let _held = &self;
            error
        }))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut doings = self.0.lock();
        doings.calls -= 1;
        doings.since = Instant::now();
    }
}

/// Both versions of HTTP, with their bounds.
struct Protocols {
    http1: auto::Builder<TokioExecutor>,
    http2: auto::Builder<TokioExecutor>,
}

impl Protocols {
    fn new() -> Self {
        let mut http1 = auto::Builder::new(TokioExecutor::new()).http1_only();
        http1.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        let mut http2 = auto::Builder::new(TokioExecutor::new()).http2_only();
        http2
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .keep_alive_interval(Some(HEADER_TIMEOUT));
        Self { http1, http2 }
    }
}

async fn connection<A, F>(protocols: Arc<Protocols>, stream: TcpStream, answer: A, doings: Arc<Mutex<Doings>>)
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    let service = tower::service_fn(move |request| {
        let call = Call::begin(doings.clone());
        let answer = answer(request);
        async move { answer.await.map(|answer| answer.map(|body| call.lasting(body))) }
    });
    let served = async {
        // Under a time limit of ours: hyper's begins with the first byte.
        let sniffed = tokio::time::timeout(HEADER_TIMEOUT, detect::protocol(stream)).await;
        let Ok(Ok((version, stream))) = sniffed else { return };
        let builder = match version {
            Protocol::Http1 => &protocols.http1,
            Protocol::Http2 => &protocols.http2,
        };
        // Whoever has gone is not missed.
        let _ = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).await;
    };
    // Nor is who has stayed too long.
    let _ = tokio::time::timeout(CONNECTION_AGE, served).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Answers at once, but for `/wait`.
    async fn port() -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = |request: Request<Incoming>| async move {
            if request.uri().path() == "/wait" {
                let endless = futures_util::stream::pending::<Result<http_body::Frame<bytes::Bytes>, tonic::Status>>();
                return Ok(Response::new(Body::new(http_body_util::StreamBody::new(endless))));
            }
            Ok(Response::new(Body::new("served".to_owned())))
        };
        tokio::spawn(serve(listener, "tests", CancellationToken::new(), answer));
        address
    }

    async fn dial(address: std::net::SocketAddr, said: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        stream
    }

    /// Asks, and reads until something of the answer is there.
    async fn ask(address: std::net::SocketAddr, path: &str, wanted: &str) -> TcpStream {
        let mut stream = dial(address, &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        let mut read = Vec::new();
        while !String::from_utf8_lossy(&read).contains(wanted) {
            assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "{}", String::from_utf8_lossy(&read));
        }
        stream
    }

    /// Waits for the end, however it comes.
    async fn ends(stream: &mut TcpStream) {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&rest));
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_ask_in_time_is_cut_off() {
        for said in ["", "PRI * HT", "GET / HT"] {
            let begun = Instant::now();
            ends(&mut dial(port().await, said).await).await;
            assert!(begun.elapsed() < CONNECTION_AGE, "{said:?}: {:?}", begun.elapsed());
        }
        let mut kept = ask(port().await, "/", "served").await;
        let begun = Instant::now();
        ends(&mut kept).await;
        assert!(begun.elapsed() < CONNECTION_AGE, "after its answer: {:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn the_idlest_gives_way_and_who_is_at_work_only_after_all_others() {
        let address = port().await;
        let mut at_work = ask(address, "/wait", "\r\n\r\n").await;
        let mut kept = ask(address, "/", "served").await;
        let mut others = Vec::new();
        for _ in 2..CONNECTIONS_MAX {
            others.push(ask(address, "/wait", "\r\n\r\n").await);
        }
        // Everybody is at work but one.
        let mut next = ask(address, "/wait", "\r\n\r\n").await;
        ends(&mut kept).await;
        // And now nobody is idle: it is the one who has been at it longest.
        let _served = ask(address, "/", "served").await;
        ends(&mut at_work).await;
        let there = [0; 1];
        for other in others.iter_mut().chain([&mut next]) {
            let nothing = other.try_read(&mut there.clone()).unwrap_err();
            assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock, "the others are still there");
        }
    }
}
