//! Limits on hostile clients: floods of connections, streams, headers and large messages. Other clients are
//! served meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use tonic::Code;

use super::Tokens;
use crate::http1_client::{Connection, post as post_http1};
use crate::http2_client::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, connect, frame,
    read_frame,
};
use crate::malformed_requests::Bytes;
use crate::support::{Server, eventually, noop, reason};

/// Fields of a submission.
const PAYLOAD: u8 = 2;
const JSON: u8 = 2;
const ARGS: u8 = 11;

/// POST of a submission, with headers as HPACK literals.
fn post(more: &[(&str, &str)]) -> Vec<u8> {
    post_to("/lineshaft.v1.TaskService/SubmitTask", more)
}

/// POST of an RPC, with headers as HPACK literals.
pub fn post_to(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    let literal = |block: &mut Vec<u8>, text: &str| {
        assert!(text.len() < 127);
        block.push(u8::try_from(text.len()).unwrap());
        block.extend(text.as_bytes());
    };
    block.push(0x04);
    literal(&mut block, path);
    let required = [("content-type", "application/grpc"), ("te", "trailers")];
    for (name, value) in required.iter().chain(more) {
        block.push(0);
        literal(&mut block, name);
        literal(&mut block, value);
    }
    block
}

/// Reads until the server closes the connection. Returns the code of its GOAWAY, if it sent one.
fn goaway_code(stream: &mut TcpStream) -> Option<u32> {
    let mut code = None;
    while let Ok(frame) = read_frame(stream) {
        if frame.kind == GOAWAY {
            code = Some(u32::from_be_bytes(frame.content[4..8].try_into().unwrap()));
        }
    }
    code
}

async fn assert_serves(server: &Server) {
    server.submit(noop()).await;
}

#[tokio::test]
async fn a_flood_of_reset_streams_closes_the_connection() {
    let server = Server::start("");
    let mut stream = connect(&server);
    let block = post(&[]);
    for number in 0..20_000_u32 {
        let id = 2 * number + 1;
        let both = [frame(HEADERS, END_HEADERS, id, &block), frame(RST_STREAM, 0, id, &8_u32.to_be_bytes())].concat();
        // The server closes the connection at some point.
        if stream.write_all(&both).is_err() {
            break;
        }
    }
    // ENHANCE_YOUR_CALM, unless the connection is reset first.
    assert!(matches!(goaway_code(&mut stream), Some(11) | None));
    assert!(stream.write_all(&frame(PING, 0, 0, &[0; 8])).is_err() || stream.read(&mut [0; 1]).is_ok_and(|n| n == 0));
    assert_serves(&server).await;
}

#[tokio::test]
async fn endless_headers_close_the_connection() {
    let server = Server::start("");
    let before = server.memory_used();
    let mut stream = connect(&server);
    stream.write_all(&frame(HEADERS, 0, 1, &post(&[]))).unwrap();
    let mut more = Vec::new();
    while more.len() < 16_000 {
        more.extend([&[0, 1, b'x', 100][..], &[b'y'; 100]].concat());
    }
    let is_closed = (0..4_000).any(|_| stream.write_all(&frame(CONTINUATION, 0, 1, &more)).is_err());
    assert!(is_closed, "the server accepted 64 MB of headers");
    assert_serves(&server).await;
    let grown = server.memory_used().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes were kept");
}

#[tokio::test]
async fn a_call_with_large_headers_is_refused() {
    let server = Server::start("");
    let mut client = server.tasks();
    let mut request = tonic::Request::new(noop());
    request.metadata_mut().insert("x-large", "y".repeat(60 << 10).parse().unwrap());
    client.submit_task(request).await.expect_err("60 KiB of headers");
    assert_serves(&server).await;
}

#[tokio::test]
async fn a_compressed_message_is_refused_without_decompression() {
    let server = Server::start("");
    let before = server.memory_used();
    for encoding in ["gzip", "deflate", "zstd", "br"] {
        let mut request = tonic::Request::new(noop());
        request.metadata_mut().insert("grpc-encoding", encoding.parse().unwrap());
        let refused = server.tasks().submit_task(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented, "{encoding}: {refused:?}");
    }
    // A prefix that announces a compressed message of a gigabyte, with and without an encoding.
    for more in [&[("grpc-encoding", "gzip")][..], &[]] {
        let mut stream = connect(&server);
        stream.write_all(&frame(HEADERS, END_HEADERS, 1, &post(more))).unwrap();
        stream.write_all(&frame(DATA, 0, 1, &[&[1, 0x40, 0, 0, 0][..], &[0x1f, 0x8b, 8, 0]].concat())).unwrap();
        stream.write_all(&frame(DATA, 0, 1, &[0; 16_000])).unwrap();
        assert_serves(&server).await;
    }
    let grown = server.memory_used().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes were kept");
}

