//! The environment of a program or a WebAssembly module.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::runner::Run;
use crate::model::Secret;
use crate::telemetry::propagation;

const TASK_VARIABLE: &str = "LINESHAFT_TASK_ID";
/// 1 for the first attempt.
const ATTEMPT_VARIABLE: &str = "LINESHAFT_ATTEMPT";

/// Why variables cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VariableError {
    #[error("`env` has the name {0:?}, must not be empty or contain `=` or a zero byte")]
    BadName(String),
    #[error("`env` has the name {0:?}, must not begin with LINESHAFT_, which the server reserves")]
    Reserved(String),
}

/// The variables that are the same for every attempt of a handler: those of the server's environment that are passed on, and
/// those that the handler sets.
pub(super) fn registered(
    passed: &[String],
    set: &BTreeMap<String, Secret>,
) -> Result<BTreeMap<OsString, OsString>, VariableError> {
    for name in passed.iter().chain(set.keys()) {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(VariableError::BadName(name.clone()));
        }
        if name.starts_with("LINESHAFT_") {
            return Err(VariableError::Reserved(name.clone()));
        }
    }
    let passed = passed.iter().filter_map(|name| Some((name.into(), std::env::var_os(name)?)));
    let set = set.iter().map(|(name, value)| (name.into(), value.reveal().into()));
    Ok(passed.chain(set).collect())
}

/// The variables that tell an attempt what it is.
pub(super) fn of_attempt(run: &Run) -> Vec<(&'static str, String)> {
    let mut variables = vec![(TASK_VARIABLE, run.task.to_string()), (ATTEMPT_VARIABLE, run.attempt.to_string())];
    if let Some(context) = &run.trace {
        variables.extend(propagation::installed().variables(context));
    }
    variables
}
