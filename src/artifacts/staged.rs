//! A file on its way to the store, which has no name until it is complete.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use ring::digest::{Context, SHA256};
use rustix::fs::{AtFlags, CWD, linkat};

use crate::files::{WriteBack, create_private_directory, random_name, remove_if_present};

const FILE_MODE: u32 = 0o600;
/// Directories from that of an attempt to that of all objects.
const DIRECTORIES: usize = 4;
/// The cleaner can remove an empty directory before the file is in it.
const LINK_TRIES: usize = 5;

/// Only this server can write to it, since it never had a name. All calls block.
pub(super) struct StagedFile {
    file: File,
    hash: Box<Context>,
    bytes: u64,
    /// `None` if it is copied elsewhere in the end.
    write_back: Option<WriteBack>,
    is_linkable: bool,
}

impl StagedFile {
    /// Creates a file in a directory, which is created if it is missing. Its space is free again once it is closed without a name.
    pub fn create(directory: &Path, is_copied: bool) -> io::Result<Self> {
        let create = || create_unnamed(directory);
        let created = match create() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_private_directory(directory)?;
                create()
            }
            created => created,
        };
        let is_linkable = created.is_ok() && !is_copied;
        let file = match created {
            // Some file systems, such as NFS, have no files without names.
            Err(error) if is_unsupported(&error) => create_and_remove(directory)?,
            created => created?,
        };
        let write_back = (!is_copied).then(WriteBack::default);
        Ok(Self { file, hash: Box::new(Context::new(&SHA256)), bytes: 0, write_back, is_linkable })
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The SHA-256 of its content.
    pub fn sha256(&self) -> [u8; 32] {
        sha256_of(&self.hash)
    }

    /// Whether [`StagedFile::link`] can succeed.
    pub fn is_linkable(&self) -> bool {
        self.is_linkable
    }

    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    pub fn into_file(self) -> File {
        self.file
    }

    /// Gives it a name, in place of a file that has it.
    ///
    /// # Errors
    /// Also if the path is on another file system. The file can be copied then.
    pub fn link(&self, path: &Path) -> io::Result<()> {
        for _ in 1..LINK_TRIES {
            match self.link_new(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    create_private_directory(path.parent().unwrap_or(path))?;
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return self.replace(path),
                result => return result,
            }
        }
        self.link_new(path)
    }

    /// Makes the name durable.
    pub fn sync_name(&self, path: &Path) -> io::Result<()> {
        // The number of its names has changed.
        self.file.sync_all()?;
        path.ancestors().skip(1).take(DIRECTORIES).try_for_each(|directory| File::open(directory)?.sync_all())
    }

    fn link_new(&self, path: &Path) -> io::Result<()> {
        let open = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        Ok(linkat(CWD, open, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
    }

    /// The second name is that of an unfinished upload, and no other file has its number.
    fn replace(&self, path: &Path) -> io::Result<()> {
        let mut second = path.as_os_str().to_owned();
        second.push(format!("#{}", self.file.metadata()?.ino()));
        self.link_new(second.as_ref())?;
        std::fs::rename(&second, path).inspect_err(|_| drop(remove_if_present(second.as_ref())))
    }

    #[cfg(test)]
    pub fn inode(&self) -> u64 {
        self.file.metadata().unwrap().ino()
    }
}

impl fmt::Debug for StagedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StagedFile").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Write for StagedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        if let Some(write_back) = &mut self.write_back {
            write_back.advance(&self.file, self.bytes)?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The SHA-256 of what was hashed.
pub(super) fn sha256_of(hash: &Context) -> [u8; 32] {
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(hash.clone().finish().as_ref());
    sha256
}

fn create_unnamed(directory: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).mode(FILE_MODE).custom_flags(libc::O_TMPFILE).open(directory)
}

fn create_and_remove(directory: &Path) -> io::Result<File> {
    let path = directory.join(random_name()?);
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(&path)?;
    remove_if_present(&path)?;
    Ok(file)
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL | libc::ENOSYS))
}
