//! Copies a store directory, also while a server uses it, and checks a store or a copy.
//!
//! A copy shows one moment: both files are read inside transactions, and the transaction of the projection starts
//! first, so that the journal never ends before the projection. The modules of uploaded handlers are opened while both last.
//! The store itself is not changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use serde::Serialize;

use super::error::StoreError;
use super::filesystem::{database_file, require_file, sync_directory, try_lock};
use super::journal::Bounds;
use super::modules::{self, ModuleFile};
use super::paths::{JOURNAL, LOCK, PROJECTION, wal_path, with_suffix};
use super::progress::Report;
use super::record::Subjects;
use super::sqlite::{
    Schema, connect, connect_immutable, keep_wal_on_close, schema_version, sqlite_error, verify_structure,
};
use super::watermark::WatermarkRecord;
use super::{journal, projection, wal_check};
use crate::files::{create_new_private_directory, make_private};
use crate::model::{Event, Task, TaskState};

/// How often both transactions are restarted when the journal is trimmed between them, or a module is replaced after them.
const ATTEMPTS_MAX: usize = 20;
/// Pages copied at a time.
const PAGES: i32 = 1024;

/// The content of a store whose checksums all match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    pub in_use: bool,
    /// Revisions up to here have been trimmed from the journal.
    pub trimmed: u64,
    /// The last revision of the journal.
    pub end: u64,
    /// Size of the journal, with its log.
    pub journal_bytes: u64,
    /// The last revision of the projection; later ones are only in the journal.
    pub projected: u64,
    /// Size of the projection, with its log.
    pub projection_bytes: u64,
    /// Number of tasks in the projection by state, such as `QUEUED`.
    pub tasks: BTreeMap<&'static str, u64>,
    /// Pools whose settings were changed while a server ran.
    pub pools: Vec<String>,
    /// Modules of uploaded handlers.
    pub modules: usize,
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        writeln!(f, "journal     revisions {} to {}, {} MiB", self.trimmed + 1, self.end, mib(self.journal_bytes))?;
        writeln!(f, "projection  at revision {}, {} MiB", self.projected, mib(self.projection_bytes))?;
        let states = TaskState::ALL.iter().map(|state| state.name());
        let tasks: Vec<String> =
            states.filter_map(|state| Some(format!("{} {state}", self.tasks.get(state)?))).collect();
        let tasks = if tasks.is_empty() { "none".to_owned() } else { tasks.join(", ") };
        let later = self.end.saturating_sub(self.projected);
        let at = if later > 0 {
            format!(" at revision {}, before {later} later changes", self.projected)
        } else {
            String::new()
        };
        writeln!(f, "tasks       {tasks}{at}")?;
        if !self.pools.is_empty() {
            writeln!(f, "pools       settings changed at run time: {}", self.pools.join(", "))?;
        }
        if self.modules > 0 {
            writeln!(f, "modules     {}", self.modules)?;
        }
        writeln!(f, "all checksums match{}", if self.in_use { "; a server is using the store" } else { "" })
    }
}

/// Copies the store in `data` to the new directory `to`, and checks the copy. Blocks on the disk.
/// On an error, `to` has not been created.
pub fn backup(data: &Path, to: &Path, report: &mut Report<'_>) -> Result<CheckReport, StoreError> {
    let partial = partial(to).ok_or_else(|| already_exists(to))?;
    if to.exists() {
        return Err(already_exists(to));
    }
    let source = Source::open(data)?;
    if !source.in_use {
        // The copy has no watermarks, so a lost end of the source would go unnoticed there.
        examine(&source, report)?;
    }
    let _writing = create_partial(&partial).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => already_exists(&partial),
        _ => StoreError::io("create", &partial, &error),
    })?;
    let copied = copy_all(&source, &partial, report).and_then(|()| check(&partial, report)).and_then(|checked| {
        std::fs::rename(&partial, to).map_err(|error| StoreError::io("create", to, &error))?;
        to.parent().map_or(Ok(()), sync_directory)?;
        Ok(checked)
    });
    if copied.is_err() {
        // If this fails too, the suffix shows that the copy is incomplete.
        let _ = std::fs::remove_dir_all(&partial);
    }
    copied
}

/// Removes what a backup to `to` has written so far, if it is not complete.
pub fn discard_backup(to: &Path) {
    let Some(partial) = partial(to) else { return };
    // The copy may still add files. If it adds too many, the suffix shows that it is incomplete.
    for _ in 0..100 {
        match std::fs::remove_dir_all(&partial) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            _ => return,
        }
    }
}

/// Where a backup is written until it is complete; `None` if `to` has no name.
fn partial(to: &Path) -> Option<PathBuf> {
    // This drops a trailing slash.
    Some(with_suffix(&to.with_file_name(to.file_name()?), ".partial"))
}

