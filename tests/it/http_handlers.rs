//! Tasks that are requests to a service.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Collected, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use lineshaft::proto::v1::{self, FailureReason, StopMethod, TaskState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::support::{BINARY, Server, bytes, check, eventually, task};

const SECRET: &str = "hunter2-of-the-service";

/// A service with the paths `/echo`, `/busy` (503 at the first attempt), `/slow` (until `/cancel`), `/fail` and `/moved`.
struct Service {
    address: SocketAddr,
    /// Path and query, and headers.
    requests: Arc<Mutex<Vec<(String, hyper::HeaderMap)>>>,
}

impl Service {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::<Mutex<Vec<_>>>::default();
        let (seen, cancelled) = (requests.clone(), CancellationToken::new());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, cancelled) = (seen.clone(), cancelled.clone());
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let target = request.uri().path_and_query().unwrap().to_string();
                    seen.lock().unwrap().push((target, request.headers().clone()));
                    answer(request, cancelled.clone())
                });
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Self { address, requests }
    }

    fn handler(&self, name: &str, settings: &str) -> String {
        format!(
            "[[handler]]\nname = \"{name}\"\nrunner = \"http\"\nretry = {{ attempts = 2, delay = \"10m\" }}\n[handler.http]\n\
             url = \"http://{}/{name}?task={{task_id}}&token={{env:SERVICE_TOKEN}}\"\n\
             allowed_networks = [\"127.0.0.1\"]\n{settings}\n",
            self.address
        )
    }

    fn requests(&self) -> Vec<(String, hyper::HeaderMap)> {
        self.requests.lock().unwrap().clone()
    }
}

async fn answer(request: Request<Incoming>, cancelled: CancellationToken) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let is_first = request.headers().get("lineshaft-attempt").is_some_and(|attempt| attempt == "1");
    let content_type = request.headers().get("content-type").cloned();
    let body = request.into_body().collect().await.map(Collected::to_bytes).unwrap_or_default();
    let mut response = Response::new(Full::new(body));
    if let Some(content_type) = content_type {
        response.headers_mut().insert("content-type", content_type);
    }
    match &*path {
        "/busy" if is_first => {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response.headers_mut().insert("retry-after", 1.into());
        }
        "/slow" => cancelled.cancelled().await,
        "/cancel" => cancelled.cancel(),
        "/fail" => *response.status_mut() = StatusCode::CONFLICT,
        "/moved" => {
            *response.status_mut() = StatusCode::FOUND;
            response.headers_mut().insert("location", "/echo".parse().unwrap());
        }
        _ => {}
    }
    Ok(response)
}

const VARIABLES: [(&str, &str); 3] =
    [("SERVICE_TOKEN", SECRET), ("HTTP_PROXY", "http://127.0.0.1:1"), ("http_proxy", "http://127.0.0.1:1")];

#[tokio::test]
async fn a_task_is_a_request_whose_response_is_the_result() {
    let service = Service::start().await;
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, format!("{SECRET}\n")).unwrap();
    let headers = format!("headers = {{ Authorization = \"Bearer {{file:{}}}\" }}", token.display());
    let config = [service.handler("echo", &headers), service.handler("busy", &headers)].concat();
    // A proxy in the environment is not used.
    let server = Server::start_with(&config, &VARIABLES);

    let id = server.submit(task("echo", "{\"a\":1}")).await;
    let ended = server.wait_finished(&id).await;
    let result = ended.result.as_ref();
    assert_eq!((bytes(result), &*result.unwrap().content_type), ("{\"a\":1}".to_owned(), "application/json"));
    let (target, headers) = service.requests()[0].clone();
    assert_eq!(target, format!("/echo?task={id}&token={SECRET}"));
    assert_eq!(headers["authorization"], format!("Bearer {SECRET}"));
    assert_eq!(headers["lineshaft-task-id"], id);
    assert_eq!(headers["lineshaft-attempt"], "1");

    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut request = tonic::Request::new(v1::SubmitTaskRequest { handler: "busy".into(), ..Default::default() });
    request.metadata_mut().insert("traceparent", traceparent.parse().unwrap());
    let id = server.tasks().submit_task(request).await.unwrap().into_inner().task_id;
    let ended = server.wait_finished(&id).await;
    // Not after the ten minutes that are the back-off of the handler.
    assert_eq!((ended.state(), ended.attempt), (TaskState::Completed, 2), "{ended:?}");
    let (_, headers) = service.requests()[2].clone();
    assert_eq!(headers["lineshaft-attempt"], "2");
    assert!(headers["traceparent"].to_str().unwrap().contains("0af7651916cd43dd8448eb211c80319c"), "{headers:?}");
    assert_eq!(ended.trace_id, "0af7651916cd43dd8448eb211c80319c");
}

