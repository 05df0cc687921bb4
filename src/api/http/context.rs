//! What every handler of an HTTP request uses: the contract, the gRPC services, and admission.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response, request};
use tower::util::BoxCloneSyncService;

use crate::api::middleware::admission::{Admission, AdmissionControl};
use crate::api::middleware::request_memory::request_part;
use crate::api::status;
use crate::model::MemoryAccount;
use crate::model::limits::PayloadLimit;

use super::body::{self, BodyLimits, ReceivedBody};
use super::descriptors::Contract;

/// The gRPC services behind all layers.
pub type Calls = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// Cheap to clone.
#[derive(Clone)]
pub struct Context {
    pub calls: Calls,
    pub admission: AdmissionControl,
    pub contract: Arc<Contract>,
    /// Limit for receiving the body of a request that is not gRPC.
    pub body_timeout: Duration,
    pub memory: MemoryAccount,
    pub payload_limit: PayloadLimit,
}

impl Context {
    /// Authenticates the caller and takes a slot among the calls in flight. Done before the body is read.
    ///
    /// # Errors
    /// UNAUTHENTICATED, OVERLOADED.
    pub fn admit(&self, head: &request::Parts) -> Result<Admission, Status> {
        self.admission.admit(head)
    }

    /// Reads the body of an admitted request, of at most `bytes`.
    ///
    /// # Errors
    /// Those of [`body::read`].
    pub async fn receive(
        &self,
        head: &request::Parts,
        body: Body,
        bytes: usize,
        deadline: Option<Instant>,
        admission: &mut Admission,
    ) -> Result<ReceivedBody, Status> {
        let memory =
            request_part(head.uri.path()).map(|part| self.memory.reserve_for(admission.sharer(), part, 0)).transpose();
        let memory = memory.map_err(|full| status::to_status(&full))?;
        let limits = BodyLimits { bytes: admission.bytes_max(bytes), timeout: self.body_timeout };
        tokio::select! {
            body = body::read(&head.headers, body, limits, deadline, memory) => body,
            status = admission.ended() => Err(status),
        }
    }
}
