//! What a crash has left in the directory of the objects, and the tasks that have objects.

use std::fs::{read_dir, remove_dir};
use std::io;
use std::path::{Path, PathBuf};

use object_store::ObjectStore;
use object_store::path::Path as Key;

use super::keys;
use super::object::Uploading;
use crate::files::remove_if_present;
use crate::model::{Namespace, TaskId};

/// Removes the files that attempts of an earlier server would have removed. Blocks.
pub(super) fn remove_staged(directory: &Path) -> io::Result<()> {
    entries(directory)?.iter().try_for_each(|file| remove_if_present(file))
}

/// The tasks that have objects in a bucket.
pub(super) async fn list(objects: &dyn ObjectStore) -> object_store::Result<Vec<(Namespace, TaskId)>> {
    let mut found = Vec::new();
    for namespace in objects.list_with_delimiter(None).await?.common_prefixes {
        for task in objects.list_with_delimiter(Some(&namespace)).await?.common_prefixes {
            if let [namespace, task] = &task.parts().collect::<Vec<_>>()[..] {
                found.extend(keys::parse(namespace.as_ref(), task.as_ref()));
            }
        }
    }
    Ok(found)
}

/// Removes unfinished uploads other than those under way, and returns the tasks that have objects. An upload is a file that the
/// object store does not list: the name of the object, `#` and a number. Blocks.
pub(super) fn find(objects: &Path, uploading: &Uploading) -> io::Result<Vec<(Namespace, TaskId)>> {
    let mut found = Vec::new();
    for namespace in entries(objects)? {
        for task in entries(&namespace)? {
            for attempt in entries(&task)? {
                remove_unfinished(objects, &attempt, uploading)?;
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

fn remove_unfinished(objects: &Path, attempt: &Path, uploading: &Uploading) -> io::Result<()> {
    for file in entries(attempt)? {
        let Some((object, _)) = name(&file).and_then(|name| name.split_once('#')) else { continue };
        let path = attempt.join(object);
        let key = path.strip_prefix(objects).ok().and_then(Path::to_str).and_then(|key| Key::parse(key).ok());
        // An upload is in the set before its file exists.
        if !key.is_some_and(|key| uploading.contains(&key)) {
            // It may have ended since its directory was read.
            remove_if_present(&file)?;
        }
    }
    Ok(())
}

/// The entries of a directory; none if it does not exist or is no directory.
fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
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
