//! Copies of a store, also while a server uses it; and a look at whether a copy or a store is whole.
//!
//! A copy is of one moment: both files are read inside transactions, the projection's begun first, so
//! that the journal never ends before it. Nothing of the store that is looked at is changed.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use serde::Serialize;

use super::mark::Known;
use super::open::{JOURNAL, LOCK, PROJECTION, io_fault};
use super::sqlite::{Schema, expect_ours, fault, keep_log};
use super::{StoreError, journal, journal_check, pools, projection_query, projection_sql, wal};
use crate::model::{Task, TaskState};

/// How often the two transactions are begun again when the journal was trimmed between them.
const TRIES: usize = 20;
/// Pages that are copied at a time.
const PAGES: i32 = 1024;

/// What is in a store that was found to be whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Contents {
    /// Whether a server was using it.
    pub in_use: bool,
    /// Revisions up to here are not in the journal any more.
    pub trimmed: u64,
    /// The last revision.
    pub end: u64,
    /// Bytes of the journal's file.
    pub journal_bytes: u64,
    /// The revision that the projection has reached; the rest is in the journal.
    pub projected: u64,
    /// Bytes of the projection's file.
    pub projection_bytes: u64,
    /// Tasks of the projection by state, such as `QUEUED`.
    pub tasks: BTreeMap<&'static str, u64>,
    /// Pools that were changed while a server ran.
    pub pools: Vec<String>,
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        writeln!(f, "journal     revisions {} to {}, {} MiB", self.trimmed + 1, self.end, mib(self.journal_bytes))?;
        writeln!(f, "projection  at revision {}, {} MiB", self.projected, mib(self.projection_bytes))?;
        let states = TaskState::ALL.iter().map(|state| state.name());
        let tasks: Vec<String> =
            states.filter_map(|state| Some(format!("{} {state}", self.tasks.get(state)?))).collect();
        writeln!(f, "tasks       {}", if tasks.is_empty() { "none".to_owned() } else { tasks.join(", ") })?;
        if !self.pools.is_empty() {
            writeln!(f, "pools       changed while a server ran: {}", self.pools.join(", "))?;
        }
        writeln!(f, "every checksum fits{}", if self.in_use { "; a server is using it" } else { "" })
    }
}

/// Copies the store in `data` into the new directory `to`, and checks the copy. Blocks on the disk.
///
/// # Errors
/// Any of [`StoreError`]; then there is no directory `to`.
pub fn backup(data: &Path, to: &Path) -> Result<Contents, StoreError> {
    let partial = beside(to, ".partial")?;
    if to.exists() {
        return Err(taken(to));
    }
    let source = Source::open(data)?;
    if !source.in_use {
        // The copy has no marks that could tell of a lost end.
        examine(&source)?;
    }
    std::fs::create_dir(&partial).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => taken(&partial),
        _ => io_fault("create", &partial, &error),
    })?;
    let copied = copy_all(&source, &partial).and_then(|()| check(&partial)).and_then(|contents| {
        std::fs::rename(&partial, to).map_err(|error| io_fault("create", to, &error))?;
        to.parent().map_or(Ok(()), sync)?;
        Ok(contents)
    });
    if copied.is_err() {
        // What is left of it says by its name what it is.
        let _ = std::fs::remove_dir_all(&partial);
    }
    copied
}

/// Verifies every checksum and every index of the store or back-up in a directory. Blocks on the disk.
///
/// # Errors
/// Any of [`StoreError`]; damage is named.
pub fn check(directory: &Path) -> Result<Contents, StoreError> {
    examine(&Source::open(directory)?)
}

fn examine(source: &Source) -> Result<Contents, StoreError> {
    let (journal, projection) = (&source.journal, &source.projection);
    journal.verify_structure()?;
    let (trimmed, end) = journal_check::verify(&journal.connection, &journal.path)?;
    // The table came with the second version.
    let pools = if journal.version < 2 { Vec::new() } else { pools::load(&journal.connection, &journal.path)? };
    projection.verify_structure()?;
    let mut counts = [0_u64; 8];
    let projected = projection_query::each(&projection.connection, &projection.path, |task: Task| {
        if let Some(count) = counts.get_mut(task.status.state as usize) {
            *count += 1;
        }
    })?;
    projection_query::verify_bodies(&projection.connection, &projection.path)?;
    if !source.in_use {
        Known::read(&journal.path)?.check(&journal.path, end)?;
        Known::read(&projection.path)?.check(&projection.path, projected.0)?;
    }
    if projected.0 > end || projected.0 < trimmed {
        return Err(StoreError::Corrupt {
            path: projection.path.clone(),
            place: "table meta".to_owned(),
            detail: format!("it is at revision {projected}, the journal has those from {} to {end}", trimmed + 1),
        });
    }
    let tasks = TaskState::ALL.iter().map(|state| (state.name(), counts[*state as usize]));
    Ok(Contents {
        in_use: source.in_use,
        trimmed,
        end,
        journal_bytes: journal.bytes(),
        projected: projected.0,
        projection_bytes: projection.bytes(),
        tasks: tasks.filter(|(_, count)| *count > 0).collect(),
        pools: pools.into_iter().map(|kept| kept.name.to_string()).collect(),
    })
}

