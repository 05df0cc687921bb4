//! Section `[http]`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::model::SecretUrl;

use super::error::Problems;
use super::units::HumanDuration;

/// `[http]`: JSON calls, browsers and plain routes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Time limit for the first bytes of a connection and for the headers of an HTTP/1.1 request; also the idle timeout
    /// of HTTP/1.1 connections; 100ms to 1h. Default: 15s.
    pub header_timeout: HumanDuration,
    /// Time limit for receiving the body of a request, for gRPC too except client streams, 100ms to 1h. Default: 30s.
    pub body_timeout: HumanDuration,
    /// Origins of web pages that may call the server (CORS), such as `https://tasks.example.com`; "*" allows all. In an
    /// environment variable, separate them with commas. Default: none.
    #[serde(deserialize_with = "list")]
    pub allowed_origins: Vec<String>,
    /// Host names of this server, in addition to localhost and IP addresses. HTTP requests for another host name are
    /// refused if this list is not empty or the server listens on a loopback address; gRPC calls are not checked.
    /// Default: none.
    #[serde(deserialize_with = "list")]
    pub hosts: Vec<String>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            header_timeout: HumanDuration(Duration::from_secs(15)),
            body_timeout: HumanDuration(Duration::from_secs(30)),
            allowed_origins: Vec::new(),
            hosts: Vec::new(),
        }
    }
}

impl Http {
    pub(super) fn check(&self, problems: &mut Problems) {
        let (min, max) = (HumanDuration(Duration::from_millis(100)), HumanDuration(Duration::from_hours(1)));
        problems.check_range("http.header_timeout", self.header_timeout, min, max);
        problems.check_range("http.body_timeout", self.body_timeout, min, max);
        for (index, origin) in self.allowed_origins.iter().enumerate() {
            if !is_origin(origin) {
                let expected =
                    "must be an origin: scheme, host and optional port, such as \"https://tasks.example.com\"";
                problems.add(
                    format!("http.allowed_origins[{index}]"),
                    format!("{:?}", SecretUrl::from(&**origin)),
                    expected,
                );
            }
        }
        for (index, host) in self.hosts.iter().enumerate() {
            if host.is_empty() || !host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) {
                let expected = "must be a host name without scheme and port, such as \"tasks.example.com\"";
                problems.add(format!("http.hosts[{index}]"), format!("{:?}", SecretUrl::from(&**host)), expected);
            }
        }
    }
}

fn is_origin(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    text == "*" || rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', '?', '#', '@', '*', ' ']))
}

/// A list, or a string with commas, which is the form for environment variables.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a list of strings, or one string with commas")]
    enum Either {
        List(Vec<String>),
        Text(String),
    }
    Ok(match Either::deserialize(deserializer)? {
        Either::List(list) => list,
        Either::Text(text) => {
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_a_scheme_and_no_path() {
        for good in ["*", "https://tasks.example.com", "http://localhost:5173", "https://[::1]:8443"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in ["", "tasks.example.com", "https://", "https://a/", "https://*.example.com", "ftp://a"] {
            assert!(!is_origin(bad), "{bad}");
        }
    }

    #[test]
    fn a_list_can_be_one_string_with_commas() {
        let of = |text: &str| toml::from_str::<Http>(text).map(|http| http.hosts);
        assert_eq!(of("hosts = [\"a\", \"b\"]"), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(of("hosts = \"a, b,\""), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert!(of("hosts = 1").unwrap_err().to_string().contains("a list of strings"));
    }

    #[test]
    fn invalid_origins_and_host_names_are_reported() {
        let mut problems = Problems::default();
        let bad = Http {
            allowed_origins: vec!["*".to_owned(), "https://bob:hunter2@example.com".to_owned()],
            hosts: vec!["http://bob:hunter2@a".to_owned()],
            body_timeout: HumanDuration(Duration::ZERO),
            ..Http::default()
        };
        bad.check(&mut problems);
        let fields: Vec<_> = problems.0.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(fields, ["http.body_timeout", "http.allowed_origins[1]", "http.hosts[0]"]);
        assert!(!format!("{problems:?}").contains("hunter2"), "{problems:?}");
    }
}
