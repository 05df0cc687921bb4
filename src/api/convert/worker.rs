//! Messages from and to remote workers.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;

use crate::model::limits::PayloadLimit;
use crate::model::spec::is_content_type;
use crate::model::{
    Artifact, ArtifactName, Artifacts, Failure, FailureReason, HandlerName, OutputStream, Payload, PoolName,
    StopMethod, id, limits,
};
use crate::proto::v1::{self, attempt_finished::Outcome as V1Outcome, payload::Kind, server_message, worker_message};
use crate::scheduler::{Assigned, Chunk, Command, Outcome, RunReport, StopCause, Token, WorkerInfo, WorkerReport};

use super::invalid_fields::{InvalidFields, MessagePath};
use super::numbers::{to_i32, to_i64};
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
    let pool = invalid.optional("hello.pool", &hello.pool, PoolName::parse);
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
        chunks: hello.chunks,
    };
    let unfinished = hello.unfinished.iter().filter_map(|token| Token::parse(token)).collect();
    Ok(Hello { info, descriptions, pool, unfinished })
}

/// The messages of one request.
#[derive(Default)]
pub struct Incoming {
    pub reports: Vec<WorkerReport>,
    /// Ends whose results follow in chunks.
    pub announced: Vec<AnnouncedResult>,
    /// Parts of such results, with the indexes of their messages.
    pub chunks: Vec<(usize, Chunk)>,
    /// The worker accepts no further attempts.
    pub is_draining: bool,
}

/// The end of an attempt whose result follows in chunks.
pub struct AnnouncedResult {
    pub token: Token,
    pub bytes: usize,
    pub content_type: Arc<str>,
    /// Of which the result is a part, once it is complete.
    pub report: RunReport,
}

/// # Errors
/// [`InvalidFields`].
pub fn messages(request: v1::WorkRequest, limit: PayloadLimit) -> Result<Incoming, InvalidFields> {
    if request.hello.is_some() {
        return Err(InvalidFields::one("hello", "is only allowed in the first message"));
    }
    let mut invalid = InvalidFields::default();
    invalid.check_length("messages", request.messages.len(), MESSAGES_MAX, "messages");
    invalid.check()?;
    let mut incoming = Incoming { reports: Vec::with_capacity(request.messages.len()), ..Incoming::default() };
    for (index, message) in request.messages.into_iter().enumerate() {
        match message.kind {
            Some(worker_message::Kind::Draining(_)) => incoming.is_draining = true,
            Some(worker_message::Kind::Finished(finished)) if finished.result_bytes != 0 => {
                let token = token(index, "finished", &finished.token)?;
                match announced(finished, token) {
                    Ok(announced) => incoming.announced.push(announced),
                    Err(error) => incoming.reports.push(WorkerReport::Finished(token, not_valid(error).into(), None)),
                }
            }
            Some(worker_message::Kind::Chunk(message)) => incoming.chunks.push((index, chunk(index, message)?)),
            Some(kind) => incoming.reports.extend(report(index, kind, limit)?),
            // A kind of a later version only shows that the worker is alive.
            None => {}
        }
    }
    Ok(incoming)
}

fn invalid(index: usize, field: &str, text: impl Display) -> InvalidFields {
    InvalidFields::one(format_args!("messages[{index}].{field}"), text)
}

fn token(index: usize, kind: &str, text: &str) -> Result<Token, InvalidFields> {
    let error = || invalid(index, &format!("{kind}.token"), "is not a token of an attempt");
    Token::parse(text).ok_or_else(error)
}

/// The failure of an attempt whose `finished` is not valid: only this attempt ends, and the worker has to report it no more.
fn not_valid(error: impl Display) -> Outcome {
    let text = format!("the worker has sent an invalid `finished`: {error}");
    Outcome::Failed(Failure::new(FailureReason::HandlerError, shortened(&text, limits::FAILURE_MESSAGE_BYTES_MAX)))
}

fn announced(message: v1::AttemptFinished, token: Token) -> Result<AnnouncedResult, InvalidFields> {
    let field = "result_bytes";
    let bytes = usize::try_from(message.result_bytes);
    let bytes = bytes
        .map_err(|_| InvalidFields::one(field, format_args!("is {}, must not be negative", message.result_bytes)))?;
    let Some(V1Outcome::Result(v1::Payload { kind: None, content_type: text })) = &message.outcome else {
        return Err(InvalidFields::one(field, "requires `result` without data: its bytes follow in chunks"));
    };
    let mut fields = InvalidFields::default();
    let content_type = content_type(&mut fields, MessagePath::Root, text, false);
    fields.check()?;
    let artifacts = artifacts(&message, token)?;
    let report = usage(&message, Outcome::Completed(Payload::default()), artifacts);
    Ok(AnnouncedResult { token, bytes, content_type, report })
}

