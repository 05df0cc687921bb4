//! HTTP/1.1 by hand: what a test sends is what goes over the wire.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::support::{Server, TIMEOUT};

/// A connection of one test.
pub struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The header; empty when there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A POST, ready to be sent.
pub fn post(path: &str, content_type: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let host = if headers.iter().any(|(name, _)| *name == "host") { "" } else { "host: localhost\r\n" };
    let headers: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let (headers, length) = (headers.concat(), body.len());
    let head = format!(
        "POST {path} HTTP/1.1\r\n{host}content-type: {content_type}\r\n{headers}content-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// A message in its envelope: flags, length, content.
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
    assert!(body.is_empty(), "half an envelope: {body:?}");
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
        Self { stream, read: Vec::new() }
    }

    pub fn send(&mut self, request: &[u8]) -> Answer {
        self.write(request);
        self.answer()
    }

    pub fn write(&mut self, request: &[u8]) {
        // The server may have refused already what it is still being sent.
        let _ = self.stream.write_all(request);
    }

    fn more(&mut self) -> usize {
        let mut piece = [0; 16_384];
        // A reset is an end as well.
        let length = self.stream.read(&mut piece).unwrap_or(0);
        self.read.extend_from_slice(&piece[..length]);
        length
    }

    pub fn read_until(&mut self, wanted: &[u8]) {
        while !self.read.windows(wanted.len()).any(|window| window == wanted) {
            assert_ne!(self.more(), 0, "it ended: {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    /// The server closes the connection, at most with a 4xx response.
    pub fn ends(&mut self) {
        while self.more() > 0 {}
        let received = String::from_utf8_lossy(&self.read).into_owned();
        assert!(received.is_empty() || received.starts_with("HTTP/1.1 4"), "{received}");
    }

    pub fn answer(&mut self) -> Answer {
        self.read_until(b"\r\n\r\n");
        let end = self.read.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8(self.read.drain(..end).collect()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        let mut answer = Answer { status, headers, body: Vec::new() };
        answer.body = if answer.header("transfer-encoding") == "chunked" {
            self.chunks()
        } else {
            let length = answer.header("content-length").parse().unwrap_or(0);
            self.take(length)
        };
        answer
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        while self.read.len() < length {
            assert_ne!(self.more(), 0, "it ended within a body");
        }
        self.read.drain(..length).collect()
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            self.read_until(b"\r\n");
            let end = self.read.windows(2).position(|window| window == b"\r\n").unwrap() + 2;
            let line = String::from_utf8(self.read.drain(..end).collect()).unwrap();
            let length = usize::from_str_radix(line.trim(), 16).unwrap();
            let chunk = self.take(length + 2);
            body.extend_from_slice(&chunk[..length]);
            if length == 0 {
                return body;
            }
        }
    }
}
