//! The limit of calls in flight in the whole server.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::api::status::{self, EdgeError};
use crate::model::ErrorCode;

/// Cheap to clone; clones share the limit.
#[derive(Clone)]
pub struct CallSlots(Arc<Semaphore>);

/// One slot, returned when it is dropped.
pub type CallSlot = OwnedSemaphorePermit;

impl CallSlots {
    pub fn new(max_in_flight: usize) -> Self {
        Self(Arc::new(Semaphore::new(max_in_flight.min(Semaphore::MAX_PERMITS))))
    }

    /// Takes a slot without waiting.
    ///
    /// # Errors
    /// OVERLOADED.
    pub fn acquire(&self) -> Result<CallSlot, Status> {
        self.0.clone().try_acquire_owned().map_err(|_| {
            let message = "too many calls are in flight".to_owned();
            status::to_status(&EdgeError { code: ErrorCode::Overloaded, message })
        })
    }

    #[cfg(test)]
    pub fn available(&self) -> usize {
        self.0.available_permits()
    }
}
