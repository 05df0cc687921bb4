//! Measures the machine for the decisions of the scheduler, in a thread of its own: a busy runtime must not delay them.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::error::{StartError, failed_to};
use crate::scheduler::{Handle, Resources};
use crate::telemetry::cpu::CpuSampler;
use crate::telemetry::panics;

/// Short enough that a pool answers a burst within about a second.
const INTERVAL: Duration = Duration::from_millis(250);

/// Measures until it is dropped.
pub(super) struct ResourceSampler {
    alive: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ResourceSampler {
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(handle: Handle) -> Result<Self, StartError> {
        let (alive, dropped) = channel();
        let sample = move || {
            panics::mark_thread_essential();
            let mut cpu = CpuSampler::new();
            while dropped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                if handle.autoscales() {
                    handle.report_resources(Resources { cpu: cpu.share() });
                }
            }
        };
        let thread = Builder::new().name("resource-sampler".to_owned()).spawn(sample);
        let thread = thread.map_err(failed_to("measure the machine"))?;
        Ok(Self { alive: Some(alive), thread: Some(thread) })
    }
}

impl Drop for ResourceSampler {
    /// Waits for the thread, so that it no longer has a handle to the scheduler.
    fn drop(&mut self) {
        self.alive.take();
        if let Some(thread) = self.thread.take() {
            // It cannot panic without ending the process.
            let _ = thread.join();
        }
    }
}
