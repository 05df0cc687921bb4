//! ArtifactService: the list of the artifacts of a task, and their content; also by links.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use crate::api::auth::{Caller, CallerExtractor};
use crate::api::convert::InvalidFields;
use crate::api::convert::numbers::to_i64;
use crate::api::convert::task;
use crate::api::convert::time::timestamp;
use crate::api::middleware::response_memory::ResponseMemory;
use crate::api::status::{EdgeError, into_status, to_status};
use crate::artifacts::{ArtifactError, LinkKey, LinkTarget};
use crate::model::{
    Artifact, ArtifactName, Artifacts, ErrorCode, Namespace, Role, TaskId, TaskStatus, Timestamp, limits,
};
use crate::proto::v1::{self, artifact_service_server::ArtifactService};
use crate::scheduler::{ArtifactNotFound, Handle, Internal, StoreUnreadable, TaskParts};

/// What a name has in a path as it is.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub struct ArtifactLists {
    handle: Handle,
    callers: CallerExtractor,
}

impl ArtifactLists {
    pub fn new(handle: Handle, callers: CallerExtractor) -> Self {
        Self { handle, callers }
    }
}

#[tonic::async_trait]
impl ArtifactService for ArtifactLists {
    type ReadArtifactStream = BoxStream<v1::ReadArtifactResponse>;

    async fn list_artifacts(
        &self,
        request: Request<v1::ListArtifactsRequest>,
    ) -> Result<Response<v1::ListArtifactsResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let request = request.into_inner();
        let mut invalid = InvalidFields::default();
        let range = limits::LINK_LIFETIME_MIN..=limits::LINK_LIFETIME_MAX;
        let lifetime = invalid.duration("link_lifetime", request.link_lifetime.as_ref(), range);
        invalid.check().map_err(into_status)?;
        let Some(kept) = Kept::find(&self.handle, &caller, &request.task_id).await? else {
            return Ok(Response::new(v1::ListArtifactsResponse::default()));
        };
        let key = self.handle.artifacts().link_key().await.map_err(unreadable)?;
        let until = self.handle.now().after(lifetime.unwrap_or(limits::LINK_LIFETIME_DEFAULT)).min(kept.until);
        let expires = until.0 / 1_000_000;
        let with_link = |file: &Artifact| v1::Artifact { link: kept.link(&key, file, expires), ..task::artifact(file) };
        Ok(Response::new(v1::ListArtifactsResponse {
            artifacts: kept.artifacts.files.iter().map(with_link).collect(),
            expires_at: Some(timestamp(kept.until)),
            links_expire_at: Some(timestamp(Timestamp(expires * 1_000_000))),
        }))
    }

    async fn read_artifact(
        &self,
        request: Request<v1::ReadArtifactRequest>,
    ) -> Result<Response<Self::ReadArtifactStream>, Status> {
        let caller = self.callers.extract(&request)?;
        let request = request.into_inner();
        let name = ArtifactName::parse(&request.name);
        let name = name.map_err(|error| into_status(InvalidFields::one("name", error)))?;
        let kept = Kept::find(&self.handle, &caller, &request.task_id).await?;
        let not_found = |kept: Option<&Kept>| {
            let task = kept.map_or_else(|| request.task_id.clone(), |kept| kept.task.to_string());
            into_status(ArtifactNotFound { task, name: name.clone() })
        };
        let kept = kept.ok_or_else(|| not_found(None))?;
        let file = kept.artifacts.find(&name).ok_or_else(|| not_found(Some(&kept)))?.clone();
        let range = range(&request, file.bytes).map_err(into_status)?;
        let mut next = range.start;
        let first = v1::ReadArtifactResponse {
            artifact: Some(task::artifact(&file)),
            offset: to_i64(next),
            data: Bytes::new(),
        };
        let parts = kept.content(&self.handle, &name, range).await?.map_ok(move |data| {
            let offset = to_i64(next);
            next += data.len() as u64;
            v1::ReadArtifactResponse { artifact: None, offset, data }
        });
        let messages: Self::ReadArtifactStream = Box::pin(futures_util::stream::iter([Ok(first)]).chain(parts));
        Ok(ResponseMemory::Stream(caller.share_name()).attach_to(messages))
    }
}

fn range(request: &v1::ReadArtifactRequest, bytes: u64) -> Result<Range<u64>, InvalidFields> {
    let start = u64::try_from(request.offset).ok().filter(|offset| *offset <= bytes);
    let start = start.ok_or_else(|| {
        InvalidFields::one("offset", format!("is {}, must be 0 to {bytes}, the size of the artifact", request.offset))
    })?;
    let length = u64::try_from(request.length)
        .map_err(|_| InvalidFields::one("length", format!("is {}, must not be negative", request.length)))?;
    let end = if length == 0 { bytes } else { start.saturating_add(length).min(bytes) };
    Ok(start..end)
}

