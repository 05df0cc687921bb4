//! Errors of clients.

use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::model::SecretUrl;
use crate::proto::v1;

/// Why a client cannot connect with these settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address is not a URL.
    #[error("address {0:?} is not a URL")]
    NotAUrl(SecretUrl),
    /// The address is a URL of another kind.
    #[error("address: {0}, such as http://127.0.0.1:7070")]
    Url(&'static str),
    /// A certificate or key is not valid.
    #[error("TLS")]
    Tls(#[source] tonic::transport::Error),
    /// A certificate was given for an address without TLS.
    #[error("a certificate requires an https URL, the address is {0}")]
    NotHttps(String),
    /// The token is not valid.
    #[error("the token is empty or has more than one line")]
    Token,
    /// A file that an environment variable names cannot be read.
    #[error("{what}={path}: {error}")]
    File {
        /// The variable.
        what: String,
        /// Its value.
        path: String,
        /// Why it cannot be read.
        error: std::io::Error,
    },
    /// A client certificate was given without its key, or a key without its certificate.
    #[error("LINESHAFT_TLS_CERT and LINESHAFT_TLS_KEY must be set together")]
    HalfIdentity,
}

/// Why a call did not return what was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The server refused the call, or could not be reached; see `docs/errors.md`.
    #[error("{}", .0.message())]
    Status(Box<Status>),
    /// The task failed.
    #[error("task {task_id} failed: {}", failure.message)]
    Failed {
        /// The task.
        task_id: String,
        /// Why it failed.
        failure: Box<v1::Failure>,
    },
    /// The task was cancelled.
    #[error("task {0} was cancelled")]
    Cancelled(String),
    /// What was received of an artifact does not have its SHA-256.
    #[error("SHA-256 of the received bytes is {received}, that of the artifact {expected}; download it again")]
    Checksum {
        /// Of the received bytes.
        received: String,
        /// Of the artifact.
        expected: String,
    },
    /// An artifact cannot be written.
    #[error("failed to write the artifact: {0}")]
    Write(#[source] std::io::Error),
    /// The payload cannot be written, or the result cannot be read.
    #[error("payload: {0}")]
    Payload(#[from] crate::function::PayloadError),
}

impl CallError {
    /// The reason in the `ErrorInfo` of a status, such as `QUEUE_FULL`.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Status(status) => reason(status),
            _ => None,
        }
    }
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

/// `ErrorInfo.reason` of a status.
pub fn reason(status: &Status) -> Option<String> {
    status.get_error_details().error_info().map(|info| info.reason.clone())
}

/// Whether a status comes from the connection and not from the server: the server always adds an `ErrorInfo`.
pub fn is_connection_error(status: &Status) -> bool {
    status.get_error_details().error_info().is_none()
        && matches!(
            status.code(),
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal | Code::DeadlineExceeded
        )
}

/// Whether the same call can succeed later: the connection broke, or the server asks for a pause, also because it drains.
pub fn may_help(status: &Status) -> bool {
    let asked = status.get_error_details().retry_info().is_some();
    is_connection_error(status) || status.code() == Code::Unavailable || asked
}
