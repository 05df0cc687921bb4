//! Section `[auth]`.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{Grant, RoleNames, SecretUrl};

use super::error::{Problems, check_not_masked};
use super::units::{ByteSize, HumanDuration};

/// `[auth]`: authentication is on if `tokens_file`, `[auth.jwt]` or an `[[auth.certificate]]` is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// File of API keys, created by `lineshaft token create`; reloaded when it changes. Default: none.
    pub tokens_file: Option<PathBuf>,
    /// Accepted JWTs. Default: none.
    pub jwt: Option<Jwt>,
    /// Roles of client certificates; the first match applies. Default: none.
    #[serde(rename = "certificate")]
    pub certificates: Vec<Certificate>,
    /// Limits for each identity.
    pub limits: AuthLimits,
}

/// `[auth.jwt]`: tokens of an identity provider.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Jwt {
    /// Value that the claim `iss` must have. Required.
    pub issuer: String,
    /// Value that the claim `aud` must have. Required.
    pub audience: String,
    /// File with the public keys: a JWK set, or one PEM key; reloaded when it changes. Either this or `jwks_url` is
    /// required.
    pub keys_file: Option<PathBuf>,
    /// https URL of the JWK set; fetched every 5 minutes, and when a token names an unknown key.
    pub jwks_url: Option<SecretUrl>,
    /// With `jwks_url`: PEM file with the CA of that server. Default: the public CAs.
    pub jwks_ca: Option<PathBuf>,
    /// Accepted signature algorithms. Default: RS256, ES256 and EdDSA.
    pub algorithms: Vec<JwtAlgorithm>,
    /// Accepted difference between the clocks of the issuer and of this server, 0 to 10m. Default: 30s.
    pub leeway: HumanDuration,
    /// Roles by claim; all matches apply. At least one is required.
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

/// Signature algorithm of a JWT. Algorithms with a shared secret are not supported.
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

/// `[[auth.jwt.grant]]`: the role that a claim grants.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClaimGrant {
    /// Name of the claim; dots select a field of an object, such as "realm_access.roles". Required.
    pub claim: String,
    /// Value to match: the claim itself, an item of a list, or a word of a space-separated string. Required.
    pub value: String,
    /// Granted role: "viewer", "submitter", "worker", "operator" or "admin"; a list for several. Required.
    pub role: RoleNames,
    /// Namespaces in which the role applies; "*" means all. Required.
    pub namespaces: Vec<String>,
    /// For role = "worker": handlers that the worker may offer. Default: all.
    pub handlers: Vec<String>,
}

/// `[[auth.certificate]]`: the role of a client certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Certificate {
    /// Alternative name (DNS, URI, e-mail) of the certificate; "*" matches all of the CA that have one. Required.
    pub subject: String,
    /// Granted role: "viewer", "submitter", "worker", "operator" or "admin"; a list for several. Required.
    pub role: RoleNames,
    /// Namespaces in which the role applies; "*" means all. Required.
    pub namespaces: Vec<String>,
    /// For role = "worker": handlers that the worker may offer. Default: all.
    pub handlers: Vec<String>,
}

/// `[auth.limits]`: limits for each identity. A call that exceeds one fails with QUOTA_EXCEEDED and a retry delay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuthLimits {
    /// Submitted tasks per second on average, 1 to 1,000,000. Default: no limit.
    pub submit_rate: Option<u32>,
    /// With `submit_rate`: tasks submitted at once, for example in a batch, 1 to 10,000,000. Default: 10 seconds' worth.
    pub submit_burst: Option<u32>,
    /// Unfinished tasks, at least 1. Default: no limit.
    pub live_tasks: Option<u64>,
    /// Total payload size of the unfinished tasks, 1MiB to 1TiB. Default: no limit.
    pub live_payload_bytes: Option<ByteSize>,
    /// Open watches, waits and streams, 1 to 1,000,000. Default: no limit.
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
                problems.add(&path, "", "requires tls.client_ca, because without it there are no client certificates");
            }
            check_present(&format!("{path}.subject"), &certificate.subject, problems);
            check_grant(&path, certificate.grant(), problems);
        }
        self.limits.check(problems);
    }
}

