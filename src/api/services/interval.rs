//! The beat of streams that tell something at intervals.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::scheduler::{Draining, Handle};

use crate::api::status::refused;

/// Ticks at once and then at intervals, until the server drains.
pub struct Ticks {
    interval: Interval,
    draining: CancellationToken,
}

impl Ticks {
    pub fn new(handle: &Handle, every: Duration) -> Self {
        let mut interval = interval(every);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { interval, draining: handle.draining() }
    }

    /// Waits for the next one.
    ///
    /// # Errors
    /// `DRAINING`, as soon as a drain begins.
    pub async fn next(&mut self) -> Result<(), Status> {
        tokio::select! {
            _ = self.interval.tick() => Ok(()),
            () = self.draining.cancelled() => Err(refused(Draining)),
        }
    }
}
