//! The standard streams of a guest.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncWrite, sink};
use tokio::time::sleep;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use crate::model::OutputStream as Channel;
use crate::runners::result::ResultBuffer;
use crate::runners::result_memory::MEMORY_INTERVAL;
use crate::runners::{OutputBuffer, ResultMemory};

/// Bytes that a guest may write with one call.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// Stdout: the result. A guest that writes more than a result may have is stopped.
#[derive(Clone)]
pub(super) struct ResultStream(Arc<Mutex<ResultBuffer>>);

impl ResultStream {
    pub(super) fn new(memory: ResultMemory) -> Self {
        Self(Arc::new(Mutex::new(ResultBuffer::new(memory))))
    }

    /// What the guest has written.
    pub(super) fn take(&self) -> ResultBuffer {
        self.0.lock().take()
    }
}

/// Stderr: the log of the attempt.
#[derive(Clone)]
pub(super) struct LogStream(pub(super) Arc<OutputBuffer>);

/// A stream that takes everything at once, when it has room.
trait Sink: Clone + Send + Sync + 'static {
    /// Whether there is memory for [`WRITE_BYTES_MAX`].
    fn has_room(&self) -> bool {
        true
    }

    fn push(&self, bytes: &[u8]) -> StreamResult<()>;
}

impl Sink for ResultStream {
    fn has_room(&self) -> bool {
        self.0.lock().has_room(WRITE_BYTES_MAX)
    }

    fn push(&self, bytes: &[u8]) -> StreamResult<()> {
        let mut result = self.0.lock();
        result.push(bytes);
        if result.is_too_large() { Err(StreamError::trap("the result is too large")) } else { Ok(()) }
    }
}

impl Sink for LogStream {
    fn push(&self, bytes: &[u8]) -> StreamResult<()> {
        self.0.write(Channel::Stderr, bytes);
        Ok(())
    }
}

/// A sink as WASI sees it.
#[derive(Clone)]
pub(super) struct Pipe<S>(pub(super) S);

impl<S> IsTerminal for Pipe<S> {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl<S: Sink> StdoutStream for Pipe<S> {
    /// Only guests of WASI 0.3 use it, which are not supported.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl<S: Sink> Pollable for Pipe<S> {
    async fn ready(&mut self) {
        while !self.0.has_room() {
            sleep(MEMORY_INTERVAL).await;
        }
    }
}

#[async_trait]
impl<S: Sink> OutputStream for Pipe<S> {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.0.push(&bytes)
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(if self.0.has_room() { WRITE_BYTES_MAX } else { 0 })
    }

    async fn blocking_write_and_flush(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.ready().await;
        self.0.push(&bytes)
    }
}