fn chunk(index: usize, message: v1::AttemptChunk) -> Result<Chunk, InvalidFields> {
    let token = token(index, "chunk", &message.token)?;
    let offset = usize::try_from(message.offset)
        .map_err(|_| invalid(index, "chunk.offset", format_args!("is {}, must not be negative", message.offset)))?;
    if message.data.is_empty() || message.data.len() > limits::INLINE_BYTES_MAX {
        let text = format!("has {} bytes, must have from 1 to {}", message.data.len(), limits::INLINE_BYTES_MAX);
        return Err(invalid(index, "chunk.data", text));
    }
    Ok(Chunk { token, offset, data: message.data })
}

/// `None` if the message is not about an attempt.
fn report(
    index: usize,
    kind: worker_message::Kind,
    limit: PayloadLimit,
) -> Result<Option<WorkerReport>, InvalidFields> {
    use worker_message::Kind;
    let token = |kind: &str, text: &str| token(index, kind, text);
    Ok(Some(match kind {
        Kind::Heartbeat(_) | Kind::Draining(_) | Kind::Chunk(_) => return Ok(None),
        Kind::Accepted(message) => WorkerReport::Accepted(token("accepted", &message.token)?),
        Kind::Progress(message) => {
            let token = token("progress", &message.token)?;
            // Within 0 to 1, so that the loss of precision does not matter.
            #[expect(clippy::cast_possible_truncation, reason = "progress needs no more precision")]
            let fraction = if message.fraction.is_nan() { 0.0 } else { message.fraction.clamp(0.0, 1.0) as f32 };
            let note = shortened(&message.note, limits::DISPLAY_NAME_BYTES_MAX);
            WorkerReport::Progress(token, fraction, note.into_owned())
        }
        Kind::Output(message) => {
            let stream = match message.stream() {
                v1::OutputStream::Stderr => OutputStream::Stderr,
                v1::OutputStream::Unspecified | v1::OutputStream::Stdout => OutputStream::Stdout,
            };
            WorkerReport::Output(token("output", &message.token)?, stream, message.data)
        }
        Kind::Finished(message) => {
            let token = token("finished", &message.token)?;
            WorkerReport::Finished(token, finished(message, token, limit), None)
        }
        Kind::CancelAcknowledged(message) => {
            WorkerReport::CancelAcknowledged(token("cancel_acknowledged", &message.token)?)
        }
        Kind::Suspended(message) => WorkerReport::Suspended(token("suspended", &message.token)?),
        Kind::Resuming(message) => WorkerReport::Resuming(token("resuming", &message.token)?),
    }))
}

fn finished(mut message: v1::AttemptFinished, token: Token, limit: PayloadLimit) -> RunReport {
    let end = outcome(message.outcome.take(), limit).and_then(|outcome| {
        let is_completed = matches!(outcome, Outcome::Completed(_));
        Ok((outcome, if is_completed { artifacts(&message, token)? } else { None }))
    });
    let (outcome, artifacts) = end.unwrap_or_else(|error| (not_valid(error), None));
    usage(&message, outcome, artifacts)
}

fn outcome(outcome: Option<V1Outcome>, limit: PayloadLimit) -> Result<Outcome, InvalidFields> {
    Ok(match outcome {
        Some(V1Outcome::Result(payload)) => result(payload, limit)?,
        Some(V1Outcome::Failure(message)) => Outcome::Failed(failure(&message)),
        Some(V1Outcome::Stopped(stopped)) => Outcome::Stopped(match stopped.method() {
            v1::StopMethod::SignalTerm => StopMethod::SignalTerm,
            v1::StopMethod::SignalKill => StopMethod::SignalKill,
            v1::StopMethod::Abort => StopMethod::Abort,
            _ => StopMethod::Token,
        }),
        Some(V1Outcome::NotStarted(_)) => Outcome::Unavailable("the worker has not started it".into()),
        None => return Err(InvalidFields::one("outcome", "is required")),
    })
}

