//! Tokens that somebody else signs, true and forged.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use lineshaft::proto::v1;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use tonic::Code;
use tonic_types::StatusExt;

use super::Known;
use super::tls::Authority;
use crate::support::{Server, TIMEOUT, noop, reason};

/// Somebody who signs.
struct Signer {
    id: &'static str,
    key: EncodingKey,
}

impl Signer {
    fn new(id: &'static str) -> Self {
        let pair = rcgen::KeyPair::generate().unwrap();
        Self { id, key: EncodingKey::from_ec_der(&pair.serialize_der()) }
    }

    fn public(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some(self.id.to_owned());
        serde_json::to_value(jwk).unwrap()
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.to_owned()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }
}

#[expect(clippy::disallowed_methods, reason = "tokens end by the clock of the machine")]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Claims of a member of team A.
fn claims(change: impl FnOnce(&mut Value)) -> Value {
    let mut claims = json!({
        "iss": "https://idp.example", "aud": "lineshaft", "sub": "alice", "exp": now() + 600,
        "groups": ["team-a-devs", "everybody"],
    });
    change(&mut claims);
    claims
}

const RULES: &str = r#"
issuer = "https://idp.example"
audience = "lineshaft"
leeway = "2s"
[[auth.jwt.grant]]
claim = "groups"
value = "team-a-devs"
role = "submitter"
namespaces = ["team-a"]
[[auth.jwt.grant]]
claim = "realm_access.roles"
value = "lineshaft-admin"
role = "admin"
namespaces = ["*"]
"#;

async fn greets(server: &Server, token: &str) -> Result<(), Code> {
    let known = Known::new(server, token);
    let answer = known.system().get_server_info(v1::GetServerInfoRequest::default()).await;
    answer.map(|_| ()).map_err(|status| status.code())
}

