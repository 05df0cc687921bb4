//! Every metric, declared once: the instruments, `/metrics` and `docs/metrics.md` are made from these rows.
//!
//! Names and units follow OpenTelemetry: no unit in the name, seconds, UCUM units. Attributes have few values; those
//! that could grow without bound are cut off to `other`.

use opentelemetry_semantic_conventions::attribute::{
    ERROR_TYPE, RPC_METHOD, RPC_SYSTEM_NAME, SYSTEM_FILESYSTEM_STATE, SYSTEM_MEMORY_STATE,
};

use crate::telemetry::grpc_status::RPC_STATUS_CODE;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Counter,
    /// Can be summed over attributes and servers, such as tasks by state.
    UpDownCounter,
    /// Cannot be summed, such as a share.
    Gauge,
    /// With the upper bounds of its buckets.
    Histogram(&'static [f64]),
}

#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// OpenTelemetry name.
    pub name: &'static str,
    /// UCUM unit; `{things}` in braces are annotations.
    pub unit: &'static str,
    pub kind: Kind,
    /// One sentence for the page of metrics.
    pub help: &'static str,
    pub attributes: &'static [&'static str],
}

impl Row {
    /// Prometheus name without the suffix of counters.
    pub fn family(&self) -> String {
        let suffix = match (self.unit, self.kind) {
            ("s", _) => "_seconds",
            ("By", _) => "_bytes",
            ("1", Gauge) => "_ratio",
            _ => "",
        };
        self.name.replace('.', "_") + suffix
    }

    /// Prometheus name; a histogram adds `_bucket`, `_sum` and `_count`.
    pub fn prometheus(&self) -> String {
        let total = if self.kind == Counter { "_total" } else { "" };
        self.family() + total
    }
}

/// Waiting time of tasks in seconds.
const WAITS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0,
    3600.0,
];
/// Duration of attempts in seconds.
const RUNS: &[f64] = &[
    0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0,
    1800.0, 3600.0,
];
/// Duration of calls in seconds: the bounds of the semantic conventions, and finer ones below.
const CALLS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Duration of commits in seconds.
const COMMITS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Events of a commit.
const COMMIT_SIZES: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0];

/// Makes a constant of each row, and the table of all rows in the order of the page.
macro_rules! rows {
    ($($row:ident: $name:literal, $unit:literal, $kind:expr, [$($attribute:expr),*], $help:literal;)*) => {
        $(
            #[doc = concat!("`", $name, "`")]
            pub const $row: Row =
                Row { name: $name, unit: $unit, kind: $kind, help: $help, attributes: &[$($attribute),*] };
        )*
        pub const TABLE: &[&Row] = &[$(&$row),*];
    };
}

use Kind::{Counter, Gauge, Histogram, UpDownCounter};

