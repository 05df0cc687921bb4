//! Records of the artifacts of a task.

use prost::Message;

use super::corruption::Corruption;
use super::values::name;
use crate::model::{Artifact, ArtifactName, Artifacts};

#[derive(Clone, PartialEq, Message)]
pub struct ArtifactsRecord {
    #[prost(uint64, tag = "1")]
    fence: u64,
    #[prost(message, repeated, tag = "2")]
    files: Vec<ArtifactRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct ArtifactRecord {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    content_type: String,
    #[prost(uint64, tag = "3")]
    bytes: u64,
    #[prost(bytes = "vec", tag = "4")]
    sha256: Vec<u8>,
}

impl From<&Artifacts> for ArtifactsRecord {
    fn from(artifacts: &Artifacts) -> Self {
        let record = |file: &Artifact| ArtifactRecord {
            name: file.name.to_string(),
            content_type: file.content_type.to_string(),
            bytes: file.bytes,
            sha256: file.sha256.to_vec(),
        };
        Self { fence: artifacts.fence, files: artifacts.files.iter().map(record).collect() }
    }
}

impl ArtifactsRecord {
    pub fn into_model(self) -> Result<Artifacts, Corruption> {
        let files = self.files.into_iter().map(ArtifactRecord::into_model).collect::<Result<_, _>>()?;
        Ok(Artifacts { fence: self.fence, files })
    }
}

impl ArtifactRecord {
    fn into_model(self) -> Result<Artifact, Corruption> {
        let Self { content_type, bytes, sha256, .. } = self;
        let sha256 = sha256.try_into().map_err(|_| Corruption::new("checksum of an artifact that is no SHA-256"))?;
        Ok(Artifact { name: name(&self.name, ArtifactName::parse)?, content_type: content_type.into(), bytes, sha256 })
    }
}
