//! The error of every store operation.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use crate::model::Revision;

/// Why a store operation failed. Each message names the file and what to do about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Stored bytes differ from what was written.
    #[error("`{}` is corrupt at {location}: {detail}; restore it from a backup", path.display())]
    Corrupt {
        path: PathBuf,
        /// Commit, row or byte offset.
        location: String,
        detail: String,
    },
    /// The projection is missing or corrupt, and the journal has been trimmed, so it cannot restore every task.
    #[error(
        "`{}` {problem} and cannot be rebuilt: the journal starts after revision {trimmed}, so tasks submitted before, \
         including unfinished ones, would be lost; restore a backup, or run `lineshaft store rebuild {}` to accept \
         the loss",
        path.display(), path.parent().unwrap_or(path).display()
    )]
    ProjectionLost {
        path: PathBuf,
        /// Such as `is missing`.
        problem: String,
        /// The last revision that was trimmed from the journal.
        trimmed: Revision,
    },
    /// The file belongs to another program, or to a later version of this one.
    #[error("`{}` cannot be used: {detail}", path.display())]
    Incompatible {
        path: PathBuf,
        /// What was found and what to do.
        detail: String,
    },
    /// Another process holds the lock of the directory.
    #[error("`{}` is in use by another server; stop it or choose another data directory", path.display())]
    Locked { path: PathBuf },
    /// The disk is full.
    #[error("no space left on the disk for `{}`; free some space, then writing resumes by itself", path.display())]
    Full { path: PathBuf },
    /// An operating-system or SQLite call failed.
    #[error("failed to {action} `{}`: {detail}", path.display())]
    Io {
        /// Such as `open` or `append to`.
        action: &'static str,
        path: PathBuf,
        /// The cause and what to do.
        detail: String,
    },
    /// The requested events have been trimmed.
    #[error("events up to revision {oldest} have been trimmed from the journal")]
    Compacted {
        /// The smallest revision that a read may start after.
        oldest: Revision,
    },
    /// The store's thread has ended: after a panic, or during shutdown.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    pub(super) fn corrupt(path: &Path, location: impl Into<String>, detail: impl Display) -> Self {
        Self::Corrupt { path: path.to_owned(), location: location.into(), detail: detail.to_string() }
    }

    pub(super) fn io(action: &'static str, path: &Path, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::StorageFull {
            return Self::Full { path: path.to_owned() };
        }
        Self::Io {
            action,
            path: path.to_owned(),
            detail: format!("{error}; the server needs write access to its data directory"),
        }
    }
}
