//! Names, durations and failures as people read them.

use crate::proto::v1;

use super::terminal;
use super::time::{format_duration, from_proto};

pub fn task_state(number: i32) -> String {
    without_prefix(v1::TaskState::try_from(number).map(|state| state.as_str_name()), "TASK_STATE_")
}

pub fn priority(number: i32) -> String {
    without_prefix(v1::Priority::try_from(number).map(|priority| priority.as_str_name()), "PRIORITY_")
}

pub fn pool_kind(number: i32) -> String {
    without_prefix(v1::PoolKind::try_from(number).map(|kind| kind.as_str_name()), "POOL_KIND_")
}

pub fn stop_method(number: i32) -> String {
    without_prefix(v1::StopMethod::try_from(number).map(|method| method.as_str_name()), "STOP_METHOD_")
}

pub fn on_parent_failure(number: i32) -> String {
    without_prefix(v1::OnParentFailure::try_from(number).map(|rule| rule.as_str_name()), "ON_PARENT_FAILURE_")
}

/// The name of an enum value without the prefix that repeats the name of the enum.
fn without_prefix<E>(name: Result<&str, E>, prefix: &str) -> String {
    name.unwrap_or("UNKNOWN").trim_start_matches(prefix).to_owned()
}

pub fn failure_reason(number: i32) -> String {
    without_prefix(v1::FailureReason::try_from(number).map(|reason| reason.as_str_name()), "FAILURE_REASON_")
}

pub fn duration(value: Option<&prost_types::Duration>) -> String {
    value.map(|value| format_duration(from_proto(value))).unwrap_or_default()
}

pub fn failure(failure: Option<&v1::Failure>) -> String {
    let Some(failure) = failure else { return String::new() };
    let reason = failure_reason(failure.reason);
    format!("{reason}: {} (attempt {})", terminal::line(&failure.message), failure.attempt)
}

pub fn counted(number: i64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