impl Jwt {
    fn check(&self, problems: &mut Problems) {
        check_present("auth.jwt.issuer", &self.issuer, problems);
        check_present("auth.jwt.audience", &self.audience, problems);
        if self.keys_file.is_some() == self.jwks_url.is_some() {
            problems.add("auth.jwt", "", "must have either keys_file or jwks_url");
        }
        if let Some(url) = &self.jwks_url {
            // Keys that are changed in transit would let an attacker sign tokens.
            let loopback = ["http://127.0.0.1:", "http://[::1]:", "http://localhost:"];
            let text = url.reveal();
            if !text.starts_with("https://") && !loopback.iter().any(|start| text.starts_with(start)) {
                problems.add(
                    "auth.jwt.jwks_url",
                    format!("{url:?}"),
                    "must be an https URL; http is allowed for loopback addresses only",
                );
            }
        }
        check_not_masked("auth.jwt.jwks_url", self.jwks_url.as_ref(), problems);
        if self.jwks_ca.is_some() && self.jwks_url.is_none() {
            problems.add("auth.jwt.jwks_ca", "", "requires auth.jwt.jwks_url");
        }
        if self.algorithms.is_empty() {
            problems.add("auth.jwt.algorithms", "[]", "must contain at least one algorithm");
        }
        problems.check_range(
            "auth.jwt.leeway",
            self.leeway,
            HumanDuration::default(),
            HumanDuration(Duration::from_mins(10)),
        );
        if self.grants.is_empty() {
            problems.add(
                "auth.jwt.grant",
                "",
                "requires at least one, because a token without a grant has no permissions",
            );
        }
        for (index, grant) in self.grants.iter().enumerate() {
            let path = format!("auth.jwt.grant[{index}]");
            check_present(&format!("{path}.claim"), &grant.claim, problems);
            check_present(&format!("{path}.value"), &grant.value, problems);
            check_grant(&path, grant.grant(), problems);
        }
    }
}

impl ClaimGrant {
    /// # Errors
    /// Names the invalid value and the valid ones.
    pub fn grant(&self) -> Result<Grant, String> {
        Grant::parse(&self.role, &self.namespaces)?.for_handlers(&self.handlers)
    }
}

impl Certificate {
    /// # Errors
    /// Names the invalid value and the valid ones.
    pub fn grant(&self) -> Result<Grant, String> {
        Grant::parse(&self.role, &self.namespaces)?.for_handlers(&self.handlers)
    }
}

impl AuthLimits {
    fn check(&self, problems: &mut Problems) {
        if let Some(rate) = self.submit_rate {
            problems.check_range("auth.limits.submit_rate", rate, 1, 1_000_000);
        }
        if let Some(burst) = self.submit_burst {
            problems.check_range("auth.limits.submit_burst", burst, 1, 10_000_000);
            if self.submit_rate.is_none() {
                problems.add("auth.limits.submit_burst", burst, "requires auth.limits.submit_rate");
            }
        }
        if let Some(tasks) = self.live_tasks {
            problems.check_range("auth.limits.live_tasks", tasks, 1, u64::MAX);
        }
        if let Some(bytes) = self.live_payload_bytes {
            let payload = ByteSize(*crate::model::limits::PayloadLimit::RANGE.start() as u64);
            problems.check_range("auth.limits.live_payload_bytes", bytes, payload, ByteSize(1 << 40));
        }
        if let Some(streams) = self.open_streams {
            problems.check_range("auth.limits.open_streams", streams, 1, 1_000_000);
        }
    }
}

fn check_present(field: &str, text: &str, problems: &mut Problems) {
    if text.is_empty() {
        problems.add(field, "", "is required");
    }
}

fn check_grant(path: &str, grant: Result<Grant, String>, problems: &mut Problems) {
    if let Err(error) = grant {
        problems.add(path, "", error);
    }
}
