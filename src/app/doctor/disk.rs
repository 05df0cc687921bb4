//! The store's directory: whether it is writable, how much space is free, and how long a durable write takes.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::Store;
use crate::model::Timestamp;

use super::clock;
use super::report::Finding;

/// Limits of the measurement: durable writes and time.
const WRITES_MAX: usize = 500;
const MEASURE_TIME: Duration = Duration::from_secs(1);
/// Bytes per write.
const BLOCK: usize = 4_096;
/// A durable write that takes longer delays every acknowledgement noticeably.
const SLOW: Duration = Duration::from_millis(10);
/// A write that is faster cannot have reached a disk.
const TOO_FAST: Duration = Duration::from_micros(15);
/// Free bytes below which a check warns, and below which it fails.
const FREE_WARN: u64 = 1 << 30;
const FREE_FAIL: u64 = 64 << 20;

/// Files that a server must be able to write, if they exist.
const FILES: [&str; 10] = [
    "lock",
    "runs.lock",
    "journal.db",
    "journal.db-wal",
    "journal.db-shm",
    "journal.mark",
    "projection.db",
    "projection.db-wal",
    "projection.db-shm",
    "projection.mark",
];

/// File systems that lose data on a restart, or whose locks and syncs are not reliable.
const UNSUITABLE: [(i64, &str); 6] = [
    (0x0102_1994, "tmpfs, which is in memory"),
    (0x8584_58f6, "ramfs, which is in memory"),
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x6573_5546, "FUSE"),
];

pub(super) struct DiskCheck {
    pub findings: Vec<Finding>,
    /// Newest modification time of a file in the store.
    pub newest: Option<Timestamp>,
    /// Whether a server is using the store.
    pub in_use: bool,
}

pub(super) fn check(store: &Store) -> DiskCheck {
    if store.memory {
        let text = "in memory; all tasks are lost when the server stops";
        let finding = Finding::warning("store", text).with_advice("set store.directory and store.memory = false");
        return DiskCheck { findings: vec![finding], newest: None, in_use: false };
    }
    let directory = &store.directory;
    let (finding, in_use) = usage(directory);
    let mut findings = vec![finding];
    findings.extend(permissions(directory));
    let existing = nearest_existing(directory);
    findings.push(free_space(&existing));
    findings.extend(file_system(&existing));
    findings.push(match measure(&existing) {
        Ok(times) => write_speed(&existing, &times),
        Err(error) => Finding::failure("disk", format!("{} is not writable: {error}", existing.display()))
            .with_advice("give the server's user write access, or choose another directory with store.directory"),
    });
    DiskCheck { findings, newest: clock::newest(directory), in_use }
}

