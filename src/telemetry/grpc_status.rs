//! gRPC status codes as attributes.

/// Older name of `rpc.response.status_code`; dashboards and alerts use it.
pub const RPC_STATUS_CODE: &str = "rpc.status_code";

pub const COUNT: usize = NAMES.len();
pub const CANCELLED: i32 = 1;
const UNKNOWN: usize = 2;

#[rustfmt::skip]
const NAMES: [&str; 17] = [
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
];

/// Position of a code among the names; that of UNKNOWN for a code that gRPC does not define.
pub fn index(code: i32) -> usize {
    usize::try_from(code).ok().filter(|index| *index < COUNT).unwrap_or(UNKNOWN)
}

pub fn name(index: usize) -> &'static str {
    NAMES[index]
}

/// Whether the semantic conventions count the status as an error of the server.
pub fn is_server_error(index: usize) -> bool {
    ["UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"].contains(&NAMES[index])
}
