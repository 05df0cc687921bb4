//! What only files can go through: damage, loss, full disks, and other programs.

use std::path::Path;
use std::sync::Arc;

use super::conformance::{all, append, folded, listed, long, rows as page_of, scratch, sqlite, write};
use super::journal::SqliteJournal;
use super::{Recovery, Store, StoreError, rebuild};
use crate::model::{Event, RecoveredTask, Revision, Task, TaskFilter};

fn written(directory: &Path) -> Vec<Event> {
    let history = long();
    let (store, _) = sqlite(directory).unwrap();
    write(&store, &history.commits(9));
    history.events
}

fn restored(recovery: &Recovery, events: &[Event]) -> bool {
    let wanted: Vec<RecoveredTask> = folded(events).into_values().map(RecoveredTask::from).collect();
    recovery.events.is_empty() && recovery.tasks == wanted
}

/// Runs the check with the file unharmed but for one byte, at many places.
fn with_flips(directory: &Path, file: &str, check: impl Fn(usize)) {
    let names = ["journal.db", "projection.db"];
    let clean: Vec<Vec<u8>> = names.iter().map(|name| std::fs::read(directory.join(name)).unwrap()).collect();
    let length = std::fs::metadata(directory.join(file)).unwrap().len();
    let places = (0..100).chain((100..usize::try_from(length).unwrap()).step_by(997));
    for place in places {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().is_some_and(|name| name != "lock") {
                std::fs::remove_file(path).unwrap();
            }
        }
        for (name, bytes) in names.iter().zip(&clean) {
            let mut bytes = bytes.clone();
            if *name == file {
                bytes[place] ^= 0x41;
            }
            std::fs::write(directory.join(name), bytes).unwrap();
        }
        check(place);
    }
}

/// An error that names the file and a place to look at.
fn names(error: &StoreError, file: &str) -> bool {
    error.to_string().contains(file)
}

#[test]
fn a_flipped_byte_of_the_journal_is_an_error_or_does_no_harm() {
    let directory = scratch();
    let events = written(directory.path());
    with_flips(directory.path(), "journal.db", |place| {
        let read = sqlite(directory.path()).and_then(|(store, _)| all(&store, Revision(0)));
        match read {
            Ok(read) => assert!(read == events, "byte {place}: {} of {} events", read.len(), events.len()),
            Err(error) => assert!(names(&error, "journal.db"), "byte {place}: {error}"),
        }
    });
}

#[test]
fn a_flipped_byte_of_the_projection_is_told_or_does_no_harm() {
    let directory = scratch();
    let events = written(directory.path());
    let rows = folded(&events);
    let newest: Vec<Task> = rows.values().rev().map(listed).collect();
    with_flips(directory.path(), "projection.db", |place| {
        let (store, recovery) = match sqlite(directory.path()) {
            Ok(opened) => opened,
            Err(error) => return assert!(names(&error, "projection.db"), "byte {place}: {error}"),
        };
        if recovery.notes.is_empty() {
            assert!(restored(&recovery, &events), "byte {place}");
        } else {
            assert!(recovery.notes[0].contains("projection.db.damaged-1"), "{:?}", recovery.notes);
            assert_eq!(recovery.events, events, "byte {place}");
            store.projection.checkpoint().unwrap();
        }
        match store.projection.list(&TaskFilter::default(), page_of(1000), None) {
            Ok(page) => assert_eq!(page.tasks, newest, "byte {place}"),
            Err(error) => assert!(names(&error, "projection.db"), "byte {place}: {error}"),
        }
        for task in rows.values() {
            match store.projection.get(&task.spec.id) {
                Ok(found) => assert!(found.as_ref() == Some(task), "byte {place}: {}", task.spec.id),
                Err(error) => assert!(names(&error, "projection.db"), "byte {place}: {error}"),
            }
        }
    });
}

#[test]
fn a_projection_that_is_missing_is_rebuilt_with_a_note() {
    let directory = scratch();
    let events = written(directory.path());
    std::fs::remove_file(directory.path().join("projection.db")).unwrap();
    let (store, recovery) = sqlite(directory.path()).unwrap();
    assert!(recovery.notes[0].contains("nothing was lost"), "{:?}", recovery.notes);
    assert_eq!(recovery.events, events);
    store.projection.checkpoint().unwrap();
    drop(store);
    assert!(restored(&sqlite(directory.path()).unwrap().1, &events));
}

#[test]
fn a_projection_that_the_journal_cannot_bring_back_is_refused_until_its_loss_is_accepted() {
    type Harm = fn(&Path);
    let harms: [(Harm, &str); 4] = [
        (|path| std::fs::remove_file(path).unwrap(), "is missing"),
        (|path| std::fs::write(path, "").unwrap(), "is not whole"),
        (|path| std::fs::write(path, "not a database at all, but long enough").unwrap(), "is not whole"),
        (
            |path| {
                let mut bytes = std::fs::read(path).unwrap();
                let end = bytes.len() - 100;
                bytes[100..end].fill(0x41);
                std::fs::write(path, bytes).unwrap();
            },
            "is not whole",
        ),
    ];
    for (harm, what) in harms {
        let directory = scratch();
        let events = written(directory.path());
        let (store, _) = sqlite(directory.path()).unwrap();
        let half = Revision(events.len() as u64 / 2);
        store.journal.trim(half).unwrap();
        let begin = store.journal.oldest();
        drop(store);
        let path = directory.path().join("projection.db");
        harm(&path);
        // Its mark may be gone as well.
        let _ = std::fs::remove_file(directory.path().join("projection.mark"));
        for _ in 0..2 {
            let error = sqlite(directory.path()).err().unwrap();
            assert!(matches!(error, StoreError::Lost { begin: told, .. } if told == begin), "{error}");
            let text = error.to_string();
            assert!(names(&error, "projection.db") && text.contains(what), "{text}");
            assert!(text.contains("restore a back-up") && text.contains("lineshaft store rebuild"), "{text}");
        }
        assert!(!directory.path().join("projection.db.damaged-1").exists(), "nothing is moved");

        let notes = rebuild(directory.path()).unwrap();
        assert!(notes[0].contains("are lost"), "{notes:?}");
        assert!(notes[1].contains("have events but no submission"), "{notes:?}");
        let (store, recovery) = sqlite(directory.path()).unwrap();
        assert!(recovery.notes.is_empty() && recovery.events.is_empty(), "{:?}", recovery.notes);
        assert_eq!(all(&store, begin).unwrap(), events[usize::try_from(begin.0).unwrap()..]);
        drop(store);
        assert_eq!(rebuild(directory.path()).unwrap(), Vec::<String>::new(), "nothing is left to do");
    }
}

