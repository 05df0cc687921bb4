//! TLS: certificates from files, read again when these change, and bounds on handshakes.

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

/// What a client may choose to speak.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Where certificates are, and bounds of handshakes.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    /// The server's certificate and those between it and its CA, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// CAs of client certificates, PEM; `None`: clients are not asked for any.
    pub client_ca: Option<PathBuf>,
    /// Their revocation lists, PEM; `None`: nobody is looked up.
    pub client_crl: Option<PathBuf>,
    /// Whether clients without a certificate are refused.
    pub client_required: bool,
    /// Time that a handshake may take, waiting for its turn included.
    pub handshake_timeout: Duration,
    /// Handshakes at a time, from a client's first message on; more wait.
    pub handshakes_max: usize,
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is no PEM of what it should be.
    #[error("failed to read `{path}`: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// A file has none of what is wanted.
    #[error("`{path}` has no {what}", path = path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// What is wanted.
        what: &'static str,
    },
    /// Certificate and key cannot be used together.
    #[error("certificate `{certificate}` and key `{key}`: {source}", certificate = certificate.display(), key = key.display())]
    KeyMismatch {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// The CAs of clients, or their revocation lists, cannot be used.
    #[error("client CAs and their revocation lists `{path}`: {source}", path = path.display())]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: VerifierBuilderError,
    },
}

/// Makes connections private.
pub struct Tls {
    options: TlsOptions,
    loaded: ArcSwap<Loaded>,
    /// Told when the files were loaded again.
    changes: watch::Sender<()>,
    places: Semaphore,
}

