//! What all process handlers of one server run share: the instance mark, the supervisor, and idle shims.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tokio::sync::SetOnce;

use super::account::{Account, missing_capabilities};
use super::options::OptionsError;
use super::remove::remove_all_owned;
use super::shim::Shim;
use super::supervisor::Supervisor;
use super::sys;
use crate::files::create_private_directory;

/// Idle shims kept for later attempts: starting one costs more than most attempts.
const IDLE_SHIMS_MAX: usize = 64;
/// Permission of other users to enter a directory. Also of the group, which a shim keeps when it acts for a user.
const ENTER: u32 = 0o011;

#[derive(Debug)]
pub struct Host {
    pub(super) instance: Box<str>,
    /// Where the working directories of attempts are created.
    work: PathBuf,
    lock: PathBuf,
    /// Set once a handler runs processes.
    supervisor: SetOnce<Supervisor>,
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
        let lock = state_dir.join("runs.lock");
        let host = Self { instance: instance.into(), work, lock, supervisor: SetOnce::new(), idle: Mutex::default() };
        // Started first: it ensures that no process uses the directories of an earlier server any more.
        if let Some(exe) = exe {
            host.start_supervisor(exe)?;
        }
        quarantine(&host.work)?;
        create_private_directory(&host.work)?;
        remove_leftovers(&host.work);
        Ok(host)
    }

    /// Starts the supervisor, unless it runs. Blocks up to ten seconds if processes of an earlier server are left.
    ///
    /// # Errors
    /// As [`Supervisor::start`].
    pub fn start_supervisor(&self, exe: &Path) -> io::Result<()> {
        if self.supervisor.get().is_none() {
            // Only a reload of the configuration calls this later, and there is one at a time.
            let _ = self.supervisor.set(Supervisor::start(exe, &self.lock, &self.work)?);
        }
        Ok(())
    }

    /// Lets programs run as this user: opens the way to their working directories, where other users can then enter, but
    /// list nothing, and tries what is done for each attempt.
    ///
    /// # Errors
    /// When the server lacks a capability, or something else prevents it from switching to the user.
    pub(super) fn admit(&self, account: Account) -> Result<(), OptionsError> {
        let cannot = |action| move |error: io::Error| OptionsError::CannotSwitch { action, error: error.to_string() };
        let missing = missing_capabilities().map_err(cannot("read its capabilities"))?;
        if !missing.is_empty() {
            return Err(OptionsError::NoCapabilities(missing.join(", ")));
        }
        for directory in self.work.parent().into_iter().chain([&*self.work]) {
            open_to_others(directory).map_err(cannot("give the user a working directory"))?;
        }
        let attempt = || {
            account.assume().map_err(cannot("switch to the user"))?;
            let entered = fs::metadata(self.work.join(".")).map(drop);
            let named = |error| io::Error::other(format!("`{}`: {error}", self.work.display()));
            entered.map_err(named).map_err(cannot("give the user a working directory"))
        };
        // A thread has a user of its own.
        let name = "check-user".to_owned();
        let result = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name(name).spawn_scoped(scope, attempt);
            let thread = thread.map_err(cannot("start a thread"))?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        sys::hide_process().map_err(cannot("hide its memory from the user"))?;
        result
    }

    /// Waits until the supervisor has exited although the server runs.
    pub async fn supervisor_exited(&self) {
        self.supervisor.wait().await.exited().await;
    }

    /// Stops the supervisor and waits until no process of this server run is left. For a clean shutdown,
    /// after the last attempt.
    ///
    /// # Errors
    /// When waiting for the supervisor fails.
    pub fn stop(self) -> io::Result<()> {
        drop(self.idle);
        self.supervisor.into_inner().map_or(Ok(()), Supervisor::stop)
    }

    /// Where the directories of attempts are created. Users of handlers can enter it; see [`Host::admit`].
    pub(super) fn work(&self) -> &Path {
        &self.work
    }

    /// Whether the processes of a shim that was killed are known to have ended.
    pub(super) fn has_supervisor(&self) -> bool {
        self.supervisor.get().is_some_and(Supervisor::is_running)
    }

    /// An idle shim, or a new one. An idle one may have been killed.
    pub(super) async fn shim(&self) -> io::Result<Shim> {
        let idle = self.idle.lock().pop();
        match (idle, self.supervisor.get()) {
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

/// Lets other users enter the directory. One that belongs to another user stays as it is.
fn open_to_others(directory: &Path) -> io::Result<()> {
    let found = fs::metadata(directory)?.permissions();
    if found.mode() & ENTER == ENTER {
        return Ok(());
    }
    match fs::set_permissions(directory, Permissions::from_mode(found.mode() & 0o7777 | ENTER)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        result => result,
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
            // A link is not followed: what it leads to is not the server's.
            let is_directory = fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
            let removed = if is_directory { remove_all_owned(path) } else { fs::remove_file(path) };
            if let Err(error) = removed {
                tracing::warn!(path = %path.display(), %error, "failed to remove working directories of an earlier server");
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("work-cleaner".to_owned()).spawn(remove) {
        tracing::warn!(%error, "failed to start a thread that removes working directories of an earlier server");
    }
}