/// Answers each request with bytes that depend on its path and on whether it is the first attempt, and closes the connection.
async fn start_raw(answer: impl Fn(&str, bool) -> &'static str + Copy + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap_or(b'\n'));
                    assert!(head.len() < 10_000);
                }
                let head = String::from_utf8(head).unwrap();
                let path = head.split(['/', ' ', '?']).nth(2).unwrap();
                stream.write_all(answer(path, head.contains("lineshaft-attempt: 1\r\n")).as_bytes()).await.unwrap();
            });
        }
    });
    address
}

#[tokio::test]
async fn a_service_that_breaks_off_lies_about_its_length_or_defers_is_called_again() {
    let address = start_raw(|path, is_first| match (path, is_first) {
        ("cut", true) => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart",
        ("long", _) => "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwell, and more that is not announced",
        ("chunk", true) => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffff\r\nwell",
        ("many", true) => "HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n",
        ("none", true) => "",
        _ => "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwell",
    })
    .await;
    // A time that the service names counts instead of that of the handler.
    let paths = [("cut", "1ms", 2), ("long", "10m", 1), ("chunk", "1ms", 2), ("many", "10m", 2), ("none", "1ms", 2)];
    let handler = |(path, delay, _): &(&str, &str, i32)| {
        format!(
            "[[handler]]\nname = \"{path}\"\nrunner = \"http\"\nretry = {{ attempts = 2, delay = \"{delay}\" }}\n\
             http = {{ url = \"http://{address}/{path}\", method = \"GET\", allowed_networks = [\"127.0.0.1\"] }}\n"
        )
    };
    let server = Server::start(&paths.iter().map(handler).collect::<Vec<_>>().concat());
    for (path, _, attempts) in paths {
        let ended = server.wait_finished(&server.submit(task(path, "1")).await).await;
        assert_eq!((ended.state(), ended.attempt), (TaskState::Completed, attempts), "{path}: {ended:?}");
        assert_eq!(bytes(ended.result.as_ref()), "well", "{path}");
    }
}

#[tokio::test]
async fn a_failed_request_fails_its_task_without_a_retry() {
    let service = Service::start().await;
    let server = Server::start_with(&[service.handler("fail", ""), service.handler("moved", "")].concat(), &VARIABLES);
    for (name, text) in [("fail", "409 Conflict"), ("moved", "302 Found; redirects are not followed")] {
        let id = server.submit(task(name, "\"because\"")).await;
        let failure = server.wait_finished(&id).await.failure.unwrap();
        assert_eq!((failure.reason(), failure.attempt), (FailureReason::HandlerError, 1), "{failure:?}");
        assert!(failure.message.contains(text) && failure.detail == "\"because\"", "{failure:?}");
    }
    assert_eq!(service.requests().len(), 2, "the redirect was not followed");
}

