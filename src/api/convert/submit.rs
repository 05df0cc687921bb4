//! Converts a submission to the parts of a task. `submit_target` finds its handler and its pool.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    BatchId, BatchRef, Catalog, FairnessKey, HandlerName, Namespace, PoolName, RequestKey, SubmissionDigest,
    TaskExtras, TaskId, TaskLimit, TaskOptions, TaskSpec, Timestamp, TraceContext, TraceMode, limits,
};
use crate::proto::v1::{self, payload::Kind};

use super::dependencies::dependencies;
use super::invalid_fields::{FieldPath, InvalidFields, MessagePath};
use super::shared_options::{OwnFields, SharedOptions, content_type_of};
use super::submit_fields::{
    Labels, Overrides, check_args, check_payload, content_type, labels, optional_name, payload, task_id, unique_key,
};
pub use super::submit_target::SubmitError;
use super::submit_target::{check_handler_args, resolve};
use super::submit_trace::{own_trace, trace_mode, trace_of_call};
use super::{submit_fields, task_limit};

/// What the conversion needs besides the submission itself and the catalog.
pub struct SubmitContext<'a> {
    /// Makes the ID of a task whose submission does not choose one.
    pub new_id: fn() -> TaskId,
    pub now: Timestamp,
    /// Identity or peer address of the caller.
    pub submitted_by: &'a str,
    /// Namespace of tasks that name none; `None` if they must name one.
    pub default_namespace: Option<&'a Namespace>,
    /// Batch of all submissions of the call.
    pub batch: Option<&'a BatchRef>,
    /// Trace context of the call.
    pub trace: Option<Arc<TraceContext>>,
    /// Whether a span of the submission will replace it in tasks without a mode.
    pub has_send_span: bool,
    /// Number of tasks of a call that submits them together, in which they can name each other by their places.
    pub places: usize,
}

/// The other fields.
#[expect(
    clippy::large_enum_variant,
    reason = "lives for one conversion, and a box would be an allocation of each submission"
)]
enum OtherFields {
    Known(Box<SharedOptions>),
    New(ParsedFields),
}

/// Before the handler and the pool are looked up.
struct ParsedFields {
    /// These are `None` if they are invalid.
    handler: Option<HandlerName>,
    namespace: Option<Namespace>,
    pool: Option<PoolName>,
    overrides: Overrides,
    fairness_key: Option<FairnessKey>,
    content_type: Arc<str>,
    labels: Labels,
    limits: Box<[TaskLimit]>,
    batch: Option<BatchId>,
    delay: Option<Duration>,
    expires_after: Option<Duration>,
}