/// The artifacts that the worker names, which it has uploaded. Only those of an attempt with a result count.
fn artifacts(message: &v1::AttemptFinished, Token(fence): Token) -> Result<Option<Arc<Artifacts>>, InvalidFields> {
    let mut invalid = InvalidFields::default();
    invalid.check_length("artifacts", message.artifacts.len(), limits::ARTIFACTS_MAX, "artifacts");
    let mut files = Vec::<Artifact>::with_capacity(message.artifacts.len().min(limits::ARTIFACTS_MAX));
    for (index, artifact) in message.artifacts.iter().take(limits::ARTIFACTS_MAX).enumerate() {
        let field = |name: &str| format!("artifacts[{index}].{name}");
        let name = ArtifactName::parse(&artifact.name).map_err(|error| invalid.add(field("name"), error)).ok();
        if !is_content_type(&artifact.content_type) {
            invalid.add(field("content_type"), "must be 1 to 128 printable ASCII characters, such as \"text/csv\"");
        }
        let bytes = u64::try_from(artifact.size_bytes).ok();
        let sha256 = parse_sha256(&artifact.sha256);
        if bytes.is_none() || sha256.is_none() {
            invalid.add(field("sha256"), "and `size_bytes` must be those that UploadArtifact has returned");
        }
        let (Some(name), Some(bytes), Some(sha256)) = (name, bytes, sha256) else { continue };
        if files.iter().any(|other| other.name == name) {
            invalid.add(field("name"), format_args!("is {name:?}, which is given twice"));
        }
        files.push(Artifact { name, content_type: artifact.content_type.as_str().into(), bytes, sha256 });
    }
    invalid.check()?;
    files.sort_by(|one, other| one.name.cmp(&other.name));
    Ok((!files.is_empty()).then(|| Arc::new(Artifacts { fence, files: files.into() })))
}

fn parse_sha256(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let is_hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    for (index, byte) in bytes.iter_mut().enumerate().filter(|_| is_hex) {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    is_hex.then_some(bytes)
}

/// An outcome with what its attempt has used and left.
fn usage(message: &v1::AttemptFinished, outcome: Outcome, artifacts: Option<Arc<Artifacts>>) -> RunReport {
    RunReport {
        artifacts,
        cpu_time: message.cpu_time.as_ref().and_then(parse_duration),
        peak_memory_bytes: message.peak_memory_bytes.and_then(|bytes| u64::try_from(bytes).ok()),
        ..RunReport::from(outcome)
    }
}

/// The failure of an attempt with a result of this size.
pub fn too_large(bytes: usize, PayloadLimit(bytes_max): PayloadLimit) -> Outcome {
    let text = format!("result has {bytes} bytes, at most {bytes_max} are allowed");
    Outcome::Failed(Failure::new(FailureReason::ResultTooLarge, text))
}

/// The result, or a failure if it is not valid.
fn result(payload: v1::Payload, limit: PayloadLimit) -> Result<Outcome, InvalidFields> {
    let mut invalid = InvalidFields::default();
    let bytes = match &payload.kind {
        Some(Kind::Data(data)) => data.len(),
        _ => 0,
    };
    if bytes > limit.0 {
        return Ok(too_large(bytes, limit));
    }
    let is_json = matches!(payload.kind, Some(Kind::Json(_)));
    let content_type = content_type(&mut invalid, MessagePath::Root, &payload.content_type, is_json);
    let data = super::submit_fields::payload(&mut invalid, MessagePath::Root, payload.kind, limit);
    invalid.check()?;
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
    Some(message(kind))
}

fn message(kind: server_message::Kind) -> v1::ServerMessage {
    v1::ServerMessage { kind: Some(kind) }
}

/// The message with a part of a payload.
pub fn payload_chunk(chunk: Chunk) -> v1::ServerMessage {
    let Chunk { token, offset, data } = chunk;
    message(server_message::Kind::Chunk(v1::AttemptChunk { token: token.to_string(), offset: to_i64(offset), data }))
}

/// The message that asks for a result.
pub fn result_requested(token: Token) -> v1::ServerMessage {
    message(server_message::Kind::ResultRequested(v1::ResultRequested { token: token.to_string() }))
}

fn assigned(assigned: &Assigned) -> v1::AttemptAssigned {
    let is_chunked = assigned.is_chunked();
    let Assigned { token, task, options, attempt, payload, trace, memory: _ } = assigned;
    let trace = trace.as_ref().filter(|trace| trace.has_span());
    v1::AttemptAssigned {
        token: token.to_string(),
        task_id: task.to_string(),
        namespace: options.namespace.to_string(),
        handler: options.handler.to_string(),
        attempt: to_i32(*attempt),
        payload: Some(v1::Payload {
            kind: (!is_chunked).then(|| Kind::Data(payload.clone())),
            content_type: options.content_type.to_string(),
        }),
        payload_bytes: if is_chunked { to_i64(payload.len()) } else { 0 },
        timeout: Some(duration(options.timeout)),
        traceparent: trace.and_then(|trace| trace.traceparent()).unwrap_or_default(),
        tracestate: trace.map(|trace| trace.state.to_string()).unwrap_or_default(),
        priority: priority(options.priority),
        labels: options.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
    }
}
