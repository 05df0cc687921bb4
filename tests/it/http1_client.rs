//! An HTTP/1.1 client that sends exactly the bytes of the test, so that malformed requests are possible.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::support::{Server, TIMEOUT};

pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a header; empty if it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The bytes of a POST request.
pub fn post(path: &str, content_type: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let host = if headers.iter().any(|(name, _)| *name == "host") { "" } else { "host: localhost\r\n" };
    let headers: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let (headers, length) = (headers.concat(), body.len());
    let head = format!(
        "POST {path} HTTP/1.1\r\n{host}content-type: {content_type}\r\n{headers}content-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// A message of Connect and gRPC-Web: flags, length, content.
pub fn envelope(message: &[u8]) -> Vec<u8> {
    [&[0], &u32::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

/// Flags and JSON of each envelope.
pub fn envelopes(mut body: &[u8]) -> Vec<(u8, Value)> {
    let mut found = Vec::new();
    while let Some((head, rest)) = body.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        found.push((head[0], serde_json::from_slice(&rest[..length]).unwrap()));
        body = &rest[length..];
    }
    assert!(body.is_empty(), "incomplete envelope: {body:?}");
    found
}

impl Connection {
    pub fn open(server: &Server) -> Self {
        Self::open_at(&server.address)
    }

    pub fn open_at(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    pub fn send(&mut self, request: &[u8]) -> Response {
        self.write(request);
        self.read_response()
    }

    pub fn write(&mut self, request: &[u8]) {
        // Fails if the server has already responded and closed the connection.
        let _ = self.stream.write_all(request);
    }

    /// Reads more bytes into the buffer. Returns 0 at the end of the stream or after a reset.
    fn fill(&mut self) -> usize {
        let mut piece = [0; 16_384];
        let length = self.stream.read(&mut piece).unwrap_or(0);
        self.buffer.extend_from_slice(&piece[..length]);
        length
    }

    pub fn read_until(&mut self, wanted: &[u8]) {
        while !self.buffer.windows(wanted.len()).any(|window| window == wanted) {
            assert_ne!(self.fill(), 0, "the connection was closed after {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    /// Waits until the server closes the connection. At most a 4xx response may come before.
    pub fn assert_closed(&mut self) {
        while self.fill() > 0 {}
        let received = String::from_utf8_lossy(&self.buffer).into_owned();
        assert!(received.is_empty() || received.starts_with("HTTP/1.1 4"), "{received}");
    }

    pub fn read_response(&mut self) -> Response {
        self.read_until(b"\r\n\r\n");
        let end = self.buffer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8(self.buffer.drain(..end).collect()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        let mut response = Response { status, headers, body: Vec::new() };
        response.body = if response.header("transfer-encoding") == "chunked" {
            self.read_chunks()
        } else {
            let length = response.header("content-length").parse().unwrap_or(0);
            self.read_exact(length)
        };
        response
    }

    fn read_exact(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            assert_ne!(self.fill(), 0, "the connection was closed within a body");
        }
        self.buffer.drain(..length).collect()
    }

    fn read_chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            self.read_until(b"\r\n");
            let end = self.buffer.windows(2).position(|window| window == b"\r\n").unwrap() + 2;
            let line = String::from_utf8(self.buffer.drain(..end).collect()).unwrap();
            let length = usize::from_str_radix(line.trim(), 16).unwrap();
            let chunk = self.read_exact(length + 2);
            body.extend_from_slice(&chunk[..length]);
            if length == 0 {
                return body;
            }
        }
    }
}
