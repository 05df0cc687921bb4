//! Corrupt, missing and foreign files, full disks, and locked directories.

use std::path::Path;
use std::sync::Arc;

use super::stores::{
    Recovered, append, fold_all, listed, long_history, open_sqlite, page_of, read_all, temp_dir, write,
};
use crate::model::{Event, RecoveredTask, Revision, Task, TaskFilter};
use crate::store::error::StoreError;
use crate::store::journal::SqliteJournal;
use crate::store::memory::MemoryProjection;
use crate::store::open::{Store, rebuild};

/// Fills a store and returns its events.
fn filled(directory: &Path) -> Vec<Event> {
    let history = long_history();
    let (store, _) = open_sqlite(directory).unwrap();
    write(&store, &history.commits(9));
    history.events
}

fn restored(recovery: &Recovered, events: &[Event]) -> bool {
    let expected: Vec<RecoveredTask> = fold_all(events).into_values().map(RecoveredTask::from).collect();
    recovery.events.is_empty() && recovery.tasks == expected
}

/// Runs the check on a copy of the store with one flipped byte in `file`, for many bytes.
fn with_flips(directory: &Path, file: &str, check: impl Fn(usize)) {
    let names = ["journal.db", "projection.db"];
    let clean: Vec<Vec<u8>> = names.iter().map(|name| std::fs::read(directory.join(name)).unwrap()).collect();
    let length = std::fs::metadata(directory.join(file)).unwrap().len();
    let offsets = (0..100).chain((100..usize::try_from(length).unwrap()).step_by(997));
    for offset in offsets {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().is_some_and(|name| name != "lock") {
                std::fs::remove_file(path).unwrap();
            }
        }
        for (name, bytes) in names.iter().zip(&clean) {
            let mut bytes = bytes.clone();
            if *name == file {
                bytes[offset] ^= 0x41;
            }
            std::fs::write(directory.join(name), bytes).unwrap();
        }
        check(offset);
    }
}

fn mentions(error: &StoreError, file: &str) -> bool {
    error.to_string().contains(file)
}

#[test]
fn a_flipped_byte_of_the_journal_is_reported_or_harmless() {
    let directory = temp_dir();
    let events = filled(directory.path());
    with_flips(directory.path(), "journal.db", |offset| {
        let read = open_sqlite(directory.path()).and_then(|(store, _)| read_all(&store, Revision(0)));
        match read {
            Ok(read) => assert!(read == events, "byte {offset}: {} of {} events", read.len(), events.len()),
            Err(error) => assert!(mentions(&error, "journal.db"), "byte {offset}: {error}"),
        }
    });
}

#[test]
fn a_flipped_byte_of_the_projection_is_reported_or_harmless() {
    let directory = temp_dir();
    let events = filled(directory.path());
    let rows = fold_all(&events);
    let newest: Vec<Task> = rows.values().rev().map(listed).collect();
    with_flips(directory.path(), "projection.db", |offset| {
        let (store, recovery) = match open_sqlite(directory.path()) {
            Ok(opened) => opened,
            Err(error) => return assert!(mentions(&error, "projection.db"), "byte {offset}: {error}"),
        };
        if recovery.notes.is_empty() {
            assert!(restored(&recovery, &events), "byte {offset}");
        } else {
            assert!(recovery.notes[0].contains("projection.db.damaged-1"), "{:?}", recovery.notes);
            assert_eq!(recovery.events, events, "byte {offset}");
            store.projection.checkpoint().unwrap();
        }
        match store.projection.list(&TaskFilter::default(), page_of(1000), None) {
            Ok(page) => assert_eq!(page.tasks, newest, "byte {offset}"),
            Err(error) => assert!(mentions(&error, "projection.db"), "byte {offset}: {error}"),
        }
        for task in rows.values() {
            match store.projection.get(&task.spec.id) {
                Ok(found) => assert!(found.as_ref() == Some(task), "byte {offset}: {}", task.spec.id),
                Err(error) => assert!(mentions(&error, "projection.db"), "byte {offset}: {error}"),
            }
        }
    });
}

#[test]
fn a_missing_projection_is_rebuilt() {
    let directory = temp_dir();
    let events = filled(directory.path());
    std::fs::remove_file(directory.path().join("projection.db")).unwrap();
    let (store, recovery) = open_sqlite(directory.path()).unwrap();
    assert!(recovery.notes[0].contains("nothing was lost"), "{:?}", recovery.notes);
    assert_eq!(recovery.events, events);
    store.projection.checkpoint().unwrap();
    drop(store);
    assert!(restored(&open_sqlite(directory.path()).unwrap().1, &events));
}

