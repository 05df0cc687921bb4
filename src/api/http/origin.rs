//! Which web pages may call the server (CORS), and protection against DNS rebinding.
//!
//! A browser lets any page send requests to any address. A request from a page of another origin may
//! therefore not change anything unless the configuration allows that origin. On a loopback address the
//! `host` header is checked too: a page can resolve its own name to 127.0.0.1 (DNS rebinding), and then its
//! requests look like same-origin requests.

use std::net::IpAddr;
use std::str::FromStr;

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::header::{self, HeaderName, HeaderValue};
use tonic::codegen::http::uri::Authority;
use tonic::codegen::http::{Method, Request, Response, StatusCode};

use crate::model::ErrorCode;

use super::plain::EXPORT_PREFIX;
use super::response::edge_error;

/// Methods and headers that an allowed page may send, and headers that it may read.
const METHODS: &str = "GET, POST";
const REQUEST_HEADERS: &str = "authorization, baggage, connect-protocol-version, connect-timeout-ms, content-type, \
                               grpc-timeout, traceparent, tracestate, x-grpc-web, x-user-agent";
const RESPONSE_HEADERS: &str = "grpc-message, grpc-status, grpc-status-details-bin, retry-after";
/// Seconds for which a browser caches the result of a preflight request.
const MAX_AGE: &str = "7200";

/// Which pages may call from a browser.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    /// For example `https://tasks.example.com`; `*` allows all.
    pub allowed: Vec<String>,
    /// Names of this server besides `localhost` and IP addresses.
    pub hosts: Vec<String>,
    /// Whether the `host` of a request must be one of these names.
    pub check_host: bool,
}

/// A request that may be served.
#[derive(Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The origin of an allowed page, which may read the response.
    origin: Option<HeaderValue>,
}

impl Origins {
    /// Checks the host and the origin of a request.
    ///
    /// # Errors
    /// FOREIGN_ORIGIN.
    pub fn check<B>(&self, request: &Request<B>) -> Result<Allowed, Status> {
        let host = authority(request);
        if self.check_host && host.as_ref().is_some_and(|host| !self.is_ours(host.host())) {
            let host = host.map(|host| host.to_string()).unwrap_or_default();
            return Err(foreign(format!(
                "`{host}` is not a name of this server; use localhost or an IP address, or add it to http.hosts"
            )));
        }
        let changes =
            !matches!(*request.method(), Method::GET | Method::HEAD) || request.uri().path().starts_with(EXPORT_PREFIX);
        let Some(origin) = request.headers().get(header::ORIGIN) else {
            // A browser that sends no origin may still report that the page is of another site.
            let site = request.headers().get("sec-fetch-site").map(HeaderValue::as_bytes);
            if changes && matches!(site, Some(b"cross-site" | b"same-site")) {
                return Err(foreign("requests from pages of other sites are not allowed".to_owned()));
            }
            return Ok(Allowed { origin: None });
        };
        if self.allows(origin) {
            return Ok(Allowed { origin: Some(origin.clone()) });
        }
        if changes && !is_same_origin(origin, host.as_ref()) {
            let origin = origin.to_str().unwrap_or("?");
            return Err(foreign(format!("origin `{origin}` is not allowed; add it to http.allowed_origins")));
        }
        // Without CORS headers the page cannot read the response.
        Ok(Allowed { origin: None })
    }

    fn is_ours(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.');
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_local = host.eq_ignore_ascii_case("localhost")
            || host.len() > 10 && host[host.len() - 10..].eq_ignore_ascii_case(".localhost");
        // An IP address cannot be rebound.
        is_local || IpAddr::from_str(bare).is_ok() || self.hosts.iter().any(|ours| ours.eq_ignore_ascii_case(host))
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        self.allowed.iter().any(|allowed| allowed == "*" || origin.as_bytes().eq_ignore_ascii_case(allowed.as_bytes()))
    }
}

impl Allowed {
    /// Whether the request comes from an allowed page of another origin.
    pub fn is_page(&self) -> bool {
        self.origin.is_some()
    }

