//! Why a file of keys cannot be used.

use std::path::PathBuf;

/// Why a file that authentication needs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The file cannot be read.
    #[error("failed to read `{path}`: {source}", path = path.display())]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The content of the file is invalid. The message never contains the content.
    #[error("`{path}` is invalid: {why}", path = path.display())]
    Invalid {
        /// Path of the file.
        path: PathBuf,
        /// Description of the defect.
        why: String,
    },
}
