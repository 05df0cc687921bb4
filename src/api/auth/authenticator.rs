//! Everything that knows identities: one for the server.

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
use super::identity::{Identity, Unauthenticated};
use super::jwt::{Jwt, JwtOptions};
use super::keys::Keys;
use super::quota::{CommittedReservation, LimitOptions};
use super::quota_tracker::{QuotaTracker, UsageRegistry};

/// How callers are known.
#[derive(Clone, Debug, Default)]
pub struct AuthOptions {
    /// The file of API keys.
    pub tokens_file: Option<PathBuf>,
    /// Which JWTs are believed.
    pub jwt: Option<JwtOptions>,
    /// What client certificates may do, the first rule that fits counts.
    pub certificates: Vec<CertificateRule>,
    /// Bounds of every identity.
    pub limits: LimitOptions,
}

/// Why a file that says who may call cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// It cannot be read.
    #[error("failed to read `{path}`: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// Its content is wrong; the text never shows the content.
    #[error("`{path}` cannot be used: {why}", path = path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// Knows identities.
pub struct Authenticator {
    keys: Option<Keys>,
    jwt: Option<Arc<Jwt>>,
    certificates: Vec<CertificateRule>,
    usages: Arc<UsageRegistry>,
    clock: Arc<dyn Clock>,
    /// Changes with every reload: what a connection remembers is then looked up again.
    generation: AtomicU64,
    /// Taken by the ledger.
    committed: Mutex<Option<mpsc::UnboundedReceiver<CommittedReservation>>>,
}

impl Authenticator {
    /// Reads all files; gives what reads them again.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn open(options: AuthOptions, clock: Arc<dyn Clock>) -> Result<(Arc<Self>, Vec<WatchedFiles>), AuthError> {
        let (usages, committed) = UsageRegistry::new(options.limits);
        let usages = Arc::new(usages);
        let keys = options.tokens_file.map(|path| Keys::open(path, &usages)).transpose()?;
        let access = Arc::new(Self {
            keys,
            jwt: options.jwt.map(|options| Arc::new(Jwt::new(options))),
            certificates: options.certificates,
            usages,
            clock,
            generation: AtomicU64::new(0),
            committed: Mutex::new(Some(committed)),
        });
        let mut reloaded = Vec::new();
        if let Some(keys) = &access.keys {
            let (paths, part) = (vec![keys.path().clone()], access.clone());
            reloaded.push(WatchedFiles::open("API keys", paths, move || part.reload_keys())?);
            tracing::info!(tokens = keys.count(), file = %keys.path().display(), "API keys are known");
        }
        if let Some(path) = access.jwt.as_ref().and_then(|jwt| jwt.path()) {
            let (paths, part) = (vec![path.to_owned()], access.clone());
            reloaded.push(WatchedFiles::open("keys of JWTs", paths, move || part.reload_jwt())?);
        }
        Ok((access, reloaded))
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

    /// Does what goes on beside calls, until `stop`: fetches keys, counts tasks.
    pub async fn run(self: Arc<Self>, handle: Handle, stop: CancellationToken) {
        let counting = async {
            let committed = self.committed.lock().take();
            if let Some(committed) = committed {
                QuotaTracker::run(self.usages.clone(), handle, committed).await;
            }
        };
        let fetching = async {
            if let Some(jwt) = self.jwt.clone() {
                let changed = || {
                    self.generation.fetch_add(1, Ordering::Release);
                };
                jwt.fetch(stop, changed).await;
            }
        };
        tokio::join!(counting, fetching);
    }

    /// Changes with every reload.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The time that tokens end by.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Whose token that is, which came from that address.
    ///
    /// # Errors
    /// [`Unauthenticated`].
    pub fn by_token(&self, text: &str, from: IpAddr) -> Result<Arc<Identity>, Unauthenticated> {
        let now = self.now();
        let identity = if text.starts_with(crate::model::api_key::KEY_PREFIX) {
            self.keys.as_ref().ok_or(Unauthenticated::Invalid)?.identify(text)?
        } else {
            self.jwt.as_ref().ok_or(Unauthenticated::Invalid)?.identify(text, from, &self.usages, now)?
        };
        if identity.is_expired(now) { Err(Unauthenticated::Expired) } else { Ok(identity) }
    }

    /// Whose certificate that is. The handshake has proved it.
    ///
    /// # Errors
    /// [`Unauthenticated`].
    pub fn by_certificate(&self, names: &CertificateNames) -> Result<Arc<Identity>, Unauthenticated> {
        let (name, grant) = names.granted(&self.certificates).ok_or(Unauthenticated::Missing)?;
        let usage = self.usages.of(&format!("cert:{name}"));
        let identity = Identity::new(vec![grant.clone()], Some(names.ends), CancellationToken::new(), usage);
        if identity.is_expired(self.now()) { Err(Unauthenticated::Expired) } else { Ok(Arc::new(identity)) }
    }
}
