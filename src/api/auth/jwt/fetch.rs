//! Fetches a key set over HTTP.

use std::path::Path;
use std::time::Duration;

use ureq::tls::{Certificate, RootCerts, TlsConfig};

const KEY_SET_BYTES_MAX: u64 = 1 << 20;
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// The certificate of a CA.
pub fn root(pem: &[u8]) -> Result<Certificate<'static>, String> {
    Certificate::from_pem(pem).map_err(|error| error.to_string())
}

/// Gets the text at a URL. Blocks.
pub fn get(url: &str, ca: Option<&Path>) -> Result<String, String> {
    let mut tls = TlsConfig::builder();
    if let Some(path) = ca {
        let pem = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let root = root(&pem).map_err(|error| format!("{}: {error}", path.display()))?;
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
