//! JWTs: tokens that somebody else signs.
//!
//! Only algorithms with public keys, and of those only the ones that the operator lists: a server that
//! verifies needs nothing that could sign. Issuer, audience, subject and expiry must be there and fit.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{DecodingKey, Validation};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::model::api_key::KeyHash;
use crate::model::{Grant, Timestamp};

use super::authenticator::AuthError;
use super::failure_limiter::FailureLimiter;
use super::identity::{Identity, Unauthenticated};
use super::quota_tracker::UsageRegistry;

pub use jsonwebtoken::Algorithm;

/// Bytes of a token.
const TOKEN_BYTES_MAX: usize = 8 << 10;
/// Bytes of a set of keys.
const SET_BYTES_MAX: u64 = 1 << 20;
/// Keys of a set.
const KEYS_MAX: usize = 64;
/// Verified tokens that are remembered.
const VERIFIED_MAX: usize = 10_000;
/// How often a set is fetched.
const FETCH_INTERVAL: Duration = Duration::from_secs(300);
/// How soon it is fetched again after a failure, or when a token names a key that is not in it.
const FETCH_AGAIN: Duration = Duration::from_secs(30);
/// Time that fetching may take.
const FETCH_TIME_MAX: Duration = Duration::from_secs(10);

/// Which JWTs are believed, and what they may do.
#[derive(Clone, Debug)]
pub struct JwtOptions {
    /// Where the public keys are.
    pub keys: KeySource,
    /// Algorithms that are accepted; none with a shared secret.
    pub algorithms: Vec<Algorithm>,
    /// `iss` that a token must have.
    pub issuer: String,
    /// `aud` that a token must have.
    pub audience: String,
    /// Difference between clocks that is forgiven.
    pub leeway: Duration,
    /// What claims give.
    pub rules: Vec<ClaimRule>,
}

/// Where public keys are.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// A file: a JWK set, or a public key as PEM.
    File(PathBuf),
    /// An address of a JWK set.
    Address {
        /// Its URL.
        url: String,
        /// The CA of its certificate, when that is not a public one.
        ca: Option<PathBuf>,
    },
}

/// What a claim gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRule {
    /// Its name; dots lead into objects.
    pub claim: String,
    /// What it must be, or contain as an item of a list or a word.
    pub value: String,
    /// What it gives.
    pub grant: Grant,
}

impl ClaimRule {
    fn fits(&self, claims: &Claims) -> bool {
        let nested = || {
            let mut parts = self.claim.split('.');
            let first = claims.get(parts.next()?)?;
            parts.try_fold(first, |value, part| value.get(part))
        };
        match claims.get(&self.claim).or_else(nested) {
            Some(Value::String(text)) => text.split(' ').any(|word| word == self.value),
            Some(Value::Array(items)) => items.iter().any(|item| item.as_str() == Some(&self.value)),
            _ => false,
        }
    }
}

type Claims = HashMap<String, Value>;

struct PublicKey {
    id: Option<String>,
    key: DecodingKey,
}

/// Verifies tokens.
pub struct Jwt {
    options: JwtOptions,
    validation: Validation,
    keys: ArcSwap<Vec<PublicKey>>,
    verified: Mutex<hashbrown::HashMap<[u8; 32], Arc<Identity>>>,
    unknown_key: Notify,
    failures: FailureLimiter,
}

