//! Every bound that a caller can meet, in one place; served by `GetServerInfo`.

use std::time::Duration;

/// Bytes of a task id, request id, or any name.
pub const NAME_BYTES_MAX: usize = 64;
/// Bytes of one payload.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Bytes of one result; more fails the attempt with RESULT_TOO_LARGE.
pub const RESULT_BYTES_MAX: usize = 1 << 20;
/// Tasks of one batch.
pub const BATCH_TASKS_MAX: usize = 10_000;
/// Labels of one task.
pub const LABELS_MAX: usize = 16;
/// Bytes of a label's key.
pub const LABEL_KEY_BYTES_MAX: usize = 63;
/// Bytes of a label's value.
pub const LABEL_VALUE_BYTES_MAX: usize = 256;
/// Bytes of a display name.
pub const DISPLAY_NAME_BYTES_MAX: usize = 128;
/// Bytes of a cancel reason.
pub const REASON_BYTES_MAX: usize = 256;
/// Arguments that a submitter may add to a process handler.
pub const ARGS_MAX: usize = 64;
/// Bytes of one such argument.
pub const ARG_BYTES_MAX: usize = 4096;
/// Rows of one page.
pub const PAGE_SIZE_MAX: usize = 1_000;
/// Rows of one page when the caller does not say.
pub const PAGE_SIZE_DEFAULT: usize = 100;
/// Values of one repeated field of a filter.
pub const FILTER_VALUES_MAX: usize = 1_000;
/// Shortest time-out of an attempt.
pub const TIMEOUT_MIN: Duration = Duration::from_millis(1);
/// Longest time-out of an attempt.
pub const TIMEOUT_MAX: Duration = Duration::from_hours(24);
/// Time-out of an attempt when neither task nor handler says.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(300);
/// Most attempts of one task.
pub const ATTEMPTS_MAX: u32 = 100;
/// Longest delay before a task may start, and longest delay between attempts.
pub const DELAY_MAX: Duration = Duration::from_hours(365 * 24);
/// Longest grace between asking a task to stop and forcing it.
pub const GRACE_MAX: Duration = Duration::from_mins(5);
/// Longest wait of one `WaitTask` call.
pub const WAIT_MAX: Duration = Duration::from_secs(60);
/// Wait of one `WaitTask` call when the caller does not say.
pub const WAIT_DEFAULT: Duration = Duration::from_secs(30);
/// Shortest interval of a metrics or progress stream.
pub const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Longest interval of a metrics or progress stream.
pub const INTERVAL_MAX: Duration = Duration::from_secs(60);
/// Bytes kept of the head, and again of the tail, of each output stream of an attempt.
pub const OUTPUT_KEPT_BYTES: usize = 64 * 1024;
/// Workers of one pool.
pub const POOL_SIZE_MAX: usize = 1_000;
/// Bytes of one gRPC message that the server accepts.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
