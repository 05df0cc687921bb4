//! Admission of a JSON or gRPC-Web request before its body is read.
//!
//! Such a request becomes calls of the gRPC services. They carry the extension [`Admitted`], so that the
//! layers `authentication` and `load_shed` do not check them a second time.

use std::sync::Arc;

use parking_lot::Mutex;
use tonic::Status;
use tonic::codegen::http::{Extensions, HeaderMap, request};

use crate::api::auth::{AccessControl, ConnectionInfo, Identity, READ_ARTIFACT, is_public};

use crate::model::Sharer;

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
    Slot(Arc<Sharer>),
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

    /// The caller whose share of the memory is used.
    pub fn sharer(&self) -> Option<Arc<Sharer>> {
        match &self.held {
            Held::Slot(sharer) => Some(sharer.clone()),
            Held::Public(_) => None,
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
#[derive(Clone, Default)]
pub struct Admitted {
    /// `None` without authentication, and for public methods.
    pub identity: Option<Arc<Identity>>,
    /// The slot of the request, returned when the request and its calls have ended. A public call has none.
    slot: Option<Arc<Mutex<Option<CallSlot>>>>,
}

impl Admitted {
    pub fn new(identity: Option<Arc<Identity>>, slot: CallSlot) -> Self {
        Self { identity, slot: Some(Arc::new(Mutex::new(Some(slot)))) }
    }

    #[cfg(test)]
    pub fn of(identity: Option<Arc<Identity>>) -> Self {
        Self { identity, ..Self::default() }
    }

    /// Returns the slot before the request has ended.
    pub fn return_slot(&self) {
        if let Some(slot) = &self.slot {
            slot.lock().take();
        }
    }
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
            return Ok(Admission { admitted: Admitted::default(), held: Held::Public(place) });
        }
        let connection = ConnectionInfo::of(&head.extensions);
        let identity = self.access.authenticate(head.uri.path(), &head.headers, &connection);
        let identity = identity.map_err(|refused| *refused)?;
        // Streams exchange it for one of theirs when the request is complete.
        let slot = self.slots.acquire_for_request(head.uri.path(), identity.as_ref(), &connection)?;
        let sharer = slot.sharer().clone();
        Ok(Admission { admitted: Admitted::new(identity, slot), held: Held::Slot(sharer) })
    }

    /// Takes a slot for a download by a link, which needs no token.
    ///
    /// # Errors
    /// OVERLOADED.
    pub fn admit_link(&self, head: &request::Parts) -> Result<CallSlot, Status> {
        self.slots.acquire(READ_ARTIFACT, None, &ConnectionInfo::of(&head.extensions))
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
