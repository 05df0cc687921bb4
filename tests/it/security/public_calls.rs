//! Floods of calls that need no token. Probes are answered and other callers are served meanwhile.

use std::io::{Read, Write};
use std::net::TcpStream;

use tonic::Request;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::Tokens;
use super::connection_limits::post_to;
use crate::health_endpoints::{get, health_address};
use crate::http2_client::{ArrivedFrames, END_HEADERS, END_STREAM, HEADERS, connect_to, frame};
use crate::support::{Server, check, eventually, noop};

const CHECK: &str = "/grpc.health.v1.Health/Check";
const CONNECTIONS: usize = 17;
const STREAMS: u32 = 250;
/// Public calls that may be open at once.
const PLACES: usize = 256;

/// Opens streams whose requests never arrive.
pub fn flood(address: &str) -> Vec<Flooding> {
    let block = post_to(CHECK, &[]);
    let open = |_| {
        let mut stream = connect_to(address);
        let requests: Vec<u8> = (0..STREAMS).flat_map(|n| frame(HEADERS, END_HEADERS, 2 * n + 1, &block)).collect();
        stream.write_all(&requests).unwrap();
        Flooding { frames: ArrivedFrames::of(stream), ended: 0 }
    };
    (0..CONNECTIONS).map(open).collect()
}

pub struct Flooding {
    frames: ArrivedFrames,
    /// Streams that the server has ended.
    ended: usize,
}

impl Flooding {
    pub fn count_ended(&mut self) -> usize {
        let ends = |(kind, flags): &(u8, u8)| *kind == HEADERS && flags & END_STREAM != 0;
        self.ended += self.frames.take().iter().filter(|frame| ends(frame)).count();
        self.ended
    }
}

async fn all_but_the_newest_ended(flooding: &mut [Flooding]) {
    let expected = CONNECTIONS * STREAMS as usize - PLACES;
    eventually(async || {
        let ended: usize = flooding.iter_mut().map(Flooding::count_ended).sum();
        check(ended == expected, || format!("{ended} calls have ended, not {expected}"))
    })
    .await;
}

pub async fn assert_healthy(address: &str) {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut health = HealthClient::new(endpoint.connect().await.unwrap());
    let answer = health.check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
    assert_eq!(get(address, "/health/ready", "").status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_checks_without_bodies_take_no_slots_of_other_calls() {
    let tokens = Tokens::new();
    let token = tokens.create("ci", "submitter", "*", &[]);
    let server = tokens.serve("[server]\nmax_in_flight = 4\n");
    let before = server.peak_memory();
    let mut flooding = flood(&server.address);
    all_but_the_newest_ended(&mut flooding).await;
    assert_healthy(&server.address).await;
    let mut submission = Request::new(noop());
    submission.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    server.tasks().submit_task(submission).await.unwrap();
    let grown = server.peak_memory().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes for {CONNECTIONS} connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_checks_without_bodies_do_not_keep_probes_from_the_health_port() {
    let server = Server::start("[server]\nhealth_listen = \"127.0.0.1:0\"\n");
    let address = health_address(&server);
    let mut flooding = flood(&address);
    all_but_the_newest_ended(&mut flooding).await;
    assert_healthy(&address).await;
}

/// Sends health checks with bodies of 28 MiB, as far as the server takes them.
pub fn send_large_bodies(address: &str, connections: usize) {
    for content_type in ["application/grpc-web+proto", "application/proto"] {
        for framing in ["content-length: 30000000", "transfer-encoding: chunked"] {
            let head = format!(
                "POST {CHECK} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\n{framing}\r\n\r\n"
            );
            let mut open: Vec<_> = (0..connections)
                .map(|_| {
                    let mut stream = TcpStream::connect(address).unwrap();
                    stream.write_all(head.as_bytes()).unwrap();
                    // Fails once the server has refused the request.
                    let chunk = [b"100000\r\n", &vec![0; 1 << 20][..], b"\r\n"].concat();
                    let _ = (0..28).try_for_each(|_| stream.write_all(&chunk));
                    stream
                })
                .collect();
            for stream in &mut open {
                let mut answer = [0; 12];
                // A client that is still sending may lose the answer to a reset.
                if stream.read_exact(&mut answer).is_ok() {
                    assert!(answer.starts_with(b"HTTP/1.1 "), "{}", String::from_utf8_lossy(&answer));
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_of_health_checks_are_not_kept() {
    let server = Server::start("");
    let before = server.peak_memory();
    send_large_bodies(&server.address, 32);
    let grown = server.peak_memory().saturating_sub(before);
    assert!(grown < 48 << 20, "{grown} bytes were kept");
    assert_healthy(&server.address).await;
}
