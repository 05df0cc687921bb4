//! The collector of a signal, from the variables whose names begin with `OTEL_EXPORTER_OTLP`.

use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tonic::codegen::http::{HeaderMap, HeaderName, HeaderValue};

use super::variables::Reader;
use super::{Protocol, Signal, Target, endpoint, usual, words};

/// What the configuration says; empty for no word.
pub(super) struct Otlp<'a> {
    pub endpoint: &'a str,
    pub protocol: &'a str,
}

/// What is said of where the collector is.
enum Place {
    /// For this signal only, with its path.
    Own(String),
    /// For all signals.
    All(String),
    /// Nothing.
    Unsaid,
}

impl Otlp<'_> {
    /// The collector that somebody has named.
    pub fn named(&self, reader: &mut Reader<'_>, signal: Signal) -> Option<Target> {
        match self.place(reader, signal)? {
            Place::Unsaid => None,
            place => Some(self.target(reader, signal, place)),
        }
    }

    /// The same, or one on this machine; `None` when what was named cannot be used: what is meant for another
    /// place does not go here.
    pub fn named_or_usual(&self, reader: &mut Reader<'_>, signal: Signal) -> Option<Target> {
        let place = self.place(reader, signal)?;
        Some(self.target(reader, signal, place))
    }

    /// The first that can be used; `None` when there are only others.
    fn place(&self, reader: &mut Reader<'_>, signal: Signal) -> Option<Place> {
        let (own, all) = (format!("{}_ENDPOINT", own_prefix(signal)), "OTEL_EXPORTER_OTLP_ENDPOINT");
        let mut wrong = false;
        let mut usable = |reader: &mut Reader<'_>, name: &str, said: Option<String>| {
            let said = said?;
            // With which of them it is completed changes nothing about that.
            let good = endpoint::is_endpoint(&endpoint::with_scheme(&said, Protocol::Http, true));
            if !good {
                wrong = true;
                reader.ignore(name, endpoint::EXPECTED);
            }
            good.then_some(said)
        };
        let said = reader.text(&own).map(str::to_owned);
        if let Some(said) = usable(reader, &own, said) {
            return Some(Place::Own(said));
        }
        // A variable that cannot be used counts as unset.
        let said = reader.text(all).map(str::to_owned);
        let configured = Some(self.endpoint.to_owned()).filter(|endpoint| !endpoint.is_empty());
        let found = usable(reader, all, said).or_else(|| usable(reader, "telemetry.endpoint", configured));
        match found {
            Some(said) => Some(Place::All(said)),
            None if wrong => None,
            None => Some(Place::Unsaid),
        }
    }

    fn target(&self, reader: &mut Reader<'_>, signal: Signal, place: Place) -> Target {
        let said = match &place {
            Place::Own(said) | Place::All(said) => Some(said.as_str()),
            Place::Unsaid => None,
        };
        let protocol = self.protocol(reader, signal, said);
        let endpoint = match place {
            // As it stands, the specification says.
            Place::Own(own) => own,
            Place::All(all) if protocol == Protocol::Grpc => all,
            Place::All(all) => endpoint::of_signal(&all, signal),
            Place::Unsaid if protocol == Protocol::Grpc => usual::GRPC.to_owned(),
            Place::Unsaid => endpoint::of_signal(usual::HTTP, signal),
        };
        Target {
            protocol,
            endpoint: endpoint::with_scheme(&endpoint, protocol, insecure(reader, signal)),
            headers: headers(reader, signal),
            gzip: gzip(reader, signal),
            timeout: timeout(reader, signal),
            certificate: reader.of_signal(signal, "CERTIFICATE").map(|(_, path)| path.into()),
            identity: identity(reader, signal),
        }
    }

    /// Without a word, port 4317 is gRPC, and everything else HTTP.
    fn protocol(&self, reader: &mut Reader<'_>, signal: Signal, endpoint: Option<&str>) -> Protocol {
        let name = reader.of_signal(signal, "PROTOCOL").map(|(name, _)| name);
        let said = name.and_then(|name| reader.meaning(&name, words::PROTOCOLS));
        let usual = endpoint.is_some_and(endpoint::is_usual_of_grpc);
        said.unwrap_or(match self.protocol {
            "grpc" => Protocol::Grpc,
            "" if usual => Protocol::Grpc,
            _ => Protocol::Http,
        })
    }
}

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

fn insecure(reader: &mut Reader<'_>, signal: Signal) -> bool {
    reader.of_signal(signal, "INSECURE").is_some_and(|(name, _)| reader.flag(&name))
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
        // A `%` that begins no byte stands for itself: tokens come with such.
        header(key.trim(), &percent_decode_str(value.trim()).decode_utf8_lossy())
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
    let name = reader.of_signal(signal, "COMPRESSION").map(|(name, _)| name);
    name.and_then(|name| reader.meaning(&name, words::COMPRESSIONS)).unwrap_or(false)
}

fn timeout(reader: &mut Reader<'_>, signal: Signal) -> Duration {
    let name = reader.of_signal(signal, "TIMEOUT").map(|(name, _)| name);
    name.and_then(|name| reader.timeout(&name)).unwrap_or(usual::CALL_TIMEOUT)
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
