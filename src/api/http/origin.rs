//! Web pages: which of them may call, and that none calls under another's name.
//!
//! A browser lets any page send requests to any address, this server's included. So a request that
//! says it comes from a foreign page may change nothing, unless the configuration allows that page
//! (CORS). On a loopback address the name that the caller used counts as well: a page can point its own
//! name at 127.0.0.1 (DNS rebinding), and then its requests look like our own.

use std::net::IpAddr;
use std::str::FromStr;

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::header::{self, HeaderName, HeaderValue};
use tonic::codegen::http::uri::Authority;
use tonic::codegen::http::{Method, Request, Response, StatusCode};

use crate::model::ErrorCode;

use super::response::edge_error;

/// What a page may send, and read, when it is allowed to call at all.
const METHODS: &str = "GET, POST";
const SENT: &str = "authorization, baggage, connect-protocol-version, connect-timeout-ms, content-type, \
                    grpc-timeout, traceparent, tracestate, x-grpc-web, x-user-agent";
const READ: &str = "grpc-message, grpc-status, grpc-status-details-bin, retry-after";
/// Seconds for which a browser need not ask again.
const REMEMBERED: &str = "7200";

/// Who may call from a browser.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    /// Such as `https://tasks.example.com`; `*` for all.
    pub allowed: Vec<String>,
    /// Names of this server besides `localhost` and addresses.
    pub hosts: Vec<String>,
    /// Whether a request must use one of its names.
    pub check_host: bool,
}

/// What the answer to an allowed page says.
#[derive(Debug, PartialEq, Eq)]
pub struct Allowed {
    origin: Option<HeaderValue>,
}

impl Origins {
    /// Judges by host and origin whether this request may be answered.
    ///
    /// # Errors
    /// `FOREIGN_ORIGIN`.
    pub fn judge<B>(&self, request: &Request<B>) -> Result<Allowed, Status> {
        let host = authority(request);
        if self.check_host && host.as_ref().is_some_and(|host| !self.is_ours(host.host())) {
            let host = host.map(|host| host.to_string()).unwrap_or_default();
            return Err(foreign(format!(
                "`{host}` is not a name of this server; use localhost or an address, or add it to http.hosts"
            )));
        }
        let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
        let Some(origin) = request.headers().get(header::ORIGIN) else {
            // A browser that does not say which page it is at says at least that it is another's.
            let site = request.headers().get("sec-fetch-site").map(HeaderValue::as_bytes);
            if changes && matches!(site, Some(b"cross-site" | b"same-site")) {
                return Err(foreign("a page of another site may not call".to_owned()));
            }
            return Ok(Allowed { origin: None });
        };
        if self.allows(origin) {
            return Ok(Allowed { origin: Some(origin.clone()) });
        }
        if changes && !is_same(origin, host.as_ref()) {
            let origin = origin.to_str().unwrap_or("?");
            return Err(foreign(format!("pages of `{origin}` may not call; http.allowed_origins could allow them")));
        }
        // A page elsewhere cannot read the answer: it carries no permission.
        Ok(Allowed { origin: None })
    }

    fn is_ours(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.');
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_local = host.eq_ignore_ascii_case("localhost")
            || host.len() > 10 && host[host.len() - 10..].eq_ignore_ascii_case(".localhost");
        // Nobody can point an address elsewhere.
        is_local || IpAddr::from_str(bare).is_ok() || self.hosts.iter().any(|ours| ours.eq_ignore_ascii_case(host))
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        self.allowed.iter().any(|allowed| allowed == "*" || origin.as_bytes().eq_ignore_ascii_case(allowed.as_bytes()))
    }
}

impl Allowed {
    /// Whether a page of another origin calls, and may.
    pub fn is_page(&self) -> bool {
        self.origin.is_some()
    }

    /// The answer to a browser that asks before it calls.
    pub fn preflight(&self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let mut say = |name: HeaderName, value| response.headers_mut().insert(name, HeaderValue::from_static(value));
        if self.is_page() {
            say(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            say(header::ACCESS_CONTROL_ALLOW_HEADERS, SENT);
            say(header::ACCESS_CONTROL_MAX_AGE, REMEMBERED);
        }
        say(header::ALLOW, "GET, POST, OPTIONS");
        response
    }

    /// Tells the browser that the page may read the answer.
    pub fn mark(&self, response: &mut Response<Body>) {
        let headers = response.headers_mut();
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = &self.origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(READ));
        }
    }
}