/// Creates the directory, in place of one that a killed backup has left. It is in use while the returned file is open.
fn create_partial(path: &Path) -> io::Result<File> {
    let created = create_new_private_directory(path);
    if created.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
        let left = File::open(path)?;
        if left.try_lock().is_err() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        std::fs::remove_dir_all(path)?;
        create_new_private_directory(path)?;
    } else {
        created?;
    }
    let directory = File::open(path)?;
    // Without locks, as on some network file systems, a backup that is left has to be removed by hand.
    let _ = directory.try_lock();
    Ok(directory)
}

/// Verifies every checksum and every index of a store or backup. Blocks on the disk.
pub fn check(directory: &Path, report: &mut Report<'_>) -> Result<CheckReport, StoreError> {
    examine(&Source::open(directory)?, report)
}

fn examine(source: &Source, report: &mut Report<'_>) -> Result<CheckReport, StoreError> {
    let (journal, projection) = (&source.journal, &source.projection);
    verify_structure(&journal.connection, &journal.path, &journal::SCHEMA)?;
    let Bounds { trimmed: before, .. } = Bounds::load(&journal.connection, &journal.path)?;
    // The end that is recorded can be earlier than the last commit, so that the number is not known.
    let (Bounds { trimmed, end }, _) = journal::verify(&journal.connection, &journal.path, |reached| {
        report("events checked", reached.saturating_sub(before), None);
    })?;
    // The table of identities was added in version 3, and that of the lease in version 4.
    if journal.version >= 3 {
        journal::load_store_id(&journal.connection, &journal.path)?;
    }
    if journal.version >= 4 {
        journal::load_epoch(&journal.connection, &journal.path)?;
    }
    verify_structure(&projection.connection, &projection.path, &projection::SCHEMA)?;
    let stored = projection::Meta::load(&projection.connection, &projection.path)?.tasks;
    let mut counts = [0_u64; 8];
    let (projected, expected) =
        projection::for_each_task(&projection.connection, &projection.path, |task: Task, _| {
            if let Some(count) = counts.get_mut(task.status.state as usize) {
                *count += 1;
            }
            report("tasks checked", counts.iter().sum(), Some(stored));
        })?;
    projection::verify_bodies(&projection.connection, &projection.path)?.verify(&expected, &projection.path)?;
    // The table of request ids was added in version 4.
    if projection.version >= 4 {
        projection::verify_requests(&projection.connection, &projection.path)?;
    }
    // The table of schedules was added in version 6.
    if projection.version >= 6 {
        projection::verify_schedules(&projection.connection, &projection.path)?;
    }
    // The table of token buckets was added in version 7.
    if projection.version >= 7 {
        projection::verify_buckets(&projection.connection, &projection.path)?;
    }
    let pools = changed_pools(journal, projection)?;
    source.modules.iter().try_for_each(ModuleFile::verify)?;
    if !source.in_use {
        WatermarkRecord::read(&journal.path)?.check(&journal.path, end)?;
        WatermarkRecord::read(&projection.path)?.check(&projection.path, projected.0)?;
    }
    if projected.0 > end || projected.0 < trimmed {
        let detail = format!("it is at revision {projected}, but the journal has {} to {end}", trimmed + 1);
        return Err(StoreError::corrupt(&projection.path, "table meta", detail));
    }
    let tasks = TaskState::ALL.iter().map(|state| (state.name(), counts[*state as usize]));
    Ok(CheckReport {
        in_use: source.in_use,
        trimmed,
        end,
        journal_bytes: journal.bytes(),
        projected: projected.0,
        projection_bytes: projection.bytes(),
        tasks: tasks.filter(|(_, count)| *count > 0).collect(),
        pools,
        modules: source.modules.len(),
    })
}

/// Names of the pools whose settings were changed while a server ran.
fn changed_pools(journal: &OpenFile, projection: &OpenFile) -> Result<Vec<String>, StoreError> {
    let table = journal::load_pool_table(&journal.connection, &journal.path)?;
    let mut names: BTreeSet<String> = table.into_iter().map(|(name, _)| name.to_string()).collect();
    names.extend(subjects(projection)?.events().iter().filter_map(|event| match event {
        Event::Pool(event) => Some(event.pool.to_string()),
        Event::Task(_) | Event::Batch(_) | Event::Schedule(_) | Event::Handler(_) => None,
    }));
    Ok(names.into_iter().collect())
}

/// The pools and handlers in the projection.
fn subjects(projection: &OpenFile) -> Result<Subjects, StoreError> {
    // The table of subjects was added in version 2.
    if projection.version < 2 {
        return Ok(Subjects::default());
    }
    projection::load_subjects(&projection.connection, &projection.path)
}

