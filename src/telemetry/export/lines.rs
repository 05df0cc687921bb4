//! Telemetry as lines of JSON, on standard output or in a file: "OTLP File" of the specification.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use parking_lot::Mutex;

use super::TransportError;

/// Writes the body of each request as a line.
#[derive(Debug)]
pub(super) enum Lines {
    /// Where the log is, too.
    Stdout,
    /// Opened to be added to.
    File(Mutex<File>),
}

impl Lines {
    /// A file that is added to; without one, standard output.
    pub fn open(file: Option<&Path>) -> Result<Self, TransportError> {
        let Some(path) = file else { return Ok(Self::Stdout) };
        let opened = open(path).map_err(|source| TransportError::File { path: path.to_owned(), source })?;
        Ok(Self::File(Mutex::new(opened)))
    }

    /// Whole lines, since others may write beside. The library breaks its JSON into many.
    fn write(&self, body: &[u8]) -> io::Result<()> {
        let mut line = serde_json::to_vec(&serde_json::from_slice::<serde_json::Value>(body)?)?;
        line.push(b'\n');
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(&line)?;
                out.flush()
            }
            Self::File(file) => file.lock().write_all(&line),
        }
    }
}

/// Opens a file that lines are added to; made when there is none.
///
/// # Errors
/// Those of the system, and that it is a named pipe.
pub fn open(path: &Path) -> io::Result<File> {
    // To open one waits for its reader, and to write waits for what he reads.
    if std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo()) {
        return Err(io::Error::other("it is a named pipe"));
    }
    File::options().create(true).append(true).open(path)
}

#[tonic::async_trait]
impl HttpClient for Lines {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        self.write(request.body())?;
        Ok(Response::new(Bytes::new()))
    }
}
