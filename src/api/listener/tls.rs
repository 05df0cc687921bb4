//! TLS: certificates from files that are reloaded after a change, and limits on handshakes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{Acceptor, VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

use crate::api::auth::CertificateNames;
use crate::api::watched_files::WatchedFiles;

/// Protocols for ALPN, preferred first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Certificate files, and limits on handshakes.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    /// The server's certificate and the intermediate certificates, PEM.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// CAs of client certificates, PEM; `None`: client certificates are not requested.
    pub client_ca: Option<PathBuf>,
    /// Revocation lists of these CAs, PEM; `None`: revocation is not checked.
    pub client_crl: Option<PathBuf>,
    /// Whether clients without a certificate are refused.
    pub client_required: bool,
    /// Time limit for one handshake, including the wait for a free handshake slot.
    pub handshake_timeout: Duration,
    /// Concurrent handshakes, counted from the client's first message; further ones wait.
    pub handshakes_max: usize,
}

/// Why the certificate files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is not valid PEM.
    #[error("failed to read `{path}` ({setting}): {source}", path = path.display())]
    File { setting: &'static str, path: PathBuf, source: pem::Error },
    /// A file contains no PEM object of the required kind.
    #[error("`{path}` contains no {what}", path = path.display())]
    Empty { path: PathBuf, what: &'static str },
    /// The certificate and the key cannot be used together.
    #[error("certificate `{certificate}` does not match key `{key}`: {source}", certificate = certificate.display(), key = key.display())]
    KeyMismatch { certificate: PathBuf, key: PathBuf, source: rustls::Error },
    /// The CAs of client certificates, or their revocation lists, cannot be used.
    #[error("invalid client CAs or revocation lists `{path}`: {source}", path = path.display())]
    ClientCa { path: PathBuf, source: VerifierBuilderError },
}

pub struct Tls {
    options: TlsOptions,
    loaded: ArcSwap<Loaded>,
    /// Notified after each reload.
    reloads: watch::Sender<()>,
    handshakes: Semaphore,
}

struct Loaded {
    config: Arc<ServerConfig>,
    /// `None`: client certificates are not requested.
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

/// A connection after its handshake.
pub struct TlsConnection {
    pub stream: TlsStream<TcpStream>,
    /// Names in the client certificate.
    pub names: Option<CertificateNames>,
    pub certificate: CertificateWatch,
}

/// Checks the client certificate again after each reload.
pub struct CertificateWatch {
    tls: Arc<Tls>,
    /// The client's own certificate first; empty without a client certificate.
    chain: Vec<CertificateDer<'static>>,
    reloads: watch::Receiver<()>,
}

impl CertificateWatch {
    /// Completes when the certificate is no longer trusted: it is on a revocation list, or its CA was removed.
    pub async fn revoked(&mut self) {
        let Some((own, intermediates)) = self.chain.split_first() else { return std::future::pending().await };
        while self.reloads.changed().await.is_ok() {
            let loaded = self.tls.loaded.load();
            let is_trusted = |clients: &Arc<dyn ClientCertVerifier>| {
                clients.verify_client_cert(own, intermediates, UnixTime::now()).is_ok()
            };
            if !loaded.clients.as_ref().is_some_and(is_trusted) {
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}

impl Tls {
    /// Reads the files. The returned [`WatchedFiles`] reload them after a change.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn open(options: TlsOptions) -> Result<(Arc<Self>, WatchedFiles), TlsError> {
        let mut paths = vec![options.certificate.clone(), options.key.clone()];
        paths.extend(options.client_ca.clone());
        paths.extend(options.client_crl.clone());
        let tls = Arc::new(Self {
            loaded: ArcSwap::from_pointee(load(&options)?),
            reloads: watch::Sender::new(()),
            handshakes: Semaphore::new(options.handshakes_max.min(Semaphore::MAX_PERMITS)),
            options,
        });
        let target = tls.clone();
        let watched = WatchedFiles::open("certificates", paths, move || {
            target.loaded.store(Arc::new(load(&target.options)?));
            target.reloads.send_replace(());
            Ok::<_, TlsError>(())
        })?;
        Ok((tls, watched))
    }

    /// Performs the handshake.
    ///
    /// # Errors
    /// The client violates the protocol, has no trusted certificate although one is required, or is too slow.
    pub async fn accept(self: &Arc<Self>, stream: TcpStream) -> io::Result<TlsConnection> {
        // Before the configuration is loaded, so that no reload is missed.
        let reloads = self.reloads.subscribe();
        let until = Instant::now() + self.options.handshake_timeout;
        let handshake = timeout_at(until, async {
            // A silent client does not occupy one of the concurrent handshakes.
            let started = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
            // The semaphore is never closed.
            let _permit = self.handshakes.acquire().await;
            started.into_stream(self.loaded.load().config.clone()).await
        });
        let timed_out = |_| io::Error::new(io::ErrorKind::TimedOut, "handshake timed out");
        let stream = handshake.await.map_err(timed_out)??;
        let chain = stream.get_ref().1.peer_certificates().map(<[_]>::to_vec).unwrap_or_default();
        let names = chain.first().and_then(CertificateNames::of);
        let certificate = CertificateWatch { tls: self.clone(), chain, reloads };
        Ok(TlsConnection { stream, names, certificate })
    }
}

fn load(options: &TlsOptions) -> Result<Loaded, TlsError> {
    let chain = certificates(&options.certificate, "tls.certificate")?;
    let key = PrivateKeyDer::from_pem_file(&options.key).map_err(|source| TlsError::File {
        setting: "tls.key",
        path: options.key.clone(),
        source,
    })?;
    let provider = Arc::new(ring::default_provider());
    let mismatch =
        |source| TlsError::KeyMismatch { certificate: options.certificate.clone(), key: options.key.clone(), source };
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(mismatch)?;
    let clients = options.client_ca.as_ref().map(|path| client_verifier(path, options)).transpose()?;
    let builder = match clients.clone() {
        None => builder.with_no_client_auth(),
        Some(clients) => builder.with_client_cert_verifier(clients),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(mismatch)?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Loaded { config: Arc::new(config), clients })
}

/// Verifies client certificates of the CAs in the file `path`.
fn client_verifier(path: &Path, options: &TlsOptions) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let invalid = |source| TlsError::ClientCa { path: path.to_owned(), source };
    let mut roots = RootCertStore::empty();
    for root in certificates(path, "tls.client_ca")? {
        roots.add(root).map_err(|_| invalid(VerifierBuilderError::NoRootAnchors))?;
    }
    let provider = Arc::new(ring::default_provider());
    let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if let Some(path) = &options.client_crl {
        let lists = all::<CertificateRevocationListDer<'static>>(path, "tls.client_crl", "revocation list")?;
        verifier = verifier.with_crls(lists);
    }
    let verifier = if options.client_required { verifier } else { verifier.allow_unauthenticated() };
    verifier.build().map_err(invalid)
}

fn certificates(path: &Path, setting: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    all(path, setting, "certificate")
}

/// All PEM objects of one kind in a file, at least one.
fn all<T: PemObject>(path: &Path, setting: &'static str, what: &'static str) -> Result<Vec<T>, TlsError> {
    let invalid = |source| TlsError::File { setting, path: path.to_owned(), source };
    let found: Vec<T> = T::pem_file_iter(path).map_err(invalid)?.collect::<Result<_, _>>().map_err(invalid)?;
    if found.is_empty() { Err(TlsError::Empty { path: path.to_owned(), what }) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn pair(directory: &Path, name: &str) -> TlsOptions {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (certificate, key) = (directory.join(format!("{name}.pem")), directory.join(format!("{name}.key")));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        TlsOptions {
            certificate,
            key,
            client_ca: None,
            client_crl: None,
            client_required: false,
            handshake_timeout: Duration::from_millis(100),
            handshakes_max: 1,
        }
    }

    #[test]
    fn an_error_names_the_file_and_does_not_contain_its_content() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (pair(directory.path(), "one"), pair(directory.path(), "two"));
        assert!(Tls::open(one.clone()).is_ok());
        let empty = directory.path().join("empty.pem");
        std::fs::write(&empty, "nothing here").unwrap();
        let missing = directory.path().join("missing.pem");
        for (options, expected) in [
            (TlsOptions { key: two.key.clone(), ..one.clone() }, "two.key"),
            (TlsOptions { key: one.certificate.clone(), ..one.clone() }, "one.pem"),
            (TlsOptions { certificate: empty.clone(), ..one.clone() }, "empty.pem"),
            (TlsOptions { certificate: missing.clone(), ..one.clone() }, "missing.pem"),
            (TlsOptions { client_ca: Some(missing), ..one.clone() }, "missing.pem"),
            (TlsOptions { client_ca: Some(empty.clone()), ..one.clone() }, "empty.pem"),
            (
                TlsOptions { client_ca: Some(one.certificate.clone()), client_crl: Some(empty), ..one.clone() },
                "empty.pem` contains no revocation list",
            ),
        ] {
            let error = Tls::open(options).err().unwrap().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
            assert!(!error.contains("BEGIN"), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_times_out_also_while_it_waits_for_its_turn() {
        let directory = tempfile::tempdir().unwrap();
        let (tls, _watched) = Tls::open(pair(directory.path(), "one")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let started = Instant::now();
        let _clients = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
        let (first, second) = (listener.accept().await.unwrap().0, listener.accept().await.unwrap().0);
        let (first, second) = tokio::join!(tls.accept(first), tls.accept(second));
        assert_eq!(first.err().unwrap().kind(), io::ErrorKind::TimedOut);
        assert_eq!(second.err().unwrap().kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() < Duration::from_millis(200), "{:?}", started.elapsed());
    }
}
