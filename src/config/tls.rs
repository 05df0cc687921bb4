//! Settings of TLS.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::Problems;
use super::units::HumanDuration;

/// `[tls]`: private connections. On when there is a certificate; files are read again when they change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// File with the server's certificate and those between it and its CA, PEM. Default: no TLS.
    pub certificate: Option<PathBuf>,
    /// File with the certificate's private key, PEM. Must be given with it.
    pub key: Option<PathBuf>,
    /// File with the CAs of client certificates, PEM. Default: clients are asked for none.
    pub client_ca: Option<PathBuf>,
    /// File with the revocation lists (CRL) of those CAs, PEM, one of each: who is on them, or of a CA without one,
    /// is refused, and open connections are cut. Default: nobody is asked for.
    pub client_crl: Option<PathBuf>,
    /// With client_ca: whether clients need a certificate. Default "required".
    pub client_certificate: ClientCertificate,
    /// Time that a handshake may take, its wait for a turn included, 100ms to 5m. Default 10s.
    pub handshake_timeout: HumanDuration,
    /// Handshakes at a time; more wait, 1 to 100,000. Default 128.
    pub max_handshakes: usize,
}

/// Whether clients need a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificate {
    /// Who has none is refused.
    #[default]
    Required,
    /// Who has none may have a token.
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
            problems.add(format!("tls.{missing}"), "", format!("must be given with tls.{given}"));
        }
        if self.client_ca.is_some() && self.certificate.is_none() {
            problems.add("tls.client_ca", "", "needs tls.certificate and tls.key: there is no TLS without them");
        }
        if self.client_crl.is_some() && self.client_ca.is_none() {
            problems.add("tls.client_crl", "", "needs tls.client_ca: without it no client has a certificate");
        }
        let bounds = (HumanDuration(Duration::from_millis(100)), HumanDuration(Duration::from_mins(5)));
        problems.within("tls.handshake_timeout", self.handshake_timeout, bounds.0, bounds.1);
        problems.within("tls.max_handshakes", self.max_handshakes, 1, 100_000);
    }
}
