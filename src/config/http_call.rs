//! Section `[handler.http]`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use hyper::header::{self, HeaderName, HeaderValue};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::{Problems, check_not_masked};
use super::text_or_integer;
use crate::model::{Network, Secret, SecretUrl, Template, UrlTemplate, is_public, secret::MASK};

/// `[handler.http]`: the request that an attempt sends. The payload is its body, and the body of the response is the result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpCall {
    /// URL of the service. Path and query may contain `{task_id}`, `{attempt}`, `{args[0]}` (an argument of the task),
    /// `{env:NAME}` and `{file:PATH}` (for secrets, not encoded); `{{` stands for a brace. Required.
    pub url: SecretUrl,
    /// Method: "GET", "POST", "PUT", "PATCH" or "DELETE". Default: "POST".
    #[serde(default)]
    pub method: HttpMethod,
    /// Statuses that complete the task, such as "200" or "2xx". Default: 2xx.
    #[serde(default = "default_success")]
    pub success_status: Vec<StatusPattern>,
    /// Statuses after which the task is retried, at the time that `Retry-After` names if the response has it. All others fail
    /// the task at once. Default: 408, 425, 429 and 5xx.
    #[serde(default = "default_retry")]
    pub retry_status: Vec<StatusPattern>,
    /// URL, with placeholders as in `url`, that is called when an attempt is stopped before its response: the task was
    /// cancelled, or its time was over. The service then has `grace` to answer. Default: none; the request is aborted at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_url: Option<SecretUrl>,
    /// Method for `cancel_url`. Default: "POST".
    #[serde(default)]
    pub cancel_method: HttpMethod,
    /// PEM file with the CAs of the service. Default: those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Networks with private or otherwise special addresses that requests may go to, such as "10.2.0.0/16" or "127.0.0.1".
    /// Default: none; only public addresses.
    #[serde(default)]
    pub allowed_networks: Vec<String>,
    /// Headers; the values have placeholders as in `url`, such as "Bearer {file:/run/secrets/token}". A file is read again when
    /// it changes. Default: none.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
}

/// Method of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    /// Usually without a payload.
    Get,
    /// The default.
    #[default]
    Post,
    /// For example of a resource that has the id of the task.
    Put,
    /// Changes a part of a resource.
    Patch,
    /// Usually without a payload.
    Delete,
}

/// A status, or all of a class: `"404"`, `"5xx"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusPattern {
    first: u16,
    last: u16,
}

/// The parsed settings.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRequest {
    pub url: UrlTemplate,
    pub method: HttpMethod,
    pub success: Vec<RangeInclusive<u16>>,
    pub retry: Vec<RangeInclusive<u16>>,
    pub cancel: Option<(HttpMethod, UrlTemplate)>,
    pub ca: Option<PathBuf>,
    pub allowed_networks: Vec<Network>,
    pub headers: Vec<(HeaderName, Template)>,
}

/// Headers that the server sets, or that belong to the connection.
const RESERVED_HEADERS: [HeaderName; 9] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    header::EXPECT,
    header::ACCEPT_ENCODING,
];

impl HttpCall {
    /// `None` if a setting is invalid.
    pub(super) fn parsed(&self) -> Option<HttpRequest> {
        let parse = |url: &SecretUrl| UrlTemplate::parse(url.reveal()).ok();
        let header = |(name, value): (&String, &Secret)| {
            Some((HeaderName::from_bytes(name.as_bytes()).ok()?, Template::parse(value.reveal()).ok()?))
        };
        let cancel = match &self.cancel_url {
            Some(url) => Some((self.cancel_method, parse(url)?)),
            None => None,
        };
        Some(HttpRequest {
            url: parse(&self.url)?,
            method: self.method,
            success: self.success_status.iter().map(|status| status.range()).collect(),
            retry: self.retry_status.iter().map(|status| status.range()).collect(),
            cancel,
            ca: self.ca.clone(),
            allowed_networks: self.networks().collect::<Option<_>>()?,
            headers: self.headers.iter().map(header).collect::<Option<_>>()?,
        })
    }

    fn networks(&self) -> impl Iterator<Item = Option<Network>> {
        self.allowed_networks.iter().map(|network| Network::parse(network).ok())
    }

