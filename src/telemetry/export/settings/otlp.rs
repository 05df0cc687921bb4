//! The collector of a signal, from the variables whose names begin with `OTEL_EXPORTER_OTLP`.

use std::path::PathBuf;
use std::time::Duration;

use tonic::codegen::http::{HeaderMap, HeaderName, HeaderValue};

use super::variables::{Reader, decoded};
use super::{Protocol, Signal, Target};

/// Longest that an export may take when nobody says otherwise.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// What the configuration says; empty for no word.
pub(super) struct Otlp<'a> {
    pub endpoint: &'a str,
    pub protocol: &'a str,
}

impl Otlp<'_> {
    pub fn has_endpoint(&self, reader: &Reader<'_>, signal: Signal) -> bool {
        !self.endpoint.is_empty() || reader.of_signal(signal, "ENDPOINT").is_some()
    }

    pub fn target(&self, reader: &mut Reader<'_>, signal: Signal) -> Target {
        let own = reader.text(&format!("{}_ENDPOINT", own_prefix(signal))).map(str::to_owned);
        let all = reader.text("OTEL_EXPORTER_OTLP_ENDPOINT").or(Some(self.endpoint).filter(|text| !text.is_empty()));
        let all = all.map(str::to_owned);
        let protocol = self.protocol(reader, signal, own.as_deref().or(all.as_deref()));
        let endpoint = match own {
            // As it stands, the specification says.
            Some(own) => own,
            None if protocol == Protocol::Grpc => all.unwrap_or_else(|| GRPC.to_owned()),
            None => {
                let base = all.unwrap_or_else(|| HTTP.to_owned());
                format!("{}/v1/{}", base.trim_end_matches('/'), signal.name())
            }
        };
        Target {
            protocol,
            endpoint: with_scheme(endpoint, protocol, insecure(reader, signal)),
            headers: headers(reader, signal),
            gzip: gzip(reader, signal),
            timeout: timeout(reader, signal),
            certificate: reader.of_signal(signal, "CERTIFICATE").map(|(_, path)| path.into()),
            identity: identity(reader, signal),
        }
    }

    /// Without a word, port 4317 is gRPC, and everything else HTTP.
    fn protocol(&self, reader: &mut Reader<'_>, signal: Signal, endpoint: Option<&str>) -> Protocol {
        if let Some((name, value)) = reader.of_signal(signal, "PROTOCOL") {
            match value.to_ascii_lowercase().as_str() {
                "grpc" => return Protocol::Grpc,
                "http/protobuf" => return Protocol::Http,
                "http/json" => return Protocol::HttpJson,
                _ => reader.ignore(&name, "expected grpc, http/protobuf or http/json"),
            }
        }
        let usual = endpoint.is_some_and(|endpoint| endpoint.trim_end_matches('/').ends_with(":4317"));
        match self.protocol {
            "grpc" => Protocol::Grpc,
            "" if usual => Protocol::Grpc,
            _ => Protocol::Http,
        }
    }
}

/// Where a collector of this machine listens.
pub(super) const GRPC: &str = "http://localhost:4317";
/// Where a collector of this machine listens.
pub(super) const HTTP: &str = "http://localhost:4318";

fn own_prefix(signal: Signal) -> String {
    format!("OTEL_EXPORTER_OTLP_{}", signal.name().to_ascii_uppercase())
}

impl Reader<'_> {
    /// The variable of a signal, or the one for all of them: its name and value.
    fn of_signal(&self, signal: Signal, rest: &str) -> Option<(String, String)> {
        let names = [format!("{}_{rest}", own_prefix(signal)), format!("OTEL_EXPORTER_OTLP_{rest}")];
        names.into_iter().find_map(|name| self.text(&name).map(str::to_owned).map(|value| (name, value)))
    }
}

/// gRPC endpoints may come without a scheme; then they are secure unless said otherwise.
pub(super) fn with_scheme(endpoint: String, protocol: Protocol, insecure: bool) -> String {
    if endpoint.contains("://") {
        return endpoint;
    }
    let plain = insecure || protocol != Protocol::Grpc;
    format!("{}://{endpoint}", if plain { "http" } else { "https" })
}

fn insecure(reader: &Reader<'_>, signal: Signal) -> bool {
    reader.of_signal(signal, "INSECURE").is_some_and(|(_, value)| value.eq_ignore_ascii_case("true"))
}

/// Those pairs that can be sent.
fn headers(reader: &mut Reader<'_>, signal: Signal) -> HeaderMap {
    let Some((name, value)) = reader.of_signal(signal, "HEADERS") else { return HeaderMap::new() };
    let (found, all) = header_list(&value);
    if !all {
        reader.warn(format!("a part of {name} is ignored: expected key=value pairs with commas between them"));
    }
    found
}

/// The pairs of a list of headers, values percent-encoded, and whether nothing else is among them.
pub(super) fn header_list(text: &str) -> (HeaderMap, bool) {
    let parts = text.split_terminator(',').map(|pair| {
        let (key, value) = pair.split_once('=')?;
        header(key.trim(), &decoded(value.trim()))
    });
    let parts: Vec<_> = parts.collect();
    let all = parts.iter().all(Option::is_some);
    (parts.into_iter().flatten().collect(), all)
}

/// A header, if such a one can be sent; its value is never shown.
pub(super) fn header(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some((HeaderName::from_bytes(name.as_bytes()).ok()?, value))
}

fn gzip(reader: &mut Reader<'_>, signal: Signal) -> bool {
    let Some((name, value)) = reader.of_signal(signal, "COMPRESSION") else { return false };
    match value.to_ascii_lowercase().as_str() {
        "gzip" => true,
        "none" => false,
        _ => {
            reader.ignore(&name, "expected gzip or none");
            false
        }
    }
}

fn timeout(reader: &mut Reader<'_>, signal: Signal) -> Duration {
    let name = reader.of_signal(signal, "TIMEOUT").map(|(name, _)| name);
    name.and_then(|name| reader.timeout(&name)).unwrap_or(TIMEOUT)
}

fn identity(reader: &mut Reader<'_>, signal: Signal) -> Option<(PathBuf, PathBuf)> {
    let path = |found: Option<(String, String)>| found.map(|(_, path)| PathBuf::from(path));
    let certificate = path(reader.of_signal(signal, "CLIENT_CERTIFICATE"));
    let key = path(reader.of_signal(signal, "CLIENT_KEY"));
    if certificate.is_some() != key.is_some() {
        reader.ignore("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "it and ..._CLIENT_KEY go together");
    }
    certificate.zip(key)
}