#[test]
fn a_projection_that_cannot_be_rebuilt_fully_is_rebuilt_only_on_request() {
    type Corrupt = fn(&Path);
    let cases: [(Corrupt, &str); 4] = [
        (|path| std::fs::remove_file(path).unwrap(), "is missing"),
        (|path| std::fs::write(path, "").unwrap(), "cannot be read"),
        (|path| std::fs::write(path, "not a database at all, but long enough").unwrap(), "cannot be read"),
        (
            |path| {
                let mut bytes = std::fs::read(path).unwrap();
                let end = bytes.len() - 100;
                bytes[100..end].fill(0x41);
                std::fs::write(path, bytes).unwrap();
            },
            "cannot be read",
        ),
    ];
    for (corrupt, problem) in cases {
        let directory = temp_dir();
        let events = filled(directory.path());
        let (store, _) = open_sqlite(directory.path()).unwrap();
        let half = Revision(events.len() as u64 / 2);
        store.journal.trim(half).unwrap();
        let oldest = store.journal.oldest();
        drop(store);
        let path = directory.path().join("projection.db");
        corrupt(&path);
        // The watermark may be lost as well.
        let _ = std::fs::remove_file(directory.path().join("projection.mark"));
        for _ in 0..2 {
            let error = open_sqlite(directory.path()).err().unwrap();
            assert!(matches!(error, StoreError::ProjectionLost { trimmed, .. } if trimmed == oldest), "{error}");
            let text = error.to_string();
            assert!(mentions(&error, "projection.db") && text.contains(problem), "{text}");
            assert!(text.contains("restore a backup") && text.contains("lineshaft store rebuild"), "{text}");
        }
        assert!(!directory.path().join("projection.db.damaged-1").exists(), "no file is moved");

        let notes = rebuild(directory.path()).unwrap();
        assert!(notes[0].contains("are lost"), "{notes:?}");
        assert!(notes[1].contains("have events but no submission"), "{notes:?}");
        let (store, recovery) = open_sqlite(directory.path()).unwrap();
        assert!(recovery.notes.is_empty() && recovery.events.is_empty(), "{:?}", recovery.notes);
        assert_eq!(read_all(&store, oldest).unwrap(), events[usize::try_from(oldest.0).unwrap()..]);
        drop(store);
        assert_eq!(rebuild(directory.path()).unwrap(), Vec::<String>::new(), "nothing is left to do");
    }
}

#[test]
fn a_missing_journal_is_an_error() {
    let directory = temp_dir();
    filled(directory.path());
    std::fs::remove_file(directory.path().join("journal.db")).unwrap();
    let error = open_sqlite(directory.path()).err().unwrap();
    assert!(matches!(error, StoreError::Corrupt { .. }) && mentions(&error, "journal.db"), "{error}");
}

#[test]
fn files_of_other_programs_and_of_later_versions_are_not_changed() {
    for file in ["journal.db", "projection.db"] {
        let directory = temp_dir();
        let path = directory.path().join(file);
        rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs(x)").unwrap();
        let before = std::fs::read(&path).unwrap();
        let error = open_sqlite(directory.path()).err().unwrap();
        assert!(matches!(error, StoreError::Incompatible { .. }) && mentions(&error, file), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);

        let directory = temp_dir();
        drop(open_sqlite(directory.path()).unwrap());
        let path = directory.path().join(file);
        rusqlite::Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
        let error = open_sqlite(directory.path()).err().unwrap();
        assert!(matches!(error, StoreError::Incompatible { .. }) && error.to_string().contains("upgrade"), "{error}");
    }
    let directory = temp_dir();
    std::fs::write(directory.path().join("journal.db"), "not a database at all, but long enough").unwrap();
    assert!(matches!(open_sqlite(directory.path()).err().unwrap(), StoreError::Incompatible { .. }));
}

#[test]
fn a_directory_can_be_opened_once() {
    let directory = temp_dir();
    let (first, _) = open_sqlite(directory.path()).unwrap();
    assert!(matches!(open_sqlite(directory.path()).err().unwrap(), StoreError::Locked { .. }));
    let clone = first.clone();
    drop(first);
    assert!(matches!(open_sqlite(directory.path()).err().unwrap(), StoreError::Locked { .. }));
    drop(clone);
    open_sqlite(directory.path()).unwrap();
}

#[test]
fn a_directory_that_cannot_be_created_is_reported() {
    let directory = temp_dir();
    std::fs::write(directory.path().join("file"), "").unwrap();
    let error = open_sqlite(&directory.path().join("file/data")).err().unwrap();
    assert!(matches!(error, StoreError::Io { .. }) && mentions(&error, "file/data"), "{error}");
    assert!(error.to_string().contains("needs write access"));
}

#[test]
fn a_full_disk_fails_whole_commits_until_there_is_space() {
    let directory = temp_dir();
    let journal = SqliteJournal::open(&directory.path().join("journal.db"), None).unwrap();
    let projection = Arc::<MemoryProjection>::default();
    let journal = Arc::new(journal);
    let store = Store { journal: Arc::clone(&journal) as _, projection, kind: "sqlite" };
    let history = long_history();
    let commits = history.commits(9);
    journal.limit_pages(12);
    let refused = commits.iter().position(|commit| match append(&store, commit) {
        Ok(()) => false,
        Err(StoreError::Full { path }) => path.ends_with("journal.db"),
        Err(other) => panic!("{other}"),
    });
    let refused = refused.expect("twelve pages cannot hold all");
    assert!(
        matches!(append(&store, &commits[refused + 1]), Err(StoreError::Full { .. })),
        "it follows a failed commit"
    );
    let kept = commits[refused].first().0 - 1;
    assert_eq!(read_all(&store, Revision(0)).unwrap().last().unwrap().revision().0, kept);
    journal.limit_pages(1 << 30);
    for commit in &commits[refused..] {
        append(&store, commit).unwrap();
    }
    assert_eq!(read_all(&store, Revision(0)).unwrap(), history.events);
    assert_eq!(journal.end().0, history.events.len() as u64);
}

#[test]
fn events_that_the_projection_lacks_are_recovered_from_the_journal() {
    let directory = temp_dir();
    let history = long_history();
    let commits = history.commits(9);
    let (store, _) = open_sqlite(directory.path()).unwrap();
    let (written, missed) = commits.split_at(commits.len() / 2);
    write(&store, written);
    for commit in missed {
        append(&store, commit).unwrap();
    }
    drop(store);
    let (store, recovery) = open_sqlite(directory.path()).unwrap();
    let seen = usize::try_from(recovery.revision.0).unwrap();
    assert_eq!(seen as u64, missed[0].first().0 - 1);
    assert_eq!(recovery.events, history.events[seen..]);
    assert!(recovery.notes.is_empty(), "{:?}", recovery.notes);
    assert_eq!(store.projection.checkpoint().unwrap().0, history.events.len() as u64);
}