/// Converts a submission. `shared` belongs to its call; `intern` finds equal options of earlier calls.
///
/// # Errors
/// [`SubmitError`], with every invalid field.
pub fn convert(
    mut request: v1::SubmitTaskRequest,
    path: MessagePath,
    catalog: &Arc<Catalog>,
    context: &SubmitContext<'_>,
    shared: &mut Option<Box<SharedOptions>>,
    intern: impl FnOnce(TaskOptions) -> Arc<TaskOptions>,
) -> Result<TaskSpec, SubmitError> {
    let own = OwnFields::take(&mut request);
    let is_json = matches!(own.payload, Some(Kind::Json(_)));
    let mut invalid = InvalidFields::default();
    let others = match shared.take() {
        Some(known) if known.is_of(&request, is_json, catalog) => OtherFields::Known(known),
        _ => OtherFields::New(ParsedFields::parse(&mut invalid, path, &request, is_json, catalog, context)),
    };
    let request_id = optional_name(&mut invalid, path.field("request_id"), &own.request_id);
    let id = task_id(&mut invalid, path, &own.task_id, others.namespace(), context.new_id);
    let payload = payload(&mut invalid, path, own.payload, catalog.payload_limit);
    let mode = trace_mode(&mut invalid, path.field("trace_mode"), request.trace_mode);
    let own_trace = own_trace(&mut invalid, path, &own.traceparent, &own.tracestate);
    let namespace = others.namespace().or(context.default_namespace);
    let dependencies = dependencies(&mut invalid, path, own.dependencies.as_ref(), namespace, context.places);
    let unique = unique_key(&mut invalid, path, &own.unique_key, &request);
    invalid.check()?;
    let Some(id) = id else { return Err(InvalidFields::one(path.field("task_id"), "is invalid").into()) };

    let shared = shared.insert(match others {
        OtherFields::Known(known) => known,
        OtherFields::New(parsed) => {
            let (delay, expires_after) = (parsed.delay, parsed.expires_after);
            let options = intern(parsed.resolve(&request, path, catalog, context)?);
            let handler = catalog.handlers.get(&options.handler);
            let payload_schema = handler.and_then(|handler| handler.payload_schema.clone());
            let catalog = Arc::clone(catalog);
            Box::new(SharedOptions {
                request,
                is_json,
                catalog,
                options,
                payload_schema,
                delay,
                expires_after,
                trace: None,
            })
        }
    });
    // The payload of a completion is a report of the server.
    if let Some(schema) = &shared.payload_schema
        && path != MessagePath::Completion
    {
        check_payload(path, schema, &payload)?;
    }
    let trace = match own_trace {
        Some(own) => {
            let baggage = context.trace.as_ref().map(|call| call.baggage.clone()).unwrap_or_default();
            Some(shared.trace_like(TraceContext { mode, at: context.now, baggage, ..own }))
        }
        None if mode == TraceMode::Unset && context.has_send_span => None,
        None => trace_of_call(mode, context.trace.as_ref(), context.now),
    };
    let mut extras = TaskExtras {
        args: shared.request.args.iter().map(|arg| arg.as_str().into()).collect(),
        request: None,
        delay: shared.delay,
        expires_after: shared.expires_after,
        trace,
        completes: None,
        scheduled: None,
        retry_of: None,
        dependencies: dependencies.map(Arc::new),
        unique: unique.map(Box::new),
        updated: false,
    };
    let options = Arc::clone(&shared.options);
    if let Some(request_id) = request_id {
        let chosen = (!own.task_id.is_empty()).then_some(&id);
        let digest = Some(SubmissionDigest::of(&options, &extras, &payload, chosen));
        extras.request = Some(Arc::new(RequestKey { id: request_id, digest }));
    }
    Ok(TaskSpec { id, options, payload, extras: extras.boxed() })
}

impl OtherFields {
    fn namespace(&self) -> Option<&Namespace> {
        match self {
            Self::Known(known) => Some(&known.options.namespace),
            Self::New(parsed) => parsed.namespace.as_ref(),
        }
    }
}

impl ParsedFields {
    fn parse(
        invalid: &mut InvalidFields,
        path: MessagePath,
        request: &v1::SubmitTaskRequest,
        is_json: bool,
        catalog: &Catalog,
        context: &SubmitContext<'_>,
    ) -> Self {
        let delays = Duration::ZERO..=limits::DELAY_MAX;
        let expiries = limits::TIMEOUT_MIN..=limits::DELAY_MAX;
        let type_text = content_type_of(request.payload.as_ref());
        let name_length = request.display_name.len();
        let namespace = namespace(invalid, path.field("namespace"), &request.namespace, context.default_namespace);
        let parsed = Self {
            handler: invalid.parsed(path.field("handler"), HandlerName::parse(&request.handler)),
            batch: batch(invalid, path, &request.batch_id, context.batch, namespace.as_ref()),
            namespace,
            pool: invalid.optional(path.field("pool"), &request.pool, PoolName::parse),
            overrides: Overrides::parse(invalid, path, request),
            fairness_key: submit_fields::fairness_key(invalid, path, &request.fairness_key),
            content_type: content_type(invalid, path, type_text, is_json),
            labels: labels(invalid, path, &request.labels),
            limits: task_limit::parse(invalid, path, &request.limits, catalog),
            delay: invalid
                .duration(path.field("delay"), request.delay.as_ref(), delays)
                .filter(|delay| !delay.is_zero()),
            expires_after: invalid.duration(path.field("expires_after"), request.expires_after.as_ref(), expiries),
        };
        check_args(invalid, path.field("args"), &request.args);
        invalid.check_length(path.field("display_name"), name_length, limits::DISPLAY_NAME_BYTES_MAX, "bytes");
        parsed
    }

