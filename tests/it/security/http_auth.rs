//! Authentication and permissions of JSON and of the plain routes.

use super::Tokens;
use crate::dashboard::linked;
use crate::http1_client::Connection;
use crate::support::Server;

/// Sends one HTTP/1.1 request. Returns the status and the body of the response.
pub fn send(server: &Server, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, String) {
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{token}");
    let content = format!("content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}");
    let response = Connection::open(server).send(format!("{head}{content}").as_bytes());
    (response.status, String::from_utf8(response.body).unwrap())
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
            let (status, response) = send(&server, method, path, token, body);
            assert_eq!(status, 401, "{method} {path}: {response}");
            assert!(response.contains("UNAUTHENTICATED"), "{response}");
        }
    }
    let named = "{\"handler\":\"io\",\"payload\":{\"json\":3600},\"taskId\":\"nightly\"}";
    let (status, response) = send(&server, "POST", SUBMIT, a, named);
    assert!(status == 200 && response.contains("team-a/nightly"), "{response}");
    for id in ["nightly", "team-a%2Fnightly"] {
        let (status, response) = send(&server, "GET", &format!("/api/task/{id}"), b, "");
        assert_eq!(status, 404, "{response}");
        assert_eq!(send(&server, "POST", &format!("/api/tasks/{id}/cancel"), b, "").0, 404);
        assert_eq!(send(&server, "GET", &format!("/api/task/{id}"), a, "").0, 200);
    }
    let (status, response) = send(&server, "GET", "/api/tasks", b, "");
    assert!(status == 200 && !response.contains("nightly"), "{response}");
    for (method, path) in [("GET", "/api/stats"), ("POST", "/api/shutdown")] {
        let (status, response) = send(&server, method, path, a, "");
        assert_eq!(status, 403, "{method} {path}: {response}");
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
    let (status, response) = send(&server, "POST", SUBMIT, a, "{\"handler\":\"compute\",\"namespace\":\"team-b\"}");
    assert!(status == 403 && response.contains("PERMISSION_DENIED"), "{response}");
}

#[test]
fn an_unauthenticated_request_is_refused_before_its_body_is_read() {
    let tokens = Tokens::new();
    tokens.create("a", "submitter", "team-a", &[]);
    let server = tokens.serve("");
    for path in [SUBMIT, "/api/submit"] {
        // The body is never sent.
        let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n");
        let request = format!("{head}content-length: 1000000\r\n\r\n");
        assert_eq!(Connection::open(&server).send(request.as_bytes()).status, 401, "{path}");
    }
}

#[test]
fn the_files_of_the_dashboard_need_no_token_and_its_calls_do() {
    let tokens = Tokens::new();
    tokens.create("all", "admin", "*", &[]);
    let server = tokens.serve("");
    let (status, page) = send(&server, "GET", "/ui/", None, "");
    assert_eq!(status, 200);
    for path in linked(&page) {
        assert_eq!(send(&server, "GET", &format!("/ui/{path}"), None, "").0, 200, "{path}");
    }
    assert_eq!(send(&server, "POST", "/lineshaft.v1.TaskService/ListTasks", None, "{}").0, 401);
}
