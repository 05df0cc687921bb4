//! Settings of authentication: who may call, and what for.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::Grant;

use super::error::Problems;
use super::units::{ByteSize, HumanDuration};

/// `[auth]`: who may call. On when there is a file of tokens, `[auth.jwt]` or an `[[auth.certificate]]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// File of API keys, made by `lineshaft token create`; read again when it changes. Default: none.
    pub tokens_file: Option<PathBuf>,
    /// Which JWTs are believed. Default: none.
    pub jwt: Option<Jwt>,
    /// What client certificates may do; the first that fits counts. Default: nothing.
    #[serde(rename = "certificate")]
    pub certificates: Vec<Certificate>,
    /// Bounds of every identity.
    pub limits: AuthLimits,
}

/// `[auth.jwt]`: tokens that somebody else signs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Jwt {
    /// The `iss` that a token must have. Must be given.
    pub issuer: String,
    /// The `aud` that a token must have. Must be given.
    pub audience: String,
    /// File with the public keys: a JWK set, or one key as PEM; read again when it changes.
    pub keys_file: Option<PathBuf>,
    /// Address of the JWK set instead, https; fetched every 5 minutes, and when a token names an unknown key.
    pub jwks_url: Option<String>,
    /// With jwks_url: file with the CA of that address, PEM. Default: the public CAs.
    pub jwks_ca: Option<PathBuf>,
    /// Algorithms that are accepted. Default: RS256, ES256 and EdDSA.
    pub algorithms: Vec<JwtAlgorithm>,
    /// Difference between clocks that is forgiven, 0 to 10m. Default 30s.
    pub leeway: HumanDuration,
    /// What claims give; all that fit count. Must have one at least.
    #[serde(rename = "grant")]
    pub grants: Vec<ClaimGrant>,
}

impl Default for Jwt {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            audience: String::new(),
            keys_file: None,
            jwks_url: None,
            jwks_ca: None,
            algorithms: vec![JwtAlgorithm::Rs256, JwtAlgorithm::Es256, JwtAlgorithm::EdDsa],
            leeway: HumanDuration(Duration::from_secs(30)),
            grants: Vec::new(),
        }
    }
}

/// How a JWT may be signed: by a private key, never by a shared secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum JwtAlgorithm {
    /// RSA, PKCS#1 v1.5.
    Rs256,
    /// RSA, PKCS#1 v1.5.
    Rs384,
    /// RSA, PKCS#1 v1.5.
    Rs512,
    /// RSA, PSS.
    Ps256,
    /// RSA, PSS.
    Ps384,
    /// RSA, PSS.
    Ps512,
    /// ECDSA, P-256.
    Es256,
    /// ECDSA, P-384.
    Es384,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// `[[auth.jwt.grant]]`: what a claim gives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClaimGrant {
    /// Name of the claim; dots lead into objects, such as "realm_access.roles". Must be given.
    pub claim: String,
    /// What it must be, or have as an item of its list or as a word. Must be given.
    pub value: String,
    /// Role that it gives: viewer, submitter, worker, operator or admin. Must be given.
    pub role: String,
    /// Where; "*" is everywhere. Must be given.
    pub namespaces: Vec<String>,
}

/// `[[auth.certificate]]`: what holders of a client certificate may do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Certificate {
    /// Its common name or an alternative name (DNS, URI, e-mail); "*" is any of the CA. Must be given.
    pub subject: String,
    /// Role of its holders: viewer, submitter, worker, operator or admin. Must be given.
    pub role: String,
    /// Where; "*" is everywhere. Must be given.
    pub namespaces: Vec<String>,
}

/// `[auth.limits]`: bounds of every identity; beyond them RESOURCE_EXHAUSTED tells when to come back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuthLimits {
    /// Tasks a second that it may submit, averaged, 1 to 1,000,000. Default: no limit.
    pub submit_rate: Option<u32>,
    /// With submit_rate: tasks at once, such as the largest batch, 1 to 10,000,000. Default: ten seconds' worth.
    pub submit_burst: Option<u32>,
    /// Tasks of it that have not ended, at least 1. Default: no limit.
    pub live_tasks: Option<u64>,
    /// Bytes of the payloads of those tasks, at least 1MiB. Default: no limit.
    pub live_payload_bytes: Option<ByteSize>,
    /// Watches, waits and streams that it has open, 1 to 1,000,000. Default: no limit.
    pub open_streams: Option<usize>,
}

