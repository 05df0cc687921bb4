//! Opens a store directory, rebuilds its projection if necessary, and passes its content to a receiver.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::HashSet;

use super::error::StoreError;
use super::filesystem::{create_directory, database_file, remove_if_present, require_file, try_lock};
use super::journal::SqliteJournal;
use super::memory::{MemoryJournal, MemoryProjection};
use super::paths::{JOURNAL, LOCK, PROJECTION, watermark_path, with_suffix};
use super::progress::Report;
use super::projection::SqliteProjection;
use super::traits::{Commit, Journal, Projection, Recover};
use crate::files::open_private;
use crate::model::{
    Batch, Event, LimitId, RecoveredTask, RequestRetention, Revision, Schedule, Task, TaskChange, TaskEvent, TaskId,
};

/// Events read from the journal at a time.
const READ_EVENTS: usize = 50_000;
/// Default of [`Options::unwritten_bytes`].
const UNWRITTEN_BYTES: usize = if cfg!(test) { 2 << 10 } else { 40 << 20 };
/// Task ids that a note lists.
const NOTE_IDS_MAX: usize = 10;

/// How to open the store.
#[derive(Clone, Debug)]
pub struct Options {
    /// Created when missing; `None` keeps everything in memory.
    pub directory: Option<PathBuf>,
    /// Rebuilds a lost projection even from a trimmed journal. Tasks submitted in the trimmed part are lost.
    pub accept_loss: bool,
    /// How long the projection remembers request IDs.
    pub requests: RequestRetention,
    /// About the number of bytes for events that the projection has not written yet.
    pub unwritten_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        let (requests, unwritten_bytes) = (RequestRetention::default(), UNWRITTEN_BYTES);
        Self { directory: None, accept_loss: false, requests, unwritten_bytes }
    }
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

/// Opens the store, and passes its content to `receiver`. Returns warnings for the operator too, such as a rebuilt
/// projection. Blocks on the disk.
///
/// A missing projection is rebuilt from the journal; a corrupt one is renamed first. Events that the projection lacks are
/// applied to it.
///
/// # Errors
/// Any of [`StoreError`]. [`StoreError::ProjectionLost`] when a rebuild would lose tasks and
/// [`Options::accept_loss`] is false; then no file has been changed.
pub fn open(options: &Options, receiver: &mut impl Recover) -> Result<(Store, Vec<String>), StoreError> {
    let Some(directory) = &options.directory else {
        receiver.begin(Revision::default(), &[]);
        let (journal, projection) = (Arc::<MemoryJournal>::default(), MemoryProjection::new(options.requests));
        let projection = Arc::new(projection);
        return Ok((Store { journal, projection, kind: "memory" }, Vec::new()));
    };
    create_directory(directory)?;
    let lock = Arc::new(lock(&directory.join(LOCK))?);
    let file = |name| database_file(directory.join(name));
    let paths = Paths { journal: file(JOURNAL)?, projection: file(PROJECTION)? };
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
    let (projection, revision) = match open_projection(options, &paths, &journal, &lock, !had_projection, receiver) {
        Ok(opened) => {
            if !had_projection && journal.end() > Revision::default() {
                notes.push(rebuild_note(&paths.projection, "was missing", trimmed));
            }
            opened
        }
        Err(error) if can_be_rebuilt(&error, &paths) => {
            if !may_rebuild {
                return Err(lost(format!("cannot be read ({})", error.detail())));
            }
            let moved = quarantine(&paths.projection)?;
            let why = format!("was moved to `{}` ({})", moved.display(), error.detail());
            notes.push(rebuild_note(&paths.projection, &why, trimmed));
            open_projection(options, &paths, &journal, &lock, true, receiver)?
        }
        Err(error) => return Err(error),
    };
    notes.extend(replay_journal(&journal, &projection, revision, receiver)?);
    if !journal.was_closed() {
        receiver.crashed();
    }
    Ok((Store { journal, projection: Arc::new(projection), kind: "sqlite" }, notes))
}

/// Rebuilds a missing or corrupt projection from the journal, even if tasks are lost. Returns notes for the operator;
/// none when the projection was intact. Blocks on the disk.
pub fn rebuild(directory: &Path, report: &mut Report<'_>) -> Result<Vec<String>, StoreError> {
    require_file(&directory.join(JOURNAL), "there is no store in this directory")?;
    let options = Options { directory: Some(directory.to_owned()), accept_loss: true, ..Options::default() };
    let (store, notes) = open(&options, &mut KnownTasks { tasks: HashSet::new(), events: 0, report })?;
    store.projection.checkpoint()?;
    Ok(notes)
}

