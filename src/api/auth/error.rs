//! Why a file of keys cannot be used.

use std::path::PathBuf;

/// Why a file that authentication needs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error("failed to read `{path}` ({setting}): {source}", path = path.display())]
    Unreadable { setting: &'static str, path: PathBuf, source: std::io::Error },
    /// The content of the file is invalid. The message never contains the content.
    #[error("`{path}` is invalid: {why}", path = path.display())]
    Invalid { path: PathBuf, why: String },
}
