//! The files of the store and the space that is left for them, read in a thread of their own: a file system that hangs must
//! not stop the metrics, which report just that.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Pause between two readings.
const INTERVAL: Duration = Duration::from_secs(5);
/// A reading that is older is not reported.
const AGE_MAX: Duration = Duration::from_mins(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskUse {
    pub used: u64,
    /// Available to this process.
    pub free: u64,
}

impl DiskUse {
    /// Of the file system that holds the path.
    pub fn of(path: &Path) -> Option<Self> {
        let found = rustix::fs::statvfs(path).ok()?;
        let used = found.f_blocks.saturating_sub(found.f_bfree).saturating_mul(found.f_frsize);
        Some(Self { used, free: found.f_bavail.saturating_mul(found.f_frsize) })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskReading {
    /// Bytes of each database with its write-ahead log, by the name of its file.
    pub databases: [(&'static str, u64); 2],
    pub disk: Option<DiskUse>,
}

impl DiskReading {
    fn of(directory: &Path) -> Self {
        let databases = ["journal", "projection"].map(|name| (name, bytes_of(directory, name)));
        Self { databases, disk: DiskUse::of(directory) }
    }
}

/// Reads at intervals until it is dropped.
pub struct DiskSampler {
    last: Arc<Mutex<(Instant, DiskReading)>>,
    _alive: Sender<()>,
}

impl DiskSampler {
    /// Reads once, and starts the thread for the next readings.
    pub fn start(directory: PathBuf) -> Self {
        let last = Arc::new(Mutex::new((Instant::now(), DiskReading::of(&directory))));
        let (alive, dropped) = channel();
        let target = last.clone();
        let sample = move || {
            while dropped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let reading = DiskReading::of(&directory);
                *target.lock() = (Instant::now(), reading);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("disk-sampler".to_owned()).spawn(sample) {
            tracing::error!(%error, "failed to start a thread; metrics of the disk are missing");
        }
        Self { last, _alive: alive }
    }

    /// `None` if the file system does not respond.
    pub fn reading(&self) -> Option<DiskReading> {
        let (at, reading) = *self.last.lock();
        (at.elapsed() < AGE_MAX).then_some(reading)
    }
}

/// Bytes of a database file and its write-ahead log.
fn bytes_of(directory: &Path, name: &str) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let own = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(|file| file.starts_with(name)));
    own.filter_map(|entry| entry.metadata().ok()).filter(std::fs::Metadata::is_file).map(|file| file.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_database_includes_its_logs_and_a_missing_directory_is_empty() {
        let directory = tempfile::tempdir().unwrap();
        for (name, bytes) in [("journal.db", 10), ("journal.db-wal", 5), ("projection.db", 7), ("other", 100)] {
            std::fs::write(directory.path().join(name), vec![0; bytes]).unwrap();
        }
        let reading = DiskReading::of(directory.path());
        assert_eq!(reading.databases, [("journal", 15), ("projection", 7)]);
        assert!(reading.disk.unwrap().free > 0);
        let missing = DiskReading::of(&directory.path().join("none"));
        assert_eq!(missing, DiskReading { databases: [("journal", 0), ("projection", 0)], disk: None });
    }
}
