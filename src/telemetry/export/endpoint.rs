//! URLs of collectors.

use tonic::codegen::http::Uri;

/// The form of an endpoint, for error texts.
pub const EXPECTED: &str = "expected http://host:port or https://host:port";

/// Whether the text is an `http` or `https` URL with a host and a valid port, if it has one.
pub fn is_endpoint(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let Some(authority) = uri.authority() else { return false };
    let host = authority.host();
    let address = authority.as_str().rsplit('@').next().unwrap_or_default();
    let is_port = |port: &str| port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    // Lower case only: other code looks for `https://`.
    let has_scheme = text.starts_with("http://") || text.starts_with("https://");
    has_scheme && !host.is_empty() && address.strip_prefix(host).is_some_and(|port| port.is_empty() || is_port(port))
}

/// A gRPC endpoint may lack a scheme; the OTLP library then uses TLS unless `insecure`.
pub(super) fn with_scheme(endpoint: &str, insecure: bool) -> String {
    if endpoint.contains("://") {
        return endpoint.to_owned();
    }
    format!("{}://{endpoint}", if insecure { "http" } else { "https" })
}

/// The HTTP endpoint of a signal, as the OTLP library makes it from the endpoint for all signals.
pub(super) fn with_signal_path(base: &str, signal: &str) -> String {
    format!("{}/v1/{signal}", base.strip_suffix('/').unwrap_or(base))
}

/// Whether the endpoint has port 4317 and no path.
pub(super) fn has_grpc_port(endpoint: &str) -> bool {
    endpoint.trim_end_matches('/').ends_with(":4317")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_a_scheme_a_host_and_optionally_a_port() {
        for valid in ["http://c", "https://c:4318/v1/traces?key=1", "http://[::1]:1", "http://me:word@10.0.0.1:65535"] {
            assert!(is_endpoint(valid), "{valid}");
        }
        for invalid in [
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
            "http://a b",
        ] {
            assert!(!is_endpoint(invalid), "{invalid}");
        }
        assert!(!is_endpoint("http://c:65536"));
    }
}