    /// The options of fields that are all valid.
    fn resolve(
        self,
        request: &v1::SubmitTaskRequest,
        path: MessagePath,
        catalog: &Catalog,
        context: &SubmitContext<'_>,
    ) -> Result<TaskOptions, SubmitError> {
        let Self { pool, batch, overrides, fairness_key, content_type, labels, limits, .. } = self;
        let (Some(handler), Some(namespace)) = (self.handler, self.namespace) else {
            return Err(InvalidFields::one(path.field("handler"), "is invalid").into());
        };
        let (handler, pool) = resolve(catalog, path, &namespace, &handler, pool.as_ref())?;
        check_handler_args(path, handler, &request.args)?;
        Ok(TaskOptions {
            namespace,
            handler: handler.name.clone(),
            pool: pool.name.clone(),
            priority: overrides.priority,
            fairness_key,
            display_name: request.display_name.as_str().into(),
            labels,
            batch,
            schedule: None,
            timeout: overrides.timeout.or(handler.timeout).unwrap_or(pool.timeout),
            retry: overrides.retry(&handler.retry),
            at_most_once: request.at_most_once,
            durability: overrides.durability.unwrap_or(pool.durability),
            limits,
            content_type,
            submitted_by: context.submitted_by.into(),
        })
    }
}

pub(super) fn namespace(
    invalid: &mut InvalidFields,
    field: FieldPath,
    text: &str,
    default: Option<&Namespace>,
) -> Option<Namespace> {
    match (text, default) {
        ("", Some(default)) => Some(default.clone()),
        ("", None) => {
            invalid.add(field, "must not be empty, because you have access to several namespaces");
            None
        }
        (text, _) => invalid.parsed(field, Namespace::parse(text)),
    }
}

