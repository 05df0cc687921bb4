//! A submission: fields to a spec, resolved against what the operator registered.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::model::{
    BatchId, Catalog, HandlerName, HandlerSpec, Namespace, PoolKind, PoolName, PoolSpec, TaskExtras, TaskId,
    TaskOptions, TaskSpec, Timestamp, limits,
};
use crate::proto::v1;

use super::fields::{Wishes, check_args, labels, optional_name, payload, trace};
use super::{Field, InvalidFields, Place, Unresolved};

/// What a submission takes from its surroundings.
pub struct Context<'a> {
    /// What can run, and where.
    pub catalog: &'a Catalog,
    /// The shared copy of options.
    pub intern: &'a dyn Fn(TaskOptions) -> Arc<TaskOptions>,
    /// The server's time.
    pub now: Timestamp,
    /// Peer address or identity.
    pub submitted_by: &'a str,
    /// The namespace of tasks that name none; `None` when they have to.
    pub home: Option<&'a Namespace>,
    /// The batch it belongs to.
    pub batch: Option<&'a BatchId>,
}

/// The spec of a submission.
///
/// # Errors
/// [`Unresolved`], with every bad field.
pub fn spec(request: v1::SubmitTaskRequest, place: Place, context: &Context<'_>) -> Result<TaskSpec, Unresolved> {
    let mut bad = InvalidFields::default();
    let at = |field| Field(place, field);
    let handler = bad.take(at("handler"), HandlerName::parse(&request.handler));
    let pool = (!request.pool.is_empty()).then(|| bad.take(at("pool"), PoolName::parse(&request.pool)));
    let request_id = optional_name(&mut bad, at("request_id"), &request.request_id);
    let namespace = match (request.namespace.as_str(), context.home) {
        ("", Some(home)) => Some(home.clone()),
        ("", None) => {
            bad.add(at("namespace"), "is empty; you have several, so one must be named");
            None
        }
        (text, _) => bad.take(at("namespace"), Namespace::parse(text)),
    };
    let id = match (request.task_id.as_str(), &namespace) {
        ("", _) => Some(Uuid::now_v7().into()),
        (text, Some(namespace)) => bad.take(at("task_id"), TaskId::named(namespace, text)),
        (text, None) => bad.take(at("task_id"), TaskId::parse(text)),
    };
    let delay = bad.span(at("delay"), request.delay.as_ref(), Duration::ZERO..=limits::DELAY_MAX);
    let expiry_bounds = limits::TIMEOUT_MIN..=limits::DELAY_MAX;
    let expires_after = bad.span(at("expires_after"), request.expires_after.as_ref(), expiry_bounds);
    check_args(&mut bad, place, &request.args);
    let wishes = Wishes::parse(&mut bad, place, &request);
    let (payload, content_type) = payload(&mut bad, place, request.payload);
    let labels = labels(&mut bad, place, request.labels);
    let trace = trace(&mut bad, at("trace_mode"), request.trace_mode, context.now);
    bad.at_most(at("display_name"), request.display_name.len(), limits::DISPLAY_NAME_BYTES_MAX, "bytes");
    bad.check()?;
    let (Some(handler), Some(id), Some(namespace)) = (handler, id, namespace) else {
        return Err(InvalidFields::one(at("handler"), "cannot be read").into());
    };

    let (handler, pool) = resolve(context.catalog, place, &handler, pool.flatten().as_ref())?;
    if !request.args.is_empty() && !handler.accepts_args {
        let text = format_args!("has {} values, handler `{}` accepts none", request.args.len(), handler.name);
        return Err(InvalidFields::one(at("args"), text).into());
    }
    let options = TaskOptions {
        namespace,
        handler: handler.name.clone(),
        pool: pool.name.clone(),
        priority: wishes.priority,
        display_name: request.display_name.into(),
        labels,
        batch: context.batch.cloned(),
        timeout: wishes.timeout.or(handler.timeout).unwrap_or(pool.timeout),
        retry: wishes.retry(&handler.retry),
        at_most_once: request.at_most_once,
        durability: wishes.durability.unwrap_or(pool.durability),
        content_type,
        submitted_by: context.submitted_by.into(),
    };
    let extras = TaskExtras {
        args: request.args.into_iter().map(Into::into).collect(),
        request_id,
        not_before: delay.filter(|delay| !delay.is_zero()).map(|delay| context.now.after(delay)),
        expires_at: expires_after.map(|span| context.now.after(span)),
        trace,
    };
    Ok(TaskSpec { id, options: (context.intern)(options), payload, extras: extras.boxed() })
}

