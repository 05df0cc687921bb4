//! Files that are read again when they change: certificates, keys and tokens.
//!
//! Asked for by their stamps every second, because that works on every file system and with the
//! symbolic links that Kubernetes turns over.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

/// How often files are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Modification time, size and inode of a file; `None` when it cannot be asked.
type Stamp = Option<(SystemTime, u64, u64)>;

/// What is read from files, and how it is read again.
pub struct WatchedFiles {
    /// For the log.
    name: &'static str,
    paths: Vec<PathBuf>,
    /// Of the files when they were last read well.
    stamps: Vec<Stamp>,
    load: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// What was wrong at the last try.
    fault: Option<String>,
}

impl WatchedFiles {
    /// Loads for the first time.
    ///
    /// # Errors
    /// Those of `load`.
    pub fn open<E: std::fmt::Display>(
        name: &'static str,
        paths: Vec<PathBuf>,
        load: impl Fn() -> Result<(), E> + Send + Sync + 'static,
    ) -> Result<Self, E> {
        // Before the files are read: a change in between is seen at the next look.
        let stamps = stamps(&paths);
        load()?;
        let load = Box::new(move || load().map_err(|error| error.to_string()));
        Ok(Self { name, paths, stamps, load, fault: None })
    }

    /// Loads again when a file has changed. Files that do not fit each other (yet) are tried again, and
    /// what was loaded before stays.
    fn poll(&mut self) {
        let now = stamps(&self.paths);
        if now == self.stamps && self.fault.is_none() {
            return;
        }
        match (self.load)() {
            Ok(()) => {
                (self.stamps, self.fault) = (now, None);
                tracing::info!(what = self.name, "loaded again after a change");
            }
            Err(error) => {
                if self.fault.as_ref() != Some(&error) {
                    tracing::error!(what = self.name, %error, "cannot be loaded again; what was loaded before stays");
                }
                self.fault = Some(error);
            }
        }
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Stamp> {
    use std::os::unix::fs::MetadataExt;
    let stamp = |path: &PathBuf| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.modified().ok()?, found.len(), found.ino()))
    };
    paths.iter().map(stamp).collect()
}

/// Looks at all files until `stop`.
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
        let looked = tokio::task::spawn_blocking(move || {
            all.iter_mut().for_each(WatchedFiles::poll);
            all
        });
        match looked.await {
            Ok(back) => all = back,
            Err(error) => return tracing::error!(%error, "files are no longer looked at"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[test]
    fn a_change_is_seen_and_a_broken_file_is_tried_until_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "1").unwrap();
        let (seen, from) = (Arc::new(Mutex::new(Vec::new())), path.clone());
        let sink = seen.clone();
        let load = move || {
            let text = std::fs::read_to_string(&from).map_err(|error| error.to_string())?;
            let number: u32 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
            sink.lock().push(number);
            Ok::<_, String>(())
        };
        let mut reloaded = WatchedFiles::open("a number", vec![path.clone()], load).unwrap();
        reloaded.poll();
        std::fs::write(&path, "22").unwrap();
        reloaded.poll();
        std::fs::write(&path, "half").unwrap();
        reloaded.poll();
        std::fs::remove_file(&path).unwrap();
        reloaded.poll();
        assert!(reloaded.fault.is_some());
        std::fs::write(&path, "333").unwrap();
        reloaded.poll();
        reloaded.poll();
        assert_eq!(*seen.lock(), [1, 22, 333]);
        assert!(WatchedFiles::open("nothing", Vec::new(), || Err::<(), _>("no")).is_err());
    }
}
