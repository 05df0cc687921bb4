//! An artifact of a remote worker, which arrives in parts and is stored at once.

use std::sync::Arc;

use bytes::Bytes;

use super::error::ArtifactError;
use super::file::Budget;
use super::keys;
use super::object::NewObject;
use super::store::ArtifactStore;
use crate::model::{Artifact, ArtifactName, TaskId, TaskSpec};

pub struct ArtifactUpload {
    object: NewObject,
    store: ArtifactStore,
    task: TaskId,
    fence: u64,
    name: ArtifactName,
    content_type: Arc<str>,
    budget: Arc<Budget>,
}

impl ArtifactStore {
    /// Begins an artifact of a running attempt. It replaces an earlier one with the same name, and is a part of the task only if
    /// the worker names it at the end of the attempt.
    ///
    /// # Errors
    /// [`ArtifactError`] if there are as many as there may be, or the store fails.
    pub async fn upload(
        &self,
        task: &TaskSpec,
        fence: u64,
        name: ArtifactName,
        content_type: Arc<str>,
    ) -> Result<ArtifactUpload, ArtifactError> {
        let namespace = &task.options.namespace;
        self.expect(namespace, &task.id);
        let key = keys::of_artifact(namespace, &task.id, fence, &name);
        let attempt = keys::of_attempt(namespace, &task.id, fence);
        let mut others = self.list(&attempt).await?;
        others.retain(|other| other.location != key);
        let limits = self.limits();
        let budget = self.budget(attempt, others.iter().map(|other| other.size).sum());
        // Each upload under way has a reference, and this one has.
        if others.len() + Arc::strong_count(&budget) > limits.count {
            return Err(ArtifactError::TooMany { limit: limits.count });
        }
        let object = self.create(key, &name, limits.file_bytes).await?;
        Ok(ArtifactUpload { object, store: self.clone(), task: task.id.clone(), fence, name, content_type, budget })
    }
}

impl ArtifactUpload {
    /// # Errors
    /// [`ArtifactError`] if it is too large, or the store fails.
    pub async fn write(&mut self, part: Bytes) -> Result<(), ArtifactError> {
        self.budget.take(part.len() as u64)?;
        self.object.write(part).await
    }

    /// # Errors
    /// [`ArtifactError`] if the store fails.
    pub async fn finish(self) -> Result<Artifact, ArtifactError> {
        let Self { object, store, task, fence, name, content_type, .. } = self;
        let (bytes, sha256) = store.finish(object).await?;
        let artifact = Artifact { name, content_type, bytes, sha256 };
        store.known().uploaded(&task, fence, &artifact);
        // The attempt may have ended meanwhile.
        store.request_check(task);
        Ok(artifact)
    }
}
