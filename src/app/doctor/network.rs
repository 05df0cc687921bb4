//! Whether callers can be served: certificates, keys and tokens that can be used, and addresses that are free.

use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::config::Config;

use super::super::{admin_ports, security};
use super::report::Finding;

/// `scrapes`: host and port where `/metrics` is shown besides. `in_use`: a server uses the store; then the
/// addresses are probably its own.
pub(super) fn examine(config: &Config, scrapes: Option<&(String, u16)>, in_use: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    match security::open(config) {
        Err(error) => {
            let advice = "a server would not start: correct the paths of [tls] and [auth], or what the files hold";
            findings.push(Finding::bad("security", error.to_string()).advise(advice));
        }
        Ok(_) => findings.extend(guarded(config)),
    }
    if !in_use {
        let second = config.server.health_listen;
        let free = |address: SocketAddr| TcpListener::bind(address).map_err(|error| (address.to_string(), error));
        findings.extend(taken("server.listen", free(config.server.listen)));
        findings.extend(second.and_then(|address| taken("server.health_listen", free(address))));
        let setting = "OTEL_EXPORTER_PROMETHEUS_HOST or OTEL_EXPORTER_PROMETHEUS_PORT, or what OTEL_CONFIG_FILE says";
        findings.extend(scrapes.and_then(|(host, port)| taken(setting, admin_ports::bind(host, *port))));
    }
    findings
}

/// What is said of guards that can be used.
fn guarded(config: &Config) -> Option<Finding> {
    let (tls, auth) = (config.tls.certificate.is_some(), config.auth.on());
    let beyond = !config.server.listen.ip().to_canonical().is_loopback();
    match (tls, auth) {
        (true, true) => Some(Finding::well("security", "certificates and tokens can be used")),
        (true, false) => Some(Finding::well("security", "certificates can be used")),
        (false, true) if beyond => {
            let text = "tokens can be used, but travel in the clear";
            let advice = "set [tls], or make sure that the network is private";
            Some(Finding::doubtful("security", text).advise(advice))
        }
        (false, true) => Some(Finding::well("security", "tokens can be used")),
        (false, false) => None,
    }
}

/// `bound`: what came of listening there; the error is with its address.
fn taken<T>(setting: &str, bound: Result<T, (String, io::Error)>) -> Option<Finding> {
    let (address, error) = bound.err()?;
    let text = format!("{address} cannot be listened on: {error}");
    let advice = format!("end the program that listens there (ss -ltnp), or choose another {setting}");
    Some(Finding::bad("listen", text).advise(advice))
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;

    #[test]
    fn an_address_that_is_taken_is_told_unless_it_is_the_servers_own() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = Config::default();
        config.server.listen = other.local_addr().unwrap();
        let findings = examine(&config, None, false);
        assert!(findings[0].state == State::Fail && findings[0].text.contains("cannot be listened on"), "{findings:?}");
        assert!(examine(&config, None, true).is_empty());
        config.server.listen = ([127, 0, 0, 1], 0).into();
        let scrapes = ("localhost".to_owned(), other.local_addr().unwrap().port());
        let findings = examine(&config, Some(&scrapes), false);
        assert!(findings[0].text.contains("cannot be listened on"), "{findings:?}");
        assert!(examine(&config, Some(&("localhost".to_owned(), 0)), false).is_empty());
    }

    #[test]
    fn a_certificate_that_is_not_there_is_told() {
        let mut config = Config::default();
        config.server.listen = ([127, 0, 0, 1], 0).into();
        (config.tls.certificate, config.tls.key) = (Some("/nosuch.pem".into()), Some("/nosuch.key".into()));
        let findings = examine(&config, None, false);
        assert!(findings[0].state == State::Fail && findings[0].text.contains("/nosuch.pem"), "{findings:?}");
    }
}
