//! The part of the server that removes artifacts.

use std::sync::Arc;

use futures_util::FutureExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::artifacts::{Cleaner, Owner};
use crate::model::{Clock, TaskId};
use crate::scheduler::{Handle, Refusal};
use crate::telemetry::panics;

pub(super) fn spawn(handle: Handle, clock: Arc<dyn Clock>, stop: CancellationToken) -> JoinHandle<()> {
    let store = handle.artifacts().clone();
    let owners = Arc::new(move |task| owner(handle.clone(), task).boxed());
    tokio::spawn(panics::essential(Cleaner::new(store, owners, clock).run(stop)))
}

async fn owner(handle: Handle, task: TaskId) -> Result<Owner, String> {
    match handle.durable_status(&task).await {
        Ok(status) if !status.state.is_terminal() => Ok(Owner::Unfinished),
        Ok(status) => {
            Ok(Owner::Finished { at: status.finished_at.unwrap_or(status.since), artifacts: status.artifacts })
        }
        Err(Refusal::TaskNotFound(_)) => Ok(Owner::Absent),
        Err(refusal) => Err(refusal.to_string()),
    }
}
