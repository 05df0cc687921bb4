//! A submitted task as the caller described it. A spec changes only by an update before the first start.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;

use super::dependencies::Dependencies;
use super::id::{BatchId, FairnessKey, HandlerName, Namespace, PoolName, ScheduleId, TaskId};
use super::limits::DISPLAY_NAME_BYTES_MAX;
use super::pool::Durability;
use super::priority::Priority;
use super::request::RequestKey;
use super::retry::RetryPolicy;
use super::schedule_run::Scheduled;
use super::task_limit::TaskLimit;
use super::trace::TraceContext;
use super::unique_key::UniqueKey;

/// Content type of JSON payloads and results.
pub const JSON: &str = "application/json";
/// Content type of a payload or result that does not name one.
pub const OCTET_STREAM: &str = "application/octet-stream";

/// Whether the text can be a content type, which is copied into HTTP headers and environment variables.
pub fn is_content_type(text: &str) -> bool {
    (1..=DISPLAY_NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Bytes with a content type: a payload or a result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    pub data: Bytes,
    /// MIME type, such as `application/json`.
    pub content_type: Arc<str>,
}

/// The part of a spec that many tasks have in common. Equal options are shared between tasks, so that a
/// queued task needs little memory. Their hash has every field: of options that differ in one that it lacks, each would be compared
/// with all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TaskOptions {
    pub namespace: Namespace,
    pub handler: HandlerName,
    /// The requested pool, or the handler's default.
    pub pool: PoolName,
    pub priority: Priority,
    /// Tasks of the namespace with the same key share its part of the slots with those of other keys.
    pub fairness_key: Option<FairnessKey>,
    /// May be empty.
    pub display_name: Box<str>,
    /// Sorted by key.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    pub batch: Option<BatchId>,
    /// The schedule that submits it.
    pub schedule: Option<ScheduleId>,
    /// Maximum run time of each attempt.
    pub timeout: Duration,
    pub retry: RetryPolicy,
    /// Never start the task a second time, even after a server crash.
    pub at_most_once: bool,
    /// When the submission may be acknowledged.
    pub durability: Durability,
    /// Each at most once.
    pub limits: Box<[TaskLimit]>,
    /// Content type of the payload.
    pub content_type: Arc<str>,
    /// Peer address or identity of the submitter.
    pub submitted_by: Box<str>,
}

impl TaskOptions {
    /// Whether the start of an attempt has to be durable before its handler runs, so that no crash forgets it.
    pub fn confirms_start(&self) -> bool {
        self.at_most_once || self.limits.iter().any(TaskLimit::may_have_rate)
    }

    /// Whether both are equal apart from what often differs from task to task: display name, labels, batch, schedule, limits and
    /// fairness key. Names all fields, so that a new one is not forgotten.
    pub fn resembles(&self, other: &Self) -> bool {
        let Self {
            namespace,
            handler,
            pool,
            priority,
            fairness_key: _,
            display_name: _,
            labels: _,
            batch: _,
            schedule: _,
            timeout,
            retry,
            at_most_once,
            durability,
            limits: _,
            content_type,
            submitted_by,
        } = self;
        (priority, timeout, at_most_once, durability)
            == (&other.priority, &other.timeout, &other.at_most_once, &other.durability)
            && (namespace, handler, pool) == (&other.namespace, &other.handler, &other.pool)
            && (retry, content_type, submitted_by) == (&other.retry, &other.content_type, &other.submitted_by)
    }

    /// Bytes of labels, limits, fairness key and names.
    pub fn attached_bytes(&self) -> usize {
        let labels = self.labels.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        let limits = self.limits.iter().map(TaskLimit::bytes).sum::<usize>();
        let fairness_key = self.fairness_key.as_ref().map_or(0, |key| key.as_str().len());
        labels + limits + fairness_key + self.display_name.len() + self.submitted_by.len() + self.content_type.len()
    }
}

