//! What the workers of all pools share with the rest of the server.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::runtime;

use crate::artifacts::ArtifactStore;
use crate::model::{Clock, Revision, SharedCatalog};
use crate::runners::{ParentSource, Registry, ResultMemory};
use crate::telemetry::metrics::Metrics;

use super::report::ReportSink;

/// Reads the payload of the task that was submitted at a revision, for an attempt that does not carry it. The error is a
/// message for people.
pub type PayloadSource = Arc<dyn Fn(Revision) -> BoxFuture<'static, Result<Bytes, String>> + Send + Sync>;

#[derive(Clone)]
pub struct WorkerContext {
    pub registry: Arc<Registry>,
    pub clock: Arc<dyn Clock>,
    pub reports: ReportSink,
    pub payloads: PayloadSource,
    /// Reads the results of parents.
    pub parents: ParentSource,
    pub results: ResultMemory,
    pub artifacts: ArtifactStore,
    pub runtime: runtime::Handle,
    pub metrics: Metrics,
    /// How long a remote worker may be silent or disconnected before its attempts are given to others.
    pub worker_lease: Duration,
    /// The handlers that metrics count by name.
    pub catalog: SharedCatalog,
}
