//! Checks the artifacts of the attempts of a worker before their ends count.
//!
//! What is being checked belongs to the stream: on the next one, the worker reports the end again.

use std::collections::HashSet;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};

use crate::artifacts::ArtifactStore;
use crate::model::TaskSpec;
use crate::scheduler::{Outcome, RemoteConnection, RunReport, Token, WorkerReport};

pub struct ArtifactChecks {
    store: ArtifactStore,
    tokens: HashSet<Token>,
    checks: FuturesUnordered<BoxFuture<'static, (Token, WorkerReport)>>,
}

impl ArtifactChecks {
    pub fn new(store: ArtifactStore) -> Self {
        Self { store, tokens: HashSet::new(), checks: FuturesUnordered::new() }
    }

    /// Begins to check the ends that name artifacts. Until they are checked, their attempts are only accepted.
    pub fn begin(&mut self, connection: &RemoteConnection, reports: &mut [WorkerReport]) {
        for report in reports {
            let WorkerReport::Finished(token, RunReport { artifacts: Some(_), .. }, _) = report else { continue };
            // Of an attempt that is not the worker's, the end is only acknowledged.
            let Some(task) = connection.task_of(*token) else { continue };
            let token = *token;
            let end = std::mem::replace(report, WorkerReport::Accepted(token));
            if self.tokens.insert(token) {
                let store = self.store.clone();
                self.checks.push(async move { (token, checked(store, task, end).await) }.boxed());
            }
        }
    }

    /// The next end that was checked. Wakes the context when there is one.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Option<WorkerReport> {
        let Poll::Ready(Some((token, end))) = self.checks.poll_next_unpin(context) else { return None };
        self.tokens.remove(&token);
        Some(end)
    }
}

/// The end, or a failure if the store has not what it names.
async fn checked(store: ArtifactStore, task: Arc<TaskSpec>, end: WorkerReport) -> WorkerReport {
    let WorkerReport::Finished(token, report, memory) = end else { return end };
    let Some(named) = report.artifacts.clone() else { return WorkerReport::Finished(token, report, memory) };
    match store.verify(&task, &named).await {
        Ok(()) => WorkerReport::Finished(token, report, memory),
        Err(error) => {
            let outcome = Outcome::Failed(error.into());
            WorkerReport::Finished(token, RunReport { outcome, artifacts: None, ..report }, None)
        }
    }
}
