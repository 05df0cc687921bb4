//! The interval of streams that send a message periodically.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::api::status::into_status;
use crate::scheduler::{Draining, Handle};

/// Ticks immediately and then at intervals, until the server drains.
pub struct Ticker {
    interval: Interval,
    draining: CancellationToken,
}

impl Ticker {
    pub fn new(handle: &Handle, every: Duration) -> Self {
        let mut interval = interval(every);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { interval, draining: handle.draining() }
    }

    /// # Errors
    /// `DRAINING`, as soon as a drain starts.
    pub async fn tick(&mut self) -> Result<(), Status> {
        tokio::select! {
            _ = self.interval.tick() => Ok(()),
            () = self.draining.cancelled() => Err(into_status(Draining)),
        }
    }
}
