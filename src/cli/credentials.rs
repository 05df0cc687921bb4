//! The caller's token and certificate, and the CA of the server's certificate.

use std::path::{Path, PathBuf};

use clap::Args;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::error::CliError;
use crate::model::Secret;

/// Help heading of the options that describe the connection.
pub const CONNECTION: &str = "Connection";

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = CONNECTION)]
pub struct Credentials {
    /// API key or JWT. Other users of this machine can see it in the process list; prefer --token-file
    #[arg(long, global = true, env = "LINESHAFT_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<Secret>,
    /// File with the API key or JWT
    #[arg(long, global = true, env = "LINESHAFT_TOKEN_FILE", value_name = "PATH")]
    token_file: Option<PathBuf>,
    /// CA of the server's certificate (PEM) [default: the system's CAs]
    #[arg(long, global = true, env = "LINESHAFT_TLS_CA", value_name = "PATH")]
    tls_ca: Option<PathBuf>,
    /// Client certificate (PEM); requires --tls-key
    #[arg(long, global = true, env = "LINESHAFT_TLS_CERT", value_name = "PATH", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of the client certificate (PEM); requires --tls-cert
    #[arg(long, global = true, env = "LINESHAFT_TLS_KEY", value_name = "PATH", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

impl Credentials {
    /// Whether an option was given that only makes sense with TLS.
    pub fn require_tls(&self) -> bool {
        self.tls_ca.is_some() || self.tls_cert.is_some()
    }

    /// The value of the `authorization` header.
    pub fn bearer(&self) -> Result<Option<MetadataValue<Ascii>>, CliError> {
        let text = match (&self.token, &self.token_file) {
            (Some(token), _) => token.reveal().to_owned(),
            (None, Some(path)) => String::from_utf8_lossy(&read("--token-file", path)?).into_owned(),
            (None, None) => return Ok(None),
        };
        let text = text.trim();
        let header = MetadataValue::try_from(format!("Bearer {text}")).ok().filter(|_| !text.is_empty());
        let mut header =
            header.ok_or_else(|| CliError::Usage("the token is empty or has more than one line".to_owned()))?;
        header.set_sensitive(true);
        Ok(Some(header))
    }

    pub fn tls(&self) -> Result<ClientTlsConfig, CliError> {
        let mut config = ClientTlsConfig::new();
        config = match &self.tls_ca {
            Some(path) => {
                let pem = read("--tls-ca", path)?;
                let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
                if certificates.as_ref().map_or(true, Vec::is_empty) {
                    let text = format!("--tls-ca {}: has no certificate in PEM format", path.display());
                    return Err(CliError::Usage(text));
                }
                config.ca_certificate(Certificate::from_pem(pem))
            }
            None => config.with_native_roots(),
        };
        if let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) {
            let identity = Identity::from_pem(read("--tls-cert", certificate)?, read("--tls-key", key)?);
            config = config.identity(identity);
        }
        Ok(config)
    }
}

fn read(flag: &str, path: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(path).map_err(|error| CliError::Usage(format!("{flag} {}: {error}", path.display())))
}
