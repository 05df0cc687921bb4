//! The audit log: who did what to what, and what came of it. Target `audit`.
//!
//! State-changing calls, and calls that were refused for want of a right. Never a payload, a label or
//! a token.

use std::num::NonZeroU32;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tonic::Status;
use tonic_types::StatusExt;

use super::identity::Caller;

/// Refusals that are logged a second; whoever knocks more often is counted.
const REFUSALS_A_SECOND: NonZeroU32 = NonZeroU32::new(20).unwrap();

static REFUSALS: LazyLock<DefaultDirectRateLimiter> =
    LazyLock::new(|| RateLimiter::direct(Quota::per_second(REFUSALS_A_SECOND)));
static UNTOLD: AtomicU64 = AtomicU64::new(0);

/// Tells what became of a state-changing call; `what` names what it was about.
pub fn record<T>(caller: &Caller, call: &'static str, what: impl std::fmt::Display, outcome: &Result<T, Status>) {
    let outcome = outcome.as_ref().err().map_or_else(|| "OK".to_owned(), reason);
    tracing::info!(target: "audit", who = caller.name(), peer = caller.address(), call, %what, outcome);
}

/// The same for a submission. Without authentication it is left out: the task itself tells as much.
pub fn submission<T>(
    caller: &Caller,
    call: &'static str,
    what: impl FnOnce(&T) -> String,
    outcome: &Result<T, Status>,
) {
    if caller.is_known() {
        let told = outcome.as_ref().map_or_else(|_| String::new(), what);
        record(caller, call, told, outcome);
    }
}

/// A name that the caller gave, as far as it is one: bounded, and without what would break a line.
pub fn name(text: &str) -> String {
    text.chars().take(2 * crate::model::limits::NAME_BYTES_MAX).filter(|c| matches!(c, '!'..='~')).collect()
}

/// Tells that a call was refused before it reached its service.
pub fn refusal(who: &str, peer: &str, call: &str, status: &Status) {
    if REFUSALS.check().is_err() {
        UNTOLD.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let untold = UNTOLD.swap(0, Ordering::Relaxed);
    tracing::warn!(target: "audit", who, peer, call = name(call), outcome = reason(status), untold, "refused");
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map_or_else(|| format!("{:?}", status.code()), |info| info.reason)
}
