//! How far a file of the store is known to have got, kept in a few bytes beside it.
//!
//! SQLite takes a damaged frame of its write-ahead log for the log's end, so a flipped byte could hide
//! the newest commits. The mark is rewritten in place after each of them and not synced: that costs one
//! small write, survives the death of the server, and after a loss of power it is only older, never
//! wrong. Where a sync is done beside the writer anyway, the mark is synced too.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::StoreError;
use super::open::io_fault;
use super::record::checksum;
use super::wal::log_of;

const MAGIC: [u8; 8] = *b"LSMARK01";
const BYTES: usize = 52;
/// Differs after every start of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What a mark says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Everything up to here was on the disk.
    synced: u64,
    /// Everything up to here was written: it is there unless the machine went down.
    written: u64,
    /// Commits were written that were not synced, so a loss of power may take several.
    pub(super) loose: bool,
    boot: [u8; 16],
}

impl Known {
    /// The mark of a file, as the last server left it; empty when there is none.
    pub(super) fn read(file: &Path) -> Result<Self, StoreError> {
        let path = place(file);
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|mut mark| mark.read_to_end(&mut bytes));
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(io_fault("read", &path, &error)),
        }
        let known = Self::decode(&bytes);
        if known.is_none() {
            let (path, file) = (path.display(), file.display());
            tracing::warn!("`{path}` is damaged and begun anew; the end of `{file}` cannot be compared with it");
        }
        Ok(known.unwrap_or_default())
    }

    /// Whether a file that ends at this revision has everything.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it has less than it once had.
    pub(super) fn check(&self, file: &Path, end: u64) -> Result<(), StoreError> {
        let least = if self.same_boot() { self.written.max(self.synced) } else { self.synced };
        if end >= least {
            return Ok(());
        }
        let mark = place(file);
        Err(StoreError::Corrupt {
            path: file.to_owned(),
            place: format!("revision {}", end + 1),
            detail: format!(
                "it ends here, but according to `{}` it had reached {least}: the end of the file or of its log is \
                 lost (if you have put a back-up here already, remove the mark)",
                mark.display()
            ),
        })
    }

    #[cfg(test)]
    pub(super) fn synced(&self) -> u64 {
        self.synced
    }

    fn same_boot(&self) -> bool {
        self.boot != [0; 16] && self.boot == boot()
    }

    fn encode(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..24].copy_from_slice(&self.boot);
        bytes[24..32].copy_from_slice(&self.synced.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.written.to_le_bytes());
        bytes[40] = self.loose.into();
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
        Some(Self { synced: number(24)?, written: number(32)?, loose: body[40] != 0, boot })
    }
}

/// The mark of a file that is being written.
pub(super) struct Mark {
    file: File,
    path: PathBuf,
    /// The log of the marked file.
    log: PathBuf,
    /// One writer at a time, so that an older state never lands on a newer one.
    now: Mutex<Known>,
    written: AtomicU64,
    complained: AtomicBool,
}

impl Mark {
    /// Begins a mark for a file that ends at this revision, all of which is made durable.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Full`].
    pub(super) fn begin(file: &Path, end: u64, known: Known) -> Result<Self, StoreError> {
        let (path, log) = (place(file), log_of(file));
        let had_log = std::fs::metadata(&log).is_ok_and(|log| log.len() > 0);
        let begin = || {
            if had_log {
                File::open(&log)?.sync_all()?;
            }
            let mark = File::options().create(true).truncate(false).write(true).open(&path)?;
            // What is not in the log any more was synced on its way out of it.
            let now = Known { synced: end, written: end, loose: known.loose && had_log, boot: boot() };
            mark.write_all_at(&now.encode(), 0)?;
            mark.set_len(BYTES as u64)?;
            mark.sync_all()?;
            if let Some(directory) = path.parent() {
                File::open(directory)?.sync_all()?;
            }
            Ok((mark, now))
        };
        let (mark, now) = begin().map_err(|error| io_fault("write", &path, &error))?;
        let (now, written) = (Mutex::new(now), AtomicU64::new(end));
        Ok(Self { file: mark, path, log, now, written, complained: AtomicBool::new(false) })
    }