/// Both files, each inside a transaction.
struct Source {
    projection: OpenFile,
    journal: OpenFile,
    in_use: bool,
    /// Keeps servers away while nobody else does.
    _lock: Option<File>,
}

impl Source {
    fn open(directory: &Path) -> Result<Self, StoreError> {
        let (in_use, lock) = hold(&directory.join(LOCK))?;
        let (journal, projection) = (directory.join(JOURNAL), directory.join(PROJECTION));
        expect_file(&journal, "there is no store in this directory")?;
        expect_file(&projection, "it is lost; a server that is started here makes it anew, or says why it cannot")?;
        if !in_use {
            wal::check(&journal, Known::read(&journal)?.loose)?;
        }
        for _ in 0..TRIES {
            let projection = OpenFile::open(&projection, &projection_sql::SCHEMA, in_use)?;
            let reached = projection_sql::Meta::load(&projection.connection, &projection.path)?.revision;
            let journal = OpenFile::open(&journal, &journal::SCHEMA, in_use)?;
            let (trimmed, _) = journal_check::ends(&journal.connection, &journal.path)?;
            if trimmed <= reached.0 || !in_use {
                return Ok(Self { projection, journal, in_use, _lock: lock });
            }
        }
        Err(StoreError::Io {
            action: "copy",
            path: journal,
            detail: "the server trims it faster than it can be read; try again".to_owned(),
        })
    }
}

pub(super) fn expect_file(path: &Path, remedy: &str) -> Result<(), StoreError> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(StoreError::Io { action: "find", path: path.to_owned(), detail: remedy.to_owned() })
        }
        Err(error) => Err(io_fault("open", path, &error)),
    }
}

/// Whether a server holds the directory; if not, it is held for as long as the answer lives.
fn hold(path: &Path) -> Result<(bool, Option<File>), StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        // A back-up has none.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((false, None)),
        Err(error) => return Err(io_fault("open", path, &error)),
    };
    match file.try_lock() {
        Ok(()) => Ok((false, Some(file))),
        Err(TryLockError::WouldBlock) => Ok((true, None)),
        Err(TryLockError::Error(error)) => Err(io_fault("lock", path, &error)),
    }
}

struct OpenFile {
    path: PathBuf,
    connection: Connection,
    version: i64,
}

impl OpenFile {
    /// Begins a transaction, which lasts as long as the connection.
    fn open(path: &Path, schema: &Schema, in_use: bool) -> Result<Self, StoreError> {
        let has_log = std::fs::metadata(wal::log_of(path)).is_ok_and(|log| log.len() > 0);
        let open = || {
            let connection = if in_use || has_log {
                Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?
            } else {
                // Nobody writes: then it may as well lie where nobody can.
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
                Connection::open_with_flags(uri(path), flags)?
            };
            keep_log(&connection, true)?;
            connection.pragma_update(None, "query_only", true)?;
            connection.pragma_update(None, "cell_size_check", true)?;
            connection.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema;")?;
            Ok(connection)
        };
        let connection = open().map_err(|error| fault("open", path, &error))?;
        let (version, _) = expect_ours(&connection, path, schema)?;
        Ok(Self { path: path.to_owned(), connection, version })
    }

    fn bytes(&self) -> u64 {
        [self.path.clone(), wal::log_of(&self.path)]
            .iter()
            .filter_map(|path| std::fs::metadata(path).ok())
            .map(|file| file.len())
            .sum()
    }

    fn verify_structure(&self) -> Result<(), StoreError> {
        let fault = |error| fault("read", &self.path, &error);
        let found: String =
            self.connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(fault)?;
        if found == "ok" {
            return Ok(());
        }
        Err(StoreError::Corrupt { path: self.path.clone(), place: "its structure".to_owned(), detail: found })
    }

    fn copy(&self, to: &Path) -> Result<(), StoreError> {
        let copy = || {
            let mut target = Connection::open(to)?;
            let backup = Backup::new(&self.connection, &mut target)?;
            while backup.step(PAGES)? != StepResult::Done {}
            Ok(())
        };
        copy().map_err(|error| fault("write", to, &error))?;
        File::open(to).and_then(|file| file.sync_all()).map_err(|error| io_fault("sync", to, &error))
    }
}

fn copy_all(source: &Source, to: &Path) -> Result<(), StoreError> {
    source.journal.copy(&to.join(JOURNAL))?;
    source.projection.copy(&to.join(PROJECTION))?;
    sync(to)
}

