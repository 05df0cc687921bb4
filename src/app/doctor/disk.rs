//! The store's directory: whether it can be written, how much room there is, and what one durable write costs.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::Store;
use crate::model::Timestamp;

use super::clock;
use super::report::Finding;

/// Durable writes that are measured at most, and for how long.
const WRITES: usize = 500;
const SPAN: Duration = Duration::from_secs(1);
/// Bytes of one.
const BLOCK: usize = 4_096;
/// A durable write that takes longer is felt by everyone who waits for an acknowledgement.
const SLOW: Duration = Duration::from_millis(10);
/// One that is quicker never reached a disk.
const SUSPICIOUS: Duration = Duration::from_micros(15);
/// Room below which trouble is near, and below which it is there.
const ROOM_LOW: u64 = 1 << 30;
const ROOM_NONE: u64 = 64 << 20;

/// What a server has to write, as far as it is there.
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

/// Kinds of file system that do not keep what is written, or do not promise when.
const UNFIT: [(i64, &str); 6] = [
    (0x0102_1994, "tmpfs, which is memory"),
    (0x8584_58f6, "ramfs, which is memory"),
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x6573_5546, "FUSE"),
];

/// What was found, and the newest time of any file there.
pub(super) struct Examined {
    pub findings: Vec<Finding>,
    pub newest: Option<Timestamp>,
    /// Whether a server uses the store.
    pub in_use: bool,
}

pub(super) fn examine(store: &Store) -> Examined {
    if store.memory {
        let text = "in memory: every task is lost when the server ends";
        let finding = Finding::doubtful("store", text).advise("set store.directory, and store.memory = false");
        return Examined { findings: vec![finding], newest: None, in_use: false };
    }
    let directory = &store.directory;
    let (finding, in_use) = used(directory);
    let mut findings = vec![finding];
    findings.extend(foreign(directory));
    let place = existing(directory);
    findings.push(room(&place));
    findings.extend(kind(&place));
    findings.push(match measure(&place) {
        Ok(times) => judge(&place, &times),
        Err(error) => Finding::bad("disk", format!("{} cannot be written: {error}", place.display()))
            .advise("give the server's user this directory, or choose another with store.directory"),
    });
    Examined { findings, newest: clock::newest(directory), in_use }
}

/// The directory, or the nearest above it that is there: the server would make what is missing.
fn existing(directory: &Path) -> PathBuf {
    let above = directory.ancestors().find(|path| path.is_dir());
    above.filter(|path| !path.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// And whether it is in use.
fn used(directory: &Path) -> (Finding, bool) {
    let shown = directory.display();
    let Ok(lock) = File::open(directory.join("lock")) else {
        let text = if directory.join("journal.db").exists() {
            "has a store that no server has used yet, such as a back-up"
        } else if directory.is_dir() {
            "has no store yet"
        } else {
            "does not exist yet, and will be made"
        };
        return (Finding::well("store", format!("{shown} {text}")), false);
    };
    match lock.try_lock() {
        Ok(()) => (Finding::well("store", format!("{shown} is there, and no server uses it")), false),
        Err(std::fs::TryLockError::WouldBlock) => (Finding::well("store", format!("a server uses {shown}")), true),
        Err(std::fs::TryLockError::Error(error)) => {
            let advice = "use a local file system: the lock keeps two servers from one store";
            (Finding::bad("store", format!("{shown} cannot be locked: {error}")).advise(advice), false)
        }
    }
}

/// Files of the store that this user may not write, as after a restoration by another user.
fn foreign(directory: &Path) -> Option<Finding> {
    let writable = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
    let there = FILES.iter().filter(|name| directory.join(name).exists());
    let names: Vec<&str> =
        there.filter(|name| rustix::fs::access(directory.join(name), writable).is_err()).copied().collect();
    let shown = directory.display();
    let text = format!("this user may not read and write, in {shown}: {}", names.join(", "));
    let advice = format!("run it as the server's user; else give that user the files: chown -R USER {shown}");
    (!names.is_empty()).then(|| Finding::bad("store", text).advise(advice))
}

fn room(place: &Path) -> Finding {
    let about = match rustix::fs::statvfs(place) {
        Ok(about) => about,
        Err(error) => return Finding::bad("disk", format!("{}: {error}", place.display())),
    };
    let free = about.f_bavail.saturating_mul(about.f_frsize);
    let text = format!("{} MiB are free on the disk of {}", free >> 20, place.display());
    let advice = "free space or enlarge the volume: on a full disk submissions get STORE_UNAVAILABLE";
    if free < ROOM_NONE {
        Finding::bad("disk", text).advise(advice)
    } else if free < ROOM_LOW {
        Finding::doubtful("disk", text).advise(advice)
    } else {
        Finding::well("disk", text)
    }
}

fn kind(place: &Path) -> Option<Finding> {
    let magic = rustix::fs::statfs(place).ok()?.f_type;
    let (_, name) = UNFIT.iter().find(|(known, _)| *known == magic)?;
    let advice = "use a disk of this machine or a block volume: the store needs locks and syncs that hold";
    Some(Finding::doubtful("disk", format!("{} is on {name}", place.display())).advise(advice))
}

/// Appends that are each made durable, in a file without a name.
fn measure(place: &Path) -> io::Result<Vec<Duration>> {
    let mut file = nameless(place)?;
    let block = [0x5a; BLOCK];
    let began = Instant::now();
    let mut times = Vec::with_capacity(WRITES);
    while times.len() < WRITES && began.elapsed() < SPAN {
        let before = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(before.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

fn nameless(place: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(place, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(file.into()),
        // Some file systems know no files without a name: it loses its name at once.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR) => {
            let path = place.join(format!(".doctor-{}", uuid::Uuid::new_v4()));
            let file = File::options().create_new(true).read(true).write(true).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        }
        Err(error) => Err(error.into()),
    }
}

fn judge(place: &Path, times: &[Duration]) -> Finding {
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    let (half, most) = (at(50), at(99));
    let text = format!("one durable write takes {half:.1?}, 1 in 100 takes {most:.1?} ({})", place.display());
    if half >= SLOW {
        let advice = "expect that long for each acknowledgement; use a faster disk, submit in batches, or give \
                      durability = \"memory\" to pools whose newest tasks may be lost with the power";
        Finding::doubtful("disk", text).advise(advice)
    } else if half <= SUSPICIOUS {
        let advice = "no disk is that quick: a cache answers. Make sure that it survives a loss of power";
        Finding::doubtful("disk", text).advise(advice)
    } else {
        Finding::well("disk", text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;

    fn judged(micros: u64) -> State {
        judge(Path::new("/x"), &[Duration::from_micros(micros); 10]).state
    }

    #[test]
    fn a_slow_disk_and_one_too_quick_are_doubtful() {
        assert_eq!(judged(5), State::Warn);
        assert_eq!(judged(300), State::Ok);
        assert_eq!(judged(20_000), State::Warn);
    }

    #[test]
    fn a_back_up_that_was_put_in_place_is_seen_as_a_store() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("journal.db"), "").unwrap();
        let (finding, in_use) = used(directory.path());
        assert!(finding.text.contains("such as a back-up") && !in_use, "{}", finding.text);
        assert!(foreign(directory.path()).is_none());
    }

    #[test]
    fn what_does_not_exist_is_judged_by_what_is_above_it() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(existing(&directory.path().join("a/b")), directory.path());
        assert_eq!(existing(Path::new("nosuch-folder")), Path::new("."));
    }

    #[test]
    fn measuring_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let times = measure(directory.path()).unwrap();
        assert!(!times.is_empty() && times.is_sorted());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