/// The directory, or its nearest existing ancestor: the server creates missing directories.
fn nearest_existing(directory: &Path) -> PathBuf {
    let above = directory.ancestors().find(|path| path.is_dir());
    above.filter(|path| !path.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// Also returns whether a server is using the store.
fn usage(directory: &Path) -> (Finding, bool) {
    let shown = directory.display();
    let lock = match File::open(directory.join("lock")) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return (without_lock(directory), false),
        Err(error) => {
            let text = format!("failed to look into {shown}: {error}");
            let advice = "name a directory of the server's user in store.directory, and run this command as that user";
            return (Finding::failure("store", text).with_advice(advice), false);
        }
    };
    match lock.try_lock() {
        Ok(()) => (Finding::ok("store", format!("{shown} has a store, not in use")), false),
        Err(std::fs::TryLockError::WouldBlock) => {
            (Finding::ok("store", format!("{shown} is in use by a server")), true)
        }
        Err(std::fs::TryLockError::Error(error)) => {
            let advice = "use a local file system; the lock prevents two servers from using one store";
            (Finding::failure("store", format!("failed to lock {shown}: {error}")).with_advice(advice), false)
        }
    }
}

fn without_lock(directory: &Path) -> Finding {
    let text = if directory.join("journal.db").exists() {
        "has a store that no server has used yet, such as a backup"
    } else if directory.is_dir() {
        "has no store yet"
    } else {
        "does not exist yet; the server will create it"
    };
    Finding::ok("store", format!("{} {text}", directory.display()))
}

/// Reports files of the store that this user may not write, such as after a restore by another user.
fn permissions(directory: &Path) -> Option<Finding> {
    let writable = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
    let existing = FILES.iter().filter(|name| directory.join(name).exists());
    let names: Vec<&str> =
        existing.filter(|name| rustix::fs::access(directory.join(name), writable).is_err()).copied().collect();
    let shown = directory.display();
    let text = format!("this user may not read and write {} in {shown}", names.join(", "));
    let advice = format!("run this command as the server's user, or change the owner: chown -R USER {shown}");
    (!names.is_empty()).then(|| Finding::failure("store", text).with_advice(advice))
}

fn free_space(directory: &Path) -> Finding {
    let stat = match rustix::fs::statvfs(directory) {
        Ok(stat) => stat,
        Err(error) => {
            return Finding::failure(
                "disk",
                format!("failed to read the free space of {}: {error}", directory.display()),
            );
        }
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let text = format!("{} MiB free on the disk of {}", free >> 20, directory.display());
    let advice = "free space or enlarge the volume; on a full disk submissions fail with STORE_UNAVAILABLE";
    if free < FREE_FAIL {
        Finding::failure("disk", text).with_advice(advice)
    } else if free < FREE_WARN {
        Finding::warning("disk", text).with_advice(advice)
    } else {
        Finding::ok("disk", text)
    }
}

fn file_system(directory: &Path) -> Option<Finding> {
    let magic = rustix::fs::statfs(directory).ok()?.f_type;
    let (_, name) = UNSUITABLE.iter().find(|(known, _)| *known == magic)?;
    let advice = "use a local disk or a block volume; the store needs reliable locks and syncs";
    Some(Finding::warning("disk", format!("{} is on {name}", directory.display())).with_advice(advice))
}

/// Times durable appends to an unnamed file. The result is sorted.
fn measure(directory: &Path) -> io::Result<Vec<Duration>> {
    let mut file = unnamed_file(directory)?;
    let block = [0x5a; BLOCK];
    let started = Instant::now();
    let mut times = Vec::with_capacity(WRITES_MAX);
    while times.len() < WRITES_MAX && started.elapsed() < MEASURE_TIME {
        let before = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(before.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

fn unnamed_file(directory: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(file.into()),
        // Some file systems have no unnamed files: create a named one and unlink it at once.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR) => {
            let path = directory.join(format!(".doctor-{}", uuid::Uuid::new_v4()));
            let file = File::options().create_new(true).read(true).write(true).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        }
        Err(error) => Err(error.into()),
    }
}

fn write_speed(directory: &Path, times: &[Duration]) -> Finding {
    let percentile = |percent: usize| times[(times.len() - 1) * percent / 100];
    let (median, p99) = (percentile(50), percentile(99));
    let text = format!("a durable write takes {median:.1?} (median), {p99:.1?} (p99) in {}", directory.display());
    if median >= SLOW {
        let advice = "each acknowledgement takes that long; use a faster disk, submit in batches, or set \
                      durability = \"memory\" for pools whose newest tasks may be lost on a power failure";
        Finding::warning("disk", text).with_advice(advice)
    } else if median <= TOO_FAST {
        let advice = "faster than any disk; make sure that the cache that answers survives a power failure";
        Finding::warning("disk", text).with_advice(advice)
    } else {
        Finding::ok("disk", text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;

    fn speed(micros: u64) -> State {
        write_speed(Path::new("/x"), &[Duration::from_micros(micros); 10]).state
    }

    #[test]
    fn slow_and_implausibly_fast_disks_get_a_warning() {
        assert_eq!(speed(5), State::Warn);
        assert_eq!(speed(300), State::Ok);
        assert_eq!(speed(20_000), State::Warn);
    }

    #[test]
    fn a_restored_backup_is_recognized_as_a_store() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("journal.db"), "").unwrap();
        let (finding, in_use) = usage(directory.path());
        assert!(finding.text.contains("such as a backup") && !in_use, "{}", finding.text);
        assert!(permissions(directory.path()).is_none());
    }

    #[test]
    fn a_file_in_place_of_the_directory_is_a_failure() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for path in [file.path().to_owned(), file.path().join("data")] {
            let (finding, in_use) = usage(&path);
            assert!(finding.state == State::Fail && !in_use, "{}", finding.text);
        }
    }

    #[test]
    fn a_missing_directory_is_checked_by_its_nearest_ancestor() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(nearest_existing(&directory.path().join("a/b")), directory.path());
        assert_eq!(nearest_existing(Path::new("nosuch-folder")), Path::new("."));
    }

    #[test]
    fn measuring_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let times = measure(directory.path()).unwrap();
        assert!(!times.is_empty() && times.is_sorted());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
