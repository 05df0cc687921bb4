//! What the exit code of a program or a WebAssembly module means.

use std::ops::RangeInclusive;

/// Whether a task is not retried after this exit code. `retry` has the exceptions from `permanent`.
pub(super) fn is_permanent(permanent: &[RangeInclusive<i32>], retry: &[RangeInclusive<i32>], code: i32) -> bool {
    let contains = |codes: &[RangeInclusive<i32>]| codes.iter().any(|range| range.contains(&code));
    contains(permanent) && !contains(retry)
}
