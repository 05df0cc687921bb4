//! Opens a store directory, rebuilds its projection if necessary, and reads what a restart needs.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::StoreError;
use super::journal::SqliteJournal;
use super::memory::{MemoryJournal, MemoryProjection};
use super::paths::{JOURNAL, LOCK, PROJECTION, remove_if_present, require_file, try_lock, watermark_path, with_suffix};
use super::pool_override::PoolOverride;
use super::projection::SqliteProjection;
use super::traits::{Commit, Journal, Projection};
use crate::model::{Event, RecoveredTask, Revision, TaskChange, TaskEvent};

/// Events read from the journal at a time.
const READ_EVENTS: usize = 50_000;
/// Events that recovery returns one by one. If there are more, they are folded into the tasks first.
const EVENTS_MAX: usize = 1_000_000;
/// Task ids that a note lists.
const NOTE_IDS_MAX: usize = 10;

/// How to open the store.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Created when missing; `None` keeps everything in memory.
    pub directory: Option<PathBuf>,
    /// Rebuilds a lost projection even from a trimmed journal. Tasks submitted in the trimmed part are lost.
    pub accept_loss: bool,
}

/// An open store. Its files are closed with the last clone.
#[derive(Clone)]
pub struct Store {
    /// The source of truth.
    pub journal: Arc<dyn Journal>,
    /// Answers queries.
    pub projection: Arc<dyn Projection>,
    /// `sqlite` or `memory`.
    pub kind: &'static str,
}

/// What a restart needs: the rows of the projection, and the later events of the journal.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// All tasks of the projection, finished ones too, in the order of submission and without results.
    pub tasks: Vec<RecoveredTask>,
    /// The revision whose state `tasks` shows.
    pub revision: Revision,
    /// All later events, in order.
    pub events: Vec<Event>,
    /// Pool settings that were changed while a server ran.
    pub pools: Vec<PoolOverride>,
    /// Warnings for the operator, such as a rebuilt projection.
    pub notes: Vec<String>,
}

/// Opens the store and reads what a restart needs. Blocks on the disk.
///
/// A missing projection is rebuilt from the journal; a corrupt one is renamed first. A note in the recovery reports it.
/// Events that the projection lacks are applied to it.
///
/// # Errors
/// Any of [`StoreError`]. [`StoreError::ProjectionLost`] when a rebuild would lose tasks and
/// [`Options::accept_loss`] is false; then no file has been changed.
pub fn open(options: &Options) -> Result<(Store, Recovery), StoreError> {
    let Some(directory) = &options.directory else {
        let (journal, projection) = (Arc::<MemoryJournal>::default(), Arc::<MemoryProjection>::default());
        return Ok((Store { journal, projection, kind: "memory" }, Recovery::default()));
    };
    std::fs::create_dir_all(directory).map_err(|error| StoreError::io("create", directory, &error))?;
    let lock = Arc::new(lock(&directory.join(LOCK))?);
    let paths = Paths { journal: directory.join(JOURNAL), projection: directory.join(PROJECTION) };
    let had_projection = paths.projection.exists();
    let journal = Arc::new(SqliteJournal::open(&paths.journal, Some(Arc::clone(&lock)))?);
    let trimmed = journal.oldest();
    let may_rebuild = trimmed == Revision::default() || options.accept_loss;
    let lost = |problem: String| StoreError::ProjectionLost { path: paths.projection.clone(), problem, trimmed };
    if !had_projection {
        if !may_rebuild {
            return Err(lost("is missing".to_owned()));
        }
        // The watermark describes the missing file.
        remove_if_present(&watermark_path(&paths.projection))?;
    }
    let mut notes = Vec::new();
    let (projection, tasks, revision) = match open_projection(&paths, &journal, &lock, !had_projection) {
        Ok(opened) => {
            if !had_projection && journal.end() > Revision::default() {
                notes.push(rebuild_note(&paths.projection, "was missing", trimmed));
            }
            opened
        }
        Err(error) if can_be_rebuilt(&error, &paths) => {
            if !may_rebuild {
                return Err(lost(format!("cannot be read ({error})")));
            }
            let moved = quarantine(&paths.projection)?;
            let why = format!("was moved to `{}` ({error})", moved.display());
            notes.push(rebuild_note(&paths.projection, &why, trimmed));
            open_projection(&paths, &journal, &lock, true)?
        }
        Err(error) => return Err(error),
    };
    let pools = journal.pool_overrides().to_vec();
    let mut recovery = Recovery { tasks, revision, events: Vec::new(), pools, notes };
    replay_journal(&journal, &projection, &mut recovery)?;
    note_lost_submissions(&mut recovery);
    let store = Store { journal, projection: Arc::new(projection), kind: "sqlite" };
    Ok((store, recovery))
}

/// Rebuilds a missing or corrupt projection from the journal, even if tasks are lost. Returns notes for the operator;
/// none when the projection was intact. Blocks on the disk.
pub fn rebuild(directory: &Path) -> Result<Vec<String>, StoreError> {
    require_file(&directory.join(JOURNAL), "there is no store in this directory")?;
    let (store, recovery) = open(&Options { directory: Some(directory.to_owned()), accept_loss: true })?;
    store.projection.checkpoint()?;
    Ok(recovery.notes)
}

