//! A WebAssembly handler as the operator registered it.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{ArgPattern, Secret};
use crate::runners::environment::VariableError;

/// Largest file of a module. Interpreters with their libraries have some 30 MiB.
pub(super) const MODULE_BYTES_MAX: u64 = 64 << 20;
/// Time for the start functions of a module, which run in each attempt before it is called.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, Default)]
pub struct WasmOptions {
    pub module: PathBuf,
    /// Name and arguments of the guest; empty: the name of the file.
    pub argv: Vec<String>,
    /// What the submitter's arguments must match to be appended; `None`: there must be none.
    pub arg_pattern: Option<ArgPattern>,
    pub env: BTreeMap<String, Secret>,
    /// Variables copied from the server's environment, if it has them.
    pub env_pass: Vec<String>,
    /// All linear memory of a guest; `None`: [`MEMORY_DEFAULT`](super::limits::MEMORY_DEFAULT).
    pub memory_bytes: Option<u64>,
    /// Whether a guest sees the time.
    pub clock: bool,
    /// Content type of results; `None`: `text/plain`.
    pub content_type: Option<Arc<str>>,
    /// Exit codes after which a task is not retried.
    pub permanent_exit_codes: Vec<RangeInclusive<i32>>,
    /// Exceptions from these.
    pub retry_exit_codes: Vec<RangeInclusive<i32>>,
}

/// Why a WebAssembly handler cannot be registered.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    #[error(transparent)]
    Variable(#[from] VariableError),
    #[error("the environment variable `{0}` is not UTF-8, which WASI requires; remove it from `env_pass`")]
    NotText(String),
    #[error("failed to read `{path}`: {source}", path = path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("`{path}` has more than {MODULE_BYTES_MAX} bytes, which is the limit of a module", path = path.display())]
    TooLarge { path: PathBuf },
    #[error("`{path}` is not a WebAssembly module or component in binary form", path = path.display())]
    NotWasm { path: PathBuf },
    #[error("`{path}` is not valid: {reason}", path = path.display())]
    Invalid { path: PathBuf, reason: String },
    #[error(
        "`{path}` needs more than a guest gets, which is WASI preview 1 for modules and WASI 0.2 for components: {reason}",
        path = path.display()
    )]
    Import { path: PathBuf, reason: String },
    #[error("`{path}` exports no function `_start`, must be a WASI command and not a library", path = path.display())]
    NoStart { path: PathBuf },
    #[error("`{path}` does not export `wasi:cli/run@0.2`, must be a WASI command: {reason}", path = path.display())]
    NoRun { path: PathBuf, reason: String },
    #[error("`{path}` needs more than {bytes} bytes of memory to start; set `limits.memory`", path = path.display())]
    Memory { path: PathBuf, bytes: usize },
    #[error("`{path}` cannot be instantiated: {reason}", path = path.display())]
    Instantiation { path: PathBuf, reason: String },
    #[error("the start function of `{path}` did not end within {START_TIMEOUT:?}", path = path.display())]
    StartTimeout { path: PathBuf },
    #[error("failed to start a thread: {0}")]
    Thread(io::Error),
}