    /// Notes that everything up to here is written, and synced if so. Does not wait for the disk.
    pub(super) fn note(&self, end: u64, synced: bool) {
        self.written.store(end, Ordering::Release);
        let mut now = self.now.lock();
        now.written = end;
        if synced {
            now.synced = end;
        }
        self.store(&now);
    }

    /// To be called before commits are written that are not synced; false when that cannot be noted,
    /// and they have to be synced.
    pub(super) fn loosen(&self) -> bool {
        let mut now = self.now.lock();
        if now.loose {
            return true;
        }
        now.loose = true;
        now.loose = self.store(&now) && self.file.sync_data().is_ok();
        now.loose
    }

    /// Only the memory of what was written; to be made durable by [`Mark::settle`].
    pub(super) fn remember(&self, end: u64) {
        self.written.store(end, Ordering::Release);
    }

    /// Makes the log durable, and then the knowledge of it: to be called before pages are copied from
    /// the log into the file, so that a log whose end is lost never meets pages that are newer.
    ///
    /// # Errors
    /// The system's; then no pages may be copied.
    pub(super) fn settle(&self) -> io::Result<()> {
        self.sync_log()?;
        self.file.sync_data()
    }

    /// Makes all that was written to the log durable.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn sync_log(&self) -> io::Result<()> {
        let written = self.written.load(Ordering::Acquire);
        File::open(&self.log)?.sync_data()?;
        let mut now = self.now.lock();
        now.written = now.written.max(written);
        now.synced = now.synced.max(written);
        self.file.write_all_at(&now.encode(), 0)
    }

    /// [`Mark::sync_log`] unless everything that was noted is on the disk.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn sync_log_if_behind(&self) -> io::Result<()> {
        let behind = {
            let now = self.now.lock();
            now.written > now.synced
        };
        if behind { self.sync_log() } else { Ok(()) }
    }

    fn store(&self, now: &Known) -> bool {
        let stored = self.file.write_all_at(&now.encode(), 0);
        if let Err(error) = &stored
            && !self.complained.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(path = %self.path.display(), %error, "the mark could not be written and stays behind");
        }
        stored.is_ok()
    }
}

/// Where the mark of a file is.
pub(super) fn place(file: &Path) -> PathBuf {
    file.with_extension("mark")
}

fn boot() -> [u8; 16] {
    let text = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
    uuid::Uuid::parse_str(text.trim()).map(uuid::Uuid::into_bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_says_what_was_noted_and_a_flipped_byte_of_it_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("some.db");
        assert_eq!(Known::read(&file).unwrap(), Known::default());
        let mark = Mark::begin(&file, 7, Known::default()).unwrap();
        mark.note(9, true);
        assert!(mark.loosen());
        mark.note(11, false);
        let known = Known::read(&file).unwrap();
        assert_eq!((known.synced, known.written, known.loose), (9, 11, true));
        known.check(&file, 11).unwrap();
        let error = known.check(&file, 10).unwrap_err().to_string();
        assert!(error.contains("some.db") && error.contains("revision 11") && error.contains("some.mark"), "{error}");
        let clean = std::fs::read(place(&file)).unwrap();
        for at in 0..clean.len() {
            let mut bytes = clean.clone();
            bytes[at] ^= 0x10;
            assert_eq!(Known::decode(&bytes), None, "byte {at}");
        }
    }

    #[test]
    fn after_a_loss_of_power_only_what_was_synced_must_be_there() {
        let known = Known { synced: 9, written: 11, loose: true, boot: [3; 16] };
        known.check(Path::new("some.db"), 9).unwrap();
        known.check(Path::new("some.db"), 8).unwrap_err();
    }
}
