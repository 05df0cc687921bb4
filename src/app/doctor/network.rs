//! Whether the server can accept callers: usable certificates, keys and tokens, and free addresses.

use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::config::Config;

use super::super::{admin_ports, security};
use super::report::Finding;

/// `prometheus`: host and port of the port for Prometheus. `in_use`: a server is using the store, so the
/// addresses are probably in use by that server and are not checked.
pub(super) fn check(config: &Config, prometheus: Option<&(String, u16)>, in_use: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    match security::open(config) {
        Err(error) => {
            let advice =
                "the server would not start; correct the paths in [tls] and [auth], or the contents of the files";
            findings.push(Finding::failure("security", error.to_string()).with_advice(advice));
        }
        Ok(_) => findings.extend(security_summary(config)),
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

/// Describes certificates and tokens that have been loaded.
fn security_summary(config: &Config) -> Option<Finding> {
    let (tls, auth) = (config.tls.certificate.is_some(), config.auth.on());
    let public = !config.server.listen.ip().to_canonical().is_loopback();
    match (tls, auth) {
        (true, true) => Some(Finding::ok("security", "certificates and tokens loaded")),
        (true, false) => Some(Finding::ok("security", "certificates loaded")),
        (false, true) if public => {
            let text = "tokens loaded, but sent unencrypted";
            let advice = "set [tls], or make sure that the network is private";
            Some(Finding::warning("security", text).with_advice(advice))
        }
        (false, true) => Some(Finding::ok("security", "tokens loaded")),
        (false, false) => None,
    }
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

    #[test]
    fn an_address_in_use_is_reported_unless_a_server_is_running() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = Config::default();
        config.server.listen = other.local_addr().unwrap();
        let findings = check(&config, None, false);
        assert!(findings[0].state == State::Fail && findings[0].text.contains("failed to listen on"), "{findings:?}");
        assert!(check(&config, None, true).is_empty());
        config.server.listen = ([127, 0, 0, 1], 0).into();
        let prometheus = ("localhost".to_owned(), other.local_addr().unwrap().port());
        let findings = check(&config, Some(&prometheus), false);
        assert!(findings[0].text.contains("failed to listen on"), "{findings:?}");
        assert!(check(&config, Some(&("localhost".to_owned(), 0)), false).is_empty());
    }

    #[test]
    fn a_missing_certificate_is_reported() {
        let mut config = Config::default();
        config.server.listen = ([127, 0, 0, 1], 0).into();
        (config.tls.certificate, config.tls.key) = (Some("/nosuch.pem".into()), Some("/nosuch.key".into()));
        let findings = check(&config, None, false);
        assert!(findings[0].state == State::Fail && findings[0].text.contains("/nosuch.pem"), "{findings:?}");
    }
}
