//! JWTs: tokens that an identity provider signs.
//!
//! Only the listed algorithms are accepted, and all of them use public keys: the server never holds a key
//! that can sign. Issuer, audience, subject and expiry are required and checked.

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
use crate::model::{Grant, SecretUrl, Timestamp};

use super::error::AuthError;
use super::failure_limiter::FailureLimiter;
use super::identity::Identity;
use super::quota_tracker::UsageRegistry;
use super::refusal::Unauthenticated;

pub use jsonwebtoken::Algorithm;

const TOKEN_BYTES_MAX: usize = 8 << 10;
const KEY_SET_BYTES_MAX: u64 = 1 << 20;
/// Keys of one key set; further keys are ignored.
const KEYS_MAX: usize = 64;
/// Size of the cache of verified tokens.
const VERIFIED_MAX: usize = 10_000;
const FETCH_INTERVAL: Duration = Duration::from_secs(300);
/// Shortest time until the next fetch after a failure, or if a token names a key that is not in the set.
const REFETCH_DELAY: Duration = Duration::from_secs(30);
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Which JWTs are accepted, and the grants for their claims.
#[derive(Clone, Debug)]
pub struct JwtOptions {
    /// Source of the public keys.
    pub keys: KeySource,
    /// Accepted algorithms; none with a shared secret.
    pub algorithms: Vec<Algorithm>,
    pub issuer: String,
    pub audience: String,
    /// Tolerated difference between the clocks of the issuer and the server.
    pub leeway: Duration,
    /// Grants for claims; all that match apply.
    pub rules: Vec<ClaimRule>,
}

/// Source of public keys.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// A file: a JWK set, or a public key as PEM.
    File(PathBuf),
    /// A JWK set that is fetched over HTTP.
    Address {
        /// URL of the JWK set.
        url: SecretUrl,
        /// CA of the server's certificate; `None`: the public CAs.
        ca: Option<PathBuf>,
    },
}

/// Grants a role to tokens with a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRule {
    /// Name of the claim; `a.b` is the member `b` of the object `a`.
    pub claim: String,
    /// Required value: a word of a string claim or an item of a list claim.
    pub value: String,
    pub grant: Grant,
}

