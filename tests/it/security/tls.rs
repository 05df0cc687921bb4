//! TLS and client certificates, with the command line and with other clients.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use lineshaft::proto::v1;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, GeneralSubtree,
    IsCa, KeyIdMethod, KeyPair, NameConstraints, RevokedCertParams, SerialNumber, date_time_ymd,
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::{Caller, Tokens, lineshaft, text, wait_until};
use crate::support::{Server, TIMEOUT};

/// A CA.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test CA");
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Returns a certificate and its key.
    pub fn sign(&self, common_name: &str, names: &[&str]) -> (String, String) {
        self.sign_numbered(1, common_name, names)
    }

    /// As [`Authority::sign`], with a serial number for revocation.
    fn sign_numbered(&self, number: u64, common_name: &str, names: &[&str]) -> (String, String) {
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.serial_number = Some(number.into());
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Returns a certificate with its chain, and its key. Its CA may only issue names below `permitted`.
    fn sign_constrained(&self, permitted: &str, common_name: &str, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "tenant CA");
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName(permitted.to_owned())],
            excluded_subtrees: Vec::new(),
        });
        let tenant = CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &self.issuer).unwrap();
        let pem = tenant.pem();
        let (certificate, key) = Self { issuer: tenant }.sign(common_name, &[name]);
        (format!("{certificate}{pem}"), key)
    }

    /// Returns a revocation list with these serial numbers.
    fn revoke(&self, numbers: &[u64]) -> String {
        let revoked = |number: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*number),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2099, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: numbers.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// Writes a server certificate into the directory. Returns the configuration for it.
    pub fn install(&self, directory: &Path) -> String {
        let (certificate, key) = self.sign("server", &["localhost", "127.0.0.1"]);
        let (at, key_at) = (directory.join("server.pem"), directory.join("server.key"));
        std::fs::write(&at, certificate).unwrap();
        std::fs::write(&key_at, key).unwrap();
        format!("[tls]\ncertificate = \"{}\"\nkey = \"{}\"\n", at.display(), key_at.display())
    }

    fn channel(&self, server: &Server, identity: Option<&(String, String)>) -> Channel {
        let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.pem()));
        if let Some((certificate, key)) = identity {
            config = config.identity(Identity::from_pem(certificate, key));
        }
        let endpoint = Endpoint::from_shared(format!("https://{}", server.address)).unwrap();
        endpoint.tls_config(config).unwrap().connect_lazy()
    }
}

async fn can_call(caller: &Caller) -> bool {
    caller.system().get_server_info(v1::GetServerInfoRequest::default()).await.is_ok()
}

#[test]
fn the_command_line_submits_with_a_token_and_a_ca() {
    let (tokens, authority) = (Tokens::new(), Authority::new());
    let token = tokens.create("ci", "submitter", "default", &["--expires", "90d"]);
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(path("ca.pem"), authority.pem()).unwrap();
    std::fs::write(path("token"), format!("{token}\n")).unwrap();
    let server = tokens.serve(&authority.install(directory.path()));
    let url = format!("https://{}", server.address);
    let with = |more: &[&str]| {
        let output = lineshaft(&[&["task", "run", "compute", "--json", "10", "--server", &url], more].concat());
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, err) = with(&["--tls-ca", &path("ca.pem"), "--token-file", &path("token")]);
    assert_eq!((code, out.as_str()), (Some(0), "{\"op\":\"sum\",\"n\":10,\"value\":45}"), "{err}");
    let (code, _, err) = with(&["--tls-ca", &path("ca.pem"), "--token", &token]);
    assert_eq!(code, Some(0), "{err}");
    let (code, _, err) = with(&["--tls-ca", &path("ca.pem")]);
    assert_eq!(code, Some(3), "{err}");
    assert!(err.contains("reason: UNAUTHENTICATED") && err.contains("--token-file"), "{err}");
    let (code, _, err) = with(&["--token", &token]);
    assert_eq!(code, Some(4), "the CA is not one of the system");
    assert!(err.contains("certificate"), "{err}");
    let plain = ["task", "list", "--server", &format!("http://{}", server.address), "--token", &token];
    let output = lineshaft(&plain);
    assert_eq!(output.status.code(), Some(4), "TLS only: {}", text(&output.stderr));
    let (code, _, err) = with(&["--tls-ca", &path("ca.pem"), "--token", "two words\nlines"]);
    assert_eq!(code, Some(2), "{err}");
    assert!(!err.contains("two words"), "{err}");
    let list = lineshaft(&["token", "list", "--file", &tokens.path()]);
    let list = text(&list.stdout);
    assert!(list.contains("ci") && list.contains("submitter") && !list.contains(&token[23..]), "{list}");
    assert!(!server.log().contains(&token[23..]));
}

