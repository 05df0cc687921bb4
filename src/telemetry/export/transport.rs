//! Exporters of OTLP, with the certificates that the library does not read by itself. What it would read by
//! itself it does not find: see [`forget_variables`](super::forget_variables).
//!
//! The library keeps the reason to itself when a call over HTTP fails; so its client notes it down.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::Protocol::{HttpBinary, HttpJson};
use opentelemetry_otlp::{
    Compression, ExporterBuildError, LogExporter, MetricExporter, SpanExporter, WithExportConfig, WithHttpConfig,
    WithTonicConfig,
};
use opentelemetry_sdk::metrics::Temporality;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tonic::codegen::http::HeaderMap;
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::Counts;
use super::lines::Lines;
use super::settings::{Destination, Protocol, Target};

/// Why nothing can be exported.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// A certificate or a key cannot be read.
    #[error("failed to read {path}: {source}", path = path.display())]
    Pem {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// Certificates or keys do not fit.
    #[error("failed to prepare TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The library refuses.
    #[error("failed to build the exporter: {0}")]
    Build(#[from] ExporterBuildError),
    /// The library refuses.
    #[error("failed to build the exporter to Zipkin: {0}")]
    Zipkin(String),
    /// What is exported cannot be written.
    #[error("failed to open {path} for telemetry: {source}", path = path.display())]
    File {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// The system refuses.
    #[error("failed to start the exporters' runtime: {0}")]
    Runtime(#[source] io::Error),
}

/// The three builders have the same methods and no trait in common.
macro_rules! over {
    ($builder:expr, $destination:expr, $counts:expr) => {{
        let builder = $builder;
        match $destination {
            Destination::Collector(target) if target.protocol == Protocol::Grpc => {
                let builder = builder.with_tonic().with_endpoint(&target.endpoint).with_timeout(target.timeout);
                let builder = builder.with_metadata(MetadataMap::from_headers(target.headers.clone()));
                let builder = if target.gzip { builder.with_compression(Compression::Gzip) } else { builder };
                match grpc_tls(target)? {
                    Some(tls) => builder.with_tls_config(tls).build()?,
                    None => builder.build()?,
                }
            }
            Destination::Collector(target) => {
                let builder = builder.with_http().with_endpoint(&target.endpoint).with_timeout(target.timeout);
                let builder = if target.gzip { builder.with_compression(Compression::Gzip) } else { builder };
                let json = target.protocol == Protocol::HttpJson;
                let builder = builder.with_protocol(if json { HttpJson } else { HttpBinary });
                builder.with_http_client(http_client(target, $counts)?).build()?
            }
            // The library writes its JSON as the body of a request, which is what stands in a line.
            Destination::Lines(file) => {
                let builder = builder.with_http().with_protocol(HttpJson);
                builder.with_http_client(Lines::open(file.as_deref())?).build()?
            }
        }
    }};
}

/// Call it inside the exporters' runtime.
pub(super) fn spans(to: &Destination, counts: &Arc<Counts>) -> Result<SpanExporter, TransportError> {
    Ok(over!(SpanExporter::builder(), to, counts))
}

/// Call it inside the exporters' runtime.
pub(super) fn logs(to: &Destination, counts: &Arc<Counts>) -> Result<LogExporter, TransportError> {
    Ok(over!(LogExporter::builder(), to, counts))
}

/// Call it inside the exporters' runtime.
pub(super) fn metrics(
    to: &Destination,
    temporality: Temporality,
    counts: &Arc<Counts>,
) -> Result<MetricExporter, TransportError> {
    Ok(over!(MetricExporter::builder().with_temporality(temporality), to, counts))
}

fn read(path: &Path) -> Result<Vec<u8>, TransportError> {
    std::fs::read(path).map_err(|source| TransportError::Pem { path: path.to_owned(), source })
}

fn grpc_tls(target: &Target) -> Result<Option<ClientTlsConfig>, TransportError> {
    if !target.endpoint.starts_with("https://") {
        return Ok(None);
    }
    let mut tls = match &target.certificate {
        Some(path) => {
            certificates(path)?;
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(path)?))
        }
        None => ClientTlsConfig::new().with_native_roots(),
    };
    if let Some((certificate, key)) = &target.identity {
        certificates(certificate)?;
        private_key(key)?;
        tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(Some(tls))
}

/// A client for the target, which notes why its calls fail.
pub(super) fn http_client(target: &Target, counts: &Arc<Counts>) -> Result<Noting, TransportError> {
    let tls = http_tls(target)?;
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
    let client = HyperClient::new(connector, target.timeout, None);
    Ok(Noting { client, headers: target.headers.clone(), counts: counts.clone() })
}

/// Sends the headers that were said, and notes why a call has failed, if it has.
#[derive(Debug)]
pub(super) struct Noting {
    client: HyperClient<HttpsConnector<HttpConnector>>,
    headers: HeaderMap,
    counts: Arc<Counts>,
}

#[tonic::async_trait]
impl HttpClient for Noting {
    async fn send_bytes(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        // The library would decode them once more.
        request.headers_mut().extend(self.headers.clone());
        let answer = self.client.send_bytes(request).await;
        self.counts.note(answer.as_ref().err().map(|error| with_causes(&**error)));
        answer
    }
}

/// That a certificate was not believed stands deep down.
pub(super) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut texts = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        texts.push(error.to_string());
        next = error.source();
    }
    texts.dedup();
    texts.join(": ")
}

fn http_tls(target: &Target) -> Result<ClientConfig, TransportError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &target.certificate {
        for certificate in certificates(path)? {
            roots.add(certificate)?;
        }
    } else if target.endpoint.starts_with("https://") {
        // Those that cannot be read are for others.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(roots);
    let Some((certificate, key)) = &target.identity else { return Ok(builder.with_no_client_auth()) };
    Ok(builder.with_client_auth_cert(certificates(certificate)?, private_key(key)?)?)
}

fn malformed(path: &Path) -> impl FnOnce(rustls::pki_types::pem::Error) -> TransportError {
    move |error| TransportError::Pem { path: path.to_owned(), source: io::Error::other(error.to_string()) }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TransportError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    let found = found.map_err(malformed(path))?;
    if found.is_empty() {
        return Err(TransportError::Pem { path: path.to_owned(), source: io::Error::other("it holds no certificate") });
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TransportError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(malformed(path))
}