/// Handler and pool of a task.
fn resolve<'a>(
    catalog: &'a Catalog,
    place: Place,
    handler: &HandlerName,
    pool: Option<&PoolName>,
) -> Result<(&'a HandlerSpec, &'a PoolSpec), Unresolved> {
    let unknown = || Unresolved::Handler(Field(place, "handler"), handler.clone());
    let handler = catalog.handlers.get(handler).ok_or_else(unknown)?;
    let field = Field(place, "pool");
    let wanted = pool.unwrap_or(&handler.pool);
    let spec = catalog.pools.get(wanted).ok_or_else(|| Unresolved::Pool(field, wanted.clone()))?;
    let refused = |why| {
        let (handler, pool) = (handler.name.clone(), wanted.clone());
        Err(Unresolved::NotAllowed { field, handler, pool, why })
    };
    if *wanted != handler.pool && !handler.allowed_pools.contains(wanted) {
        return refused("it is not among the handler's pools");
    }
    if handler.blocking && spec.kind == PoolKind::Async {
        return refused("the handler computes on its worker, and the pool is for work that waits");
    }
    Ok((handler, spec))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost_types::value::Kind as JsonKind;

    use super::*;
    use crate::model::spec::{JSON, OCTET_STREAM};
    use crate::model::{Coded, Durability, Priority, RetryPolicy};

    fn pool(name: &str, kind: PoolKind) -> (PoolName, PoolSpec) {
        let name = PoolName::parse(name).unwrap();
        let timeout = Duration::from_secs(77);
        (name.clone(), PoolSpec { kind, timeout, ..PoolSpec::with_defaults(name, 2) })
    }

    fn handler(name: &str, change: impl FnOnce(&mut HandlerSpec)) -> (HandlerName, HandlerSpec) {
        let mut spec = HandlerSpec {
            name: HandlerName::parse(name).unwrap(),
            runner: "builtin",
            description: String::new(),
            payload_description: String::new(),
            pool: PoolName::parse("default").unwrap(),
            allowed_pools: Vec::new(),
            timeout: None,
            retry: RetryPolicy::default(),
            accepts_args: false,
            grace: Duration::from_secs(5),
            blocking: true,
        };
        change(&mut spec);
        (spec.name.clone(), spec)
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
            ]
            .into(),
            handlers: [
                handler("compute", |_| ()),
                handler("spins", allow),
                handler("waits", |spec| {
                    allow(spec);
                    (spec.blocking, spec.accepts_args) = (false, true);
                    (spec.retry, spec.timeout) = (rule, Some(timeout));
                }),
            ]
            .into(),
        }
    }

    fn parse(request: v1::SubmitTaskRequest) -> Result<TaskSpec, Unresolved> {
        let now = Timestamp(1_000_000);
        let (catalog, home) = (catalog(), Namespace::default());
        let (intern, submitted_by, home) = (&Arc::new, "127.0.0.1:7", Some(&home));
        let context = Context { catalog: &catalog, intern, now, submitted_by, home, batch: None };
        spec(request, Place::Item(3), &context)
    }

    fn request(handler: &str) -> v1::SubmitTaskRequest {
        v1::SubmitTaskRequest { handler: handler.to_owned(), ..v1::SubmitTaskRequest::default() }
    }

    fn span(seconds: i64, nanos: i32) -> prost_types::Duration {
        prost_types::Duration { seconds, nanos }
    }

    #[test]
    fn what_a_submitter_leaves_out_comes_from_the_handler_and_then_from_the_pool() {
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
    fn what_a_submitter_says_goes_before_the_handler() {
        let wished = v1::SubmitTaskRequest {
            pool: "waiting".to_owned(),
            task_id: "mine".to_owned(),
            request_id: "once".to_owned(),
            namespace: "team".to_owned(),
            priority: v1::Priority::Critical.into(),
            timeout: Some(span(0, 1_000_000)),
            retry: Some(v1::RetryPolicy { factor: 3.0, jitter: Some(0.0), ..v1::RetryPolicy::default() }),
            delay: Some(span(2, 0)),
            expires_after: Some(span(9, 0)),
            args: vec!["-v".to_owned()],
            durability: v1::Durability::Memory.into(),
            at_most_once: true,
            ..request("waits")
        };
        let spec = parse(wished).unwrap();
        let options = &spec.options;
        assert_eq!((spec.id.to_string().as_str(), spec.extras().request_id.as_deref()), ("team/mine", Some("once")));
        assert_eq!((options.pool.as_str(), options.namespace.as_str()), ("waiting", "team"));
        assert_eq!((options.priority, options.timeout), (Priority::Critical, Duration::from_millis(1)));
        assert_eq!((options.retry.factor, options.retry.jitter, options.retry.attempts_max), (3.0, 0.0, 7));
        assert_eq!(
            (spec.extras().not_before, spec.extras().expires_at),
            (Some(Timestamp(3_000_000)), Some(Timestamp(10_000_000)))
        );
        assert_eq!((options.durability, options.at_most_once), (Durability::Memory, true));
        assert_eq!(&*spec.extras().args, &["-v".into()]);
    }

    #[test]
    fn every_bad_field_is_named_with_its_path_all_at_once() {
        let bad = v1::SubmitTaskRequest {
            handler: String::new(),
            pool: "p/q".to_owned(),
            task_id: "has space".to_owned(),
            request_id: "x".repeat(65),
            namespace: "ä".to_owned(),
            delay: Some(span(-1, 0)),
            expires_after: Some(span(0, 0)),
            args: vec!["a\0b".to_owned(), "y".repeat(limits::ARG_BYTES_MAX + 1)],
            priority: 5,
            timeout: Some(span(86_400, 1)),
            retry: Some(v1::RetryPolicy {
                max_attempts: 101,
                delay: Some(span(0, -1)),
                factor: f64::NAN,
                max_delay: Some(span(i64::MAX, 0)),
                jitter: Some(1.5),
            }),
            durability: -1,
            trace_mode: 9,
            display_name: "n".repeat(limits::DISPLAY_NAME_BYTES_MAX + 1),
            ..v1::SubmitTaskRequest::default()
        };
        let Err(Unresolved::Fields(fields)) = parse(bad) else { panic!("it was accepted") };
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
    fn lists_and_payloads_have_their_limits() {
        let large = v1::SubmitTaskRequest {
            payload: Some(v1::Payload {
                kind: Some(v1::payload::Kind::Data(vec![0; limits::PAYLOAD_BYTES_MAX + 1].into())),
                content_type: "text/plain\n".to_owned(),
            }),
            labels: [(String::new(), "v".to_owned()), ("k".repeat(64), "w".repeat(257))].into(),
            args: vec![String::new(); limits::ARGS_MAX + 1],
            ..request("waits")
        };
        let Err(Unresolved::Fields(fields)) = parse(large) else { panic!("it was accepted") };
        let key = "k".repeat(63);
        let label = format!("tasks[3].labels[{key:?}]");
        let args = "tasks[3].args";
        let (data, content_type) = ("tasks[3].payload", "tasks[3].payload.content_type");
        assert_eq!(fields.paths(), [args, data, content_type, "tasks[3].labels[\"\"]", &label, &label]);
        let many = (0..17).map(|n| (n.to_string(), String::new())).collect();
        let Err(error) = parse(v1::SubmitTaskRequest { labels: many, ..request("waits") }) else { panic!("accepted") };
        assert_eq!(error.to_string(), "`tasks[3].labels` has 17 labels, at most 16 are allowed");
    }

    #[test]
    fn a_json_payload_becomes_its_text() {
        let value = prost_types::Value { kind: Some(JsonKind::NumberValue(5_000_000.0)) };
        let kind = Some(v1::payload::Kind::Json(value));
        let with = |kind| {
            let payload = Some(v1::Payload { kind, content_type: String::new() });
            parse(v1::SubmitTaskRequest { payload, ..request("compute") })
        };
        let spec = with(kind).unwrap();
        assert_eq!((&spec.payload[..], &*spec.options.content_type), (&b"5000000"[..], JSON));
        let nan = prost_types::Value { kind: Some(JsonKind::NumberValue(f64::NAN)) };
        let Err(Unresolved::Fields(fields)) = with(Some(v1::payload::Kind::Json(nan))) else { panic!("accepted") };
        assert_eq!(fields.paths(), ["tasks[3].payload.json"]);
    }

    #[test]
    fn a_payload_does_not_pin_the_buffer_that_it_came_in() {
        let buffer = Bytes::from(vec![7; 4_096]);
        let kind = Some(v1::payload::Kind::Data(buffer.slice(10..20)));
        let payload = Some(v1::Payload { kind, content_type: String::new() });
        let spec = parse(v1::SubmitTaskRequest { payload, ..request("compute") }).unwrap();
        assert_eq!(spec.payload[..], buffer[10..20]);
        assert!(!buffer.as_ptr_range().contains(&spec.payload.as_ptr()));
    }

    #[test]
    fn what_is_not_registered_is_a_condition_of_its_own() {
        let code = |handler: &str, pool: &str| {
            parse(v1::SubmitTaskRequest { pool: pool.to_owned(), ..request(handler) }).unwrap_err().code()
        };
        assert_eq!(code("nobody", ""), crate::model::ErrorCode::UnknownHandler);
        assert_eq!(code("compute", "nowhere"), crate::model::ErrorCode::UnknownPool);
        assert_eq!(code("waits", "gone"), crate::model::ErrorCode::UnknownPool);
        assert_eq!(code("compute", "other"), crate::model::ErrorCode::PoolNotAllowed);
        assert_eq!(code("spins", "waiting"), crate::model::ErrorCode::PoolNotAllowed);
        let details = parse(request("nobody")).unwrap_err().details();
        assert!(details.metadata.contains(&("field", "tasks[3].handler".to_owned())));
    }

    #[test]
    fn arguments_need_a_handler_that_takes_them() {
        let args = vec!["rm".to_owned()];
        let Err(error) = parse(v1::SubmitTaskRequest { args, ..request("compute") }) else { panic!("accepted") };
        assert_eq!(error.to_string(), "`tasks[3].args` has 1 values, handler `compute` accepts none");
    }
}