#[test]
fn a_journal_that_is_missing_is_an_error() {
    let directory = scratch();
    written(directory.path());
    std::fs::remove_file(directory.path().join("journal.db")).unwrap();
    let error = sqlite(directory.path()).err().unwrap();
    assert!(matches!(error, StoreError::Corrupt { .. }) && names(&error, "journal.db"), "{error}");
}

#[test]
fn the_files_of_others_and_of_later_versions_are_left_alone() {
    for file in ["journal.db", "projection.db"] {
        let directory = scratch();
        let path = directory.path().join(file);
        rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs(x)").unwrap();
        let before = std::fs::read(&path).unwrap();
        let error = sqlite(directory.path()).err().unwrap();
        assert!(matches!(error, StoreError::Foreign { .. }) && names(&error, file), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);

        let directory = scratch();
        drop(sqlite(directory.path()).unwrap());
        let path = directory.path().join(file);
        rusqlite::Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
        let error = sqlite(directory.path()).err().unwrap();
        assert!(matches!(error, StoreError::Foreign { .. }) && error.to_string().contains("upgrade"), "{error}");
    }
    let directory = scratch();
    std::fs::write(directory.path().join("journal.db"), "not a database at all, but long enough").unwrap();
    assert!(matches!(sqlite(directory.path()).err().unwrap(), StoreError::Foreign { .. }));
}

#[test]
fn a_directory_serves_one_server_at_a_time() {
    let directory = scratch();
    let (first, _) = sqlite(directory.path()).unwrap();
    assert!(matches!(sqlite(directory.path()).err().unwrap(), StoreError::Locked { .. }));
    let clone = first.clone();
    drop(first);
    assert!(matches!(sqlite(directory.path()).err().unwrap(), StoreError::Locked { .. }));
    drop(clone);
    sqlite(directory.path()).unwrap();
}

#[test]
fn a_directory_that_cannot_be_made_is_named_with_the_remedy() {
    let directory = scratch();
    std::fs::write(directory.path().join("file"), "").unwrap();
    let error = sqlite(&directory.path().join("file/data")).err().unwrap();
    assert!(matches!(error, StoreError::Io { .. }) && names(&error, "file/data"), "{error}");
    assert!(error.to_string().contains("needs write access"));
}

#[test]
fn a_full_disk_refuses_commits_whole_and_they_are_taken_when_there_is_space() {
    let directory = scratch();
    let journal = SqliteJournal::open(&directory.path().join("journal.db"), None).unwrap();
    let projection = Arc::new(super::memory::MemoryProjection::default());
    let journal = Arc::new(journal);
    let store = Store { journal: Arc::clone(&journal) as _, projection, kind: "sqlite" };
    let history = long();
    let commits = history.commits(9);
    journal.limit_pages(12);
    let refused = commits.iter().position(|commit| match append(&store, commit) {
        Ok(()) => false,
        Err(StoreError::Full { path }) => path.ends_with("journal.db"),
        Err(other) => panic!("{other}"),
    });
    let refused = refused.expect("twelve pages cannot hold all");
    assert!(matches!(append(&store, &commits[refused + 1]), Err(StoreError::Full { .. })), "it is sent behind");
    let kept = commits[refused].first().0 - 1;
    assert_eq!(all(&store, Revision(0)).unwrap().last().unwrap().revision.0, kept);
    journal.limit_pages(1 << 30);
    for commit in &commits[refused..] {
        append(&store, commit).unwrap();
    }
    assert_eq!(all(&store, Revision(0)).unwrap(), history.events);
    assert_eq!(journal.end().0, history.events.len() as u64);
}

#[test]
fn events_that_the_projection_missed_are_recovered_from_the_journal_and_fed() {
    let directory = scratch();
    let history = long();
    let commits = history.commits(9);
    let (store, _) = sqlite(directory.path()).unwrap();
    let (seen, missed) = commits.split_at(commits.len() / 2);
    write(&store, seen);
    for commit in missed {
        append(&store, commit).unwrap();
    }
    drop(store);
    let (store, recovery) = sqlite(directory.path()).unwrap();
    let seen = usize::try_from(recovery.revision.0).unwrap();
    assert_eq!(seen as u64, missed[0].first().0 - 1);
    assert_eq!(recovery.events, history.events[seen..]);
    assert!(recovery.notes.is_empty(), "{:?}", recovery.notes);
    assert_eq!(store.projection.checkpoint().unwrap().0, history.events.len() as u64);
}
