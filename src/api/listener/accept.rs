//! The accept loop of the main port and of the admin ports.
//!
//! It is not tonic's, because tonic's loop closes an old connection without the notice (GOAWAY) that lets a
//! client move its calls, gives all connections the same age, and spins when the process has no file
//! descriptors left.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::admission::AdmissionPolicy;
use super::connection::{ConnectionOptions, ConnectionServer, RequestService, STOP_GRACE};
use super::tls::Tls;

/// Pause after a failed accept, for example without file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub struct ListenerOptions {
    /// For log messages.
    pub name: &'static str,
    pub admission: AdmissionPolicy,
    /// `None`: plaintext.
    pub tls: Option<Arc<Tls>>,
    pub connections: ConnectionOptions,
}

/// Serves all connections until `stop`, and for at most [`STOP_GRACE`] longer.
pub async fn serve<S: RequestService>(
    listener: TcpListener,
    options: ListenerOptions,
    service: S,
    stop: CancellationToken,
) {
    let ListenerOptions { name, admission, tls, connections } = options;
    let server = Arc::new(ConnectionServer::new(connections, tls, service, stop.clone()));
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = open.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => if let Some(permit) = admission.admit(peer.ip()).await {
                    open.spawn(server.clone().serve(stream, peer, permit));
                },
                Err(error) => {
                    tracing::warn!(%error, listener = name, connections = open.len(), "failed to accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    // The operating system now refuses new connections at once instead of letting them wait.
    drop(listener);
    let all_ended = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_GRACE, all_ended).await.is_err() {
        tracing::warn!(listener = name, connections = open.len(), "closed connections with calls in flight");
        open.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tonic::body::Body;
    use tonic::codegen::http::Response;

    use super::super::connection_limit::ConnectionLimit;
    use super::*;

    /// What an HTTP/2 client sends first: the preface and empty settings.
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;

    fn options(age: Duration) -> ListenerOptions {
        let connections = ConnectionOptions {
            max_concurrent_streams: 3,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_millis(200),
            send_timeout: Duration::from_secs(60),
            age,
            age_grace: Duration::from_secs(1),
        };
        let admission = AdmissionPolicy::Refuse(ConnectionLimit::new(1, 1));
        ListenerOptions { name: "test", admission, tls: None, connections }
    }

    /// Sends `bytes` to a new server.
    async fn connect(
        options: ListenerOptions,
        bytes: &[u8],
        stop: CancellationToken,
    ) -> (TcpStream, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = tower::service_fn(|_| async { Ok(Response::new(Body::empty())) });
        let serving = tokio::spawn(serve(listener, options, service, stop));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        (stream, serving)
    }

    /// Type and payload of the next frame; `None` at the end.
    async fn frame(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).await.ok()?;
        Some((head[3], payload))
    }

    #[tokio::test]
    async fn an_old_connection_gets_a_notice_before_it_is_closed() {
        let options = options(Duration::from_millis(50));
        let (mut stream, _serving) = connect(options, PREFACE, CancellationToken::new()).await;
        let mut types = Vec::new();
        while let Some((kind, payload)) = frame(&mut stream).await {
            if kind == SETTINGS && !payload.is_empty() {
                assert!(payload.chunks(6).any(|setting| setting == [0, 3, 0, 0, 0, 3]), "streams are limited");
            }
            types.push(kind);
            if kind == GOAWAY {
                break;
            }
        }
        assert_eq!(types.last(), Some(&GOAWAY));
    }

    #[tokio::test(start_paused = true)]
    async fn the_stop_does_not_wait_for_a_client_that_ignores_the_notice() {
        let stop = CancellationToken::new();
        let (mut stream, serving) = connect(options(Duration::from_hours(1)), PREFACE, stop.clone()).await;
        assert_eq!(frame(&mut stream).await.unwrap().0, SETTINGS);
        stop.cancel();
        serving.await.unwrap();
        while frame(&mut stream).await.is_some() {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_request_is_closed_after_the_header_timeout() {
        for bytes in [&b""[..], &PREFACE[..10], b"GET / HT"] {
            let options = options(Duration::from_hours(1));
            let (mut stream, _serving) = connect(options, bytes, CancellationToken::new()).await;
            let mut rest = Vec::new();
            // The connection may also be reset.
            let _ = stream.read_to_end(&mut rest).await;
            assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{rest:?}");
        }
    }
}
