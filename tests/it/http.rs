//! HTTP without gRPC: JSON, gRPC-Web, plain routes, and hostile requests.

use base64::prelude::{BASE64_STANDARD, Engine};
use lineshaft::proto::v1::{self, TaskState};
use prost::Message;
use serde_json::{Value, json};

use crate::health_endpoints::health_address;
use crate::http1_client::{Connection, Response, envelope, envelopes, post};
use crate::support::{Server, check, eventually, noop, run, task};

const SUBMIT: &str = "/lineshaft.v1.TaskService/SubmitTask";
const WAIT: &str = "/lineshaft.v1.TaskService/WaitTask";
const WATCH: &str = "/lineshaft.v1.TaskService/WatchTasks";

fn call(server: &Server, path: &str, body: &Value) -> Response {
    Connection::open(server).send(&post(path, "application/json", &[], body.to_string().as_bytes()))
}

/// `ErrorInfo.reason` of an error.
fn reason(error: &Value) -> &str {
    let details = error["details"].as_array().unwrap_or_else(|| panic!("no details: {error}"));
    let info = details.iter().find(|detail| detail["type"] == "google.rpc.ErrorInfo").unwrap();
    info["debug"]["reason"].as_str().unwrap()
}

#[tokio::test]
async fn a_task_is_submitted_and_read_as_json() {
    let server = Server::start("");
    let body = json!({"handler": "compute", "payload": {"json": 5_000_000}, "taskId": "t"});
    let accepted = call(&server, SUBMIT, &body);
    assert_eq!((accepted.status, accepted.header("content-type")), (200, "application/json"));
    let accepted = accepted.json();
    assert_eq!(
        (&accepted["taskId"], &accepted["duplicate"]),
        (&json!("t"), &json!(false)),
        "default values are included"
    );
    let ended = call(&server, WAIT, &json!({"taskId": "t", "timeout": "60s"})).json();
    assert_eq!(ended["task"]["state"], "TASK_STATE_COMPLETED");
    assert_eq!(ended["task"]["result"]["json"]["value"], json!(12_499_997_500_000_u64), "a JSON result is JSON");
}

#[tokio::test]
async fn a_call_can_be_sent_as_binary_protobuf() {
    let server = Server::start("");
    let submit = v1::SubmitTaskRequest { task_id: "b".to_owned(), ..noop() };
    let headers = [("connect-protocol-version", "1")];
    let request = post(SUBMIT, "application/proto", &headers, &submit.encode_to_vec());
    let response = Connection::open(&server).send(&request);
    assert_eq!((response.status, response.header("content-type")), (200, "application/proto"));
    assert_eq!(v1::SubmitTaskResponse::decode(&response.body[..]).unwrap().task_id, "b");
    assert_eq!(server.wait_finished("b").await.state(), TaskState::Completed);
}

