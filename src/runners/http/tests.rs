//! Tests of HTTP handlers only: requests, responses good and bad, connections, secrets, and cancel URLs.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::Method;
use hyper::header::HeaderName;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::test_service::{Reply, Service, response, silence};
use super::{HttpOptions, HttpRunner};
use crate::model::limits::INLINE_BYTES_MAX;
use crate::model::{ArgPattern, Failure, FailureReason, MemoryAccount, MemoryPart, StopMethod, Template};
use crate::runners::fixtures::{Attempt, TIMEOUT};
use crate::runners::{Outcome, Runner, StopCause};

fn runner(options: HttpOptions) -> Arc<dyn Runner> {
    Arc::new(HttpRunner::new(options).unwrap())
}

fn header(name: &'static str, value: &str) -> (HeaderName, Template) {
    (HeaderName::from_static(name), Template::parse(value).unwrap())
}

/// The failure of a call that is answered with these bytes.
async fn failure_of(reply: impl Fn() -> Reply + Send + Sync + 'static) -> Failure {
    let service = Service::start(move |_| reply());
    Attempt::start(&service.runner(), "payload").failure().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_the_payload_the_attempt_and_the_registered_headers() {
    let service = Service::echo();
    let options = HttpOptions {
        method: Method::PUT,
        headers: vec![header("authorization", "Bearer {env:PATH}"), header("idempotency-key", "{task_id}-{args[0]}")],
        arg_pattern: ArgPattern::parse("[a-z ]+").ok(),
        ..service.options("/users/{args[0]}?task={task_id}")
    };
    let attempt = Attempt::start_with(&runner(options.clone()), "payload", &["a b"], Arc::default());
    match attempt.outcome().await {
        Outcome::Completed(result) => {
            assert_eq!((&result.data[..], &*result.content_type), (&b"payload"[..], "text/x-echo"));
        }
        other => panic!("{other:?}"),
    }
    let request = &service.requests()[0];
    assert_eq!((&*request.line, &request.body[..]), ("PUT /users/a%20b?task=task-7 HTTP/1.1", &b"payload"[..]));
    for (name, value) in [
        ("host", &*service.address.to_string()),
        ("content-type", "text/plain"),
        ("content-length", "7"),
        ("authorization", &format!("Bearer {}", std::env::var("PATH").unwrap())),
        ("idempotency-key", "task-7-a b"),
        ("lineshaft-task-id", "task-7"),
        ("lineshaft-attempt", "2"),
        ("accept-encoding", "identity"),
        ("user-agent", concat!("lineshaft/", env!("CARGO_PKG_VERSION"))),
    ] {
        assert_eq!(request.header(name), Some(value), "{name}");
    }
    for args in [&[][..], &["a", "b"], &["../admin"]] {
        let failure = Attempt::start_with(&runner(options.clone()), "", args, Arc::default()).failure().await;
        assert_eq!((failure.reason, failure.retryable), (FailureReason::InvalidPayload, false), "{args:?}");
    }
    assert_eq!(service.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_would_change_the_request_is_never_sent() {
    let service = Service::echo();
    let options = HttpOptions {
        headers: vec![header("x-note", "{args[0]}")],
        arg_pattern: ArgPattern::parse("(?s).*").ok(),
        ..service.options("/a")
    };
    for arg in ["a\r\nHost: evil.example", "a\nb", "\0"] {
        let failure = Attempt::start_with(&runner(options.clone()), "", &[arg], Arc::default()).failure().await;
        assert_eq!(failure.reason, FailureReason::InvalidPayload, "{arg:?}: {failure:?}");
    }
    assert_eq!(service.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_decides_between_result_retry_and_failure() {
    for (status, headers, retryable, after) in [
        ("400 Bad Request", "", false, None),
        ("404 Not Found", "retry-after: 5\r\n", false, None),
        ("429 Too Many Requests", "retry-after: 120\r\n", true, Some(120)),
        ("503 Service Unavailable", "retry-after: 3\r\n", true, Some(3)),
        ("503 Service Unavailable", "", true, None),
        ("599", "", true, None),
        ("301 Moved Permanently", "location: http://127.0.0.1:1/\r\n", false, None),
        ("307 Temporary Redirect", "location: http://169.254.169.254/\r\n", false, None),
    ] {
        let failure = failure_of(move || response(status, headers, "because")).await;
        assert_eq!((failure.reason, failure.retryable), (FailureReason::HandlerError, retryable), "{status}");
        assert_eq!(failure.retry_after, after.map(Duration::from_secs), "{status}");
        assert!(failure.message.contains(&format!("`127.0.0.1` answered {status}")), "{}", failure.message);
        assert_eq!(failure.message.contains("redirects are not followed"), status.starts_with('3'));
        assert_eq!(failure.detail, "because");
    }
    let service = Service::start(|_| response("404 Not Found", "", "gone"));
    let options = HttpOptions { success: vec![200..=299, 404..=404], ..service.options("/") };
    assert_eq!(Attempt::start(&runner(options), "").result().await, "gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed() {
    let elsewhere = Service::echo();
    let location = format!("location: http://{}/\r\n", elsewhere.address);
    let failure = failure_of(move || response("302 Found", &location, "")).await;
    assert!(failure.message.contains("redirects are not followed"), "{}", failure.message);
    assert_eq!(elsewhere.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_breaks_off_is_retried() {
    let close = |bytes: &'static str| move || Reply::Close(bytes.into());
    for failure in [
        failure_of(close("")).await,
        failure_of(close("HTTP/1.1 200 OK\r\ncontent-le")).await,
        failure_of(close("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfour")).await,
        failure_of(close("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab")).await,
        failure_of(close("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab")).await,
        failure_of(close("SSH-2.0-OpenSSH_9.6\r\n\r\n")).await,
    ] {
        assert_eq!((failure.reason, failure.retryable), (FailureReason::HandlerError, true), "{failure:?}");
        assert!(failure.message.starts_with("the call of `127.0.0.1` broke off: "), "{}", failure.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_announced_length_is_not_part_of_the_result() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n";
    let bytes = format!("{head}four{head}evil");
    let service = Service::start(move |_| Reply::Keep(bytes.clone().into()));
    let runner = service.runner();
    for _ in 0..2 {
        assert_eq!(Attempt::start(&runner, "").result().await, "four");
    }
    assert_eq!(service.connections.load(Ordering::SeqCst), 2, "such a connection is not used again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_is_read_up_to_the_limit_of_a_result() {
    let largest = "x".repeat(INLINE_BYTES_MAX);
    let body = largest.clone();
    let service = Service::start(move |_| response("200 OK", "", &body));
    assert_eq!(Attempt::start(&service.runner(), "").result().await, largest);

    let larger = "x".repeat(3_000_000);
    let (body, account) = (larger.clone(), MemoryAccount::new(|_| 6 << 20));
    let service = Service::start(move |_| response("200 OK", "", &body));
    let held = account.reserve(MemoryPart::Requests, 4 << 20).unwrap();
    let mut attempt = Attempt::start_large(&service.runner(), "", &account);
    assert!(!attempt.ends_within(Duration::from_millis(50)).await, "there is no memory");
    drop(held);
    let report = attempt.report().await;
    assert_eq!(account.used(MemoryPart::Requests), 3_000_000);
    assert!(matches!(report.outcome, Outcome::Completed(result) if result.data == larger));

    let announced = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 1_u64 << 40);
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    let chunk = format!("{:x}\r\n{}\r\n", 60_000, "y".repeat(60_000));
    for (head, then) in [(announced, "z".repeat(1_000)), (chunked, chunk)] {
        let service = Service::start(move |_| Reply::Endless(head.clone().into(), then.clone().into()));
        let failure = Attempt::start(&service.runner(), "").failure().await;
        assert_eq!((failure.reason, failure.retryable), (FailureReason::ResultTooLarge, false), "{failure:?}");
        timeout(TIMEOUT, service.abandoned.cancelled()).await.expect("the connection is closed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_headers_and_error_bodies_end_an_attempt() {
    let line = b"x-header: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n";
    for head in ["HTTP/1.1 200 OK\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"] {
        let failure = failure_of(move || Reply::Endless(head.into(), line.repeat(100))).await;
        assert!(failure.message.contains("broke off") && failure.retryable, "{failure:?}");
    }
    let failure = failure_of(|| Reply::Endless(b"HTTP/1.1 200 OK\r\nx: ".into(), vec![b'a'; 10_000])).await;
    assert!(failure.message.contains("broke off"), "{failure:?}");
    let head = b"HTTP/1.1 500 Internal Server Error\r\n\r\n";
    let failure = failure_of(|| Reply::Endless(head.into(), vec![b'e'; 1_000])).await;
    assert_eq!(failure.detail, "e".repeat(2_048));
    // A body that never comes delays the failure by a second, and not until the timeout.
    let failure = failure_of(|| Reply::Keep(b"HTTP/1.1 500 No\r\ncontent-length: 9\r\n\r\npart".into())).await;
    assert_eq!(failure.detail, "part");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_response_that_was_not_requested_is_refused() {
    let failure = failure_of(|| response("200 OK", "content-encoding: gzip\r\n", "xx")).await;
    assert!(failure.message.contains("content encoding \"gzip\"") && !failure.retryable, "{failure:?}");
    let service = Service::start(|_| response("200 OK", "content-encoding: identity\r\n", "plain"));
    assert_eq!(Attempt::start(&service.runner(), "").result().await, "plain");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_used_for_more_than_one_call() {
    let service = Service::echo();
    let runner = service.runner();
    let deadline = Instant::now() + TIMEOUT;
    // A call that begins before the last one has given its connection back opens another.
    while service.connections.load(Ordering::SeqCst) >= service.requests().len() {
        assert!(Instant::now() < deadline, "{} calls", service.requests().len());
        assert_eq!(Attempt::start(&runner, "again").result().await, "again");
        assert_eq!(Attempt::start(&runner, "and again").result().await, "and again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_the_service_closes_is_not_used_again() {
    let response = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
    let service = Service::start(|_| Reply::Close(response.into()));
    let runner = service.runner();
    for count in 1..10 {
        assert_eq!(Attempt::start(&runner, "").result().await, "ok");
        assert_eq!(service.connections.load(Ordering::SeqCst), count);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_of_the_largest_size_is_sent() {
    let service = Service::start(|request| response("200 OK", "", &request.body.len().to_string()));
    let payload = vec![b'x'; INLINE_BYTES_MAX];
    assert_eq!(Attempt::start(&service.runner(), payload).result().await, INLINE_BYTES_MAX.to_string());
    assert_eq!(Attempt::start(&service.runner(), "").result().await, "0");
    assert_eq!(service.requests()[1].header("content-type"), None);
    assert_eq!(service.requests()[1].header("content-length"), Some("0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_cannot_be_reached_is_tried_again() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let service = Service::echo();
    let url = crate::model::UrlTemplate::parse(&format!("http://127.0.0.1:{port}/")).unwrap();
    let failure = Attempt::start(&runner(HttpOptions { url, ..service.options("/") }), "").failure().await;
    assert!(failure.retryable && failure.message.starts_with("failed to connect to `127.0.0.1`"), "{failure:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_not_allowed_is_not_contacted() {
    let service = Service::echo();
    let port = service.address.port();
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "127.1", "2130706433", "0.0.0.0"] {
        let url = crate::model::UrlTemplate::parse(&format!("http://{host}:{port}/")).unwrap();
        let options = HttpOptions { url, allowed_networks: Vec::new(), ..service.options("/") };
        let failure = Attempt::start(&runner(options), "").failure().await;
        let is_refused = failure.message.contains("which is not public") && !failure.retryable;
        // Whether a number is the name of an address depends on the system.
        assert!(is_refused || failure.message.contains("failed to lookup address"), "{host}: {failure:?}");
    }
    assert_eq!(service.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_in_no_failure_and_no_debug_text() {
    let service = Service::start(|_| response("500 No", "", "failed"));
    let secret = "PATH";
    let value = std::env::var(secret).unwrap();
    let options = HttpOptions {
        headers: vec![header("authorization", &format!("{{env:{secret}}}"))],
        ..service.options(&format!("/a?token={{env:{secret}}}"))
    };
    let mut texts = vec![format!("{options:?}")];
    texts.push(format!("{:?}", Attempt::start(&runner(options.clone()), "").failure().await));
    assert_eq!(service.requests()[0].header("authorization"), Some(&*value));
    let not_allowed = HttpOptions { allowed_networks: Vec::new(), ..options.clone() };
    texts.push(format!("{:?}", Attempt::start(&runner(not_allowed), "").failure().await));
    let invalid = HttpOptions { url: service.url(&format!("/?a={{env:{secret}}}{{env:{secret}}}")), ..options };
    texts.push(format!("{:?}", Attempt::start(&runner(invalid), "").failure().await));
    for text in texts {
        assert!(!text.contains(&value), "{text}");
    }
}

/// A service whose work ends when its cancel URL is called.
fn cancellable(reply: &'static str) -> (Service, CancellationToken) {
    let cancelled = CancellationToken::new();
    let token = cancelled.clone();
    let service = Service::start(move |request| {
        if request.line.starts_with("POST /work ") {
            return Reply::After(token.clone(), format!("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n{reply}").into());
        }
        token.cancel();
        response("204 No Content", "", "")
    });
    (service, cancelled)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_without_a_cancel_url_ends_the_connection() {
    let service = Service::start(|_| silence());
    let attempt = Attempt::start(&service.runner(), "");
    service.wait_for_requests(1).await;
    attempt.stop.request(StopCause::Cancel, TIMEOUT);
    let outcome = attempt.outcome().await;
    assert!(matches!(outcome, Outcome::Stopped(StopMethod::Abort)), "{outcome:?}");
    timeout(TIMEOUT, service.abandoned.cancelled()).await.expect("the connection is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_calls_the_cancel_url_and_waits_for_the_response() {
    for (cause, is_result) in [(StopCause::Cancel, false), (StopCause::Timeout, false), (StopCause::Drain, true)] {
        let (service, _) = cancellable("part");
        let attempt = Attempt::start(&service.runner_with_cancel(), "");
        service.wait_for_requests(1).await;
        attempt.stop.request(cause, TIMEOUT);
        match attempt.outcome().await {
            Outcome::Stopped(StopMethod::Token) if !is_result => {}
            Outcome::Completed(_) if is_result => {}
            other => panic!("{cause:?}: {other:?}"),
        }
        let requests = service.requests();
        assert_eq!(requests[1].line, "DELETE /cancel/task-7 HTTP/1.1");
        assert_eq!(requests[1].header("lineshaft-attempt"), Some("2"));
        assert!(!service.abandoned.is_cancelled());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_stop_is_cut_off_after_the_grace_period() {
    let service =
        Service::start(|request| if request.line.starts_with("POST") { silence() } else { response("500 No", "", "") });
    let attempt = Attempt::start(&service.runner_with_cancel(), "");
    service.wait_for_requests(1).await;
    attempt.stop.request(StopCause::Cancel, Duration::from_millis(100));
    let outcome = attempt.outcome().await;
    assert!(matches!(outcome, Outcome::Stopped(StopMethod::Abort)), "{outcome:?}");
    timeout(TIMEOUT, service.abandoned.cancelled()).await.expect("the connection is closed");
    service.wait_for_requests(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_stop_calls_the_cancel_url_and_waits_for_nothing() {
    let (service, _) = cancellable("part");
    let silent = Service::start(|_| silence());
    let cancel = Some((Method::DELETE, service.url("/cancel/{task_id}")));
    let attempt = Attempt::start(&runner(HttpOptions { cancel, ..silent.options("/work") }), "");
    silent.wait_for_requests(1).await;
    attempt.stop.request(StopCause::Force, Duration::ZERO);
    let outcome = attempt.outcome().await;
    assert!(matches!(outcome, Outcome::Stopped(StopMethod::Abort)), "{outcome:?}");
    service.wait_for_requests(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_wait_without_threads() {
    let all = CancellationToken::new();
    let token = all.clone();
    let service =
        Service::start(move |_| Reply::After(token.clone(), b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".into()));
    let runner = service.runner();
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    // The attempts of the fixture have threads, as in a pool of threads; these have none.
    let run = || {
        let run = crate::runners::fixtures::run("");
        tokio::spawn(runner.run(run))
    };
    let first = run();
    service.wait_for_requests(1).await;
    let before = threads();
    let calls: Vec<_> = (0..200).map(|_| run()).collect();
    service.wait_for_requests(201).await;
    assert!(threads() < before + 50, "{before} threads, then {}", threads());
    all.cancel();
    for call in calls.into_iter().chain([first]) {
        let outcome = timeout(TIMEOUT, call).await.unwrap().unwrap().outcome;
        assert!(matches!(outcome, Outcome::Completed(_)), "{outcome:?}");
    }
}

mod tls {
    use std::convert::Infallible;
    use std::net::SocketAddr;
    use std::sync::atomic::AtomicUsize;

    use http_body_util::Full;
    use hyper::body::Bytes;
    use hyper::service::service_fn;
    use hyper::{Request, Response, Version};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use hyper_util::server::conn::auto;
    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::model::UrlTemplate;

    struct TlsService {
        address: SocketAddr,
        ca: tempfile::NamedTempFile,
        connections: Arc<AtomicUsize>,
    }

    /// Answers with the version of HTTP; `protocols` are those that it offers.
    async fn start(name: &str, protocols: &[&str]) -> TlsService {
        let certified = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let ca = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(ca.path(), certified.cert.pem()).unwrap();
        let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config =
            builder.with_no_client_auth().with_single_cert(vec![certified.cert.der().clone()], key).unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::<AtomicUsize>::default();
        let counted = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, counted) = (acceptor.clone(), counted.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    counted.fetch_add(1, Ordering::SeqCst);
                    let answer = service_fn(|request: Request<_>| async move {
                        let _: &hyper::body::Incoming = request.body();
                        let text = if request.version() == Version::HTTP_2 { "2" } else { "1.1" };
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
                    });
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        TlsService { address, ca, connections }
    }

    impl TlsService {
        fn runner(&self, ca: bool) -> Arc<dyn Runner> {
            let url = UrlTemplate::parse(&format!("https://localhost:{}/", self.address.port())).unwrap();
            let plain = HttpOptions { url, ..Service::echo().options("/") };
            runner(HttpOptions { ca: ca.then(|| self.ca.path().to_owned()), ..plain })
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn http_2_is_used_over_tls_if_the_service_offers_it_and_needs_one_connection() {
        let service = start("localhost", &["h2", "http/1.1"]).await;
        let runner = service.runner(true);
        let first = Attempt::start(&runner, "").result().await;
        let attempts: Vec<_> = (0..20).map(|_| Attempt::start(&runner, "payload")).collect();
        for attempt in attempts {
            assert_eq!(attempt.result().await, "2");
        }
        assert_eq!((first, service.connections.load(Ordering::SeqCst)), ("2".into(), 1));
        let service = start("localhost", &[]).await;
        assert_eq!(Attempt::start(&service.runner(true), "").result().await, "1.1");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_service_with_another_certificate_gets_no_request() {
        let (unknown, other) = (start("localhost", &["h2"]).await, start("other.example", &["h2"]).await);
        for (service, ca) in [(&unknown, false), (&other, true)] {
            let failure = Attempt::start(&service.runner(ca), "").failure().await;
            let is_named = failure.message.contains("failed to connect") && failure.message.contains("certificate");
            assert!(is_named, "{failure:?}");
        }
    }
}
