//! A file that an attempt writes, before it is an artifact.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::ArtifactError;
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

/// A new artifact. It can be written and read anywhere, as a file; put a `BufWriter` around it for small writes. It is kept with
/// what it contains when the attempt completes, whether or not this was dropped before. All calls block.
#[derive(Debug)]
pub struct ArtifactFile {
    pub(super) file: File,
    pub(super) name: ArtifactName,
    pub(super) budget: Arc<Budget>,
    pub(super) position: u64,
    /// Bytes that are counted in the budget.
    pub(super) length: u64,
}

impl Write for ArtifactFile {
    /// # Errors
    /// As the system call, and [`ArtifactError`] beyond a limit.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let end = self.position.saturating_add(bytes.len() as u64);
        let limit = self.budget.limits.file_bytes;
        if end > limit {
            return Err(ArtifactError::FileTooLarge { name: self.name.clone(), limit }.into());
        }
        let growth = end.saturating_sub(self.length);
        self.budget.take(growth)?;
        let written = self.file.write(bytes).inspect_err(|_| self.budget.give_back(growth))?;
        self.position += written as u64;
        let length = self.length.max(self.position);
        self.budget.give_back(self.length + growth - length);
        self.length = length;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for ArtifactFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.position = self.file.seek(position)?;
        Ok(self.position)
    }
}

impl Read for ArtifactFile {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(bytes)?;
        self.position += read as u64;
        Ok(read)
    }
}
