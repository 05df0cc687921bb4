//! What all process handlers of one server run share: the instance mark, the supervisor, and idle shims.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::remove::remove_tree;
use super::shim::Shim;
use super::supervisor::Supervisor;
use crate::files::create_private_directory;

/// Idle shims kept for later attempts: starting one costs more than most attempts.
const IDLE_SHIMS_MAX: usize = 64;

#[derive(Debug)]
pub struct Host {
    pub(super) instance: Box<str>,
    /// `None` if no handler runs processes.
    supervisor: Option<Supervisor>,
    idle: Mutex<Vec<Shim>>,
}

impl Host {
    /// Prepares `state_dir` for processes and, if `exe` is given, starts it as the supervisor of this server run. What an
    /// earlier server has left in the working directories of attempts is removed in the background.
    ///
    /// # Errors
    /// As [`Supervisor::start`], and when the directory cannot be renamed or created.
    pub fn new(state_dir: &Path, instance: &str, exe: Option<&Path>) -> io::Result<Self> {
        // Absolute, because the supervisor has another working directory.
        let work = std::path::absolute(state_dir)?.join("work");
        // Started first: it ensures that no process uses the directories of an earlier server any more.
        let start = |exe| Supervisor::start(exe, &state_dir.join("runs.lock"), &work);
        let supervisor = exe.map(start).transpose()?;
        quarantine(&work)?;
        create_private_directory(&work)?;
        remove_leftovers(&work);
        Ok(Self { instance: instance.into(), supervisor, idle: Mutex::default() })
    }

    /// Waits until the supervisor has exited although the server runs.
    pub async fn supervisor_exited(&self) {
        match &self.supervisor {
            Some(supervisor) => supervisor.exited().await,
            None => std::future::pending().await,
        }
    }

    /// Stops the supervisor and waits until no process of this server run is left. For a clean shutdown,
    /// after the last attempt.
    ///
    /// # Errors
    /// When waiting for the supervisor fails.
    pub fn stop(self) -> io::Result<()> {
        drop(self.idle);
        self.supervisor.map_or(Ok(()), Supervisor::stop)
    }

    /// Whether the processes of a shim that was killed are known to have ended.
    pub(super) fn has_supervisor(&self) -> bool {
        self.supervisor.as_ref().is_some_and(Supervisor::is_running)
    }

    /// An idle shim, or a new one. An idle one may have been killed.
    pub(super) async fn shim(&self) -> io::Result<Shim> {
        let idle = self.idle.lock().pop();
        match (idle, &self.supervisor) {
            (Some(shim), _) => Ok(shim),
            (None, Some(supervisor)) => supervisor.fork_shim().await,
            (None, None) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Keeps a shim for a later attempt.
    pub(super) fn keep(&self, mut shim: Shim) {
        shim.shrink();
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_SHIMS_MAX {
            idle.push(shim);
        }
    }
}

/// Renames the working directories of an earlier server, however many files they contain.
fn quarantine(work: &Path) -> io::Result<()> {
    let mut free =
        (1..u32::MAX).map(|n| work.with_extension(n.to_string())).filter(|path| fs::symlink_metadata(path).is_err());
    match free.next().map(|path| fs::rename(work, path)) {
        Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes what was set aside. What cannot be removed is logged at each start.
fn remove_leftovers(work: &Path) {
    let left: Vec<PathBuf> = (1..u32::MAX)
        .map(|n| work.with_extension(n.to_string()))
        .take_while(|path| fs::symlink_metadata(path).is_ok())
        .collect();
    if left.is_empty() {
        return;
    }
    let remove = move || {
        for path in left.iter().rev() {
            if let Err(error) = remove_tree(path) {
                tracing::warn!(path = %path.display(), %error, "failed to remove working directories of an earlier server");
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("work-cleaner".to_owned()).spawn(remove) {
        tracing::warn!(%error, "failed to start a thread that removes working directories of an earlier server");
    }
}
