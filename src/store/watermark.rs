//! The last revision that a database file is known to contain, kept in a small file beside it.
//!
//! SQLite takes a corrupt frame of its write-ahead log for the end of the log, so a flipped byte could hide the newest
//! commits. The watermark detects that. It is rewritten in place after each commit and not synced: this costs one
//! small write, survives a crash of the server, and after a power failure the watermark is older but never wrong.
//! It is synced only together with a sync that happens anyway.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::error::StoreError;
use super::filesystem::sync_directory;
use super::paths::{wal_path, watermark_path};
use super::record::checksum;
use crate::files::open_private;
use crate::telemetry::fatal;

const MAGIC: [u8; 8] = *b"LSMARK01";
const BYTES: usize = 52;
/// Changes whenever the machine boots.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The content of a watermark file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WatermarkRecord {
    /// Revisions up to here were synced to the disk.
    pub(super) synced: u64,
    /// Revisions up to here were written; only a crash of the machine can have lost them.
    written: u64,
    /// Commits were written without a sync, so a power failure may have torn several of them.
    pub(super) unsynced: bool,
    /// A sync has failed: the operating system may take pages for clean that are not on the disk.
    sync_failed: bool,
    boot: [u8; 16],
}

impl WatermarkRecord {
    /// Reads the watermark of a database file. A missing or corrupt watermark reads as revision 0, which any file
    /// satisfies.
    pub(super) fn read(file: &Path) -> Result<Self, StoreError> {
        let path = watermark_path(file);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|mut watermark| watermark.read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(StoreError::io("read", &path, &error)),
        }
        let record = Self::decode(&bytes);
        if record.is_none() {
            let (path, file) = (path.display(), file.display());
            tracing::warn!("`{path}` is corrupt and is replaced; a lost end of `{file}` cannot be detected this time");
        }
        Ok(record.unwrap_or_default())
    }

    /// Checks that a file whose last revision is `end` has not lost its end.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the file once contained later revisions.
    pub(super) fn check(&self, file: &Path, end: u64) -> Result<(), StoreError> {
        let least = if self.same_boot() { self.written.max(self.synced) } else { self.synced };
        if end >= least {
            return Ok(());
        }
        let watermark = watermark_path(file);
        let detail = format!(
            "the file ends before this revision, but according to `{}` it contained revision {least}: the end of the file \
             or of its log is lost (if you have just restored a backup here, remove the watermark)",
            watermark.display()
        );
        Err(StoreError::corrupt(file, format!("revision {}", end + 1), detail))
    }

    fn same_boot(&self) -> bool {
        self.boot != [0; 16] && self.boot == boot_id()
    }

    fn encode(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..24].copy_from_slice(&self.boot);
        bytes[24..32].copy_from_slice(&self.synced.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.written.to_le_bytes());
        bytes[40] = u8::from(self.unsynced) | u8::from(self.sync_failed) << 1;
        let crc = checksum(&[&bytes[..48]]);
        bytes[48..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_at_checked(48)?;
        if crc != checksum(&[body]).to_le_bytes() || body[..8] != MAGIC {
            return None;
        }
        let number = |at: usize| body[at..at + 8].try_into().map(u64::from_le_bytes).ok();
        let boot = body[8..24].try_into().ok()?;
        let [unsynced, sync_failed] = [1, 2].map(|flag| body[40] & flag != 0);
        Some(Self { synced: number(24)?, written: number(32)?, unsynced, sync_failed, boot })
    }
}

/// The watermark of a file that is being written.
pub(super) struct Watermark {
    file: File,
    path: PathBuf,
    /// The write-ahead log of the database file.
    wal: PathBuf,
    /// Locked while it is written to the file, so that an older record never replaces a newer one.
    record: Mutex<WatermarkRecord>,
    written: AtomicU64,
    write_failure_logged: AtomicBool,
}

impl Watermark {
    /// Syncs the log of a file whose last revision is `end`, and writes a watermark for it. `previous` is the record
    /// that was found.
    pub(super) fn create(database: &Path, end: u64, previous: WatermarkRecord) -> Result<Self, StoreError> {
        let (path, wal) = (watermark_path(database), wal_path(database));
        let has_log = std::fs::metadata(&wal).is_ok_and(|log| log.len() > 0);
        let create = || {
            if has_log && previous.sync_failed && previous.same_boot() {
                write_again(&wal)?;
            } else if has_log {
                File::open(&wal)?.sync_all()?;
            }
            let file = open_private(&path)?;
            // Pages that are no longer in the log were synced when they were copied into the database file.
            let unsynced = previous.unsynced && has_log;
            let record = WatermarkRecord { synced: end, written: end, unsynced, sync_failed: false, boot: boot_id() };
            file.write_all_at(&record.encode(), 0)?;
            file.set_len(BYTES as u64)?;
            file.sync_all()?;
            Ok((file, record))
        };
        let (file, record) = create().map_err(|error| StoreError::io("write", &path, &error))?;
        path.parent().map_or(Ok(()), sync_directory)?;
        let (record, written) = (Mutex::new(record), AtomicU64::new(end));
        Ok(Self { file, path, wal, record, written, write_failure_logged: AtomicBool::new(false) })
    }

    /// Records that revisions up to `end` are written, and synced if `synced`. Does not wait for the disk.
    pub(super) fn advance(&self, end: u64, synced: bool) {
        self.written.store(end, Ordering::Release);
        let mut record = self.record.lock();
        record.written = end;
        if synced {
            record.synced = end;
        }
        self.store(&record);
    }