/// The batch of a task: `of_call`, or that of the submission, which must be in the namespace of the task.
fn batch(
    invalid: &mut InvalidFields,
    path: MessagePath,
    text: &str,
    of_call: Option<&BatchRef>,
    namespace: Option<&Namespace>,
) -> Option<BatchId> {
    let field = path.field("batch_id");
    let own = if text.is_empty() { None } else { Some(invalid.parsed(field, BatchRef::parse(text))?) };
    if let (Some(own), Some(of_call)) = (&own, of_call)
        && own != of_call
    {
        invalid.add(field, format_args!("is `{text}`, must be empty or that of the call, `{of_call}`"));
    }
    let BatchRef { namespace: given, id } = of_call.or(own.as_ref())?;
    if let (Some(given), Some(namespace)) = (given, namespace)
        && given != namespace
    {
        invalid.add(field, format_args!("is in namespace `{given}`, but the task is in `{namespace}`"));
    }
    Some(id.clone())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost_types::value::Kind as JsonKind;

    use super::*;
    use crate::model::limits::PayloadLimit;
    use crate::model::spec::{JSON, OCTET_STREAM};
    use crate::model::{
        ArgPattern, Coded, Durability, ErrorCode, HandlerSpec, PoolKind, PoolSpec, Priority, RetryPolicy,
    };

    fn pool(name: &str, kind: PoolKind) -> (PoolName, PoolSpec) {
        let name = PoolName::parse(name).unwrap();
        let timeout = Duration::from_secs(77);
        (name.clone(), PoolSpec { kind, timeout, ..PoolSpec::with_defaults(name, 2) })
    }

    fn own_pool(name: &str, namespace: &str) -> (PoolName, PoolSpec) {
        let (name, spec) = pool(name, PoolKind::Threads);
        (name, PoolSpec { namespaces: vec![Namespace::parse(namespace).unwrap()], ..spec })
    }

    fn handler(name: &str, change: impl FnOnce(&mut HandlerSpec)) -> (HandlerName, Arc<HandlerSpec>) {
        let mut spec = HandlerSpec {
            name: HandlerName::parse(name).unwrap(),
            runner: "builtin",
            description: String::new(),
            payload_description: String::new(),
            pool: PoolName::parse("default").unwrap(),
            allowed_pools: Vec::new(),
            timeout: None,
            retry: RetryPolicy::default(),
            arg_pattern: None,
            grace: Duration::from_secs(5),
            blocking: true,
            source: crate::model::HandlerSource::File,
            payload_schema: None,
        };
        change(&mut spec);
        (spec.name.clone(), Arc::new(spec))
    }

    fn catalog() -> Catalog {
        let allow = |spec: &mut HandlerSpec| {
            spec.allowed_pools = ["waiting", "gone"].map(|name| PoolName::parse(name).unwrap()).to_vec();
        };
        let (rule, timeout) = (RetryPolicy { attempts_max: 7, ..RetryPolicy::default() }, Duration::from_secs(5));
        Catalog {
            pools: [
                pool("default", PoolKind::Threads),
                pool("waiting", PoolKind::Async),
                pool("other", PoolKind::Threads),
                pool("far", PoolKind::Remote),
                own_pool("own-a", "a"),
                own_pool("own-b", "b"),
            ]
            .into(),
            handlers: [
                handler("compute", |_| ()),
                handler("spins", allow),
                handler("private", |spec| {
                    spec.pool = PoolName::parse("own-a").unwrap();
                    spec.allowed_pools = vec![PoolName::parse("own-b").unwrap()];
                }),
                handler("waits", |spec| {
                    allow(spec);
                    (spec.blocking, spec.arg_pattern) = (false, ArgPattern::parse("[a-z]*").ok());
                    (spec.retry, spec.timeout) = (rule, Some(timeout));
                }),
            ]
            .into(),
            ..Catalog::default()
        }
    }

    fn parse(request: v1::SubmitTaskRequest) -> Result<TaskSpec, SubmitError> {
        parse_next(request, &Arc::new(catalog()), &mut None)
    }

    fn parse_next(
        request: v1::SubmitTaskRequest,
        catalog: &Arc<Catalog>,
        shared: &mut Option<Box<SharedOptions>>,
    ) -> Result<TaskSpec, SubmitError> {
        let namespace = Namespace::default();
        let context = SubmitContext {
            new_id: || TaskId::Uuid([7; 16]),
            now: Timestamp(1_000_000),
            submitted_by: "127.0.0.1:7",
            default_namespace: Some(&namespace),
            batch: None,
            trace: None,
            has_send_span: false,
            places: 5,
        };
        convert(request, MessagePath::BatchItem(3), catalog, &context, shared, Arc::new)
    }

    #[test]
    fn equal_submissions_of_a_call_share_their_options() {
        let (first, mut shared) = (Arc::new(catalog()), None);
        let with = |task_id: &str, payload: Option<Kind>, args: &[&str]| {
            let payload = payload.map(|kind| v1::Payload { kind: Some(kind), content_type: String::new() });
            let args = args.iter().map(ToString::to_string).collect();
            v1::SubmitTaskRequest { task_id: task_id.to_owned(), payload, args, ..request("waits") }
        };
        let (data, json) = (|byte: u8| Kind::Data(vec![byte].into()), Kind::Json(prost_types::Value::default()));
        let one = parse_next(with("a", Some(data(1)), &["x"]), &first, &mut shared).unwrap();
        let two = parse_next(with("b", Some(data(2)), &["x"]), &first, &mut shared).unwrap();
        assert!(Arc::ptr_eq(&one.options, &two.options));
        assert_eq!((two.id.to_string().as_str(), &*two.payload), ("b", &[2][..]));
        assert_eq!(one.extras, two.extras);
        let refused = parse_next(with("b", Some(data(2)), &["X"]), &first, &mut shared);
        assert_eq!(refused.unwrap_err().code(), ErrorCode::InvalidField);
        let three = parse_next(with("c", Some(json.clone()), &["x"]), &first, &mut shared).unwrap();
        assert_eq!((&*three.options.content_type, &*one.options.content_type), (JSON, OCTET_STREAM));
        let invalid = parse_next(with("has space", Some(json), &["x"]), &first, &mut shared);
        assert_eq!(invalid.unwrap_err().code(), ErrorCode::InvalidField);

        let mut changed = catalog();
        changed.handlers.remove(&three.options.handler);
        let after = parse_next(with("d", None, &["x"]), &Arc::new(changed), &mut shared);
        assert_eq!(after.unwrap_err().code(), ErrorCode::UnknownHandler);
    }

    fn request(handler: &str) -> v1::SubmitTaskRequest {
        v1::SubmitTaskRequest { handler: handler.to_owned(), ..v1::SubmitTaskRequest::default() }
    }

    fn duration(seconds: i64, nanos: i32) -> prost_types::Duration {
        prost_types::Duration { seconds, nanos }
    }

    #[test]
    fn defaults_come_from_the_handler_and_then_from_the_pool() {
        let spec = parse(request("compute")).unwrap();
        assert!(matches!(spec.id, TaskId::Uuid(_)));
        let options = &spec.options;
        assert_eq!((options.pool.as_str(), options.namespace.as_str()), ("default", "default"));
        assert_eq!((options.timeout, options.priority), (Duration::from_secs(77), Priority::Normal));
        assert_eq!((options.durability, &options.retry), (Durability::Fsync, &RetryPolicy::default()));
        assert_eq!((&*options.content_type, &*options.submitted_by), (OCTET_STREAM, "127.0.0.1:7"));
        assert_eq!(spec.extras, None);

        let spec = parse(request("waits")).unwrap();
        assert_eq!((spec.options.timeout, spec.options.retry.attempts_max), (Duration::from_secs(5), 7));
    }

    #[test]
    fn a_submission_overrides_the_handler() {
        let overrides = v1::SubmitTaskRequest {
            pool: "waiting".to_owned(),
            task_id: "mine".to_owned(),
            request_id: "once".to_owned(),
            namespace: "team".to_owned(),
            priority: v1::Priority::Critical.into(),
            timeout: Some(duration(0, 1_000_000)),
            retry: Some(v1::RetryPolicy { factor: 3.0, jitter: Some(0.0), ..v1::RetryPolicy::default() }),
            delay: Some(duration(2, 0)),
            expires_after: Some(duration(9, 0)),
            args: vec!["v".to_owned()],
            durability: v1::Durability::Memory.into(),
            at_most_once: true,
            ..request("waits")
        };
        let spec = parse(overrides).unwrap();
        let options = &spec.options;
        let extras = spec.extras.unwrap();
        assert_eq!((spec.id.to_string().as_str(), extras.request_id()), ("team/mine", Some("once")));
        assert_eq!((options.pool.as_str(), options.namespace.as_str()), ("waiting", "team"));
        assert_eq!((options.priority, options.timeout), (Priority::Critical, Duration::from_millis(1)));
        assert_eq!((options.retry.factor, options.retry.jitter, options.retry.attempts_max), (3.0, 0.0, 7));
        assert_eq!(extras.delay, Some(Duration::from_secs(2)));
        assert_eq!(extras.expires_after, Some(Duration::from_secs(9)));
        assert_eq!((options.durability, options.at_most_once), (Durability::Memory, true));
        assert_eq!(&*extras.args, &["v".into()]);
    }

    #[test]
    fn all_invalid_fields_are_reported_at_once() {
        let bad = v1::SubmitTaskRequest {
            handler: String::new(),
            pool: "p/q".to_owned(),
            task_id: "has space".to_owned(),
            request_id: "x".repeat(65),
            namespace: "ä".to_owned(),
            delay: Some(duration(-1, 0)),
            expires_after: Some(duration(0, 0)),
            args: vec!["a\0b".to_owned(), "y".repeat(limits::ARG_BYTES_MAX + 1)],
            priority: 5,
            timeout: Some(duration(86_400, 1)),
            retry: Some(v1::RetryPolicy {
                max_attempts: 101,
                delay: Some(duration(0, -1)),
                factor: f64::NAN,
                max_delay: Some(duration(i64::MAX, 0)),
                jitter: Some(1.5),
            }),
            durability: -1,
            trace_mode: 9,
            display_name: "n".repeat(limits::DISPLAY_NAME_BYTES_MAX + 1),
            ..v1::SubmitTaskRequest::default()
        };
        let Err(SubmitError::InvalidFields(fields)) = parse(bad) else { panic!("accepted") };
        let mut paths = fields.paths();
        paths.sort_unstable();
        let names = [
            "args[0]",
            "args[1]",
            "delay",
            "display_name",
            "durability",
            "expires_after",
            "handler",
            "namespace",
            "pool",
            "priority",
            "request_id",
            "retry.delay",
            "retry.factor",
            "retry.jitter",
            "retry.max_attempts",
            "retry.max_delay",
            "task_id",
            "timeout",
            "trace_mode",
        ];
        assert_eq!(paths, names.map(|name| format!("tasks[3].{name}")));
    }

    #[test]
    fn lists_and_payloads_are_limited() {
        let large = v1::SubmitTaskRequest {
            payload: Some(v1::Payload {
                kind: Some(Kind::Data(vec![0; PayloadLimit::default().0 + 1].into())),
                content_type: "text/plain\n".to_owned(),
            }),
            labels: [(String::new(), "v".to_owned()), ("k".repeat(64), "w".repeat(257))].into(),
            args: vec![String::new(); limits::ARGS_MAX + 1],
            ..request("waits")
        };
        let Err(SubmitError::InvalidFields(fields)) = parse(large) else { panic!("accepted") };
        let key = "k".repeat(63);
        let label = format!("tasks[3].labels[{key:?}]");
        let args = "tasks[3].args";
        let (data, content_type) = ("tasks[3].payload", "tasks[3].payload.content_type");
        assert_eq!(fields.paths(), [content_type, "tasks[3].labels[\"\"]", &label, &label, args, data]);
        let many = (0..17).map(|n| (n.to_string(), String::new())).collect();
        let Err(error) = parse(v1::SubmitTaskRequest { labels: many, ..request("waits") }) else { panic!("accepted") };
        assert_eq!(error.to_string(), "`tasks[3].labels` has 17 labels, at most 16 are allowed");
    }

    #[test]
    fn a_json_payload_becomes_its_text() {
        let value = prost_types::Value { kind: Some(JsonKind::NumberValue(5_000_000.0)) };
        let kind = Some(Kind::Json(value));
        let with = |kind| {
            let payload = Some(v1::Payload { kind, content_type: String::new() });
            parse(v1::SubmitTaskRequest { payload, ..request("compute") })
        };
        let spec = with(kind).unwrap();
        assert_eq!((&spec.payload[..], &*spec.options.content_type), (&b"5000000"[..], JSON));
        let nan = prost_types::Value { kind: Some(JsonKind::NumberValue(f64::NAN)) };
        let Err(SubmitError::InvalidFields(fields)) = with(Some(Kind::Json(nan))) else { panic!("accepted") };
        assert_eq!(fields.paths(), ["tasks[3].payload.json"]);
    }

    #[test]
    fn each_submission_of_a_call_keeps_its_own_trace_context_and_equal_ones_are_shared() {
        let (catalog, mut shared) = (Arc::new(catalog()), None);
        let mut with = |digit: &str, priority: i32| {
            let traceparent = format!("00-{}-{}-01", digit.repeat(32), digit.repeat(16));
            let traceparent = if digit.is_empty() { String::new() } else { traceparent };
            let submission = v1::SubmitTaskRequest { traceparent, priority, ..request("compute") };
            parse_next(submission, &catalog, &mut shared).unwrap().extras().trace.clone()
        };
        let [a, again, b] = [("a", 0), ("a", 0), ("b", 0)].map(|(digit, priority)| with(digit, priority).unwrap());
        assert!(Arc::ptr_eq(&a, &again));
        assert_eq!((a.trace_id >> 124, b.trace_id >> 124, a.at), (0xa, 0xb, Timestamp(1_000_000)));
        assert_eq!(with("", 0), None, "the call has none");
    }

    #[test]
    fn a_payload_does_not_keep_the_request_buffer_alive() {
        let buffer = Bytes::from(vec![7; 4_096]);
        let kind = Some(Kind::Data(buffer.slice(10..20)));
        let payload = Some(v1::Payload { kind, content_type: String::new() });
        let spec = parse(v1::SubmitTaskRequest { payload, ..request("compute") }).unwrap();
        assert_eq!(spec.payload[..], buffer[10..20]);
        assert!(!buffer.as_ptr_range().contains(&spec.payload.as_ptr()));
    }

    #[test]
    fn unknown_handlers_and_pools_have_their_own_error_codes() {
        let code = |handler: &str, pool: &str| {
            parse(v1::SubmitTaskRequest { pool: pool.to_owned(), ..request(handler) }).unwrap_err().code()
        };
        assert_eq!(code("unknown", ""), ErrorCode::UnknownHandler);
        assert_eq!(code("compute", "unknown"), ErrorCode::UnknownPool);
        assert_eq!(code("waits", "gone"), ErrorCode::UnknownPool);
        assert_eq!(code("compute", "other"), ErrorCode::PoolNotAllowed);
        assert_eq!(code("spins", "waiting"), ErrorCode::PoolNotAllowed);
        let remote = parse(v1::SubmitTaskRequest { pool: "far".to_owned(), ..request("compute") }).unwrap_err();
        assert_eq!(remote.code(), ErrorCode::PoolNotAllowed);
        assert!(
            remote.to_string().contains("the handler runs in the server")
                && !remote.to_string().contains("allowed_pools")
        );
        let details = parse(request("unknown")).unwrap_err().details();
        assert!(details.metadata.contains(&("field", "tasks[3].handler".to_owned())));
    }

    #[test]
    fn a_task_runs_in_the_first_pool_of_its_handler_that_takes_its_namespace() {
        let submit = |namespace: &str, pool: &str| {
            let (namespace, pool) = (namespace.to_owned(), pool.to_owned());
            parse(v1::SubmitTaskRequest { namespace, pool, ..request("private") })
        };
        for (namespace, pool) in [("a", "own-a"), ("b", "own-b")] {
            assert_eq!(submit(namespace, "").unwrap().options.pool.as_str(), pool);
            assert_eq!(submit(namespace, pool).unwrap().options.pool.as_str(), pool);
        }
        for (namespace, pool) in [("a", "own-b"), ("c", ""), ("default", "own-a")] {
            let refused = submit(namespace, pool).unwrap_err();
            assert_eq!(refused.code(), ErrorCode::PoolNotAllowed);
            let violation = &refused.details().violations[0];
            assert_eq!(violation.field, "tasks[3].pool");
            assert!(violation.description.contains("the pool takes only tasks of other namespaces"));
        }
    }

    #[test]
    fn arguments_are_rejected_if_the_handler_does_not_accept_them() {
        let args = vec!["rm".to_owned()];
        let Err(error) = parse(v1::SubmitTaskRequest { args, ..request("compute") }) else { panic!("accepted") };
        assert_eq!(error.to_string(), "`tasks[3].args` has 1 values, handler `compute` accepts none");
        let args = v1::SubmitTaskRequest { args: vec!["a".to_owned(), "--all".to_owned()], ..request("waits") };
        let error = parse(args).unwrap_err();
        let expected = "`tasks[3].args[1]` is \"--all\", must match `[a-z]*` as a whole for handler `waits`";
        assert_eq!(error.to_string(), expected);
    }
}