    pub(super) fn check(&self, path: &str, has_arg_pattern: bool, problems: &mut Problems) {
        let before = problems.0.len();
        for (index, network) in self.allowed_networks.iter().enumerate() {
            if let Err(error) = Network::parse(network) {
                problems.add(format!("{path}.allowed_networks[{index}]"), format!("{network:?}"), error);
            }
        }
        if self.success_status.is_empty() {
            problems.add(format!("{path}.success_status"), "[]", "must contain at least one status, such as \"2xx\"");
        }
        if self.ca.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            problems.add(format!("{path}.ca"), "\"\"", "must not be empty");
        }
        let mut args = self.check_url(&format!("{path}.url"), &self.url, problems);
        if let Some(url) = &self.cancel_url {
            args = args.max(self.check_url(&format!("{path}.cancel_url"), url, problems));
        }
        for (name, value) in &self.headers {
            args = args.max(self.check_header(path, name, value, problems));
        }
        if args > 0 && !has_arg_pattern {
            let description =
                "has {args[N]}, which requires `arg_pattern` of the handler: what each argument must match";
            problems.add(path, "", description);
        }
        if args == 0 && has_arg_pattern && problems.0.len() == before {
            problems.add(path, "", "has no {args[N]}, so `arg_pattern` of the handler must not be set");
        }
    }

    /// Returns the number of arguments that it needs.
    fn check_url(&self, path: &str, url: &SecretUrl, problems: &mut Problems) -> usize {
        if url.reveal().contains(MASK) {
            check_not_masked(path, Some(url), problems);
            return 0;
        }
        let template = match UrlTemplate::parse(url.reveal()) {
            Ok(template) => template,
            Err(error) => {
                problems.add(path, "", error);
                return 0;
            }
        };
        let address = template.host().trim_matches(['[', ']']).parse::<IpAddr>();
        if let Ok(address) = address
            && !is_public(address)
            && !self.networks().flatten().any(|network| network.contains(address))
        {
            let description = format!(
                "goes to {address}, which is not a public address; add it to `allowed_networks` if it is meant"
            );
            problems.add(path, "", description);
        }
        template.target.args()
    }

    /// The value may be secret and is not shown. Returns the number of arguments that it needs.
    fn check_header(&self, path: &str, name: &str, value: &Secret, problems: &mut Problems) -> usize {
        let path = format!("{path}.headers");
        let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
            problems.add(path, format!("{name:?}"), "must be the name of a header, such as \"Authorization\"");
            return 0;
        };
        let path = format!("{path}.{name}");
        if RESERVED_HEADERS.contains(&parsed) || parsed.as_str().starts_with("lineshaft-") {
            problems.add(path.clone(), "", "is a header that the server sets itself; remove it");
        }
        let same = |other: &&String| other.eq_ignore_ascii_case(name);
        if self.headers.keys().filter(same).count() > 1 {
            problems.add(path.clone(), "", "is set more than once, in upper and lower case");
        }
        if value.reveal() == MASK {
            let description = "is the mask that `config dump` prints instead of the value; set the value itself";
            problems.add(path, "", description);
            return 0;
        }
        match Template::parse(value.reveal()) {
            Ok(template) => {
                if HeaderValue::from_str(value.reveal()).is_err() {
                    problems.add(path, "", "must not contain line breaks or other control characters");
                }
                template.args()
            }
            Err(error) => {
                problems.add(path, "", error);
                0
            }
        }
    }
}

impl StatusPattern {
    fn parse(text: &str) -> Result<Self, String> {
        let bad =
            || format!("{text:?} is not a status; write one such as \"404\", 200 to 599, or a class such as \"5xx\"");
        let status = match text.strip_suffix("xx") {
            Some(class) => class.parse::<u16>().ok().and_then(|class| class.checked_mul(100)),
            None => text.parse().ok(),
        };
        let first = status.filter(|status| (200..600).contains(status)).ok_or_else(bad)?;
        let last = if text.ends_with("xx") { first + 99 } else { first };
        Ok(Self { first, last })
    }

    fn range(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }
}

impl fmt::Display for StatusPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}xx", self.first / 100) }
    }
}

impl Serialize for StatusPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StatusPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_integer::deserialize(deserializer, "a status such as \"404\" or \"5xx\"", Self::parse)
    }
}

impl JsonSchema for StatusPattern {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Status".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A status such as 404 or \"404\", or all of a class, such as \"5xx\".",
            "type": ["string", "integer"],
            "pattern": "^[2-5]([0-9][0-9]|xx)$",
            "minimum": 200,
            "maximum": 599
        })
    }
}