fn sync(directory: &Path) -> Result<(), StoreError> {
    // The parent of a plain name is empty.
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| io_fault("sync", directory, &error))
}

fn beside(path: &Path, suffix: &str) -> Result<PathBuf, StoreError> {
    let mut name = path.file_name().ok_or_else(|| taken(path))?.to_owned();
    name.push(suffix);
    Ok(path.with_file_name(name))
}

fn taken(path: &Path) -> StoreError {
    StoreError::Io {
        action: "create",
        path: path.to_owned(),
        detail: "it is there already; remove it, or choose another name".to_owned(),
    }
}

fn uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            // Writing to a string does not fail.
            _ => drop(write!(uri, "%{byte:02X}")),
        }
    }
    uri + "?immutable=1"
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::conformance::{all, folded, listed, long, rows, scratch, sqlite, write};
    use super::*;
    use crate::model::{Revision, TaskFilter};

    #[test]
    fn a_copy_made_while_it_is_written_and_trimmed_is_whole_and_of_one_moment() {
        let directory = scratch();
        let data = directory.path().join("data %20?");
        let (store, _) = sqlite(&data).unwrap();
        let history = long();
        let ended = Arc::new(AtomicBool::new(false));
        let writing = {
            let (store, ended, commits) = (store.clone(), Arc::clone(&ended), history.commits(9));
            move || {
                for commits in commits.chunks(5) {
                    write(&store, commits);
                    let keep = commits.last().unwrap().last().0.saturating_sub(100);
                    store.journal.trim(Revision(keep)).unwrap();
                }
                ended.store(true, Ordering::Release);
            }
        };
        let writer = std::thread::Builder::new().spawn(writing).unwrap();
        let mut copies = Vec::new();
        while copies.is_empty() || (!ended.load(Ordering::Acquire) && copies.len() < 8) {
            let to = directory.path().join(format!("copy-{}", copies.len()));
            copies.push((backup(&data, &to).unwrap(), to));
        }
        writer.join().unwrap();
        for (contents, to) in copies {
            assert!(!contents.in_use);
            assert_eq!(check(&to).unwrap(), contents);
            let (store, recovery) = sqlite(&to).unwrap();
            assert!(recovery.notes.is_empty(), "{:?}", recovery.notes);
            let until = usize::try_from(contents.end).unwrap();
            let trimmed = usize::try_from(contents.trimmed).unwrap();
            assert_eq!(all(&store, store.journal.oldest()).unwrap(), history.events[trimmed..until]);
            store.projection.checkpoint().unwrap();
            let wanted: Vec<_> = folded(&history.events[..until]).values().rev().map(listed).collect();
            assert_eq!(store.projection.list(&TaskFilter::default(), rows(1000), None).unwrap().tasks, wanted);
        }
        assert!(check(&data).unwrap().in_use);
        drop(store);
        let contents = check(&data).unwrap();
        assert!(!contents.in_use);
        assert_eq!(contents.end, history.events.len() as u64);
    }

    #[test]
    fn a_flipped_byte_of_a_copy_is_found_unless_it_does_no_harm() {
        let directory = scratch();
        let (data, to) = (directory.path().join("data"), directory.path().join("copy"));
        let (store, _) = sqlite(&data).unwrap();
        write(&store, &long().commits(9));
        let whole = backup(&data, &to).unwrap();
        for file in [JOURNAL, PROJECTION] {
            let clean = std::fs::read(to.join(file)).unwrap();
            for place in (0..100).step_by(9).chain((100..clean.len()).step_by(4_999)) {
                let mut bytes = clean.clone();
                bytes[place] ^= 0x41;
                std::fs::write(to.join(file), &bytes).unwrap();
                match check(&to) {
                    Ok(found) => assert_eq!(found, whole, "{file} byte {place}"),
                    Err(error) => assert!(error.to_string().contains(file), "{file} byte {place}: {error}"),
                }
            }
            std::fs::write(to.join(file), &clean).unwrap();
        }
        assert_eq!(check(&to).unwrap(), whole, "looking changes nothing");
    }

    #[test]
    fn a_copy_never_replaces_anything_and_what_is_no_store_is_said() {
        let directory = scratch();
        let data = directory.path().join("data");
        drop(sqlite(&data).unwrap());
        let error = backup(&data, &data).unwrap_err().to_string();
        assert!(error.contains("it is there already"), "{error}");
        let nothing = directory.path().join("nothing");
        let error = backup(&nothing, &directory.path().join("copy")).unwrap_err().to_string();
        assert!(error.contains("nothing/journal.db") && error.contains("there is no store"), "{error}");
        assert!(!directory.path().join("copy").exists() && !directory.path().join("copy.partial").exists());
    }
}
