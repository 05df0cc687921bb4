//! The dashboard as it is served: its files and their headers.

use std::io::Read;

use flate2::read::GzDecoder;

use crate::http1_client::{Connection, Response};
use crate::support::Server;

fn get(server: &Server, path: &str, headers: &str) -> Response {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
    Connection::open(server).send(request.as_bytes())
}

fn text(response: &Response) -> String {
    String::from_utf8(response.body.clone()).unwrap()
}

/// What the page loads, relative to it.
pub fn linked(index: &str) -> Vec<String> {
    let links = index.split(['"', '\'']).filter(|text| text.starts_with("./"));
    links.map(|text| text.trim_start_matches("./").to_owned()).collect()
}

#[test]
fn a_browser_at_the_root_is_sent_to_the_dashboard_and_other_clients_get_the_routes() {
    let server = Server::start("");
    let accept = "accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n";
    let redirect = get(&server, "/", accept);
    assert_eq!((redirect.status, redirect.header("location")), (307, "ui/"), "relative, for a proxy with a path");
    assert_eq!(redirect.header("cache-control"), "no-store");
    for accept in ["", "accept: */*\r\n", "accept: text/plain\r\n", "accept: application/json\r\n"] {
        let list = get(&server, "/", accept);
        assert_eq!((list.status, list.header("content-type")), (200, "text/plain; charset=utf-8"), "{accept}");
        assert!(text(&list).contains("POST /api/submit"));
    }
    let without_slash = get(&server, "/ui", "");
    assert_eq!((without_slash.status, without_slash.header("location")), (307, "ui/"));
}

#[test]
fn the_page_is_checked_each_time_and_what_it_loads_is_kept() {
    let server = Server::start("");
    let page = get(&server, "/ui/", "");
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert_eq!(page.header("cache-control"), "no-cache");
    let index = text(&page);
    let linked = linked(&index);
    assert!(linked.len() >= 2, "a script and a style sheet: {index}");
    for path in &linked {
        let file = get(&server, &format!("/ui/{path}"), "");
        let content_type = match path.rsplit('.').next() {
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            _ => "image/svg+xml",
        };
        assert_eq!((file.status, file.header("content-type")), (200, content_type), "{path}");
        assert_eq!(file.header("cache-control"), "public, max-age=31536000, immutable", "{path}");
        assert_eq!(file.header("x-content-type-options"), "nosniff", "{path}");
        let known = format!("if-none-match: {}\r\n", file.header("etag"));
        let unchanged = get(&server, &format!("/ui/{path}"), &known);
        assert_eq!((unchanged.status, unchanged.body.len()), (304, 0), "{path}");
    }
    let known = format!("if-none-match: W/{}\r\n", page.header("etag"));
    assert_eq!(get(&server, "/ui/", &known).status, 304);
    assert_eq!(get(&server, "/ui/", "if-none-match: \"other\"\r\n").status, 200);
}

#[test]
fn files_are_compressed_for_clients_that_accept_it() {
    let server = Server::start("");
    let script = linked(&text(&get(&server, "/ui/", ""))).into_iter().find(|path| path.contains(".js")).unwrap();
    let path = format!("/ui/{script}");
    let plain = get(&server, &path, "accept-encoding: br\r\n");
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), ("", "accept-encoding"));
    let compressed = get(&server, &path, "accept-encoding: gzip, br\r\n");
    assert_eq!(compressed.header("content-encoding"), "gzip");
    assert_eq!(compressed.header("vary"), "accept-encoding");
    let mut content = Vec::new();
    GzDecoder::new(&compressed.body[..]).read_to_end(&mut content).unwrap();
    assert_eq!(content, plain.body);
    assert!(compressed.body.len() < plain.body.len() / 2);
}

#[test]
fn the_policy_allows_nothing_but_files_and_calls_of_this_server() {
    let server = Server::start("");
    let page = get(&server, "/ui/", "");
    let policy = page.header("content-security-policy");
    for rule in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
    ] {
        assert!(policy.split(';').any(|part| part.trim() == rule), "{rule}: {policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains("http") && !policy.contains('*'), "{policy}");
    let index = text(&page);
    assert!(!index.contains("<style") && !index.contains("style=") && !index.contains("http"), "{index}");
    let bodies = index.split("<script").skip(1).map(|tag| tag.split_once('>').unwrap().1);
    assert!(bodies.into_iter().all(|body| body.starts_with("</script>")), "no inline script: {index}");
}

#[test]
fn other_paths_and_methods_are_refused() {
    let server = Server::start("");
    for path in ["/ui/nothing", "/ui/assets/", "/ui/assets/../index.html", "/ui//", "/ui/%2e%2e/metrics", "/uix"] {
        assert_eq!(get(&server, path, "accept: text/html\r\n").status, 404, "{path}");
    }
    let post = "POST /ui/ HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n";
    let refused = Connection::open(&server).send(post.as_bytes());
    assert_eq!((refused.status, refused.header("allow")), (405, "GET, HEAD"));
}
