//! The directory in which a program leaves its artifacts.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};
use tokio::task::spawn_blocking;

use super::account::Account;
use super::remove::remove_owned;
use super::sys::FileRights;
use crate::artifacts::{ArtifactError, AttemptArtifacts};
use crate::files::{create_new_private_directory, random_name};

/// It belongs to the user of the handler, is empty at first, and is removed when this is dropped. The next server removes what a
/// crash leaves.
pub(super) struct ArtifactDirectory {
    path: PathBuf,
    account: Option<Account>,
}

impl ArtifactDirectory {
    /// # Errors
    /// As the system calls.
    pub(super) async fn create(work: &Path, account: Option<Account>) -> io::Result<Self> {
        let work = work.to_owned();
        let create = move || {
            let path = work.join(random_name()?);
            create_new_private_directory(&path)?;
            let created = Self { path, account };
            if let Some(Account { uid, gid }) = account {
                chown(&created.path, Some(uid), Some(gid))?;
            }
            Ok(created)
        };
        spawn_blocking(create).await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds the files in the directory to the artifacts. They are open then, so that the directory can be removed.
    ///
    /// # Errors
    /// [`ArtifactError`] if there is something else in it, or a limit is exceeded.
    pub(super) async fn collect(self, artifacts: AttemptArtifacts) -> Result<(), ArtifactError> {
        let collect = move || {
            let listed = |source| ArtifactError::Io { action: "list the directory of", name: String::new(), source };
            let _rights = self.account.map(FileRights::of);
            for entry in fs::read_dir(&self.path).map_err(listed)? {
                self.add(entry.map_err(listed)?.file_name(), &artifacts)?;
            }
            Ok(())
        };
        spawn_blocking(collect).await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    fn add(&self, name: OsString, artifacts: &AttemptArtifacts) -> Result<(), ArtifactError> {
        // A name that is no text has characters in it that are not allowed.
        let shown = name.to_string_lossy().into_owned();
        // A pipe would block, and a link could lead to a file of the server.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match open(self.path.join(&name), flags, Mode::empty()) {
            Ok(file) => file,
            Err(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => {
                return Err(ArtifactError::NotAFile { name: shown });
            }
            Err(error) => return Err(ArtifactError::Io { action: "open", name: shown, source: error.into() }),
        };
        let name = name.into_string().map_err(|_| ArtifactError::NotUtf8 { name: shown })?;
        artifacts.add(&name, File::from(file))
    }
}

impl Drop for ArtifactDirectory {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        let remove = move || {
            if let Err(error) = remove_owned(&path) {
                tracing::warn!(%error, "failed to remove the directory of the artifacts of an attempt");
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}
