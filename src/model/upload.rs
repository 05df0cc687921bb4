//! WebAssembly handlers that callers upload.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use super::arg_pattern::ArgPattern;
use super::id::PoolName;
use super::payload_schema::PayloadSchema;

/// An uploaded handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// The pool in which its tasks run.
    pub pool: PoolName,
    pub module: ModuleDigest,
    pub settings: UploadSettings,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadSettings {
    pub description: Box<str>,
    /// Default timeout of an attempt; `None`: that of the pool.
    pub timeout: Option<Duration>,
    /// Name and arguments of the guest; empty: the name of the handler.
    pub argv: Box<[Box<str>]>,
    /// What submitters' arguments must match; `None`: they cannot add any.
    pub arg_pattern: Option<ArgPattern>,
    /// Of results; `None`: `text/plain`.
    pub content_type: Option<Arc<str>>,
    /// All memory of a guest; `None`: the default of the runner.
    pub memory_bytes: Option<u64>,
    /// Whether a guest sees the time.
    pub clock: bool,
    /// What payloads have to match; `None`: anything.
    pub payload_schema: Option<PayloadSchema>,
}

impl UploadSettings {
    /// Bytes of everything of variable size.
    pub fn bytes(&self) -> usize {
        let argv: usize = self.argv.iter().map(|arg| size_of::<Box<str>>() + arg.len()).sum();
        let pattern = self.arg_pattern.as_ref().map_or(0, |pattern| pattern.as_str().len());
        let schema = self.payload_schema.as_ref().map_or(0, |schema| schema.as_str().len());
        self.description.len() + argv + pattern + schema + self.content_type.as_ref().map_or(0, |text| text.len())
    }
}

/// SHA-256 of a module. It is the name of the file of an uploaded one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModuleDigest([u8; SHA256_OUTPUT_LEN]);

impl ModuleDigest {
    /// Directory of uploaded modules in the data directory.
    pub const DIRECTORY: &str = "modules";

    pub fn of(module: &[u8]) -> Self {
        let mut bytes = [0; SHA256_OUTPUT_LEN];
        bytes.copy_from_slice(digest(&SHA256, module).as_ref());
        Self(bytes)
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn file_name(&self) -> String {
        format!("{self}.wasm")
    }

    /// The file of the module in a data directory.
    pub fn path_in(&self, data: &Path) -> PathBuf {
        data.join(Self::DIRECTORY).join(self.file_name())
    }
}

/// In hexadecimal.
impl fmt::Display for ModuleDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ModuleDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
