//! The working directories of the attempts of one shim.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::account::Account;
use super::remove::remove_owned;
use super::sys::FileRights;
use crate::files::{DIRECTORY_MODE, create_new_private_directory, random_name};

/// Each attempt has a directory with a name of its own that cannot be guessed.
///
/// An unchanged directory is renamed for the next attempt of the same owner, because removing and creating one can take
/// longer than starting a process. When an attempt has ended, none of its processes is left in the directory. But
/// another program, to which the attempt has passed an open file, may still hold it. That program gets nothing that
/// attempts of this owner could not pass to it directly. For another owner the directory is not used again.
pub(super) struct Directories<'a> {
    work: &'a Path,
    /// With its owner.
    empty: Option<(PathBuf, Box<[u8]>)>,
}

impl<'a> Directories<'a> {
    pub(super) fn new(work: &'a Path) -> Self {
        Self { work, empty: None }
    }

    /// Returns a directory for an attempt of this owner: a handler and a namespace. It belongs to the user of the handler.
    pub(super) fn take(&mut self, owner: &[u8], account: Option<Account>) -> io::Result<PathBuf> {
        let path = self.work.join(random_name()?);
        match self.empty.take() {
            Some((empty, last)) if *last == *owner => fs::rename(empty, &path)?,
            other => {
                if let Some((empty, _)) = other {
                    fs::remove_dir(empty)?;
                }
                create_new_private_directory(&path)?;
                if let Some(Account { uid, gid }) = account {
                    chown(&path, Some(uid), Some(gid))?;
                }
            }
        }
        Ok(path)
    }

    /// Removes the directory with its contents, or keeps an unchanged one.
    pub(super) fn put_back(&mut self, path: PathBuf, owner: &[u8]) -> io::Result<()> {
        if is_unchanged(&path) {
            self.empty = Some((path, owner.into()));
            return Ok(());
        }
        remove_owned(&path)
    }
}

impl Drop for Directories<'_> {
    fn drop(&mut self) {
        if let Some((path, _)) = &self.empty {
            // If that fails, the next server removes it.
            let _ = fs::remove_dir(path);
        }
    }
}

fn is_unchanged(path: &Path) -> bool {
    let same = |file: &Metadata| file.is_dir() && file.permissions().mode() & 0o7777 == DIRECTORY_MODE;
    let Some(found) = fs::symlink_metadata(path).ok().filter(same) else { return false };
    let _rights = FileRights::of_owner(&found);
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_directory_is_renamed_for_the_same_owner_and_replaced_for_another() {
        let work = tempfile::tempdir().unwrap();
        let mut directories = Directories::new(work.path());
        let first = directories.take(b"a", None).unwrap();
        let held = File::open(&first).unwrap();
        let is_linked = || held.metadata().unwrap().nlink() > 0;
        directories.put_back(first.clone(), b"a").unwrap();
        let second = directories.take(b"a", None).unwrap();
        assert!(second != first && !first.exists() && is_linked());
        assert_eq!(second.file_name().unwrap().len(), 32);
        directories.put_back(second, b"a").unwrap();
        let third = directories.take(b"b", None).unwrap();
        assert!(!is_linked(), "another owner got the directory");
        assert_eq!(fs::metadata(&third).unwrap().permissions().mode() & 0o7777, 0o700);
        directories.put_back(third, b"b").unwrap();
        drop(directories);
        assert_eq!(fs::read_dir(work.path()).unwrap().count(), 0);
    }
}
