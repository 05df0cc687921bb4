//! UploadArtifact: receives an artifact from the worker that runs a task.

use tonic::{Status, Streaming};

use crate::api::auth::Caller;
use crate::api::convert::InvalidFields;
use crate::api::convert::task;
use crate::api::status::into_status;
use crate::artifacts::{ArtifactError, content_type_of};
use crate::model::ArtifactName;
use crate::model::spec::is_content_type;
use crate::proto::v1;
use crate::scheduler::{Handle, StoreUnreadable};

use super::running_task;

/// # Errors
/// INVALID_FIELD, and the errors of the store.
pub async fn receive(
    handle: Handle,
    mut requests: Streaming<v1::UploadArtifactRequest>,
    caller: &Caller,
) -> Result<v1::UploadArtifactResponse, Status> {
    let first = requests.message().await?.unwrap_or_default();
    let (task, token) = running_task::find(&handle, &first.task_id, &first.token, caller).await?;
    let mut invalid = InvalidFields::default();
    let name = ArtifactName::parse(&first.name).map_err(|error| invalid.add("name", error)).ok();
    if !first.content_type.is_empty() && !is_content_type(&first.content_type) {
        invalid.add("content_type", "must be at most 128 printable ASCII characters, such as \"text/csv\"");
    }
    invalid.check().map_err(into_status)?;
    let Some(name) = name else { return Err(into_status(InvalidFields::one("name", "is required"))) };
    let content_type =
        if first.content_type.is_empty() { content_type_of(&first.name).into() } else { first.content_type.into() };
    let upload = handle.artifacts().upload(&task, token.0, name, content_type).await;
    let mut upload = upload.map_err(refused)?;
    let mut part = first.data;
    loop {
        if !part.is_empty() {
            upload.write(part).await.map_err(refused)?;
        }
        match requests.message().await? {
            Some(message) => part = message.data,
            None => break,
        }
    }
    let artifact = upload.finish().await.map_err(refused)?;
    Ok(v1::UploadArtifactResponse { artifact: Some(task::artifact(&artifact)) })
}

fn refused(error: ArtifactError) -> Status {
    match error {
        error if error.is_permanent() => into_status(InvalidFields::one("data", error)),
        error => into_status(StoreUnreadable { cause: error.to_string() }),
    }
}