#[tokio::test]
async fn a_cancel_calls_the_cancel_url_of_the_service() {
    let service = Service::start().await;
    let cancel = format!("cancel_url = \"http://{}/cancel?task={{task_id}}\"", service.address);
    let server = Server::start_with(&service.handler("slow", &cancel), &VARIABLES);
    let id = server.submit(task("slow", "1")).await;
    eventually(async || check(!service.requests().is_empty(), || "no request".to_owned())).await;
    let request = v1::CancelTaskRequest { task_id: id.clone(), ..Default::default() };
    server.tasks().cancel_task(request).await.unwrap();
    let ended = server.wait_finished(&id).await;
    assert_eq!(ended.state(), TaskState::Cancelled, "{ended:?}");
    assert_eq!(ended.cancel.as_ref().map(v1::CancelReceipt::method), Some(StopMethod::Token), "{ended:?}");
    assert_eq!(service.requests()[1].0, format!("/cancel?task={id}"));
}

#[tokio::test]
async fn a_call_that_takes_too_long_times_out_and_calls_the_cancel_url() {
    let service = Service::start().await;
    let cancel = format!("cancel_url = \"http://{}/cancel\"", service.address);
    let config = service.handler("slow", &cancel).replace("[handler.http]", "timeout = \"200ms\"\n[handler.http]");
    let server = Server::start_with(&config, &VARIABLES);
    let request = v1::SubmitTaskRequest {
        retry: Some(v1::RetryPolicy { max_attempts: 1, ..Default::default() }),
        ..task("slow", "1")
    };
    let ended = server.wait_finished(&server.submit(request).await).await;
    assert_eq!(ended.failure.as_ref().map(v1::Failure::reason), Some(FailureReason::Timeout), "{ended:?}");
    assert_eq!(service.requests()[1].0, "/cancel");
}

#[tokio::test]
async fn secrets_of_a_handler_are_shown_nowhere() {
    let service = Service::start().await;
    let headers =
        format!("headers = {{ Authorization = \"Bearer {SECRET}\" }}\ncancel_url = \"https://h.example/x?{SECRET}\"");
    let config = format!("[log]\nfilter = \"trace\"\n{}", service.handler("fail", &headers));
    let server = Server::start_with(&config, &VARIABLES);
    let id = server.submit(task("fail", "1")).await;
    let ended = server.wait_finished(&id).await;
    assert_eq!(service.requests()[0].1["authorization"], format!("Bearer {SECRET}"));
    let listed = server.handlers().list_handlers(v1::ListHandlersRequest::default()).await.unwrap().into_inner();
    let found = listed.handlers.iter().find(|handler| handler.name == "fail").unwrap();
    assert_eq!(found.runner, "http");
    #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
    let dump =
        Command::new(BINARY).args(["config", "dump", "--config"]).arg(server.path("config.toml")).output().unwrap();
    let dump = String::from_utf8(dump.stdout).unwrap();
    assert!(dump.contains("Authorization = \"(hidden)\""), "{dump}");
    for text in [dump, server.log(), format!("{listed:?}"), format!("{ended:?}")] {
        assert!(!text.contains(SECRET), "{text}");
    }
}

#[test]
fn a_request_that_cannot_be_right_is_refused_at_the_start() {
    let handler = |http: &str| format!("[[handler]]\nname = \"a\"\nrunner = \"http\"\n[handler.http]\n{http}\n");
    for (http, expected) in [
        (
            "url = \"http://169.254.169.254/latest/meta-data\"",
            "config.toml:5: handler[0].http.url: goes to 169.254.169.254",
        ),
        ("url = \"https://{args[0]}.example.com/\"", "handler[0].http.url: has a placeholder before its path"),
        (
            "url = \"https://a/\"\nheaders = { Host = \"b\" }",
            "handler[0].http.headers.Host: is a header that the server",
        ),
        ("url = \"https://a/{env:NOT_SET_ANYWHERE}\"", "environment variable `NOT_SET_ANYWHERE`"),
        ("url = \"https://a/\"\nheaders = { A = \"{file:/no/such/file}\" }", "failed to read `/no/such/file`"),
        ("url = \"https://a/\"\nca = \"/no/such/file\"", "failed to read `/no/such/file`"),
    ] {
        let log = Server::fail_to_start(&handler(http), &[]);
        assert!(log.contains(expected), "{http}: {log}");
    }
}
