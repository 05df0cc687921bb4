//! Settings of handlers that run programs or WebAssembly modules.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::Problems;
use super::units::{ByteSize, HumanDuration};
use crate::model::{ArgPattern, Secret};

/// `[handler.limits]`: resource limits of an attempt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessLimits {
    /// Address space of each process, memory of a WebAssembly guest (at most 4GiB), or the memory that a task of builtin =
    /// "heavy" may fill, at least 1MiB. Default: no limit for processes, 128MiB for guests, 64MiB for "heavy".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// CPU time of each process in whole seconds, 1s to 365d. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<HumanDuration>,
    /// Maximum number of open files of each process, 8 to 1,048,576. Default: the limit of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// Maximum size of a file that a process writes. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_size: Option<ByteSize>,
    /// Maximum number of processes and threads that `user` has at a time, in all its attempts, 1 to 1,048,576; only with
    /// `user`. Default: 1,024.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
}

impl ProcessLimits {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn check(&self, path: &str, problems: &mut Problems) {
        if let Some(memory) = self.memory {
            problems.check_range(format!("{path}.memory"), memory, ByteSize(1 << 20), ByteSize(1 << 50));
        }
        if let Some(cpu) = self.cpu {
            let (min, max) = (HumanDuration(Duration::from_secs(1)), HumanDuration(Duration::from_hours(365 * 24)));
            problems.check_range(format!("{path}.cpu"), cpu, min, max);
        }
        if let Some(open_files) = self.open_files {
            problems.check_range(format!("{path}.open_files"), open_files, 8, 1 << 20);
        }
        if let Some(processes) = self.processes {
            problems.check_range(format!("{path}.processes"), processes, 1, 1 << 20);
        }
    }
}

/// How a process is started.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    /// Program and arguments. Not empty.
    pub argv: Vec<String>,
    /// What arguments of tasks must match; `None`: there are none.
    pub arg_pattern: Option<ArgPattern>,
    pub env: BTreeMap<String, Secret>,
    pub env_pass: Vec<String>,
    /// `None`: that of the server.
    pub user: Option<String>,
    /// `None`: the primary one of the user.
    pub group: Option<String>,
    /// Added to the niceness of the server.
    pub nice: u8,
    /// `None`: a new directory for each attempt.
    pub working_directory: Option<PathBuf>,
    pub limits: ProcessLimits,
    pub content_type: Option<String>,
    pub permanent_exit_codes: Vec<RangeInclusive<i32>>,
    pub retry_exit_codes: Vec<RangeInclusive<i32>>,
    pub reports: bool,
    /// `None`: stdin.
    pub payload_file: Option<String>,
    /// `None`: stdout.
    pub result_file: Option<String>,
    pub parents: bool,
    pub artifacts: bool,
}

/// How a WebAssembly module is run.
#[derive(Clone, Debug, PartialEq)]
pub struct Wasm {
    pub module: PathBuf,
    /// Name and arguments; empty: the name of the file.
    pub argv: Vec<String>,
    /// What arguments of tasks must match; `None`: there are none.
    pub arg_pattern: Option<ArgPattern>,
    pub env: BTreeMap<String, Secret>,
    pub env_pass: Vec<String>,
    pub memory: Option<ByteSize>,
    pub clock: bool,
    pub content_type: Option<String>,
    pub permanent_exit_codes: Vec<RangeInclusive<i32>>,
    pub retry_exit_codes: Vec<RangeInclusive<i32>>,
}
