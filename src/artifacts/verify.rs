//! Compares the artifacts that a remote worker names at the end of an attempt with those that it has uploaded.

use futures_util::TryStreamExt;
use object_store::ObjectStoreExt;
use ring::digest::{Context, SHA256};

use super::error::ArtifactError;
use super::keys;
use super::staged::sha256_of;
use super::store::ArtifactStore;
use crate::model::{Artifact, Artifacts, TaskSpec};

impl ArtifactStore {
    /// Compares the artifacts that a worker names with what is stored of the attempt. Those that an earlier server has stored are
    /// read; their content type is not known.
    ///
    /// # Errors
    /// [`ArtifactError`] about the first one that was not uploaded or differs, and if the store fails.
    pub async fn verify(&self, task: &TaskSpec, named: &Artifacts) -> Result<(), ArtifactError> {
        let uploads = self.known().uploads(&task.id, named.fence);
        for file in &named.files {
            match uploads.get(&file.name) {
                Some(stored) => compare(file, stored)?,
                None => self.verify_object(task, named.fence, file).await?,
            }
        }
        Ok(())
    }

    async fn verify_object(&self, task: &TaskSpec, fence: u64, file: &Artifact) -> Result<(), ArtifactError> {
        let _turn = self.turn().await;
        let (namespace, name) = (&task.options.namespace, &file.name);
        let key = keys::of_artifact(namespace, &task.id, fence, name);
        let found = self.objects().await?.head(&key).await.map_err(ArtifactError::from);
        let missing = |error: ArtifactError| match error {
            error if error.is_missing() => ArtifactError::NotUploaded { name: name.clone() },
            error => error,
        };
        let bytes = found.map_err(missing)?.size;
        compare(file, &Artifact { bytes, ..file.clone() })?;
        let mut hash = Context::new(&SHA256);
        let mut pieces = self.read((namespace, &task.id), fence, name, 0..bytes).await.map_err(missing)?;
        while let Some(piece) = pieces.try_next().await? {
            hash.update(&piece);
        }
        compare(file, &Artifact { sha256: sha256_of(&hash), ..file.clone() })
    }
}

fn compare(named: &Artifact, stored: &Artifact) -> Result<(), ArtifactError> {
    let differs = |field, named_value: String, stored: String| {
        Err(ArtifactError::NotAsStored { name: named.name.clone(), field, named: named_value, stored })
    };
    if named.bytes != stored.bytes {
        return differs("size_bytes", named.bytes.to_string(), stored.bytes.to_string());
    }
    if named.sha256 != stored.sha256 {
        return differs("sha256", keys::hex(&named.sha256), keys::hex(&stored.sha256));
    }
    if named.content_type != stored.content_type {
        return differs("content_type", format!("{:?}", named.content_type), format!("{:?}", stored.content_type));
    }
    Ok(())
}