/// The artifacts of a task that are not too old.
struct Kept {
    namespace: Namespace,
    task: TaskId,
    artifacts: Arc<Artifacts>,
    /// When they will be too old.
    until: Timestamp,
}

impl Kept {
    /// Those of a task that the caller may see; `None` if it has none.
    async fn find(handle: &Handle, caller: &Caller, task: &str) -> Result<Option<Self>, Status> {
        let (found, _) = caller.find(handle, Role::Viewer, task, TaskParts::default()).await?;
        let spec = found.task.spec;
        Ok(Self::of(handle, spec.options.namespace.clone(), spec.id.clone(), found.task.status))
    }

    /// Those to which a valid link leads.
    ///
    /// # Errors
    /// TASK_NOT_FOUND, and the errors of the store.
    async fn of_link(handle: &Handle, target: &LinkTarget) -> Result<Option<Self>, Status> {
        let found = handle.get(&target.task).await.map_err(into_status)?.task;
        let namespace = found.spec.options.namespace.clone();
        let kept = Self::of(handle, namespace, found.spec.id.clone(), found.status);
        Ok(kept.filter(|kept| kept.artifacts.fence == target.fence))
    }

    fn of(handle: &Handle, namespace: Namespace, task: TaskId, status: TaskStatus) -> Option<Self> {
        let until = status.finished_at?.after(handle.artifacts().age());
        let artifacts = status.artifacts.filter(|_| handle.now() < until)?;
        Some(Self { namespace, task, artifacts, until })
    }

    /// The path and the query of a link.
    fn link(&self, key: &LinkKey, file: &Artifact, expires: u64) -> String {
        let (task, fence, name) = (self.task.clone(), self.artifacts.fence, file.name.clone());
        let target = LinkTarget { task, fence, name, expires };
        let name = utf8_percent_encode(file.name.as_str(), UNRESERVED);
        let signature = key.sign(&target);
        format!("/artifacts/{}/{name}?attempt={fence}&expires={expires}&signature={signature}", self.task)
    }

    /// Opens a part of an artifact, which is read piece by piece.
    async fn content(
        &self,
        handle: &Handle,
        name: &ArtifactName,
        range: Range<u64>,
    ) -> Result<BoxStream<Bytes>, Status> {
        let mut missing = range.end - range.start;
        let task = self.task.to_string();
        let opened = handle.artifacts().read((&self.namespace, &self.task), self.artifacts.fence, name, range).await;
        let name = name.clone();
        let mut pieces = match opened {
            Err(error) if error.is_missing() => return Err(into_status(ArtifactNotFound { task, name })),
            opened => opened.map_err(unreadable)?,
        };
        Ok(Box::pin(async_stream::try_stream! {
            while let Some(piece) = pieces.try_next().await.map_err(unreadable)? {
                missing = missing.saturating_sub(piece.len() as u64);
                yield piece;
            }
            if missing > 0 {
                let cause = format!("artifact {name:?} of the task `{task}` lacks {missing} bytes");
                Err(into_status(Internal { cause }))?;
            }
        }))
    }
}

/// Opens what a link leads to, if its signature is valid.
pub type OpenLink = Arc<dyn Fn(LinkTarget, String) -> BoxFuture<'static, Result<Linked, Status>> + Send + Sync>;

pub struct Linked {
    pub artifact: v1::Artifact,
    /// Opens a part of it.
    pub content: Box<dyn FnOnce(Range<u64>) -> OpenContent + Send>,
}

type OpenContent = BoxFuture<'static, Result<BoxStream<Bytes>, Status>>;

pub fn links(handle: Handle) -> OpenLink {
    Arc::new(move |target, signature| Box::pin(open_link(handle.clone(), target, signature)))
}

async fn open_link(handle: Handle, target: LinkTarget, signature: String) -> Result<Linked, Status> {
    let refused = |text: &str| to_status(&EdgeError { code: ErrorCode::PermissionDenied, message: text.to_owned() });
    let key = handle.artifacts().link_key().await.map_err(unreadable)?;
    if !key.is_valid(&target, &signature) {
        return Err(refused("the signature of the link is not valid; call `ListArtifacts` for new links"));
    }
    if handle.now().0 / 1_000_000 >= target.expires {
        return Err(refused("the link has expired; call `ListArtifacts` for new links"));
    }
    let not_found = || into_status(ArtifactNotFound { task: target.task.to_string(), name: target.name.clone() });
    let kept = Kept::of_link(&handle, &target).await?.ok_or_else(not_found)?;
    let artifact = task::artifact(kept.artifacts.find(&target.name).ok_or_else(not_found)?);
    let content = move |range| async move { kept.content(&handle, &target.name, range).await }.boxed();
    Ok(Linked { artifact, content: Box::new(content) })
}

fn unreadable(error: ArtifactError) -> Status {
    into_status(StoreUnreadable { cause: error.to_string() })
}
