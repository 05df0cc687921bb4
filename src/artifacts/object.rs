//! An object that is being written.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayloadMut};
use parking_lot::Mutex;
use ring::digest::{Context, SHA256};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::error::ArtifactError;
use crate::model::ArtifactName;
use crate::telemetry::metrics::ArtifactCounts;

/// It does not exist before it is finished, and never if this is dropped.
pub(super) struct NewObject {
    objects: Arc<dyn ObjectStore>,
    key: Path,
    /// `None` until there are more bytes than one part has.
    upload: Option<Box<dyn MultipartUpload>>,
    part: PutPayloadMut,
    part_bytes: u64,
    hash: Context,
    bytes: u64,
    bytes_max: u64,
    name: ArtifactName,
    counts: Arc<ArtifactCounts>,
    uploading: Option<UploadGuard>,
}

impl NewObject {
    pub fn new(
        objects: Arc<dyn ObjectStore>,
        key: Path,
        name: ArtifactName,
        part_bytes: u64,
        bytes_max: u64,
        counts: Arc<ArtifactCounts>,
        uploading: UploadGuard,
    ) -> Self {
        let (part, hash) = (PutPayloadMut::new(), Context::new(&SHA256));
        let (upload, uploading) = (None, Some(uploading));
        Self { objects, key, upload, part, part_bytes, hash, bytes: 0, bytes_max, name, counts, uploading }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub async fn write(&mut self, part: Bytes) -> Result<(), ArtifactError> {
        self.bytes += part.len() as u64;
        if self.bytes > self.bytes_max {
            return Err(ArtifactError::FileTooLarge { name: self.name.clone(), limit: self.bytes_max });
        }
        self.hash.update(&part);
        self.part.push(part);
        if self.part.content_length() as u64 >= self.part_bytes { self.write_part().await } else { Ok(()) }
    }

    async fn write_part(&mut self) -> Result<(), ArtifactError> {
        let upload = match &mut self.upload {
            Some(upload) => upload,
            none => {
                let (objects, key) = (Arc::clone(&self.objects), self.key.clone());
                // In a directory, it creates directories and waits until they are durable.
                let begun = blocking(move || Handle::current().block_on(objects.put_multipart(&key))).await?;
                none.insert(begun)
            }
        };
        Ok(upload.put_part(std::mem::take(&mut self.part).freeze()).await?)
    }

    /// Makes the object durable. Returns its size and its SHA-256.
    pub async fn finish(mut self) -> Result<(u64, [u8; 32]), ArtifactError> {
        if self.upload.is_some() && !self.part.is_empty() {
            self.write_part().await?;
        }
        match &mut self.upload {
            Some(upload) => upload.complete().await?,
            None => self.objects.put(&self.key, std::mem::take(&mut self.part).freeze()).await?,
        };
        self.upload = None;
        self.counts.stored.fetch_add(1, Ordering::Relaxed);
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(self.hash.clone().finish().as_ref());
        Ok((self.bytes, sha256))
    }
}

impl Drop for NewObject {
    fn drop(&mut self) {
        // A store in a network keeps the parts of an upload until it is aborted.
        let (Some(mut upload), Ok(runtime)) = (self.upload.take(), Handle::try_current()) else { return };
        let uploading = self.uploading.take();
        runtime.spawn(async move {
            if let Err(error) = upload.abort().await {
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
