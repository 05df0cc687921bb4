//! The caller's token and certificate, and the CA of the server's certificate.

use std::path::{Path, PathBuf};

use clap::Args;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::contexts::Context;
use super::error::CliError;
use crate::client::ClientBuilder;
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
    /// Removes the values of other options.
    pub fn retain(&mut self, is_kept: impl Fn(&str) -> bool) {
        self.token.take_if(|_| !is_kept("token"));
        self.token_file.take_if(|_| !is_kept("token_file"));
        self.tls_ca.take_if(|_| !is_kept("tls_ca"));
        self.tls_cert.take_if(|_| !is_kept("tls_cert"));
        self.tls_key.take_if(|_| !is_kept("tls_key"));
    }

    /// The values of the context where there is none.
    #[must_use]
    pub fn or(self, context: Context) -> Self {
        Self {
            token: self.token,
            token_file: self.token_file.or(context.token_file),
            tls_ca: self.tls_ca.or(context.tls_ca),
            tls_cert: self.tls_cert.or(context.tls_cert),
            tls_key: self.tls_key.or(context.tls_key),
        }
    }

    /// A context with absolute paths, since commands run in other directories.
    pub fn into_context(self, server: String) -> Result<Context, CliError> {
        let absolute = |path: Option<PathBuf>| {
            let found = path.map(|path| std::path::absolute(&path)).transpose();
            found.map_err(|error| CliError::Usage(error.to_string()))
        };
        Ok(Context {
            server,
            token_file: absolute(self.token_file)?,
            tls_ca: absolute(self.tls_ca)?,
            tls_cert: absolute(self.tls_cert)?,
            tls_key: absolute(self.tls_key)?,
        })
    }

    /// Adds the token and the certificates.
    pub fn apply(&self, mut builder: ClientBuilder) -> Result<ClientBuilder, CliError> {
        if let Some(token) = &self.token {
            builder = builder.token(token.reveal());
        } else if let Some(path) = &self.token_file {
            builder = builder.token(String::from_utf8_lossy(&read("--token-file", path)?));
        }
        if let Some(path) = &self.tls_ca {
            let pem = read("--tls-ca", path)?;
            let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
            if certificates.as_ref().map_or(true, Vec::is_empty) {
                let text = format!("--tls-ca {}: has no certificate in PEM format", path.display());
                return Err(CliError::Usage(text));
            }
            builder = builder.ca_certificate(pem);
        }
        if let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) {
            builder = builder.identity(read("--tls-cert", certificate)?, read("--tls-key", key)?);
        }
        Ok(builder)
    }
}

fn read(flag: &str, path: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(path).map_err(|error| CliError::Usage(format!("{flag} {}: {error}", path.display())))
}
