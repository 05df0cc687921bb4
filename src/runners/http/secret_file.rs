//! A file with a secret, which may be replaced while the server runs.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::options::OptionsError;

/// How long a content counts as current.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
const BYTES_MAX: u64 = 64 * 1024;

pub(super) struct SecretFile {
    path: PathBuf,
    /// When it was read last.
    last: Mutex<(Content, Instant)>,
}

/// The content, without white space at its ends, or why there is none.
type Content = Result<Arc<str>, Arc<io::Error>>;

impl SecretFile {
    /// Reads it for the first time. Blocks.
    pub(super) fn open(path: PathBuf) -> Result<Self, OptionsError> {
        match read(&path) {
            Ok(content) => Ok(Self { path, last: Mutex::new((Ok(content), Instant::now())) }),
            Err(source) => Err(OptionsError::Unreadable { setting: "placeholder {file:PATH}", path, source }),
        }
    }

    pub(super) async fn content(&self) -> Content {
        // Held while the file is read, in a thread, so that many calls at once need one.
        let mut last = self.last.lock().await;
        if last.1.elapsed() >= CHECK_INTERVAL {
            let path = self.path.clone();
            let content = tokio::task::spawn_blocking(move || read(&path)).await.map_err(io::Error::other).flatten();
            *last = (content.map_err(Arc::new), Instant::now());
        }
        last.0.clone()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn read(path: &Path) -> io::Result<Arc<str>> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(io::Error::other(format!("it has more than {BYTES_MAX} bytes")));
    }
    Ok(text.trim().into())
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    #[tokio::test]
    async fn many_calls_at_once_read_a_file_in_one_thread() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "first").unwrap();
        let file = Arc::new(SecretFile::open(path.clone()).unwrap());
        // A read blocks until there is a writer.
        std::fs::remove_file(&path).unwrap();
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        tokio::time::pause();
        tokio::time::advance(CHECK_INTERVAL).await;
        let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
        let before = threads();
        let call = || {
            let file = file.clone();
            tokio::spawn(async move { file.content().await })
        };
        let calls: Vec<_> = (0..400).map(|_| call()).collect();
        // All of them begin.
        tokio::task::yield_now().await;
        // Other tests have threads, too.
        assert!(threads() < before + 100, "{before} threads, then {}", threads());
        std::fs::write(&path, "second").unwrap();
        for call in calls {
            assert_eq!(&*call.await.unwrap().unwrap(), "second");
        }
    }
}