/// A store whose files are open, each inside a transaction.
struct Source {
    projection: OpenFile,
    journal: OpenFile,
    modules: Vec<ModuleFile>,
    in_use: bool,
    /// Keeps servers from starting, unless one is running.
    _lock: Option<File>,
}

impl Source {
    fn open(directory: &Path) -> Result<Self, StoreError> {
        let (in_use, lock) = lock_unless_in_use(&directory.join(LOCK))?;
        let (journal, projection) =
            (database_file(directory.join(JOURNAL))?, database_file(directory.join(PROJECTION))?);
        require_file(&journal, "there is no store in this directory")?;
        require_file(&projection, "it is missing; start a server in this directory to rebuild it")?;
        if !in_use {
            wal_check::check(&journal, WatermarkRecord::read(&journal)?.unsynced)?;
        }
        let mut last_error = None;
        for _ in 0..ATTEMPTS_MAX {
            let projection = OpenFile::open(&projection, &projection::SCHEMA, in_use)?;
            let projected = projection::Meta::load(&projection.connection, &projection.path)?.revision;
            let journal = OpenFile::open(&journal, &journal::SCHEMA, in_use)?;
            let Bounds { trimmed, .. } = Bounds::load(&journal.connection, &journal.path)?;
            if trimmed > projected.0 && in_use {
                continue;
            }
            let mut subjects = subjects(&projection)?;
            let later = journal::handler_events(&journal.connection, &journal.path, projected)?;
            for event in &later {
                subjects.apply(event);
            }
            match modules::open(directory, &subjects) {
                Ok(modules) => return Ok(Self { projection, journal, modules, in_use, _lock: lock }),
                // The server may have removed it after the transactions had begun.
                Err(error) if in_use => last_error = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last_error.unwrap_or_else(|| StoreError::Io {
            action: "copy",
            path: journal,
            detail: "the server trims the journal faster than it can be read; try again".to_owned(),
        }))
    }
}

/// Whether a server is using the directory. If not, the returned lock keeps servers from starting.
fn lock_unless_in_use(path: &Path) -> Result<(bool, Option<File>), StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        // A backup has no lock file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((false, None)),
        Err(error) => return Err(StoreError::io("open", path, &error)),
    };
    let lock = try_lock(file, path)?;
    Ok((lock.is_none(), lock))
}

struct OpenFile {
    path: PathBuf,
    connection: Connection,
    version: i64,
}

impl OpenFile {
    /// Starts a transaction that lasts as long as the connection.
    fn open(path: &Path, schema: &Schema, in_use: bool) -> Result<Self, StoreError> {
        let has_log = std::fs::metadata(wal_path(path)).is_ok_and(|log| log.len() > 0);
        let open = || {
            let connection = if in_use || has_log {
                connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?
            } else {
                connect_immutable(path)?
            };
            keep_wal_on_close(&connection, true)?;
            connection.pragma_update(None, "query_only", true)?;
            connection.pragma_update(None, "cell_size_check", true)?;
            connection.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema;")?;
            Ok(connection)
        };
        let connection = open().map_err(|error| sqlite_error("open", path, &error))?;
        let (version, _) = schema_version(&connection, path, schema)?;
        Ok(Self { path: path.to_owned(), connection, version })
    }

    fn bytes(&self) -> u64 {
        [self.path.clone(), wal_path(&self.path)]
            .iter()
            .filter_map(|path| std::fs::metadata(path).ok())
            .map(|file| file.len())
            .sum()
    }

    fn copy(&self, to: &Path, report: &mut Report<'_>) -> Result<(), StoreError> {
        make_private(to).map_err(|error| StoreError::io("create", to, &error))?;
        let mut copy = || {
            let mut target = connect(to, OpenFlags::default())?;
            let backup = Backup::new(&self.connection, &mut target)?;
            loop {
                let is_done = backup.step(PAGES)? == StepResult::Done;
                let pages = backup.progress();
                let [all, left] = [pages.pagecount, pages.remaining].map(|pages| u64::try_from(pages).unwrap_or(0));
                report("pages copied", all.saturating_sub(left), Some(all));
                if is_done {
                    return Ok(());
                }
            }
        };
        copy().map_err(|error| sqlite_error("write", to, &error))?;
        File::open(to).and_then(|file| file.sync_all()).map_err(|error| StoreError::io("sync", to, &error))
    }
}

fn copy_all(source: &Source, to: &Path, report: &mut Report<'_>) -> Result<(), StoreError> {
    source.journal.copy(&to.join(JOURNAL), report)?;
    source.projection.copy(&to.join(PROJECTION), report)?;
    modules::copy(&source.modules, to)?;
    sync_directory(to)
}

fn already_exists(path: &Path) -> StoreError {
    StoreError::Io {
        action: "create",
        path: path.to_owned(),
        detail: "it already exists; remove it or choose another name".to_owned(),
    }
}
