//! Detects the HTTP version of a connection before anything else reads from it.
//!
//! An HTTP/2 client starts with a fixed preface of 24 bytes. It is read here, so that our own timeout covers
//! it: neither of hyper's protocol implementations limits the time for these bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0 or 1.1, or bytes that the HTTP/1 parser will refuse.
    Http1,
    Http2,
}

/// Reads as many bytes as it takes to detect the protocol.
///
/// # Errors
/// Those of reading; `UnexpectedEof` if the client closes the connection before.
pub async fn protocol<T: AsyncRead + Unpin>(mut stream: T) -> io::Result<(Protocol, PrefixedIo<T>)> {
    let mut prefix = [0; PREFACE.len()];
    let mut length = 0;
    while length < PREFACE.len() && prefix[..length] == PREFACE[..length] {
        match stream.read(&mut prefix[length..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => length += more,
        }
    }
    let protocol = if prefix == *PREFACE { Protocol::Http2 } else { Protocol::Http1 };
    Ok((protocol, PrefixedIo { stream, prefix, unread: 0..length }))
}

/// A stream that first returns the bytes that were read for detection.
pub struct PrefixedIo<T> {
    stream: T,
    prefix: [u8; PREFACE.len()],
    unread: std::ops::Range<usize>,
}

impl<T: AsyncRead + Unpin> AsyncRead for PrefixedIo<T> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, into);
        }
        let from = self.unread.start;
        let to = self.unread.end.min(from + into.remaining());
        into.put_slice(&self.prefix[from..to]);
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
    async fn the_first_bytes_determine_the_protocol_and_are_not_lost() {
        let after = |text: &[u8]| [&PREFACE[..], text].concat();
        for (sent, expected) in [
            (after(b"\0\0\0\x04\0\0\0\0\0"), Protocol::Http2),
            (after(b""), Protocol::Http2),
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), Protocol::Http1),
            (b"POST / HTTP/1.1\r\n\r\n".to_vec(), Protocol::Http1),
            (b"PRI * HTTP/2.0\r\n\r\nXX".to_vec(), Protocol::Http1),
            (b"\x16\x03\x01".to_vec(), Protocol::Http1),
        ] {
            let (mut client, server) = tokio::io::duplex(3);
            let whole = sent.clone();
            tokio::spawn(async move {
                client.write_all(&whole).await.unwrap();
            });
            let (found, mut stream) = protocol(server).await.unwrap();
            let mut read = Vec::new();
            stream.read_to_end(&mut read).await.unwrap();
            assert_eq!((found, read), (expected, sent));
        }
    }

    #[tokio::test]
    async fn a_close_before_detection_is_an_error() {
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(&PREFACE[..10]).await.unwrap();
        drop(client);
        assert_eq!(protocol(server).await.err().map(|error| error.kind()), Some(io::ErrorKind::UnexpectedEof));
    }
}
