//! Files that are reloaded when they change: certificates, keys and tokens.
//!
//! The files are polled once a second, because that works on every file system and with the symbolic links
//! that Kubernetes replaces.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

/// Time between two looks at a file.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// Modification time, size and inode of a file; `None` if they cannot be read.
pub type Stamp = Option<(SystemTime, u64, u64)>;

/// Files that are loaded together.
pub struct WatchedFiles {
    /// For log messages.
    name: &'static str,
    paths: Vec<PathBuf>,
    /// Stamps of the files at the last successful load.
    stamps: Vec<Stamp>,
    load: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// Error of the last load, if it failed.
    fault: Option<String>,
}

impl WatchedFiles {
    /// Loads the files for the first time.
    ///
    /// # Errors
    /// Those of `load`.
    pub fn open<E: std::fmt::Display>(
        name: &'static str,
        paths: Vec<PathBuf>,
        load: impl Fn() -> Result<(), E> + Send + Sync + 'static,
    ) -> Result<Self, E> {
        // Before the files are read, so that the next poll sees a change in between.
        let stamps = stamps(&paths);
        load()?;
        let load = Box::new(move || load().map_err(|error| error.to_string()));
        Ok(Self { name, paths, stamps, load, fault: None })
    }

    /// Loads the files again if one has changed. After a failure the old content stays in use and every poll
    /// tries again, because files that belong together may be replaced one after the other.
    fn poll(&mut self) {
        let stamps = stamps(&self.paths);
        if stamps == self.stamps && self.fault.is_none() {
            return;
        }
        match (self.load)() {
            Ok(()) => {
                (self.stamps, self.fault) = (stamps, None);
                tracing::info!(what = self.name, "reloaded after a change");
            }
            Err(error) => {
                if self.fault.as_ref() != Some(&error) {
                    tracing::error!(what = self.name, %error, "failed to reload; the previous content stays in use");
                }
                self.fault = Some(error);
            }
        }
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Stamp> {
    paths.iter().map(|path| stamp(path)).collect()
}

/// Differs after the file was changed or replaced, also by way of a symbolic link.
pub fn stamp(path: &Path) -> Stamp {
    let found = std::fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len(), found.ino()))
}

/// Polls all files until `stop`.
pub async fn run(mut all: Vec<WatchedFiles>, stop: CancellationToken) {
    if all.is_empty() {
        return;
    }
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let polled = tokio::task::spawn_blocking(move || {
            all.iter_mut().for_each(WatchedFiles::poll);
            all
        });
        match polled.await {
            Ok(returned) => all = returned,
            Err(error) => return tracing::error!(%error, "certificates and keys are no longer reloaded"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    /// Watches a file that contains a number, and collects the numbers.
    fn numbers(path: &Path) -> (WatchedFiles, Arc<Mutex<Vec<u32>>>) {
        let (loaded, source) = (Arc::new(Mutex::new(Vec::new())), path.to_owned());
        let sink = loaded.clone();
        let load = move || {
            let text = std::fs::read_to_string(&source).map_err(|error| error.to_string())?;
            sink.lock().push(text.parse().map_err(|_| format!("{text:?} is not a number"))?);
            Ok::<_, String>(())
        };
        (WatchedFiles::open("a number", vec![path.to_owned()], load).unwrap(), loaded)
    }

    #[test]
    fn only_a_changed_file_is_loaded_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "1").unwrap();
        let (mut watched, loaded) = numbers(&path);
        watched.poll();
        std::fs::write(&path, "22").unwrap();
        watched.poll();
        watched.poll();
        assert_eq!(*loaded.lock(), [1, 22]);
    }

    #[test]
    fn an_invalid_or_missing_file_is_retried_until_it_loads() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "1").unwrap();
        let (mut watched, loaded) = numbers(&path);
        std::fs::write(&path, "half").unwrap();
        watched.poll();
        std::fs::remove_file(&path).unwrap();
        watched.poll();
        assert!(watched.fault.is_some());
        std::fs::write(&path, "333").unwrap();
        watched.poll();
        assert_eq!(*loaded.lock(), [1, 333]);
    }

    #[test]
    fn a_failed_first_load_is_returned() {
        assert!(WatchedFiles::open("nothing", Vec::new(), || Err::<(), _>("no")).is_err());
    }
}
