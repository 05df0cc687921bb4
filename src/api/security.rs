//! What guards the listener: connections, TLS, callers. Opened before anything is served, so that a
//! server with a wrong certificate or token file does not start.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::model::Clock;
use crate::scheduler::Handle;

use super::auth::{AuthError, AuthOptions, Authenticator};
use super::listener::connection_limit::ConnectionLimit;
use super::listener::tls::{Tls, TlsError, TlsOptions};
use super::watched_files::{self, WatchedFiles};

/// What guards the listener.
#[derive(Clone, Debug)]
pub struct SecurityOptions {
    /// TLS; `None`: everything travels in the clear.
    pub tls: Option<TlsOptions>,
    /// How callers are known; `None`: nobody is asked, and everybody may do everything.
    pub auth: Option<AuthOptions>,
    /// Connections at a time.
    pub connections_max: usize,
    /// Connections at a time from one address.
    pub connections_per_address_max: usize,
}

/// Why the server cannot be guarded as it should.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// The certificates.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// The tokens or keys.
    #[error("authentication: {0}")]
    Auth(#[from] AuthError),
}

/// The guards of a listener.
pub struct Security {
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) access: Option<Arc<Authenticator>>,
    pub(super) admission: Arc<ConnectionLimit>,
    reloaded: Vec<WatchedFiles>,
}

impl Security {
    /// Reads every file.
    ///
    /// # Errors
    /// [`SecurityError`].
    pub fn open(options: SecurityOptions, clock: Arc<dyn Clock>) -> Result<Self, SecurityError> {
        let mut reloaded = Vec::new();
        let tls = match options.tls.map(Tls::open).transpose()? {
            None => None,
            Some((tls, files)) => {
                reloaded.push(files);
                Some(tls)
            }
        };
        let access = match options.auth.map(|auth| Authenticator::open(auth, clock)).transpose()? {
            None => None,
            Some((access, files)) => {
                reloaded.extend(files);
                Some(access)
            }
        };
        let admission = ConnectionLimit::new(options.connections_max, options.connections_per_address_max);
        Ok(Self { tls, access, admission, reloaded })
    }

    /// Does what goes on beside calls, until `stop`.
    pub(super) fn spawn(&mut self, handle: Handle, stop: CancellationToken) {
        tokio::spawn(watched_files::run(std::mem::take(&mut self.reloaded), stop.clone()));
        if let Some(access) = self.access.clone() {
            tokio::spawn(access.run(handle, stop));
        }
    }
}