impl ClaimRule {
    fn matches(&self, claims: &Claims) -> bool {
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

/// Verifies JWTs.
pub struct Jwt {
    options: JwtOptions,
    validation: Validation,
    keys: ArcSwap<Vec<PublicKey>>,
    /// Cache of verified tokens, by hash.
    verified: Mutex<hashbrown::HashMap<[u8; 32], Arc<Identity>>>,
    /// Notified when a token names a key that is not in the set.
    unknown_key: Notify,
    failures: FailureLimiter,
}

impl Jwt {
    /// Starts without keys.
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

    /// The key file; `None` if the keys are fetched.
    pub fn path(&self) -> Option<&Path> {
        match &self.options.keys {
            KeySource::File(path) => Some(path),
            KeySource::Address { .. } => None,
        }
    }

    /// Reads the key file.
    ///
    /// # Errors
    /// [`AuthError`]; the keys stay as they were.
    pub fn reload(&self) -> Result<(), AuthError> {
        let Some(path) = self.path() else { return Ok(()) };
        let text =
            std::fs::read_to_string(path).map_err(|source| AuthError::Unreadable { path: path.to_owned(), source })?;
        self.install(&text).map_err(|why| AuthError::Invalid { path: path.to_owned(), why })
    }

    /// Replaces the keys and revokes all verified tokens, so that they are verified again.
    fn install(&self, text: &str) -> Result<(), String> {
        let keys = parse(text)?;
        self.keys.store(Arc::new(keys));
        for (_, identity) in self.verified.lock().drain() {
            identity.revoked.cancel();
        }
        Ok(())
    }

    /// Fetches the keys at intervals until `stop`, if they have an address. Calls `on_change` after a change.
    pub async fn fetch(self: Arc<Self>, stop: CancellationToken, on_change: impl Fn() + Send) {
        let KeySource::Address { url, ca } = self.options.keys.clone() else { return };
        let mut current = String::new();
        loop {
            let (address, root) = (url.clone(), ca.clone());
            let fetched = tokio::task::spawn_blocking(move || get(address.reveal(), root.as_deref())).await;
            let fetched = fetched.unwrap_or_else(|error| Err(error.to_string()));
            let installed = match fetched {
                Ok(text) if text == current => Ok(()),
                Ok(text) => self.install(&text).map(|()| {
                    tracing::info!(%url, keys = self.keys.load().len(), "fetched JWT keys");
                    current = text;
                    on_change();
                }),
                Err(error) => Err(error),
            };
            let pause = if let Err(error) = &installed {
                tracing::error!(%url, error, "failed to fetch JWT keys; the previous keys stay in use");
                REFETCH_DELAY
            } else {
                FETCH_INTERVAL
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = async {
                    tokio::time::sleep(REFETCH_DELAY).await;
                    self.unknown_key.notified().await;
                } => {}
            }
        }
    }

    /// Identifies the holder of a token that came from the address `from`.
    ///
    /// # Errors
    /// [`Unauthenticated`].
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
        let identity = self.verify(text, usages, &mut checks).inspect_err(|_| self.failures.record(from, checks))?;
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

    /// `checks` counts the signatures that were checked.
    fn verify(&self, text: &str, usages: &UsageRegistry, checks: &mut u32) -> Result<Identity, Unauthenticated> {
        let header = jsonwebtoken::decode_header(text).map_err(|_| Unauthenticated::Invalid)?;
        if !self.options.algorithms.contains(&header.alg) {
            return Err(Unauthenticated::Invalid);
        }
        let keys = self.keys.load();
        let has_id = |key: &&PublicKey| header.kid.is_none() || key.id.is_none() || key.id == header.kid;
        let matches = |key: &&PublicKey| has_id(key) && key.key.family().algorithms().contains(&header.alg);
        let mut candidates = keys.iter().filter(matches).peekable();
        if candidates.peek().is_none() {
            self.unknown_key.notify_one();
        }
        let mut validation = self.validation.clone();
        validation.algorithms = vec![header.alg];
        let mut error = Unauthenticated::Invalid;
        for key in candidates {
            *checks += 1;
            match jsonwebtoken::decode::<Claims>(text, &key.key, &validation) {
                Ok(token) => return self.identity(&token.claims, usages).ok_or(Unauthenticated::Invalid),
                // The signature is checked first, so only the holder of a real token gets this answer.
                Err(invalid) if *invalid.kind() == jsonwebtoken::errors::ErrorKind::ExpiredSignature => {
                    error = Unauthenticated::Expired;
                }
                Err(_) => {}
            }
        }
        Err(error)
    }

    fn identity(&self, claims: &Claims, usages: &UsageRegistry) -> Option<Identity> {
        let subject = claims.get("sub")?.as_str()?;
        // The subject is stored in tasks and written to the log.
        if subject.is_empty() || subject.len() > 128 || !subject.chars().all(|c| matches!(c, '!'..='~')) {
            return None;
        }
        let expiry = claims.get("exp")?.as_f64().map(|at| at + self.options.leeway.as_secs_f64())?;
        let expires_at = Timestamp::ZERO.after(Duration::try_from_secs_f64(expiry).ok()?);
        let grants = self.options.rules.iter().filter(|rule| rule.matches(claims)).map(|rule| rule.grant.clone());
        let usage = usages.of(&format!("jwt:{subject}"));
        Some(Identity::new(grants.collect(), Some(expires_at), CancellationToken::new(), usage))
    }
}

/// The public keys of a JWK set or a PEM file.
fn parse(text: &str) -> Result<Vec<PublicKey>, String> {
    if text.contains("-----BEGIN") {
        if text.contains("PRIVATE KEY") {
            return Err("contains a private key; use a file with the public key only".to_owned());
        }
        let bytes = text.as_bytes();
        let key = DecodingKey::from_rsa_pem(bytes)
            .or_else(|_| DecodingKey::from_ec_pem(bytes))
            .or_else(|_| DecodingKey::from_ed_pem(bytes))
            .map_err(|_| "no RSA, EC or Ed25519 public key in PEM".to_owned())?;
        return Ok(vec![PublicKey { id: None, key }]);
    }
    // Keys of unknown kinds are ignored: other users of the set may need them.
    let set: Value = serde_json::from_str(text).map_err(|_| "neither a JWK set nor PEM".to_owned())?;
    let all = set.get("keys").and_then(Value::as_array).ok_or("no list `keys`")?;
    let keys: Vec<PublicKey> = all.iter().filter_map(public_key).take(KEYS_MAX).collect();
    if keys.is_empty() { Err("no public key for signatures".to_owned()) } else { Ok(keys) }
}

fn public_key(value: &Value) -> Option<PublicKey> {
    let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
    let signs = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    let shared = key.family() == jsonwebtoken::AlgorithmFamily::Hmac;
    (signs && !shared).then_some(PublicKey { id: jwk.common.key_id, key })
}

/// Gets the text at a URL. Blocks.
fn get(url: &str, ca: Option<&Path>) -> Result<String, String> {
    use ureq::tls::{Certificate, RootCerts, TlsConfig};
    let mut tls = TlsConfig::builder();
    if let Some(path) = ca {
        let pem = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let root = Certificate::from_pem(&pem).map_err(|error| format!("{}: {error}", path.display()))?;
        tls = tls.root_certs(RootCerts::new_with_certs(&[root]));
    }
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(FETCH_TIMEOUT))
        .max_redirects(0)
        .tls_config(tls.build())
        .build()
        .into();
    let mut response = agent.get(url).call().map_err(|error| error.to_string())?;
    if response.status().as_u16() != 200 {
        return Err(format!("unexpected HTTP status {}", response.status()));
    }
    response.body_mut().with_config().limit(KEY_SET_BYTES_MAX).read_to_string().map_err(|error| error.to_string())
}
