//! What all process handlers of one server run share: the instance mark, the supervisor, and idle shims.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use parking_lot::Mutex;

use super::directories::DIRECTORY_MODE;
use super::shim::Shim;
use super::supervisor::Supervisor;

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
    /// Prepares `state_dir` for processes and, if `exe` is given, starts it as the supervisor of this server run. Removes
    /// what an earlier server has left in the working directories of attempts.
    ///
    /// # Errors
    /// As [`Supervisor::start`], and when the directory cannot be removed or created.
    pub fn new(state_dir: &Path, instance: &str, exe: Option<&Path>) -> io::Result<Self> {
        // Absolute, because the supervisor has another working directory.
        let work = std::path::absolute(state_dir)?.join("work");
        // Started first: it ensures that no process uses the directories of an earlier server any more.
        let start = |exe| Supervisor::start(exe, &state_dir.join("runs.lock"), &work);
        let supervisor = exe.map(start).transpose()?;
        match std::fs::remove_dir_all(&work) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => std::fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(&work)?,
        }
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
