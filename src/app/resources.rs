//! Measures the machine for the decisions of the scheduler, in a thread of its own: a busy runtime must not delay them.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::error::{StartError, failed_to};
use crate::scheduler::{Handle, Resources};
use crate::telemetry::cpu::CpuSampler;
use crate::telemetry::memory_limit::unused_memory;
use crate::telemetry::panics;

/// Short enough that a pool answers a burst within about a second.
const INTERVAL: Duration = Duration::from_millis(250);

/// Whether memory is so low that no more work should start. By the unused memory and not by the time for which processes wait for
/// memory (PSI): that rises only when the machine swaps already, and is not known in every container.
struct MemoryWatch {
    reserve: u64,
    is_low: bool,
}

impl MemoryWatch {
    /// Returns whether that has changed.
    fn has_changed(&mut self, unused: u64) -> bool {
        // Tasks that end free memory for as many that start, so begin again only with some more.
        let required = if self.is_low { self.reserve + self.reserve / 2 } else { self.reserve };
        let was_low = std::mem::replace(&mut self.is_low, unused < required);
        was_low != self.is_low
    }

    /// Measures, and logs a change. The memory is enough where it is not known.
    fn measure(&mut self) -> bool {
        let Some(unused) = (self.reserve > 0).then(unused_memory).flatten() else { return false };
        let has_changed = self.has_changed(unused);
        let (unused_bytes, reserve_bytes) = (unused, self.reserve);
        match (has_changed, self.is_low) {
            (false, _) => {}
            (true, true) => {
                tracing::warn!(unused_bytes, reserve_bytes, "memory is low: no more tasks start in the server");
            }
            (true, false) => tracing::info!(unused_bytes, reserve_bytes, "memory is no longer low: tasks start again"),
        }
        has_changed
    }
}

/// Measures until it is dropped.
pub(super) struct ResourceSampler {
    alive: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ResourceSampler {
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(handle: Handle, memory_reserve: u64) -> Result<Self, StartError> {
        let (alive, dropped) = channel();
        let sample = move || {
            panics::mark_thread_essential();
            let (mut cpu, mut memory) = (CpuSampler::new(), MemoryWatch { reserve: memory_reserve, is_low: false });
            loop {
                if memory.measure() || handle.autoscales() {
                    handle.report_resources(Resources { cpu: cpu.share(), memory_low: memory.is_low });
                }
                if dropped.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                    return;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_low_below_the_reserve_until_half_as_much_more_is_unused() {
        let mut watch = MemoryWatch { reserve: 100, is_low: false };
        let mut states = Vec::new();
        for unused in [500, 100, 99, 100, 149, 150, 100, 0, 150] {
            states.push((watch.has_changed(unused), watch.is_low));
        }
        let (enough, low) = ((false, false), (false, true));
        let (begins, ends) = ((true, true), (true, false));
        assert_eq!(states, [enough, enough, begins, low, low, ends, enough, begins, ends]);
    }
}
