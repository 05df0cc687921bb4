//! JWTs: tokens that an identity provider signs.
//!
//! Only the listed algorithms are accepted, and all of them use public keys: the server never holds a key
//! that can sign. Issuer, audience, subject and expiry are required and checked. The rules are those of
//! RFC 7515, 7517 and 7519, as restricted by RFC 8725.

mod fetch;
mod key_set;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Header, Validation};
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

use key_set::PublicKey;

pub use jsonwebtoken::Algorithm;

const TOKEN_BYTES_MAX: usize = 8 << 10;
/// Size of the cache of verified tokens.
const VERIFIED_MAX: usize = 10_000;
const FETCH_INTERVAL: Duration = Duration::from_secs(300);
/// Shortest time until the next fetch after a failure, or if a token names a key that is not in the set.
const REFETCH_DELAY: Duration = Duration::from_secs(30);
/// Characters of a subject; OpenID Connect allows as many.
const SUBJECT_CHARS_MAX: usize = 255;

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
        let unreadable =
            |source| AuthError::Unreadable { setting: "auth.jwt.keys_file", path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        self.install(&text).map_err(|why| AuthError::Invalid { path: path.to_owned(), why })
    }

    /// Reads the CA for fetching the keys, so that a server that could not fetch them does not start.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn check_ca(&self) -> Result<(), AuthError> {
        let KeySource::Address { ca: Some(path), .. } = &self.options.keys else { return Ok(()) };
        let unreadable = |source| AuthError::Unreadable { setting: "auth.jwt.jwks_ca", path: path.clone(), source };
        let pem = std::fs::read(path).map_err(unreadable)?;
        fetch::root(&pem).map(drop).map_err(|why| AuthError::Invalid { path: path.clone(), why })
    }

    /// Fetches the text of the key set; `None` if it has no address.
    pub async fn get(&self) -> Option<Result<String, String>> {
        let KeySource::Address { url, ca } = self.options.keys.clone() else { return None };
        let fetched = tokio::task::spawn_blocking(move || fetch::get(url.reveal(), ca.as_deref())).await;
        Some(fetched.unwrap_or_else(|error| Err(error.to_string())))
    }

    pub fn count(&self) -> usize {
        self.keys.load().len()
    }

    /// Replaces the keys, and revokes the tokens of keys that were removed.
    pub fn install(&self, text: &str) -> Result<(), String> {
        let mut keys = key_set::parse(text)?;
        let old = self.keys.load();
        key_set::replace(&old, &mut keys);
        self.keys.store(Arc::new(keys));
        self.verified.lock().retain(|_, identity| !identity.revoked.is_cancelled());
        Ok(())
    }

    /// Fetches the keys at intervals until `stop`, if they have an address. Calls `on_change` after a change.
    pub async fn fetch(self: Arc<Self>, stop: CancellationToken, on_change: impl Fn() + Send) {
        let KeySource::Address { url, .. } = &self.options.keys else { return };
        let mut current = String::new();
        loop {
            let Some(fetched) = self.get().await else { return };
            let installed = match fetched {
                Ok(text) if text == current => Ok(()),
                Ok(text) => self.install(&text).map(|()| {
                    tracing::info!(%url, keys = self.count(), "fetched JWT keys");
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
            return Err(Unauthenticated::Invalid("the token is longer than 8 KiB"));
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
        self.remember(hash, Arc::new(identity), now)
    }

    /// Keeps the identity that a token has proved. Returns the one that is kept already, if another call was faster.
    ///
    /// # Errors
    /// [`Unauthenticated`] if the key was removed since it verified the token.
    fn remember(
        &self,
        hash: [u8; 32],
        identity: Arc<Identity>,
        now: Timestamp,
    ) -> Result<Arc<Identity>, Unauthenticated> {
        let mut verified = self.verified.lock();
        // A reload cancels the keys that it removes before it cleans the cache under the lock, so an identity that is not
        // cancelled here is found by that reload.
        if identity.revoked.is_cancelled() {
            return Err(Unauthenticated::Expired);
        }
        if verified.len() >= VERIFIED_MAX {
            verified.retain(|_, identity| !identity.is_expired(now));
            if verified.len() >= VERIFIED_MAX {
                verified.clear();
            }
        }
        Ok(verified.entry(hash).or_insert(identity).clone())
    }

    /// `checks` counts the signatures that were checked.
    fn verify(&self, text: &str, usages: &UsageRegistry, checks: &mut u32) -> Result<Identity, Unauthenticated> {
        let header = jsonwebtoken::decode_header(text)
            .map_err(|_| Unauthenticated::Invalid("neither an API key nor a JWT with a valid header"))?;
        self.check_header(&header).map_err(Unauthenticated::Invalid)?;
        let keys = self.keys.load();
        let mut candidates = keys.iter().filter(|key| key.accepts(header.kid.as_ref(), header.alg)).peekable();
        if candidates.peek().is_none() {
            self.unknown_key.notify_one();
        }
        let mut validation = self.validation.clone();
        validation.algorithms = vec![header.alg];
        let mut error = Unauthenticated::Invalid("no key for signatures has the token's `kid` and fits its `alg`");
        for key in candidates {
            *checks += 1;
            match jsonwebtoken::decode::<Claims>(text, &key.key, &validation) {
                Ok(token) => return self.identity(&token.claims, key, usages).map_err(Unauthenticated::Invalid),
                Err(invalid) => error = refusal(invalid.kind()),
            }
            // The signature is checked first, so no other key fits.
            if error != BAD_SIGNATURE {
                break;
            }
        }
        Err(error)
    }

    fn check_header(&self, header: &Header) -> Result<(), &'static str> {
        if !self.options.algorithms.contains(&header.alg) {
            return Err("`alg` is not in auth.jwt.algorithms");
        }
        if header.crit.is_some() {
            return Err("`crit` requires an extension of JWS, and none is supported");
        }
        match &header.typ {
            Some(typ) if !is_access_token(typ) => Err("`typ` is neither `JWT` nor `at+jwt`"),
            _ => Ok(()),
        }
    }

    fn identity(&self, claims: &Claims, key: &PublicKey, usages: &UsageRegistry) -> Result<Identity, &'static str> {
        // The library accepts a list that contains the issuer.
        if claims.get("iss").and_then(Value::as_str) != Some(&self.options.issuer) {
            return Err("`iss` is not auth.jwt.issuer");
        }
        let subject = claims.get("sub").and_then(Value::as_str).ok_or("`sub` is not a string")?;
        // The subject is stored in tasks and written to the log.
        if !(1..=SUBJECT_CHARS_MAX).contains(&subject.len()) || !subject.chars().all(|c| matches!(c, ' '..='~')) {
            return Err("`sub` is not 1 to 255 printable ASCII characters");
        }
        let expiry = claims.get("exp").and_then(Value::as_f64).ok_or("`exp` is not a number")?;
        let expiry = Duration::try_from_secs_f64(expiry + self.options.leeway.as_secs_f64());
        let expires_at = Timestamp::ZERO.after(expiry.map_err(|_| "`exp` is out of range")?);
        let grants = self.options.rules.iter().filter(|rule| rule.matches(claims)).map(|rule| rule.grant.clone());
        let usage = usages.of(&format!("jwt:{subject}"));
        Ok(Identity::new(grants.collect(), Some(expires_at), key.removed.child_token(), usage))
    }
}

const BAD_SIGNATURE: Unauthenticated = Unauthenticated::Invalid("the signature is invalid");

/// Whether the type in a token's header is that of an access token. Media types ignore case and may omit `application/`.
fn is_access_token(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    matches!(typ.strip_prefix("application/").unwrap_or(&typ), "jwt" | "at+jwt")
}

/// Why the library refused a token.
fn refusal(kind: &ErrorKind) -> Unauthenticated {
    Unauthenticated::Invalid(match kind {
        ErrorKind::ExpiredSignature => return Unauthenticated::Expired,
        ErrorKind::MissingRequiredClaim(claim) => match claim.as_str() {
            "exp" => "`exp` is missing or not a number",
            "iss" => "`iss` is missing or not a string",
            "aud" => "`aud` is missing or neither a string nor a list of strings",
            _ => "`sub` is missing or not a string",
        },
        ErrorKind::InvalidIssuer => "`iss` is not auth.jwt.issuer",
        ErrorKind::InvalidAudience => "`aud` does not contain auth.jwt.audience",
        ErrorKind::ImmatureSignature => "`nbf` is in the future",
        ErrorKind::InvalidClaimFormat(_) => "`exp` or `nbf` is not a number",
        ErrorKind::InvalidSignature => return BAD_SIGNATURE,
        _ => "the claims are not a JSON object, or the key is unusable",
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::quota::LimitOptions;
    use super::*;

    struct Signer(jsonwebtoken::EncodingKey);

    impl Signer {
        fn new() -> Self {
            let pair = rcgen::KeyPair::generate().unwrap();
            Self(jsonwebtoken::EncodingKey::from_ec_der(&pair.serialize_der()))
        }

        fn sign(&self, claims: &Value) -> String {
            jsonwebtoken::encode(&Header::new(Algorithm::ES256), claims, &self.0).unwrap()
        }
    }

    fn set(signers: &[&Signer]) -> String {
        let public = |signer: &&Signer| jsonwebtoken::jwk::Jwk::from_encoding_key(&signer.0, Algorithm::ES256).unwrap();
        json!({"keys": signers.iter().map(public).collect::<Vec<_>>()}).to_string()
    }

    fn jwt() -> Jwt {
        Jwt::new(JwtOptions {
            keys: KeySource::File(PathBuf::new()),
            algorithms: vec![Algorithm::ES256],
            issuer: "idp".to_owned(),
            audience: "lineshaft".to_owned(),
            leeway: Duration::ZERO,
            rules: Vec::new(),
        })
    }

    fn claims() -> Value {
        json!({"iss": "idp", "aud": "lineshaft", "sub": "alice", "exp": 9_000_000_000_u64})
    }

    const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn a_token_is_refused_if_its_key_was_removed_while_it_was_verified() {
        let (old, new, jwt) = (Signer::new(), Signer::new(), jwt());
        let (usages, _committed) = UsageRegistry::new(LimitOptions::default());
        jwt.install(&set(&[&old])).unwrap();
        let token = old.sign(&claims());
        // The steps of `identify`, with a reload between the second and the third.
        let hash = KeyHash::of(&token).bytes();
        let identity = Arc::new(jwt.verify(&token, &usages, &mut 0).unwrap());
        jwt.install(&set(&[&new])).unwrap();
        let refused = jwt.remember(hash, identity, Timestamp::ZERO);
        assert_eq!(refused.err(), Some(Unauthenticated::Expired));
        assert!(jwt.identify(&token, FROM, &usages, Timestamp::ZERO).is_err());
    }

    #[test]
    fn every_identity_of_a_removed_key_is_revoked_and_no_other() {
        let (kept, removed, jwt) = (Signer::new(), Signer::new(), jwt());
        let (usages, _committed) = UsageRegistry::new(LimitOptions::default());
        jwt.install(&set(&[&kept, &removed])).unwrap();
        let identify = |signer: &Signer| jwt.identify(&signer.sign(&claims()), FROM, &usages, Timestamp::ZERO).unwrap();
        let (stays, ends) = (identify(&kept), identify(&removed));
        // Not in the cache: a flood of other tokens replaced it.
        jwt.verified.lock().clear();
        jwt.install(&set(&[&Signer::new(), &kept])).unwrap();
        assert_eq!((stays.revoked.is_cancelled(), ends.revoked.is_cancelled()), (false, true));
    }

    #[test]
    fn types_of_access_tokens_are_compared_without_case() {
        for typ in ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "Application/JWT"] {
            assert!(is_access_token(typ), "{typ}");
        }
        for typ in ["", "logout+jwt", "dpop+jwt", "application/", "JOSE", "JWT "] {
            assert!(!is_access_token(typ), "{typ}");
        }
    }
}