impl Jwt {
    /// Knows no keys yet.
    pub fn new(options: JwtOptions) -> Self {
        let first = options.algorithms.first().copied().unwrap_or(Algorithm::ES256);
        let mut validation = Validation::new(first);
        validation.leeway = options.leeway.as_secs();
        validation.validate_nbf = true;
        validation.set_issuer(&[&options.issuer]);
        validation.set_audience(&[&options.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        Self {
            options,
            validation,
            keys: ArcSwap::default(),
            verified: Mutex::default(),
            unknown_key: Notify::new(),
            failures: FailureLimiter::default(),
        }
    }

    /// The file of keys, when they are in one.
    pub fn path(&self) -> Option<&Path> {
        match &self.options.keys {
            KeySource::File(path) => Some(path),
            KeySource::Address { .. } => None,
        }
    }

    /// Reads the file of keys.
    ///
    /// # Errors
    /// [`AuthError`]; then the keys stay as they were.
    pub fn reload(&self) -> Result<(), AuthError> {
        let Some(path) = self.path() else { return Ok(()) };
        let text =
            std::fs::read_to_string(path).map_err(|source| AuthError::Unreadable { path: path.to_owned(), source })?;
        self.install(&text).map_err(|why| AuthError::Broken { path: path.to_owned(), why })
    }

    /// Takes new keys; whoever was verified with the old ones is asked again.
    fn install(&self, text: &str) -> Result<(), String> {
        let keys = parse(text)?;
        self.keys.store(Arc::new(keys));
        for (_, identity) in self.verified.lock().drain() {
            identity.revoked.cancel();
        }
        Ok(())
    }

    /// Fetches the keys again and again, when they have an address. `changed` is called after a change.
    pub async fn fetch(self: Arc<Self>, stop: CancellationToken, changed: impl Fn() + Send) {
        let KeySource::Address { url, ca } = self.options.keys.clone() else { return };
        let mut before = String::new();
        loop {
            let (address, root) = (url.clone(), ca.clone());
            let fetched = tokio::task::spawn_blocking(move || fetched(&address, root.as_deref())).await;
            let fetched = fetched.unwrap_or_else(|error| Err(error.to_string()));
            let installed = match fetched {
                Ok(text) if text == before => Ok(()),
                Ok(text) => self.install(&text).map(|()| {
                    tracing::info!(url, keys = self.keys.load().len(), "fetched keys of JWTs");
                    before = text;
                    changed();
                }),
                Err(error) => Err(error),
            };
            let pause = if let Err(error) = &installed {
                tracing::error!(url, error, "failed to fetch keys of JWTs; those that are known stay");
                FETCH_AGAIN
            } else {
                FETCH_INTERVAL
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = async {
                    tokio::time::sleep(FETCH_AGAIN).await;
                    self.unknown_key.notified().await;
                } => {}
            }
        }
    }

    /// Whose token that is, which came from that address.
    ///
    /// # Errors
    /// [`Unauthenticated`] when it is not to be believed.
    pub fn identify(
        &self,
        text: &str,
        from: IpAddr,
        usages: &UsageRegistry,
        now: Timestamp,
    ) -> Result<Arc<Identity>, Unauthenticated> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(Unauthenticated::Invalid);
        }
        let hash = KeyHash::of(text).bytes();
        if let Some(identity) = self.verified.lock().get(&hash) {
            return Ok(identity.clone());
        }
        if let Some(wait) = self.failures.wait(from) {
            return Err(Unauthenticated::RateLimited { wait });
        }
        let mut checks = 0;
        let identity = self.verify(text, usages, &mut checks).inspect_err(|_| self.failures.note(from, checks))?;
        let identity = Arc::new(identity);
        let mut verified = self.verified.lock();
        if verified.len() >= VERIFIED_MAX {
            verified.retain(|_, identity| !identity.is_expired(now));
            if verified.len() >= VERIFIED_MAX {
                verified.clear();
            }
        }
        verified.insert(hash, identity.clone());
        Ok(identity)
    }

