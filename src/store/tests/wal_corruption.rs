//! Write-ahead logs after a crash or a power failure, and with flipped bytes.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::fixtures::History;
use super::stores::{append, fold_all, listed, long_history, open_sqlite, page_of, read_all, temp_dir, write};
use crate::model::{Event, Revision, TaskFilter};
use crate::store::error::StoreError;
use crate::store::open::Store;
use crate::store::paths::{wal_path, watermark_path};
use crate::store::traits::Commit;
use crate::store::watermark::WatermarkRecord;

/// Random bytes flipped per file and kind of crash.
const FLIPS: usize = 80;

/// The files of a store after its server was killed.
struct CrashedStore {
    files: Vec<(String, Vec<u8>)>,
    events: Vec<Event>,
}

/// Long enough for a log with many commits, and short enough to be read a thousand times.
fn medium_history() -> History {
    let mut history = long_history();
    history.events.truncate(400);
    history
}

/// Appends, and waits until the projection has written the commits.
fn append_and_project(store: &Store, commits: &[Arc<Commit>]) {
    for commit in commits {
        append(store, commit).unwrap();
        store.projection.apply(Arc::clone(commit));
    }
    store.projection.flush();
    let end = commits.last().unwrap().last();
    while *store.projection.revision().borrow() < end {
        std::thread::yield_now();
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Crash {
    /// The process was killed: everything written is there.
    Killed,
    /// The machine lost power: the watermarks are lost, as an extreme case of being old.
    PowerLost,
}

impl CrashedStore {
    /// The first third of the journal's log is copied into the database file before the crash.
    fn new(history: History, events_max: usize, sync: bool) -> Self {
        let directory = temp_dir();
        let (store, _) = open_sqlite(directory.path()).unwrap();
        let mut commits = history.commits(events_max);
        for commit in &mut commits {
            Arc::make_mut(commit).sync |= sync;
        }
        let (first, later) = commits.split_at(commits.len() / 3);
        let (second, third) = later.split_at(later.len() / 2);
        write(&store, first);
        // An open read transaction limits what a checkpoint copies, and keeps the log from starting over.
        let connect = || rusqlite::Connection::open(directory.path().join("journal.db")).unwrap();
        let (reader, copier) = (connect(), connect());
        reader.execute_batch("BEGIN; SELECT count(*) FROM commits;").unwrap();
        append_and_project(&store, second);
        copier.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
        append_and_project(&store, third);
        let files = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap());
        let files = files.filter(|entry| !entry.file_name().to_string_lossy().ends_with("-shm"));
        let read = |entry: std::fs::DirEntry| {
            (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).unwrap())
        };
        Self { files: files.map(read).collect(), events: history.events }
    }

    /// Length without the zeros at the end of a preallocated log.
    fn length(&self, file: &str) -> usize {
        let bytes = &self.files.iter().find(|(name, _)| name == file).unwrap().1;
        bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
    }

    /// Writes the files to a directory, one of them changed.
    fn write_to(&self, directory: &Path, crash: Crash, file: &str, change: impl Fn(&mut Vec<u8>)) {
        for (name, bytes) in &self.files {
            if crash == Crash::PowerLost && name.contains(".mark") {
                continue;
            }
            let mut bytes = bytes.clone();
            if name == file {
                change(&mut bytes);
            }
            std::fs::write(directory.join(name), bytes).unwrap();
        }
    }

    /// Offset of the last commit in a log.
    fn last_commit(&self, file: &str) -> usize {
        let bytes = &self.files.iter().find(|(name, _)| name == file).unwrap().1;
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let size = 24 + word(8) as usize;
        let frames = (32..bytes.len() + 1 - size).step_by(size);
        let frames = frames.take_while(|at| bytes[at + 8..at + 16] == bytes[16..24]);
        let ends: Vec<usize> = frames.filter(|at| word(at + 4) != 0).collect();
        ends[ends.len() - 2] + size
    }
}

/// Opens the store and compares its query results with its events. Returns the number of events, which must be the
/// first of `events`.
fn reopen(directory: &Path, events: &[Event]) -> Result<usize, StoreError> {
    let (store, recovery) = open_sqlite(directory)?;
    let read = read_all(&store, Revision(0))?;
    let expected: Vec<_> = fold_all(&read).into_values().rev().map(|task| listed(&task)).collect();
    store.projection.checkpoint()?;
    let listed = store.projection.list(&TaskFilter::default(), page_of(1000), None)?;
    assert_eq!(listed.tasks, expected, "query results differ from the journal; {:?}", recovery.notes);
    assert_eq!(read[..], events[..read.len()]);
    Ok(read.len())
}

/// Opens the store with one flipped byte in `file`: in the header, at both ends, and at many random offsets.
fn with_flips(crashed: &CrashedStore, crash: Crash, file: &str, check: impl Fn(usize, Result<usize, StoreError>)) {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let length = crashed.length(file);
    let random = (0..FLIPS).map(|_| random.random_range(0..length));
    for offset in (0..56).step_by(3).chain(length - 4..length).chain(random) {
        let directory = temp_dir();
        crashed.write_to(directory.path(), crash, file, |bytes| bytes[offset] ^= 0x41);
        check(offset, reopen(directory.path(), &crashed.events));
    }
}

#[test]
fn after_a_kill_a_flipped_byte_of_the_journals_log_hides_no_commit() {
    for sync in [true, false] {
        let crashed = CrashedStore::new(medium_history(), 9, sync);
        with_flips(&crashed, Crash::Killed, "journal.db-wal", |offset, reopened| match reopened {
            Ok(count) => assert_eq!(count, crashed.events.len(), "byte {offset}"),
            Err(error) => assert!(error.to_string().contains("journal.db"), "byte {offset}: {error}"),
        });
    }
}