impl Auth {
    /// Whether callers are authenticated.
    pub fn on(&self) -> bool {
        self.tokens_file.is_some() || self.jwt.is_some() || !self.certificates.is_empty()
    }

    pub(super) fn check(&self, has_client_ca: bool, problems: &mut Problems) {
        if let Some(jwt) = &self.jwt {
            jwt.check(problems);
        }
        for (index, certificate) in self.certificates.iter().enumerate() {
            let path = format!("auth.certificate[{index}]");
            if !has_client_ca {
                problems.add(&path, "", "needs tls.client_ca: without it no client has a certificate");
            }
            must(&format!("{path}.subject"), &certificate.subject, problems);
            check_grant(&path, &certificate.role, &certificate.namespaces, problems);
        }
        self.limits.check(problems);
    }
}

impl Jwt {
    fn check(&self, problems: &mut Problems) {
        must("auth.jwt.issuer", &self.issuer, problems);
        must("auth.jwt.audience", &self.audience, problems);
        if self.keys_file.is_some() == self.jwks_url.is_some() {
            problems.add("auth.jwt", "", "one of keys_file and jwks_url must be given, and not both");
        }
        if let Some(url) = &self.jwks_url {
            // Whoever can change the keys on their way can be anybody.
            let near = ["http://127.0.0.1:", "http://[::1]:", "http://localhost:"];
            if !url.starts_with("https://") && !near.iter().any(|start| url.starts_with(start)) {
                problems.add("auth.jwt.jwks_url", format!("{url:?}"), "must be https, or on this machine");
            }
        }
        if self.jwks_ca.is_some() && self.jwks_url.is_none() {
            problems.add("auth.jwt.jwks_ca", "", "needs auth.jwt.jwks_url");
        }
        if self.algorithms.is_empty() {
            problems.add("auth.jwt.algorithms", "[]", "must name one at least");
        }
        problems.within(
            "auth.jwt.leeway",
            self.leeway,
            HumanDuration::default(),
            HumanDuration(Duration::from_mins(10)),
        );
        if self.grants.is_empty() {
            problems.add("auth.jwt.grant", "", "must be one at least: a token without a grant may do nothing");
        }
        for (index, grant) in self.grants.iter().enumerate() {
            let path = format!("auth.jwt.grant[{index}]");
            must(&format!("{path}.claim"), &grant.claim, problems);
            must(&format!("{path}.value"), &grant.value, problems);
            check_grant(&path, &grant.role, &grant.namespaces, problems);
        }
    }
}

impl AuthLimits {
    fn check(&self, problems: &mut Problems) {
        if let Some(rate) = self.submit_rate {
            problems.within("auth.limits.submit_rate", rate, 1, 1_000_000);
        }
        if let Some(burst) = self.submit_burst {
            problems.within("auth.limits.submit_burst", burst, 1, 10_000_000);
            if self.submit_rate.is_none() {
                problems.add("auth.limits.submit_burst", burst, "needs auth.limits.submit_rate");
            }
        }
        if let Some(tasks) = self.live_tasks {
            problems.within("auth.limits.live_tasks", tasks, 1, u64::MAX);
        }
        if let Some(bytes) = self.live_payload_bytes {
            let payload = ByteSize(crate::model::limits::PAYLOAD_BYTES_MAX as u64);
            problems.within("auth.limits.live_payload_bytes", bytes, payload, ByteSize(1 << 40));
        }
        if let Some(streams) = self.open_streams {
            problems.within("auth.limits.open_streams", streams, 1, 1_000_000);
        }
    }
}

fn must(field: &str, text: &str, problems: &mut Problems) {
    if text.is_empty() {
        problems.add(field, "", "must be given");
    }
}

fn check_grant(path: &str, role: &str, namespaces: &[String], problems: &mut Problems) {
    if let Err(error) = Grant::parse(role, namespaces) {
        problems.add(path, "", error);
    }
}
