//! Every metric, declared once: the instruments, `/metrics` and `docs/metrics.md` are made from these rows.
//!
//! Names and units follow OpenTelemetry: no unit in the name, seconds, UCUM. Attributes have few
//! values: what could grow without bound is cut off to `other`.

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Adds up over attributes and servers, such as tasks by state.
    UpDownCounter,
    /// A reading that does not add up, such as a share.
    Gauge,
    /// A distribution.
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Name in OpenTelemetry.
    pub name: &'static str,
    /// UCUM unit; `{things}` in braces are only a note.
    pub unit: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// One sentence for people.
    pub help: &'static str,
    /// Keys of its attributes.
    pub attributes: &'static [&'static str],
}

impl Row {
    /// Name in Prometheus without the suffix that counters have.
    pub fn family(&self) -> String {
        let mut name = self.name.replace('.', "_");
        let suffix = match (self.unit, self.kind) {
            ("s", _) => "_seconds",
            ("By", _) => "_bytes",
            ("1", Gauge) => "_ratio",
            _ => "",
        };
        name.push_str(suffix);
        name
    }

    /// Name in Prometheus; a histogram adds `_bucket`, `_sum` and `_count`.
    pub fn prometheus(&self) -> String {
        let total = if self.kind == Counter { "_total" } else { "" };
        self.family() + total
    }
}

/// Seconds that a task waits.
const WAITS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0,
    3600.0,
];
/// Seconds that an attempt runs.
const RUNS: &[f64] = &[
    0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0,
    1800.0, 3600.0,
];
/// Seconds that a call takes: those of the convention, and finer ones below.
const CALLS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Seconds that a commit takes.
const COMMITS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Events of one commit.
const COMMIT_SIZES: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0];

/// Makes a constant of each row, and the table of all of them in the order of the page.
macro_rules! rows {
    ($($row:ident: $name:literal, $unit:literal, $kind:expr, [$($attribute:literal),*], $help:literal;)*) => {
        $(
            #[doc = concat!("`", $name, "`")]
            pub const $row: Row =
                Row { name: $name, unit: $unit, kind: $kind, help: $help, attributes: &[$($attribute),*] };
        )*
        /// All metrics.
        pub const TABLE: &[&Row] = &[$(&$row),*];
    };
}

use Kind::{Counter, Gauge, Histogram, UpDownCounter};

