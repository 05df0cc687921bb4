//! A file with a secret, which may be replaced while the server runs.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::options::OptionsError;

/// How long a content counts as current.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
const BYTES_MAX: u64 = 64 * 1024;

pub(super) struct SecretFile {
    path: PathBuf,
    last: Mutex<(Arc<str>, Instant)>,
}

impl SecretFile {
    /// Reads it for the first time. Blocks.
    pub(super) fn open(path: PathBuf) -> Result<Self, OptionsError> {
        match read(&path) {
            Ok(content) => Ok(Self { path, last: Mutex::new((content, Instant::now())) }),
            Err(source) => Err(OptionsError::Unreadable { path, source }),
        }
    }

    /// The content, without white space at its ends.
    pub(super) async fn content(&self) -> io::Result<Arc<str>> {
        let (content, read_at) = self.last.lock().clone();
        if read_at.elapsed() < CHECK_INTERVAL {
            return Ok(content);
        }
        let path = self.path.clone();
        let content = tokio::task::spawn_blocking(move || read(&path)).await.map_err(io::Error::other)??;
        *self.last.lock() = (Arc::clone(&content), Instant::now());
        Ok(content)
    }

    pub(super) fn path(&self) -> &std::path::Path {
        &self.path
    }
}

fn read(path: &std::path::Path) -> io::Result<Arc<str>> {
    use io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(io::Error::other(format!("it has more than {BYTES_MAX} bytes")));
    }
    Ok(text.trim().into())
}
