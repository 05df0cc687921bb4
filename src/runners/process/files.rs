//! The payload, the results of the parents, and the result of an attempt as files in its directory.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};

use super::sys::FileRights;
use super::wire::{self, Channel, HEADER, PARENTS_DIRECTORY, StartOrder};
use crate::files::create_new_private_directory;

/// Bytes of a result that are sent at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// All are used with the rights of the user that the program runs as.
pub(super) struct AttemptFiles<'a> {
    pub(super) directory: &'a Path,
    pub(super) start: &'a StartOrder<'a>,
}

impl AttemptFiles<'_> {
    /// Writes the payload, if it goes to a file, and the results of parents.
    ///
    /// # Errors
    /// As the system calls.
    pub(super) fn write(&self) -> io::Result<()> {
        if let Some(name) = self.start.payload_file {
            self.create(&self.path(name.to_bytes()))?.write_all(self.start.payload)?;
        }
        if self.start.parents.is_empty() {
            return Ok(());
        }
        let directory = self.path(PARENTS_DIRECTORY.as_bytes());
        {
            let _rights = self.start.account.map(FileRights::of);
            create_new_private_directory(&directory)?;
        }
        let write = |(name, content): &(&OsStr, &[u8])| self.create(&directory.join(name))?.write_all(content);
        self.start.parents.iter().try_for_each(write)
    }

    /// Reads the result, if it comes from a file, and sends it as frames, up to one byte beyond the limit.
    ///
    /// # Errors
    /// As the system calls, and for what is not a regular file.
    pub(super) fn read_result(&self, mut send: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let Some(name) = self.start.result_file else { return Ok(()) };
        // A pipe would block, and a link could lead to a file of the server.
        let file = self.open(&self.path(name.to_bytes()), OFlags::RDONLY | OFlags::NONBLOCK)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut rest = file.take(self.start.result_bytes_max.saturating_add(1));
        let mut frame = vec![0; HEADER + CHUNK_BYTES];
        loop {
            let length = rest.read(&mut frame[HEADER..])?;
            if length == 0 {
                return Ok(());
            }
            frame[..HEADER].copy_from_slice(&wire::header(Channel::Result as u8, length));
            send(&frame[..HEADER + length])?;
        }
    }

    fn path(&self, name: &[u8]) -> PathBuf {
        self.directory.join(OsStr::from_bytes(name))
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        self.open(path, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)
    }

    fn open(&self, path: &Path, flags: OFlags) -> io::Result<File> {
        let _rights = self.start.account.map(FileRights::of);
        let file: OwnedFd = open(path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)?;
        Ok(file.into())
    }
}
