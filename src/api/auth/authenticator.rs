//! Identifies callers by API key, JWT or client certificate. One for the server.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::api::watched_files::WatchedFiles;
use crate::model::{Clock, Timestamp};
use crate::scheduler::Handle;

use super::certificate::{CertificateNames, CertificateRule};
use super::error::AuthError;
use super::identity::Identity;
use super::jwt::{Jwt, JwtOptions};
use super::keys::Keys;
use super::quota::{CommittedReservation, LimitOptions};
use super::quota_tracker::{QuotaTracker, UsageRegistry};
use super::refusal::Unauthenticated;

/// How callers are authenticated.
#[derive(Clone, Debug, Default)]
pub struct AuthOptions {
    pub tokens_file: Option<PathBuf>,
    pub jwt: Option<JwtOptions>,
    /// Grants for client certificates; the first rule that matches applies.
    pub certificates: Vec<CertificateRule>,
    pub limits: LimitOptions,
}

pub struct Authenticator {
    keys: Option<Keys>,
    jwt: Option<Arc<Jwt>>,
    certificates: Vec<CertificateRule>,
    usages: Arc<UsageRegistry>,
    clock: Arc<dyn Clock>,
    generation: AtomicU64,
    /// Taken by the quota tracker.
    committed: Mutex<Option<mpsc::UnboundedReceiver<CommittedReservation>>>,
}

impl Authenticator {
    /// Reads all files. The returned [`WatchedFiles`] reload them after a change.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn open(options: AuthOptions, clock: Arc<dyn Clock>) -> Result<(Arc<Self>, Vec<WatchedFiles>), AuthError> {
        let (usages, committed) = UsageRegistry::new(options.limits);
        let usages = Arc::new(usages);
        let keys = options.tokens_file.map(|path| Keys::open(path, &usages)).transpose()?;
        let authenticator = Arc::new(Self {
            keys,
            jwt: options.jwt.map(|options| Arc::new(Jwt::new(options))),
            certificates: options.certificates,
            usages,
            clock,
            generation: AtomicU64::new(0),
            committed: Mutex::new(Some(committed)),
        });
        if let Some(jwt) = &authenticator.jwt {
            jwt.check_ca()?;
        }
        let mut watched = Vec::new();
        if let Some(keys) = &authenticator.keys {
            let (paths, target) = (vec![keys.path().clone()], authenticator.clone());
            watched.push(WatchedFiles::open("API keys", paths, move || target.reload_keys())?);
            tracing::info!(count = keys.count(), file = %keys.path().display(), "API keys loaded");
        }
        if let Some(path) = authenticator.jwt.as_ref().and_then(|jwt| jwt.path()) {
            let (paths, target) = (vec![path.to_owned()], authenticator.clone());
            watched.push(WatchedFiles::open("JWT keys", paths, move || target.reload_jwt())?);
        }
        Ok((authenticator, watched))
    }

    fn reload_keys(&self) -> Result<(), AuthError> {
        self.keys.as_ref().map_or(Ok(()), |keys| keys.reload(&self.usages))?;
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn reload_jwt(&self) -> Result<(), AuthError> {
        self.jwt.as_ref().map_or(Ok(()), |jwt| jwt.reload())?;
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Fetches the JWT keys once and returns their number; `None` if they have no address.
    pub async fn fetch_keys(&self) -> Option<Result<usize, String>> {
        let jwt = self.jwt.clone()?;
        let fetched = jwt.get().await?;
        Some(fetched.and_then(|text| jwt.install(&text)).map(|()| jwt.count()))
    }

    /// Runs the background work until `stop`: fetches JWT keys and counts unfinished tasks.
    pub async fn run(self: Arc<Self>, handle: Handle, stop: CancellationToken) {
        let track_quotas = async {
            let committed = self.committed.lock().take();
            if let Some(committed) = committed {
                QuotaTracker::run(self.usages.clone(), handle, committed).await;
            }
        };
        let fetch_keys = async {
            if let Some(jwt) = self.jwt.clone() {
                let on_change = || {
                    self.generation.fetch_add(1, Ordering::Release);
                };
                jwt.fetch(stop, on_change).await;
            }
        };
        tokio::join!(track_quotas, fetch_keys);
    }

    /// Increases with every reload, so that connections look up a cached identity again.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The time against which expiry is checked.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Identifies the holder of a token that came from the address `from`.
    ///
    /// # Errors
    /// [`Unauthenticated`].
    pub fn by_token(&self, text: &str, from: IpAddr) -> Result<Arc<Identity>, Unauthenticated> {
        let now = self.now();
        let identity = if text.starts_with(crate::model::api_key::KEY_PREFIX) {
            self.keys
                .as_ref()
                .ok_or(Unauthenticated::Invalid("API keys are off: auth.tokens_file is not set"))?
                .identify(text)?
        } else {
            let jwt = self.jwt.as_ref();
            jwt.ok_or(Unauthenticated::Invalid("not an API key, and [auth.jwt] is not set"))?.identify(
                text,
                from,
                &self.usages,
                now,
            )?
        };
        if identity.is_expired(now) { Err(Unauthenticated::Expired) } else { Ok(identity) }
    }

    /// Identifies the holder of a client certificate that the TLS handshake verified, until it is `revoked`.
    ///
    /// # Errors
    /// [`Unauthenticated`].
    pub fn by_certificate(
        &self,
        names: &CertificateNames,
        revoked: &CancellationToken,
    ) -> Result<Arc<Identity>, Unauthenticated> {
        let (name, grant) = names.granted(&self.certificates).map_err(Unauthenticated::Certificate)?;
        let usage = self.usages.of(&format!("cert:{name}"));
        let identity = Identity::new(vec![grant.clone()], Some(names.expires_at), revoked.child_token(), usage);
        if identity.is_expired(self.now()) { Err(Unauthenticated::Expired) } else { Ok(Arc::new(identity)) }
    }
}
