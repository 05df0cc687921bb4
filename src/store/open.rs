//! Opening a store: the directory, its lock, and what a restart finds in it.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::backup::expect_file;
use super::journal::SqliteJournal;
use super::memory::{MemoryJournal, MemoryProjection};
use super::projection::SqliteProjection;
use super::{Commit, Journal, Projection, Recovery, Store, StoreError, mark};
use crate::model::{Change, Event, RecoveredTask, Revision};

/// The journal's file in the directory of a store.
pub(super) const JOURNAL: &str = "journal.db";
/// The projection's.
pub(super) const PROJECTION: &str = "projection.db";
/// Locked by the server that uses the directory.
pub(super) const LOCK: &str = "lock";
/// Events read from the journal at a time.
const READ_EVENTS: usize = 50_000;
/// Events that recovery hands over one by one; more are folded into the projection first.
const EVENTS_MAX: usize = 1_000_000;
/// Ids that a note names.
const NAMED_MAX: usize = 10;

/// Where the store is.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Its directory, created when missing; `None` keeps everything in memory.
    pub directory: Option<PathBuf>,
    /// Makes a lost projection anew also where the journal does not reach back to its beginning: what was
    /// submitted before is gone then.
    pub accept_loss: bool,
}

/// Opens the store and reads what a restart needs. Blocks on the disk.
///
/// A projection that is lost or damaged is set aside and rebuilt from the journal; the notes of the
/// recovery say so. Events that the projection has not seen are fed to it.
///
/// # Errors
/// Any of [`StoreError`]; a damaged journal is never passed over. [`StoreError::Lost`] when the journal has been
/// trimmed since the projection began, unless that loss is accepted; then nothing has been moved.
pub fn open(options: &Options) -> Result<(Store, Recovery), StoreError> {
    let Some(directory) = &options.directory else {
        let journal = Arc::new(MemoryJournal::open()?);
        let projection = Arc::new(MemoryProjection::default());
        return Ok((Store { journal, projection, kind: "memory" }, Recovery::default()));
    };
    std::fs::create_dir_all(directory).map_err(|error| io_fault("create", directory, &error))?;
    let lock = Arc::new(lock(&directory.join(LOCK))?);
    let paths = Paths { journal: directory.join(JOURNAL), projection: directory.join(PROJECTION) };
    let had_projection = paths.projection.exists();
    let journal = Arc::new(SqliteJournal::open(&paths.journal, Some(Arc::clone(&lock)))?);
    let mut notes = Vec::new();
    let begin = journal.oldest();
    let reaches_back = begin == Revision::default() || options.accept_loss;
    if !had_projection {
        if !reaches_back {
            return Err(lost(&paths.projection, "is missing", begin));
        }
        // It speaks of the one that is gone.
        remove(&mark::place(&paths.projection))?;
    }
    let found = match open_projection(&paths, &journal, &lock, !had_projection) {
        Ok(found) => {
            if !had_projection && journal.end() > Revision::default() {
                notes.push(rebuilt(&paths.projection, "was missing", begin));
            }
            found
        }
        Err(error) if can_be_rebuilt(&error, &paths) => {
            if !reaches_back {
                return Err(lost(&paths.projection, &format!("is not whole ({error})"), begin));
            }
            let aside = set_aside(&paths.projection)?;
            let why = format!("was set aside as `{}` ({error})", aside.display());
            notes.push(rebuilt(&paths.projection, &why, begin));
            open_projection(&paths, &journal, &lock, true)?
        }
        Err(error) => return Err(error),
    };
    let (projection, tasks, revision) = found;
    let pools = journal.pools().to_vec();
    let mut recovery = Recovery { tasks, revision, events: Vec::new(), pools, notes };
    catch_up(&journal, &projection, &mut recovery)?;
    note_lost(&mut recovery);
    let store = Store { journal, projection: Arc::new(projection), kind: "sqlite" };
    Ok((store, recovery))
}

/// Makes the projection of a store anew where it is lost or damaged, whatever cannot be brought back. Answers with
/// what the operator should know; nothing when it was whole. Blocks on the disk.
///
/// # Errors
/// Any of [`StoreError`].
pub fn rebuild(directory: &Path) -> Result<Vec<String>, StoreError> {
    expect_file(&directory.join(JOURNAL), "there is no store in this directory")?;
    let (store, recovery) = open(&Options { directory: Some(directory.to_owned()), accept_loss: true })?;
    store.projection.checkpoint()?;
    Ok(recovery.notes)
}

struct Paths {
    journal: PathBuf,
    projection: PathBuf,
}

