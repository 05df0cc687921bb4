//! Opens connections to a service: TCP, and TLS with HTTP/2 if the service offers it.

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower::Service;

use super::guard::{Guard, Refused};
use super::options::OptionsError;
use crate::model::{Network, UrlTemplate};
use crate::runners::BoxFuture;

/// Time to resolve a name and to open a connection, including TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Common servers close a connection that was idle for 5 seconds or longer, and a request that meets that is lost.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// Idle connections that a handler keeps; as many as calls in flight would only cost memory.
const IDLE_CONNECTIONS_MAX: usize = 256;
/// Header of a response: all its lines together.
const HEADER_BYTES_MAX: u32 = 64 * 1024;
/// How often a connection is checked that has calls in flight, but is silent, and how long an answer may take.
const KEEPALIVE: Duration = Duration::from_secs(30);

pub(super) type HttpClient = Client<Connector, Full<Bytes>>;
type BoxError = Box<dyn Error + Send + Sync>;

/// The connections to the host of `url`.
pub(super) fn client(url: &UrlTemplate, ca: Option<&Path>, allowed: &[Network]) -> Result<HttpClient, OptionsError> {
    let guard = Guard::new(allowed);
    let mut tcp = HttpConnector::new_with_resolver(guard.clone());
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE / 3));
    tcp.set_keepalive_retries(Some(3));
    let tls = if url.is_https() { Some(tls(url, ca)?) } else { None };
    Ok(Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_MAX)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .http1_max_buf_size(HEADER_BYTES_MAX as usize)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keep_alive_interval(KEEPALIVE)
        .http2_keep_alive_timeout(KEEPALIVE)
        .build(Connector { tcp, tls, guard }))
}

fn tls(url: &UrlTemplate, ca: Option<&Path>) -> Result<(TlsConnector, ServerName<'static>), OptionsError> {
    let name = url.host().trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(name).map_err(|_| OptionsError::BadServerName)?;
    let roots = match ca {
        Some(path) => Arc::new(roots_of(path)?),
        None => system_roots(),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(OptionsError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((TlsConnector::from(Arc::new(config)), name))
}

fn roots_of(path: &Path) -> Result<RootCertStore, OptionsError> {
    let unreadable = |source| OptionsError::Unreadable { setting: "http.ca", path: path.to_owned(), source };
    let pem = std::fs::read(path).map_err(unreadable)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let added = certificate.ok().map(|certificate| roots.add(certificate));
        if !matches!(added, Some(Ok(()))) {
            return Err(OptionsError::NoCertificate { path: path.to_owned() });
        }
    }
    if roots.is_empty() { Err(OptionsError::NoCertificate { path: path.to_owned() }) } else { Ok(roots) }
}

/// The CAs that the system trusts, read once. Those that cannot be read are left out.
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let read = || {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    };
    ROOTS.get_or_init(read).clone()
}

#[derive(Clone)]
pub(super) struct Connector {
    tcp: HttpConnector<Guard>,
    /// `None` for a URL without TLS.
    tls: Option<(TlsConnector, ServerName<'static>)>,
    guard: Guard,
}

impl Connector {
    async fn connect(mut self, uri: Uri) -> Result<Stream, BoxError> {
        // Literal addresses are not resolved, so the resolver does not see them.
        check_literal(&self.guard, uri.host().unwrap_or_default())?;
        let tcp = self.tcp.call(uri).await?.into_inner();
        let Some((tls, name)) = self.tls else {
            return Ok(Stream { io: TokioIo::new(Box::new(tcp)), is_http2: false });
        };
        let stream = tls.connect(name, tcp).await?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Stream { io: TokioIo::new(Box::new(stream)), is_http2 })
    }
}

fn check_literal(guard: &Guard, host: &str) -> Result<(), Refused> {
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) => guard.check(host, address),
        Err(_) => Ok(()),
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = BoxFuture<Result<Stream, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.clone().connect(uri);
        Box::pin(async move {
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {CONNECT_TIMEOUT:?}"));
            timeout(CONNECT_TIMEOUT, connecting).await.map_err(late)?
        })
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection with or without TLS.
pub(super) struct Stream {
    io: TokioIo<Box<dyn Io>>,
    is_http2: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        if self.is_http2 { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_addresses_are_checked() {
        let guard = Guard::new(&[Network::parse("10.0.0.0/8").unwrap()]);
        for host in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "[64:ff9b::7f00:1]", "0.0.0.0"] {
            assert!(check_literal(&guard, host).is_err(), "{host}");
        }
        for host in ["1.1.1.1", "10.1.2.3", "[::ffff:10.1.2.3]", "[2606:4700::1111]", "example.com"] {
            assert!(check_literal(&guard, host).is_ok(), "{host}");
        }
    }
}
