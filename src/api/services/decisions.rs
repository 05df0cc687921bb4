//! ListDecisions.

use tonic::Status;

use crate::api::auth::Caller;
use crate::api::convert::{InvalidFields, filter, pool};
use crate::api::status::into_status;
use crate::model::{FairnessKey, HandlerName, Namespace, PoolName, Role};
use crate::proto::v1;
use crate::scheduler::{DecisionFilter, Handle, PageCursor};

/// Memory for a page and the response: about 700 bytes for each decision.
pub const BYTES_MAX: u64 = 1 << 20;

pub async fn list(
    handle: &Handle,
    request: v1::ListDecisionsRequest,
    caller: &Caller,
) -> Result<v1::ListDecisionsResponse, Status> {
    let count = filter::page_size(request.page_size).map_err(into_status)?;
    let conditions = v1::ListDecisionsRequest { page_size: 0, page_token: String::new(), ..request.clone() };
    let before = filter::page_cursor(&request.page_token, &conditions).map_err(into_status)?;
    let mut invalid = InvalidFields::default();
    let name = invalid.parsed("pool", PoolName::parse(&request.pool));
    let namespace = invalid.optional("namespace", &request.namespace, Namespace::parse);
    let handler_name = invalid.optional("handler", &request.handler, HandlerName::parse);
    let fairness_key = invalid.optional("fairness_key", &request.fairness_key, FairnessKey::parse);
    invalid.check().map_err(into_status)?;
    let Some(name) = name else { return Err(into_status(InvalidFields::one("pool", "is invalid"))) };
    let namespaces = caller.limit_namespaces(Role::Viewer, namespace.into_iter().collect()).map_err(into_status)?;
    let task = Some(&*request.task_id).filter(|text| !text.is_empty());
    let tasks = task.map(|text| caller.task_id_candidates(text)).transpose().map_err(into_status)?.unwrap_or_default();
    let decisions = DecisionFilter { namespaces, tasks, handler: handler_name, fairness_key };
    let before = before.map(|PageCursor(before)| before);
    let (page, revision) = handle.decisions(name, decisions, before, count).await.map_err(into_status)?;
    Ok(v1::ListDecisionsResponse {
        decisions: page.decisions.iter().map(pool::decision).collect(),
        next_page_token: filter::page_token(page.next.map(PageCursor), &conditions),
        revision: revision.0,
    })
}
