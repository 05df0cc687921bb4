//! Messages from and to remote workers.

use std::borrow::Cow;

use crate::model::{Failure, FailureReason, HandlerName, OutputStream, Payload, PoolName, StopMethod, id, limits};
use crate::proto::v1::{self, attempt_finished::Outcome as V1Outcome, payload::Kind, server_message, worker_message};
use crate::scheduler::{Assigned, Command, Outcome, RunReport, StopCause, Token, WorkerInfo, WorkerReport};

use super::invalid_fields::{InvalidFields, MessagePath};
use super::numbers::to_i32;
use super::submit_fields::{content_type, labels};
use super::task::priority;
use super::time::{duration, parse_duration};

/// Messages of one request.
const MESSAGES_MAX: usize = 10_000;

/// A worker's introduction.
pub struct Hello {
    pub info: WorkerInfo,
    /// Descriptions of the handlers, in the order of `info.handlers`.
    pub descriptions: Vec<String>,
    /// `None`: the first remote pool.
    pub pool: Option<PoolName>,
    pub unfinished: Vec<Token>,
}

/// # Errors
/// [`InvalidFields`].
pub fn hello(request: v1::WorkRequest) -> Result<Hello, InvalidFields> {
    let Some(hello) = request.hello else {
        return Err(InvalidFields::one("hello", "is required in the first message"));
    };
    let mut invalid = InvalidFields::default();
    if !request.messages.is_empty() {
        invalid.add("messages", "must be empty in the first message");
    }
    invalid.parsed("hello.worker_id", id::check_name(&hello.worker_id));
    let pool = (!hello.pool.is_empty()).then(|| invalid.parsed("hello.pool", PoolName::parse(&hello.pool))).flatten();
    if hello.handlers.is_empty() {
        invalid.add("hello.handlers", "is empty, at least one handler is required");
    }
    invalid.check_length("hello.handlers", hello.handlers.len(), limits::WORKER_HANDLERS_MAX, "handlers");
    let mut handlers = Vec::new();
    let mut descriptions = Vec::new();
    for (index, handler) in hello.handlers.into_iter().enumerate().take(limits::WORKER_HANDLERS_MAX) {
        let field = format!("hello.handlers[{index}]");
        invalid.check_length(
            format_args!("{field}.description"),
            handler.description.len(),
            limits::DESCRIPTION_BYTES_MAX,
            "bytes",
        );
        let Some(name) = invalid.parsed(format_args!("{field}.name"), HandlerName::parse(&handler.name)) else {
            continue;
        };
        if handlers.contains(&name) {
            invalid.add(format_args!("{field}.name"), format_args!("`{name}` is given twice"));
        }
        handlers.push(name);
        descriptions.push(handler.description);
    }
    let slots = usize::try_from(hello.slots).unwrap_or(0);
    if !(1..=limits::WORKER_SLOTS_MAX).contains(&slots) {
        let text = format!("is {}, must be from 1 to {}", hello.slots, limits::WORKER_SLOTS_MAX);
        invalid.add("hello.slots", text);
    }
    invalid.check_length("hello.version", hello.version.len(), limits::DISPLAY_NAME_BYTES_MAX, "bytes");
    invalid.check_length("hello.unfinished", hello.unfinished.len(), 2 * limits::WORKER_SLOTS_MAX, "tokens");
    let labels = labels(&mut invalid, MessagePath::Hello, &hello.labels);
    invalid.check()?;
    let info = WorkerInfo {
        id: hello.worker_id,
        handlers: handlers.into(),
        slots,
        labels: labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
        version: hello.version,
    };
    let unfinished = hello.unfinished.iter().filter_map(|token| Token::parse(token)).collect();
    Ok(Hello { info, descriptions, pool, unfinished })
}

/// The messages of one request.
#[derive(Default)]
pub struct Incoming {
    pub reports: Vec<WorkerReport>,
    /// The worker accepts no further attempts.
    pub is_draining: bool,
}

