//! The dashboard under `/ui/`: files that are built from `ui/` and embedded in the binary.
//!
//! They are public, because they are the same for everyone; their calls are not. All links are relative, so that the
//! dashboard also works below a path of a proxy.

mod files;

use std::io::Write;
use std::sync::LazyLock;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::Full;
use tonic::body::Body;
use tonic::codegen::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use tonic::codegen::http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use crate::api::headers;
use crate::model::ErrorCode;

use super::descriptors::Contract;
use super::response::{self, edge_error};

const INDEX: &str = "index.html";
/// Only what this server serves: no inline scripts or styles, and no text that becomes a script. Images of results are
/// made in the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";
/// The names of these files change with their content.
const NAMED_BY_CONTENT: &str = "assets/";

struct File {
    path: &'static str,
    content_type: &'static str,
    content: Bytes,
    gzip: Bytes,
    etag: HeaderValue,
}

static FILES: LazyLock<Vec<File>> =
    LazyLock::new(|| files::FILES.iter().map(|(path, content)| File::new(path, content)).collect());

impl File {
    fn new(path: &'static str, content: &'static [u8]) -> Self {
        let content_type = match path.rsplit('.').next() {
            Some("html") => "text/html; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("svg") => "image/svg+xml",
            _ => "application/octet-stream",
        };
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        // Writing to memory cannot fail.
        let _ = encoder.write_all(content);
        let gzip = encoder.finish().unwrap_or_default().into();
        let etag = HeaderValue::try_from(format!("\"{:08x}-{}\"", crc32fast::hash(content), content.len()));
        Self {
            path,
            content_type,
            content: Bytes::from_static(content),
            gzip,
            etag: etag.unwrap_or(HeaderValue::from_static("")),
        }
    }

    fn response(&self, headers: &HeaderMap) -> Response<Body> {
        let is_known = headers.get_all(IF_NONE_MATCH).iter().any(|known| lists_etag(known, &self.etag));
        let is_gzip = headers::accepts_gzip(headers);
        let content = match (is_known, is_gzip) {
            (true, _) => Bytes::new(),
            (false, true) => self.gzip.clone(),
            (false, false) => self.content.clone(),
        };
        let mut response = Response::new(Body::new(Full::new(content)));
        let cache =
            if self.path.starts_with(NAMED_BY_CONTENT) { "public, max-age=31536000, immutable" } else { "no-cache" };
        let found = response.headers_mut();
        found.insert(ETAG, self.etag.clone());
        found.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
        found.insert(VARY, HeaderValue::from_static("accept-encoding"));
        found.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        found.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        found.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        if is_known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        found.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        if is_gzip {
            found.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

/// Whether an `if-none-match` header lists the tag. A proxy that compresses makes the tag weak.
pub(super) fn lists_etag(header: &HeaderValue, etag: &HeaderValue) -> bool {
    let tags = header.to_str().unwrap_or_default().split(',').map(|tag| tag.trim().trim_start_matches("W/"));
    etag.to_str().is_ok_and(|etag| tags.into_iter().any(|tag| tag == etag || tag == "*"))
}

/// Redirects a browser from `/` to the dashboard. `None` for other clients, which get the list of routes.
pub fn from_root(headers: &HeaderMap) -> Option<Response<Body>> {
    let is_browser =
        headers.contains_key(ACCEPT) && headers::preferred(headers, &["text/plain", "text/html"]) == "text/html";
    is_browser.then(|| {
        let mut response = redirect("ui/");
        response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
        response
    })
}

fn redirect(location: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert(LOCATION, HeaderValue::from_static(location));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Responds to requests for `/ui` and below; `None` for other paths.
pub fn respond(contract: &Contract, method: &Method, path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    let below = path.strip_prefix("/ui")?;
    if !below.is_empty() && !below.starts_with('/') {
        return None;
    }
    if method != Method::GET && method != Method::HEAD {
        return Some(response::method_not_allowed(contract, "GET, HEAD"));
    }
    let Some(below) = below.strip_prefix('/') else { return Some(redirect("ui/")) };
    let wanted = if below.is_empty() { INDEX } else { below };
    let file = FILES.iter().find(|file| file.path == wanted);
    Some(file.map_or_else(|| not_found(contract), |file| file.response(headers)))
}

fn not_found(contract: &Contract) -> Response<Body> {
    let status = edge_error(ErrorCode::Unsupported, "not found; the dashboard is at `/ui/`");
    response::error_with_status(StatusCode::NOT_FOUND, contract, &status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_in_a_list_and_when_it_is_weak() {
        let etag = HeaderValue::from_static("\"a-1\"");
        for known in ["\"a-1\"", "W/\"a-1\"", "\"b\", \"a-1\"", "*"] {
            assert!(lists_etag(&HeaderValue::from_static(known), &etag), "{known}");
        }
        for other in ["", "a-1", "\"a-2\"", "\"b\",\"c\""] {
            assert!(!lists_etag(&HeaderValue::from_static(other), &etag), "{other}");
        }
    }

    #[test]
    fn the_page_and_what_it_loads_are_at_most_120_kb_compressed() {
        let bytes: usize = FILES.iter().map(|file| file.gzip.len()).sum();
        assert!((1..=120_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn every_file_has_a_known_type() {
        for file in FILES.iter() {
            assert_ne!(file.content_type, "application/octet-stream", "{}", file.path);
        }
    }
}
