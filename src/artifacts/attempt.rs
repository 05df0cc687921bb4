//! What one attempt leaves, until it has ended.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::sync::Arc;

use parking_lot::Mutex;

use super::error::ArtifactError;
use super::file::{ArtifactFile, Budget, SharedFile};
use super::keys;
use super::staged::StagedFile;
use super::store::ArtifactStore;
use crate::model::{Artifact, ArtifactName, Artifacts, TaskSpec};

/// Bytes that are copied at once.
const COPY_BYTES: usize = 256 << 10;

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
    content: Content,
}

#[derive(Debug)]
enum Content {
    Written(SharedFile),
    /// Of a program, which may still write to it.
    Left(File),
}

impl Content {
    fn written(file: StagedFile) -> Self {
        Self::Written(Arc::new(Mutex::new(Some(file))))
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Written(file) => file.lock().as_ref().map_or(0, StagedFile::bytes),
            Self::Left(file) => file.metadata().map_or(0, |found| found.len()),
        }
    }
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
        let file = Arc::new(Mutex::new(Some(self.0.store.new_file()?)));
        self.push(name.clone(), content_type, Content::Written(Arc::clone(&file)))?;
        Ok(ArtifactFile { file, name, budget: Arc::clone(&self.0.budget) })
    }

    /// Adds a file that a program has left, and of which nothing is written any more. Blocks.
    ///
    /// # Errors
    /// As [`AttemptArtifacts::create`], and if it is too large or no regular file.
    pub fn add(&self, name: &str, file: File) -> Result<(), ArtifactError> {
        let name = parse(name)?;
        let found = file.metadata().map_err(ArtifactError::io("read", &name))?;
        if !found.is_file() {
            return Err(ArtifactError::NotAFile { name: name.to_string() });
        }
        self.take(&name, found.len())?;
        self.push(name, None, Content::Left(file))
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
        let mut writer = BufWriter::with_capacity(COPY_BYTES, &mut file);
        let copied = io::copy(&mut from.take(bytes_max), &mut writer).and_then(|_| writer.flush());
        drop(writer);
        copied.map_err(ArtifactError::io("write", &name))?;
        let replaced = self.0.files.lock().extract_if(.., |other| other.name == name).next();
        self.0.budget.give_back(replaced.map_or(0, |replaced| replaced.content.bytes()));
        self.take(&name, file.bytes())?;
        self.push(name, content_type, Content::written(file))
    }

    /// Counts the bytes of a file.
    fn take(&self, name: &ArtifactName, bytes: u64) -> Result<(), ArtifactError> {
        let limit = self.0.budget.limits.file_bytes;
        if bytes > limit {
            return Err(ArtifactError::FileTooLarge { name: name.clone(), limit });
        }
        self.0.budget.take(bytes)
    }

    fn push(&self, name: ArtifactName, content_type: Option<&str>, content: Content) -> Result<(), ArtifactError> {
        let content_type = content_type.unwrap_or_else(|| super::content_type_of(name.as_str())).into();
        let mut files = self.0.files.lock();
        let limit = self.0.budget.limits.count;
        if files.len() >= limit {
            return Err(ArtifactError::TooMany { limit });
        }
        if files.iter().any(|other| other.name == name) {
            return Err(ArtifactError::Duplicate { name });
        }
        files.push(Pending { name, content_type, content });
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
        for Pending { name, content_type, content } in files {
            let key = keys::of_artifact(namespace, &task.id, *fence, &name);
            let _turn = store.turn().await;
            let (bytes, sha256) = match content {
                Content::Written(file) => {
                    // It was not taken before.
                    let Some(file) = file.lock().take() else { continue };
                    store.keep(&key, &name, file).await?
                }
                Content::Left(file) => store.copy(&key, &name, file, budget.limits.file_bytes).await?,
            };
            stored.push(Artifact { name, content_type, bytes, sha256 });
        }
        Ok(Some(Arc::new(Artifacts { fence: *fence, files: stored.into() })))
    }
}

fn parse(name: &str) -> Result<ArtifactName, ArtifactError> {
    ArtifactName::parse(name).map_err(|source| ArtifactError::Name { name: name.to_owned(), source })
}
