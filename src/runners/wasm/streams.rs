//! The standard streams of a guest.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncWrite, sink};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use crate::model::OutputStream as Channel;
use crate::model::limits::RESULT_BYTES_MAX;
use crate::runners::OutputBuffer;

/// Bytes that a guest may write with one call.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// Stdout: the result. A guest that writes more than a result may have is stopped.
#[derive(Clone, Default)]
pub(super) struct ResultStream(Arc<Mutex<ResultBuffer>>);

#[derive(Default)]
struct ResultBuffer {
    data: Vec<u8>,
    is_too_large: bool,
}

impl ResultStream {
    /// `None` if the guest has written more than a result may have.
    pub(super) fn take(&self) -> Option<Vec<u8>> {
        let mut result = self.0.lock();
        (!result.is_too_large).then(|| std::mem::take(&mut result.data))
    }
}

/// Stderr: the log of the attempt.
#[derive(Clone)]
pub(super) struct LogStream(pub(super) Arc<OutputBuffer>);

/// A stream that takes everything at once.
trait Sink: Clone + Send + Sync + 'static {
    fn push(&self, bytes: &[u8]) -> StreamResult<()>;
}

impl Sink for ResultStream {
    fn push(&self, bytes: &[u8]) -> StreamResult<()> {
        let mut result = self.0.lock();
        if bytes.len() > RESULT_BYTES_MAX - result.data.len() {
            result.is_too_large = true;
            return Err(StreamError::trap("the result is too large"));
        }
        result.data.extend_from_slice(bytes);
        Ok(())
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
    async fn ready(&mut self) {}
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
        Ok(WRITE_BYTES_MAX)
    }

    async fn blocking_write_and_flush(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.0.push(&bytes)
    }
}
