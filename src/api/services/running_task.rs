//! The task of an attempt that a worker runs, by the token of the attempt.

use std::sync::Arc;

use tonic::Status;

use crate::api::auth::Caller;
use crate::api::convert::InvalidFields;
use crate::api::status::into_status;
use crate::model::TaskSpec;
use crate::scheduler::{Handle, Token};

/// The task of the attempt, whose handler workers of the caller may run: what they may do for it follows from that they may get the
/// task.
///
/// # Errors
/// INVALID_FIELD, and the errors of the scheduler.
pub async fn find(
    handle: &Handle,
    task_id: &str,
    token: &str,
    caller: &Caller,
) -> Result<(Arc<TaskSpec>, Token), Status> {
    let candidates = caller.task_id_candidates(task_id).map_err(into_status)?;
    let unknown = || into_status(InvalidFields::one("token", "is not that of a running attempt of the task"));
    let token = Token::parse(token).ok_or_else(unknown)?;
    for id in candidates {
        if let Some(task) = handle.task_of_attempt(&id, token).await.map_err(into_status)?
            && let Some(pool) = handle.catalog().pools.get(&task.options.pool)
            && caller.may_offer(&task.options.handler, pool).is_ok()
        {
            return Ok((task, token));
        }
    }
    Err(unknown())
}
