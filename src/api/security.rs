//! Protection of the main port: connection limits, TLS and authentication. Opened before the port is served,
//! so that a server with an invalid certificate or key file does not start.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::model::Clock;
use crate::scheduler::Handle;
use crate::telemetry::panics;

use super::auth::{AuthError, AuthOptions, Authenticator};
use super::listener::connection_limit::ConnectionLimit;
use super::listener::tls::{Tls, TlsError, TlsOptions};
use super::watched_files::{self, WatchedFiles};

/// Settings of connection limits, TLS and authentication.
#[derive(Clone, Debug)]
pub struct SecurityOptions {
    /// `None`: connections are not encrypted.
    pub tls: Option<TlsOptions>,
    /// `None`: callers are not authenticated, and everything is allowed.
    pub auth: Option<AuthOptions>,
    /// Open connections.
    pub connections_max: usize,
    /// Open connections from one address.
    pub connections_per_address_max: usize,
}

/// Why the main port cannot be protected as configured.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    #[error("authentication: {0}")]
    Auth(#[from] AuthError),
}

/// Protection of the main port, with all files read.
pub struct Security {
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) authenticator: Option<Arc<Authenticator>>,
    pub(super) connection_limit: Arc<ConnectionLimit>,
    watched: Vec<WatchedFiles>,
}

impl Security {
    /// Reads all files.
    ///
    /// # Errors
    /// [`SecurityError`].
    pub fn open(options: SecurityOptions, clock: Arc<dyn Clock>) -> Result<Self, SecurityError> {
        let mut watched = Vec::new();
        let tls = match options.tls.map(Tls::open).transpose()? {
            None => None,
            Some((tls, files)) => {
                watched.push(files);
                Some(tls)
            }
        };
        let authenticator = match options.auth.map(|auth| Authenticator::open(auth, clock)).transpose()? {
            None => None,
            Some((authenticator, files)) => {
                watched.extend(files);
                Some(authenticator)
            }
        };
        let connection_limit = ConnectionLimit::new(options.connections_max, options.connections_per_address_max);
        Ok(Self { tls, authenticator, connection_limit, watched })
    }

    /// Fetches the JWT keys once and returns their number; `None` if they have no address.
    pub async fn fetch_keys(&self) -> Option<Result<usize, String>> {
        self.authenticator.as_ref()?.fetch_keys().await
    }

    /// Starts the background work: reloading files, fetching keys, counting tasks. It ends at `stop`.
    pub(super) fn spawn(&mut self, handle: Handle, stop: CancellationToken) {
        let files = watched_files::run(std::mem::take(&mut self.watched), stop.clone());
        tokio::spawn(panics::essential(files));
        if let Some(authenticator) = self.authenticator.clone() {
            tokio::spawn(panics::essential(authenticator.run(handle, stop)));
        }
    }
}
