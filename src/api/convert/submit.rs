//! A submission: fields to a spec, resolved against what the operator registered.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::model::task::{JSON, OCTET_STREAM};
use crate::model::{
    BatchId, Catalog, Durability, HandlerName, HandlerSpec, Namespace, PoolName, PoolSpec, Priority, RetryPolicy,
    TaskId, TaskOptions, TaskSpec, Timestamp, id, limits,
};
use crate::proto::v1;
use crate::scheduler::Handle;

use super::{InvalidFields, Unresolved, json};

/// What a submission takes from its surroundings.
pub struct Context<'a> {
    /// To make ids and share options.
    pub handle: &'a Handle,
    /// The server's time.
    pub now: Timestamp,
    /// Peer address or identity.
    pub submitted_by: &'a str,
    /// The batch it belongs to.
    pub batch: Option<&'a BatchId>,
    /// Path before every field, such as `tasks[3].`.
    pub prefix: &'a str,
}

/// The spec of a submission.
///
/// # Errors
/// [`Unresolved`], with every bad field.
pub fn spec(request: v1::SubmitTaskRequest, context: &Context<'_>) -> Result<TaskSpec, Unresolved> {
    let mut bad = InvalidFields::default();
    let at = |field: &str| format!("{}{field}", context.prefix);
    let handler = bad.take(&at("handler"), HandlerName::parse(&request.handler));
    let pool = (!request.pool.is_empty()).then(|| bad.take(&at("pool"), PoolName::parse(&request.pool)));
    let id = match request.task_id.as_str() {
        "" => Some(context.handle.new_task_id()),
        text => bad.take(&at("task_id"), TaskId::parse(text)),
    };
    let request_id = optional_name(&mut bad, &at("request_id"), &request.request_id);
    let namespace = match request.namespace.as_str() {
        "" => Some(Namespace::default()),
        text => bad.take(&at("namespace"), Namespace::parse(text)),
    };
    let delay = bad.span(&at("delay"), request.delay.as_ref(), Duration::ZERO..=limits::DELAY_MAX);
    let expiry_bounds = limits::TIMEOUT_MIN..=limits::DELAY_MAX;
    let expires_after = bad.span(&at("expires_after"), request.expires_after.as_ref(), expiry_bounds);
    check_args(&mut bad, &at("args"), &request.args);
    let wishes = Wishes::parse(&mut bad, &at, &request);
    let (payload, content_type) = payload(&mut bad, &at("payload"), request.payload);
    let labels = labels(&mut bad, &at("labels"), request.labels);
    bad.at_most(&at("display_name"), request.display_name.len(), limits::DISPLAY_NAME_BYTES_MAX, "bytes");
    bad.check()?;
    let (Some(handler), Some(id), Some(namespace)) = (handler, id, namespace) else {
        return Err(InvalidFields::one(&at("handler"), "cannot be read").into());
    };

    let (handler, pool) = resolve(context.handle.catalog(), &handler, pool.flatten())?;
    if !request.args.is_empty() && !handler.accepts_args {
        let text = format!("are not accepted by handler `{}`", handler.name);
        return Err(InvalidFields::one(&at("args"), text).into());
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
    Ok(TaskSpec {
        id,
        options: context.handle.intern(options),
        payload,
        args: request.args.into_iter().map(Into::into).collect(),
        request_id,
        not_before: delay.filter(|delay| !delay.is_zero()).map(|delay| context.now.after(delay)),
        expires_at: expires_after.map(|span| context.now.after(span)),
    })
}

/// Handler and pool of a task.
fn resolve<'a>(
    catalog: &'a Catalog,
    handler: &HandlerName,
    pool: Option<PoolName>,
) -> Result<(&'a HandlerSpec, &'a PoolSpec), Unresolved> {
    let handler = catalog.handlers.get(handler).ok_or_else(|| Unresolved::Handler(handler.clone()))?;
    let wanted = pool.as_ref().unwrap_or(&handler.pool);
    let spec = catalog.pools.get(wanted).ok_or_else(|| Unresolved::Pool(wanted.clone()))?;
    if *wanted != handler.pool && !handler.allowed_pools.contains(wanted) {
        return Err(Unresolved::NotAllowed { handler: handler.name.clone(), pool: wanted.clone() });
    }
    Ok((handler, spec))
}

/// What the submitter may wish differently from the handler.
struct Wishes {
    priority: Priority,
    durability: Option<Durability>,
    timeout: Option<Duration>,
    attempts_max: Option<u32>,
    delay: Option<Duration>,
    factor: Option<f64>,
    delay_max: Option<Duration>,
    jitter: Option<f64>,
}

