//! ListLimits.

use tonic::Status;

use crate::api::auth::Caller;
use crate::api::convert::{InvalidFields, filter, task_limit};
use crate::api::status::into_status;
use crate::model::{Namespace, Role};
use crate::proto::v1;
use crate::scheduler::{Handle, LimitFilter, PageCursor};

/// Memory for a page and the response: about 500 bytes for each limit.
pub const BYTES_MAX: u64 = 1 << 20;

pub async fn list(
    handle: &Handle,
    request: v1::ListLimitsRequest,
    caller: &Caller,
) -> Result<v1::ListLimitsResponse, Status> {
    let count = filter::page_size(request.page_size).map_err(into_status)?;
    let conditions = v1::ListLimitsRequest { page_size: 0, page_token: String::new(), ..request.clone() };
    let from = filter::page_cursor(&request.page_token, &conditions).map_err(into_status)?;
    let mut invalid = InvalidFields::default();
    let namespace = invalid.optional("namespace", &request.namespace, Namespace::parse);
    invalid.check().map_err(into_status)?;
    let namespaces = caller.limit_namespaces(Role::Viewer, namespace.into_iter().collect()).map_err(into_status)?;
    let limits = LimitFilter { namespaces, only_waiting: request.only_waiting };
    let from = from.map_or(0, |PageCursor(at)| at);
    let (page, revision) = handle.limits(limits, from, count).await.map_err(into_status)?;
    Ok(v1::ListLimitsResponse {
        limits: page.limits.iter().map(task_limit::limit).collect(),
        next_page_token: filter::page_token(page.next.map(PageCursor), &conditions),
        revision: revision.0,
    })
}
