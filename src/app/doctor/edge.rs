//! Whether callers can be served: certificates, keys and tokens that can be used, and addresses that are free.

use std::net::{SocketAddr, TcpListener};

use crate::config::Config;

use super::super::security;
use super::report::Finding;

/// `in_use`: a server uses the store; then the addresses are probably its own.
pub(super) fn examine(config: &Config, in_use: bool) -> Vec<Finding> {
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
        findings.extend(taken("server.listen", config.server.listen));
        findings.extend(second.and_then(|address| taken("server.health_listen", address)));
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

fn taken(setting: &str, address: SocketAddr) -> Option<Finding> {
    let error = TcpListener::bind(address).err()?;
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
        let findings = examine(&config, false);
        assert!(findings[0].state == State::Fail && findings[0].text.contains("cannot be listened on"), "{findings:?}");
        assert!(examine(&config, true).is_empty());
    }

    #[test]
    fn a_certificate_that_is_not_there_is_told() {
        let mut config = Config::default();
        config.server.listen = ([127, 0, 0, 1], 0).into();
        (config.tls.certificate, config.tls.key) = (Some("/nosuch.pem".into()), Some("/nosuch.key".into()));
        let findings = examine(&config, false);
        assert!(findings[0].state == State::Fail && findings[0].text.contains("/nosuch.pem"), "{findings:?}");
    }
}
