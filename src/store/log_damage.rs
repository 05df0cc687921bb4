//! What a crash leaves in the write-ahead logs, and what a flipped byte in them does.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::conformance::{all, append, folded, listed, long, rows, sqlite, write};
use super::samples::History;
use super::{Commit, Store, StoreError, mark, wal};
use crate::model::{Event, Revision, TaskFilter};

/// Bytes flipped per file and kind of crash.
const FLIPS: usize = 80;

/// The files of a store, as the death of its server leaves them.
struct Crashed {
    files: Vec<(String, Vec<u8>)>,
    events: Vec<Event>,
}

/// Enough for logs with many commits, and few enough to be read a thousand times.
fn middling() -> History {
    let mut history = long();
    history.events.truncate(400);
    history
}

/// Appends and waits until the projection has followed.
fn push(store: &Store, commits: &[Arc<Commit>]) {
    for commit in commits {
        append(store, commit).unwrap();
        store.projection.feed(Arc::clone(commit));
    }
    store.projection.hurry();
    let end = commits.last().unwrap().last();
    while *store.projection.reached().borrow() < end {
        std::thread::yield_now();
    }
}

/// How the server's machine fared.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Crash {
    /// The server was killed: what was written is there.
    Killed,
    /// The machine went down: the marks are as old as can be.
    PowerLost,
}

