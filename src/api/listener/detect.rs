//! Finds out which HTTP a connection speaks, before anything else reads from it.
//!
//! A client of HTTP/2 says so with its first 24 bytes. They are read here, under a time limit of ours:
//! neither version's own code bounds the time that a caller may take for them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What a client of HTTP/2 says first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0 or 1.1, or something else, which its parser will refuse.
    Http1,
    /// HTTP/2, with or without TLS.
    Http2,
}

/// Reads as much as it takes to know the version.
///
/// # Errors
/// Those of reading; `UnexpectedEof` when the caller has gone before.
pub async fn protocol<T: AsyncRead + Unpin>(mut stream: T) -> io::Result<(Protocol, PrefixedIo<T>)> {
    let mut seen = [0; PREFACE.len()];
    let mut length = 0;
    while length < PREFACE.len() && seen[..length] == PREFACE[..length] {
        match stream.read(&mut seen[length..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => length += more,
        }
    }
    let version = if seen == *PREFACE { Protocol::Http2 } else { Protocol::Http1 };
    Ok((version, PrefixedIo { stream, seen, unread: 0..length }))
}

/// The connection with what was read of it put back.
pub struct PrefixedIo<T> {
    stream: T,
    seen: [u8; PREFACE.len()],
    unread: std::ops::Range<usize>,
}

impl<T: AsyncRead + Unpin> AsyncRead for PrefixedIo<T> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, into);
        }
        let from = self.unread.start;
        let to = self.unread.end.min(from + into.remaining());
        into.put_slice(&self.seen[from..to]);
        self.unread.start = to;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for PrefixedIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn the_version_is_known_from_the_first_bytes_and_nothing_is_lost() {
        let after = |text: &[u8]| [&PREFACE[..], text].concat();
        for (said, expected) in [
            (after(b"\0\0\0\x04\0\0\0\0\0"), Protocol::Http2),
            (after(b""), Protocol::Http2),
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), Protocol::Http1),
            (b"POST / HTTP/1.1\r\n\r\n".to_vec(), Protocol::Http1),
            (b"PRI * HTTP/2.0\r\n\r\nXX".to_vec(), Protocol::Http1),
            (b"\x16\x03\x01".to_vec(), Protocol::Http1),
        ] {
            let (mut client, server) = tokio::io::duplex(3);
            let whole = said.clone();
            tokio::spawn(async move {
                client.write_all(&whole).await.unwrap();
            });
            let (found, mut rewound) = protocol(server).await.unwrap();
            let mut read = Vec::new();
            rewound.read_to_end(&mut read).await.unwrap();
            assert_eq!((found, read), (expected, said));
        }
    }

    #[tokio::test]
    async fn a_caller_that_leaves_before_it_is_known_is_an_error() {
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(&PREFACE[..10]).await.unwrap();
        drop(client);
        assert_eq!(protocol(server).await.err().map(|error| error.kind()), Some(io::ErrorKind::UnexpectedEof));
    }
}