struct Paths {
    journal: PathBuf,
    projection: PathBuf,
}

/// Opens and reads the projection. A new one starts where the journal does.
fn open_projection(
    paths: &Paths,
    journal: &Arc<SqliteJournal>,
    lock: &Arc<File>,
    is_new: bool,
) -> Result<(SqliteProjection, Vec<RecoveredTask>, Revision), StoreError> {
    let start = if is_new { journal.oldest() } else { Revision::default() };
    let projection = SqliteProjection::open(&paths.projection, start, journal.clone(), Some(Arc::clone(lock)))?;
    let (tasks, revision) = projection.recover()?;
    if revision > journal.end() {
        let detail = format!("the journal ends before, but `{}` contains {revision}", paths.projection.display());
        return Err(StoreError::corrupt(&paths.journal, format!("commit {}", journal.end().next()), detail));
    }
    if revision < journal.oldest() {
        let detail = format!("it ends at revision {revision}, but the journal starts after {}", journal.oldest());
        return Err(StoreError::corrupt(&paths.projection, "table meta", detail));
    }
    Ok((projection, tasks, revision))
}

/// Whether the projection is corrupt. A file of a later version or of another program must not be moved.
fn can_be_rebuilt(error: &StoreError, paths: &Paths) -> bool {
    match error {
        StoreError::Corrupt { path, .. } => *path == paths.projection,
        StoreError::Incompatible { path, .. } => *path == paths.projection && !is_sqlite_file(path),
        _ => false,
    }
}

fn is_sqlite_file(path: &Path) -> bool {
    let mut magic = [0; 16];
    let read = File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut magic));
    read.is_ok() && magic == *b"SQLite format 3\0"
}

/// Renames the projection and its log to the first free `.damaged-N`, and returns that path.
fn quarantine(path: &Path) -> Result<PathBuf, StoreError> {
    let mut number = 1;
    let target = loop {
        let target = with_suffix(path, &format!(".damaged-{number}"));
        if !target.exists() {
            break target;
        }
        number += 1;
    };
    for suffix in ["-wal", "-shm", ""] {
        let from = with_suffix(path, suffix);
        if from.exists() {
            let renamed = std::fs::rename(&from, with_suffix(&target, suffix));
            renamed.map_err(|error| StoreError::io("rename", &from, &error))?;
        }
    }
    remove_if_present(&watermark_path(path))?;
    Ok(target)
}

fn rebuild_note(path: &Path, why: &str, trimmed: Revision) -> String {
    let lost = if trimmed == Revision::default() {
        "nothing was lost".to_owned()
    } else {
        format!(
            "the journal starts after revision {trimmed}, so tasks submitted before, including unfinished ones, are \
             lost, as was accepted"
        )
    };
    format!("`{}` {why} and was rebuilt from the journal; {lost}", path.display())
}

/// Reads the events that the projection lacks, and applies them.
fn replay_journal(
    journal: &SqliteJournal,
    projection: &SqliteProjection,
    recovery: &mut Recovery,
) -> Result<(), StoreError> {
    let end = journal.end();
    let mut at = recovery.revision;
    let mut fold = false;
    while at < end {
        let events = journal.read(at, READ_EVENTS)?;
        at = events.last().map_or(end, Event::revision);
        projection.apply(Arc::new(Commit { events: events.clone(), sync: true }));
        recovery.events.extend(events);
        if recovery.events.len() > EVENTS_MAX {
            fold = true;
            recovery.events = Vec::new();
            recovery.revision = at;
            recovery.tasks = Vec::new();
        }
    }
    if fold {
        projection.checkpoint()?;
        (recovery.tasks, recovery.revision) = projection.recover()?;
        recovery.events = Vec::new();
    }
    Ok(())
}

/// Adds a note about tasks that have events but no submission.
fn note_lost_submissions(recovery: &mut Recovery) {
    let (submissions, changes): (Vec<&TaskEvent>, Vec<&TaskEvent>) = recovery
        .events
        .iter()
        .filter_map(Event::task)
        .partition(|event| matches!(event.change, TaskChange::Submitted { .. }));
    // The first change of each task. Only changes are stored here, since most events after a crash are submissions.
    let mut lost = BTreeMap::new();
    for event in changes {
        lost.entry(&event.task).or_insert(event.revision);
    }
    let mut remove_submitted = |task, at| {
        if lost.get(task).is_some_and(|first| at < *first) {
            lost.remove(task);
        }
    };
    for event in submissions {
        remove_submitted(&event.task, event.revision);
    }
    for task in &recovery.tasks {
        remove_submitted(&task.spec.id, Revision(0));
    }
    if lost.is_empty() {
        return;
    }
    let ids: Vec<_> = lost.keys().take(NOTE_IDS_MAX).map(ToString::to_string).collect();
    let note = format!("{} tasks have events but no submission, among them {}", lost.len(), ids.join(", "));
    recovery.notes.push(note);
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|error| StoreError::io("open", path, &error))?;
    try_lock(file, path)?.ok_or_else(|| StoreError::Locked { path: path.to_owned() })
}