impl Wishes {
    fn parse(bad: &mut InvalidFields, at: &dyn Fn(&str) -> String, request: &v1::SubmitTaskRequest) -> Self {
        let retry = request.retry.unwrap_or_default();
        let attempts_max = u32::try_from(retry.max_attempts).ok().filter(|n| *n <= limits::ATTEMPTS_MAX);
        if attempts_max.is_none() {
            let text = format!("is {}, it must be from 1 to {}", retry.max_attempts, limits::ATTEMPTS_MAX);
            bad.add(at("retry.max_attempts"), text);
        }
        if !(retry.factor == 0.0 || (1.0..=10.0).contains(&retry.factor)) {
            bad.add(at("retry.factor"), format!("is {}, it must be from 1 to 10", retry.factor));
        }
        if let Some(jitter) = retry.jitter.filter(|jitter| !(0.0..=1.0).contains(jitter)) {
            bad.add(at("retry.jitter"), format!("is {jitter}, it must be from 0 to 1"));
        }
        let spans = Duration::ZERO..=limits::DELAY_MAX;
        let timeouts = limits::TIMEOUT_MIN..=limits::TIMEOUT_MAX;
        Self {
            priority: priority(bad, &at("priority"), request.priority),
            durability: durability(bad, &at("durability"), request.durability),
            timeout: bad.span(&at("timeout"), request.timeout.as_ref(), timeouts),
            attempts_max: attempts_max.filter(|n| *n > 0),
            delay: bad.span(&at("retry.delay"), retry.delay.as_ref(), spans.clone()),
            factor: (retry.factor != 0.0).then_some(retry.factor),
            delay_max: bad.span(&at("retry.max_delay"), retry.max_delay.as_ref(), spans),
            jitter: retry.jitter,
        }
    }

    fn retry(&self, of_handler: &RetryPolicy) -> RetryPolicy {
        RetryPolicy {
            attempts_max: self.attempts_max.unwrap_or(of_handler.attempts_max),
            delay: self.delay.unwrap_or(of_handler.delay),
            factor: self.factor.unwrap_or(of_handler.factor),
            delay_max: self.delay_max.unwrap_or(of_handler.delay_max),
            jitter: self.jitter.unwrap_or(of_handler.jitter),
        }
    }
}

/// A priority; unspecified is NORMAL.
pub fn priority(bad: &mut InvalidFields, field: &str, number: i32) -> Priority {
    match v1::Priority::try_from(number) {
        Ok(v1::Priority::Unspecified | v1::Priority::Normal) => Priority::Normal,
        Ok(v1::Priority::Low) => Priority::Low,
        Ok(v1::Priority::High) => Priority::High,
        Ok(v1::Priority::Critical) => Priority::Critical,
        Err(_) => {
            bad.add(field, format!("is {number}, which is not a priority; those are 0 to 4"));
            Priority::Normal
        }
    }
}

fn durability(bad: &mut InvalidFields, field: &str, number: i32) -> Option<Durability> {
    match v1::Durability::try_from(number) {
        Ok(v1::Durability::Unspecified) => None,
        Ok(v1::Durability::Fsync) => Some(Durability::Fsync),
        Ok(v1::Durability::Memory) => Some(Durability::Memory),
        Err(_) => {
            bad.add(field, format!("is {number}, which is not a durability; those are 0 to 2"));
            None
        }
    }
}

fn optional_name(bad: &mut InvalidFields, field: &str, text: &str) -> Option<Box<str>> {
    if text.is_empty() {
        return None;
    }
    bad.take(field, id::check_name(text)).map(|()| text.into())
}

fn payload(bad: &mut InvalidFields, field: &str, payload: Option<v1::Payload>) -> (Bytes, Arc<str>) {
    let Some(v1::Payload { kind, content_type }) = payload else { return (Bytes::new(), OCTET_STREAM.into()) };
    let (data, usual) = match kind {
        None => (Bytes::new(), OCTET_STREAM),
        // A copy: the bytes of the request would keep its whole buffer alive while the task waits.
        Some(v1::payload::Kind::Data(data)) => (Bytes::copy_from_slice(&data), OCTET_STREAM),
        Some(v1::payload::Kind::Json(value)) => {
            let text = json::text(&value);
            if text.is_none() {
                bad.add(format!("{field}.json"), "is nested too deeply, at most 50 levels are allowed");
            }
            (text.unwrap_or_default().into(), JSON)
        }
    };
    bad.at_most(field, data.len(), limits::PAYLOAD_BYTES_MAX, "bytes");
    bad.at_most(&format!("{field}.content_type"), content_type.len(), limits::DISPLAY_NAME_BYTES_MAX, "bytes");
    let content_type = if content_type.is_empty() { usual.into() } else { content_type.into() };
    (data, content_type)
}

fn check_args(bad: &mut InvalidFields, field: &str, args: &[String]) {
    bad.at_most(field, args.len(), limits::ARGS_MAX, "arguments");
    for (index, arg) in args.iter().enumerate().take(limits::ARGS_MAX) {
        let field = format!("{field}[{index}]");
        bad.at_most(&field, arg.len(), limits::ARG_BYTES_MAX, "bytes");
        if arg.contains('\0') {
            bad.add(field, "contains a NUL byte, which no argument can");
        }
    }
}

type Labels = Box<[(Box<str>, Box<str>)]>;

fn labels(bad: &mut InvalidFields, field: &str, labels: std::collections::BTreeMap<String, String>) -> Labels {
    bad.at_most(field, labels.len(), limits::LABELS_MAX, "labels");
    for (key, value) in labels.iter().take(limits::LABELS_MAX) {
        let field = format!("{field}[{key:?}]");
        if key.is_empty() {
            bad.add(field.as_str(), "has an empty key");
        }
        bad.at_most(&field, key.len(), limits::LABEL_KEY_BYTES_MAX, "bytes in its key");
        bad.at_most(&field, value.len(), limits::LABEL_VALUE_BYTES_MAX, "bytes in its value");
    }
    labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect()
}