rows! {
    TASK_SUBMITTED: "lineshaft.task.submitted", "{task}", Counter, ["pool", "handler", "priority"],
        "Tasks that were accepted and are durable.";
    TASK_FINISHED: "lineshaft.task.finished", "{task}", Counter, ["pool", "handler", "result", ERROR_TYPE],
        "Tasks that reached a terminal state; `error.type` is the reason of a failure.";
    TASK_RETRIED: "lineshaft.task.retried", "{attempt}", Counter, ["pool", "handler", ERROR_TYPE],
        "Failed attempts that are followed by another attempt.";
    TASK_ATTEMPTS: "lineshaft.task.attempts", "{attempt}", Counter, ["pool", "handler", "result", ERROR_TYPE],
        "Attempts that ended.";
    SCHEDULE_RUNS: "lineshaft.schedule.runs", "{run}", Counter, ["outcome"],
        "Runs of schedules: `on_time`, `caught_up` (late, because the server was down or the pool full), `waited` (for an unfinished task), `triggered`, `skipped` (because of an unfinished task) and `missed` (not within the catch-up window).";
    TASK_WAIT: "lineshaft.task.wait.duration", "s", Histogram(WAITS), ["pool", "priority"],
        "Time between becoming eligible and the start of an attempt.";
    TASK_DURATION: "lineshaft.task.duration", "s", Histogram(RUNS), ["pool", "handler", "result"],
        "Duration of an attempt.";
    TASK_ACTIVE: "lineshaft.task.active", "{task}", UpDownCounter, ["pool", "state"],
        "Tasks that are not in a terminal state, by state.";
    TASK_BLOCKED: "lineshaft.task.blocked", "{task}", Gauge, ["pool", "blocker"],
        "Tasks that do not start, by what keeps them from starting as `ExplainTask` names it; a task counts for each of its blockers. Of WAITING tasks: `delay`, `back_off`, `parents`, `limit`. Of QUEUED tasks: `paused_pool`, `missing_pool`, `no_worker`, `pool_slots` and `namespace_slots` (others have them all), `low_memory`, `trial`, `draining`.";
    QUEUE_LENGTH: "lineshaft.queue.length", "{task}", UpDownCounter, ["pool", "priority"],
        "QUEUED tasks.";
    QUEUE_LIMIT: "lineshaft.queue.limit", "{task}", UpDownCounter, ["pool"],
        "Tasks that may wait in the pool; further submissions are refused.";
    QUEUE_OLDEST: "lineshaft.queue.oldest_task.age", "s", Gauge, ["pool", "priority"],
        "Time since the oldest QUEUED task became eligible; 0 if there is none.";
    NAMESPACE_SUBMITTED: "lineshaft.namespace.task.submitted", "{task}", Counter, ["namespace"],
        "Tasks that were accepted, by namespace: the first 64 since the start, all further ones as `other`.";
    NAMESPACE_FINISHED: "lineshaft.namespace.task.finished", "{task}", Counter, ["namespace", "result"],
        "Tasks that reached a terminal state, by namespace.";
    POOL_WORKERS: "lineshaft.pool.worker.count", "{worker}", UpDownCounter, ["pool", "state"],
        "Existing workers, `busy` and `idle`.";
    POOL_LIMIT: "lineshaft.pool.worker.limit", "{worker}", UpDownCounter, ["pool"],
        "Workers that the pool should have: its configured size, or what its load needs if it autoscales.";
    POOL_UTILIZATION: "lineshaft.pool.utilization", "1", Gauge, ["pool"],
        "Share of the workers that are busy.";
    POOL_PAUSED: "lineshaft.pool.paused", "{pool}", Gauge, ["pool"],
        "1 while the pool is paused and starts no tasks.";
    POOL_UNAVAILABLE: "lineshaft.pool.unavailable", "{attempt}", Counter, ["pool"],
        "Failed tries to start an attempt because the server lacked a resource, such as file descriptors. The attempts wait.";
    COMMIT_DURATION: "lineshaft.store.commit.duration", "s", Histogram(COMMITS), [],
        "Time until a commit was durable.";
    COMMIT_SIZE: "lineshaft.store.commit.size", "{event}", Histogram(COMMIT_SIZES), [],
        "Events in a commit.";
    COMMIT_FAILURES: "lineshaft.store.commit.failures", "{commit}", Counter, [],
        "Commits that the store refused; they are retried.";
    ARTIFACTS_STORED: "lineshaft.artifact.stored", "{file}", Counter, [],
        "Files of attempts that were put into the object store.";
    ARTIFACTS_REMOVED: "lineshaft.artifact.removed", "{file}", Counter, ["reason"],
        "Files that were removed from the object store: because of their `age`, with their task (`task_deleted`), or because no task names them (`unnamed`), as after a crash.";
    STORE_REFUSES: "lineshaft.store.refuses", "{store}", Gauge, [],
        "1 while the store refuses writes and no task is accepted.";
    STORE_SIZE: "lineshaft.store.size", "By", UpDownCounter, ["file"],
        "Size of journal and projection, including their write-ahead logs.";
    RETAINED_BYTES: "lineshaft.store.retained", "By", UpDownCounter, [],
        "Payloads, arguments, labels, results, outputs and failures of finished tasks, of all namespaces. Each may have up to `retention.bytes`.";
    PROJECTION_LAG: "lineshaft.store.projection.lag", "{event}", Gauge, [],
        "Durable events that the projection does not contain yet.";
    MEMORY_USED: "lineshaft.memory.used", "By", UpDownCounter, ["part"],
        "Memory that callers make the server hold: `requests`, `small_requests` that submit nothing, `payloads` and `attached` (arguments, labels, names and trace contexts) of unfinished tasks, and batches, `responses` that their callers have not taken, and `stream_reads` (what streams have read from the store).";
    MEMORY_LIMIT: "lineshaft.memory.limit", "By", UpDownCounter, ["part"],
        "Limit of this memory. Beyond it requests, attached parts and responses are refused with MEMORY_FULL, payloads are left to the store, and streams wait.";
    WATCHERS: "lineshaft.watch.subscriber.count", "{subscriber}", UpDownCounter, [],
        "Open watches.";
    WATCH_EVENTS: "lineshaft.watch.events", "{event}", Counter, [],
        "Events sent to watches.";
    WATCH_CATCH_UPS: "lineshaft.watch.catch_ups", "{read}", Counter, [],
        "Times that a watch had fallen behind and read events from the journal.";
    RPC_DURATION: "rpc.server.call.duration", "s", Histogram(CALLS),
        [RPC_SYSTEM_NAME, RPC_METHOD, RPC_STATUS_CODE, ERROR_TYPE],
        "Time between the headers of a call and the end of its response; for a stream, its whole lifetime.";
    SERVER_READY: "lineshaft.server.ready", "{server}", Gauge, [],
        "1 while the server accepts work, as `/health/ready` reports.";
    CONFIG_REFUSED: "lineshaft.config.refused", "{configuration}", Gauge, [],
        "1 while handlers and pools are those of an earlier configuration, because the last reload was refused.";
    SILENCE: "lineshaft.watchdog.silence", "s", Gauge, ["part"],
        "Time since the last sign of progress of the component.";
    STALLS: "lineshaft.watchdog.stalls", "{stall}", Counter, ["part"],
        "Times that the component made no progress for longer than `server.stall_limit`.";
    RUNTIME_WORKERS: "lineshaft.runtime.worker.count", "{thread}", UpDownCounter, [],
        "Threads of the asynchronous runtime.";
    RUNTIME_TASKS: "lineshaft.runtime.task.count", "{task}", UpDownCounter, [],
        "Tasks of the asynchronous runtime: connections, calls, watches.";
    RUNTIME_QUEUE: "lineshaft.runtime.queue.length", "{task}", UpDownCounter, [],
        "Tasks of the asynchronous runtime that wait for a thread in the shared queue.";
    RUNTIME_BUSY: "lineshaft.runtime.busy.time", "s", Counter, [],
        "Busy time of all threads of the asynchronous runtime.";
    TELEMETRY_ITEMS: "lineshaft.telemetry.items", "{item}", Counter, ["signal", "outcome"],
        "Spans, log records and exports of metrics: `exported`, or lost as `queue_full` or `failed` (also what the collector rejected).";
    BUILD_INFO: "lineshaft.build.info", "{build}", Gauge, ["version", "profile"],
        "Always 1; the attributes describe the running program.";
    PROCESS_CPU_TIME: "process.cpu.time", "s", Counter, [],
        "CPU time of the server, without child processes.";
    PROCESS_CPU: "process.cpu.utilization", "1", Gauge, [],
        "Share of all CPU cores that the server uses.";
    PROCESS_MEMORY: "process.memory.usage", "By", UpDownCounter, [],
        "Resident memory of the server.";
    PROCESS_THREADS: "process.thread.count", "{thread}", UpDownCounter, [],
        "Threads of the server.";
    PROCESS_FILES: "process.unix.file_descriptor.count", "{file_descriptor}", UpDownCounter, [],
        "Open files and connections of the server.";
    PROCESS_UPTIME: "process.uptime", "s", Gauge, [],
        "Time since the start of the server.";
    SYSTEM_CPU: "system.cpu.utilization", "1", Gauge, [],
        "Share of all CPU cores that is in use.";
    SYSTEM_CORES: "system.cpu.logical.count", "{cpu}", UpDownCounter, [],
        "CPU cores of the machine.";
    SYSTEM_MEMORY: "system.memory.usage", "By", UpDownCounter, [SYSTEM_MEMORY_STATE],
        "Memory of the machine, or of the container if that is less: `used` and `free`.";
    SYSTEM_MEMORY_LIMIT: "system.memory.limit", "By", UpDownCounter, [],
        "Total memory of the machine, or of the container if that is less.";
    SYSTEM_DISK: "system.filesystem.usage", "By", UpDownCounter, [SYSTEM_FILESYSTEM_STATE],
        "Space of the file system that contains the store: `used` and `free`.";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_well_formed_and_without_their_unit() {
        let mut seen = HashSet::new();
        for row in TABLE {
            assert!(seen.insert(row.prometheus()), "{} is declared twice", row.name);
            assert!(row.name.chars().all(|c| c.is_ascii_lowercase() || c == '.' || c == '_'), "{}", row.name);
            for unit in ["seconds", "bytes", "total", "ratio"] {
                assert!(row.name.split(['.', '_']).all(|word| word != unit), "{} contains its unit", row.name);
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
