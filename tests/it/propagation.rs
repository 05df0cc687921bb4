//! Callers and programs that speak other formats than W3C Trace Context.

use lineshaft::proto::v1;
use tonic::Request;

use crate::collector::{Collector, hex};
use crate::raw;
use crate::support::{Server, bytes, task};

const TRACE: &str = "80f198ee56343ba864fe8b2a57d3eff7";
const CALLER: &str = "e457b5a2e4d86bd1";

/// `where` tells everything that a program is told about its place.
const CONFIG: &str = r#"
[[pool]]
name = "default"
[[handler]]
name = "where"
runner = "process"
argv = ["/bin/sh", "-c", "env | grep -E '^(TRACE|BAGGAGE|B3|X_|UBER|OT_)' | sort"]
"#;

fn submission(handler: &str, headers: &[(&'static str, &str)]) -> Request<v1::SubmitTaskRequest> {
    let mut request = Request::new(task(handler, "0"));
    for (name, value) in headers {
        request.metadata_mut().insert(*name, value.parse().unwrap());
    }
    request
}

/// What the program of a task is told that was submitted with these headers.
async fn told(server: &Server, headers: &[(&'static str, &str)]) -> Vec<String> {
    let request = submission("where", headers);
    let id = server.tasks().submit_task(request).await.unwrap().into_inner().task_id;
    bytes(server.ended(&id).await.result.as_ref()).lines().map(ToOwned::to_owned).collect()
}

#[tokio::test]
async fn a_caller_with_b3_is_the_parent_and_the_program_is_told_in_b3() {
    let collector = Collector::start().await;
    let mut server = Server::start_with(
        CONFIG,
        &[
            ("OTEL_PROPAGATORS", "b3,baggage"),
            ("OTEL_TRACES_EXPORTER", "otlp"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &collector.endpoint),
            ("OTEL_TRACES_SAMPLER", "parentbased_always_off"),
        ],
    );
    let b3 = format!("{TRACE}-{CALLER}-d-05e3ac9a4f6e3b90");
    // What is not listed says nothing.
    let w3c = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = submission("where", &[("b3", &b3), ("traceparent", w3c), ("baggage", "user=7")]);
    let id = server.tasks().submit_task(request).await.unwrap().into_inner().task_id;
    let said = bytes(server.ended(&id).await.result.as_ref());
    // The same as JSON over HTTP, with several headers.
    let several = [("X-B3-TraceId", TRACE), ("X-B3-SpanId", CALLER), ("X-B3-Sampled", "1")];
    let json = br#"{"handler": "compute", "taskId": "over-http", "payload": {"json": 0}}"#;
    let path = "/lineshaft.v1.TaskService/SubmitTask";
    let answer = raw::Connection::open(&server).send(&raw::post(path, "application/json", &several, json));
    assert_eq!(answer.status, 200, "{answer:?}");
    server.ended("over-http").await;
    // Nobody who samples, and the sampler does not either.
    for headers in [&[("b3", "0")][..], &[("b3", "nonsense")], &[]] {
        server.tasks().submit_task(submission("compute", headers)).await.unwrap();
    }
    server.signal(rustix::process::Signal::TERM);
    assert!(server.wait_exit().success(), "{}", server.log());

    let process = collector.span("process default", &id).await;
    assert_eq!(said, format!("B3={TRACE}-{}-d\nBAGGAGE=user=7\n", hex(&process.span_id)));
    let calls = collector.read(|told| {
        let calls = told.spans.iter().filter(|span| span.name == "lineshaft.v1.TaskService/SubmitTask");
        calls.map(|call| (hex(&call.trace_id), hex(&call.parent_span_id))).collect::<Vec<_>>()
    });
    assert_eq!(calls, vec![(TRACE.to_owned(), CALLER.to_owned()); 2]);
    assert_eq!(hex(&collector.span("process default", "over-http").await.trace_id), TRACE);
}

#[tokio::test]
async fn a_place_goes_from_each_format_to_each_although_nothing_is_exported() {
    let all = "tracecontext,b3,b3multi,jaeger,xray,ottrace";
    let server = Server::start_with(CONFIG, &[("OTEL_PROPAGATORS", all)]);
    let expected = [
        format!("B3={TRACE}-{CALLER}-1"),
        "OT_TRACER_SAMPLED=true".to_owned(),
        format!("OT_TRACER_SPANID={CALLER}"),
        format!("OT_TRACER_TRACEID={}", &TRACE[16..]),
        format!("TRACEPARENT=00-{TRACE}-{CALLER}-01"),
        format!("UBER_TRACE_ID={TRACE}:{CALLER}:0:1"),
        format!("X_AMZN_TRACE_ID=Root=1-{}-{};Parent={CALLER};Sampled=1", &TRACE[..8], &TRACE[8..]),
        "X_B3_SAMPLED=1".to_owned(),
        format!("X_B3_SPANID={CALLER}"),
        format!("X_B3_TRACEID={TRACE}"),
    ];
    let xray = format!("Root=1-{}-{};Parent={CALLER};Sampled=1", &TRACE[..8], &TRACE[8..]);
    for headers in [
        &[("traceparent", &*format!("00-{TRACE}-{CALLER}-01"))][..],
        &[("b3", &format!("{TRACE}-{CALLER}-1"))],
        &[("x-b3-traceid", TRACE), ("x-b3-spanid", CALLER), ("x-b3-sampled", "1")],
        &[("uber-trace-id", &format!("{TRACE}:{CALLER}:0:1"))],
        &[("x-amzn-trace-id", &xray)],
    ] {
        assert_eq!(told(&server, headers).await, expected, "{headers:?}");
    }
    let ottrace = [("ot-tracer-traceid", &TRACE[16..]), ("ot-tracer-spanid", CALLER), ("ot-tracer-sampled", "true")];
    let padded = format!("TRACEPARENT=00-0000000000000000{}-{CALLER}-01", &TRACE[16..]);
    assert!(told(&server, &ottrace).await.contains(&padded));
    assert_eq!(told(&server, &[("uber-trace-id", "nonsense"), ("b3", "-")]).await, [""; 0]);
}
