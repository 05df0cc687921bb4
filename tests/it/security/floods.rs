//! Too many connections, too fast, too large: each bounded, and others are served meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use tonic::Code;

use super::{Tokens, lineshaft, text};
use crate::malformed_requests::Bytes;
use crate::support::{Server, TIMEOUT, noop, reason};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const END_STREAM: u8 = 1;
/// Fields of a submission.
const PAYLOAD: u8 = 2;
const JSON: u8 = 2;
const ARGS: u8 = 11;

fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(content);
    bytes
}

/// POST of an RPC, with headers as HPACK literals.
fn post(more: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    let literal = |block: &mut Vec<u8>, text: &str| {
        assert!(text.len() < 127);
        block.push(u8::try_from(text.len()).unwrap());
        block.extend(text.as_bytes());
    };
    block.push(0x04);
    literal(&mut block, "/lineshaft.v1.TaskService/SubmitTask");
    let usual = [("content-type", "application/grpc"), ("te", "trailers")];
    for (name, value) in usual.iter().chain(more) {
        block.push(0);
        literal(&mut block, name);
        literal(&mut block, value);
    }
    block
}

fn dial(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.set_write_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(PREFACE).unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
    stream
}

/// Reads until the server closes; the code of its GOAWAY, if it said one.
fn ended(stream: &mut TcpStream) -> Option<u32> {
    let mut code = None;
    let mut head = [0; 9];
    while stream.read_exact(&mut head).is_ok() {
        let mut content = vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
        if stream.read_exact(&mut content).is_err() {
            break;
        }
        if head[3] == GOAWAY {
            code = Some(u32::from_be_bytes(content[4..8].try_into().unwrap()));
        }
    }
    code
}

async fn still_serves(server: &Server) {
    server.submit(noop()).await;
}

fn resident(server: &Server) -> u64 {
    let info = lineshaft(&["system", "health", "--server", &server.address, "-o", "json"]);
    let health: serde_json::Value = serde_json::from_str(&text(&info.stdout)).unwrap();
    health["system"]["processMemoryBytes"].as_u64().unwrap()
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_at_once_end_their_connection() {
    let server = Server::start("");
    let mut stream = dial(&server);
    let block = post(&[]);
    for number in 0..20_000_u32 {
        let id = 2 * number + 1;
        let both = [frame(HEADERS, END_HEADERS, id, &block), frame(RST_STREAM, 0, id, &8_u32.to_be_bytes())].concat();
        // The server hangs up at some of them.
        if stream.write_all(&both).is_err() {
            break;
        }
    }
    // ENHANCE_YOUR_CALM, unless the reset of the connection has overtaken it.
    assert!(matches!(ended(&mut stream), Some(11) | None));
    assert!(stream.write_all(&frame(PING, 0, 0, &[0; 8])).is_err() || stream.read(&mut [0; 1]).is_ok_and(|n| n == 0));
    still_serves(&server).await;
}

#[tokio::test]
async fn headers_without_end_end_their_connection() {
    let server = Server::start("");
    let before = resident(&server);
    let mut stream = dial(&server);
    stream.write_all(&frame(HEADERS, 0, 1, &post(&[]))).unwrap();
    let mut more = Vec::new();
    while more.len() < 16_000 {
        more.extend([&[0, 1, b'x', 100][..], &[b'y'; 100]].concat());
    }
    let cut = (0..4_000).any(|_| stream.write_all(&frame(CONTINUATION, 0, 1, &more)).is_err());
    assert!(cut, "64 MB of headers were taken");
    still_serves(&server).await;
    let grown = resident(&server).saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes were kept");
}

#[tokio::test]
async fn one_call_with_large_headers_is_refused_and_the_next_one_is_not() {
    let server = Server::start("");
    let mut client = server.tasks();
    let mut request = tonic::Request::new(noop());
    request.metadata_mut().insert("x-large", "y".repeat(60 << 10).parse().unwrap());
    client.submit_task(request).await.expect_err("60 KiB of headers");
    still_serves(&server).await;
}

#[tokio::test]
async fn what_is_packed_is_not_unpacked() {
    let server = Server::start("");
    let before = resident(&server);
    for packing in ["gzip", "deflate", "zstd", "br"] {
        let mut request = tonic::Request::new(noop());
        request.metadata_mut().insert("grpc-encoding", packing.parse().unwrap());
        let refused = server.tasks().submit_task(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented, "{packing}: {refused:?}");
    }
    // A gigabyte, says the head of a message that says it is packed, with and without saying how.
    for more in [&[("grpc-encoding", "gzip")][..], &[]] {
        let mut stream = dial(&server);
        stream.write_all(&frame(HEADERS, END_HEADERS, 1, &post(more))).unwrap();
        stream.write_all(&frame(DATA, 0, 1, &[&[1, 0x40, 0, 0, 0][..], &[0x1f, 0x8b, 8, 0]].concat())).unwrap();
        stream.write_all(&frame(DATA, 0, 1, &[0; 16_000])).unwrap();
        still_serves(&server).await;
    }
    let grown = resident(&server).saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes were kept");
}

#[test]
fn floods_of_settings_and_pings_keep_nothing_in_memory() {
    let server = Server::start("");
    let before = resident(&server);
    let mut stream = dial(&server);
    stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let flood: Vec<u8> =
        (0..1_000).flat_map(|_| [frame(SETTINGS, 0, 0, &[]), frame(PING, 0, 0, &[7; 8])].concat()).collect();
    // The answers are not read: the server stops reading, or hangs up.
    for _ in 0..1_000 {
        if let Err(error) = stream.write_all(&flood) {
            assert!(
                matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset),
                "{error}"
            );
            break;
        }
    }
    let grown = resident(&server).saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes were kept");
}

