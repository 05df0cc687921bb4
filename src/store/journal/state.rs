//! What the journal's handle and its threads share.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::store::watermark::Watermark;

pub(super) struct JournalState {
    pub(super) path: PathBuf,
    /// Revisions up to here are deleted.
    pub(super) trimmed: AtomicU64,
    /// The last durable revision.
    pub(super) end: AtomicU64,
    pub(super) watermark: Watermark,
    /// Keeps other servers out of the directory while any thread of the journal runs.
    pub(super) _lock: Option<Arc<File>>,
}
