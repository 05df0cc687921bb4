//! JWTs: valid and forged tokens, and the sources of keys.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

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

use super::Caller;
use super::tls::Authority;
use crate::support::{Server, check, eventually, noop, reason};

/// A key that signs tokens.
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
        self.sign_with(|_| (), claims)
    }

    /// As [`Signer::sign`], with a change of the header.
    fn sign_with(&self, change: impl FnOnce(&mut Header), claims: &Value) -> String {
        let mut header = Header { kid: Some(self.id.to_owned()), ..Header::new(Algorithm::ES256) };
        change(&mut header);
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }
}

#[expect(clippy::disallowed_methods, reason = "tokens expire by the system clock")]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Claims of a member of team A.
fn claims(change: impl FnOnce(&mut Value)) -> Value {
    let mut claims = json!({
        "iss": "https://idp.example", "aud": "lineshaft", "sub": "alice", "exp": now() + 600,
        "groups": ["team-a-devs", "everyone"],
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

async fn get_info(server: &Server, token: &str) -> Result<(), Code> {
    let caller = Caller::new(server, token);
    let answer = caller.system().get_server_info(v1::GetServerInfoRequest::default()).await;
    answer.map(|_| ()).map_err(|status| status.code())
}

#[tokio::test]
async fn a_token_of_the_issuer_is_accepted_and_forgeries_are_refused() {
    let (issuer, forger) = (Signer::new("k1"), Signer::new("k1"));
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("jwks.json");
    let shared = json!({"kty": "oct", "k": "c2VjcmV0", "kid": "shared", "alg": "HS256"});
    std::fs::write(&keys, json!({"keys": [issuer.public(), shared]}).to_string()).unwrap();
    let server = Server::start(&format!("[auth.jwt]\nkeys_file = {keys:?}{RULES}"));
    let good = issuer.sign(&claims(|_| ()));
    let caller = Caller::new(&server, &good);
    let id = caller.tasks().submit_task(noop()).await.unwrap().into_inner().task_id;
    let request = v1::GetTaskRequest { task_id: id, ..Default::default() };
    let task = caller.tasks().get_task(request).await.unwrap().into_inner().task.unwrap();
    assert_eq!((task.submitted_by.as_str(), task.namespace.as_str()), ("jwt:alice", "team-a"));
    let denied = caller.tasks().delete_tasks(v1::DeleteTasksRequest::default()).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    let nested = issuer.sign(&claims(|claims| claims["realm_access"] = json!({"roles": ["lineshaft-admin"]})));
    Caller::new(&server, &nested).system().get_system_health(v1::GetSystemHealthRequest {}).await.unwrap();

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
        ("a foreign signature", forger.sign(&claims(|_| ()))),
        ("a foreign key id", Signer::new("k2").sign(&claims(|_| ()))),
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
        ("no expiry", signed(&|claims| _ = claims.as_object_mut().unwrap().remove("exp"))),
        ("expired", signed(&|claims| claims["exp"] = json!(now() - 60))),
        ("not yet valid", signed(&|claims| claims["nbf"] = json!(now() + 60))),
        ("a subject of two lines", signed(&|claims| claims["sub"] = json!("a\nb"))),
        ("a subject that is not a string", signed(&|claims| claims["sub"] = json!(7))),
        ("too long", signed(&|claims| claims["pad"] = json!("x".repeat(9_000)))),
    ];
    for (what, token) in forgeries {
        assert_eq!(get_info(&server, &token).await, Err(Code::Unauthenticated), "{what}");
    }
    // A valid token without any grant.
    let foreign = signed(&|claims| claims["groups"] = json!(["everyone"]));
    assert_eq!(get_info(&server, &foreign).await, Err(Code::PermissionDenied));
    let short = signed(&|claims| claims["exp"] = json!(now() + 1));
    assert_eq!(get_info(&server, &short).await, Ok(()));
    eventually(async || check(get_info(&server, &short).await.is_err(), || "an expired token is accepted".to_owned()))
        .await;
    assert!(!server.log().contains(body), "the log contains a token");

    // A change of the key file replaces the keys.
    std::fs::write(&keys, json!({"keys": [forger.public()]}).to_string()).unwrap();
    eventually(async || check(get_info(&server, &good).await.is_err(), || "the old key is accepted".to_owned())).await;
    assert_eq!(get_info(&server, &forger.sign(&claims(|_| ()))).await, Ok(()));
}

#[tokio::test]
async fn tokens_obey_the_rules_of_jws_and_jwt_and_each_refusal_is_explained_in_the_log() {
    let (issuer, encrypts, other_use) = (Signer::new("k1"), Signer::new("encrypts"), Signer::new("other-use"));
    let other_algorithm = Signer::new("other-algorithm");
    let with = |signer: &Signer, member: &str, value: Value| {
        let mut key = signer.public();
        let members = key.as_object_mut().unwrap();
        members.remove("use");
        members.insert(member.to_owned(), value);
        key
    };
    let set = json!({"keys": [
        issuer.public(),
        with(&encrypts, "key_ops", json!(["encrypt"])),
        with(&other_use, "use", json!("enc")),
        with(&other_algorithm, "alg", json!("ES384")),
    ]});
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("jwks.json");
    std::fs::write(&keys, set.to_string()).unwrap();
    let server = Server::start(&format!("[auth.jwt]\nkeys_file = {keys:?}{RULES}"));

    let typed = |typ: Option<&str>| issuer.sign_with(|header| header.typ = typ.map(str::to_owned), &claims(|_| ()));
    for typ in [None, Some("JWT"), Some("jwt"), Some("at+jwt"), Some("application/at+JWT")] {
        assert_eq!(get_info(&server, &typed(typ)).await, Ok(()), "{typ:?}");
    }
    let listed = issuer.sign(&claims(|claims| claims["aud"] = json!(["mail", "lineshaft"])));
    assert_eq!(get_info(&server, &listed).await, Ok(()), "an audience may be a list");
    let subject = format!("auth0|team a/{}", "x".repeat(242));
    assert_eq!(subject.len(), 255);
    let long = issuer.sign(&claims(|claims| claims["sub"] = json!(subject)));
    let caller = Caller::new(&server, &long);
    let id = caller.tasks().submit_task(noop()).await.unwrap().into_inner().task_id;
    let request = v1::GetTaskRequest { task_id: id, ..Default::default() };
    let task = caller.tasks().get_task(request).await.unwrap().into_inner().task.unwrap();
    assert_eq!(task.submitted_by, format!("jwt:{subject}"));

    let critical = |names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        issuer.sign_with(|header| header.crit = Some(names), &claims(|_| ()))
    };
    let signed = |change: &dyn Fn(&mut Value)| issuer.sign(&claims(|claims| change(claims)));
    let refused = [
        (critical(&["exp"]), "`crit`"),
        (critical(&[]), "`crit`"),
        (typed(Some("logout+jwt")), "`typ`"),
        (typed(Some("")), "`typ`"),
        (signed(&|claims| claims["iss"] = json!(["https://idp.example"])), "`iss`"),
        (signed(&|claims| claims["iss"] = json!(["https://evil.example", "https://idp.example"])), "`iss`"),
        (signed(&|claims| claims["aud"] = json!("mail")), "`aud`"),
        (signed(&|claims| claims["nbf"] = json!(now() + 60)), "`nbf`"),
        (signed(&|claims| claims["exp"] = json!(now() - 60)), "expired"),
        (signed(&|claims| claims["sub"] = json!("x".repeat(256))), "`sub`"),
        (signed(&|claims| claims["sub"] = json!("")), "`sub`"),
        (encrypts.sign(&claims(|_| ())), "`kid`"),
        (other_use.sign(&claims(|_| ())), "`kid`"),
        (other_algorithm.sign(&claims(|_| ())), "`kid`"),
        (Signer::new("k1").sign(&claims(|_| ())), "signature"),
        ("a.b.c".to_owned(), "JWT"),
    ];
    for (token, reason) in refused {
        let before = server.log().lines().count();
        assert_eq!(get_info(&server, &token).await, Err(Code::Unauthenticated), "{reason}: {token}");
        let explains = |line: &str| line.contains("\"target\":\"audit\"") && line.contains(reason);
        eventually(async || {
            let lines = server.log();
            check(lines.lines().skip(before).any(explains), || format!("no line explains {reason}: {lines}"))
        })
        .await;
        let body = token.split('.').nth(1).unwrap();
        assert!(body.len() < 9 || !server.log().contains(body), "the log contains a token");
    }
}

async fn watch(server: &Server, token: &str) -> tonic::Streaming<v1::WatchTasksResponse> {
    Caller::new(server, token).tasks().watch_tasks(v1::WatchTasksRequest::default()).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_new_key_set_ends_the_watches_of_removed_keys_only() {
    let (stays, leaves, added) = (Signer::new("stays"), Signer::new("leaves"), Signer::new("added"));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jwks.json");
    let install = |signers: &[&Signer]| {
        let keys: Vec<Value> = signers.iter().map(|signer| signer.public()).collect();
        std::fs::write(&path, json!({ "keys": keys }).to_string()).unwrap();
    };
    install(&[&stays, &leaves]);
    let server = Server::start(&format!("[auth.jwt]\nkeys_file = {path:?}{RULES}"));
    let (kept, gone, new) = (stays.sign(&claims(|_| ())), leaves.sign(&claims(|_| ())), added.sign(&claims(|_| ())));
    let (mut first, mut second) = (watch(&server, &kept).await, watch(&server, &gone).await);

    install(&[&added, &stays, &leaves]);
    let is_reloaded = async || check(get_info(&server, &new).await.is_ok(), || "the set is not reloaded".to_owned());
    eventually(is_reloaded).await;
    install(&[&added, &stays]);
    let end = loop {
        match second.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the watch ended without a status"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::Unauthenticated);
    assert_eq!(get_info(&server, &gone).await, Err(Code::Unauthenticated));

    // The watch of the key that stayed has outlived both changes.
    let id = Caller::new(&server, &kept).tasks().submit_task(noop()).await.unwrap().into_inner().task_id;
    let is_submission = |message: &v1::WatchTasksResponse| format!("{message:?}").contains(&id);
    while !is_submission(&first.message().await.unwrap().expect("the watch goes on")) {}
}

/// Serves a key set over HTTP. Returns the URL and the number of requests.
fn key_server(content: Arc<Mutex<String>>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    let serve = move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // One request per connection, in one read.
            let _ = stream.read(&mut [0; 4_096]);
            count.fetch_add(1, Ordering::SeqCst);
            let body = content.lock().unwrap().clone();
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    };
    std::thread::Builder::new().name("keys".to_owned()).spawn(serve).unwrap();
    (url, requests)
}

#[tokio::test]
async fn keys_are_fetched_from_a_url() {
    let issuer = Signer::new("k1");
    let content = Arc::new(Mutex::new(json!({"keys": [issuer.public()]}).to_string()));
    let (url, requests) = key_server(content.clone());
    let server = Server::start(&format!("[auth.jwt]\njwks_url = {url:?}{RULES}"));
    let token = issuer.sign(&claims(|_| ()));
    eventually(async || check(get_info(&server, &token).await.is_ok(), || server.log())).await;
    // Tokens with unknown key ids do not cause a fetch each.
    for _ in 0..20 {
        assert_eq!(get_info(&server, &Signer::new("k9").sign(&claims(|_| ()))).await, Err(Code::Unauthenticated));
    }
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

/// Serves a key set over HTTPS with a certificate of the CA.
fn tls_key_server(content: String, authority: &Authority) -> String {
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
            // Fails if the client does not trust the certificate.
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
async fn keys_are_fetched_over_tls_from_servers_of_the_configured_ca_only() {
    let (issuer, authority) = (Signer::new("k1"), Authority::new());
    let url = tls_key_server(json!({"keys": [issuer.public()]}).to_string(), &authority);
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let trusting = Server::start(&format!("[auth.jwt]\njwks_url = {url:?}\njwks_ca = {ca:?}{RULES}"));
    let other = Server::start(&format!("[auth.jwt]\njwks_url = {url:?}{RULES}"));
    let token = issuer.sign(&claims(|_| ()));
    eventually(async || check(get_info(&trusting, &token).await.is_ok(), || trusting.log())).await;
    other.wait_logged("failed to fetch JWT keys").await;
    assert_eq!(get_info(&other, &token).await, Err(Code::Unauthenticated), "the CA is not a public one");
}

#[tokio::test]
async fn an_invalid_or_too_large_key_set_does_not_stop_the_server() {
    for nonsense in ["{".repeat(1_000), " ".repeat(2 << 20), "{\"keys\":[]}".to_owned()] {
        let (url, requests) = key_server(Arc::new(Mutex::new(nonsense)));
        let server = Server::start(&format!("[auth.jwt]\njwks_url = {url:?}{RULES}"));
        server.wait_logged("failed to fetch JWT keys").await;
        assert!(requests.load(Ordering::SeqCst) >= 1);
    }
}

#[tokio::test]
async fn an_address_with_many_forged_tokens_has_to_wait() {
    let (issuer, forger) = (Signer::new("k0"), Signer::new("forger"));
    let mut keys = vec![issuer.public()];
    // A token without a key id is checked with every key, so a few of them cost a lot.
    keys.extend((1..40).map(|_| Signer::new("other").public()));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jwks.json");
    std::fs::write(&path, json!({"keys": keys}).to_string()).unwrap();
    let tokens = super::Tokens::new();
    let key = tokens.create("ci", "viewer", "*", &[]);
    let server =
        Server::start(&format!("[auth]\ntokens_file = {:?}\n[auth.jwt]\nkeys_file = {path:?}{RULES}", tokens.path()));
    let caller = issuer.sign(&claims(|_| ()));
    assert_eq!(get_info(&server, &caller).await, Ok(()));
    let sign_forgery = |number: u32| {
        let claims = claims(|claims| claims["sub"] = json!(format!("mallory-{number}")));
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &forger.key).unwrap()
    };
    let mut numbers = 0..;
    let refused = eventually(async || {
        let client = Caller::new(&server, &sign_forgery(numbers.next().unwrap()));
        let refused = client.system().get_server_info(v1::GetServerInfoRequest::default()).await.unwrap_err();
        if refused.code() == Code::Unauthenticated { Err("each forgery is checked".to_owned()) } else { Ok(refused) }
    })
    .await;
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "RATE_LIMITED"));
    let details = refused.get_error_details();
    assert!(details.retry_info().unwrap().retry_delay.is_some());
    assert_eq!(details.quota_failure().unwrap().violations[0].subject, "address");
    assert_eq!(get_info(&server, &caller).await, Ok(()), "a token in the cache");
    assert_eq!(get_info(&server, &key).await, Ok(()), "API keys are exempt");
    let new = issuer.sign(&claims(|claims| claims["sub"] = json!("bob")));
    eventually(async || {
        let checked = get_info(&server, &new).await;
        checked.map_err(|code| {
            assert_eq!(code, Code::ResourceExhausted, "a valid token is not refused as invalid");
            "the token is not checked".to_owned()
        })
    })
    .await;
}
