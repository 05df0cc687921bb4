//! An object that is being written.

use std::collections::HashSet;
use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, PutPayloadMut};
use parking_lot::Mutex;
use ring::digest::{Context, SHA256};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::error::ArtifactError;
use super::staged::{StagedFile, sha256_of};
use crate::model::ArtifactName;

/// Bytes that are read and written at once.
pub(super) const PART_BYTES: u64 = 256 << 10;

/// It does not exist before it is finished, and never if this is dropped.
pub(super) struct NewObject {
    key: Path,
    name: ArtifactName,
    target: Target,
    part: PutPayloadMut,
    part_bytes: u64,
    bytes: u64,
    bytes_max: u64,
}

enum Target {
    /// In the directory of the store; `None` after a failure.
    File(Option<StagedFile>),
    Upload(Upload),
}

/// Writes an object through the interface of all object stores.
pub(super) struct Upload {
    objects: Arc<dyn ObjectStore>,
    /// `None` until there are more bytes than one part has.
    parts: Option<Box<dyn MultipartUpload>>,
    hash: Box<Context>,
    uploading: Option<UploadGuard>,
}

/// What is complete.
pub(super) enum Complete {
    /// It is not in the store yet.
    File {
        key: Path,
        name: ArtifactName,
        file: StagedFile,
    },
    Upload {
        bytes: u64,
        sha256: [u8; 32],
    },
}

impl NewObject {
    pub fn staged(key: Path, name: ArtifactName, bytes_max: u64, file: StagedFile) -> Self {
        let target = Target::File(Some(file));
        Self { key, name, target, part: PutPayloadMut::new(), part_bytes: PART_BYTES, bytes: 0, bytes_max }
    }

    pub fn upload(
        key: Path,
        name: ArtifactName,
        bytes_max: u64,
        (objects, part_bytes): (Arc<dyn ObjectStore>, u64),
        uploading: UploadGuard,
    ) -> Self {
        let (hash, uploading) = (Box::new(Context::new(&SHA256)), Some(uploading));
        let target = Target::Upload(Upload { objects, parts: None, hash, uploading });
        Self { key, name, target, part: PutPayloadMut::new(), part_bytes, bytes: 0, bytes_max }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub async fn write(&mut self, part: Bytes) -> Result<(), ArtifactError> {
        self.bytes += part.len() as u64;
        if self.bytes > self.bytes_max {
            return Err(ArtifactError::FileTooLarge { name: self.name.clone(), limit: self.bytes_max });
        }
        if let Target::Upload(upload) = &mut self.target {
            upload.hash.update(&part);
        }
        self.part.push(part);
        if self.part.content_length() as u64 >= self.part_bytes { self.write_part().await } else { Ok(()) }
    }

    async fn write_part(&mut self) -> Result<(), ArtifactError> {
        let part = std::mem::take(&mut self.part).freeze();
        match &mut self.target {
            Target::Upload(upload) => Ok(upload.put_part(&self.key, part).await?),
            Target::File(target) => {
                let Some(mut file) = target.take() else { return Err(self.unwritten()) };
                let write = move || part.iter().try_for_each(|bytes| file.write_all(bytes)).map(|()| file);
                *target = Some(blocking(write).await.map_err(ArtifactError::io("write", &self.name))?);
                Ok(())
            }
        }
    }

    /// Writes the rest. An upload is durable then.
    pub async fn complete(mut self) -> Result<Complete, ArtifactError> {
        let is_in_parts = !matches!(&self.target, Target::Upload(Upload { parts: None, .. }));
        if is_in_parts && !self.part.is_empty() {
            self.write_part().await?;
        }
        match &mut self.target {
            Target::File(file) => match file.take() {
                Some(file) => Ok(Complete::File { key: self.key, name: self.name, file }),
                None => Err(self.unwritten()),
            },
            Target::Upload(upload) => {
                let sha256 = upload.complete(&self.key, std::mem::take(&mut self.part).freeze()).await?;
                Ok(Complete::Upload { bytes: self.bytes, sha256 })
            }
        }
    }

    /// A write was tried again after an error.
    fn unwritten(&self) -> ArtifactError {
        ArtifactError::io("write", &self.name)(io::Error::other("an earlier write failed"))
    }
}

impl Upload {
    async fn put_part(&mut self, key: &Path, part: PutPayload) -> object_store::Result<()> {
        let parts = match &mut self.parts {
            Some(parts) => parts,
            none => {
                let (objects, key) = (Arc::clone(&self.objects), key.clone());
                // In a directory, it creates directories and waits until they are durable.
                let begun = blocking(move || Handle::current().block_on(objects.put_multipart(&key))).await?;
                none.insert(begun)
            }
        };
        parts.put_part(part).await
    }

    /// `only` is the whole object if no part was written.
    async fn complete(&mut self, key: &Path, only: PutPayload) -> object_store::Result<[u8; 32]> {
        match &mut self.parts {
            Some(parts) => parts.complete().await?,
            None => self.objects.put(key, only).await?,
        };
        self.parts = None;
        Ok(sha256_of(&self.hash))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // A store in a network keeps the parts of an upload until it is aborted.
        let (Some(mut parts), Ok(runtime)) = (self.parts.take(), Handle::try_current()) else { return };
        let uploading = self.uploading.take();
        runtime.spawn(async move {
            if let Err(error) = parts.abort().await {
                tracing::warn!(%error, "failed to abort the upload of an artifact");
            }
            drop(uploading);
        });
    }
}

/// The keys of objects that are being written, whose files in a directory are no leftovers.
#[derive(Clone, Debug, Default)]
pub(super) struct Uploading(Arc<Mutex<HashSet<Path>>>);

impl Uploading {
    pub fn guard(&self, key: Path) -> UploadGuard {
        self.0.lock().insert(key.clone());
        UploadGuard { uploading: self.clone(), key }
    }

    pub fn contains(&self, key: &Path) -> bool {
        self.0.lock().contains(key)
    }
}

pub(super) struct UploadGuard {
    uploading: Uploading,
    key: Path,
}

impl Drop for UploadGuard {
    fn drop(&mut self) {
        self.uploading.0.lock().remove(&self.key);
    }
}

/// Runs a call that blocks outside of the threads of the runtime.
pub(super) async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    spawn_blocking(call).await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}
