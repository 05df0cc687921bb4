//! URLs of collectors.

use tonic::codegen::http::Uri;

use super::{Protocol, Signal};

/// What an endpoint is, for people.
pub const EXPECTED: &str = "expected http://host:port or https://host:port";

/// Whether something can be sent there: `http` or `https`, a host, and a port if there is one.
pub fn is_endpoint(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let Some(authority) = uri.authority() else { return false };
    let host = authority.host();
    let place = authority.as_str().rsplit('@').next().unwrap_or_default();
    let is_port = |port: &str| port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    // As they stand: what looks for `https://` later does so too.
    let has_scheme = text.starts_with("http://") || text.starts_with("https://");
    has_scheme && !host.is_empty() && place.strip_prefix(host).is_some_and(|port| port.is_empty() || is_port(port))
}

/// gRPC endpoints may come without a scheme; then they are secure unless said otherwise.
pub(super) fn with_scheme(endpoint: &str, protocol: Protocol, insecure: bool) -> String {
    if endpoint.contains("://") {
        return endpoint.to_owned();
    }
    let plain = insecure || protocol != Protocol::Grpc;
    format!("{}://{endpoint}", if plain { "http" } else { "https" })
}

/// That of a signal over HTTP, from the one for all of them; a query stays behind the path.
pub(super) fn of_signal(all: &str, signal: Signal) -> String {
    let (path, query) = all.split_at(all.find(['?', '#']).unwrap_or(all.len()));
    format!("{}/v1/{}{query}", path.trim_end_matches('/'), signal.name())
}

/// Whether it has the usual port of gRPC, and no path.
pub(super) fn is_usual_of_grpc(endpoint: &str) -> bool {
    let path = endpoint.split(['?', '#']).next().unwrap_or_default();
    path.trim_end_matches('/').ends_with(":4317")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_a_scheme_a_host_and_perhaps_a_port() {
        for fine in ["http://c", "https://c:4318/v1/traces?key=1", "http://[::1]:1", "http://me:word@10.0.0.1:65535"] {
            assert!(is_endpoint(fine), "{fine}");
        }
        for wrong in [
            "",
            "c",
            "c:4317",
            "/v1",
            "ftp://c",
            "HTTPS://c",
            "://c:1",
            "http://",
            "http://:1",
            "http://me@",
            "http://c:65536",
            "http://a b",
        ] {
            assert!(!is_endpoint(wrong), "{wrong}");
        }
    }
}
