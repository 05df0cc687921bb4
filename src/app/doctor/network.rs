//! Whether the server can accept callers: usable certificates, keys and tokens, and free addresses.

use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::config::Config;

use super::super::{admin_ports, security};
use super::report::Finding;

/// `prometheus`: host and port of the port for Prometheus. `in_use`: a server is using the store, so the
/// addresses are probably in use by that server and are not checked.
pub(super) async fn check(config: &Config, prometheus: Option<&(String, u16)>, in_use: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    match security::open(config) {
        Err(error) => {
            let advice =
                "the server would not start; correct the paths in [tls] and [auth], or the contents of the files";
            findings.push(Finding::failure("security", error.to_string()).with_advice(advice));
        }
        Ok(security) => {
            findings.extend(security_summary(config));
            findings.extend(key_set(security.fetch_keys().await));
        }
    }
    if !in_use {
        let bind = |address: SocketAddr| TcpListener::bind(address).map_err(|error| (address.to_string(), error));
        findings.extend(bind_failure("server.listen", bind(config.server.listen)));
        let health = config.server.health_listen;
        findings.extend(health.and_then(|address| bind_failure("server.health_listen", bind(address))));
        let setting = "OTEL_EXPORTER_PROMETHEUS_HOST or OTEL_EXPORTER_PROMETHEUS_PORT";
        findings.extend(prometheus.and_then(|(host, port)| bind_failure(setting, admin_ports::bind(host, *port))));
    }
    findings
}

/// Names the files that have been read.
fn security_summary(config: &Config) -> Option<Finding> {
    let (tls, auth) = (&config.tls, &config.auth);
    let jwt = auth.jwt.as_ref();
    let read: Vec<_> = [
        ("certificate and key", tls.certificate.is_some()),
        ("client CA", tls.client_ca.is_some()),
        ("revocation list", tls.client_crl.is_some()),
        ("token file", auth.tokens_file.is_some()),
        ("JWT key file", jwt.is_some_and(|jwt| jwt.keys_file.is_some())),
        ("CA of the JWT keys", jwt.is_some_and(|jwt| jwt.jwks_ca.is_some())),
    ]
    .into_iter()
    .filter_map(|(name, is_set)| is_set.then_some(name))
    .collect();
    let text = format!("readable and valid: {}", read.join(", "));
    let public = !config.server.listen.ip().to_canonical().is_loopback();
    if public && auth.on() && tls.certificate.is_none() {
        let text = format!("{text}; tokens are sent unencrypted");
        let advice = "set [tls], or make sure that the network is private";
        return Some(Finding::warning("security", text).with_advice(advice));
    }
    (!read.is_empty()).then(|| Finding::ok("security", text))
}

/// `fetched` is `None` if no keys are fetched.
fn key_set(fetched: Option<Result<usize, String>>) -> Option<Finding> {
    Some(match fetched? {
        Ok(count) => Finding::ok("security", format!("{count} JWT keys fetched from auth.jwt.jwks_url")),
        Err(error) => {
            let text = format!("failed to fetch the JWT keys: {error}");
            let advice =
                "the server would start, but refuse every JWT; correct auth.jwt.jwks_url or jwks_ca, or the network";
            Finding::warning("security", text).with_advice(advice)
        }
    })
}

/// `bound` is the result of listening there, with the address in the error.
fn bind_failure<T>(setting: &str, bound: Result<T, (String, io::Error)>) -> Option<Finding> {
    let (address, error) = bound.err()?;
    let text = format!("failed to listen on {address}: {error}");
    let advice = format!("stop the program that listens there (find it with ss -ltnp), or choose another {setting}");
    Some(Finding::failure("listen", text).with_advice(advice))
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;

    #[tokio::test]
    async fn an_address_in_use_is_reported_unless_a_server_is_running() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = Config::default();
        config.server.listen = other.local_addr().unwrap();
        let findings = check(&config, None, false).await;
        assert!(findings[0].state == State::Fail && findings[0].text.contains("failed to listen on"), "{findings:?}");
        assert!(check(&config, None, true).await.is_empty());
        config.server.listen = ([127, 0, 0, 1], 0).into();
        let prometheus = ("localhost".to_owned(), other.local_addr().unwrap().port());
        let findings = check(&config, Some(&prometheus), false).await;
        assert!(findings[0].text.contains("failed to listen on"), "{findings:?}");
        assert!(check(&config, Some(&("localhost".to_owned(), 0)), false).await.is_empty());
    }

    #[tokio::test]
    async fn a_missing_certificate_is_reported() {
        let mut config = Config::default();
        config.server.listen = ([127, 0, 0, 1], 0).into();
        (config.tls.certificate, config.tls.key) = (Some("/nosuch.pem".into()), Some("/nosuch.key".into()));
        let findings = check(&config, None, false).await;
        assert!(findings[0].state == State::Fail && findings[0].text.contains("/nosuch.pem"), "{findings:?}");
    }
}
