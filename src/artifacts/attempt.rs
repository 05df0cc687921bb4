//! What one attempt leaves, until it has ended.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use parking_lot::Mutex;

use super::error::ArtifactError;
use super::file::{ArtifactFile, Budget};
use super::keys;
use super::store::ArtifactStore;
use crate::model::{Artifact, ArtifactName, Artifacts, TaskSpec};

/// The artifacts of an attempt. Clones are of the same attempt. What was created is kept if the attempt completes, and is gone
/// otherwise.
#[derive(Clone, Debug)]
pub struct AttemptArtifacts(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: ArtifactStore,
    task: Arc<TaskSpec>,
    fence: u64,
    budget: Arc<Budget>,
    files: Mutex<Vec<Pending>>,
}

#[derive(Debug)]
struct Pending {
    name: ArtifactName,
    content_type: Arc<str>,
    file: File,
}

impl AttemptArtifacts {
    pub fn new(store: &ArtifactStore, task: Arc<TaskSpec>, fence: u64) -> Self {
        let (budget, files) = (Arc::new(Budget::new(store.limits(), 0)), Mutex::default());
        Self(Arc::new(Inner { store: store.clone(), task, fence, budget, files }))
    }

    /// Creates an artifact. Without a content type it has that of the extension of its name. Blocks.
    ///
    /// # Errors
    /// [`ArtifactError`] if the name is not valid or was used before, or there are as many artifacts as there may be.
    #[cfg_attr(
        not(any(test, feature = "export")),
        expect(dead_code, reason = "of the runners, only exports create artifacts themselves")
    )]
    pub fn create(&self, name: &str, content_type: Option<&str>) -> Result<ArtifactFile, ArtifactError> {
        let name = parse(name)?;
        let file = self.0.store.new_file()?;
        let kept = file.try_clone().map_err(ArtifactError::io("create", &name))?;
        self.push(name.clone(), content_type, kept)?;
        Ok(ArtifactFile { file, name, budget: Arc::clone(&self.0.budget), position: 0, length: 0 })
    }

    /// Adds a file that a program has left, and of which nothing is written any more. Blocks.
    ///
    /// # Errors
    /// As [`AttemptArtifacts::create`], and if it is too large or no regular file.
    pub fn add(&self, name: &str, file: File) -> Result<(), ArtifactError> {
        let name = parse(name)?;
        self.take(&name, &file)?;
        self.push(name, None, file)
    }

    /// Adds what is read until the end. An artifact with the same name is gone then, and does not count any more. Blocks.
    ///
    /// # Errors
    /// As [`AttemptArtifacts::create`], and if it is too large or cannot be read.
    pub fn copy(&self, name: &str, content_type: Option<&str>, from: impl Read) -> Result<(), ArtifactError> {
        let name = parse(name)?;
        let mut file = self.0.store.new_file()?;
        // One byte too many shows that it is too large.
        let bytes_max = self.0.budget.limits.file_bytes.saturating_add(1);
        io::copy(&mut from.take(bytes_max), &mut file).map_err(ArtifactError::io("write", &name))?;
        let replaced = self.0.files.lock().extract_if(.., |other| other.name == name).next();
        if let Some(Ok(found)) = replaced.map(|replaced| replaced.file.metadata()) {
            self.0.budget.give_back(found.len());
        }
        self.take(&name, &file)?;
        self.push(name, content_type, file)
    }

    /// Counts the bytes of a file.
    fn take(&self, name: &ArtifactName, file: &File) -> Result<(), ArtifactError> {
        let found = file.metadata().map_err(ArtifactError::io("read", name))?;
        if !found.is_file() {
            return Err(ArtifactError::NotAFile { name: name.to_string() });
        }
        let limit = self.0.budget.limits.file_bytes;
        if found.len() > limit {
            return Err(ArtifactError::FileTooLarge { name: name.clone(), limit });
        }
        self.0.budget.take(found.len())
    }

    fn push(&self, name: ArtifactName, content_type: Option<&str>, file: File) -> Result<(), ArtifactError> {
        let content_type = content_type.unwrap_or_else(|| super::content_type_of(name.as_str())).into();
        let mut files = self.0.files.lock();
        let limit = self.0.budget.limits.count;
        if files.len() >= limit {
            return Err(ArtifactError::TooMany { limit });
        }
        if files.iter().any(|other| other.name == name) {
            return Err(ArtifactError::Duplicate { name });
        }
        files.push(Pending { name, content_type, file });
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.0.files.lock().is_empty()
    }

    /// Stores all files, in the order of their names, and returns their list; `None` if there are none. They become artifacts when
    /// the end of the task, with this list, is durable.
    ///
    /// # Errors
    /// [`ArtifactError`] if a file has become too large, or the store fails.
    pub async fn store(&self) -> Result<Option<Arc<Artifacts>>, ArtifactError> {
        let Inner { store, task, fence, budget, files } = &*self.0;
        let mut files = std::mem::take(&mut *files.lock());
        if files.is_empty() {
            return Ok(None);
        }
        files.sort_by(|one, other| one.name.cmp(&other.name));
        let namespace = &task.options.namespace;
        store.expect(namespace, &task.id);
        let mut stored = Vec::with_capacity(files.len());
        for Pending { name, content_type, file } in files {
            let key = keys::of_artifact(namespace, &task.id, *fence, &name);
            let (bytes, sha256) = store.put(&key, &name, file, budget.limits.file_bytes).await?;
            stored.push(Artifact { name, content_type, bytes, sha256 });
        }
        Ok(Some(Arc::new(Artifacts { fence: *fence, files: stored.into() })))
    }
}

fn parse(name: &str) -> Result<ArtifactName, ArtifactError> {
    ArtifactName::parse(name).map_err(|source| ArtifactError::Name { name: name.to_owned(), source })
}
