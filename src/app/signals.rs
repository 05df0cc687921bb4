//! Drains the server on SIGTERM and SIGINT.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::error::{StartError, failed_to};
use crate::scheduler::Handle;
use crate::telemetry::panics;

/// The first signal starts a drain; a second one kills the programs of the tasks that still run.
pub(super) fn drain_on_signals(handle: Handle) -> Result<(), StartError> {
    let listen = |kind| signal(kind).map_err(failed_to("listen for signals"));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::spawn(panics::essential(async move {
        let mut limit = None;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if limit.is_none() {
                tracing::info!("draining; signal again to stop immediately");
            } else {
                tracing::info!("stopping immediately: running tasks are killed");
            }
            handle.drain(limit);
            limit = Some(Duration::ZERO);
        }
    }));
    Ok(())
}
