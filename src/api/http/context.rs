//! What every handler of an HTTP request uses: the contract, the calls of the services, and admission.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;
use tonic::codegen::http::request;
use tonic::service::Routes;

use crate::api::middleware::guard::Guard;

use super::descriptors::Contract;

/// Cheap to clone.
#[derive(Clone)]
pub struct Context {
    pub calls: Guard<Routes>,
    pub contract: Arc<Contract>,
    /// Limit for receiving the body of a request that is not gRPC.
    pub body_timeout: Duration,
}

/// A caller that was authenticated, and its slot among the calls in flight.
pub struct Admission(#[expect(dead_code, reason = "held until it is dropped")] OwnedSemaphorePermit);

impl Context {
    /// Authenticates the caller and takes a slot among the calls in flight. Done before the body is read.
    ///
    /// # Errors
    /// UNAUTHENTICATED, OVERLOADED.
    pub fn admit(&self, head: &request::Parts) -> Result<Admission, Status> {
        self.calls.place_for(head.uri.path(), &head.headers).map(Admission)
    }
}
