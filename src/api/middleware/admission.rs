//! Admission of a JSON or gRPC-Web request before its body is read.
//!
//! Such a request becomes calls of the gRPC services. They carry the extension [`Admitted`], so that the
//! layers `authentication` and `load_shed` do not check them a second time.

use std::sync::Arc;

use tonic::Status;
use tonic::codegen::http::{Extensions, HeaderMap, request};

use crate::api::auth::{AccessControl, ConnectionInfo, Identity};

use super::call_slots::{CallSlot, CallSlots};

#[derive(Clone)]
pub struct AdmissionControl {
    access: AccessControl,
    slots: CallSlots,
}

/// An admitted request: the identity of its caller, and its slot among the calls in flight.
pub struct Admission {
    pub admitted: Admitted,
    _slot: CallSlot,
}

/// Request extension of a call that belongs to an admitted request. It cannot come from the network.
#[derive(Clone)]
pub struct Admitted {
    /// `None` without authentication, and for public methods.
    pub identity: Option<Arc<Identity>>,
}

impl AdmissionControl {
    pub fn new(access: AccessControl, slots: CallSlots) -> Self {
        Self { access, slots }
    }

    /// Authenticates the caller and takes a slot among the calls in flight.
    ///
    /// # Errors
    /// UNAUTHENTICATED, OVERLOADED.
    pub fn admit(&self, head: &request::Parts) -> Result<Admission, Status> {
        let connection = ConnectionInfo::of(&head.extensions);
        let identity = self.access.authenticate(head.uri.path(), &head.headers, &connection);
        let identity = identity.map_err(|refused| *refused)?;
        Ok(Admission { admitted: Admitted { identity }, _slot: self.slots.acquire()? })
    }

    /// Checks whether the caller may read the page at `path`.
    ///
    /// # Errors
    /// UNAUTHENTICATED, PERMISSION_DENIED.
    pub fn authorize_page(&self, path: &str, headers: &HeaderMap, extensions: &Extensions) -> Result<(), Status> {
        let connection = ConnectionInfo::of(extensions);
        self.access.authorize_page(path, headers, &connection).map_err(|refused| *refused)
    }
}
