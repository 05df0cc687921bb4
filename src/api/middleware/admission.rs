//! Admission of a JSON or gRPC-Web request before its body is read.
//!
//! Such a request becomes calls of the gRPC services. They carry the extension [`Admitted`], so that the
//! layers `authentication` and `load_shed` do not check them a second time.

use std::sync::Arc;

use tonic::Status;
use tonic::codegen::http::{Extensions, HeaderMap, request};

use crate::api::auth::{AccessControl, ConnectionInfo, Identity, is_public};

use super::call_slots::{CallSlot, CallSlots};
use super::public_places::{PUBLIC_BYTES_MAX, PublicPlace, PublicPlaces};

#[derive(Clone)]
pub struct AdmissionControl {
    access: AccessControl,
    slots: CallSlots,
    public: PublicPlaces,
}

/// An admitted request: the identity of its caller, and its slot among the calls in flight.
pub struct Admission {
    pub admitted: Admitted,
    held: Held,
}

enum Held {
    Slot(#[expect(dead_code, reason = "returned when it is dropped")] CallSlot),
    Public(PublicPlace),
}

impl Admission {
    /// The size of the request body, if the call allows `bytes`.
    pub fn bytes_max(&self, bytes: usize) -> usize {
        match &self.held {
            Held::Slot(_) => bytes,
            Held::Public(_) => PUBLIC_BYTES_MAX,
        }
    }

    /// Completes when the request has to end, with the reason.
    pub async fn ended(&mut self) -> Status {
        match &mut self.held {
            Held::Slot(_) => std::future::pending().await,
            Held::Public(place) => place.taken().await,
        }
    }
}

/// Request extension of a call that belongs to an admitted request. It cannot come from the network.
#[derive(Clone)]
pub struct Admitted {
    /// `None` without authentication, and for public methods.
    pub identity: Option<Arc<Identity>>,
}

impl AdmissionControl {
    pub fn new(access: AccessControl, slots: CallSlots, public: PublicPlaces) -> Self {
        Self { access, slots, public }
    }

    /// Authenticates the caller and takes a slot among the calls in flight. A public call takes a place of its own.
    ///
    /// # Errors
    /// UNAUTHENTICATED, OVERLOADED.
    pub fn admit(&self, head: &request::Parts) -> Result<Admission, Status> {
        if is_public(head.uri.path()) {
            let place = self.public.enter(head.uri.path());
            return Ok(Admission { admitted: Admitted { identity: None }, held: Held::Public(place) });
        }
        let connection = ConnectionInfo::of(&head.extensions);
        let identity = self.access.authenticate(head.uri.path(), &head.headers, &connection);
        let identity = identity.map_err(|refused| *refused)?;
        Ok(Admission { admitted: Admitted { identity }, held: Held::Slot(self.slots.acquire()?) })
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