    /// The response to a preflight request.
    pub fn preflight(&self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let mut set = |name: HeaderName, value| response.headers_mut().insert(name, HeaderValue::from_static(value));
        if self.is_page() {
            set(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            set(header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
            set(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        }
        set(header::ALLOW, "GET, POST, OPTIONS");
        response
    }

    /// Adds the CORS headers that let the page read the response.
    pub fn add_headers(&self, response: &mut Response<Body>) {
        let headers = response.headers_mut();
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = &self.origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(RESPONSE_HEADERS));
        }
    }
}

fn foreign(message: String) -> Status {
    edge_error(ErrorCode::ForeignOrigin, message)
}

/// The name that the client used for this server.
fn authority<B>(request: &Request<B>) -> Option<Authority> {
    let host = request.headers().get(header::HOST).map(|host| Authority::try_from(host.as_bytes()));
    match (request.uri().authority(), host) {
        (Some(authority), _) => Some(authority.clone()),
        (None, Some(Ok(host))) => Some(host),
        // A malformed name, which cannot be one of this server.
        (None, Some(Err(_))) => Some(Authority::from_static("invalid.")),
        (None, None) => None,
    }
}

/// Whether the page has the origin of this server. The scheme is ignored, because it differs behind a proxy
/// that terminates TLS.
fn is_same_origin(origin: &HeaderValue, host: Option<&Authority>) -> bool {
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
    fn a_foreign_host_is_refused_on_a_loopback_address() {
        let is_allowed = |host: &str| loopback().check(&request(Method::GET, &[("host", host)])).is_ok();
        for ours in ["127.0.0.1:7070", "localhost", "LOCALHOST:1", "x.localhost:80", "[::1]:7070", "tasks.example.com"]
        {
            assert!(is_allowed(ours), "{ours}");
        }
        for foreign in
            ["evil.example:7070", "localhost.evil.example", "evillocalhost", "127.0.0.1.evil.example", "a@b@c", ""]
        {
            assert!(!is_allowed(foreign), "{foreign}");
        }
        assert!(
            loopback().check(&request(Method::GET, &[])).is_ok(),
            "HTTP/1.0 has no host, and browsers do not use it"
        );
        assert!(Origins::default().check(&request(Method::GET, &[("host", "evil.example")])).is_ok());
    }

    #[test]
    fn a_foreign_page_may_not_change_anything() {
        let post = |headers: &[(&'static str, &str)]| {
            let mut all = vec![("host", "localhost:7070")];
            all.extend_from_slice(headers);
            loopback().check(&request(Method::POST, &all)).map_err(|refused| refused.code())
        };
        let refused = Err(tonic::Code::PermissionDenied);
        assert_eq!(post(&[]), Ok(Allowed { origin: None }), "not a browser");
        assert_eq!(post(&[("origin", "http://localhost:7070")]), Ok(Allowed { origin: None }), "same origin");
        assert_eq!(post(&[("origin", "http://evil.example")]), refused);
        assert_eq!(post(&[("origin", "http://localhost:7071")]), refused);
        assert_eq!(post(&[("origin", "null")]), refused);
        assert_eq!(post(&[("sec-fetch-site", "cross-site")]), refused);
        assert_eq!(post(&[("sec-fetch-site", "same-origin")]), Ok(Allowed { origin: None }));
        let mut get = request(Method::GET, &[("host", "localhost"), ("origin", "http://evil.example")]);
        assert_eq!(loopback().check(&get).unwrap(), Allowed { origin: None }, "the page cannot read the response");
        *get.uri_mut() = "/data/export/leases?format=csv".parse().unwrap();
        assert!(loopback().check(&get).is_err(), "it would start a task");
    }

    #[test]
    fn an_allowed_page_may_call_and_read_the_response() {
        let origins = Origins { allowed: vec!["https://ui.example".to_owned()], ..Origins::default() };
        let from = |origin: &str| origins.check(&request(Method::POST, &[("host", "h"), ("origin", origin)]));
        let allowed = from("https://ui.example").unwrap();
        let mut response = allowed.preflight();
        assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_METHODS], METHODS);
        allowed.add_headers(&mut response);
        assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://ui.example");
        for other in ["https://ui.example.evil", "http://ui.example", "null"] {
            assert!(from(other).is_err(), "{other}");
        }
        let all = Origins { allowed: vec!["*".to_owned()], ..Origins::default() };
        assert!(all.check(&request(Method::POST, &[("origin", "http://other.example")])).unwrap().is_page());
    }
}
