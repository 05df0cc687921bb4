//! What to do when a call brought no answer from a server, by the cause.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError};
use tonic::{Code, Status};

const REFUSED: &str = "start a server with `lineshaft serve`, or correct the address in --server";
const NO_NAME: &str = "correct the host name in --server";
const NO_ANSWER: &str = "the server, or something on the way to it, does not respond: look at the server's log, and check the \
                         address and the firewalls";
const NOT_GRPC: &str = "what listens there does not speak gRPC without TLS: write https:// in --server if it uses TLS, or \
                        correct the address";
const NOT_TLS: &str = "what listens there does not use TLS: write http:// in --server, or correct the address";
const UNKNOWN_CA: &str = "the CA of the server's certificate is not trusted: name its file with --tls-ca";
const WRONG_NAME: &str = "write a name that the server's certificate has in --server";
const BAD_TIME: &str = "the server needs a new certificate, unless the clock of this machine is wrong";
const BAD_CERTIFICATE: &str = "the server needs another certificate";
const NO_CERTIFICATE: &str = "the server requires a client certificate: pass --tls-cert and --tls-key";
const REFUSED_TLS: &str =
    "the server refused the TLS connection: check --tls-cert and --tls-key; its log has the reason at level debug";
const CLOSED: &str = "the server closed the connection without an answer: write https:// in --server if it uses TLS; pass --tls-cert and \
                      --tls-key if it requires a client certificate; else look at its log, the call may have been carried out";
const BROKEN: &str = "the connection broke: the call may or may not have been carried out; look at the server's log";

pub fn hint(status: &Status) -> &'static str {
    let mut cause: Option<&(dyn Error + 'static)> = status.source();
    while let Some(error) = cause {
        if let Some(hint) = hint_for(error) {
            return hint;
        }
        cause = error.source();
    }
    match status.code() {
        Code::DeadlineExceeded => NO_ANSWER,
        _ => BROKEN,
    }
}

fn hint_for(error: &(dyn Error + 'static)) -> Option<&'static str> {
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        return Some(tls_hint(error));
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        // Not its source, which is that of the inner error.
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        return match error.kind() {
            _ if inner.is_some() => inner.map(tls_hint),
            io::ErrorKind::ConnectionRefused => Some(REFUSED),
            io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                Some(NO_ANSWER)
            }
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => Some(CLOSED),
            // h2 passes an error on to all calls of the connection, of which all but one get its text only.
            _ if error.to_string() == no_certificate().to_string() => Some(NO_CERTIFICATE),
            _ => None,
        };
    }
    // These types are not public.
    let text = error.to_string();
    if text.starts_with("dns error") {
        Some(NO_NAME)
    } else if text.contains("frame with invalid size") {
        Some(NOT_GRPC)
    } else if text.starts_with("stream closed") || text.contains("connection closed") {
        Some(CLOSED)
    } else if text.contains("timed out") || text.contains("imeout expired") {
        Some(NO_ANSWER)
    } else {
        None
    }
}

fn no_certificate() -> rustls::Error {
    rustls::Error::AlertReceived(AlertDescription::CertificateRequired)
}

fn tls_hint(error: &rustls::Error) -> &'static str {
    use CertificateError as Bad;
    match error {
        // A bad signature: another CA of the same name.
        rustls::Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => UNKNOWN_CA,
        rustls::Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => WRONG_NAME,
        rustls::Error::InvalidCertificate(
            Bad::Expired | Bad::ExpiredContext { .. } | Bad::NotValidYet | Bad::NotValidYetContext { .. },
        ) => BAD_TIME,
        rustls::Error::InvalidCertificate(_) => BAD_CERTIFICATE,
        rustls::Error::InvalidMessage(_) => NOT_TLS,
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => NO_CERTIFICATE,
        _ => REFUSED_TLS,
    }
}
