//! Files of uploaded modules: opened with the transactions that refer to them, verified and copied.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use super::error::StoreError;
use super::record::Subjects;
use crate::files::{create_new_private_directory, open_without_link, replace};
use crate::model::ModuleDigest;

const FILE_MODE: u32 = 0o600;

/// Stays readable after a server has removed it.
pub(super) struct ModuleFile {
    path: PathBuf,
    digest: ModuleDigest,
    file: File,
}

/// Opens the modules of the uploaded handlers.
///
/// # Errors
/// [`StoreError::Io`] names the handler whose module is missing.
pub(super) fn open(directory: &Path, subjects: &Subjects) -> Result<Vec<ModuleFile>, StoreError> {
    let mut files: Vec<ModuleFile> = Vec::new();
    for (handler, digest) in subjects.modules() {
        if files.iter().any(|file| file.digest == digest) {
            continue;
        }
        let path = digest.path_in(directory);
        let file = open_without_link(&path).map_err(|error| StoreError::Io {
            action: "open",
            path: path.clone(),
            detail: format!("{error}; it is the module of handler `{handler}`: upload it again, or restore a backup"),
        })?;
        files.push(ModuleFile { path, digest, file });
    }
    Ok(files)
}

/// Copies modules to a new directory of the store in `to`.
pub(super) fn copy(modules: &[ModuleFile], to: &Path) -> Result<(), StoreError> {
    if modules.is_empty() {
        return Ok(());
    }
    let directory = to.join(ModuleDigest::DIRECTORY);
    create_new_private_directory(&directory).map_err(|error| StoreError::io("create", &directory, &error))?;
    for module in modules {
        let path = module.digest.path_in(to);
        replace(&path, &module.read()?, FILE_MODE).map_err(|error| StoreError::io("write", &path, &error))?;
    }
    Ok(())
}

impl ModuleFile {
    /// # Errors
    /// Also if the content is not what was uploaded.
    pub(super) fn verify(&self) -> Result<(), StoreError> {
        if ModuleDigest::of(&self.read()?) == self.digest {
            return Ok(());
        }
        Err(StoreError::malformed(&self.path, "its content has changed since the upload"))
    }

    fn read(&self) -> Result<Vec<u8>, StoreError> {
        let (mut file, mut contents) = (&self.file, Vec::new());
        let read: io::Result<_> = file.rewind().and_then(|()| file.read_to_end(&mut contents));
        read.map_err(|error| StoreError::io("read", &self.path, &error))?;
        Ok(contents)
    }
}