rows! {
    TASK_SUBMITTED: "lineshaft.task.submitted", "{task}", Counter, ["pool", "handler", "priority"],
        "Tasks that were accepted and are durable.";
    TASK_FINISHED: "lineshaft.task.finished", "{task}", Counter, ["pool", "handler", "result", "error.type"],
        "Tasks that reached their end; `error.type` is the reason of a failed one.";
    TASK_RETRIED: "lineshaft.task.retried", "{attempt}", Counter, ["pool", "handler", "error.type"],
        "Attempts that failed and are followed by another.";
    TASK_ATTEMPTS: "lineshaft.task.attempts", "{attempt}", Counter, ["pool", "handler", "result", "error.type"],
        "Attempts that ended.";
    TASK_WAIT: "lineshaft.task.wait.duration", "s", Histogram(WAITS), ["pool", "priority"],
        "Time from being eligible to the start of an attempt.";
    TASK_DURATION: "lineshaft.task.duration", "s", Histogram(RUNS), ["pool", "handler", "result"],
        "Time that an attempt ran.";
    TASK_ACTIVE: "lineshaft.task.active", "{task}", UpDownCounter, ["pool", "state"],
        "Tasks that have not ended, by state.";
    QUEUE_LENGTH: "lineshaft.queue.length", "{task}", UpDownCounter, ["pool", "priority"],
        "Tasks that are QUEUED.";
    QUEUE_LIMIT: "lineshaft.queue.limit", "{task}", UpDownCounter, ["pool"],
        "Tasks that may wait in the pool; beyond, submissions are refused.";
    QUEUE_OLDEST: "lineshaft.queue.oldest_task.age", "s", Gauge, ["pool", "priority"],
        "How long the oldest QUEUED task has been eligible; 0 when none is.";
    NAMESPACE_SUBMITTED: "lineshaft.namespace.task.submitted", "{task}", Counter, ["namespace"],
        "Tasks that were accepted, by tenant: the first 64 seen since the start, the rest as `other`.";
    NAMESPACE_FINISHED: "lineshaft.namespace.task.finished", "{task}", Counter, ["namespace", "result"],
        "Tasks that reached their end, by tenant.";
    POOL_WORKERS: "lineshaft.pool.worker.count", "{worker}", UpDownCounter, ["pool", "state"],
        "Workers that are there, `busy` and `idle`.";
    POOL_LIMIT: "lineshaft.pool.worker.limit", "{worker}", UpDownCounter, ["pool"],
        "Workers that there should be.";
    POOL_UTILIZATION: "lineshaft.pool.utilization", "1", Gauge, ["pool"],
        "Share of the workers that are busy.";
    POOL_PAUSED: "lineshaft.pool.paused", "{pool}", Gauge, ["pool"],
        "1 while the pool starts nothing because it is paused.";
    POOL_STEALS: "lineshaft.pool.steals", "{attempt}", Counter, ["pool"],
        "Attempts that a worker took from another.";
    COMMIT_DURATION: "lineshaft.store.commit.duration", "s", Histogram(COMMITS), [],
        "Time until a commit was durable.";
    COMMIT_SIZE: "lineshaft.store.commit.size", "{event}", Histogram(COMMIT_SIZES), [],
        "Events that became durable together.";
    COMMIT_FAILURES: "lineshaft.store.commit.failures", "{commit}", Counter, [],
        "Commits that the store refused; they are tried again.";
    STORE_REFUSES: "lineshaft.store.refuses", "{store}", Gauge, [],
        "1 while the store refuses writes and nothing is accepted.";
    STORE_SIZE: "lineshaft.store.size", "By", UpDownCounter, ["file"],
        "Bytes of the journal and the projection, write-ahead logs included.";
    PROJECTION_LAG: "lineshaft.store.projection.lag", "{event}", Gauge, [],
        "Durable events that the tables for questions have not taken yet.";
    WATCHERS: "lineshaft.watch.subscriber.count", "{subscriber}", UpDownCounter, [],
        "Watches that are open.";
    WATCH_EVENTS: "lineshaft.watch.events", "{event}", Counter, [],
        "Events that were given to watches.";
    WATCH_CATCH_UPS: "lineshaft.watch.catch_ups", "{read}", Counter, [],
        "Times that a watch had fallen behind and was caught up from the journal.";
    RPC_DURATION: "rpc.server.call.duration", "s", Histogram(CALLS),
        ["rpc.system.name", "rpc.method", "rpc.status_code", "error.type"],
        "Time from a call's headers to the end of its answer; of a stream, its whole life.";
    SERVER_READY: "lineshaft.server.ready", "{server}", Gauge, [],
        "1 while the server takes work, as `/health/ready` says.";
    SILENCE: "lineshaft.watchdog.silence", "s", Gauge, ["part"],
        "Time since the part last showed that it gets on.";
    STALLS: "lineshaft.watchdog.stalls", "{stall}", Counter, ["part"],
        "Times that the part was silent for longer than `server.stall_limit`.";
    RUNTIME_WORKERS: "lineshaft.runtime.worker.count", "{thread}", UpDownCounter, [],
        "Threads of the asynchronous runtime.";
    RUNTIME_TASKS: "lineshaft.runtime.task.count", "{task}", UpDownCounter, [],
        "Asynchronous activities in the runtime: connections, calls, watches.";
    RUNTIME_QUEUE: "lineshaft.runtime.queue.length", "{task}", UpDownCounter, [],
        "Asynchronous activities that wait for a thread in the shared queue.";
    RUNTIME_BUSY: "lineshaft.runtime.busy.time", "s", Counter, [],
        "Time that the runtime's threads were busy, added up.";
    TELEMETRY_ITEMS: "lineshaft.telemetry.items", "{item}", Counter, ["signal", "outcome"],
        "Spans, log records and exports of metrics: `exported`, or lost as `queue_full` or `failed`.";
    BUILD_INFO: "lineshaft.build.info", "{build}", Gauge, ["version", "profile"],
        "1, with what runs as attributes.";
    PROCESS_CPU_TIME: "process.cpu.time", "s", Counter, [],
        "Processor time of the server, without its children.";
    PROCESS_CPU: "process.cpu.utilization", "1", Gauge, [],
        "Share of all cores that the server uses.";
    PROCESS_MEMORY: "process.memory.usage", "By", UpDownCounter, [],
        "Resident memory of the server.";
    PROCESS_THREADS: "process.thread.count", "{thread}", UpDownCounter, [],
        "Threads of the server.";
    PROCESS_FILES: "process.unix.file_descriptor.count", "{file_descriptor}", UpDownCounter, [],
        "Open files and connections of the server.";
    PROCESS_UPTIME: "process.uptime", "s", Gauge, [],
        "Time since the server was started.";
    SYSTEM_CPU: "system.cpu.utilization", "1", Gauge, [],
        "Share of all cores that is used by anybody.";
    SYSTEM_CORES: "system.cpu.logical.count", "{cpu}", UpDownCounter, [],
        "Cores of the machine.";
    SYSTEM_MEMORY: "system.memory.usage", "By", UpDownCounter, ["system.memory.state"],
        "Memory of the machine, or of the container when that is less: `used` and `free`.";
    SYSTEM_MEMORY_LIMIT: "system.memory.limit", "By", UpDownCounter, [],
        "Memory that there is.";
    SYSTEM_DISK: "system.filesystem.usage", "By", UpDownCounter, ["system.filesystem.state"],
        "Space of the file system that holds the store: `used` and `free`.";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_well_formed_and_without_their_unit() {
        let mut seen = HashSet::new();
        for row in TABLE {
            assert!(seen.insert(row.prometheus()), "{} is there twice", row.name);
            assert!(row.name.chars().all(|c| c.is_ascii_lowercase() || c == '.' || c == '_'), "{}", row.name);
            for unit in ["seconds", "bytes", "total", "ratio"] {
                assert!(row.name.split(['.', '_']).all(|word| word != unit), "{} says its unit", row.name);
            }
            assert!(row.help.ends_with('.') && row.help.len() > 12, "{}", row.name);
            let own = ["lineshaft.", "rpc.", "process.", "system."];
            assert!(own.iter().any(|prefix| row.name.starts_with(prefix)), "{}", row.name);
        }
    }

    #[test]
    fn buckets_grow_and_prometheus_names_carry_the_unit() {
        for row in TABLE {
            if let Histogram(buckets) = row.kind {
                assert!(buckets.is_sorted_by(|a, b| a < b), "{}", row.name);
            }
        }
        assert_eq!(TASK_SUBMITTED.prometheus(), "lineshaft_task_submitted_total");
        assert_eq!(TASK_DURATION.prometheus(), "lineshaft_task_duration_seconds");
        assert_eq!(POOL_UTILIZATION.prometheus(), "lineshaft_pool_utilization_ratio");
        assert_eq!(RUNTIME_BUSY.prometheus(), "lineshaft_runtime_busy_time_seconds_total");
        assert_eq!(PROCESS_MEMORY.prometheus(), "process_memory_usage_bytes");
    }
}