    /// `checks` counts signatures that were checked.
    fn verify(&self, text: &str, usages: &UsageRegistry, checks: &mut u32) -> Result<Identity, Unauthenticated> {
        let header = jsonwebtoken::decode_header(text).map_err(|_| Unauthenticated::Invalid)?;
        if !self.options.algorithms.contains(&header.alg) {
            return Err(Unauthenticated::Invalid);
        }
        let keys = self.keys.load();
        let named = |key: &&PublicKey| header.kid.is_none() || key.id.is_none() || key.id == header.kid;
        let fits = |key: &&PublicKey| named(key) && key.key.family().algorithms().contains(&header.alg);
        let mut candidates = keys.iter().filter(fits).peekable();
        if candidates.peek().is_none() {
            self.unknown_key.notify_one();
        }
        let mut validation = self.validation.clone();
        validation.algorithms = vec![header.alg];
        let mut why = Unauthenticated::Invalid;
        for key in candidates {
            *checks += 1;
            match jsonwebtoken::decode::<Claims>(text, &key.key, &validation) {
                Ok(token) => return self.identity(&token.claims, usages).ok_or(Unauthenticated::Invalid),
                // The signature is looked at first: who hears this had a token.
                Err(error) if *error.kind() == jsonwebtoken::errors::ErrorKind::ExpiredSignature => {
                    why = Unauthenticated::Expired;
                }
                Err(_) => {}
            }
        }
        Err(why)
    }

    fn identity(&self, claims: &Claims, usages: &UsageRegistry) -> Option<Identity> {
        let subject = claims.get("sub")?.as_str()?;
        // It ends up in the log and in tasks.
        if subject.is_empty() || subject.len() > 128 || !subject.chars().all(|c| matches!(c, '!'..='~')) {
            return None;
        }
        let ends = claims.get("exp")?.as_f64().map(|at| at + self.options.leeway.as_secs_f64())?;
        let ends = Timestamp::ZERO.after(Duration::try_from_secs_f64(ends).ok()?);
        let grants = self.options.rules.iter().filter(|rule| rule.fits(claims)).map(|rule| rule.grant.clone());
        let usage = usages.of(&format!("jwt:{subject}"));
        Some(Identity::new(grants.collect(), Some(ends), CancellationToken::new(), usage))
    }
}

/// The public keys of a JWK set or a PEM file.
fn parse(text: &str) -> Result<Vec<PublicKey>, String> {
    if text.contains("-----BEGIN") {
        if text.contains("PRIVATE KEY") {
            return Err("it has a private key; a public one is wanted, and nothing else should be here".to_owned());
        }
        let bytes = text.as_bytes();
        let key = DecodingKey::from_rsa_pem(bytes)
            .or_else(|_| DecodingKey::from_ec_pem(bytes))
            .or_else(|_| DecodingKey::from_ed_pem(bytes))
            .map_err(|_| "it has no RSA, EC or Ed25519 public key as PEM".to_owned())?;
        return Ok(vec![PublicKey { id: None, key }]);
    }
    // Keys of a kind that is not known are left out: other users of the set may need them.
    let set: Value = serde_json::from_str(text).map_err(|_| "it is no JWK set and no PEM".to_owned())?;
    let all = set.get("keys").and_then(Value::as_array).ok_or("it has no list of `keys`")?;
    let keys: Vec<PublicKey> = all.iter().filter_map(public_key).take(KEYS_MAX).collect();
    if keys.is_empty() { Err("it has no public key for signatures".to_owned()) } else { Ok(keys) }
}

fn public_key(value: &Value) -> Option<PublicKey> {
    let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
    let signs = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    let shared = key.family() == jsonwebtoken::AlgorithmFamily::Hmac;
    (signs && !shared).then_some(PublicKey { id: jwk.common.key_id, key })
}

/// The text at an address. Blocks.
fn fetched(url: &str, ca: Option<&Path>) -> Result<String, String> {
    use ureq::tls::{Certificate, RootCerts, TlsConfig};
    let mut tls = TlsConfig::builder();
    if let Some(path) = ca {
        let pem = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let root = Certificate::from_pem(&pem).map_err(|error| format!("{}: {error}", path.display()))?;
        tls = tls.root_certs(RootCerts::new_with_certs(&[root]));
    }
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(FETCH_TIME_MAX))
        .max_redirects(0)
        .tls_config(tls.build())
        .build()
        .into();
    let mut answer = agent.get(url).call().map_err(|error| error.to_string())?;
    if answer.status().as_u16() != 200 {
        return Err(format!("answered {}", answer.status()));
    }
    answer.body_mut().with_config().limit(SET_BYTES_MAX).read_to_string().map_err(|error| error.to_string())
}
