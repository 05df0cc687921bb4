//! The audit log (log target `audit`): state-changing calls with their outcome, and refused calls.
//!
//! It never contains a payload, a label or a token.

use std::num::NonZeroU32;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tonic::Status;
use tonic_types::StatusExt;

use super::caller::Caller;

/// Refusals beyond this rate are counted instead of logged.
const REFUSALS_PER_SECOND: NonZeroU32 = NonZeroU32::new(20).unwrap();

static REFUSALS: LazyLock<DefaultDirectRateLimiter> =
    LazyLock::new(|| RateLimiter::direct(Quota::per_second(REFUSALS_PER_SECOND)));
static SUPPRESSED: AtomicU64 = AtomicU64::new(0);

/// Logs the outcome of a state-changing call; `resource` is the object of the call.
pub fn record<T>(caller: &Caller, call: &'static str, resource: impl std::fmt::Display, outcome: &Result<T, Status>) {
    let outcome = outcome.as_ref().err().map_or_else(|| "OK".to_owned(), reason);
    tracing::info!(target: "audit", identity = caller.name(), peer = caller.address(), call, %resource, outcome);
}

/// Logs a submission if authentication is on. Otherwise the task itself already records the caller's address.
pub fn submission<T>(
    caller: &Caller,
    call: &'static str,
    resource: impl FnOnce(&T) -> String,
    outcome: &Result<T, Status>,
) {
    if caller.is_authenticated() {
        record(caller, call, outcome.as_ref().map_or_else(|_| String::new(), resource), outcome);
    }
}

/// A name from a request, made safe for the log: bounded, and printable ASCII only.
pub fn name(text: &str) -> String {
    text.chars().take(2 * crate::model::limits::NAME_BYTES_MAX).filter(|c| matches!(c, '!'..='~')).collect()
}

/// Logs a call that was refused before it reached its service.
pub fn refusal(identity: &str, peer: &str, call: &str, status: &Status) {
    if REFUSALS.check().is_err() {
        SUPPRESSED.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let suppressed = SUPPRESSED.swap(0, Ordering::Relaxed);
    tracing::warn!(target: "audit", identity, peer, call = name(call), outcome = reason(status), suppressed, "refused");
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map_or_else(|| format!("{:?}", status.code()), |info| info.reason)
}
