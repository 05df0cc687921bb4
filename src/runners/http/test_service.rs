//! A service that answers as a test wants, also against the rules of HTTP.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::Method;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{HttpOptions, HttpRunner};
use crate::model::{Network, UrlTemplate};
use crate::runners::Runner;
use crate::runners::fixtures::TIMEOUT;

pub(in crate::runners) struct Service {
    pub(in crate::runners) address: SocketAddr,
    pub(in crate::runners) connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<Received>>>,
    /// Cancelled when a client has closed a connection whose request was not answered.
    pub(in crate::runners) abandoned: CancellationToken,
}

/// A request as it was received.
#[derive(Clone, Debug)]
pub(in crate::runners) struct Received {
    /// Such as `POST /path HTTP/1.1`.
    pub(in crate::runners) line: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub(in crate::runners) body: Vec<u8>,
}

pub(in crate::runners) enum Reply {
    /// Keeps the connection.
    Keep(Vec<u8>),
    /// Closes it after the bytes.
    Close(Vec<u8>),
    /// Sends the first once and then the second until the client closes the connection.
    Endless(Vec<u8>, Vec<u8>),
    /// Waits for the token before it replies.
    After(CancellationToken, Vec<u8>),
}

impl Received {
    pub(in crate::runners) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| &**value)
    }
}

/// A response with a body and its length.
pub(in crate::runners) fn response(status: &str, headers: &str, body: &str) -> Reply {
    Reply::Keep(format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()).into())
}

/// No response.
pub(in crate::runners) fn silence() -> Reply {
    Reply::After(CancellationToken::new(), Vec::new())
}

impl Service {
    /// Must be called in a runtime.
    pub(in crate::runners) fn start(reply: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let (connections, requests) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<Received>>>::default());
        let (abandoned, reply) = (CancellationToken::new(), Arc::new(reply));
        let service = Self {
            address,
            connections: connections.clone(),
            requests: requests.clone(),
            abandoned: abandoned.clone(),
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (requests, reply, abandoned) = (requests.clone(), reply.clone(), abandoned.clone());
                tokio::spawn(serve(stream, requests, abandoned, move |received: &Received| reply(received)));
            }
        });
        service
    }

    /// The bodies of its requests are their responses.
    pub(in crate::runners) fn echo() -> Self {
        Self::start(|request| {
            let body = String::from_utf8_lossy(&request.body).into_owned();
            response("200 OK", "content-type: text/x-echo\r\n", &body)
        })
    }

    pub(in crate::runners) fn url(&self, target: &str) -> UrlTemplate {
        UrlTemplate::parse(&format!("http://{}{target}", self.address)).unwrap()
    }

    pub(in crate::runners) fn options(&self, target: &str) -> HttpOptions {
        HttpOptions {
            url: self.url(target),
            method: Method::POST,
            headers: Vec::new(),
            success: vec![200..=299],
            retry: vec![408..=408, 429..=429, 500..=599],
            cancel: None,
            ca: None,
            allowed_networks: vec![Network::parse("127.0.0.1").unwrap()],
            arg_pattern: None,
            grace: Duration::from_secs(30),
        }
    }

    /// A handler of the service.
    pub(in crate::runners) fn runner(&self) -> Arc<dyn Runner> {
        Arc::new(HttpRunner::new(self.options("/work")).unwrap())
    }

    /// A handler of the service, with the cancel URL `/cancel`.
    pub(in crate::runners) fn runner_with_cancel(&self) -> Arc<dyn Runner> {
        let cancel = Some((Method::DELETE, self.url("/cancel/{task_id}")));
        Arc::new(HttpRunner::new(HttpOptions { cancel, ..self.options("/work") }).unwrap())
    }

    pub(in crate::runners) async fn wait_for_requests(&self, count: usize) {
        let deadline = Instant::now() + TIMEOUT;
        while self.requests.lock().len() < count {
            assert!(Instant::now() < deadline, "{} requests", self.requests.lock().len());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub(in crate::runners) fn requests(&self) -> Vec<Received> {
        self.requests.lock().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    requests: Arc<Mutex<Vec<Received>>>,
    abandoned: CancellationToken,
    reply: impl Fn(&Received) -> Reply,
) {
    let mut buffer = Vec::new();
    while let Some(received) = receive(&mut stream, &mut buffer).await {
        let reply = reply(&received);
        requests.lock().push(received);
        match reply {
            Reply::Keep(bytes) => drop(stream.write_all(&bytes).await),
            Reply::Close(bytes) => {
                let _ = stream.write_all(&bytes).await;
                return;
            }
            Reply::Endless(first, then) => {
                let mut bytes = first;
                while stream.write_all(&bytes).await.is_ok() {
                    bytes.clone_from(&then);
                }
                abandoned.cancel();
                return;
            }
            Reply::After(token, bytes) => {
                tokio::select! {
                    () = token.cancelled() => drop(stream.write_all(&bytes).await),
                    // A client does not send anything else before the response.
                    _ = stream.read_u8() => {
                        abandoned.cancel();
                        return;
                    }
                }
            }
        }
    }
}

/// The next request of a connection; `buffer` has what was read already.
async fn receive(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Received> {
    let end = |buffer: &[u8]| buffer.windows(4).position(|window| window == b"\r\n\r\n");
    let mut head = end(buffer);
    while head.is_none() {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
        head = end(buffer);
    }
    let head = head?;
    let text = String::from_utf8(buffer[..head].to_vec()).unwrap();
    let mut lines = text.lines();
    let line = lines.next()?.to_owned();
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())))
        .collect();
    let mut received = Received { line, headers, body: Vec::new() };
    let length = received.header("content-length").map_or(0, |length| length.parse().unwrap());
    while buffer.len() < head + 4 + length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    received.body = buffer[head + 4..head + 4 + length].to_vec();
    buffer.drain(..head + 4 + length);
    Some(received)
}
