//! OTLP exporters, with the TLS files and the HTTP client that the library does not set up by itself.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use opentelemetry_http::{Bytes, HttpError, Request, Response};
use opentelemetry_otlp::{
    ExporterBuildError, LogExporter, MetricExporter, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};
use ureq::tls::{ClientCert, PrivateKey, RootCerts, TlsConfig};

use super::counts::Counts;
use super::settings::{Collector, Protocol};

/// Bytes of a collector's answer that are read.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("failed to read {path}: {source}", path = path.display())]
    Pem { path: PathBuf, source: io::Error },
    #[error("failed to build the OTLP exporter: {0}")]
    Build(#[from] ExporterBuildError),
    #[error("failed to start the runtime of the exporters: {0}")]
    Runtime(#[source] io::Error),
}

/// The three builders have the same methods but no common trait.
macro_rules! build {
    ($builder:expr, $collector:expr, $counts:expr) => {{
        let collector: &Collector = $collector;
        match collector.protocol {
            Protocol::Grpc => {
                let builder = $builder.with_tonic().with_timeout(collector.timeout);
                let builder = match grpc_tls(collector)? {
                    Some(tls) => builder.with_tls_config(tls),
                    None => builder,
                };
                match &collector.endpoint_override {
                    Some(endpoint) => builder.with_endpoint(endpoint).build()?,
                    None => builder.build()?,
                }
            }
            Protocol::Http => {
                let builder = $builder.with_http().with_timeout(collector.timeout);
                let builder = builder.with_protocol(opentelemetry_otlp::Protocol::HttpBinary);
                let builder = builder.with_http_client(HttpClient::new(collector, $counts)?);
                match &collector.endpoint_override {
                    Some(endpoint) => builder.with_endpoint(endpoint).build()?,
                    None => builder.build()?,
                }
            }
        }
    }};
}

/// Call it inside the runtime of the exporters, which drives gRPC connections.
pub(super) fn spans(collector: &Collector, counts: &Arc<Counts>) -> Result<SpanExporter, ExportError> {
    Ok(build!(SpanExporter::builder(), collector, counts))
}

pub(super) fn logs(collector: &Collector, counts: &Arc<Counts>) -> Result<LogExporter, ExportError> {
    Ok(build!(LogExporter::builder(), collector, counts))
}

pub(super) fn metrics(collector: &Collector, counts: &Arc<Counts>) -> Result<MetricExporter, ExportError> {
    Ok(build!(MetricExporter::builder(), collector, counts))
}

fn grpc_tls(collector: &Collector) -> Result<Option<ClientTlsConfig>, ExportError> {
    if !collector.is_secure() {
        return Ok(None);
    }
    let mut tls = match &collector.certificate {
        Some(path) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(certificates(path)?.0)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    if let Some((certificate, key)) = &collector.identity {
        tls = tls.identity(Identity::from_pem(certificates(certificate)?.0, private_key(key)?));
    }
    Ok(Some(tls))
}

/// A blocking client, because the SDK exports in its own threads.
#[derive(Debug)]
struct HttpClient {
    agent: ureq::Agent,
    counts: Arc<Counts>,
}

impl HttpClient {
    fn new(collector: &Collector, counts: &Arc<Counts>) -> Result<Self, ExportError> {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(collector.timeout))
            .max_redirects(0)
            .http_status_as_error(false)
            .proxy(None)
            .tls_config(http_tls(collector)?);
        Ok(Self { agent: config.build().into(), counts: counts.clone() })
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let (parts, mut body) = self.agent.run(request.map(|body| body.to_vec()))?.into_parts();
        let body = body.with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
        Ok(Response::from_parts(parts, body.into()))
    }
}

#[tonic::async_trait]
impl opentelemetry_http::HttpClient for HttpClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let result = self.send(request);
        self.counts.set_http_error(result.as_ref().err().map(ToString::to_string));
        result.map_err(Into::into)
    }
}

fn http_tls(collector: &Collector) -> Result<TlsConfig, ExportError> {
    let owned = |certificates: Vec<CertificateDer<'static>>| {
        certificates.iter().map(|der| ureq::tls::Certificate::from_der(der).to_owned()).collect::<Vec<_>>()
    };
    let mut tls = TlsConfig::builder();
    if let Some(path) = &collector.certificate {
        tls = tls.root_certs(RootCerts::new_with_certs(&owned(certificates(path)?.1)));
    } else if collector.is_secure() {
        // Certificates of the system that cannot be read are left out.
        tls = tls.root_certs(RootCerts::new_with_certs(&owned(rustls_native_certs::load_native_certs().certs)));
    }
    if let Some((certificate, key)) = &collector.identity {
        let private = PrivateKey::from_pem(&private_key(key)?).map_err(|error| unusable(key, error))?;
        tls = tls.client_cert(Some(ClientCert::new_with_certs(&owned(certificates(certificate)?.1), private)));
    }
    Ok(tls.build())
}

fn read(path: &Path) -> Result<Vec<u8>, ExportError> {
    std::fs::read(path).map_err(|source| ExportError::Pem { path: path.to_owned(), source })
}

fn unusable(path: &Path, error: impl ToString) -> ExportError {
    ExportError::Pem { path: path.to_owned(), source: io::Error::other(error.to_string()) }
}

/// The certificates of a file, as PEM and decoded.
fn certificates(path: &Path) -> Result<(Vec<u8>, Vec<CertificateDer<'static>>), ExportError> {
    let pem = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| unusable(path, error))?;
    if found.is_empty() { Err(unusable(path, "it contains no certificate")) } else { Ok((pem, found)) }
}

/// A file with a private key, as PEM.
fn private_key(path: &Path) -> Result<Vec<u8>, ExportError> {
    let pem = read(path)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| unusable(path, error))?;
    Ok(pem)
}