    /// Must be called before a commit is written without a sync. Returns false when that cannot be recorded; then the
    /// commit must be synced.
    pub(super) fn mark_unsynced(&self) -> bool {
        let mut record = self.record.lock();
        if record.unsynced {
            return true;
        }
        record.unsynced = true;
        record.unsynced = self.store(&record) && self.file.sync_data().is_ok();
        record.unsynced
    }

    /// Records in memory that revisions up to `end` are written; [`Watermark::sync`] writes it to the file.
    pub(super) fn set_written(&self, end: u64) {
        self.written.store(end, Ordering::Release);
    }

    /// Syncs the log and then the watermark. Must be called before pages are copied from the log into the database
    /// file, so that a log that has lost its end never meets a database file with newer pages.
    ///
    /// # Errors
    /// If the watermark cannot be written or synced; then no pages may be copied. Ends the process if the log cannot be
    /// synced.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.sync_wal()?;
        self.file.sync_data().map_err(|error| StoreError::io("sync", &self.path, &error))
    }

    /// Syncs the log, unless every recorded revision is synced already. Ends the process if that fails.
    pub(super) fn sync_wal_if_behind(&self) -> Result<(), StoreError> {
        let behind = {
            let record = self.record.lock();
            record.written > record.synced
        };
        if behind { self.sync_wal() } else { Ok(()) }
    }

    fn sync_wal(&self) -> Result<(), StoreError> {
        let written = self.written.load(Ordering::Acquire);
        let log = File::open(&self.wal).map_err(|error| StoreError::io("open", &self.wal, &error))?;
        if let Err(error) = log.sync_data() {
            self.exit_if_sync_failed(&StoreError::SyncFailed { path: self.wal.clone(), detail: error.to_string() });
        }
        let mut record = self.record.lock();
        record.written = record.written.max(written);
        record.synced = record.synced.max(written);
        self.file.write_all_at(&record.encode(), 0).map_err(|error| StoreError::io("write", &self.path, &error))
    }

    /// Ends the process after a failed sync of the database file or its log: the next sync would succeed although what was
    /// written before is lost, so that nothing written after it can be relied on.
    pub(super) fn exit_if_sync_failed(&self, error: &StoreError) {
        if matches!(error, StoreError::SyncFailed { .. }) {
            self.mark_sync_failed();
            fatal::exit(error);
        }
    }

    /// Makes the next opening write the log again. Must be called before a process ends because of a failed sync.
    pub(super) fn mark_sync_failed(&self) {
        let mut record = self.record.lock();
        record.sync_failed = true;
        self.store(&record);
    }

    fn store(&self, record: &WatermarkRecord) -> bool {
        let stored = self.file.write_all_at(&record.encode(), 0);
        if let Err(error) = &stored
            && !self.write_failure_logged.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(path = %self.path.display(), %error, "failed to write the watermark; the next write retries");
        }
        stored.is_ok()
    }
}

/// Writes a file to the disk again. After a failed sync, the operating system returns pages that are not on the disk and
/// takes them for clean; a sync only writes them once they have been changed.
fn write_again(path: &Path) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let (mut buffer, mut at) = (vec![0; 1 << 20], 0);
    loop {
        let length = file.read_at(&mut buffer, at)?;
        if length == 0 {
            return file.sync_all();
        }
        file.write_all_at(&buffer[..length], at)?;
        at += length as u64;
    }
}

fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
    uuid::Uuid::parse_str(text.trim()).map(uuid::Uuid::into_bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watermark_records_what_was_written_and_synced() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("some.db");
        assert_eq!(WatermarkRecord::read(&file).unwrap(), WatermarkRecord::default());
        let watermark = Watermark::create(&file, 7, WatermarkRecord::default()).unwrap();
        watermark.advance(9, true);
        assert!(watermark.mark_unsynced());
        watermark.advance(11, false);
        let record = WatermarkRecord::read(&file).unwrap();
        assert_eq!((record.synced, record.written, record.unsynced), (9, 11, true));
        record.check(&file, 11).unwrap();
        let error = record.check(&file, 10).unwrap_err().to_string();
        assert!(error.contains("some.db") && error.contains("revision 11") && error.contains("some.mark"), "{error}");
    }

    #[test]
    fn a_flipped_byte_of_a_watermark_is_detected() {
        let record = WatermarkRecord { synced: 9, written: 11, unsynced: true, sync_failed: true, boot: [3; 16] };
        assert_eq!(WatermarkRecord::decode(&record.encode()), Some(record));
        for at in 0..BYTES {
            let mut bytes = record.encode();
            bytes[at] ^= 0x10;
            assert_eq!(WatermarkRecord::decode(&bytes), None, "byte {at}");
        }
    }

    #[test]
    fn after_a_failed_sync_the_log_is_written_again_unchanged_and_the_failure_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let (file, log) = (directory.path().join("some.db"), directory.path().join("some.db-wal"));
        let content: Vec<u8> = (0..3_u32 << 20).map(|byte| (byte % 251) as u8).collect();
        std::fs::write(&log, &content).unwrap();
        let watermark = Watermark::create(&file, 7, WatermarkRecord::default()).unwrap();
        watermark.mark_sync_failed();
        let record = WatermarkRecord::read(&file).unwrap();
        assert!(record.sync_failed && record.same_boot());
        Watermark::create(&file, 7, record).unwrap();
        assert_eq!(std::fs::read(&log).unwrap(), content);
        assert!(!WatermarkRecord::read(&file).unwrap().sync_failed);
    }

    #[test]
    fn after_a_power_failure_only_synced_revisions_are_required() {
        let record = WatermarkRecord { synced: 9, written: 11, boot: [3; 16], ..WatermarkRecord::default() };
        record.check(Path::new("some.db"), 9).unwrap();
        record.check(Path::new("some.db"), 8).unwrap_err();
    }
}
