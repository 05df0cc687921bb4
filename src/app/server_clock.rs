//! Keeps the server's clock near the system clock, and logs when that is set.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::config::HumanDuration;
use crate::model::{ClockStep, ServerClock};
use crate::telemetry::panics;

const INTERVAL: Duration = Duration::from_secs(1);

/// Starts the clock. It is kept near the system clock until the last handle of it is dropped.
pub(super) fn start() -> Arc<ServerClock> {
    let clock = Arc::new(ServerClock::start());
    let followed = Arc::downgrade(&clock);
    tokio::spawn(panics::essential(async move {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while let Some(clock) = followed.upgrade() {
            if let Some(step) = clock.follow() {
                log(step);
            }
            drop(clock);
            ticks.tick().await;
        }
    }));
    clock
}

fn log(ClockStep { forward, by, difference, slew_time }: ClockStep) {
    let seconds = |time: Duration| HumanDuration(Duration::from_secs((time + Duration::from_millis(500)).as_secs()));
    let direction = if forward { "forward" } else { "back" };
    tracing::warn!(
        "the system clock was set {direction} by {}: no wait is changed; the times of tasks differ from it by {} and reach \
         it in {}, or at a restart",
        seconds(by),
        seconds(difference),
        seconds(slew_time),
    );
}