/// Frames of a message: its prefix, and as much of it as is given.
fn message(stream: u32, flags: u8, length: u32, content: &[u8]) -> Vec<u8> {
    frame(DATA, flags, stream, &[&[0], &length.to_be_bytes()[..], content].concat())
}

#[tokio::test]
async fn a_message_that_never_comes_gives_its_place_back() {
    let server = Server::start("[server]\nmax_in_flight = 3\n[http]\nbody_timeout = \"500ms\"\n");
    let mut stream = dial(&server);
    let mut slow = Vec::new();
    for id in [1, 3, 5] {
        slow.extend(frame(HEADERS, END_HEADERS, id, &post(&[])));
    }
    // Nothing at all, half a message, a message whose call does not end. All places are taken.
    slow.extend(message(3, 0, 100, &[0; 10]));
    slow.extend(message(5, 0, 9, b"\x0a\x07compute"));
    stream.write_all(&slow).unwrap();
    let mut answered = std::collections::BTreeSet::new();
    let mut head = [0; 9];
    while answered.len() < 3 {
        stream.read_exact(&mut head).expect("it is answered and not cut");
        let mut content = vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut content).unwrap();
        if head[3] == HEADERS && head[4] & END_STREAM != 0 {
            answered.insert(u32::from_be_bytes(head[5..9].try_into().unwrap()));
        }
    }
    assert_eq!(answered.into_iter().collect::<Vec<_>>(), [1, 3, 5]);
    still_serves(&server).await;
}

/// One field of a message: number, length, content.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::bytes::encode(number.into(), &content.to_vec(), &mut bytes);
    bytes
}

#[tokio::test]
async fn a_message_that_grows_a_hundred_times_when_it_is_read_is_refused_unread() {
    let server = Server::start("");
    let before = resident(&server);
    let bytes = (16 << 20) - 64;
    let many = |one: &[u8]| one.repeat(bytes / one.len());
    let json = |value: &[u8]| [field(1, b"compute"), field(PAYLOAD, &field(JSON, value))].concat();
    let deep =
        (0..1_000_000_u32).flat_map(|n| field(1, &[field(1, format!("{n:x}").as_bytes()), field(2, &[])].concat()));
    for (what, call, body) in [
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
            "{what}"
        );
    }
    // The messages themselves, and nothing that was made of them.
    let grown = peak(&server).saturating_sub(before);
    assert!(grown < 128 << 20, "{grown} bytes at the worst moment");
    still_serves(&server).await;
}

/// The most memory that the server ever had.
fn peak(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[tokio::test]
async fn one_connection_too_many_is_closed_and_those_that_are_open_stay() {
    let server = Server::start("[server]\nmax_connections = 20\nmax_connections_per_address = 8\n");
    let mut client = server.tasks();
    client.submit_task(noop()).await.unwrap();
    let mut open: Vec<TcpStream> = (0..30).map(|_| dial_or_closed(&server)).collect();
    let closed = open.iter_mut().filter_map(|stream| {
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        // Settings from those that are served, the end from those that are not.
        match stream.read(&mut [0; 9]) {
            Ok(0) => Some(()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Some(()),
            _ => None,
        }
    });
    let closed = closed.count();
    assert_eq!(closed, 30 - 7, "eight in all, one of them the client's");
    client.submit_task(noop()).await.unwrap();
    drop(open);
    let begun = std::time::Instant::now();
    while server.tasks().submit_task(noop()).await.is_err() {
        assert!(begun.elapsed() < TIMEOUT, "places are not given back");
    }
    assert!(server.log().contains("too many connections"));
}

fn dial_or_closed(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    // It may be closed already.
    let _ = stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
    stream
}

#[tokio::test]
async fn guessing_costs_the_log_little() {
    let tokens = Tokens::new();
    tokens.create("ci", "viewer", "*", &[]);
    let server = tokens.serve("");
    let mut client = server.tasks();
    let mut cut = 0;
    for _ in 0..2_000 {
        let refused = client.submit_task(noop()).await.unwrap_err();
        // A thousand calls that are refused before their message came are HTTP/2's own bound for one
        // connection: it is cut, without a word of ours, and the client dials again.
        if refused.code() != Code::Unauthenticated && refused.details().is_empty() {
            cut += 1;
            continue;
        }
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
    }
    assert!(cut < 10, "{cut} calls met a connection that was cut");
    let told = server.log().lines().filter(|line| line.contains("UNAUTHENTICATED")).count();
    assert!(told < 1_000, "{told} lines");
}