impl Crashed {
    /// Of the journal's log the first third is copied into the file.
    fn new(history: History, most: usize, sync: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = sqlite(directory.path()).unwrap();
        let mut commits = history.commits(most);
        for commit in &mut commits {
            Arc::make_mut(commit).sync |= sync;
        }
        let (first, later) = commits.split_at(commits.len() / 3);
        let (second, third) = later.split_at(later.len() / 2);
        write(&store, first);
        // A reader holds up what is copied, and keeps the log from beginning anew.
        let connect = || rusqlite::Connection::open(directory.path().join("journal.db")).unwrap();
        let (reader, copier) = (connect(), connect());
        reader.execute_batch("BEGIN; SELECT count(*) FROM commits;").unwrap();
        push(&store, second);
        copier.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
        push(&store, third);
        let files = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap());
        let files = files.filter(|entry| !entry.file_name().to_string_lossy().ends_with("-shm"));
        let read = |entry: std::fs::DirEntry| {
            (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).unwrap())
        };
        Self { files: files.map(read).collect(), events: history.events }
    }

    /// Without the zeros that a log is filled up with.
    fn length(&self, file: &str) -> usize {
        let bytes = &self.files.iter().find(|(name, _)| name == file).unwrap().1;
        bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
    }

    /// Puts the files into a directory, one of them changed.
    fn put(&self, directory: &Path, crash: Crash, file: &str, change: impl Fn(&mut Vec<u8>)) {
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

    /// Where the last commit of a log begins.
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

/// What opening found.
#[derive(Debug)]
enum Found {
    /// So many events, the first of those that were written.
    Events(usize),
    Named(StoreError),
}

fn reopen(directory: &Path, events: &[Event]) -> Found {
    let read = sqlite(directory).and_then(|(store, recovery)| {
        let read = all(&store, Revision(0))?;
        let wanted: Vec<_> = folded(&read).into_values().rev().map(|task| listed(&task)).collect();
        store.projection.checkpoint()?;
        let listed = store.projection.list(&TaskFilter::default(), rows(1000), None)?;
        assert_eq!(listed.tasks, wanted, "the answers are not those of the journal; {:?}", recovery.notes);
        Ok(read)
    });
    match read {
        Ok(read) => {
            assert_eq!(read[..], events[..read.len()]);
            Found::Events(read.len())
        }
        Err(error) => Found::Named(error),
    }
}

/// Opens the store with one byte of a log flipped, at the header, both ends, and many random places.
fn with_flips(crashed: &Crashed, crash: Crash, file: &str, check: impl Fn(usize, Found)) {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let length = crashed.length(file);
    let random = (0..FLIPS).map(|_| random.random_range(0..length));
    for place in (0..56).step_by(3).chain(length - 4..length).chain(random) {
        let directory = tempfile::tempdir().unwrap();
        crashed.put(directory.path(), crash, file, |bytes| bytes[place] ^= 0x41);
        check(place, reopen(directory.path(), &crashed.events));
    }
}

#[test]
fn a_flipped_byte_of_the_journals_log_hides_nothing_after_a_kill() {
    for sync in [true, false] {
        let crashed = Crashed::new(middling(), 9, sync);
        with_flips(&crashed, Crash::Killed, "journal.db-wal", |place, found| match found {
            Found::Events(count) => assert_eq!(count, crashed.events.len(), "byte {place}"),
            Found::Named(error) => assert!(error.to_string().contains("journal.db"), "byte {place}: {error}"),
        });
    }
}

#[test]
fn a_flipped_byte_of_the_journals_log_hides_nothing_but_the_last_commit_after_a_loss_of_power() {
    let crashed = Crashed::new(middling(), 9, true);
    let last = crashed.last_commit("journal.db-wal");
    with_flips(&crashed, Crash::PowerLost, "journal.db-wal", |place, found| match found {
        // Only of the last commit it cannot be known whether it had been acknowledged.
        Found::Events(count) if count < crashed.events.len() => assert!(place >= last, "byte {place}: {count} events"),
        Found::Events(_) => {}
        Found::Named(error) => assert!(error.to_string().contains("journal.db"), "byte {place}: {error}"),
    });
}

#[test]
fn a_flipped_byte_of_the_projections_log_is_made_good_from_the_journal() {
    let crashed = Crashed::new(middling(), 9, true);
    for crash in [Crash::Killed, Crash::PowerLost] {
        with_flips(&crashed, crash, "projection.db-wal", |place, found| match found {
            Found::Events(count) => assert_eq!(count, crashed.events.len(), "byte {place}"),
            Found::Named(error) => panic!("byte {place}: {error}"),
        });
    }
}

#[test]
fn a_flipped_byte_of_a_mark_or_its_loss_does_no_harm() {
    let crashed = Crashed::new(History::of(&[(1, 0, 9), (2, 0, 9), (1, 1, 1)]), 3, false);
    for file in ["journal.mark", "projection.mark"] {
        for place in 0..crashed.length(file) {
            let directory = tempfile::tempdir().unwrap();
            crashed.put(directory.path(), Crash::Killed, file, |bytes| bytes[place] ^= 0x41);
            let found = reopen(directory.path(), &crashed.events);
            assert!(
                matches!(found, Found::Events(count) if count == crashed.events.len()),
                "{file} {place}: {found:?}"
            );
        }
    }
}

#[test]
fn a_lost_end_of_the_journal_is_named() {
    let crashed = Crashed::new(middling(), 9, true);
    for keep in [0, 20, 32, crashed.last_commit("journal.db-wal"), crashed.length("journal.db-wal") - 1] {
        let directory = tempfile::tempdir().unwrap();
        crashed.put(directory.path(), Crash::Killed, "journal.db-wal", |bytes| bytes.truncate(keep));
        match reopen(directory.path(), &crashed.events) {
            Found::Named(StoreError::Corrupt { path, detail, .. }) => {
                let why = if keep <= 32 { "without its log" } else { "journal.mark" };
                assert!(path.ends_with("journal.db") && detail.contains(why), "{keep}: {detail}");
            }
            other => panic!("{keep}: {other:?}"),
        }
        let log = wal::log_of(&directory.path().join("journal.db"));
        assert_eq!(std::fs::metadata(log).unwrap().len(), keep as u64, "the evidence stays");
    }
}

#[test]
fn the_mark_of_a_restored_back_up_may_be_removed() {
    let crashed = Crashed::new(middling(), 9, true);
    let directory = tempfile::tempdir().unwrap();
    crashed.put(directory.path(), Crash::Killed, "journal.db-wal", |bytes| {
        bytes.truncate(crashed.last_commit("journal.db-wal"));
    });
    for file in ["projection.db", "projection.db-wal"] {
        std::fs::remove_file(directory.path().join(file)).unwrap();
    }
    assert!(matches!(reopen(directory.path(), &crashed.events), Found::Named(_)));
    std::fs::remove_file(mark::place(&directory.path().join("journal.db"))).unwrap();
    let found = reopen(directory.path(), &crashed.events);
    assert!(matches!(found, Found::Events(count) if count > 0), "{found:?}");
}

#[test]
fn the_projection_never_holds_what_the_journal_could_lose() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = sqlite(directory.path()).unwrap();
    let mut commits = middling().commits(9);
    for commit in &mut commits {
        Arc::make_mut(commit).sync = false;
    }
    push(&store, &commits);
    let known = mark::Known::read(&directory.path().join("journal.db")).unwrap();
    assert_eq!(known.synced(), commits.last().unwrap().last().0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// What a loss of power does to the last commit: any of its sectors may be missing.
    #[test]
    fn a_torn_last_commit_is_no_damage(sectors in proptest::collection::vec(any::<bool>(), 1..40), cut in any::<bool>()) {
        let crashed = Crashed::new(History::of(&[(1, 0, 9), (2, 0, 9), (3, 0, 200), (1, 1, 1), (2, 1, 1)]), 3, true);
        let file = "journal.db-wal";
        let last = crashed.last_commit(file);
        let directory = tempfile::tempdir().unwrap();
        crashed.put(directory.path(), Crash::PowerLost, file, |bytes| {
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
        // The projection may not have seen more than the journal.
        for file in ["projection.db", "projection.db-wal"] {
            std::fs::remove_file(directory.path().join(file)).unwrap();
        }
        let found = reopen(directory.path(), &crashed.events);
        prop_assert!(matches!(found, Found::Events(_)), "{:?}", found);
    }
}