/// # Errors
/// [`InvalidFields`].
pub fn messages(request: v1::WorkRequest) -> Result<Incoming, InvalidFields> {
    if request.hello.is_some() {
        return Err(InvalidFields::one("hello", "is only allowed in the first message"));
    }
    let mut invalid = InvalidFields::default();
    invalid.check_length("messages", request.messages.len(), MESSAGES_MAX, "messages");
    invalid.check()?;
    let mut incoming = Incoming { reports: Vec::with_capacity(request.messages.len()), is_draining: false };
    for (index, message) in request.messages.into_iter().enumerate() {
        incoming.is_draining |= matches!(message.kind, Some(worker_message::Kind::Draining(_)));
        incoming.reports.extend(report(index, message)?);
    }
    Ok(incoming)
}

/// `None` if the message is not about an attempt.
fn report(index: usize, message: v1::WorkerMessage) -> Result<Option<WorkerReport>, InvalidFields> {
    use worker_message::Kind;
    let invalid = |field: &str, text: &str| InvalidFields::one(format_args!("messages[{index}].{field}"), text);
    let token = |kind: &str, text: &str| {
        let error = || invalid(&format!("{kind}.token"), "is not a token of an attempt");
        Token::parse(text).ok_or_else(error)
    };
    Ok(Some(match message.kind {
        // A kind of a later version only shows that the worker is alive.
        None | Some(Kind::Heartbeat(_) | Kind::Draining(_)) => return Ok(None),
        Some(Kind::Accepted(message)) => WorkerReport::Accepted(token("accepted", &message.token)?),
        Some(Kind::Progress(message)) => {
            let token = token("progress", &message.token)?;
            // Within 0 to 1, so that the loss of precision does not matter.
            #[expect(clippy::cast_possible_truncation, reason = "progress needs no more precision")]
            let fraction = if message.fraction.is_nan() { 0.0 } else { message.fraction.clamp(0.0, 1.0) as f32 };
            let note = shortened(&message.note, limits::DISPLAY_NAME_BYTES_MAX);
            WorkerReport::Progress(token, fraction, note.into_owned())
        }
        Some(Kind::Output(message)) => {
            let stream = match message.stream() {
                v1::OutputStream::Stderr => OutputStream::Stderr,
                v1::OutputStream::Unspecified | v1::OutputStream::Stdout => OutputStream::Stdout,
            };
            WorkerReport::Output(token("output", &message.token)?, stream, message.data)
        }
        Some(Kind::Finished(message)) => {
            let token = token("finished", &message.token)?;
            WorkerReport::Finished(token, finished(message).map_err(|text| invalid("finished", &text))?)
        }
        Some(Kind::CancelAcknowledged(message)) => {
            WorkerReport::CancelAcknowledged(token("cancel_acknowledged", &message.token)?)
        }
        Some(Kind::Suspended(message)) => WorkerReport::Suspended(token("suspended", &message.token)?),
        Some(Kind::Resuming(message)) => WorkerReport::Resuming(token("resuming", &message.token)?),
    }))
}

fn finished(message: v1::AttemptFinished) -> Result<RunReport, String> {
    let outcome = match message.outcome {
        Some(V1Outcome::Result(payload)) => result(payload)?,
        Some(V1Outcome::Failure(message)) => Outcome::Failed(failure(&message)),
        Some(V1Outcome::Stopped(stopped)) => Outcome::Stopped(match stopped.method() {
            v1::StopMethod::SignalTerm => StopMethod::SignalTerm,
            v1::StopMethod::SignalKill => StopMethod::SignalKill,
            v1::StopMethod::Abort => StopMethod::Abort,
            _ => StopMethod::Token,
        }),
        Some(V1Outcome::NotStarted(_)) => Outcome::Unavailable("the worker has not started it".into()),
        None => return Err("has no outcome".to_owned()),
    };
    Ok(RunReport {
        cpu_time: message.cpu_time.as_ref().and_then(parse_duration),
        peak_memory_bytes: message.peak_memory_bytes.and_then(|bytes| u64::try_from(bytes).ok()),
        ..RunReport::from(outcome)
    })
}

