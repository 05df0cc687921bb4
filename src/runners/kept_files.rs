//! Private files of a directory that are kept as long as something uses them. Their names begin with a SHA-256 in hexadecimal.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::files::{remove_if_present, replace, require_private_directory};

const FILE_MODE: u32 = 0o600;
const DIGEST_LENGTH: usize = 64;

pub(super) struct KeptFiles {
    directory: PathBuf,
    /// By name. Locked while files are written and removed.
    used: Mutex<BTreeMap<String, Weak<()>>>,
}

/// The file is kept as long as one of these exists.
pub(super) struct InUse {
    _mark: Arc<()>,
}

impl KeptFiles {
    /// The directory is created when the first file is written.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, used: Mutex::default() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Marks a file as used, whether it exists or not.
    pub fn mark(&self, name: &str) -> InUse {
        let mut used = self.used.lock();
        if let Some(mark) = used.get(name).and_then(Weak::upgrade) {
            return InUse { _mark: mark };
        }
        let mark = Arc::new(());
        used.insert(name.to_owned(), Arc::downgrade(&mark));
        InUse { _mark: mark }
    }

    /// Replaces a file durably. Mark it first.
    ///
    /// # Errors
    /// Also if the directory belongs to another user, or is a symbolic link.
    pub fn write(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        let path = self.path(name);
        let _locked = self.used.lock();
        require_private_directory(&self.directory)?;
        // A file that cannot be trusted would keep its owner and mode.
        remove_if_present(&path)?;
        replace(&path, contents, FILE_MODE)
    }

    /// Removes the files that are not in use, and drafts of a crash. Files with other names are not ours.
    pub fn remove_unused(&self) {
        let mut used = self.used.lock();
        used.retain(|_, mark| mark.strong_count() > 0);
        let Ok(entries) = std::fs::read_dir(&self.directory) else { return };
        let is_unused = |name: &str| has_digest(name) && !used.contains_key(name);
        for entry in entries.flatten().filter(|entry| is_unused(&entry.file_name().to_string_lossy())) {
            // What cannot be removed now is tried again later.
            let _ = remove_if_present(&entry.path());
        }
    }
}

fn has_digest(name: &str) -> bool {
    name.get(..DIGEST_LENGTH).is_some_and(|digest| digest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use super::*;

    fn names(directory: &Path) -> BTreeSet<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_kept_until_its_last_mark_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let files = KeptFiles::new(directory.path().join("kept"));
        files.remove_unused();
        let [a, b, c, draft] = ["a.wasm", "b.wasm", "c", "d.wasm.draft"].map(|name| {
            let (first, rest) = name.split_at(1);
            first.repeat(DIGEST_LENGTH) + rest
        });
        let marks = [&a, &b].map(|name| (files.mark(name), files.mark(name)));
        for name in [&*a, &b, &b, &c, &draft, "precious.wasm"] {
            files.write(name, name.as_bytes()).unwrap();
        }
        let [(first, second), of_b] = marks;
        drop((second, of_b));
        files.remove_unused();
        let foreign = "precious.wasm".to_owned();
        assert_eq!(names(&files.directory), [a.clone(), foreign.clone()].into());
        let again = files.mark(&a);
        drop(first);
        files.remove_unused();
        assert_eq!(std::fs::read(files.path(&a)).unwrap(), a.as_bytes());
        drop(again);
        files.remove_unused();
        assert_eq!(names(&files.directory), [foreign].into());
    }

    #[test]
    fn files_are_private_and_nothing_is_written_through_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let files = KeptFiles::new(directory.path().join("kept"));
        files.write("a", b"1").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&files.directory), mode(&files.path("a"))), (0o700, 0o600));
        let precious = directory.path().join("precious");
        std::fs::write(&precious, "precious").unwrap();
        std::fs::remove_file(files.path("a")).unwrap();
        symlink(&precious, files.path("a")).unwrap();
        files.write("a", b"2").unwrap();
        assert_eq!(std::fs::read(files.path("a")).unwrap(), b"2");
        std::fs::rename(&files.directory, directory.path().join("moved")).unwrap();
        symlink(directory.path().join("moved"), &files.directory).unwrap();
        assert!(files.write("b", b"3").is_err(), "the directory is a link");
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
    }
}