/// What the files say.
struct Loaded {
    config: Arc<ServerConfig>,
    /// Asks clients for certificates; `None`: they are not asked.
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

/// Somebody who has shaken hands.
pub struct TlsConnection {
    /// The private connection.
    pub stream: TlsStream<TcpStream>,
    /// Whom the client's certificate names.
    pub names: Option<CertificateNames>,
    /// Whether that certificate is believed still.
    pub certificate: CertificateWatch,
}

/// A certificate that was believed at its handshake.
pub struct CertificateWatch {
    tls: Arc<Tls>,
    /// The client's own first; empty when it showed none.
    chain: Vec<CertificateDer<'static>>,
    changes: watch::Receiver<()>,
}

impl CertificateWatch {
    /// Resolves when the certificate is believed no more: it is on a revocation list, or its CA has gone.
    pub async fn revoked(&mut self) {
        let Some((own, between)) = self.chain.split_first() else { return std::future::pending().await };
        while self.changes.changed().await.is_ok() {
            let loaded = self.tls.loaded.load();
            let believed = |clients: &Arc<dyn ClientCertVerifier>| {
                clients.verify_client_cert(own, between, UnixTime::now()).is_ok()
            };
            if !loaded.clients.as_ref().is_some_and(believed) {
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}

impl Tls {
    /// Reads the files; gives what reads them again.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn open(options: TlsOptions) -> Result<(Arc<Self>, WatchedFiles), TlsError> {
        let mut paths = vec![options.certificate.clone(), options.key.clone()];
        paths.extend(options.client_ca.clone());
        paths.extend(options.client_crl.clone());
        let tls = Arc::new(Self {
            loaded: ArcSwap::from_pointee(load(&options)?),
            changes: watch::Sender::new(()),
            places: Semaphore::new(options.handshakes_max.min(Semaphore::MAX_PERMITS)),
            options,
        });
        let part = tls.clone();
        let reloaded = WatchedFiles::open("certificates", paths, move || {
            part.loaded.store(Arc::new(load(&part.options)?));
            part.changes.send_replace(());
            Ok::<_, TlsError>(())
        })?;
        Ok((tls, reloaded))
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// When the client does not follow the protocol, is not whom it should be, or takes too long.
    pub async fn accept(self: &Arc<Self>, stream: TcpStream) -> io::Result<TlsConnection> {
        // Before the files are looked at: no change is missed.
        let changes = self.changes.subscribe();
        let until = Instant::now() + self.options.handshake_timeout;
        let shaken = timeout_at(until, async {
            // Whoever says nothing costs nothing, and takes nobody's turn.
            let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
            // The semaphore is never closed.
            let _place = self.places.acquire().await;
            begun.into_stream(self.loaded.load().config.clone()).await
        });
        let stream =
            shaken.await.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long"))??;
        let chain = stream.get_ref().1.peer_certificates().map(<[_]>::to_vec).unwrap_or_default();
        let names = chain.first().and_then(CertificateNames::of);
        let certificate = CertificateWatch { tls: self.clone(), chain, changes };
        Ok(TlsConnection { stream, names, certificate })
    }
}

fn load(options: &TlsOptions) -> Result<Loaded, TlsError> {
    let chain = certificates(&options.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&options.key)
        .map_err(|source| TlsError::File { path: options.key.clone(), source })?;
    let provider = Arc::new(ring::default_provider());
    let mismatch =
        |source| TlsError::KeyMismatch { certificate: options.certificate.clone(), key: options.key.clone(), source };
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(mismatch)?;
    let clients = options.client_ca.as_ref().map(|path| clients(path, options)).transpose()?;
    let builder = match clients.clone() {
        None => builder.with_no_client_auth(),
        Some(clients) => builder.with_client_cert_verifier(clients),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(mismatch)?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Loaded { config: Arc::new(config), clients })
}

/// Who asks clients for certificates of those CAs.
fn clients(path: &Path, options: &TlsOptions) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let wrong = |source| TlsError::ClientCa { path: path.to_owned(), source };
    let mut roots = RootCertStore::empty();
    for root in certificates(path)? {
        roots.add(root).map_err(|_| wrong(VerifierBuilderError::NoRootAnchors))?;
    }
    let provider = Arc::new(ring::default_provider());
    let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if let Some(path) = &options.client_crl {
        verifier = verifier.with_crls(all::<CertificateRevocationListDer<'static>>(path, "revocation list")?);
    }
    let verifier = if options.client_required { verifier } else { verifier.allow_unauthenticated() };
    verifier.build().map_err(wrong)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    all(path, "certificate")
}

/// All of that kind in a file, one at least.
fn all<T: PemObject>(path: &Path, what: &'static str) -> Result<Vec<T>, TlsError> {
    let wrong = |source| TlsError::File { path: path.to_owned(), source };
    let found: Vec<T> = T::pem_file_iter(path).map_err(wrong)?.collect::<Result<_, _>>().map_err(wrong)?;
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
    fn files_that_cannot_be_used_are_told_by_name_and_never_by_content() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (pair(directory.path(), "one"), pair(directory.path(), "two"));
        assert!(Tls::open(one.clone()).is_ok());
        let empty = directory.path().join("empty.pem");
        std::fs::write(&empty, "nothing here").unwrap();
        let missing = directory.path().join("missing.pem");
        for (wrong, told) in [
            (TlsOptions { key: two.key.clone(), ..one.clone() }, "two.key"),
            (TlsOptions { key: one.certificate.clone(), ..one.clone() }, "one.pem"),
            (TlsOptions { certificate: empty.clone(), ..one.clone() }, "empty.pem"),
            (TlsOptions { certificate: missing.clone(), ..one.clone() }, "missing.pem"),
            (TlsOptions { client_ca: Some(missing), ..one.clone() }, "missing.pem"),
            (TlsOptions { client_ca: Some(empty.clone()), ..one.clone() }, "empty.pem"),
            (
                TlsOptions { client_ca: Some(one.certificate.clone()), client_crl: Some(empty), ..one.clone() },
                "empty.pem` has no revocation list",
            ),
        ] {
            let error = Tls::open(wrong).err().unwrap().to_string();
            assert!(error.contains(told), "{told}: {error}");
            assert!(!error.contains("BEGIN"), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_that_does_not_come_to_an_end_is_cut_and_those_behind_it_get_no_more_time() {
        let directory = tempfile::tempdir().unwrap();
        let (tls, _reloaded) = Tls::open(pair(directory.path(), "one")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let begun = Instant::now();
        let _clients = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
        let (first, second) = (listener.accept().await.unwrap().0, listener.accept().await.unwrap().0);
        let (first, second) = tokio::join!(tls.accept(first), tls.accept(second));
        assert_eq!(first.err().unwrap().kind(), io::ErrorKind::TimedOut);
        assert_eq!(second.err().unwrap().kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < Duration::from_millis(200), "{:?}", begun.elapsed());
    }
}