#[test]
fn floods_of_settings_and_pings_use_no_memory() {
    let server = Server::start("");
    let before = server.memory_used();
    let mut stream = connect(&server);
    stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let flood: Vec<u8> =
        (0..1_000).flat_map(|_| [frame(SETTINGS, 0, 0, &[]), frame(PING, 0, 0, &[7; 8])].concat()).collect();
    // The replies are not read, so the server stops reading or closes the connection.
    for _ in 0..1_000 {
        if let Err(error) = stream.write_all(&flood) {
            assert!(
                matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset),
                "{error}"
            );
            break;
        }
    }
    let grown = server.memory_used().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes were kept");
}

/// A DATA frame with the prefix of a message of `length` bytes, and its first bytes.
fn message(stream: u32, flags: u8, length: u32, content: &[u8]) -> Vec<u8> {
    frame(DATA, flags, stream, &[&[0], &length.to_be_bytes()[..], content].concat())
}

#[tokio::test]
async fn an_incomplete_message_releases_its_slot_after_the_timeout() {
    let server = Server::start("[server]\nmax_in_flight = 3\n[http]\nbody_timeout = \"500ms\"\n");
    let mut stream = connect(&server);
    let mut slow = Vec::new();
    for id in [1, 3, 5] {
        slow.extend(frame(HEADERS, END_HEADERS, id, &post(&[])));
    }
    // No message, half a message, and a message without the end of the request. All slots are taken.
    slow.extend(message(3, 0, 100, &[0; 10]));
    slow.extend(message(5, 0, 9, b"\x0a\x07compute"));
    stream.write_all(&slow).unwrap();
    let mut answered = std::collections::BTreeSet::new();
    while answered.len() < 3 {
        let frame = read_frame(&mut stream).expect("a response instead of a closed connection");
        if frame.kind == HEADERS && frame.flags & END_STREAM != 0 {
            answered.insert(frame.stream);
        }
    }
    assert_eq!(answered.into_iter().collect::<Vec<_>>(), [1, 3, 5]);
    assert_serves(&server).await;
}

/// One field of a message: number, length, content.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::bytes::encode(number.into(), &content.to_vec(), &mut bytes);
    bytes
}

#[tokio::test]
async fn a_message_that_would_decode_to_a_hundred_times_its_size_is_refused() {
    let server = Server::start("");
    let before = server.memory_used();
    let bytes = (16 << 20) - 64;
    let many = |one: &[u8]| one.repeat(bytes / one.len());
    let json = |value: &[u8]| [field(1, b"compute"), field(PAYLOAD, &field(JSON, value))].concat();
    let deep =
        (0..1_000_000_u32).flat_map(|n| field(1, &[field(1, format!("{n:x}").as_bytes()), field(2, &[])].concat()));
    for (about, call, body) in [
        ("tasks of two bytes", "BatchSubmitTasks", many(&field(1, &[]))),
        ("values of two bytes", "SubmitTask", json(&field(6, &many(&field(1, &[]))))),
        ("fields of an object", "SubmitTask", json(&field(5, &deep.collect::<Vec<_>>()))),
        ("empty arguments", "SubmitTask", [field(1, b"compute"), many(&field(ARGS, &[]))].concat()),
        ("ids of a filter", "ListTasks", field(1, &many(&field(1, &[])))),
    ] {
        let mut raw = tonic::client::Grpc::new(server.channel());
        raw.ready().await.unwrap();
        let path = format!("/lineshaft.v1.TaskService/{call}").parse().unwrap();
        let answer: Result<tonic::Response<Vec<u8>>, _> = raw.unary(tonic::Request::new(body), path, Bytes).await;
        let refused = answer.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::ResourceExhausted, "MESSAGE_TOO_LARGE"),
            "{about}"
        );
    }
    // The memory of the messages, but not of decoded ones.
    let grown = server.peak_memory().saturating_sub(before);
    assert!(grown < 128 << 20, "{grown} bytes at the peak");
    assert_serves(&server).await;
}