/// Notices events of unknown tasks when no scheduler receives the content.
struct KnownTasks<'a> {
    tasks: HashSet<TaskId>,
    /// Events that were replayed.
    events: u64,
    report: &'a mut Report<'a>,
}

impl Recover for KnownTasks<'_> {
    fn begin(&mut self, _revision: Revision, _subjects: &[Event]) {
        self.tasks.clear();
    }

    fn restore_batch(&mut self, _batch: Batch) {}

    fn restore_schedule(&mut self, _schedule: Schedule) {}

    fn restore_bucket(&mut self, _limit: LimitId, _full_at: u64) {}

    fn restore(&mut self, task: RecoveredTask, _payload: &[u8]) {
        self.tasks.insert(task.spec.id.clone());
    }

    fn replay(&mut self, event: &Event) -> bool {
        self.events += 1;
        (self.report)("events replayed", self.events, None);
        let Some(event) = event.task() else { return true };
        match event.change {
            TaskChange::Submitted { .. } => {
                self.tasks.insert(event.task.clone());
                true
            }
            TaskChange::Deleted => self.tasks.remove(&event.task),
            _ => self.tasks.contains(&event.task),
        }
    }
}

struct Paths {
    journal: PathBuf,
    projection: PathBuf,
}

/// Opens and reads the projection, and returns its revision. A new one starts where the journal does.
fn open_projection(
    options: &Options,
    paths: &Paths,
    journal: &Arc<SqliteJournal>,
    lock: &Arc<File>,
    is_new: bool,
    receiver: &mut impl Recover,
) -> Result<(SqliteProjection, Revision), StoreError> {
    let start = if is_new { journal.oldest() } else { Revision::default() };
    let lock = Some(Arc::clone(lock));
    let (requests, memory) = (options.requests, options.unwritten_bytes);
    let projection = SqliteProjection::open(&paths.projection, start, journal.clone(), lock, requests, memory)?;
    receiver.begin(*projection.revision().borrow(), &projection.subjects()?);
    projection.for_each_batch(|batch| receiver.restore_batch(batch))?;
    projection.for_each_schedule(|schedule| receiver.restore_schedule(schedule))?;
    projection.for_each_bucket(|limit, full_at| receiver.restore_bucket(limit, full_at))?;
    let revision = projection.for_each_task(|task: Task, payload: &[u8]| receiver.restore(task.into(), payload))?;
    if revision > journal.end() {
        let detail = format!("the journal ends before, but `{}` contains {revision}", paths.projection.display());
        return Err(StoreError::corrupt(&paths.journal, format!("commit {}", journal.end().next()), detail));
    }
    if revision < journal.oldest() {
        let detail = format!("it ends at revision {revision}, but the journal starts after {}", journal.oldest());
        return Err(StoreError::corrupt(&paths.projection, "table meta", detail));
    }
    Ok((projection, revision))
}

/// Whether the projection is corrupt. A file of a later version or of another program must not be moved.
fn can_be_rebuilt(error: &StoreError, paths: &Paths) -> bool {
    match error {
        StoreError::Corrupt { path, .. } | StoreError::Malformed { path, .. } => *path == paths.projection,
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
            "the journal starts after revision {trimmed}, so tasks submitted before, including unfinished ones, and \
             pool settings changed before are lost, as was accepted"
        )
    };
    format!("`{}` {why} and was rebuilt from the journal; {lost}", path.display())
}

/// Passes on the events that the projection lacks, and applies them to it. Returns a note if some belong to tasks without
/// a submission.
fn replay_journal(
    journal: &SqliteJournal,
    projection: &SqliteProjection,
    mut at: Revision,
    receiver: &mut impl Recover,
) -> Result<Option<String>, StoreError> {
    let end = journal.end();
    let mut lost = BTreeSet::new();
    while at < end {
        let events = journal.read(at, READ_EVENTS)?;
        at = events.last().map_or(end, Event::revision);
        for event in &events {
            if !receiver.replay(event)
                && let Some(TaskEvent { task, .. }) = event.task()
                && !lost.contains(task)
            {
                lost.insert(task.clone());
            }
        }
        projection.apply(Arc::new(Commit::new(events, true)));
    }
    Ok(lost_submissions_note(&lost))
}

fn lost_submissions_note(lost: &BTreeSet<TaskId>) -> Option<String> {
    if lost.is_empty() {
        return None;
    }
    let ids: Vec<_> = lost.iter().take(NOTE_IDS_MAX).map(ToString::to_string).collect();
    Some(format!("{} tasks have events but no submission, among them {}", lost.len(), ids.join(", ")))
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let file = open_private(path).map_err(|error| StoreError::io("open", path, &error))?;
    try_lock(file, path)?.ok_or_else(|| StoreError::Locked { path: path.to_owned() })
}