#[tokio::test]
async fn a_new_certificate_is_used_without_a_restart() {
    let (tokens, old, new) = (Tokens::new(), Authority::new(), Authority::new());
    let token = tokens.create("ci", "viewer", "default", &[]);
    let directory = tempfile::tempdir().unwrap();
    let server = tokens.serve(&old.install(directory.path()));
    let before = Caller::over(old.channel(&server, None), Some(&token));
    assert!(can_call(&before).await);
    assert!(!can_call(&Caller::over(new.channel(&server, None), Some(&token))).await);
    // Only the key is replaced, so certificate and key do not match, and the old ones stay in use.
    let (_, other_key) = new.sign("server", &["localhost"]);
    std::fs::write(directory.path().join("server.key"), other_key).unwrap();
    server.wait_logged("failed to reload").await;
    assert!(can_call(&Caller::over(old.channel(&server, None), Some(&token))).await);
    new.install(directory.path());
    wait_until(
        async || can_call(&Caller::over(new.channel(&server, None), Some(&token))).await,
        "the new certificate is not used",
    )
    .await;
    assert!(can_call(&before).await, "an open connection stays open");
}

#[tokio::test]
async fn a_client_certificate_identifies_the_caller() {
    let authority = Authority::new();
    let other_authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("clients.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let rules = "[[auth.certificate]]\nsubject = \"scaler\"\nrole = \"viewer\"\nnamespaces = [\"*\"]\n\
                 [[auth.certificate]]\nsubject = \"ci.team-a.svc\"\nrole = \"submitter\"\nnamespaces = [\"team-a\"]\n";
    let config = format!("{}client_ca = {ca:?}\n{rules}", authority.install(directory.path()));
    let server = Server::start(&config);
    let with = |identity| Caller::over(authority.channel(&server, identity), None);
    let (scaler, ci) = (authority.sign("", &["scaler"]), authority.sign("other", &["ci.team-a.svc"]));
    let (unlisted, forged) = (authority.sign("scaler", &["unlisted"]), other_authority.sign("", &["scaler"]));
    let (scaler, ci) = (with(Some(&scaler)), with(Some(&ci)));
    assert!(can_call(&scaler).await);
    let submit = || v1::SubmitTaskRequest { handler: "compute".into(), ..v1::SubmitTaskRequest::default() };
    let refused = scaler.tasks().submit_task(submit()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    let id = ci.tasks().submit_task(submit()).await.unwrap().into_inner().task_id;
    let request = v1::GetTaskRequest { task_id: id, ..Default::default() };
    let task = scaler.tasks().get_task(request).await.unwrap().into_inner().task.unwrap();
    assert_eq!((task.submitted_by.as_str(), task.namespace.as_str()), ("cert:ci.team-a.svc", "team-a"));
    let refused = with(Some(&unlisted)).tasks().submit_task(submit()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated, "no rule grants it a role");
    server.wait_logged("no [[auth.certificate]] has an alternative name of the client certificate").await;
    assert!(!can_call(&with(Some(&forged))).await, "signed by another CA");
    assert!(!can_call(&with(None)).await, "no certificate");
}

#[tokio::test]
async fn a_common_name_does_not_evade_the_name_constraints_of_a_ca() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("clients.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let rule = |subject: &str| {
        format!("[[auth.certificate]]\nsubject = {subject:?}\nrole = \"viewer\"\nnamespaces = [\"*\"]\n")
    };
    let rules = [rule("scaler"), rule("job.tenant.example")].concat();
    let server = Server::start(&format!("{}client_ca = {ca:?}\n{rules}", authority.install(directory.path())));
    let can_call = async |certificate: &(String, String)| {
        can_call(&Caller::over(authority.channel(&server, Some(certificate)), None)).await
    };
    let of_tenant = |common_name, name| authority.sign_constrained("tenant.example", common_name, name);
    assert!(can_call(&of_tenant("", "job.tenant.example")).await, "{}", server.log());
    assert!(!can_call(&of_tenant("", "scaler")).await, "the constraint applies to alternative names");
    assert!(!can_call(&of_tenant("scaler", "other.tenant.example")).await, "the common name grants a role");
    assert!(!can_call(&authority.sign("scaler", &[])).await, "the common name grants a role");
    server.wait_logged("the client certificate has no alternative name").await;
}

#[tokio::test]
async fn a_revoked_certificate_closes_its_connections() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let (ca, lists) = (directory.path().join("clients.pem"), directory.path().join("clients.crl"));
    std::fs::write(&ca, authority.pem()).unwrap();
    std::fs::write(&lists, authority.revoke(&[9])).unwrap();
    let rules = "[[auth.certificate]]\nsubject = \"*\"\nrole = \"viewer\"\nnamespaces = [\"*\"]\n";
    let install = authority.install(directory.path());
    let server = Server::start(&format!("{install}client_ca = {ca:?}\nclient_crl = {lists:?}\n{rules}"));
    let with = |identity| Caller::over(authority.channel(&server, Some(identity)), None);
    let (good, revoked) = (authority.sign_numbered(7, "", &["good"]), authority.sign_numbered(8, "", &["revoked"]));
    let revoked_before = authority.sign_numbered(9, "", &["revoked-before"]);
    assert!(!can_call(&with(&revoked_before)).await, "revoked before the start");
    let watch = async |caller: &Caller| {
        caller.tasks().watch_tasks(v1::WatchTasksRequest::default()).await.unwrap().into_inner()
    };
    let (caller, before) = (with(&good), with(&revoked));
    let (mut stays, mut ends) = (watch(&caller).await, watch(&before).await);

    std::fs::write(&lists, "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n").unwrap();
    server.wait_logged("failed to reload").await;
    assert!(can_call(&with(&revoked)).await, "the old list stays in use");

    std::fs::write(&lists, authority.revoke(&[8, 9])).unwrap();
    let end = async {
        loop {
            match ends.message().await {
                Ok(Some(_)) => {}
                ended => break ended,
            }
        }
    };
    let end = tokio::time::timeout(TIMEOUT, end).await.expect("the watch of a revoked certificate ends");
    assert_eq!(end.unwrap_err().code(), tonic::Code::Unauthenticated, "also in the metrics of calls");
    assert!(!can_call(&before).await, "a new connection is refused");
    assert!(!can_call(&with(&revoked)).await);
    assert!(can_call(&caller).await && can_call(&with(&good)).await, "other certificates stay valid");
    // A watch sends its progress every few seconds, so a closed one would end here.
    assert!(tokio::time::timeout(TIMEOUT, stays.message()).await.unwrap().unwrap().is_some());
}

