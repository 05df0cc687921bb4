//! The memory that results of attempts may take.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::model::limits::PayloadLimit;
use crate::model::{MemoryAccount, MemoryFull, MemoryPart, Reservation, Sharer};

/// As for the results of remote workers, which are parts of requests.
const PART: MemoryPart = MemoryPart::Requests;

/// Time between two tries to get memory.
pub const MEMORY_INTERVAL: Duration = Duration::from_millis(100);

/// Memory for the results of all attempts that the server itself runs.
#[derive(Clone, Debug)]
pub struct ResultMemory {
    account: MemoryAccount,
    /// All attempts together are one caller, so that they leave memory to requests.
    sharer: Arc<Sharer>,
    /// Of one result.
    limit: PayloadLimit,
}

impl ResultMemory {
    pub fn new(account: MemoryAccount) -> Self {
        Self { account, sharer: Arc::default(), limit: PayloadLimit::default() }
    }

    /// The same memory, for results of this size.
    pub fn with_limit(&self, limit: PayloadLimit) -> Self {
        Self { limit, ..self.clone() }
    }

    pub(super) fn limit(&self) -> PayloadLimit {
        self.limit
    }

    pub(super) fn reserve(&self, bytes: usize) -> Option<Reservation> {
        self.account.reserve_for(Some(Arc::clone(&self.sharer)), PART, bytes as u64).ok()
    }

    /// Waits until there is memory.
    pub(super) async fn wait_for(&self, bytes: usize) -> Reservation {
        loop {
            if let Some(reserved) = self.reserve(bytes) {
                return reserved;
            }
            sleep(MEMORY_INTERVAL).await;
        }
    }

    /// That there is none left.
    pub(super) fn full(&self) -> MemoryFull {
        self.account.full(PART)
    }
}