#[cfg(test)]
impl TaskOptions {
    /// Valid options for tests.
    pub(crate) fn sample() -> Self {
        Self {
            namespace: Namespace::default(),
            handler: HandlerName::parse("work").unwrap(),
            pool: PoolName::parse("p").unwrap(),
            priority: Priority::Normal,
            fairness_key: None,
            display_name: "".into(),
            labels: Box::default(),
            batch: None,
            schedule: None,
            timeout: Duration::from_secs(300),
            retry: RetryPolicy::default(),
            at_most_once: false,
            durability: Durability::Fsync,
            limits: Box::default(),
            content_type: "text/plain".into(),
            submitted_by: "test".into(),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct TaskSpec {
    pub id: TaskId,
    pub options: Arc<TaskOptions>,
    /// Input of the handler. Not `Bytes`, which would add 40 bytes to every queued task.
    pub payload: Box<[u8]>,
    /// Read through [`TaskSpec::extras`].
    pub extras: Option<Box<TaskExtras>>,
}

/// Fields that few tasks use, in a separate allocation, so that all other tasks stay small.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskExtras {
    /// Arguments appended to those of the registered process handler.
    pub args: Box<[Box<str>]>,
    /// Idempotency key of the submission. Shared, so that it outlives the task.
    pub request: Option<Arc<RequestKey>>,
    /// Time from the submission until the task may start.
    pub delay: Option<Duration>,
    /// Time from the submission after which the task fails with EXPIRED if it has not started.
    pub expires_after: Option<Duration>,
    /// Trace context of the submission.
    pub trace: Option<Arc<TraceContext>>,
    /// The batch of which this task is the completion. It is not one of the tasks of the batch.
    pub completes: Option<BatchId>,
    /// The run of the schedule of which it is the task.
    pub scheduled: Option<Scheduled>,
    /// The ended task that was submitted once more.
    pub retry_of: Option<TaskId>,
    /// The tasks that have to end before this one starts.
    pub dependencies: Option<Arc<Dependencies>>,
    pub unique: Option<Box<UniqueKey>>,
    /// Whether the task was updated, so that it differs from its submission.
    pub updated: bool,
}

static NO_EXTRAS: LazyLock<TaskExtras> = LazyLock::new(TaskExtras::default);

impl TaskExtras {
    /// The value for [`TaskSpec::extras`]: `None` if every field has its default.
    pub fn boxed(self) -> Option<Box<Self>> {
        (self != *NO_EXTRAS).then(|| Box::new(self))
    }

    /// Idempotency key of the submission.
    pub fn request_id(&self) -> Option<&str> {
        self.request.as_deref().map(|key| &*key.id)
    }
}

impl TaskSpec {
    pub fn extras(&self) -> &TaskExtras {
        self.extras.as_deref().unwrap_or(&NO_EXTRAS)
    }

    /// Bytes of everything of variable size but the payload: arguments, labels, limits, fairness key, names, trace context, parents and
    /// unique key.
    pub fn attached_bytes(&self) -> usize {
        let (options, extras) = (&self.options, self.extras());
        let args = extras.args.iter().map(|arg| arg.len()).sum::<usize>();
        let request_id = extras.request_id().map_or(0, str::len);
        let trace = extras.trace.as_ref().map_or(0, |trace| trace.state.len() + trace.baggage.len());
        let dependencies = extras.dependencies.as_ref().map_or(0, |dependencies| dependencies.bytes());
        let unique = extras.unique.as_ref().map_or(0, |unique| unique.bytes());
        options.attached_bytes() + args + request_id + trace + dependencies + unique
    }

    /// Replaces what an update can change.
    pub fn update(&mut self, options: Arc<TaskOptions>, delay: Option<Duration>, expires_after: Option<Duration>) {
        self.options = options;
        let extras = self.extras().clone();
        self.extras = TaskExtras { delay, expires_after, updated: true, ..extras }.boxed();
    }

    /// A copy with an empty payload.
    #[must_use]
    pub fn without_payload(&self) -> Self {
        Self {
            id: self.id.clone(),
            options: self.options.clone(),
            payload: Box::default(),
            extras: self.extras.clone(),
        }
    }

    /// The payload as `Bytes` that keep the spec alive; does not copy.
    pub fn payload_of(spec: &Arc<Self>) -> Bytes {
        struct Owner(Arc<TaskSpec>);
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                &self.0.payload
            }
        }
        if spec.payload.is_empty() { Bytes::new() } else { Bytes::from_owner(Owner(Arc::clone(spec))) }
    }
}