/// With `anew`, a new file begins where the journal does; otherwise it has to be there.
fn open_projection(
    paths: &Paths,
    journal: &Arc<SqliteJournal>,
    lock: &Arc<File>,
    anew: bool,
) -> Result<(SqliteProjection, Vec<RecoveredTask>, Revision), StoreError> {
    let begin = if anew { journal.oldest() } else { Revision::default() };
    let projection = SqliteProjection::open(&paths.projection, begin, journal.clone(), Some(Arc::clone(lock)))?;
    let (tasks, revision) = projection.recover()?;
    if revision > journal.end() {
        return Err(StoreError::Corrupt {
            path: paths.journal.clone(),
            place: format!("commit {}", journal.end().next()),
            detail: format!("it ends here, but `{}` has seen {revision}", paths.projection.display()),
        });
    }
    if revision < journal.oldest() {
        return Err(StoreError::Corrupt {
            path: paths.projection.clone(),
            place: "table meta".to_owned(),
            detail: format!("it ends at {revision}, the journal begins after {}", journal.oldest()),
        });
    }
    Ok((projection, tasks, revision))
}

fn lost(path: &Path, what: &str, begin: Revision) -> StoreError {
    StoreError::Lost { path: path.to_owned(), what: what.to_owned(), begin }
}

/// Only a damaged projection can; a file of a later version, or of another program, is not ours to move.
fn can_be_rebuilt(error: &StoreError, paths: &Paths) -> bool {
    match error {
        StoreError::Corrupt { path, .. } => *path == paths.projection,
        StoreError::Foreign { path, .. } => *path == paths.projection && !has_the_magic(path),
        _ => false,
    }
}

/// Whether the file begins as every file of SQLite does.
fn has_the_magic(path: &Path) -> bool {
    let mut magic = [0; 16];
    let read = File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut magic));
    read.is_ok() && magic == *b"SQLite format 3\0"
}

/// Renames the projection, its log included, to the first free name.
fn set_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let with = |path: &Path, suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let mut number = 1;
    let target = loop {
        let target = with(path, &format!(".damaged-{number}"));
        if !target.exists() {
            break target;
        }
        number += 1;
    };
    for suffix in ["-wal", "-shm", ""] {
        let from = with(path, suffix);
        if from.exists() {
            std::fs::rename(&from, with(&target, suffix)).map_err(|error| io_fault("set aside", &from, &error))?;
        }
    }
    remove(&mark::place(path))?;
    Ok(target)
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_fault("remove", path, &error)),
        _ => Ok(()),
    }
}

fn rebuilt(path: &Path, why: &str, begin: Revision) -> String {
    let lost = if begin == Revision::default() {
        "nothing was lost".to_owned()
    } else {
        format!(
            "the journal reaches back to revision {begin} only: tasks submitted up to there are lost, \
             live ones too, as was accepted"
        )
    };
    format!("`{}` {why} and was rebuilt from the journal; {lost}", path.display())
}

/// Reads what the projection has not seen, and feeds it.
fn catch_up(journal: &SqliteJournal, projection: &SqliteProjection, recovery: &mut Recovery) -> Result<(), StoreError> {
    let end = journal.end();
    let mut at = recovery.revision;
    let mut folded = false;
    while at < end {
        let events = journal.read(at, READ_EVENTS)?;
        at = events.last().map_or(end, |event| event.revision);
        projection.feed(Arc::new(Commit { events: events.clone(), sync: true }));
        recovery.events.extend(events);
        if recovery.events.len() > EVENTS_MAX {
            folded = true;
            recovery.events = Vec::new();
            recovery.revision = at;
            recovery.tasks = Vec::new();
        }
    }
    if folded {
        projection.checkpoint()?;
        (recovery.tasks, recovery.revision) = projection.recover()?;
        recovery.events = Vec::new();
    }
    Ok(())
}

/// Names tasks that have events, but whose submission is nowhere.
fn note_lost(recovery: &mut Recovery) {
    let (submissions, changes): (Vec<&Event>, Vec<&Event>) =
        recovery.events.iter().partition(|event| matches!(event.change, Change::Submitted { .. }));
    // By the first change of each. Most of what a crash leaves are submissions: they are only looked up.
    let mut lost = BTreeMap::new();
    for event in changes {
        lost.entry(&event.task).or_insert(event.revision);
    }
    let mut found = |task, at| {
        if lost.get(task).is_some_and(|first| at < *first) {
            lost.remove(task);
        }
    };
    for event in submissions {
        found(&event.task, event.revision);
    }
    for task in &recovery.tasks {
        found(&task.spec.id, Revision(0));
    }
    if lost.is_empty() {
        return;
    }
    let named: Vec<_> = lost.keys().take(NAMED_MAX).map(ToString::to_string).collect();
    let note = format!("{} tasks have events but no submission, among them {}", lost.len(), named.join(", "));
    recovery.notes.push(note);
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|error| io_fault("open", path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(io_fault("lock", path, &error)),
    }
}

/// Says an error of the system in the store's words.
pub(super) fn io_fault(action: &'static str, path: &Path, error: &std::io::Error) -> StoreError {
    if error.kind() == std::io::ErrorKind::StorageFull {
        return StoreError::Full { path: path.to_owned() };
    }
    StoreError::Io {
        action,
        path: path.to_owned(),
        detail: format!("{error}; the server needs write access to its data directory"),
    }
}
