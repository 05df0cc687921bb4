//! Why an artifact is not kept.

use std::io;
use std::path::PathBuf;

use crate::model::{ArtifactName, ArtifactNameError, Failure, FailureReason};

#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    #[error("name of the artifact {name:?} {source}")]
    Name { name: String, source: ArtifactNameError },
    #[error("name of the artifact {name:?} is not UTF-8")]
    NotUtf8 { name: String },
    #[error("artifact {name:?} was created twice; each name can be used once")]
    Duplicate { name: ArtifactName },
    #[error("artifact {name:?} is not a regular file; directories, links and pipes are not kept")]
    NotAFile { name: String },
    #[error("more than {limit} artifacts, which is the limit (`artifacts.count`)")]
    TooMany { limit: usize },
    #[error("artifact {name:?} has more than {limit} bytes, which is the limit (`artifacts.file_bytes`)")]
    FileTooLarge { name: ArtifactName, limit: u64 },
    #[error("the artifacts have more than {limit} bytes together, which is the limit (`artifacts.task_bytes`)")]
    TaskTooLarge { limit: u64 },
    #[error("artifact {name:?} was not uploaded by this attempt; call `UploadArtifact` for it before the attempt ends")]
    NotUploaded { name: ArtifactName },
    #[error(
        "artifact {name:?} is not as it was uploaded: `{field}` is {named}, stored is {stored}; name artifacts as `UploadArtifact` \
         returns them"
    )]
    NotAsStored { name: ArtifactName, field: &'static str, named: String, stored: String },
    #[error("failed to {action} artifact {name:?}: {source}")]
    Io { action: &'static str, name: String, source: io::Error },
    #[error("failed to use the directory of artifacts `{path}`: {source}", path = path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("the object store failed: {0}")]
    Store(#[from] object_store::Error),
}

impl ArtifactError {
    pub(super) fn io(action: &'static str, name: &ArtifactName) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { action, name: name.to_string(), source }
    }

    /// Whether an artifact is not in the store any more.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Store(object_store::Error::NotFound { .. }))
    }

    /// Whether another attempt would leave the same.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::TooMany { .. } | Self::FileTooLarge { .. } | Self::TaskTooLarge { .. })
    }
}

impl From<ArtifactError> for Failure {
    fn from(error: ArtifactError) -> Self {
        let is_permanent = error.is_permanent();
        let reason = if is_permanent { FailureReason::ResultTooLarge } else { FailureReason::HandlerError };
        Self::new(reason, error.to_string())
    }
}

/// So that a writer of a file can pass the error on.
impl From<ArtifactError> for io::Error {
    fn from(error: ArtifactError) -> Self {
        let kind = if error.is_permanent() { io::ErrorKind::FileTooLarge } else { io::ErrorKind::Other };
        Self::new(kind, error)
    }
}