#[test]
fn an_incomplete_handshake_times_out_and_does_not_block_others() {
    let (tokens, authority) = (Tokens::new(), Authority::new());
    let token = tokens.create("ci", "viewer", "default", &[]);
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
    let tls = authority.install(directory.path());
    let server = tokens.serve(&format!("{tls}handshake_timeout = \"2s\"\nmax_handshakes = 64\n"));
    // The start of a ClientHello and nothing more, on fewer connections than the limit of handshakes.
    let mut slow: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = TcpStream::connect(&server.address).unwrap();
            stream.set_read_timeout(Some(TIMEOUT)).unwrap();
            stream.write_all(&[0x16, 3, 1, 2, 0, 1]).unwrap();
            stream
        })
        .collect();
    let (ca, url) = (directory.path().join("ca.pem").display().to_string(), format!("https://{}", server.address));
    let output = lineshaft(&["system", "info", "--server", &url, "--tls-ca", &ca, "--token", &token]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for stream in &mut slow {
        let read = stream.read(&mut [0; 64]);
        assert!(matches!(read, Ok(0) | Err(_)), "unexpected response: {read:?}");
        if let Err(error) = read {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
        }
    }
}

#[test]
fn a_silent_client_takes_no_handshake_slot_and_does_not_delay_the_stop() {
    let (tokens, authority) = (Tokens::new(), Authority::new());
    let token = tokens.create("ci", "viewer", "default", &[]);
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
    let tls = authority.install(directory.path());
    let mut server = tokens.serve(&format!("{tls}handshake_timeout = \"5m\"\nmax_handshakes = 2\n"));
    let connect = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    };
    let _silent: Vec<_> = (0..20).map(|_| connect(b"")).collect();
    let _slow: Vec<_> = (0..20).map(|_| connect(&[0x16, 3, 1, 2, 0, 1])).collect();
    let (ca, url) = (directory.path().join("ca.pem").display().to_string(), format!("https://{}", server.address));
    let output = lineshaft(&["system", "info", "--server", &url, "--tls-ca", &ca, "--token", &token]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    server.signal(rustix::process::Signal::TERM);
    assert!(server.wait_exit().success(), "{}", server.log());
    assert!(!server.log().contains("calls in flight"), "no call was in flight: {}", server.log());
}