#[tokio::test]
async fn a_token_of_the_issuer_is_believed_and_every_forgery_is_not() {
    let (issuer, stranger) = (Signer::new("k1"), Signer::new("k1"));
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("jwks.json");
    let shared = json!({"kty": "oct", "k": "c2VjcmV0", "kid": "shared", "alg": "HS256"});
    std::fs::write(&keys, json!({"keys": [issuer.public(), shared]}).to_string()).unwrap();
    let server = Server::start(&format!("[auth.jwt]\nkeys_file = {keys:?}{RULES}"));
    let good = issuer.sign(&claims(|_| ()));
    let known = Known::new(&server, &good);
    let id = known.tasks().submit_task(noop()).await.unwrap().into_inner().task_id;
    let request = v1::GetTaskRequest { task_id: id, include_payload: false };
    let task = known.tasks().get_task(request).await.unwrap().into_inner().task.unwrap();
    assert_eq!((task.submitted_by.as_str(), task.namespace.as_str()), ("jwt:alice", "team-a"));
    let denied = known.tasks().delete_tasks(v1::DeleteTasksRequest::default()).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    let nested = issuer.sign(&claims(|claims| claims["realm_access"] = json!({"roles": ["lineshaft-admin"]})));
    Known::new(&server, &nested).system().get_system_health(v1::GetSystemHealthRequest {}).await.unwrap();

    let signed = |change: &dyn Fn(&mut Value)| issuer.sign(&claims(|claims| change(claims)));
    let [head, body, signature] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let other = issuer.sign(&claims(|claims| claims["sub"] = json!("root")));
    let other_body = other.split('.').nth(1).unwrap();
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    let hmac = |secret: &[u8], kid: &str| {
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, &claims(|_| ()), &EncodingKey::from_secret(secret)).unwrap()
    };
    let public = issuer.public()["x"].as_str().unwrap().to_owned();
    let forgeries = [
        ("another's signature", stranger.sign(&claims(|_| ()))),
        ("another's key id", Signer::new("k2").sign(&claims(|_| ()))),
        ("other claims", format!("{head}.{other_body}.{signature}")),
        ("no signature", format!("{head}.{body}.")),
        ("alg none", format!("{none}.{body}.")),
        ("alg none with a signature", format!("{none}.{body}.{signature}")),
        ("the public key as a secret", hmac(public.as_bytes(), "k1")),
        ("a shared secret", hmac(b"secret", "shared")),
        ("another issuer", signed(&|claims| claims["iss"] = json!("https://evil.example"))),
        ("another audience", signed(&|claims| claims["aud"] = json!("mail"))),
        ("no audience", signed(&|claims| _ = claims.as_object_mut().unwrap().remove("aud"))),
        ("no issuer", signed(&|claims| _ = claims.as_object_mut().unwrap().remove("iss"))),
        ("no subject", signed(&|claims| _ = claims.as_object_mut().unwrap().remove("sub"))),
        ("no end", signed(&|claims| _ = claims.as_object_mut().unwrap().remove("exp"))),
        ("over", signed(&|claims| claims["exp"] = json!(now() - 60))),
        ("not yet", signed(&|claims| claims["nbf"] = json!(now() + 60))),
        ("a subject of two lines", signed(&|claims| claims["sub"] = json!("a\nb"))),
        ("a subject that is no text", signed(&|claims| claims["sub"] = json!(7))),
        ("too long", signed(&|claims| claims["pad"] = json!("x".repeat(9_000)))),
    ];
    for (what, token) in forgeries {
        assert_eq!(greets(&server, &token).await, Err(Code::Unauthenticated), "{what}");
    }
    // Of the issuer, but of nobody who may do anything here.
    let foreign = signed(&|claims| claims["groups"] = json!(["everybody"]));
    assert_eq!(greets(&server, &foreign).await, Err(Code::PermissionDenied));
    let short = signed(&|claims| claims["exp"] = json!(now() + 1));
    assert_eq!(greets(&server, &short).await, Ok(()));
    let begun = Instant::now();
    while greets(&server, &short).await.is_ok() {
        assert!(begun.elapsed() < TIMEOUT, "it was verified once, and is believed for ever");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!server.log().contains(body), "a token is in the log");

    // Keys change with the file.
    std::fs::write(&keys, json!({"keys": [stranger.public()]}).to_string()).unwrap();
    let begun = Instant::now();
    while greets(&server, &good).await.is_ok() {
        assert!(begun.elapsed() < TIMEOUT, "the old key is still believed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(greets(&server, &stranger.sign(&claims(|_| ()))).await, Ok(()));
}

/// An address with a set of keys: what it answers, and how often it was asked.
fn address(content: Arc<Mutex<String>>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let serve = move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // One request a connection, in one piece.
            let _ = stream.read(&mut [0; 4_096]);
            count.fetch_add(1, Ordering::SeqCst);
            let body = content.lock().unwrap().clone();
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    };
    std::thread::Builder::new().name("keys".to_owned()).spawn(serve).unwrap();
    (url, asked)
}

