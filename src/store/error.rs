//! The error of every store operation.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use super::paths::PROJECTION;
use crate::model::Revision;

/// Why a store operation failed. Each message names the file and what to do about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// A record differs from what was written, or is missing.
    #[error("`{}` is corrupt at {location}: {detail}; {}", path.display(), remedy(path))]
    Corrupt {
        path: PathBuf,
        /// Commit, row or byte offset.
        location: String,
        detail: String,
    },
    /// The structure of a file is broken, so any record in it may be unreadable.
    #[error("`{}` is corrupt: {detail}; {}", path.display(), remedy(path))]
    Malformed { path: PathBuf, detail: String },
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
    #[error("no space left on the disk for `{}`; free some space", path.display())]
    Full { path: PathBuf },
    /// A sync of the file or of its log failed. The operating system may have dropped what was written before, and a later
    /// sync would not report that: the server must end.
    #[error("failed to sync `{}`: {detail}; what was written last may be lost; check the disk and the system log", path.display())]
    SyncFailed { path: PathBuf, detail: String },
    /// Another server has opened the journal since.
    #[error("`{}` now belongs to another server (epoch {owner}; that of this server is {epoch})", path.display())]
    Fenced { path: PathBuf, epoch: u64, owner: u64 },
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
    /// Whether stored bytes are wrong, so that trying again cannot succeed. After any other error it can.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::Malformed { .. } | Self::Incompatible { .. })
    }

    /// What is damaged, without the path and the remedy of the message.
    pub(super) fn detail(&self) -> String {
        match self {
            Self::Corrupt { location, detail, .. } => format!("corrupt at {location}: {detail}"),
            Self::Malformed { detail, .. } => format!("corrupt: {detail}"),
            other => other.to_string(),
        }
    }

    pub(super) fn corrupt(path: &Path, location: impl Into<String>, detail: impl Display) -> Self {
        Self::Corrupt { path: path.to_owned(), location: location.into(), detail: detail.to_string() }
    }

    pub(super) fn malformed(path: &Path, detail: impl Display) -> Self {
        Self::Malformed { path: path.to_owned(), detail: detail.to_string() }
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

/// What to do about a corrupt file.
fn remedy(path: &Path) -> &'static str {
    if path.ends_with(PROJECTION) {
        "start a server in its directory to rebuild it from the journal"
    } else {
        "restore it from a backup"
    }
}
