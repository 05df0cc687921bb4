//! Traces, logs and metrics as a collector receives them over OTLP.

use lineshaft::proto::v1::{self, TaskState};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tonic::Request;

use crate::collector::{Collector, Over, body, hex, text};
use crate::support::{BINARY, Server, bytes, millis, noop, seconds, task};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

pub const CONFIG: &str = r#"
[[pool]]
name = "default"
[[pool]]
name = "waiting"
kind = "async"
size = 4
[[handler]]
name = "where"
runner = "process"
argv = ["/bin/sh", "-c", "echo $TRACEPARENT $TRACESTATE $BAGGAGE; echo to the log >&2"]
[[handler]]
name = "fails"
runner = "process"
argv = ["/bin/sh", "-c", "echo the secret is $SECRET >&2; exit 3"]
env = { SECRET = "planted-in-env" }
arg_pattern = '(?s).*'
[[handler]]
name = "wait"
runner = "builtin"
builtin = "io"
pool = "waiting"
"#;

/// Starts a server with one core, as in a small pod: it inherits the CPU affinity of this thread.
pub fn start_on_one_core(config: &str, variables: &[(&str, &str)]) -> Server {
    let all = sched_getaffinity(None).unwrap();
    let mut one = CpuSet::new();
    one.set((0..CpuSet::MAX_CPU).find(|core| all.is_set(*core)).unwrap());
    sched_setaffinity(None, &one).unwrap();
    let server = Server::start_with(config, variables);
    sched_setaffinity(None, &all).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    assert!(cores.trim().parse::<u32>().is_ok(), "one core and no range: {cores}");
    server
}

/// Batches are sent only at shutdown.
fn variables(collector: &Collector) -> Vec<(&str, &str)> {
    vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_METRICS_EXPORTER", "none"),
        ("OTEL_BSP_SCHEDULE_DELAY", "3600000"),
        ("OTEL_BLRP_SCHEDULE_DELAY", "3600000"),
    ]
}

fn traced<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let headers = request.metadata_mut();
    headers.insert("traceparent", format!("00-{TRACE}-{CALLER}-01").parse().unwrap());
    headers.insert("tracestate", "vendor=1".parse().unwrap());
    headers.insert("baggage", "user=7".parse().unwrap());
    request
}

fn stop(server: &mut Server) {
    server.signal(rustix::process::Signal::TERM);
    assert!(server.wait_exit().success(), "{}", server.log());
}

