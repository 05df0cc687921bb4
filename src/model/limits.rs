//! The fixed limits of the API; `GetServerInfo` returns most of them.

use std::time::Duration;

/// Bytes of a task ID, a request ID or any name.
pub const NAME_BYTES_MAX: usize = 64;
/// Bytes of a payload or a result that a message between the server and a remote worker contains as a whole.
pub const INLINE_BYTES_MAX: usize = 1 << 20;
/// Bytes of one of the parts in which larger ones travel: 64 KiB delay other messages of a slow connection by little.
pub const CHUNK_BYTES: usize = 64 << 10;
/// Tasks of one `BatchSubmitTasks` call.
pub const BATCH_TASKS_MAX: usize = 10_000;
/// Parents of one task.
pub const PARENTS_MAX: usize = 10_000;
/// Parents of all tasks of one `BatchSubmitTasks` call.
pub const BATCH_PARENTS_MAX: usize = 100_000;
/// Parents among which a request for a task looks for unfinished ones, and IDs of these that the response has.
pub const PARENTS_EXAMINED_MAX: usize = 1_000;
pub const UNFINISHED_PARENTS_SHOWN: usize = 20;
/// Bytes of the results of its parents that an attempt gets in the server, unless a single result may have more.
pub const PARENT_RESULTS_BYTES_MAX: usize = 16 << 20;
/// Failed tasks that the completion of a batch names.
pub const BATCH_FAILURES_MAX: usize = if cfg!(test) { 2 } else { 100 };
/// Bytes of the message of each of them; more is cut off.
pub const BATCH_FAILURE_TEXT_MAX: usize = 128;
pub const LABELS_MAX: usize = 16;
pub const LABEL_KEY_BYTES_MAX: usize = 63;
pub const LABEL_VALUE_BYTES_MAX: usize = 256;
pub const DISPLAY_NAME_BYTES_MAX: usize = 128;
/// Bytes of a cancel reason.
pub const REASON_BYTES_MAX: usize = 256;
/// Arguments that a submitter may add to a process handler.
pub const ARGS_MAX: usize = 64;
/// Bytes of one such argument.
pub const ARG_BYTES_MAX: usize = 4096;
pub const PAGE_SIZE_MAX: usize = 1_000;
/// Tasks of one page if the caller sets no size.
pub const PAGE_SIZE_DEFAULT: usize = 100;
/// Values of one repeated field of a filter.
pub const FILTER_VALUES_MAX: usize = 1_000;
/// Texts that a filter searches for, and the size of each.
pub const FILTER_TEXTS_MAX: usize = 16;
pub const FILTER_TEXT_BYTES_MAX: usize = 256;
pub const TIMEOUT_MIN: Duration = Duration::from_millis(1);
pub const TIMEOUT_MAX: Duration = Duration::from_hours(24);
/// Timeout of an attempt if task, handler and pool set none.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(300);
pub const ATTEMPTS_MAX: u32 = 100;
/// Longest delay before a task may start, and longest delay between attempts.
pub const DELAY_MAX: Duration = Duration::from_hours(365 * 24);
/// Limits of one task.
pub const TASK_LIMITS_MAX: usize = 8;
/// Largest number of places, of starts in an interval, and of starts at once, that a limit of tasks can have.
pub const LIMIT_STARTS_MAX: u32 = 1_000_000;
/// Shortest and longest interval of the rate of such a limit.
pub const LIMIT_INTERVAL_MIN: Duration = Duration::from_millis(1);
pub const LIMIT_INTERVAL_MAX: Duration = DELAY_MAX;
/// Keys of limits that a namespace has in use.
pub const LIMIT_KEYS_MAX: usize = if cfg!(test) { 4 } else { 100_000 };
/// Bytes of the ID of a schedule, so that an ID of a task can be derived from it.
pub const SCHEDULE_ID_BYTES_MAX: usize = 40;
/// Schedules of one namespace.
pub const SCHEDULES_MAX: usize = if cfg!(test) { 4 } else { 10_000 };
/// Unfinished tasks of one schedule.
pub const SCHEDULE_UNFINISHED_MAX: usize = if cfg!(test) { 3 } else { 100 };
/// Bytes of the payload of the task of a schedule, which stays in memory.
pub const SCHEDULE_PAYLOAD_BYTES_MAX: usize = 64 << 10;
pub const CRON_PATTERN_BYTES_MAX: usize = 256;
/// Shortest and longest interval of a schedule.
pub const SCHEDULE_INTERVAL_MIN: Duration = Duration::from_secs(1);
pub const SCHEDULE_INTERVAL_MAX: Duration = DELAY_MAX;
/// Longest random delay of a run.
pub const SCHEDULE_JITTER_MAX: Duration = Duration::from_hours(24);
/// How late a run may start if the schedule does not say it.
pub const CATCH_UP_DEFAULT: Duration = Duration::from_hours(1);
pub const CATCH_UP_MAX: Duration = DELAY_MAX;
/// Runs of a schedule that start on its own.
pub const SCHEDULE_RUNS_MAX: u64 = 1_000_000_000;
/// Times that one preview has.
pub const PREVIEW_TIMES_MAX: usize = 1_000;
/// Longest time between the request to stop and the kill.
pub const GRACE_MAX: Duration = Duration::from_mins(5);
/// Longest wait of one `WaitTask` call.
pub const WAIT_MAX: Duration = Duration::from_secs(60);
/// Wait of one `WaitTask` call if the caller sets no timeout.
pub const WAIT_DEFAULT: Duration = Duration::from_secs(30);
/// Shortest interval of a metrics or progress stream.
pub const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Longest interval of a metrics or progress stream.
pub const INTERVAL_MAX: Duration = Duration::from_secs(60);
/// Bytes stored of the head and of the tail of each output stream of an attempt.
pub const OUTPUT_KEPT_BYTES: usize = 64 * 1024;
/// Bytes of the first and of the last part of a stream that are shown with a task.
pub const OUTPUT_EXCERPT_BYTES: usize = 4 * 1024;
pub const POOL_SIZE_MAX: usize = 1_000;
/// Attempts that a remote worker runs at a time.
pub const WORKER_SLOTS_MAX: usize = 10_000;
/// Handlers that a remote worker offers.
pub const WORKER_HANDLERS_MAX: usize = 1_000;
/// Bytes of the description of a handler that a worker registers.
pub const DESCRIPTION_BYTES_MAX: usize = 1_024;
/// Bytes of the message, and of the detail, of a failure that a worker reports; more is cut off.
pub const FAILURE_MESSAGE_BYTES_MAX: usize = 1_024;
pub const FAILURE_DETAIL_BYTES_MAX: usize = 8_192;
/// Handlers that workers have registered.
pub const REGISTERED_HANDLERS_MAX: usize = 10_000;
/// Uploaded handlers. Each has a compiled module in memory, and a backup opens all their files.
pub const UPLOADED_HANDLERS_MAX: usize = if cfg!(test) { 3 } else { 256 };
/// Bytes of a WebAssembly module. Interpreters with their libraries have some 30 MiB.
pub const MODULE_BYTES_MAX: usize = 64 << 20;
/// Largest schema of the payloads of an uploaded handler, which stays in memory.
pub const UPLOADED_SCHEMA_BYTES_MAX: usize = 64 << 10;
/// Memory of a WebAssembly guest.
pub const GUEST_MEMORY_MIN: u64 = 1 << 20;
pub const GUEST_MEMORY_MAX: u64 = 4 << 30;
/// Time between the request to stop and the kill if neither the caller nor the handler sets one.
pub const GRACE_DEFAULT: Duration = Duration::from_secs(5);
/// Bytes of one gRPC request message, unless payloads may be larger.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Bytes of the name of an artifact, as in most file systems.
pub const ARTIFACT_NAME_BYTES_MAX: usize = 255;
/// Artifacts of one task, whatever is configured: their list is a part of an event.
pub const ARTIFACTS_MAX: usize = 1_000;
/// How long links to artifacts are valid: if the caller does not say it, and the bounds.
pub const LINK_LIFETIME_DEFAULT: Duration = Duration::from_hours(1);
pub const LINK_LIFETIME_MIN: Duration = Duration::from_secs(1);
pub const LINK_LIFETIME_MAX: Duration = Duration::from_hours(7 * 24);
/// Bytes of a message besides the payload of its only task.
const MESSAGE_BYTES_BESIDES: usize = 1 << 20;

/// Bytes of one payload, and of one result of a function, as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadLimit(pub usize);

impl PayloadLimit {
    /// The smallest and the largest that can be configured.
    pub const RANGE: std::ops::RangeInclusive<usize> = 1 << 20..=64 << 20;

    /// Bytes of one gRPC request message.
    pub fn message_bytes(self) -> usize {
        MESSAGE_BYTES_MAX.max(self.0 + MESSAGE_BYTES_BESIDES)
    }

    /// Bytes of a request in JSON, where bytes are in Base64.
    pub fn json_bytes(self) -> usize {
        MESSAGE_BYTES_MAX.max(self.0.div_ceil(3) * 4 + MESSAGE_BYTES_BESIDES)
    }
}

impl Default for PayloadLimit {
    fn default() -> Self {
        Self(*Self::RANGE.start())
    }
}
