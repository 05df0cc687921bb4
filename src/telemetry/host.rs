//! Health of the machine and of this process, measured on request.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate, System};
use tokio::time::Instant;

use super::memory_limit::group_memory;

/// Shortest time between two measurements; earlier requests get the last one.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// One measurement. Values that the platform does not provide are zero.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HostHealth {
    pub cores: usize,
    /// Use of all cores since the previous measurement, 0 to 100.
    pub cpu_percent: f64,
    /// Memory of the machine, or of the container when that is less.
    pub memory_total_bytes: u64,
    /// Without caches that can be dropped.
    pub memory_used_bytes: u64,
    /// Share of the total, 0 to 100.
    pub memory_percent: f64,
    pub process_memory_bytes: u64,
    pub process_threads: u64,
    /// CPU use of this process since the previous measurement; 100 is one core.
    pub process_cpu_percent: f64,
    pub process_cpu_time: Duration,
    /// Open files and connections of this process.
    pub process_files: u64,
}

pub type HostReading = Arc<dyn Fn() -> HostHealth + Send + Sync>;

/// Measures at most once a second; share it between threads.
pub struct HostSampler {
    state: Mutex<State>,
}

struct State {
    /// `None` on a platform that sysinfo does not support.
    system: Option<System>,
    pid: Option<Pid>,
    measured: Instant,
    health: HostHealth,
}

impl HostSampler {
    /// Takes the first measurement, which the next one is compared with.
    pub fn new() -> Self {
        let mut state = State {
            system: System::new().ok(),
            pid: sysinfo::get_current_pid().ok(),
            measured: Instant::now(),
            health: HostHealth::default(),
        };
        state.measure();
        Self { state: Mutex::new(state) }
    }

    /// At most [`REFRESH_INTERVAL`] old. A new measurement reads a few files and takes less than a millisecond.
    pub fn health(&self) -> HostHealth {
        let mut state = self.state.lock();
        if state.measured.elapsed() >= REFRESH_INTERVAL {
            state.measure();
        }
        state.health
    }
}

impl State {
    fn measure(&mut self) {
        self.measured = Instant::now();
        let Some(system) = &mut self.system else { return };
        system.refresh_cpu_specifics(CpuRefreshKind::nothing().with_usage());
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let (total, used) = memory(system);
        let mut health = HostHealth {
            cores: system.cpus().len(),
            cpu_percent: percent(system.global_cpu_usage()).min(100.0),
            memory_total_bytes: total,
            memory_used_bytes: used,
            memory_percent: share(used, total),
            process_threads: threads(),
            ..HostHealth::default()
        };
        if let Some(pid) = self.pid {
            // Without the threads: a thousand workers would be most of the cost.
            let kind = ProcessRefreshKind::nothing().with_cpu().with_memory().without_tasks();
            system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), true, kind);
            if let Some(process) = system.process(pid) {
                health.process_memory_bytes = process.memory();
                health.process_cpu_percent = percent(process.cpu_usage());
                health.process_cpu_time = Duration::from_millis(process.accumulated_cpu_time());
                health.process_files = process.open_files().unwrap_or(0) as u64;
            }
        }
        self.health = health;
    }
}

/// Total and used bytes of the machine, or of the container if its limit is smaller.
fn memory(system: &System) -> (u64, u64) {
    let total = system.total_memory();
    match group_memory() {
        Some(group) if group.limit < total => (group.limit, group.used.min(group.limit)),
        _ => (total, system.used_memory().min(total)),
    }
}

#[cfg(target_os = "linux")]
fn threads() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let count = status.lines().find_map(|line| line.strip_prefix("Threads:"));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

#[cfg(not(target_os = "linux"))]
fn threads() -> u64 {
    0
}

fn percent(value: f32) -> f64 {
    if value.is_finite() { f64::from(value.max(0.0)) } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "a percentage needs few bits")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_is_plausible() {
        let health = HostSampler::new().health();
        assert!(health.cores >= 1);
        assert!((0.0..=100.0).contains(&health.cpu_percent));
        assert!(health.memory_used_bytes > 0 && health.memory_used_bytes <= health.memory_total_bytes);
        assert!(health.memory_percent > 0.0 && health.memory_percent <= 100.0);
        assert!(health.process_memory_bytes > 1 << 20, "{health:?}");
        assert!(health.process_memory_bytes < health.memory_total_bytes);
        assert!(health.process_threads >= 1);
        assert!(health.process_cpu_percent >= 0.0);
        assert!(health.process_files >= 3, "{health:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn within_a_second_the_last_measurement_is_returned() {
        let sampler = HostSampler::new();
        let first = sampler.state.lock().measured;
        tokio::time::advance(REFRESH_INTERVAL / 2).await;
        let health = sampler.health();
        assert_eq!(sampler.health(), health);
        assert_eq!(sampler.state.lock().measured, first);
        tokio::time::advance(REFRESH_INTERVAL).await;
        sampler.health();
        assert!(sampler.state.lock().measured > first);
    }
    #[test]
    fn several_threads_can_measure_at_once() {
        let sampler = HostSampler::new();
        let measure = || assert!((0..100).all(|_| sampler.health().cores >= 1));
        std::thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(measure))));
    }
}