fn statuses<const N: usize>(texts: [&str; N]) -> Vec<StatusPattern> {
    texts.map(|text| StatusPattern::parse(text).expect("a status")).into()
}

fn default_success() -> Vec<StatusPattern> {
    statuses(["2xx"])
}

fn default_retry() -> Vec<StatusPattern> {
    statuses(["408", "425", "429", "5xx"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(http: &str, has_arg_pattern: bool) -> String {
        let call: HttpCall = toml::from_str(http).unwrap_or_else(|error| panic!("{http}: {error}"));
        let mut problems = Problems::default();
        call.check("http", has_arg_pattern, &mut problems);
        problems.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn statuses_are_numbers_or_classes() {
        for (text, first, last) in [("2xx", 200, 299), ("404", 404, 404), ("599", 599, 599)] {
            let status = StatusPattern::parse(text).unwrap();
            assert_eq!((status.range(), status.to_string()), (first..=last, text.to_owned()));
        }
        for bad in ["1xx", "6xx", "xx", "20x", "100", "600", "-1", "2XX", "", "65xx"] {
            assert!(StatusPattern::parse(bad).is_err(), "{bad}");
        }
        let call: HttpCall = toml::from_str("url = \"https://a\"\nretry_status = [429, \"5xx\"]").unwrap();
        assert_eq!(call.retry_status, statuses(["429", "5xx"]));
    }

    #[test]
    fn a_request_is_checked_without_showing_its_secrets() {
        let url = "url = \"https://example.com/{task_id}\"\n";
        let pattern_missing = "url = \"https://example.com/{args[0]}\"";
        for (http, has_arg_pattern, expected) in [
            (url.to_owned(), false, ""),
            (pattern_missing.to_owned(), true, ""),
            (pattern_missing.to_owned(), false, "http: has {args[N]}, which requires `arg_pattern`"),
            (url.to_owned(), true, "http: has no {args[N]}"),
            ("url = \"https://a/hunter2 x\"".to_owned(), false, "http.url: is not a URL"),
            ("url = \"https://me:(hidden)@a/\"".to_owned(), false, "http.url: has the mask"),
            (format!("{url}success_status = []"), false, "http.success_status = []: must contain"),
            (
                format!("{url}allowed_networks = [\"10.0.0.1/8\"]"),
                false,
                "http.allowed_networks[0] = \"10.0.0.1/8\": has",
            ),
            (format!("{url}headers = {{ \"a b\" = \"hunter2\" }}"), false, "http.headers = \"a b\": must be the name"),
            (
                format!("{url}headers = {{ hoSt = \"hunter2\" }}"),
                false,
                "http.headers.hoSt: is a header that the server",
            ),
            (format!("{url}headers = {{ Lineshaft-X = \"1\" }}"), false, "is a header that the server"),
            (format!("{url}headers = {{ A = \"1\", a = \"2\" }}"), false, "http.headers.a: is set more than once"),
            (format!("{url}headers = {{ A = \"hunter2\\n\" }}"), false, "http.headers.A: must not contain line breaks"),
            (format!("{url}headers = {{ A = \"{{hunter2\" }}"), false, "http.headers.A: has a { without a }"),
            (format!("{url}headers = {{ A = \"(hidden)\" }}"), false, "http.headers.A: is the mask"),
        ] {
            let call: HttpCall = toml::from_str(&http).unwrap_or_else(|error| panic!("{http}: {error}"));
            let mut problems = Problems::default();
            call.check("http", has_arg_pattern, &mut problems);
            let found = problems.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            assert!(found.contains(expected) && found.is_empty() == expected.is_empty(), "{http}: {found}");
            assert!(!found.contains("hunter2"), "{found}");
        }
    }

    #[test]
    fn a_literal_address_must_be_public_or_allowed() {
        for url in ["http://127.0.0.1/", "http://[::1]:80/", "http://169.254.169.254/", "http://[::ffff:10.0.0.1]/"] {
            let error = problems_of(&format!("url = {url:?}"), false);
            assert!(error.contains("which is not a public address"), "{url}: {error}");
            let error = problems_of(&format!("url = \"https://a\"\ncancel_url = {url:?}"), false);
            assert!(error.contains("http.cancel_url: goes to"), "{url}: {error}");
            let allowed = r#"["127.0.0.0/8", "::1", "169.254.169.254", "10.0.0.0/8"]"#;
            assert_eq!(problems_of(&format!("url = {url:?}\nallowed_networks = {allowed}"), false), "");
        }
    }
}
