//! What all process handlers of one server run share: the instance mark, the supervisor, and the working
//! directories of attempts.

use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::supervisor::Supervisor;

/// No other user may read a working directory.
const DIRECTORY_MODE: u32 = 0o700;
/// Empty working directories kept for later attempts.
const EMPTY_DIRECTORIES_MAX: usize = 64;

#[derive(Debug)]
pub struct Host {
    pub(super) instance: Box<str>,
    pub(super) work: PathBuf,
    pub(super) supervisor: Option<Supervisor>,
    /// Number of directories created, which is the name of the next one.
    directories: AtomicU64,
    empty: Mutex<Vec<PathBuf>>,
}

impl Host {
    /// Creates `state_dir/work` after removing what an earlier server has left in it. Start the supervisor
    /// first: it ensures that no process uses those directories any more.
    ///
    /// # Errors
    /// When the directory cannot be removed or created.
    pub fn new(state_dir: &Path, instance: &str, supervisor: Option<Supervisor>) -> io::Result<Self> {
        // Absolute, because a child changes into it.
        let work = std::path::absolute(state_dir)?.join("work");
        match std::fs::remove_dir_all(&work) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => std::fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(&work)?,
        }
        Ok(Self {
            instance: instance.into(),
            work,
            supervisor,
            directories: AtomicU64::new(0),
            empty: Mutex::default(),
        })
    }

    /// Stops the supervisor and waits until no process of this server run is left. For a clean shutdown,
    /// after the last attempt.
    ///
    /// # Errors
    /// When waiting for the supervisor fails.
    pub fn stop(self) -> io::Result<()> {
        self.supervisor.map_or(Ok(()), Supervisor::stop)
    }

    pub(super) fn attempt_directory(&self) -> io::Result<AttemptDirectory<'_>> {
        if let Some(path) = self.empty.lock().pop() {
            return Ok(AttemptDirectory { path, host: self });
        }
        let number = self.directories.fetch_add(1, Ordering::Relaxed);
        let path = self.work.join(number.to_string());
        std::fs::DirBuilder::new().mode(DIRECTORY_MODE).create(&path)?;
        Ok(AttemptDirectory { path, host: self })
    }
}

/// The working directory of one attempt. Dropping it removes the directory with its contents, or keeps an
/// unchanged one for a later attempt: creating a directory can cost more than starting a process.
#[derive(Debug)]
pub(super) struct AttemptDirectory<'host> {
    pub(super) path: PathBuf,
    host: &'host Host,
}

impl AttemptDirectory<'_> {
    fn is_unchanged(&self) -> bool {
        let same = |file: std::fs::Metadata| file.is_dir() && file.permissions().mode() & 0o7777 == DIRECTORY_MODE;
        std::fs::symlink_metadata(&self.path).is_ok_and(same)
            && std::fs::read_dir(&self.path).is_ok_and(|mut entries| entries.next().is_none())
    }
}

impl Drop for AttemptDirectory<'_> {
    fn drop(&mut self) {
        if self.is_unchanged() {
            let mut empty = self.host.empty.lock();
            if empty.len() < EMPTY_DIRECTORIES_MAX {
                empty.push(std::mem::take(&mut self.path));
                return;
            }
        }
        match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %error, "failed to remove a working directory");
            }
            _ => {}
        }
    }
}
