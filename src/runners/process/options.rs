//! A process handler as the operator registered it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::limits::Limits;
use crate::model::{ArgPattern, Secret};
use crate::runners::environment::VariableError;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessOptions {
    /// Program and arguments. A program without `/` is searched for in `PATH`.
    pub argv: Vec<String>,
    /// What the submitter's arguments must match to be appended; `None`: there must be none.
    pub arg_pattern: Option<ArgPattern>,
    pub env: BTreeMap<String, Secret>,
    /// Variables copied from the server's environment, if it has them.
    pub env_pass: Vec<String>,
    /// Name or number of the user that the program runs as; `None`: that of the server.
    pub user: Option<String>,
    /// Name or number of its group; `None`: the primary one of the user.
    pub group: Option<String>,
    /// Added to the niceness of the server.
    pub nice: u8,
    /// `None`: a new directory per attempt, removed afterwards.
    pub working_directory: Option<PathBuf>,
    pub limits: Limits,
    /// Content type of results; `None`: `text/plain`.
    pub content_type: Option<Arc<str>>,
    /// Exit codes after which a task is not retried.
    pub permanent_exit_codes: Vec<RangeInclusive<i32>>,
    /// Exceptions from these.
    pub retry_exit_codes: Vec<RangeInclusive<i32>>,
    /// Whether the program gets pipes for reports and its result.
    pub reports: bool,
    /// File in the directory of the attempt that contains the payload; `None`: the payload is on stdin.
    pub payload_file: Option<String>,
    /// File in that directory whose content is the result; `None`: stdout is the result.
    pub result_file: Option<String>,
    /// Whether the results of the task's parents are files in the directory of the attempt.
    pub parents: bool,
    /// Whether the program gets a directory for artifacts.
    pub artifacts: bool,
    /// Time between SIGTERM and SIGKILL, unless the stop request sets another.
    pub grace: Duration,
}

/// Why a process handler cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    #[error("`argv` is empty, must be a program and its arguments")]
    NoProgram,
    #[error(transparent)]
    Variable(#[from] VariableError),
    #[error("`user` is {0:?}, which `/etc/passwd` does not contain; add it, or set the number of the user")]
    UnknownUser(String),
    #[error("`group` is {0:?}, which `/etc/group` does not contain; add it, or set the number of the group")]
    UnknownGroup(String),
    #[error("`group` is not set, and `/etc/passwd` has none for the user {0:?}; set `group`")]
    NoGroup(String),
    #[error("`user` is root, must be a user that may do less than the server")]
    Root,
    #[error(
        "`user` is set, but the server lacks {0}; run it as root, or as a user with these capabilities \
         (`AmbientCapabilities=` of a systemd unit)"
    )]
    NoCapabilities(String),
    #[error("`user` is set, but the server cannot {action}: {error}")]
    CannotSwitch { action: &'static str, error: String },
}