#[tokio::test]
async fn keys_are_fetched_from_their_address() {
    let issuer = Signer::new("k1");
    let content = Arc::new(Mutex::new(json!({"keys": [issuer.public()]}).to_string()));
    let (url, asked) = address(content.clone());
    let server = Server::start(&format!("[auth.jwt]\njwks_url = {url:?}{RULES}"));
    let token = issuer.sign(&claims(|_| ()));
    let begun = Instant::now();
    while greets(&server, &token).await.is_err() {
        assert!(begun.elapsed() < TIMEOUT, "the keys are not fetched: {}", server.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Tokens with keys that nobody has do not make the server ask again and again.
    for _ in 0..20 {
        assert_eq!(greets(&server, &Signer::new("k9").sign(&claims(|_| ()))).await, Err(Code::Unauthenticated));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// An https address with a set of keys, and a certificate of that CA.
fn private_address(content: String, authority: &Authority) -> String {
    let (certificate, key) = authority.sign("idp", &["localhost", "127.0.0.1"]);
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/keys", listener.local_addr().unwrap());
    let serve = move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(connection, stream.unwrap());
            // Who does not believe the certificate breaks off here.
            if stream.read(&mut [0; 4_096]).is_ok() {
                let length = content.len();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
                let _ = stream.write_all(format!("{head}{content}").as_bytes());
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    };
    std::thread::Builder::new().name("keys".to_owned()).spawn(serve).unwrap();
    url
}

#[tokio::test]
async fn keys_are_fetched_over_tls_from_whom_the_configuration_believes_and_nobody_else() {
    let (issuer, authority) = (Signer::new("k1"), Authority::new());
    let url = private_address(json!({"keys": [issuer.public()]}).to_string(), &authority);
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let believing = Server::start(&format!("[auth.jwt]\njwks_url = {url:?}\njwks_ca = {ca:?}{RULES}"));
    let doubting = Server::start(&format!("[auth.jwt]\njwks_url = {url:?}{RULES}"));
    let token = issuer.sign(&claims(|_| ()));
    let begun = Instant::now();
    while greets(&believing, &token).await.is_err() {
        assert!(begun.elapsed() < TIMEOUT, "the keys are not fetched: {}", believing.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    while !doubting.log().contains("failed to fetch keys") {
        assert!(begun.elapsed() < TIMEOUT, "{}", doubting.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(greets(&doubting, &token).await, Err(Code::Unauthenticated), "a CA that is not a public one");
}

#[test]
fn an_address_that_answers_nonsense_or_too_much_does_not_stop_the_server() {
    for nonsense in ["{".repeat(1_000), " ".repeat(2 << 20), "{\"keys\":[]}".to_owned()] {
        let (url, asked) = address(Arc::new(Mutex::new(nonsense)));
        let server = Server::start(&format!("[auth.jwt]\njwks_url = {url:?}{RULES}"));
        let begun = Instant::now();
        while !server.log().contains("failed to fetch keys") {
            assert!(begun.elapsed() < TIMEOUT, "{} asked: {}", asked.load(Ordering::SeqCst), server.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[tokio::test]
async fn who_shows_forged_tokens_again_and_again_has_to_wait_and_who_is_known_does_not() {
    let (issuer, stranger) = (Signer::new("k0"), Signer::new("stranger"));
    let mut keys = vec![issuer.public()];
    // A token without a key's id is checked with every key: few of them cost a lot.
    keys.extend((1..40).map(|_| Signer::new("other").public()));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jwks.json");
    std::fs::write(&path, json!({"keys": keys}).to_string()).unwrap();
    let tokens = super::Tokens::new();
    let key = tokens.create("ci", "viewer", "*", &[]);
    let server =
        Server::start(&format!("[auth]\ntokens_file = {:?}\n[auth.jwt]\nkeys_file = {path:?}{RULES}", tokens.path()));
    let known = issuer.sign(&claims(|_| ()));
    assert_eq!(greets(&server, &known).await, Ok(()));
    let forged = |number: u32| {
        let claims = claims(|claims| claims["sub"] = json!(format!("mallory-{number}")));
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &stranger.key).unwrap()
    };
    let begun = Instant::now();
    let mut numbers = 0..;
    let refused = loop {
        let forged = Known::new(&server, &forged(numbers.next().unwrap()));
        let refused = forged.system().get_server_info(v1::GetServerInfoRequest::default()).await.unwrap_err();
        if refused.code() != Code::Unauthenticated {
            break refused;
        }
        assert!(begun.elapsed() < TIMEOUT, "every forgery is checked");
    };
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "RATE_LIMITED"));
    let details = refused.get_error_details();
    assert!(details.retry_info().unwrap().retry_delay.is_some());
    assert_eq!(details.quota_failure().unwrap().violations[0].subject, "address");
    assert_eq!(greets(&server, &known).await, Ok(()), "what was verified before");
    assert_eq!(greets(&server, &key).await, Ok(()), "an API key costs nothing to check");
    let new = issuer.sign(&claims(|claims| claims["sub"] = json!("bob")));
    let begun = Instant::now();
    while let Err(code) = greets(&server, &new).await {
        assert_eq!(code, Code::ResourceExhausted, "not looked at, and not called wrong");
        assert!(begun.elapsed() < TIMEOUT, "it is never looked at");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
