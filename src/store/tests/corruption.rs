//! Corrupt, missing and foreign files, full disks, and locked directories.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::fixtures::History;
use super::stores::{
    Recovered, append, fold_all, listed, long_history, open_sqlite, page_of, read_all, rebuild, temp_dir, write,
};
use crate::model::{Event, Output, RecoveredTask, Revision, Task, TaskChange, TaskFilter};
use crate::store::error::StoreError;
use crate::store::journal::SqliteJournal;
use crate::store::memory::MemoryProjection;
use crate::store::open::Store;
use crate::store::record::output_of;
use crate::store::traits::AppendError;

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

const FILES: [&str; 2] = ["journal.db", "projection.db"];
const PAGE: usize = 4096;

/// A store with the history, and its files as an orderly shutdown left them.
struct Sample {
    directory: tempfile::TempDir,
    history: History,
    clean: [Vec<u8>; 2],
}

impl Sample {
    fn new() -> Self {
        let directory = temp_dir();
        let history = long_history();
        filled(directory.path());
        let clean = FILES.map(|file| std::fs::read(directory.path().join(file)).unwrap());
        Self { directory, history, clean }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn length(&self, file: &str) -> usize {
        self.clean[usize::from(file == FILES[1])].len()
    }

    /// Writes the files again, one of them with damage, and opens the store. Returns whether the damage was noticed. If
    /// it was not, every answer is right and the store can be written.
    fn is_noticed(&self, file: &str, what: &str, damage: impl Fn(&mut [u8])) -> bool {
        for entry in std::fs::read_dir(self.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().is_some_and(|name| name != "lock") {
                std::fs::remove_file(path).unwrap();
            }
        }
        for (name, bytes) in FILES.iter().zip(&self.clean) {
            let mut bytes = bytes.clone();
            if *name == file {
                damage(&mut bytes);
            }
            std::fs::write(self.path().join(name), bytes).unwrap();
        }
        let what = format!("{file}, {what}");
        let (store, recovered) = match open_sqlite(self.path()) {
            Ok(opened) => opened,
            Err(error) => {
                assert!(mentions(&error, file), "{what}: {error}");
                return true;
            }
        };
        let events = &self.history.events;
        if let Some(note) = recovered.notes.first() {
            assert!(file == "projection.db" && note.contains("projection.db.damaged-1"), "{what}: {note}");
            assert_eq!(&recovered.events, events, "{what}");
            store.projection.checkpoint().unwrap();
        } else {
            assert!(restored(&recovered, events), "{what}");
        }
        self.assert_answers(&store, &what);
        self.assert_writable(&store, &what);
        !recovered.notes.is_empty()
    }

    fn assert_answers(&self, store: &Store, what: &str) {
        let events = &self.history.events;
        assert!(read_all(store, Revision(0)).unwrap() == *events, "{what}");
        let tasks = fold_all(events);
        let newest: Vec<Task> = tasks.values().rev().map(listed).collect();
        let page = store.projection.list(&TaskFilter::default(), page_of(1000), None);
        assert!(page.unwrap().tasks == newest, "{what}");
        self.assert_requests(store, what);
        for task in tasks.values() {
            let id = &task.spec.id;
            assert!(store.projection.get(id, true).unwrap().as_ref() == Some(task), "{what}: {id}");
            for attempt in 1..=task.status.attempt {
                let of_task = events.iter().rev().filter_map(Event::task).filter(|event| event.task == *id);
                // A task that was deleted before may have had the same id.
                let mut since = of_task.take_while(|event| !matches!(event.change, TaskChange::Submitted { .. }));
                let written = since.find_map(|event| output_of(event).filter(|_| event.attempt == attempt));
                let found = store.projection.output(id, attempt).unwrap();
                let found = found.map(|(_, output)| output).filter(|output| *output != Output::default());
                assert!(found.as_ref() == written, "{what}: output of {id}, attempt {attempt}");
            }
        }
    }

    fn assert_requests(&self, store: &Store, what: &str) {
        let submitted = self.history.events.iter().filter_map(Event::task).filter_map(|event| match &event.change {
            TaskChange::Submitted { spec } => Some((event, spec, spec.request_with_digest()?)),
            _ => None,
        });
        let mut newest = BTreeMap::new();
        for (event, spec, (key, digest)) in submitted {
            let name = (spec.options.namespace.clone(), Arc::clone(key));
            newest.insert((name.0.to_string(), key.id.clone()), (name, event.revision, digest));
        }
        for (name, submission, digest) in newest.into_values() {
            let found = store.projection.requests(std::slice::from_ref(&name)).unwrap();
            let found = found.requests[0].as_ref().map(|found| (found.submission, found.digest));
            assert_eq!(found, Some((submission, digest)), "{what}: {name:?}");
        }
    }

    fn assert_writable(&self, store: &Store, what: &str) {
        let end = self.history.events.last().unwrap().revision();
        let mut more = History::after(end);
        for number in 30..60 {
            for (action, size) in [(0, 255), (0, 255), (7, 255)] {
                more.step(number, action, size);
            }
        }
        for commit in more.commits(40) {
            append(store, &commit).unwrap_or_else(|error| panic!("{what}: {error}"));
            store.projection.apply(commit);
        }
        store.projection.checkpoint().unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

fn mentions(error: &StoreError, file: &str) -> bool {
    error.to_string().contains(file)
}

#[test]
fn every_zeroed_page_is_noticed_at_the_start_unless_it_is_free() {
    let sample = Sample::new();
    for file in FILES {
        let connection = rusqlite::Connection::open(sample.path().join(file)).unwrap();
        let free: u32 = connection.query_row("PRAGMA freelist_count", [], |row| row.get(0)).unwrap();
        drop(connection);
        let mut unnoticed = Vec::new();
        for page in 0..sample.length(file) / PAGE {
            let zero = |bytes: &mut [u8]| bytes[page * PAGE..][..PAGE].fill(0);
            if !sample.is_noticed(file, &format!("page {}", page + 1), zero) {
                unnoticed.push(page + 1);
            }
        }
        assert!(unnoticed.len() <= free as usize, "{file}: {unnoticed:?}, but {free} pages are free");
    }
}

#[test]
fn a_flipped_byte_is_noticed_at_the_start_or_harmless() {
    let sample = Sample::new();
    for file in FILES {
        let length = sample.length(file);
        // The header of the file, the header of each page, and some bytes of its content.
        let headers = (0..length).step_by(PAGE).flat_map(|page| (0..12).step_by(5).map(move |at| page + at));
        let mut noticed = 0;
        for offset in (0..100).chain(headers).chain((100..length).step_by(1_999)) {
            let flip = |bytes: &mut [u8]| bytes[offset] ^= 0x41;
            noticed += usize::from(sample.is_noticed(file, &format!("byte {offset}"), flip));
        }
        assert!(noticed > length / 1_999 / 2, "{file}: {noticed}");
    }
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
        Err(AppendError::Refused(StoreError::Full { path })) => path.ends_with("journal.db"),
        Err(other) => panic!("{other}"),
    });
    let refused = refused.expect("twelve pages cannot hold all");
    assert!(
        matches!(append(&store, &commits[refused + 1]), Err(AppendError::Refused(StoreError::Full { .. }))),
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
