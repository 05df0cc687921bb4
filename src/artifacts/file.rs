//! A file that an attempt writes, before it is an artifact.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::error::ArtifactError;
use super::staged::StagedFile;
use crate::model::{ArtifactLimits, ArtifactName};

/// The bytes of all files of an attempt.
#[derive(Debug)]
pub(super) struct Budget {
    pub(super) limits: ArtifactLimits,
    used: AtomicU64,
}

impl Budget {
    pub(super) fn new(limits: ArtifactLimits, used: u64) -> Self {
        Self { limits, used: AtomicU64::new(used) }
    }

    /// Counts bytes that a file is about to have more.
    pub(super) fn take(&self, bytes: u64) -> Result<(), ArtifactError> {
        let limit = self.limits.task_bytes;
        let taken = |used: u64| used.checked_add(bytes).filter(|used| *used <= limit);
        let result = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken);
        result.map(drop).map_err(|_| ArtifactError::TaskTooLarge { limit })
    }

    pub(super) fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A file of an attempt; `None` once the attempt has completed.
pub(super) type SharedFile = Arc<Mutex<Option<StagedFile>>>;

/// A new artifact, which is written from start to end; put a `BufWriter` around it for small writes. It is kept with what it contains
/// when the attempt completes, whether or not this was dropped before. All calls block.
#[derive(Debug)]
pub struct ArtifactFile {
    pub(super) file: SharedFile,
    pub(super) name: ArtifactName,
    pub(super) budget: Arc<Budget>,
}

impl Write for ArtifactFile {
    /// # Errors
    /// As the system call, and [`ArtifactError`] beyond a limit.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut file = self.file.lock();
        let Some(file) = &mut *file else { return Err(io::Error::other("the attempt has ended")) };
        let (growth, limit) = (bytes.len() as u64, self.budget.limits.file_bytes);
        if file.bytes().saturating_add(growth) > limit {
            return Err(ArtifactError::FileTooLarge { name: self.name.clone(), limit }.into());
        }
        self.budget.take(growth)?;
        let written = file.write(bytes).inspect_err(|_| self.budget.give_back(growth))?;
        self.budget.give_back(growth - written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
