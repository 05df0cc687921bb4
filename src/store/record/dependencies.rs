//! Records of the parents of a task.

use prost::Message;

use super::corruption::Corruption;
use super::values::variant;
use crate::model::{Dependencies, OnParentFailure, Parent, TaskId};

#[derive(Clone, PartialEq, Message)]
pub(super) struct DependenciesRecord {
    #[prost(message, repeated, tag = "1")]
    parents: Vec<ParentRecord>,
    #[prost(uint32, tag = "2")]
    on_parent_failure: u32,
}

#[derive(Clone, PartialEq, Message)]
struct ParentRecord {
    /// A UUID; otherwise there is a name.
    #[prost(bytes = "vec", tag = "1")]
    uuid: Vec<u8>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(uint32, optional, tag = "3")]
    place: Option<u32>,
}

impl From<&Dependencies> for DependenciesRecord {
    fn from(dependencies: &Dependencies) -> Self {
        Self {
            parents: dependencies.parents.iter().map(Into::into).collect(),
            on_parent_failure: dependencies.on_parent_failure as u32,
        }
    }
}

impl From<&Parent> for ParentRecord {
    fn from(parent: &Parent) -> Self {
        let (uuid, name) = match &parent.id {
            TaskId::Uuid(bytes) => (bytes.to_vec(), String::new()),
            TaskId::Named(name) => (Vec::new(), name.to_string()),
        };
        Self { uuid, name, place: parent.place }
    }
}

impl DependenciesRecord {
    pub(super) fn into_model(self) -> Result<Dependencies, Corruption> {
        Ok(Dependencies {
            parents: self.parents.into_iter().map(ParentRecord::into_model).collect::<Result<_, _>>()?,
            on_parent_failure: variant(
                "rule for failed parents",
                self.on_parent_failure,
                OnParentFailure::from_number,
            )?,
        })
    }
}

impl ParentRecord {
    fn into_model(self) -> Result<Parent, Corruption> {
        let id = match self.uuid.try_into() {
            Ok(bytes) => TaskId::Uuid(bytes),
            Err(_) if self.name.is_empty() => return Err(Corruption::new("parent without an ID")),
            Err(_) => TaskId::Named(self.name.into()),
        };
        Ok(Parent { id, place: self.place })
    }
}
