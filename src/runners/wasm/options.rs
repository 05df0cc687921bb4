//! A WebAssembly handler as the operator registered it.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::model::limits::MODULE_BYTES_MAX;
use crate::model::{ArgPattern, HandlerName, Secret, UploadSettings};
use crate::runners::environment::VariableError;

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

impl WasmOptions {
    /// Those of an uploaded module.
    pub fn of_upload(name: &HandlerName, settings: &UploadSettings) -> Self {
        let argv = match &*settings.argv {
            [] => vec![name.to_string()],
            argv => argv.iter().map(ToString::to_string).collect(),
        };
        Self {
            argv,
            arg_pattern: settings.arg_pattern.clone(),
            memory_bytes: settings.memory_bytes,
            clock: settings.clock,
            content_type: settings.content_type.clone(),
            ..Self::default()
        }
    }
}

/// Why a WebAssembly handler cannot be registered.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    #[error(transparent)]
    Variable(#[from] VariableError),
    #[error("the environment variable `{0}` is not UTF-8, which WASI requires; remove it from `env_pass`")]
    NotText(String),
    #[error("failed to read `{path}` (module): {source}", path = path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("`{path}` {problem}", path = path.display())]
    Module { path: PathBuf, problem: ModuleError },
}

/// Why a module cannot be a handler, as the end of a sentence about it.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    #[error("has more than {MODULE_BYTES_MAX} bytes, which is the limit of a module")]
    TooLarge,
    #[error("is not a WebAssembly module or component in binary form")]
    NotWasm,
    #[error("is not valid: {0}")]
    Invalid(String),
    #[error("needs more than a guest gets, which is WASI preview 1 for modules and WASI 0.2 for components: {0}")]
    Import(String),
    #[error("exports no function `_start`, must be a WASI command and not a library")]
    NoStart,
    #[error("does not export `wasi:cli/run@0.2`, must be a WASI command: {0}")]
    NoRun(String),
    #[error("needs more than {bytes} bytes of memory to start; raise the limit of the memory of its guests")]
    Memory { bytes: usize },
    #[error("cannot be instantiated: {0}")]
    Instantiation(String),
    #[error("has a start function that did not end within {START_TIMEOUT:?}")]
    StartTimeout,
    #[error("cannot be tried: failed to start a thread: {0}")]
    Thread(io::Error),
}
