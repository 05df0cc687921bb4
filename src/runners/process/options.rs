//! A process handler as the operator registered it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::limits::Limits;
use crate::model::{ArgPattern, Secret};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessOptions {
    /// Program and arguments. A program without `/` is searched for in `PATH`.
    pub argv: Vec<String>,
    /// What the submitter's arguments must match to be appended; `None`: there must be none.
    pub arg_pattern: Option<ArgPattern>,
    pub env: BTreeMap<String, Secret>,
    /// Variables copied from the server's environment, if it has them.
    pub env_pass: Vec<String>,
    /// `None`: a new directory per attempt, removed afterwards.
    pub working_directory: Option<PathBuf>,
    pub limits: Limits,
    /// Time between SIGTERM and SIGKILL, unless the stop request sets another.
    pub grace: Duration,
    pub result: ResultSource,
}

/// What becomes the result of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResultSource {
    /// Standard output, with this content type.
    Stdout(Arc<str>),
    /// Nothing; standard output is a log only.
    #[cfg_attr(not(test), expect(dead_code, reason = "no setting selects it yet"))]
    None,
}

impl Default for ResultSource {
    fn default() -> Self {
        Self::Stdout(Arc::from("text/plain"))
    }
}

/// Why a process handler cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    #[error("`argv` is empty, must be a program and its arguments")]
    NoProgram,
    #[error("`env` has the name {0:?}, must not be empty or contain `=` or a zero byte")]
    BadVariable(String),
    #[error("`env` has the name {0:?}, must not begin with LINESHAFT_, which the server reserves")]
    ReservedVariable(String),
}
