//! Limits the number of connections by closing the one that has been idle longest.
//!
//! For the admin ports: every new connection is accepted, because it can be the probe that decides whether
//! the server is restarted.

use std::sync::Arc;

use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

pub struct IdleEviction {
    open: Mutex<Vec<Arc<OpenConnection>>>,
    slots: Arc<Semaphore>,
}

/// One connection, also held by its calls.
pub struct OpenConnection {
    activity: Mutex<Activity>,
    evicted: CancellationToken,
}

struct Activity {
    calls_in_flight: usize,
    /// The last start or end of a call, or the start of the connection.
    changed_at: Instant,
}

impl IdleEviction {
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { open: Mutex::default(), slots: Arc::new(Semaphore::new(max)) })
    }

    /// Registers a connection. If the limit is reached, evicts another one and waits until it is closed.
    pub async fn admit(&self) -> Option<EvictablePermit> {
        if self.slots.available_permits() == 0 {
            self.evict();
        }
        // Fails only if the semaphore is closed, which it never is.
        let slot = self.slots.clone().acquire_owned().await.ok()?;
        let activity = Mutex::new(Activity { calls_in_flight: 0, changed_at: Instant::now() });
        let connection = Arc::new(OpenConnection { activity, evicted: CancellationToken::new() });
        let mut open = self.open.lock();
        open.retain(|connection| !connection.evicted.is_cancelled());
        open.push(connection.clone());
        Some(EvictablePermit { connection, _slot: slot })
    }

    fn evict(&self) {
        let open = self.open.lock();
        let candidates = open.iter().filter(|connection| !connection.evicted.is_cancelled());
        if let Some(idlest) = candidates.min_by_key(|connection| connection.rank()) {
            idlest.evicted.cancel();
        }
    }
}

impl OpenConnection {
    /// The connection with the lowest rank is evicted first: without a call in flight, and idle longest.
    fn rank(&self) -> (bool, Instant) {
        let activity = self.activity.lock();
        (activity.calls_in_flight > 0, activity.changed_at)
    }
}

/// Held by the task of the connection.
pub struct EvictablePermit {
    pub connection: Arc<OpenConnection>,
    _slot: OwnedSemaphorePermit,
}

impl EvictablePermit {
    /// Completes when the connection has to close.
    pub async fn evicted(&self) {
        self.connection.evicted.cancelled().await;
    }
}

impl Drop for EvictablePermit {
    fn drop(&mut self) {
        // A closed connection cannot be evicted; `admit` removes it.
        self.connection.evicted.cancel();
    }
}

/// A call in flight, until the end of its response body.
pub struct ActiveCall(Arc<OpenConnection>);

impl ActiveCall {
    pub fn start(connection: Arc<OpenConnection>) -> Self {
        {
            let mut activity = connection.activity.lock();
            *activity = Activity { calls_in_flight: activity.calls_in_flight + 1, changed_at: Instant::now() };
        }
        Self(connection)
    }

    pub fn hold_until_end_of(self, body: Body) -> Body {
        Body::new(body.map_err(move |error| {
            let _call = &self;
            error
        }))
    }
}

impl Drop for ActiveCall {
    fn drop(&mut self) {
        let mut activity = self.0.activity.lock();
        *activity = Activity { calls_in_flight: activity.calls_in_flight - 1, changed_at: Instant::now() };
    }
}
