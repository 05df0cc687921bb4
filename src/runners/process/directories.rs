//! The working directories of the attempts of one shim.

use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::process::getpid;

use super::remove::remove_tree;

/// No other user may read a working directory.
pub(super) const DIRECTORY_MODE: u32 = 0o700;

pub(super) struct Directories<'a> {
    work: &'a Path,
    created: u64,
    /// An unchanged one is used again: creating a directory can cost more than starting a process.
    empty: Option<PathBuf>,
}

impl<'a> Directories<'a> {
    pub(super) fn new(work: &'a Path) -> Self {
        Self { work, created: 0, empty: None }
    }

    pub(super) fn take(&mut self) -> io::Result<PathBuf> {
        if let Some(path) = self.empty.take() {
            return Ok(path);
        }
        let path = self.work.join(format!("{}-{}", getpid().as_raw_nonzero(), self.created));
        self.created += 1;
        DirBuilder::new().mode(DIRECTORY_MODE).create(&path)?;
        Ok(path)
    }

    /// Removes the directory with its contents, or keeps an unchanged one.
    pub(super) fn put_back(&mut self, path: PathBuf) -> io::Result<()> {
        if is_unchanged(&path) {
            self.empty = Some(path);
            return Ok(());
        }
        remove_tree(&path)
    }
}

impl Drop for Directories<'_> {
    fn drop(&mut self) {
        if let Some(path) = &self.empty {
            // If that fails, the next server removes it.
            let _ = fs::remove_dir(path);
        }
    }
}

fn is_unchanged(path: &Path) -> bool {
    let same = |file: Metadata| file.is_dir() && file.permissions().mode() & 0o7777 == DIRECTORY_MODE;
    fs::symlink_metadata(path).is_ok_and(same) && fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}
