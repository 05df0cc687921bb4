//! The audit log (log target `audit`): state-changing calls with their outcome, and refused calls.
//!
//! It never contains a payload, a label or a token.

use std::sync::LazyLock;

use tonic::Status;
use tonic_types::StatusExt;

use super::caller::Caller;
use super::identity::Identity;
use super::refusal_budget::RefusalBudget;

/// Of all callers without valid credentials. An authenticated caller has a budget of its own.
static STRANGERS: LazyLock<RefusalBudget> = LazyLock::new(RefusalBudget::default);

/// Logs the outcome of a state-changing call; `resource` is the object of the call.
pub fn record<T>(caller: &Caller, call: &'static str, resource: impl std::fmt::Display, outcome: &Result<T, Status>) {
    let outcome = outcome.as_ref().err().map_or_else(|| "OK".to_owned(), self::outcome);
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

/// Logs a call without valid credentials; `reason` explains the refusal and contains no part of them.
pub fn unauthenticated(peer: &str, call: &str, status: &Status, reason: &'static str) {
    if let Some(suppressed) = STRANGERS.take() {
        let (call, outcome) = (name(call), outcome(status));
        tracing::warn!(
            target: "audit", identity = "unauthenticated", peer, call, outcome, reason, suppressed, "refused"
        );
    }
}

/// Logs a call that an authenticated caller may not make.
pub fn denied(identity: &Identity, peer: &str, call: &str, status: &Status) {
    if let Some(suppressed) = identity.usage.refusals.take() {
        let (call, outcome) = (name(call), outcome(status));
        tracing::warn!(target: "audit", identity = &*identity.name, peer, call, outcome, suppressed, "refused");
    }
}

fn outcome(status: &Status) -> String {
    status.get_details_error_info().map_or_else(|| format!("{:?}", status.code()), |info| info.reason)
}
