//! Public keys for signatures, from a JWK set (RFC 7517) or a PEM file.

use std::str::FromStr;

use jsonwebtoken::jwk::{AlgorithmParameters, CommonParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::RSAPublicKey;

/// Keys of one set; further keys are ignored.
const KEYS_MAX: usize = 64;
/// The smallest RSA key of RFC 7518, section 3.3.
const RSA_BITS_MIN: usize = 2_048;

/// A public key of the issuer.
pub struct PublicKey {
    id: Option<String>,
    /// The algorithms whose signatures the key may verify.
    algorithms: Vec<Algorithm>,
    pub key: DecodingKey,
    /// Cancelled when tokens that this key has verified may no longer be valid, because a new set does not contain the
    /// key, or restricts it further.
    pub removed: CancellationToken,
}

impl PublicKey {
    /// Whether the key may verify tokens with this header. A token or a key without an id matches any.
    pub fn accepts(&self, id: Option<&String>, algorithm: Algorithm) -> bool {
        (id.is_none() || self.id.is_none() || self.id.as_ref() == id) && self.algorithms.contains(&algorithm)
    }

    /// Whether this key verifies every token that the other one verifies.
    fn includes(&self, other: &Self) -> bool {
        (self.id.is_none() || self.id == other.id)
            && other.algorithms.iter().all(|algorithm| self.algorithms.contains(algorithm))
            && material(&self.key) == material(&other.key)
    }
}

/// Replaces a set of keys. Cancels the keys that the new set does not include; those that it does stay valid.
pub fn replace(old: &[PublicKey], new: &mut [PublicKey]) {
    let mut successors: Vec<&mut PublicKey> = new.iter_mut().collect();
    for key in old {
        // Each key succeeds one other only, since it has one token to cancel.
        match successors.iter().position(|new| new.includes(key)) {
            Some(index) => successors.swap_remove(index).removed = key.removed.clone(),
            None => key.removed.cancel(),
        }
    }
}

/// The keys of a JWK set or of a PEM file.
///
/// # Errors
/// A text for the log, without the content of the file.
pub fn parse(text: &str) -> Result<Vec<PublicKey>, String> {
    if text.contains("-----BEGIN") {
        if text.contains("PRIVATE KEY") {
            return Err("contains a private key; use a file with the public key only".to_owned());
        }
        return pem_key(text.as_bytes()).map(|key| vec![key]);
    }
    let set: Value = serde_json::from_str(text).map_err(|_| "neither a JWK set nor PEM".to_owned())?;
    let all = set.get("keys").and_then(Value::as_array).ok_or("no list `keys`")?;
    // Keys for other purposes are ignored: other users of the set may need them.
    let keys: Vec<PublicKey> = all.iter().filter_map(set_key).take(KEYS_MAX).collect();
    if keys.is_empty() { Err("no public key for signatures".to_owned()) } else { Ok(keys) }
}

fn pem_key(pem: &[u8]) -> Result<PublicKey, String> {
    let key = DecodingKey::from_rsa_pem(pem)
        .or_else(|_| DecodingKey::from_ec_pem(pem))
        .or_else(|_| DecodingKey::from_ed_pem(pem))
        .map_err(|_| "no RSA, EC or Ed25519 public key in PEM".to_owned())?;
    let key = with_components(key).ok_or("no RSA public key in PEM")?;
    let algorithms = algorithms(&key);
    if algorithms.is_empty() {
        return Err(format!("the public key is not RSA with at least {RSA_BITS_MIN} bits, P-256, P-384 or Ed25519"));
    }
    Ok(PublicKey { id: None, algorithms, key, removed: CancellationToken::new() })
}

fn set_key(value: &Value) -> Option<PublicKey> {
    let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    if !verifies(&jwk.common) || !is_curve_of(&jwk.algorithm, &key) {
        return None;
    }
    let mut algorithms = algorithms(&key);
    if let Some(only) = jwk.common.key_algorithm {
        let only = Algorithm::from_str(&only.to_string()).ok()?;
        algorithms.retain(|algorithm| *algorithm == only);
    }
    let key = PublicKey { id: jwk.common.key_id, algorithms, key, removed: CancellationToken::new() };
    (!key.algorithms.is_empty()).then_some(key)
}

/// Whether `use` and `key_ops` allow to verify signatures.
fn verifies(jwk: &CommonParameters) -> bool {
    matches!(jwk.public_key_use, None | Some(PublicKeyUse::Signature))
        && jwk.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify))
}

/// Whether `crv` is the curve of the key's bytes.
fn is_curve_of(parameters: &AlgorithmParameters, key: &DecodingKey) -> bool {
    let algorithm = algorithms(key).first().copied();
    match parameters {
        AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
            EllipticCurve::P256 => algorithm == Some(Algorithm::ES256),
            EllipticCurve::P384 => algorithm == Some(Algorithm::ES384),
            _ => false,
        },
        AlgorithmParameters::OctetKeyPair(pair) => pair.curve == EllipticCurve::Ed25519,
        _ => true,
    }
}

