//! An HTTP handler as the operator registered it.

use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use hyper::Method;
use hyper::header::HeaderName;

use crate::model::{ArgPattern, Network, Template, UrlTemplate};

/// Statuses of responses.
pub type Status = RangeInclusive<u16>;

#[derive(Clone, Debug)]
pub struct HttpOptions {
    pub url: UrlTemplate,
    pub method: Method,
    pub headers: Vec<(HeaderName, Template)>,
    /// Statuses that complete a task.
    pub success: Vec<Status>,
    /// Of the others, the statuses after which another attempt could succeed.
    pub retry: Vec<Status>,
    /// Called when an attempt is stopped before its response.
    pub cancel: Option<(Method, UrlTemplate)>,
    /// PEM file with the CAs of the service; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// Where requests may go in addition to public addresses.
    pub allowed_networks: Vec<Network>,
    /// What the submitter's arguments must match; `None`: there must be none.
    pub arg_pattern: Option<ArgPattern>,
    /// Time of the service to answer after the call of `cancel`, unless the stop request sets another.
    pub grace: Duration,
}

/// Why an HTTP handler cannot be registered.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    #[error("the environment variable `{0}` of a placeholder is not set; set it for the server")]
    NoVariable(Box<str>),
    #[error("failed to read `{path}` ({setting}): {source}", path = path.display())]
    Unreadable { setting: &'static str, path: PathBuf, source: io::Error },
    #[error("`{path}` is not a PEM file with certificates; set `ca` to one", path = path.display())]
    NoCertificate { path: PathBuf },
    #[error("the host of a URL is not a valid name for TLS")]
    BadServerName,
    #[error("failed to set up TLS: {0}")]
    Tls(rustls::Error),
}
