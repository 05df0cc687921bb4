//! `[http]`: callers that are no gRPC clients.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::error::Problems;
use super::units::HumanDuration;

/// `[http]`: JSON, browsers and plain routes on the same port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Time in which a connection must say what it speaks and send the headers of an HTTP/1.1 call, and
    /// for which such a connection may be idle, 100ms to 1h. Default 15s.
    pub header_timeout: HumanDuration,
    /// Time in which the body of a call must be complete, of gRPC too unless it is a stream, 100ms to 1h.
    /// Default 30s.
    pub body_timeout: HumanDuration,
    /// Origins of web pages that may call (CORS), such as `https://tasks.example.com`; "*" lets every page
    /// call. In the environment with commas between. Default: none.
    #[serde(deserialize_with = "list")]
    pub allowed_origins: Vec<String>,
    /// Names of this server besides localhost and addresses; on a loopback address, and wherever some are
    /// given, calls by other names are refused. gRPC is not asked. Default: none.
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
        let (least, most) = (HumanDuration(Duration::from_millis(100)), HumanDuration(Duration::from_hours(1)));
        problems.within("http.header_timeout", self.header_timeout, least, most);
        problems.within("http.body_timeout", self.body_timeout, least, most);
        for (index, origin) in self.allowed_origins.iter().enumerate() {
            if !is_origin(origin) {
                let wanted =
                    "must be a scheme, a name and perhaps a port, without a path: \"https://tasks.example.com\"";
                problems.add(format!("http.allowed_origins[{index}]"), format!("{origin:?}"), wanted);
            }
        }
        for (index, host) in self.hosts.iter().enumerate() {
            if host.is_empty() || !host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) {
                let wanted = "must be a name without scheme and port: \"tasks.example.com\"";
                problems.add(format!("http.hosts[{index}]"), format!("{host:?}"), wanted);
            }
        }
    }
}

fn is_origin(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    text == "*" || rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', '?', '#', '@', '*', ' ']))
}

/// A list, or a text with commas, which is all that the environment can say.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a list of texts, or one text with commas")]
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
    fn a_list_may_be_one_text_with_commas() {
        let of = |text: &str| toml::from_str::<Http>(text).map(|http| http.hosts);
        assert_eq!(of("hosts = [\"a\", \"b\"]"), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(of("hosts = \"a, b,\""), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert!(of("hosts = 1").unwrap_err().to_string().contains("a list of texts"));
    }

    #[test]
    fn what_is_no_origin_and_what_is_no_name_is_named() {
        let mut problems = Problems::default();
        let bad = Http {
            allowed_origins: vec!["*".to_owned(), "example.com".to_owned()],
            hosts: vec!["http://a".to_owned()],
            body_timeout: HumanDuration(Duration::ZERO),
            ..Http::default()
        };
        bad.check(&mut problems);
        let fields: Vec<_> = problems.0.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(fields, ["http.body_timeout", "http.allowed_origins[1]", "http.hosts[0]"]);
    }
}
