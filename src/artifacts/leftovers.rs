//! What a crash has left in the directory of the objects.

use std::collections::HashSet;
use std::fs::{read_dir, remove_dir};
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::keys;
use crate::files::remove_if_present;
use crate::model::{Namespace, TaskId};

/// Removes unfinished uploads other than those under way, and returns the tasks that have objects. An upload is a file that the
/// object store does not list: the name of the object, `#` and a number. Blocks.
pub(super) fn find(objects: &Path, uploading: &Mutex<HashSet<PathBuf>>) -> io::Result<Vec<(Namespace, TaskId)>> {
    let mut found = Vec::new();
    for namespace in entries(objects)? {
        for task in entries(&namespace)? {
            for attempt in entries(&task)? {
                remove_unfinished(&attempt, uploading)?;
                remove_if_empty(&attempt);
            }
            remove_if_empty(&task);
            if let (Some(namespace), Some(name)) = (name(&namespace), name(&task))
                && task.exists()
            {
                found.extend(keys::parse(namespace, name));
            }
        }
        remove_if_empty(&namespace);
    }
    Ok(found)
}

fn remove_unfinished(attempt: &Path, uploading: &Mutex<HashSet<PathBuf>>) -> io::Result<()> {
    for file in entries(attempt)? {
        let Some((object, _)) = name(&file).and_then(|name| name.split_once('#')) else { continue };
        // An upload is in the set before its file exists.
        if !uploading.lock().contains(&attempt.join(object)) {
            // It may have ended since its directory was read.
            remove_if_present(&file)?;
        }
    }
    Ok(())
}

/// The entries of a directory; none if it does not exist or is no directory.
pub(super) fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match read_dir(directory) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn remove_if_empty(directory: &Path) {
    // Fails if it is not empty. An upload creates it again.
    let _ = remove_dir(directory);
}

fn name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}