fn foreign(message: String) -> Status {
    edge_error(ErrorCode::ForeignOrigin, message)
}

/// The name that the caller used for this server.
fn authority<B>(request: &Request<B>) -> Option<Authority> {
    let said = request.headers().get(header::HOST).map(|host| Authority::try_from(host.as_bytes()));
    match (request.uri().authority(), said) {
        (Some(authority), _) => Some(authority.clone()),
        (None, Some(Ok(host))) => Some(host),
        // No name that could be ours.
        (None, Some(Err(_))) => Some(Authority::from_static("invalid.")),
        (None, None) => None,
    }
}

/// Whether a page is one of this very server. Only its name and port count: behind something that ends
/// TLS the scheme differs.
fn is_same(origin: &HeaderValue, host: Option<&Authority>) -> bool {
    let page = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    page.zip(host).is_some_and(|(page, host)| page.eq_ignore_ascii_case(host.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, headers: &[(&'static str, &str)]) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = method;
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        request
    }

    fn loopback() -> Origins {
        Origins { check_host: true, hosts: vec!["tasks.example.com".to_owned()], ..Origins::default() }
    }

    #[test]
    fn a_page_that_points_its_own_name_at_us_gets_nothing() {
        let may = |host: &str| loopback().judge(&request(Method::GET, &[("host", host)])).is_ok();
        for ours in ["127.0.0.1:7070", "localhost", "LOCALHOST:1", "x.localhost:80", "[::1]:7070", "tasks.example.com"]
        {
            assert!(may(ours), "{ours}");
        }
        for foreign in
            ["evil.example:7070", "localhost.evil.example", "evillocalhost", "127.0.0.1.evil.example", "a@b@c", ""]
        {
            assert!(!may(foreign), "{foreign}");
        }
        assert!(loopback().judge(&request(Method::GET, &[])).is_ok(), "HTTP/1.0 has no host, and no browser speaks it");
        assert!(Origins::default().judge(&request(Method::GET, &[("host", "evil.example")])).is_ok());
    }

    #[test]
    fn a_foreign_page_changes_nothing() {
        let post = |headers: &[(&'static str, &str)]| {
            let mut all = vec![("host", "localhost:7070")];
            all.extend_from_slice(headers);
            loopback().judge(&request(Method::POST, &all)).map_err(|refused| refused.code())
        };
        let refused = Err(tonic::Code::PermissionDenied);
        assert_eq!(post(&[]), Ok(Allowed { origin: None }), "no browser");
        assert_eq!(post(&[("origin", "http://localhost:7070")]), Ok(Allowed { origin: None }), "our own page");
        assert_eq!(post(&[("origin", "http://evil.example")]), refused);
        assert_eq!(post(&[("origin", "http://localhost:7071")]), refused);
        assert_eq!(post(&[("origin", "null")]), refused);
        assert_eq!(post(&[("sec-fetch-site", "cross-site")]), refused);
        assert_eq!(post(&[("sec-fetch-site", "same-origin")]), Ok(Allowed { origin: None }));
        let get = request(Method::GET, &[("host", "localhost"), ("origin", "http://evil.example")]);
        assert_eq!(loopback().judge(&get).unwrap(), Allowed { origin: None }, "it cannot read what it gets");
    }

    #[test]
    fn an_allowed_page_may_call_and_read() {
        let origins = Origins { allowed: vec!["https://ui.example".to_owned()], ..Origins::default() };
        let from = |origin: &str| origins.judge(&request(Method::POST, &[("host", "h"), ("origin", origin)]));
        let allowed = from("https://ui.example").unwrap();
        let mut response = allowed.preflight();
        assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_METHODS], METHODS);
        allowed.mark(&mut response);
        assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://ui.example");
        for other in ["https://ui.example.evil", "http://ui.example", "null"] {
            assert!(from(other).is_err(), "{other}");
        }
        let all = Origins { allowed: vec!["*".to_owned()], ..Origins::default() };
        assert!(all.judge(&request(Method::POST, &[("origin", "http://anybody.example")])).unwrap().is_page());
    }
}