#[tokio::test]
async fn json_takes_at_most_four_times_its_size_whatever_it_contains() {
    let batch = |task: &str, count: usize| format!("{{\"tasks\":[{}{{}}]", format!("{task},").repeat(count));
    let arguments = |count: usize| format!("{{\"args\":[{}\"\"]}}", "\"\",".repeat(count));
    let labels = (0..1_300_000).map(|n| format!("\"{n:x}\":\"\"")).collect::<Vec<_>>().join(",");
    let bytes = (15 << 20) + (512 << 10);
    for (about, json) in [
        ("labels of one task", format!("{{\"tasks\":[{{\"labels\":{{{labels}}}}}]")),
        ("members of a payload", format!("{{\"tasks\":[{{\"payload\":{{{labels}}}}}]")),
        ("one field many times", format!("{{\"tasks\":[{{{}\"handler\":1}}]", "\"handler\":1,".repeat(1_200_000))),
        ("empty tasks", batch("{}", 99_000)),
        ("tasks with a field", batch("{\"handler\":\"\"}", 60_000)),
        ("arguments", batch(&arguments(1_000), 190)),
        ("labels", batch("{\"labels\":{\"\":\"\",\"a\":\"\",\"b\":\"\"}}", 35_000)),
        ("payloads", batch("{\"payload\":{\"json\":1}}", 600_000)),
        ("an incomplete payload", format!("{{\"tasks\":[{{\"payload\":{{\"json\":[{}", "0,".repeat(190_000))),
    ] {
        let server = Server::start("");
        let mut connection = Connection::open(&server);
        let path = "/lineshaft.v1.TaskService/BatchSubmitTasks";
        // Has allocated what every request needs.
        connection.send(&post_http1(path, "application/json", &[], b"{}"));
        let before = server.peak_memory();
        let padded = format!("{json}{}}}", " ".repeat(bytes - json.len() - 1));
        let answer = connection.send(&post_http1(path, "application/json", &[], padded.as_bytes()));
        assert_ne!(answer.status, 200, "{about}");
        let grown = server.peak_memory().saturating_sub(before);
        println!("{about}: {} KiB of JSON, {} MiB, {}", json.len() >> 10, grown >> 20, answer.status);
        assert!(grown <= 4 * bytes as u64, "{about}: {grown} bytes for {bytes} bytes of JSON");
    }
}

#[tokio::test]
async fn a_connection_beyond_the_limit_is_closed_and_open_ones_stay() {
    let server = Server::start("[server]\nmax_connections = 20\nmax_connections_per_address = 8\n");
    let mut client = server.tasks();
    client.submit_task(noop()).await.unwrap();
    let mut open: Vec<TcpStream> = (0..30).map(|_| connect_or_closed(&server)).collect();
    let closed = open.iter_mut().filter_map(|stream| {
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        // Accepted connections send SETTINGS.
        match stream.read(&mut [0; 9]) {
            Ok(0) => Some(()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Some(()),
            _ => None,
        }
    });
    let closed = closed.count();
    assert_eq!(closed, 30 - 7, "eight are allowed, and one of them is the client's");
    client.submit_task(noop()).await.unwrap();
    drop(open);
    eventually(async || server.tasks().submit_task(noop()).await.map_err(|status| status.to_string())).await;
    assert!(server.log().contains("too many connections"));
}

fn connect_or_closed(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    // Fails if the server has already closed the connection.
    let _ = stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
    stream
}

#[tokio::test]
async fn refusals_are_rate_limited_in_the_log() {
    let tokens = Tokens::new();
    tokens.create("ci", "viewer", "*", &[]);
    let server = tokens.serve("");
    let mut client = server.tasks();
    let mut closed = 0;
    for _ in 0..2_000 {
        let refused = client.submit_task(noop()).await.unwrap_err();
        // After a thousand calls that were refused before their message arrived, the HTTP/2 implementation
        // closes the connection, and the client opens a new one.
        if refused.code() != Code::Unauthenticated && refused.details().is_empty() {
            closed += 1;
            continue;
        }
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
    }
    assert!(closed < 10, "{closed} calls failed on closed connections");
    let lines = server.log().lines().filter(|line| line.contains("UNAUTHENTICATED")).count();
    assert!(lines < 1_000, "{lines} lines");
}
