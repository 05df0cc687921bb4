//! What a crash has left in the directory of the objects, and the tasks that have objects.

use std::fmt::Display;
use std::fs::{read_dir, remove_dir};
use std::io;
use std::path::{Path, PathBuf};

use object_store::ObjectStore;
use object_store::path::Path as Key;

use super::keys;
use super::object::Uploading;
use crate::files::remove_if_present;
use crate::model::{Namespace, TaskId};

/// What a look at the store has found.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    /// The tasks that have objects.
    pub tasks: Vec<(Namespace, TaskId)>,
    pub skipped: Vec<Skipped>,
}

/// What cannot be read or removed.
#[derive(Debug)]
pub(super) struct Skipped {
    /// A path or a bucket.
    pub place: String,
    pub error: String,
}

impl Leftovers {
    pub fn skip(&mut self, place: impl Display, error: impl Display) {
        self.skipped.push(Skipped { place: place.to_string(), error: error.to_string() });
    }

    /// Removes the files that attempts of an earlier server would have removed. Blocks.
    pub fn remove_staged(&mut self, directory: &Path) {
        for file in self.entries(directory) {
            self.remove(&file);
        }
    }

    /// Removes unfinished uploads other than those under way, and adds the tasks that have objects. An upload is a file that the
    /// object store does not list: the name of the object, `#` and a number. Blocks.
    pub fn find(&mut self, objects: &Path, uploading: &Uploading) {
        for namespace in self.entries(objects) {
            for task in self.entries(&namespace) {
                for attempt in self.entries(&task) {
                    self.remove_unfinished(objects, &attempt, uploading);
                    remove_if_empty(&attempt);
                }
                remove_if_empty(&task);
                if let (Some(namespace), Some(name)) = (name(&namespace), name(&task))
                    && task.exists()
                {
                    self.tasks.extend(keys::parse(namespace, name));
                }
            }
            remove_if_empty(&namespace);
        }
    }

    fn remove_unfinished(&mut self, objects: &Path, attempt: &Path, uploading: &Uploading) {
        for file in self.entries(attempt) {
            let Some((object, _)) = name(&file).and_then(|name| name.split_once('#')) else { continue };
            let path = attempt.join(object);
            let key = path.strip_prefix(objects).ok().and_then(Path::to_str).and_then(|key| Key::parse(key).ok());
            // An upload is in the set before its file exists.
            if !key.is_some_and(|key| uploading.contains(&key)) {
                self.remove(&file);
            }
        }
    }

    fn remove(&mut self, file: &Path) {
        // It may have gone since its directory was read.
        if let Err(error) = remove_if_present(file) {
            self.skip(file.display(), error);
        }
    }

    /// The entries of a directory; none if it does not exist, is no directory, or cannot be read.
    fn entries(&mut self, directory: &Path) -> Vec<PathBuf> {
        let entries = read_dir(directory)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>());
        match entries {
            Ok(entries) => entries,
            Err(error) => {
                if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
                    self.skip(directory.display(), error);
                }
                Vec::new()
            }
        }
    }
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

fn remove_if_empty(directory: &Path) {
    // Fails if it is not empty. An upload creates it again.
    let _ = remove_dir(directory);
}

fn name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}
