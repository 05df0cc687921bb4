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
    // The streams of KEDA have no end. The client opens new ones over a new connection.
    age_grace: Duration::MAX,
};

/// Serves until `stop`. `name` is for log messages.
pub async fn serve<S: RequestService>(listener: TcpListener, name: &'static str, service: S, stop: CancellationToken) {
    serve_with(listener, name, CONNECTIONS, service, stop).await;
}

async fn serve_with<S: RequestService>(
    listener: TcpListener,
    name: &'static str,
    connections: ConnectionOptions,
    service: S,
    stop: CancellationToken,
) {
    let admission = AdmissionPolicy::EvictIdlest(IdleEviction::new(CONNECTIONS_MAX));
    let options = ListenerOptions { name, admission, tls: None, connections };
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
        port_with(CONNECTIONS).await
    }

    async fn port_with(options: ConnectionOptions) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = tower::service_fn(|request: Request<Incoming>| async move {
            if request.uri().path() == "/wait" {
                let endless = futures_util::stream::pending::<Result<http_body::Frame<bytes::Bytes>, tonic::Status>>();
                return Ok::<_, Infallible>(Response::new(Body::new(http_body_util::StreamBody::new(endless))));
            }
            Ok(Response::new(Body::new("served".to_owned())))
        });
        tokio::spawn(serve_with(listener, "tests", options, service, CancellationToken::new()));
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

    /// Reads frames of HTTP/2 until one of this type comes. `None` at the end of the connection.
    async fn frame_of_type(stream: &mut TcpStream, wanted: u8) -> Option<()> {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.ok()?;
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            stream.read_exact(&mut payload).await.ok()?;
            if head[3] == wanted {
                return Some(());
            }
        }
    }

    const PING: u8 = 6;
    const GOAWAY: u8 = 7;

    #[tokio::test(start_paused = true)]
    async fn a_stream_outlives_the_age_of_its_connection() {
        // The test answers no pings.
        let quiet = ConnectionOptions { keepalive_interval: Duration::from_hours(24), ..CONNECTIONS };
        let mut stream = TcpStream::connect(port_with(quiet).await).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        // GET http://x/wait as stream 1.
        let headers = b"\x82\x86\x01\x01x\x04\x05/wait";
        let head = [0, 0, u8::try_from(headers.len()).unwrap(), 1, 5, 0, 0, 0, 1];
        stream.write_all(&[&head, &headers[..]].concat()).await.unwrap();
        let started = Instant::now();
        frame_of_type(&mut stream, GOAWAY).await.expect("the client is told to open a new connection");
        assert!(started.elapsed() >= CONNECTIONS.age * 9 / 10);
        // GOAWAY comes with a ping.
        frame_of_type(&mut stream, PING).await.unwrap();
        tokio::time::sleep(CONNECTIONS.age).await;
        stream.write_all(&[0, 0, 8, PING, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]).await.unwrap();
        frame_of_type(&mut stream, PING).await.expect("the connection is open");
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
