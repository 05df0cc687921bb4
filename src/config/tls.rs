//! Section `[tls]`.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::Problems;
use super::units::HumanDuration;

/// `[tls]`: TLS is on if `certificate` is set. The files are reloaded when they change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM file with the server's certificate, followed by intermediate certificates. Default: no TLS.
    pub certificate: Option<PathBuf>,
    /// PEM file with the private key of the certificate. Required with `certificate`.
    pub key: Option<PathBuf>,
    /// PEM file with the CAs of client certificates. Default: no client certificates.
    pub client_ca: Option<PathBuf>,
    /// PEM file with one revocation list (CRL) for each of those CAs. Revoked certificates, and those of a CA without a
    /// list, are refused, and their open connections are closed. Default: no check for revocation.
    pub client_crl: Option<PathBuf>,
    /// With `client_ca`: whether clients need a certificate, "required" or "optional". Default: "required".
    pub client_certificate: ClientCertificate,
    /// Time limit for a TLS handshake, including the wait for a free handshake slot, 100ms to 5m. Default: 10s.
    pub handshake_timeout: HumanDuration,
    /// Maximum number of concurrent TLS handshakes, 1 to 100,000; further connections wait. Default: 128.
    pub max_handshakes: usize,
}

/// Whether clients need a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificate {
    /// Clients without a certificate are refused.
    #[default]
    Required,
    /// Clients without a certificate can use a token.
    Optional,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            certificate: None,
            key: None,
            client_ca: None,
            client_crl: None,
            client_certificate: ClientCertificate::default(),
            handshake_timeout: HumanDuration(Duration::from_secs(10)),
            max_handshakes: 128,
        }
    }
}

impl Tls {
    pub(super) fn check(&self, problems: &mut Problems) {
        if self.certificate.is_some() != self.key.is_some() {
            let (given, missing) = if self.key.is_some() { ("key", "certificate") } else { ("certificate", "key") };
            problems.add(format!("tls.{missing}"), "", format!("is required because tls.{given} is set"));
        }
        if self.client_ca.is_some() && self.certificate.is_none() {
            problems.add("tls.client_ca", "", "requires tls.certificate and tls.key, because TLS is off without them");
        }
        if self.client_crl.is_some() && self.client_ca.is_none() {
            problems.add(
                "tls.client_crl",
                "",
                "requires tls.client_ca, because without it there are no client certificates",
            );
        }
        let (min, max) = (HumanDuration(Duration::from_millis(100)), HumanDuration(Duration::from_mins(5)));
        problems.check_range("tls.handshake_timeout", self.handshake_timeout, min, max);
        problems.check_range("tls.max_handshakes", self.max_handshakes, 1, 100_000);
    }
}
