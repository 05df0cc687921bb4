//! The process, the machine, the runtime and the disk, read at collection.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_semantic_conventions::attribute as semconv;
use tokio::runtime::RuntimeMetrics;
use tokio::time::Instant;

use crate::telemetry::host::{HostHealth, HostSampler};

use super::disk::{DiskSampler, DiskUse};
use super::instruments::Observation;
use super::registry::Metrics;
use super::table;

impl Metrics {
    pub fn observe_host(&self, sampler: &Arc<HostSampler>) {
        let each = |row: &'static table::Row, record: fn(&mut Observation<'_>, HostHealth)| {
            let read = sampler.clone();
            self.instruments().observe(row, move |o| record(o, read.health()));
        };
        each(&table::PROCESS_CPU_TIME, |o, health| o.record(health.process_cpu_time.as_secs_f64(), &[]));
        each(&table::PROCESS_CPU, |o, health| o.record(health.process_cpu_percent / 100.0 / cores(health), &[]));
        each(&table::PROCESS_MEMORY, |o, health| o.count(health.process_memory_bytes, &[]));
        each(&table::PROCESS_THREADS, |o, health| o.count(health.process_threads, &[]));
        each(&table::PROCESS_FILES, |o, health| o.count(health.process_files, &[]));
        each(&table::SYSTEM_CPU, |o, health| o.record(health.cpu_percent / 100.0, &[]));
        each(&table::SYSTEM_CORES, |o, health| o.count(health.cores as u64, &[]));
        each(&table::SYSTEM_MEMORY, |o, health| {
            let free = health.memory_total_bytes.saturating_sub(health.memory_used_bytes);
            for (state, bytes) in [("used", health.memory_used_bytes), ("free", free)] {
                o.count(bytes, &[(semconv::SYSTEM_MEMORY_STATE, state)]);
            }
        });
        each(&table::SYSTEM_MEMORY_LIMIT, |o, health| o.count(health.memory_total_bytes, &[]));
        let began = Instant::now();
        self.instruments().observe(&table::PROCESS_UPTIME, move |o| o.record(began.elapsed().as_secs_f64(), &[]));
        self.instruments().observe(&table::BUILD_INFO, |o| {
            let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
            o.record(1.0, &[("version", env!("CARGO_PKG_VERSION")), ("profile", profile)]);
        });
    }

    pub fn observe_runtime(&self, runtime: &RuntimeMetrics) {
        let each = |row: &'static table::Row, record: fn(&mut Observation<'_>, &RuntimeMetrics)| {
            let read = runtime.clone();
            self.instruments().observe(row, move |o| record(o, &read));
        };
        each(&table::RUNTIME_WORKERS, |o, runtime| o.count(runtime.num_workers() as u64, &[]));
        each(&table::RUNTIME_TASKS, |o, runtime| o.count(runtime.num_alive_tasks() as u64, &[]));
        each(&table::RUNTIME_QUEUE, |o, runtime| o.count(runtime.global_queue_depth() as u64, &[]));
        each(&table::RUNTIME_BUSY, |o, runtime| {
            let busy: Duration = (0..runtime.num_workers()).map(|w| runtime.worker_total_busy_duration(w)).sum();
            o.record(busy.as_secs_f64(), &[]);
        });
    }

    /// The store in this directory and the space that is left for it.
    pub fn observe_files(&self, directory: PathBuf) {
        let sampler = Arc::new(DiskSampler::start(directory));
        let of_store = sampler.clone();
        self.instruments().observe(&table::STORE_SIZE, move |o| {
            for (file, bytes) in of_store.reading().into_iter().flat_map(|reading| reading.databases) {
                o.count(bytes, &[("file", file)]);
            }
        });
        self.instruments().observe(&table::SYSTEM_DISK, move |o| {
            if let Some(DiskUse { used, free }) = sampler.reading().and_then(|reading| reading.disk) {
                o.count(used, &[(semconv::SYSTEM_FILESYSTEM_STATE, "used")]);
                o.count(free, &[(semconv::SYSTEM_FILESYSTEM_STATE, "free")]);
            }
        });
    }
}

#[expect(clippy::cast_precision_loss, reason = "few")]
fn cores(health: HostHealth) -> f64 {
    health.cores.max(1) as f64
}