#[test]
fn after_a_power_failure_a_flipped_byte_of_the_journals_log_hides_at_most_the_last_commit() {
    let crashed = CrashedStore::new(medium_history(), 9, true);
    let last = crashed.last_commit("journal.db-wal");
    with_flips(&crashed, Crash::PowerLost, "journal.db-wal", |offset, reopened| match reopened {
        // Nothing shows whether the last commit had been acknowledged.
        Ok(count) if count < crashed.events.len() => {
            assert!(offset >= last, "byte {offset}: {count} events");
        }
        Ok(_) => {}
        Err(error) => assert!(error.to_string().contains("journal.db"), "byte {offset}: {error}"),
    });
}

#[test]
fn a_flipped_byte_of_the_projections_log_is_repaired_from_the_journal() {
    let crashed = CrashedStore::new(medium_history(), 9, true);
    for crash in [Crash::Killed, Crash::PowerLost] {
        with_flips(&crashed, crash, "projection.db-wal", |offset, reopened| match reopened {
            Ok(count) => assert_eq!(count, crashed.events.len(), "byte {offset}"),
            Err(error) => panic!("byte {offset}: {error}"),
        });
    }
}

#[test]
fn a_flipped_byte_of_a_watermark_is_harmless() {
    let crashed = CrashedStore::new(History::of(&[(1, 0, 9), (2, 0, 9), (1, 1, 1)]), 3, false);
    for file in ["journal.mark", "projection.mark"] {
        for offset in 0..crashed.length(file) {
            let directory = temp_dir();
            crashed.write_to(directory.path(), Crash::Killed, file, |bytes| bytes[offset] ^= 0x41);
            let reopened = reopen(directory.path(), &crashed.events);
            assert!(matches!(reopened, Ok(count) if count == crashed.events.len()), "{file} {offset}: {reopened:?}");
        }
    }
}

#[test]
fn a_lost_end_of_the_journal_is_reported() {
    let crashed = CrashedStore::new(medium_history(), 9, true);
    for keep in [0, 20, 32, crashed.last_commit("journal.db-wal"), crashed.length("journal.db-wal") - 1] {
        let directory = temp_dir();
        crashed.write_to(directory.path(), Crash::Killed, "journal.db-wal", |bytes| bytes.truncate(keep));
        match reopen(directory.path(), &crashed.events) {
            Err(StoreError::Corrupt { path, detail, .. }) => {
                let reason = if keep <= 32 { "without its log" } else { "journal.mark" };
                assert!(path.ends_with("journal.db") && detail.contains(reason), "{keep}: {detail}");
            }
            other => panic!("{keep}: {other:?}"),
        }
        let log = wal_path(&directory.path().join("journal.db"));
        assert_eq!(std::fs::metadata(log).unwrap().len(), keep as u64, "the log is kept as evidence");
    }
}

#[test]
fn the_watermark_may_be_removed_after_a_backup_is_restored() {
    let crashed = CrashedStore::new(medium_history(), 9, true);
    let directory = temp_dir();
    crashed.write_to(directory.path(), Crash::Killed, "journal.db-wal", |bytes| {
        bytes.truncate(crashed.last_commit("journal.db-wal"));
    });
    for file in ["projection.db", "projection.db-wal"] {
        std::fs::remove_file(directory.path().join(file)).unwrap();
    }
    reopen(directory.path(), &crashed.events).unwrap_err();
    std::fs::remove_file(watermark_path(&directory.path().join("journal.db"))).unwrap();
    let reopened = reopen(directory.path(), &crashed.events);
    assert!(matches!(reopened, Ok(count) if count > 0), "{reopened:?}");
}

#[test]
fn the_projection_is_never_ahead_of_the_synced_journal() {
    let directory = temp_dir();
    let (store, _) = open_sqlite(directory.path()).unwrap();
    let mut commits = medium_history().commits(9);
    for commit in &mut commits {
        Arc::make_mut(commit).sync = false;
    }
    append_and_project(&store, &commits);
    let record = WatermarkRecord::read(&directory.path().join("journal.db")).unwrap();
    assert_eq!(record.synced, commits.last().unwrap().last().0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// After a power failure any sector of the last commit may be missing.
    #[test]
    fn a_torn_last_commit_is_not_corruption(sectors in proptest::collection::vec(any::<bool>(), 1..40), cut in any::<bool>()) {
        let crashed = CrashedStore::new(History::of(&[(1, 0, 9), (2, 0, 9), (3, 0, 200), (1, 1, 1), (2, 1, 1)]), 3, true);
        let file = "journal.db-wal";
        let last = crashed.last_commit(file);
        let directory = temp_dir();
        crashed.write_to(directory.path(), Crash::PowerLost, file, |bytes| {
            let length = crashed.length(file);
            for (sector, lost) in (last..length).step_by(512).zip(sectors.iter().cycle()) {
                let end = (sector + 512).min(length);
                if *lost {
                    bytes[sector..end].fill(0);
                }
            }
            if cut {
                bytes.truncate(last + (length - last) / 2);
            }
        });
        // The projection must not be ahead of the journal.
        for file in ["projection.db", "projection.db-wal"] {
            std::fs::remove_file(directory.path().join(file)).unwrap();
        }
        let reopened = reopen(directory.path(), &crashed.events);
        prop_assert!(reopened.is_ok(), "{:?}", reopened);
    }
}
