//! Files that a function leaves beside its result.

use std::path::{Path, PathBuf};

use bytes::Bytes;

/// The content of an artifact.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ArtifactContent {
    /// Bytes in memory.
    Bytes(Bytes),
    /// The file with this path.
    File(PathBuf),
}

/// An artifact that a function leaves.
pub struct NewArtifact {
    pub name: String,
    /// Empty: that of the extension of the name.
    pub content_type: String,
    pub content: ArtifactContent,
}

impl From<Bytes> for ArtifactContent {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Vec<u8>> for ArtifactContent {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl From<PathBuf> for ArtifactContent {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl From<&Path> for ArtifactContent {
    fn from(path: &Path) -> Self {
        Self::File(path.to_owned())
    }
}
