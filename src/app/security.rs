//! Maps the configuration to TLS, authentication and connection limits.

use std::num::NonZeroU32;
use std::sync::Arc;

use crate::api::{
    Algorithm, AuthOptions, CertificateRule, ClaimRule, JwtOptions, KeySource, LimitOptions, Security, SecurityError,
    SecurityOptions, TlsOptions,
};
use crate::config::{Auth, ClientCertificate, Config, Jwt, JwtAlgorithm, Tls};
use crate::model::SystemClock;

/// Loads certificates, keys and tokens, and warns of settings that are allowed but unsafe.
pub fn open(config: &Config) -> Result<Security, SecurityError> {
    let (tls, auth) = (tls(&config.tls), config.auth.on().then(|| auth(&config.auth)));
    let public = !config.server.listen.ip().to_canonical().is_loopback();
    match (&auth, &tls) {
        (None, _) if public => tracing::warn!("[auth] is not set: anyone who can reach this server has full access"),
        (Some(_), None) if public => {
            tracing::warn!(
                "[tls] is not set: tokens are sent unencrypted; set it, or make sure that the network is private"
            );
        }
        _ => {}
    }
    let options = SecurityOptions {
        tls,
        auth,
        connections_max: config.server.max_connections,
        connections_per_address_max: config.server.max_connections_per_address,
    };
    Security::open(options, Arc::new(SystemClock))
}

fn tls(tls: &Tls) -> Option<TlsOptions> {
    Some(TlsOptions {
        certificate: tls.certificate.clone()?,
        key: tls.key.clone()?,
        client_ca: tls.client_ca.clone(),
        client_crl: tls.client_crl.clone(),
        client_required: tls.client_certificate == ClientCertificate::Required,
        handshake_timeout: tls.handshake_timeout.0,
        handshakes_max: tls.max_handshakes,
    })
}

fn auth(auth: &Auth) -> AuthOptions {
    let limits = &auth.limits;
    AuthOptions {
        tokens_file: auth.tokens_file.clone(),
        jwt: auth.jwt.as_ref().and_then(jwt),
        certificates: auth
            .certificates
            .iter()
            .filter_map(|rule| {
                // Validated when the configuration was loaded.
                let grant = rule.grant().ok()?;
                Some(CertificateRule { subject: rule.subject.clone(), grant })
            })
            .collect(),
        limits: LimitOptions {
            submit_rate: limits.submit_rate.and_then(NonZeroU32::new),
            submit_burst: limits.submit_burst.and_then(NonZeroU32::new),
            live_tasks: limits.live_tasks,
            live_payload_bytes: limits.live_payload_bytes.map(|size| size.0),
            open_streams: limits.open_streams,
        },
    }
}

fn jwt(jwt: &Jwt) -> Option<JwtOptions> {
    let keys = match (&jwt.keys_file, &jwt.jwks_url) {
        (Some(path), _) => KeySource::File(path.clone()),
        (None, Some(url)) => KeySource::Address { url: url.clone(), ca: jwt.jwks_ca.clone() },
        (None, None) => return None,
    };
    let rules = jwt.grants.iter().filter_map(|rule| {
        let grant = rule.grant().ok()?;
        Some(ClaimRule { claim: rule.claim.clone(), value: rule.value.clone(), grant })
    });
    Some(JwtOptions {
        keys,
        algorithms: jwt.algorithms.iter().map(|algorithm| jwt_algorithm(*algorithm)).collect(),
        issuer: jwt.issuer.clone(),
        audience: jwt.audience.clone(),
        leeway: jwt.leeway.0,
        rules: rules.collect(),
    })
}

fn jwt_algorithm(algorithm: JwtAlgorithm) -> Algorithm {
    match algorithm {
        JwtAlgorithm::Rs256 => Algorithm::RS256,
        JwtAlgorithm::Rs384 => Algorithm::RS384,
        JwtAlgorithm::Rs512 => Algorithm::RS512,
        JwtAlgorithm::Ps256 => Algorithm::PS256,
        JwtAlgorithm::Ps384 => Algorithm::PS384,
        JwtAlgorithm::Ps512 => Algorithm::PS512,
        JwtAlgorithm::Es256 => Algorithm::ES256,
        JwtAlgorithm::Es384 => Algorithm::ES384,
        JwtAlgorithm::EdDsa => Algorithm::EdDSA,
    }
}
