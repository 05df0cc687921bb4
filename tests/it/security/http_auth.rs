//! Authentication and permissions of JSON and of the plain routes.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::Tokens;
use crate::support::{Server, TIMEOUT};

/// Sends one HTTP/1.1 request. Returns the status and the whole response.
fn send(server: &Server, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{token}");
    let kind = format!("content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(format!("{head}{kind}").as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let status = response.split(' ').nth(1).unwrap_or_default().parse().unwrap_or_default();
    (status, response)
}

const SUBMIT: &str = "/lineshaft.v1.TaskService/SubmitTask";

#[test]
fn json_and_plain_routes_require_the_same_tokens_and_permissions_as_grpc() {
    let tokens = Tokens::new();
    let a = tokens.create("a", "submitter", "team-a", &[]);
    let b = tokens.create("b", "submitter", "team-b", &[]);
    let all = tokens.create("all", "admin", "*", &[]);
    let server = tokens.serve("");
    let (a, b, all) = (Some(a.as_str()), Some(b.as_str()), Some(all.as_str()));
    let calls = [
        ("POST", SUBMIT, "{\"handler\":\"compute\"}"),
        ("POST", "/lineshaft.v1.TaskService/GetTask", "{}"),
        ("POST", "/lineshaft.v1.SystemService/Drain", "{}"),
        ("POST", "/api/submit", "{\"type\":\"compute\",\"param\":5}"),
        ("GET", "/api/task/x", ""),
        ("GET", "/api/tasks", ""),
        ("GET", "/api/tasks/running", ""),
        ("GET", "/api/tasks/stats", ""),
        ("POST", "/api/tasks/x/cancel", ""),
        ("POST", "/api/clear-completed", ""),
        ("GET", "/api/stats", ""),
        ("POST", "/api/shutdown", ""),
    ];
    for (method, path, body) in calls {
        for token in [None, Some("wrong")] {
            let (status, answer) = send(&server, method, path, token, body);
            assert_eq!(status, 401, "{method} {path}: {answer}");
            assert!(answer.contains("UNAUTHENTICATED"), "{answer}");
        }
    }
    let named = "{\"handler\":\"io\",\"payload\":{\"json\":3600},\"taskId\":\"nightly\"}";
    let (status, answer) = send(&server, "POST", SUBMIT, a, named);
    assert!(status == 200 && answer.contains("team-a/nightly"), "{answer}");
    for id in ["nightly", "team-a%2Fnightly"] {
        let (status, answer) = send(&server, "GET", &format!("/api/task/{id}"), b, "");
        assert_eq!(status, 404, "{answer}");
        assert_eq!(send(&server, "POST", &format!("/api/tasks/{id}/cancel"), b, "").0, 404);
        assert_eq!(send(&server, "GET", &format!("/api/task/{id}"), a, "").0, 200);
    }
    let (status, answer) = send(&server, "GET", "/api/tasks", b, "");
    assert!(status == 200 && !answer.contains("nightly"), "{answer}");
    for (method, path) in [("GET", "/api/stats"), ("POST", "/api/shutdown")] {
        let (status, answer) = send(&server, method, path, a, "");
        assert_eq!(status, 403, "{method} {path}: {answer}");
    }
    assert_eq!(send(&server, "GET", "/api/stats", all, "").0, 200);
    for path in ["/metrics", "/health"] {
        assert_eq!(send(&server, "GET", path, None, "").0, 401, "{path} shows data of all tenants");
        assert_eq!(send(&server, "GET", path, a, "").0, 403, "{path}");
        assert_eq!(send(&server, "GET", path, all, "").0, 200, "{path}");
        assert_eq!(send(&server, "GET", &format!("{path}/"), None, "").0, 404, "{path}/");
    }
    for path in ["/health/live", "/health/ready"] {
        assert_eq!(send(&server, "GET", path, None, "").0, 200, "probes have no tokens");
    }
    let (status, answer) = send(&server, "POST", SUBMIT, a, "{\"handler\":\"compute\",\"namespace\":\"team-b\"}");
    assert!(status == 403 && answer.contains("PERMISSION_DENIED"), "{answer}");
}

#[test]
fn an_unauthenticated_request_is_refused_before_its_body_is_read() {
    let tokens = Tokens::new();
    tokens.create("a", "submitter", "team-a", &[]);
    let server = tokens.serve("");
    for path in [SUBMIT, "/api/submit"] {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        // The body is never sent.
        let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n");
        stream.write_all(format!("{head}content-length: 1000000\r\n\r\n").as_bytes()).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 401", "{path}");
    }
}