/// The algorithms that fit the kind and the size of a key; none if the key is too short or a shared secret.
fn algorithms(key: &DecodingKey) -> Vec<Algorithm> {
    match (key.family(), key.kind()) {
        (AlgorithmFamily::Rsa, DecodingKeyKind::RsaModulusExponent { n, .. }) if bits(n) >= RSA_BITS_MIN => {
            AlgorithmFamily::Rsa.algorithms().to_vec()
        }
        // An uncompressed point: one byte and two coordinates.
        (AlgorithmFamily::Ec, DecodingKeyKind::SecretOrDer(point)) => match point.len() {
            65 => vec![Algorithm::ES256],
            97 => vec![Algorithm::ES384],
            _ => Vec::new(),
        },
        (AlgorithmFamily::Ed, DecodingKeyKind::SecretOrDer(point)) if point.len() == 32 => vec![Algorithm::EdDSA],
        _ => Vec::new(),
    }
}

fn bits(modulus: &[u8]) -> usize {
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let leading = modulus.get(zeros).map_or(0, |byte| byte.leading_zeros() as usize);
    (modulus.len() - zeros) * 8 - leading
}

/// An RSA key of a PEM file in the form of a JWK, so that both are compared.
fn with_components(key: DecodingKey) -> Option<DecodingKey> {
    let (AlgorithmFamily::Rsa, DecodingKeyKind::SecretOrDer(der)) = (key.family(), key.kind()) else {
        return Some(key);
    };
    let (_, rsa) = RSAPublicKey::from_der(der).ok()?;
    Some(DecodingKey::from_rsa_raw_components(without_zeros(rsa.modulus), without_zeros(rsa.exponent)))
}

/// A number as a JWK has it: without leading zeros.
fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// The bytes that make a key what it is.
fn material(key: &DecodingKey) -> (&[u8], &[u8]) {
    match key.kind() {
        DecodingKeyKind::SecretOrDer(bytes) => (bytes, &[]),
        DecodingKeyKind::RsaModulusExponent { n, e } => (n, e),
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::*;

    fn rsa(bytes: usize, more: &Value) -> Value {
        let mut key = json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode(vec![0xff; bytes]), "e": "AQAB"});
        key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        key
    }

    fn usable(key: Value) -> Vec<Algorithm> {
        parse(&json!({"keys": [key]}).to_string()).map_or_else(|_| Vec::new(), |mut keys| keys.remove(0).algorithms)
    }

    #[test]
    fn a_key_verifies_only_if_use_key_ops_and_alg_allow_it() {
        assert_eq!(usable(rsa(256, &json!({}))).len(), 6);
        assert_eq!(usable(rsa(256, &json!({"use": "sig", "key_ops": ["verify"]}))).len(), 6);
        assert_eq!(usable(rsa(256, &json!({"alg": "PS384"}))), [Algorithm::PS384]);
        for other in [
            json!({"use": "enc"}),
            json!({"key_ops": ["encrypt"]}),
            json!({"key_ops": []}),
            json!({"use": "sig", "key_ops": ["wrapKey"]}),
            json!({"alg": "RSA-OAEP"}),
            json!({"alg": "ES256"}),
            json!({"alg": "none"}),
        ] {
            assert_eq!(usable(rsa(256, &other)), [], "{other}");
        }
    }

    #[test]
    fn an_rsa_key_below_2048_bits_is_not_used() {
        assert_eq!(usable(rsa(255, &json!({}))), []);
        assert_eq!(usable(rsa(128, &json!({}))), []);
    }

    #[test]
    fn the_curve_must_be_that_of_the_algorithm() {
        let point = |bytes: usize| URL_SAFE_NO_PAD.encode(vec![7; bytes]);
        let ec = |curve: &str, bytes| json!({"kty": "EC", "crv": curve, "x": point(bytes), "y": point(bytes)});
        assert_eq!(usable(ec("P-256", 32)), [Algorithm::ES256]);
        assert_eq!(usable(ec("P-384", 48)), [Algorithm::ES384]);
        assert_eq!((usable(ec("P-384", 32)), usable(ec("P-521", 66))), (vec![], vec![]));
        let pair = |curve: &str| json!({"kty": "OKP", "crv": curve, "x": point(32)});
        assert_eq!(usable(pair("Ed25519")), [Algorithm::EdDSA]);
        assert_eq!((usable(pair("X25519")), usable(pair("P-256"))), (vec![], vec![]));
    }

    #[test]
    fn only_keys_that_are_removed_or_restricted_are_cancelled() {
        let keys = |keys: Value| parse(&json!({ "keys": keys }).to_string()).unwrap();
        let replaced = |old: Value, new: Value| {
            let (old, mut new) = (keys(json!([old])), keys(new));
            replace(&old, &mut new);
            old[0].removed.is_cancelled()
        };
        let key = |more: Value| rsa(256, &more);
        let named = || key(json!({"kid": "a"}));
        assert!(!replaced(named(), json!([rsa(512, &json!({"kid": "b"})), key(json!({"kid": "a", "use": "sig"}))])));
        assert!(!replaced(named(), json!([key(json!({}))])), "a key without an id verifies the same tokens and more");
        assert!(replaced(named(), json!([rsa(512, &json!({"kid": "a"}))])), "another key of the same name");
        assert!(replaced(named(), json!([key(json!({"kid": "b"}))])));
        assert!(replaced(named(), json!([key(json!({"kid": "a", "alg": "RS256"}))])));
    }
}