#[tokio::test]
async fn a_trace_leads_from_the_caller_to_the_attempt() {
    let collector = Collector::start().await;
    let mut variables = variables(&collector);
    variables.extend([
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.instance.id=me"),
        ("OTEL_SERVICE_NAME", "tasks"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-team=blue%20sky"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
    ]);
    let mut server = start_on_one_core(CONFIG, &variables);
    let at = &collector.endpoint;
    let line = format!("\"message\":\"exporting traces to {at} (grpc), logs to {at} (grpc)\"");
    assert_eq!(server.log().matches(&line).count(), 1, "{}", server.log());
    let id = server.tasks().submit_task(traced(task("where", ""))).await.unwrap().into_inner().task_id;
    let ended = server.wait_finished(&id).await;
    stop(&mut server);
    // Also on one core the last exports end in time.
    assert!(!server.log().contains("gave up") && !server.log().contains("lost"), "{}", server.log());

    let call = collector
        .wait_for(|received| {
            received.spans.iter().find(|span| span.name == "lineshaft.v1.TaskService/SubmitTask").cloned()
        })
        .await;
    let (send, process) = (collector.span("send default", &id).await, collector.span("process default", &id).await);
    assert_eq!((call.kind(), send.kind(), process.kind()), (SpanKind::Server, SpanKind::Producer, SpanKind::Consumer));
    for span in [&call, &send, &process] {
        assert_eq!(hex(&span.trace_id), TRACE, "{}", span.name);
    }
    assert_eq!(hex(&call.parent_span_id), CALLER);
    assert_eq!((&send.parent_span_id, &process.parent_span_id), (&call.span_id, &send.span_id));
    assert_eq!(text(&call.attributes, "rpc.status_code").as_deref(), Some("OK"));
    assert_eq!(text(&call.attributes, "rpc.method").as_deref(), Some("lineshaft.v1.TaskService/SubmitTask"));
    assert_eq!(text(&process.attributes, "lineshaft.task.state").as_deref(), Some("COMPLETED"));
    assert_eq!(text(&process.attributes, "messaging.operation.type").as_deref(), Some("process"));
    let waited: f64 = text(&process.attributes, "lineshaft.task.wait.duration").unwrap().parse().unwrap();
    assert!((0.0..60.0).contains(&waited), "{waited}");
    // The process gets the context of the attempt.
    let received = bytes(ended.result.as_ref());
    assert_eq!(received.trim(), format!("00-{TRACE}-{}-01 vendor=1 user=7", hex(&process.span_id)));

    let resource = collector.read(|received| received.resources[0].clone());
    let of = |key: &str| text(&resource.attributes, key);
    assert_eq!((of("service.name").as_deref(), of("service.instance.id").as_deref()), (Some("tasks"), Some("me")));
    assert_eq!(of("deployment.environment.name").as_deref(), Some("test"));
    assert!(of("service.version").is_some() && of("host.name").is_some() && of("process.pid").is_some());
    assert_eq!(collector.read(|received| received.teams[0].clone()), "blue sky");
}

#[tokio::test]
async fn tasks_of_a_batch_start_traces_of_their_own_by_default() {
    let collector = Collector::start().await;
    let mut server = Server::start_with(CONFIG, &variables(&collector));
    let child = v1::SubmitTaskRequest { trace_mode: v1::TraceMode::Parent as i32, ..noop() };
    let batch = v1::BatchSubmitTasksRequest { tasks: vec![noop(), noop(), child], batch_id: String::new() };
    let ids = server.tasks().batch_submit_tasks(traced(batch)).await.unwrap().into_inner().task_ids;
    let alone = v1::SubmitTaskRequest { trace_mode: v1::TraceMode::Link as i32, ..noop() };
    let alone = server.tasks().submit_task(traced(alone)).await.unwrap().into_inner().task_id;
    for id in ids.iter().chain([&alone]) {
        server.wait_finished(id).await;
    }
    stop(&mut server);

    let send = collector
        .wait_for(|received| {
            let counts = |span: &&Span| text(&span.attributes, "messaging.batch.message_count").as_deref() == Some("3");
            received.spans.iter().find(counts).cloned()
        })
        .await;
    let mut traces = Vec::new();
    for id in &ids[..2] {
        let process = collector.span("process default", id).await;
        assert!(process.parent_span_id.is_empty() && hex(&process.trace_id) != TRACE);
        assert_eq!((&process.links[0].trace_id, &process.links[0].span_id), (&send.trace_id, &send.span_id));
        traces.push(process.trace_id);
    }
    assert_ne!(traces[0], traces[1]);
    assert_eq!(collector.span("process default", &ids[2]).await.parent_span_id, send.span_id);
    let (own, run) = (collector.span("send default", &alone).await, collector.span("process default", &alone).await);
    assert_eq!((run.parent_span_id, &run.links[0].span_id), (Vec::new(), &own.span_id));
}

#[tokio::test]
async fn tasks_refer_to_no_batch_whose_trace_is_not_sampled() {
    let collector = Collector::start().await;
    let mut variables = variables(&collector);
    variables.push(("OTEL_TRACES_SAMPLER", "parentbased_always_off"));
    let server = Server::start_with(CONFIG, &variables);
    server.set_paused("default", true).await;
    let linked = v1::SubmitTaskRequest { trace_mode: v1::TraceMode::Link as i32, ..noop() };
    let child = v1::SubmitTaskRequest { trace_mode: v1::TraceMode::Parent as i32, ..noop() };
    let batch = v1::BatchSubmitTasksRequest { tasks: vec![noop(), linked, child], batch_id: String::new() };
    let ids = server.tasks().batch_submit_tasks(batch).await.unwrap().into_inner().task_ids;
    let mut traced = Vec::new();
    for id in &ids {
        traced.push(!server.get(id).await.trace_id.is_empty());
    }
    assert_eq!(traced, [false, false, true], "a child must not be sampled either");
}

#[tokio::test]
async fn spans_show_failures_retries_and_cancellations() {
    let collector = Collector::start().await;
    let mut server = Server::start_with(CONFIG, &variables(&collector));
    let retry =
        Some(v1::RetryPolicy { max_attempts: 2, delay: millis(1), jitter: Some(0.0), ..v1::RetryPolicy::default() });
    let failing = server.submit(v1::SubmitTaskRequest { retry, ..task("fails", "") }).await;
    server.wait_finished(&failing).await;
    let cancelled = server.submit(v1::SubmitTaskRequest { pool: "waiting".to_owned(), ..task("wait", "60") }).await;
    server.wait_for_state(&cancelled, TaskState::Running).await;
    let request = v1::CancelTaskRequest { task_id: cancelled.clone(), ..v1::CancelTaskRequest::default() };
    server.tasks().cancel_task(request).await.unwrap();
    server.wait_finished(&cancelled).await;
    stop(&mut server);

    let mut attempts = collector.spans("process default", &failing);
    attempts.sort_by_key(|span| span.start_time_unix_nano);
    assert_eq!(attempts.len(), 2, "{}", server.log());
    for attempt in &attempts {
        assert_eq!(attempt.status.as_ref().unwrap().code(), StatusCode::Error);
        assert_eq!(attempt.status.as_ref().unwrap().message, "HANDLER_ERROR");
        assert_eq!(text(&attempt.attributes, "process.exit.code").as_deref(), Some("3"));
    }
    assert_eq!(attempts[0].events[0].name, "retry scheduled");
    assert_eq!(attempts[0].parent_span_id, attempts[1].parent_span_id);
    assert!(attempts[1].events.is_empty());

    let stopped = collector.span("process waiting", &cancelled).await;
    let events: Vec<_> = stopped.events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(events, ["stop requested", "cancelled"]);
    assert_eq!(text(&stopped.attributes, "lineshaft.task.state").as_deref(), Some("CANCELLED"));
    assert_eq!(stopped.status.unwrap_or_default().code(), StatusCode::Unset);
}

#[tokio::test]
async fn a_task_that_ends_without_an_attempt_has_a_settle_span() {
    let collector = Collector::start().await;
    let mut server = Server::start_with(CONFIG, &variables(&collector));
    server.set_paused("default", true).await;
    let submit = async |request| server.tasks().submit_task(traced(request)).await.unwrap().into_inner().task_id;
    let queued = submit(noop()).await;
    let delayed = submit(v1::SubmitTaskRequest { delay: seconds(3_600), ..noop() }).await;
    let late = submit(v1::SubmitTaskRequest { expires_after: millis(50), ..noop() }).await;
    for id in [&queued, &delayed] {
        let request = v1::CancelTaskRequest { task_id: id.clone(), ..v1::CancelTaskRequest::default() };
        server.tasks().cancel_task(request).await.unwrap();
    }
    assert_eq!(server.wait_finished(&late).await.state(), TaskState::Failed);
    stop(&mut server);
    for id in [&queued, &delayed, &late] {
        let (send, end) = (collector.span("send default", id).await, collector.span("settle default", id).await);
        assert_eq!((hex(&end.trace_id).as_str(), &end.parent_span_id), (TRACE, &send.span_id));
        assert_eq!(text(&end.attributes, "lineshaft.attempt").as_deref(), Some("0"));
        assert!(end.start_time_unix_nano >= send.start_time_unix_nano);
        assert_eq!(end.start_time_unix_nano, end.end_time_unix_nano);
        assert_eq!(collector.spans("process default", id).len(), 0);
    }
    for id in [&queued, &delayed] {
        let end = collector.span("settle default", id).await;
        assert_eq!(end.events[0].name, "cancelled");
        assert_eq!(text(&end.events[0].attributes, "lineshaft.stop.method").as_deref(), Some("NEVER_STARTED"));
        assert_eq!(text(&end.attributes, "lineshaft.task.state").as_deref(), Some("CANCELLED"));
        assert_eq!(end.status.unwrap_or_default().code(), StatusCode::Unset);
    }
    let expired = collector.span("settle default", &late).await;
    assert_eq!(expired.status.as_ref().unwrap().code(), StatusCode::Error);
    assert_eq!(text(&expired.attributes, "error.type").as_deref(), Some("EXPIRED"));
    let waited: f64 = text(&expired.attributes, "lineshaft.task.wait.duration").unwrap().parse().unwrap();
    assert!(waited > 0.0 && waited < 60.0, "{waited}");
}

#[tokio::test]
async fn a_task_lost_in_a_crash_has_a_settle_span() {
    let collector = Collector::start().await;
    let exported =
        [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &*collector.endpoint), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
    let mut server = Server::start_with(CONFIG, &exported);
    let once = v1::SubmitTaskRequest { pool: "waiting".to_owned(), at_most_once: true, ..task("wait", "60") };
    let id = server.tasks().submit_task(traced(once)).await.unwrap().into_inner().task_id;
    server.wait_for_state(&id, TaskState::Running).await;
    server.kill9();
    server.start_again();
    assert_eq!(server.wait_finished(&id).await.state(), TaskState::Failed);
    stop(&mut server);
    let end = collector.span("settle waiting", &id).await;
    assert_eq!(
        (hex(&end.trace_id).as_str(), text(&end.attributes, "error.type").as_deref()),
        (TRACE, Some("WORKER_LOST"))
    );
    assert_eq!(text(&end.attributes, "lineshaft.attempt").as_deref(), Some("1"));
}

#[tokio::test]
async fn an_attempt_interrupted_by_a_crash_has_a_settle_span() {
    let collector = Collector::start().await;
    let mut server = Server::start_with(
        CONFIG,
        &[
            ("OTEL_BSP_SCHEDULE_DELAY", "1"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &*collector.endpoint),
        ],
    );
    let request = v1::SubmitTaskRequest { pool: "waiting".to_owned(), ..task("wait", "3600") };
    let id = server.tasks().submit_task(traced(request)).await.unwrap().into_inner().task_id;
    let before = server.wait_for_state(&id, TaskState::Running).await;
    let send = collector.span("send waiting", &id).await;
    server.kill9();
    server.start_again();
    server.wait_for_change(&id, before.revision, &[TaskState::Running]).await;
    let lost = collector.span("settle waiting", &id).await;
    assert_eq!((hex(&lost.trace_id).as_str(), &lost.parent_span_id), (TRACE, &send.span_id));
    let of = |key: &str| text(&lost.attributes, key);
    assert_eq!((of("lineshaft.attempt").as_deref(), of("error.type").as_deref()), (Some("1"), Some("WORKER_LOST")));
    assert_eq!(of("lineshaft.task.state").as_deref(), Some("QUEUED"));
    assert_eq!(lost.events[0].name, "interrupted");
    assert_eq!(lost.status.as_ref().unwrap().code(), StatusCode::Error);
    let cancel = v1::CancelTaskRequest { task_id: id.clone(), ..v1::CancelTaskRequest::default() };
    server.tasks().cancel_task(cancel).await.unwrap();
    let again = collector.span("process waiting", &id).await;
    assert_eq!(
        text(&again.attributes, "lineshaft.attempt").as_deref(),
        Some("1"),
        "an interrupted attempt is not counted"
    );
    assert_eq!(collector.spans("process waiting", &id).len(), 1);
}

#[tokio::test]
async fn the_command_line_propagates_the_trace_context_of_its_environment() {
    let collector = Collector::start().await;
    let config = format!(
        "{CONFIG}[[handler]]\nname = \"script\"\nrunner = \"process\"\n\
         argv = [\"/bin/sh\", \"-c\", \"exec {BINARY} task submit where --wait --server http://$(cat)\"]\n"
    );
    let mut server = Server::start_with(&config, &variables(&collector));
    #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
    let run = |variables: &[(&str, &str)], arguments: &[&str]| {
        let output = std::process::Command::new(BINARY)
            .args(arguments)
            .env("LINESHAFT_SERVER", &server.address)
            .env_remove("TRACEPARENT")
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let context = [("TRACEPARENT", &*parent), ("TRACESTATE", "vendor=1"), ("BAGGAGE", "user=7")];
    let output = run(&context, &["task", "run", "where", "--id", "traced"]);
    assert!(output.starts_with(&format!("00-{TRACE}-")) && output.trim_end().ends_with("vendor=1 user=7"), "{output}");
    // The attempt of a script is the parent of the tasks that the script submits.
    run(&context, &["task", "run", "script", "--id", "outer", "--payload", &server.address]);
    for invalid in ["", "nonsense", "00-0-0-00"] {
        run(&[("TRACEPARENT", invalid)], &["task", "run", "where"]);
    }
    stop(&mut server);
    let calls = |method: &str| {
        let name = format!("lineshaft.v1.TaskService/{method}");
        collector.read(|received| received.spans.iter().filter(|span| span.name == name).cloned().collect::<Vec<_>>())
    };
    let of_caller = |call: &&Span| hex(&call.trace_id) == TRACE && hex(&call.parent_span_id) == CALLER;
    assert_eq!((calls("RunTask").len(), calls("RunTask").iter().filter(of_caller).count()), (5, 2));
    let outer = collector.span("process default", "outer").await;
    let inner = calls("SubmitTask");
    assert_eq!((inner.len(), hex(&inner[0].trace_id).as_str()), (1, TRACE));
    assert_eq!(inner[0].parent_span_id, outer.span_id);
}

#[tokio::test]
async fn the_span_of_a_refused_call_has_its_code_and_that_of_a_watch_ends_with_the_caller() {
    let collector = Collector::start().await;
    let mut server = Server::start_with(CONFIG, &variables(&collector));
    server.tasks().submit_task(traced(task("unknown", ""))).await.unwrap_err();
    let watch = v1::WatchTasksRequest { progress_interval: millis(100), ..v1::WatchTasksRequest::default() };
    let mut steps = server.tasks().watch_tasks(traced(watch)).await.unwrap().into_inner();
    steps.message().await.unwrap();
    drop(steps);
    stop(&mut server);
    let find = |name: &'static str| {
        move |received: &crate::collector::Received| received.spans.iter().find(|span| span.name == name).cloned()
    };
    let refused = collector.wait_for(find("lineshaft.v1.TaskService/SubmitTask")).await;
    assert_eq!(text(&refused.attributes, "rpc.status_code").as_deref(), Some("NOT_FOUND"));
    assert_eq!(text(&refused.attributes, "error.type").as_deref(), Some("NOT_FOUND"));
    assert_eq!(refused.status.unwrap_or_default().code(), StatusCode::Unset);
    let watched = collector.wait_for(find("lineshaft.v1.TaskService/WatchTasks")).await;
    let code = text(&watched.attributes, "rpc.status_code");
    assert!(matches!(code.as_deref(), Some("CANCELLED" | "UNAVAILABLE")), "{code:?}");
}

#[tokio::test]
async fn the_trace_context_of_a_task_survives_a_crash() {
    let collector = Collector::start().await;
    let mut server = Server::start_with(
        CONFIG,
        &[
            ("OTEL_BSP_SCHEDULE_DELAY", "1"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_TRACES_EXPORTER", "otlp"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &collector.endpoint),
        ],
    );
    server.set_paused("default", true).await;
    let id = server.tasks().submit_task(traced(noop())).await.unwrap().into_inner().task_id;
    let send = collector.span("send default", &id).await;
    server.kill9();
    server.start_again();
    server.set_paused("default", false).await;
    server.wait_finished(&id).await;
    let process = collector.span("process default", &id).await;
    assert_eq!((hex(&process.trace_id).as_str(), process.parent_span_id), (TRACE, send.span_id));
}

#[tokio::test]
async fn the_trace_context_reaches_the_process_even_if_nothing_is_exported() {
    let server = Server::start(CONFIG);
    let id = server.tasks().submit_task(traced(task("where", ""))).await.unwrap().into_inner().task_id;
    let received = bytes(server.wait_finished(&id).await.result.as_ref());
    assert_eq!(received.trim(), format!("00-{TRACE}-{CALLER}-01 vendor=1 user=7"));
    assert!(server.log().contains("no telemetry is exported"), "{}", server.log());
    let untraced = server.submit(task("where", "")).await;
    assert_eq!(bytes(server.wait_finished(&untraced).await.result.as_ref()).trim(), "");

    let none = Server::start_with(CONFIG, &[("OTEL_PROPAGATORS", "baggage")]);
    let id = none.tasks().submit_task(traced(task("where", ""))).await.unwrap().into_inner().task_id;
    assert_eq!(bytes(none.wait_finished(&id).await.result.as_ref()).trim(), "user=7");
}

#[tokio::test]
async fn a_parent_based_sampler_follows_the_caller() {
    let collector = Collector::start().await;
    let mut variables = variables(&collector);
    variables.push(("OTEL_TRACES_SAMPLER", "parentbased_always_off"));
    let mut server = Server::start_with(CONFIG, &variables);
    let unsampled = server.submit(noop()).await;
    server.wait_finished(&unsampled).await;
    let sampled = server.tasks().submit_task(traced(noop())).await.unwrap().into_inner().task_id;
    server.wait_finished(&sampled).await;
    stop(&mut server);
    collector.span("process default", &sampled).await;
    assert_eq!(collector.spans("process default", &unsampled).len(), 0);
}

#[tokio::test]
async fn the_console_exporter_writes_spans_and_metrics_to_standard_output() {
    let exported = [("OTEL_TRACES_EXPORTER", "console"), ("OTEL_METRICS_EXPORTER", "console")];
    let mut server = Server::start_with(CONFIG, &exported);
    let id = server.submit(noop()).await;
    server.wait_finished(&id).await;
    stop(&mut server);
    let log = server.log();
    assert!(log.contains("exporting traces to standard output, metrics to standard output"), "{log}");
    assert!(log.contains("process default") && log.contains("lineshaft.task.submitted"), "{log}");
}

#[tokio::test]
async fn log_records_have_task_attributes_and_can_include_task_output() {
    let collector = Collector::start().await;
    let config = format!("[telemetry]\ntask_logs = \"stderr\"\n{CONFIG}");
    let mut server = Server::start_with(&config, &variables(&collector));
    let id = server.tasks().submit_task(traced(task("where", ""))).await.unwrap().into_inner().task_id;
    server.wait_finished(&id).await;
    stop(&mut server);
    let record =
        collector.wait_for(|received| received.logs.iter().find(|log| body(log) == "to the log").cloned()).await;
    assert_eq!(hex(&record.trace_id), TRACE);
    assert_eq!(record.span_id, collector.span("process default", &id).await.span_id);
    assert_eq!(text(&record.attributes, "lineshaft.task.id").as_deref(), Some(id.as_str()));
    assert_eq!(text(&record.attributes, "lineshaft.attempt").as_deref(), Some("1"));
    assert!(
        text(&record.attributes, "lineshaft.worker").is_some_and(|worker| worker.starts_with("default/PoolWorker-"))
    );
    assert_eq!(text(&record.attributes, "log.iostream").as_deref(), Some("stderr"));
    let own = collector.read(|received| received.logs.iter().map(body).collect::<Vec<_>>());
    assert!(own.iter().any(|line| line == "serving"), "{own:?}");
    assert!(!own.iter().any(|line| line.contains(TRACE)), "only stderr is exported: {own:?}");
}

#[tokio::test]
async fn secrets_are_neither_logged_nor_exported() {
    let collector = Collector::start().await;
    let config = format!("[log]\nfilter = \"trace\"\n{CONFIG}");
    let mut server = Server::start_with(&config, &variables(&collector));
    let secret = |at: &str| format!("planted-in-{at}");
    let failing = v1::SubmitTaskRequest {
        args: vec![secret("args")],
        retry: Some(v1::RetryPolicy { max_attempts: 1, ..v1::RetryPolicy::default() }),
        ..task("fails", &secret("payload"))
    };
    let invalid = v1::SubmitTaskRequest { retry: None, ..task("compute", &format!("{:?}", secret("json"))) };
    let mut request = traced(failing);
    request.metadata_mut().insert("authorization", format!("Bearer {}", secret("header")).parse().unwrap());
    let failing = server.tasks().submit_task(request).await.unwrap().into_inner().task_id;
    let invalid = server.submit(invalid).await;
    let (failing, invalid) = (server.wait_finished(&failing).await, server.wait_finished(&invalid).await);
    assert!(failing.failure.unwrap().detail.contains("planted-in-env"));
    assert_eq!(invalid.state(), TaskState::Failed);
    stop(&mut server);
    let log = server.log();
    assert!(log.contains("task failed") && log.contains("TRACE"), "{log}");
    let line = log.lines().find(|line| line.contains("planted-in")).unwrap_or_default();
    assert_eq!(line, "");
    let exported = collector.read(|received| format!("{:?}{:?}", received.spans, received.logs));
    assert!(exported.contains("HANDLER_ERROR") && !exported.contains("planted-in"));
}

#[tokio::test]
async fn metrics_are_exported_at_shutdown_over_grpc() {
    metrics_arrive(Over::Grpc, "grpc").await;
}

#[tokio::test]
async fn metrics_are_exported_at_shutdown_over_http() {
    metrics_arrive(Over::Http, "http/protobuf").await;
}

async fn metrics_arrive(over: Over<'_>, protocol: &str) {
    let collector = Collector::start_over(over).await;
    let exported = [
        ("OTEL_METRICS_EXPORTER", "otlp"),
        ("OTEL_TRACES_EXPORTER", "none"),
        ("OTEL_LOGS_EXPORTER", "none"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
    ];
    let mut server = start_on_one_core(CONFIG, &exported);
    let id = server.submit(noop()).await;
    server.wait_finished(&id).await;
    // The interval is one minute: this is the export at shutdown.
    stop(&mut server);
    let of_tasks = |received: &crate::collector::Received| {
        received.metrics.iter().any(|name| name == "lineshaft.task.submitted").then_some(())
    };
    collector.wait_for(of_tasks).await;
    let resource = collector.read(|received| received.resources[0].clone());
    assert_eq!(text(&resource.attributes, "service.name").as_deref(), Some("lineshaft"));
    assert!(
        collector.read(|received| received.spans.is_empty() && received.logs.is_empty()),
        "other signals are not exported"
    );
}
