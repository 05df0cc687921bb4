//! The listener of the admin ports: plaintext, without authentication, and with fixed limits, because anyone
//! who reaches the port can use it.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api::listener::accept::{self, ListenerOptions};
use crate::api::listener::admission::AdmissionPolicy;
use crate::api::listener::connection::{ConnectionOptions, RequestService};
use crate::api::listener::idle_eviction::IdleEviction;

/// Open connections. One more replaces the connection that has been idle longest.
const CONNECTIONS_MAX: usize = 64;
const CONNECTIONS: ConnectionOptions = ConnectionOptions {
    // KEDA uses one connection for each server, with an open stream for each trigger.
    max_concurrent_streams: 256,
    keepalive_interval: Duration::from_secs(10),
    keepalive_timeout: Duration::from_secs(20),
    header_timeout: Duration::from_secs(10),
    send_timeout: Duration::from_secs(10),
    age: Duration::from_mins(10),
    age_grace: Duration::ZERO,
};

/// Serves until `stop`. `name` is for log messages.
pub async fn serve<S: RequestService>(listener: TcpListener, name: &'static str, service: S, stop: CancellationToken) {
    let admission = AdmissionPolicy::EvictIdlest(IdleEviction::new(CONNECTIONS_MAX));
    let options = ListenerOptions { name, admission, tls: None, connections: CONNECTIONS };
    accept::serve(listener, options, service, stop).await;
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::SocketAddr;

    use hyper::body::Incoming;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::Instant;
    use tonic::body::Body;
    use tonic::codegen::http::{Request, Response};

    use super::*;

    /// A port whose responses are complete at once, except for `/wait`, whose body never ends.
    async fn port() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = tower::service_fn(|request: Request<Incoming>| async move {
            if request.uri().path() == "/wait" {
                let endless = futures_util::stream::pending::<Result<http_body::Frame<bytes::Bytes>, tonic::Status>>();
                return Ok::<_, Infallible>(Response::new(Body::new(http_body_util::StreamBody::new(endless))));
            }
            Ok(Response::new(Body::new("served".to_owned())))
        });
        tokio::spawn(serve(listener, "tests", service, CancellationToken::new()));
        address
    }

    async fn connect(address: SocketAddr, bytes: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        stream
    }

    /// Sends a request, and reads until the response contains `expected`.
    async fn get(address: SocketAddr, path: &str, expected: &str) -> TcpStream {
        let mut stream = connect(address, &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        let mut read = Vec::new();
        while !String::from_utf8_lossy(&read).contains(expected) {
            assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "{}", String::from_utf8_lossy(&read));
        }
        stream
    }

    /// Waits until the connection is closed or reset.
    async fn closed(stream: &mut TcpStream) {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&rest));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_request_is_closed() {
        for bytes in ["", "PRI * HT", "GET / HT"] {
            let started = Instant::now();
            closed(&mut connect(port().await, bytes).await).await;
            assert!(started.elapsed() < CONNECTIONS.age, "{bytes:?}: {:?}", started.elapsed());
        }
        let mut idle = get(port().await, "/", "served").await;
        let started = Instant::now();
        closed(&mut idle).await;
        assert!(started.elapsed() < CONNECTIONS.age, "after a response: {:?}", started.elapsed());
    }

    #[tokio::test]
    async fn the_idlest_connection_is_evicted_and_one_with_a_call_only_if_none_is_idle() {
        let address = port().await;
        let mut oldest_call = get(address, "/wait", "\r\n\r\n").await;
        let mut idle = get(address, "/", "served").await;
        let mut others = Vec::new();
        for _ in 2..CONNECTIONS_MAX {
            others.push(get(address, "/wait", "\r\n\r\n").await);
        }
        let mut next = get(address, "/wait", "\r\n\r\n").await;
        closed(&mut idle).await;
        let _served = get(address, "/", "served").await;
        closed(&mut oldest_call).await;
        for other in others.iter_mut().chain([&mut next]) {
            let nothing = other.try_read(&mut [0]).unwrap_err();
            assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock, "the others stay open");
        }
    }
}