/// The result, or a failure if it is not valid.
fn result(payload: v1::Payload) -> Result<Outcome, String> {
    let mut invalid = InvalidFields::default();
    let bytes = match &payload.kind {
        Some(Kind::Data(data)) => data.len(),
        _ => 0,
    };
    if bytes > limits::RESULT_BYTES_MAX {
        let text = format!("result has {bytes} bytes, at most {} are allowed", limits::RESULT_BYTES_MAX);
        return Ok(Outcome::Failed(Failure::new(FailureReason::ResultTooLarge, text)));
    }
    let is_json = matches!(payload.kind, Some(Kind::Json(_)));
    let content_type = content_type(&mut invalid, MessagePath::Root, &payload.content_type, is_json);
    let data = super::submit_fields::payload(&mut invalid, MessagePath::Root, payload.kind);
    invalid.check().map_err(|error| error.to_string())?;
    Ok(Outcome::Completed(Payload { data: data.into_vec().into(), content_type }))
}

fn failure(message: &v1::Failure) -> Failure {
    let reason = u8::try_from(message.reason).ok().and_then(FailureReason::from_number);
    let reason = reason.unwrap_or(FailureReason::HandlerError);
    // One line, because it is shown in lists.
    let text = message.message.lines().next().unwrap_or_default();
    Failure {
        detail: shortened(&message.detail, limits::FAILURE_DETAIL_BYTES_MAX).into_owned(),
        retryable: message.retryable,
        exit_code: message.exit_code,
        signal: message.signal,
        ..Failure::new(reason, shortened(text, limits::FAILURE_MESSAGE_BYTES_MAX))
    }
}

fn shortened(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max {
        return text.into();
    }
    format!("{}…", &text[..text.floor_char_boundary(bytes_max)]).into()
}

/// The message for a command; `None` for one that ends the stream.
pub fn command(command: Command) -> Option<v1::ServerMessage> {
    use server_message::Kind;
    let kind = match command {
        Command::Assign(assigned) => Kind::Assigned(self::assigned(&assigned)),
        Command::Cancel { token, cause, grace } => Kind::Cancel(v1::AttemptCancel {
            token: token.to_string(),
            reason: match cause {
                StopCause::Timeout => v1::StopReason::Timeout,
                StopCause::Drain | StopCause::Cancel | StopCause::Force => v1::StopReason::Cancel,
            }
            .into(),
            grace: Some(duration(grace)),
        }),
        Command::Stale(token) => Kind::Cancel(v1::AttemptCancel {
            token: token.to_string(),
            reason: v1::StopReason::Stale.into(),
            grace: None,
        }),
        Command::Settle(tokens) => {
            Kind::Settled(v1::AttemptsSettled { tokens: tokens.iter().map(ToString::to_string).collect() })
        }
        Command::Resumed(token) => Kind::Resumed(v1::AttemptResumed { token: token.to_string() }),
        Command::Close(_) => return None,
    };
    Some(v1::ServerMessage { kind: Some(kind) })
}

fn assigned(assigned: &Assigned) -> v1::AttemptAssigned {
    let Assigned { token, task, options, attempt, payload, trace, memory: _ } = assigned;
    let trace = trace.as_ref().filter(|trace| trace.has_span());
    v1::AttemptAssigned {
        token: token.to_string(),
        task_id: task.to_string(),
        namespace: options.namespace.to_string(),
        handler: options.handler.to_string(),
        attempt: to_i32(*attempt),
        payload: Some(v1::Payload {
            kind: Some(Kind::Data(payload.clone())),
            content_type: options.content_type.to_string(),
        }),
        timeout: Some(duration(options.timeout)),
        traceparent: trace.and_then(|trace| trace.traceparent()).unwrap_or_default(),
        tracestate: trace.map(|trace| trace.state.to_string()).unwrap_or_default(),
        priority: priority(options.priority),
        labels: options.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
    }
}