#[tokio::test]
async fn a_json_payload_keeps_all_digits() {
    let echo = "[[handler]]\nname = \"cat\"\nrunner = \"process\"\nargv = [\"/bin/cat\"]\n";
    let server = Server::start(echo);
    let exact = r#"{ "z": 90071992547409931234567890, "a": 0.10000000000000000001 }"#;
    let body = format!(r#"{{"handler":"cat","taskId":"x","payload":{{"json":{exact}}}}}"#);
    let accepted = Connection::open(&server).send(&post(SUBMIT, "application/json", &[], body.as_bytes()));
    assert_eq!(accepted.status, 200, "{accepted:?}");
    let ended = server.wait_finished("x").await;
    assert_eq!(crate::support::bytes(ended.result.as_ref()), exact);
    let get = json!({"taskId": "x", "includePayload": true});
    let shown = call(&server, "/lineshaft.v1.TaskService/GetTask", &get);
    let text = String::from_utf8(shown.body).unwrap();
    assert!(text.contains(&format!(r#""payload":{{"json":{exact},"#)), "{text}");
}

#[test]
fn an_error_has_a_code_details_and_an_http_status() {
    let server = Server::start("");
    let unknown = call(&server, SUBMIT, &json!({"handler": "nosuch"}));
    assert_eq!(unknown.status, 404);
    let unknown = unknown.json();
    assert_eq!((unknown["code"].as_str(), reason(&unknown)), (Some("not_found"), "UNKNOWN_HANDLER"));
    let bad = call(&server, SUBMIT, &json!({"handler": "compute", "labels": {"": "x"}})).json();
    assert_eq!(bad["code"], "invalid_argument");
    let fields = bad["details"].as_array().unwrap().iter().find(|detail| detail["type"] == "google.rpc.BadRequest");
    assert_eq!(fields.unwrap()["debug"]["fieldViolations"][0]["field"], "labels[\"\"]");
}

#[tokio::test]
async fn json_is_read_exactly_and_ambiguous_json_is_refused_with_its_field() {
    let echo = "[[handler]]\nname = \"cat\"\nrunner = \"process\"\nargv = [\"/bin/cat\"]\n";
    let server = Server::start(echo);
    let send =
        |path: &str, body: &str| Connection::open(&server).send(&post(path, "application/json", &[], body.as_bytes()));
    let spaced = "{ \"handler\" : \"cat\" , \"taskId\":\"s\" , \"payload\":{\"json\":1 ,\"contentType\":\"application/json\" } }";
    assert_eq!(send(SUBMIT, spaced).status, 200, "{:?}", send(SUBMIT, spaced).json());
    let exact = "123456789012345678901234567890";
    let plain = send("/api/submit", &format!("{{\"type\":\"cat\",\"id\":\"p\",\"param\":{exact}}}"));
    assert_eq!(plain.status, 200, "{:?}", plain.json());
    for (id, expected) in [("s", "1"), ("p", exact)] {
        let result = server.wait_finished(id).await.result.unwrap();
        assert_eq!(result.kind, Some(v1::payload::Kind::Data(expected.into())), "{id}");
    }
    let shown = Connection::open(&server).send(b"GET /api/task/p HTTP/1.1\r\nhost: localhost\r\n\r\n").body;
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains(&format!("\"param\":\"{exact}\",")), "{shown}");
    for (body, field) in [
        (r#"{"handler":"cat","payload":{"json":"\ud800"}}"#, "payload.json"),
        (r#"{"handler":"cat","taskId":"a","task_id":"b"}"#, "task_id"),
        (r#"{"handler":"cat","labels":{"a":"1","a":"2"}}"#, "labels.a"),
        (r#"{"handler":"cat","payload":{"json":1,"json":2}}"#, "payload.json"),
        (r#"{"handler":"cat","retry":{"maxAttempts":"many"}}"#, "retry.maxAttempts"),
    ] {
        let refused = send(SUBMIT, body);
        assert_eq!((refused.status, reason(&refused.json())), (400, "INVALID_FIELD"), "{body}");
        let details = refused.json()["details"].as_array().unwrap().clone();
        let fields = details.iter().find(|detail| detail["type"] == "google.rpc.BadRequest").expect(body);
        assert_eq!(fields["debug"]["fieldViolations"][0]["field"], field, "{body}");
    }
    // What a gRPC client may send is still readable for a client of JSON.
    let bytes = v1::Payload {
        kind: Some(v1::payload::Kind::Data(r#""\ud800""#.into())),
        content_type: "application/json".to_owned(),
    };
    let id = server.submit(v1::SubmitTaskRequest { handler: "cat".into(), payload: Some(bytes), ..noop() }).await;
    server.wait_finished(&id).await;
    let shown = send("/lineshaft.v1.TaskService/GetTask", &format!("{{\"taskId\":\"{id}\",\"includePayload\":true}}"));
    assert_eq!(shown.json()["task"]["payload"]["data"], BASE64_STANDARD.encode(r#""\ud800""#));
}

#[tokio::test]
async fn unknown_fields_are_ignored_unless_the_caller_asks_for_strict() {
    let server = Server::start("");
    let violation = |error: &Value| {
        let details = error["details"].as_array().unwrap_or_else(|| panic!("no details: {error}"));
        let fields = details.iter().find(|detail| detail["type"] == "google.rpc.BadRequest").unwrap();
        fields["debug"]["fieldViolations"][0]["field"].as_str().unwrap().to_owned()
    };
    let newer = json!({"handler": "compute", "futureField": {"a": [1]}, "retry": {"maxAttempts": 2, "budget": 3}});
    let accepted = call(&server, SUBMIT, &newer);
    assert_eq!(accepted.status, 200, "{:?}", accepted.json());
    let task = server.get(accepted.json()["taskId"].as_str().unwrap()).await;
    assert_eq!(task.retry.unwrap().max_attempts, 2);
    let strict = call(&server, &format!("{SUBMIT}?strict=true"), &newer);
    assert_eq!((strict.status, &*violation(&strict.json())), (400, "futureField"));

    let plain = json!({"type": "compute", "prioritty": 0});
    assert_eq!(call(&server, "/api/submit", &plain).status, 200);
    let strict = call(&server, "/api/submit?strict=true", &plain);
    assert_eq!((strict.status, &*violation(&strict.json())), (400, "prioritty"));
    let form = |path| {
        Connection::open(&server).send(&post(path, "application/x-www-form-urlencoded", &[], b"type=compute&x=1"))
    };
    assert_eq!((form("/api/submit").status, form("/api/submit?strict=true").status), (200, 400));

    // What selects tasks, and what asks for strict, is always strict.
    let filter = json!({"filter": {"states": ["TASK_STATE_FAILED"], "futureCondition": "x"}});
    let deletion = call(&server, "/lineshaft.v1.TaskService/DeleteTasks", &filter);
    assert_eq!((deletion.status, &*violation(&deletion.json())), (400, "filter.futureCondition"));
    let list = Connection::open(&server).send(b"GET /api/tasks?stat=failed HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert_eq!((list.status, &*violation(&list.json())), (400, "stat"));
    let typo = call(&server, &format!("{SUBMIT}?stric=true"), &newer);
    assert_eq!((typo.status, &*violation(&typo.json())), (400, "stric"));
    let unknown_value = call(&server, SUBMIT, &json!({"handler": "compute", "priority": "PRIORITY_FUTURE"}));
    assert_eq!((unknown_value.status, &*violation(&unknown_value.json())), (400, "priority"));
}

#[test]
fn malformed_requests_are_rejected_with_line_and_column() {
    let server = Server::start("");
    let raw = |content_type: &str, headers: &[(&str, &str)], body: &str| {
        Connection::open(&server).send(&post(SUBMIT, content_type, headers, body.as_bytes()))
    };
    let typo = raw("application/json", &[], "{\"handler\":1}");
    assert_eq!(typo.status, 400);
    assert!(typo.json()["message"].as_str().unwrap().contains("at line 1 column 12"), "{:?}", typo.json());
    assert_eq!(reason(&typo.json()), "INVALID_FIELD");
    let deep = raw("application/json", &[], &format!("{{\"payload\":{{\"json\":{}", "[".repeat(100_000)));
    assert!(deep.json()["message"].as_str().unwrap().contains("levels deep"), "{:?}", deep.json());
    for (content_type, headers, status) in [
        ("text/plain", &[][..], 415),
        ("application/x-www-form-urlencoded", &[], 415),
        ("application/connect+json", &[], 415),
        ("application/json", &[("content-encoding", "br")], 415),
        ("application/json", &[("content-encoding", "gzip")], 400),
        ("application/json", &[("connect-protocol-version", "2")], 400),
        ("application/json", &[("connect-timeout-ms", "soon")], 400),
        ("application/grpc", &[], 505),
    ] {
        let response = raw(content_type, headers, "{}");
        assert_eq!(response.status, status, "{content_type} {headers:?}: {:?}", response.json());
    }
    let get = Connection::open(&server).send(format!("GET {SUBMIT} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes());
    assert_eq!((get.status, get.header("allow")), (405, "POST"));
    assert_eq!(call(&server, "/lineshaft.v1.TaskService/Nothing", &json!({})).status, 404);
    assert_eq!(call(&server, "/lineshaft.v1.TaskService/SubmitTasks", &json!({})).status, 415, "client streaming");
}

#[tokio::test]
async fn a_call_ends_at_its_deadline() {
    let server = Server::start("");
    let id = server.submit(task("io", "3600")).await;
    let body = json!({"taskId": id}).to_string();
    let late = Connection::open(&server).send(&post(
        WAIT,
        "application/json",
        &[("connect-timeout-ms", "200")],
        body.as_bytes(),
    ));
    assert_eq!(late.status, 504);
    assert_eq!((late.json()["code"].as_str(), reason(&late.json())), (Some("deadline_exceeded"), "DEADLINE_EXCEEDED"));
    // The same for a stream. Its HTTP status is 200.
    let request = post(WATCH, "application/connect+json", &[("connect-timeout-ms", "300")], &envelope(b"{}"));
    let ended = Connection::open(&server).send(&request);
    assert_eq!(ended.status, 200);
    let last = envelopes(&ended.body).pop().unwrap();
    assert_eq!((last.0, last.1["error"]["code"].as_str()), (2, Some("deadline_exceeded")));
    assert_eq!(server.get(&id).await.state(), TaskState::Running, "the task continues");
}

#[test]
fn run_task_streams_json_until_the_task_is_finished() {
    let server = Server::start("");
    let body = json!({"task": {"handler": "compute", "payload": {"json": 10}}}).to_string();
    let path = "/lineshaft.v1.TaskService/RunTask";
    let request = post(path, "application/connect+json", &[], &envelope(body.as_bytes()));
    let response = Connection::open(&server).send(&request);
    assert_eq!((response.status, response.header("content-type")), (200, "application/connect+json"));
    let steps = envelopes(&response.body);
    assert!(steps[0].1["accepted"]["taskId"].is_string(), "{steps:?}");
    let (end, task) = (&steps[steps.len() - 1], &steps[steps.len() - 2].1["task"]);
    assert_eq!((end.0, &end.1), (2, &json!({})));
    assert_eq!((&task["state"], &task["result"]["json"]["value"]), (&json!("TASK_STATE_COMPLETED"), &json!(45)));
    assert!(steps.iter().any(|(_, step)| step["event"]["state"] == "TASK_STATE_COMPLETED"));
    // An error before the stream starts has the same format.
    let strict = format!("{path}?strict=true");
    let request = post(&strict, "application/connect+json", &[], &envelope(b"{\"tusk\":1}"));
    let refused = Connection::open(&server).send(&request);
    let steps = envelopes(&refused.body);
    assert_eq!((refused.status, steps.len(), steps[0].0), (200, 1, 2));
    assert_eq!(reason(&steps[0].1["error"]), "INVALID_FIELD");
}

#[test]
fn a_drain_ends_http_streams() {
    let mut server = Server::start("");
    let mut idle = Connection::open(&server);
    assert_eq!(idle.send(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").status, 200);
    let mut watch = Connection::open(&server);
    let body = envelope(json!({"includeSnapshot": true}).to_string().as_bytes());
    watch.write(&post(WATCH, "application/connect+json", &[], &body));
    watch.read_until(b"snapshotComplete");
    server.signal(rustix::process::Signal::TERM);
    let (flags, end) = envelopes(&watch.read_response().body).pop().unwrap();
    assert_eq!((flags, end["error"]["code"].as_str(), reason(&end["error"])), (2, Some("unavailable"), "DRAINING"));
    assert!(server.wait_exit().success(), "{}", server.log());
}

#[tokio::test]
async fn a_task_is_submitted_with_grpc_web() {
    let server = Server::start("");
    let submit = v1::SubmitTaskRequest { task_id: "w".to_owned(), ..noop() };
    let request =
        post(SUBMIT, "application/grpc-web+proto", &[("x-grpc-web", "1")], &envelope(&submit.encode_to_vec()));
    let response = Connection::open(&server).send(&request);
    assert_eq!((response.status, response.header("content-type")), (200, "application/grpc-web+proto"));
    let length = usize::try_from(u32::from_be_bytes(response.body[1..5].try_into().unwrap())).unwrap();
    let (message, trailers) = response.body[5..].split_at(length);
    assert_eq!(v1::SubmitTaskResponse::decode(message).unwrap().task_id, "w");
    assert_eq!(trailers[0], 0x80, "a frame of trailers");
    assert!(String::from_utf8_lossy(trailers).contains("grpc-status:0"));
    assert_eq!(server.wait_finished("w").await.state(), TaskState::Completed);
    // A compressed message is rejected without decompressing it.
    let bomb = [&[1][..], &envelope(&[0; 64])[1..]].concat();
    let request = post(SUBMIT, "application/grpc-web+proto", &[("grpc-encoding", "gzip")], &bomb);
    let refused = Connection::open(&server).send(&request);
    let trailers = String::from_utf8_lossy(&refused.body).into_owned();
    let unimplemented = refused.header("grpc-status") == "12" || trailers.contains("grpc-status:12");
    assert!(unimplemented, "{refused:?} {trailers}");
    // An error before the body is read is returned as gRPC-Web too, with its details.
    let large = format!(
        "POST {SUBMIT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/grpc-web+proto\r\n\
         content-length: 99999999\r\n\r\n"
    );
    let refused = Connection::open(&server).send(large.as_bytes());
    assert_eq!((refused.status, refused.header("content-type")), (200, "application/grpc-web+proto"));
    assert_eq!(refused.header("grpc-status"), "8");
    assert!(!refused.header("grpc-status-details-bin").is_empty(), "{refused:?}");
}

#[test]
fn media_types_of_grpc_web_are_compared_without_case_and_parameters() {
    let server = Server::start("");
    let body = envelope(&noop().encode_to_vec());
    let send = |content_type: &str, accept: &str, body: &[u8]| {
        Connection::open(&server).send(&post(SUBMIT, content_type, &[("accept", accept)], body))
    };
    for content_type in
        ["application/grpc-web", "application/grpc-web+proto; charset=utf-8", "Application/gRPC-Web+Proto;a=\"b;c\""]
    {
        let answer = send(content_type, "*/*", &body);
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, "application/grpc-web+proto"),
            "{content_type}"
        );
        assert!(String::from_utf8_lossy(&answer.body).contains("grpc-status:0"), "{content_type}: {answer:?}");
    }
    let text = BASE64_STANDARD.encode(&body);
    let accept = "application/grpc-web-text, application/grpc-web;q=0.5";
    let answer = send("application/grpc-web-text; charset=utf-8", accept, text.as_bytes());
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/grpc-web-text+proto"), "{answer:?}");
    for unsupported in ["application/grpc-web+json", "application/grpc-web-thrift"] {
        let refused = send(unsupported, "*/*", &body);
        assert_eq!((refused.status, refused.header("grpc-status")), (200, "12"), "{unsupported}: {refused:?}");
        assert!(refused.header("grpc-message").contains("content-type"), "{refused:?}");
    }
}

#[tokio::test]
async fn bodies_may_be_compressed_with_gzip() {
    let server = Server::start("");
    let gzip = |content: &str| {
        let (source, target) = (server.path("plain"), server.path("plain.gz"));
        std::fs::write(&source, content).unwrap();
        let (done, output) = run("gzip", ["-kf", &source.display().to_string()]);
        assert!(done, "{output}");
        std::fs::read(target).unwrap()
    };
    let send = |path: &str, content_type: &str, coding: &str, body: &[u8]| {
        Connection::open(&server).send(&post(path, content_type, &[("content-encoding", coding)], body))
    };
    for (id, coding) in [("a", "gzip"), ("b", "GZIP"), ("c", "identity, x-gzip")] {
        let body = gzip(&json!({"handler": "compute", "payload": {"json": 10}, "taskId": id}).to_string());
        let accepted = send(SUBMIT, "application/json", coding, &body);
        assert_eq!((accepted.status, &accepted.json()["taskId"]), (200, &json!(id)), "{coding}");
    }
    let plain = send(SUBMIT, "application/json", "Identity", br#"{"handler": "compute", "payload": {"json": 10}}"#);
    assert_eq!(plain.status, 200, "{:?}", plain.json());
    let form = send("/api/submit", "application/x-www-form-urlencoded", "gzip", &gzip("type=compute&param=10"));
    assert_eq!(form.status, 200, "{:?}", form.json());
    let bomb = send(SUBMIT, "application/json", "gzip", &gzip(&" ".repeat(40 << 20)));
    assert_eq!((bomb.status, reason(&bomb.json())), (429, "MESSAGE_TOO_LARGE"));
}

#[test]
fn http_1_1_requests_need_exactly_one_host_on_every_port() {
    let server = Server::start("[server]\nhealth_listen = \"127.0.0.1:0\"\n");
    for address in [server.address.clone(), health_address(&server)] {
        let get = |version: &str, hosts: &str| {
            let request = format!("GET /health/live HTTP/{version}\r\n{hosts}\r\n");
            Connection::open_at(&address).send(request.as_bytes()).status
        };
        assert_eq!(get("1.1", "host: localhost\r\n"), 200);
        assert_eq!(get("1.1", ""), 400, "no host");
        assert_eq!(get("1.1", "host: localhost\r\nHost: localhost\r\n"), 400, "two hosts");
        assert_eq!(get("1.1", "host: user@localhost\r\n"), 400, "not a host");
        assert_eq!(get("1.0", ""), 200, "HTTP/1.0 needs none");
    }
}

#[test]
fn requests_from_a_foreign_origin_or_host_are_rejected() {
    let server = Server::start("");
    let form = "application/x-www-form-urlencoded";
    let from = |origin: &str, path: &str, content_type: &str, body: &[u8]| {
        Connection::open(&server).send(&post(path, content_type, &[("origin", origin)], body))
    };
    for (path, content_type, body) in [
        ("/api/submit", form, &b"type=compute&param=1"[..]),
        ("/api/shutdown", form, b""),
        (SUBMIT, "application/json", b"{\"handler\":\"compute\"}"),
        (SUBMIT, "application/grpc-web+proto", b"\0\0\0\0\0"),
    ] {
        let refused = from("http://evil.example", path, content_type, body);
        assert_eq!((refused.status, reason(&refused.json())), (403, "FOREIGN_ORIGIN"), "{path}");
    }
    // Browsers send text/plain without a preflight request.
    assert_eq!(from("http://localhost", "/api/submit", "text/plain", b"type=compute").status, 415);
    // A foreign host name that resolves to this address.
    for path in ["/api/stats", "/api/tasks"] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: evil.example\r\n\r\n");
        let refused = Connection::open(&server).send(request.as_bytes());
        assert_eq!((refused.status, reason(&refused.json())), (403, "FOREIGN_ORIGIN"));
    }
    let tasks = call(&server, "/lineshaft.v1.TaskService/ListTasks", &json!({})).json();
    assert_eq!(tasks["tasks"], json!([]), "no task was submitted");
}

#[test]
fn an_allowed_origin_can_call() {
    let server = Server::start("[http]\nallowed_origins = [\"https://ui.example\"]\nhosts = [\"tasks.example\"]\n");
    let preflight = |origin: &str| {
        let request = format!(
            "OPTIONS {SUBMIT} HTTP/1.1\r\nhost: tasks.example\r\norigin: {origin}\r\n\
             access-control-request-method: POST\r\naccess-control-request-headers: content-type\r\n\r\n"
        );
        Connection::open(&server).send(request.as_bytes())
    };
    let allowed = preflight("https://ui.example");
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (204, "https://ui.example"));
    assert!(allowed.header("access-control-allow-headers").contains("content-type"));
    assert_eq!(preflight("https://other.example").status, 403);
    let body = json!({"handler": "compute", "payload": {"json": 1}}).to_string();
    let headers = [("origin", "https://ui.example")];
    let called = Connection::open(&server).send(&post(SUBMIT, "application/json", &headers, body.as_bytes()));
    assert_eq!((called.status, called.header("access-control-allow-origin")), (200, "https://ui.example"));
    assert_eq!(called.header("vary"), "origin");
}

#[test]
fn one_connection_carries_many_calls() {
    let server = Server::start("");
    let mut connection = Connection::open(&server);
    for _ in 0..20 {
        let response = connection.send(&post(SUBMIT, "application/json", &[], b"{\"handler\":\"compute\"}"));
        assert_eq!(response.status, 200);
    }
}

#[tokio::test]
async fn headers_and_bodies_have_size_and_time_limits() {
    let server = Server::start("[http]\nheader_timeout = \"300ms\"\nbody_timeout = \"300ms\"\n");
    // Incomplete requests.
    for incomplete in ["", "GET", "GET / HTTP/1.1\r\nhost: localhost\r\nx: "] {
        let mut slow = Connection::open(&server);
        slow.write(incomplete.as_bytes());
        slow.assert_closed();
    }
    let mut idle = Connection::open(&server);
    assert_eq!(idle.send(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").status, 200);
    idle.assert_closed();
    let head = format!("POST {SUBMIT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n");
    let slow = Connection::open(&server).send(format!("{head}content-length: 10\r\n\r\n{{").as_bytes());
    assert_eq!((slow.status, reason(&slow.json())), (504, "DEADLINE_EXCEEDED"));
    // Too large requests.
    let long = format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    assert_eq!(Connection::open(&server).send(long.as_bytes()).status, 431);
    let many = format!("GET / HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x: y\r\n".repeat(200));
    assert_eq!(Connection::open(&server).send(many.as_bytes()).status, 431);
    let large = Connection::open(&server).send(format!("{head}content-length: 99999999\r\n\r\n").as_bytes());
    assert_eq!((large.status, reason(&large.json())), (429, "MESSAGE_TOO_LARGE"));
    // gRPC.
    let mut request = tonic::Request::new(v1::GetServerInfoRequest {});
    request.metadata_mut().insert("x", "y".repeat(40_000).parse().unwrap());
    assert!(server.system().get_server_info(request).await.is_err());
    assert!(server.system().get_server_info(v1::GetServerInfoRequest {}).await.is_ok());
}

#[tokio::test]
async fn incomplete_requests_release_their_slots() {
    let server = Server::start("[http]\nbody_timeout = \"2s\"\n[server]\nmax_in_flight = 20\n");
    let head = format!("POST {SUBMIT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n");
    let mut halves: Vec<_> = (0..20).map(|_| Connection::open(&server)).collect();
    for half in &mut halves {
        half.write(format!("{head}content-length: 10\r\n\r\n{{").as_bytes());
    }
    // Each incomplete request holds a slot until its timeout; other calls fail immediately until then.
    eventually(async || {
        let submitted = server.tasks().submit_task(noop()).await;
        submitted.map_err(|busy| {
            assert_eq!(crate::support::reason(&busy), "OVERLOADED");
            "the slots are not released".to_owned()
        })
    })
    .await;
}

#[tokio::test]
async fn pages_are_served_when_all_call_slots_are_taken() {
    let server = Server::start("[server]\nmax_in_flight = 1\n");
    let head = format!("POST {SUBMIT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n");
    let get = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        Connection::open(&server).send(request.as_bytes()).status
    };
    let mut halves = Vec::new();
    // An incomplete request is refused if it arrives while the page before has the slot; the next one takes it.
    eventually(async || {
        let mut half = Connection::open(&server);
        half.write(format!("{head}content-length: 10\r\n\r\n{{").as_bytes());
        halves.push(half);
        check(get("/api/stats") == 429, || "the slot is still free".to_owned())
    })
    .await;
    for page in ["/health", "/health/live", "/health/ready", "/metrics", "/"] {
        assert_eq!(get(page), 200, "{page}");
    }
}
