//! An HTTP/2 client that sends exactly the frames of the test, so that it can violate the protocol.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use crate::support::{Server, TIMEOUT};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;

/// Flag of SETTINGS and PING.
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub content: Vec<u8>,
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(content);
    bytes
}

/// Connects and sends the preface and empty SETTINGS.
pub fn connect(server: &Server) -> TcpStream {
    connect_to(&server.address)
}

pub fn connect_to(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.set_write_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(PREFACE).unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
    stream
}

/// Reads the frames that have arrived, without waiting for more.
pub struct ArrivedFrames {
    connection: TcpStream,
    received: Vec<u8>,
}

impl ArrivedFrames {
    pub fn of(connection: TcpStream) -> Self {
        connection.set_nonblocking(true).unwrap();
        Self { connection, received: Vec::new() }
    }

    /// Kind and flags of each frame.
    pub fn take(&mut self) -> Vec<(u8, u8)> {
        let mut buffer = [0; 16 << 10];
        loop {
            match self.connection.read(&mut buffer) {
                Ok(0) => panic!("the server closed the connection"),
                Ok(length) => self.received.extend(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        let mut frames = Vec::new();
        while let Some([high, middle, low, kind, flags, ..]) = self.received.first_chunk::<9>().copied() {
            let length = 9 + (usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low));
            if self.received.len() < length {
                break;
            }
            self.received.drain(..length);
            frames.push((kind, flags));
        }
        frames
    }
}

pub fn read_frame(stream: &mut TcpStream) -> io::Result<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let [high, middle, low, kind, flags, number @ ..] = head;
    let mut content = vec![0; usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low)];
    stream.read_exact(&mut content)?;
    Ok(Frame { kind, flags, stream: u32::from_be_bytes(number), content })
}
