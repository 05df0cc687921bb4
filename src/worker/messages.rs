//! The messages of a worker.

use crate::model::{Failure, OutputStream, limits};
use crate::proto::v1::{self, attempt_finished::Outcome, worker_message::Kind};

pub fn of(kind: Kind) -> v1::WorkerMessage {
    v1::WorkerMessage { kind: Some(kind) }
}

pub fn accepted(token: &str) -> v1::WorkerMessage {
    of(Kind::Accepted(v1::AttemptAccepted { token: token.to_owned() }))
}

pub fn progress(token: &str, fraction: f64, note: String) -> v1::WorkerMessage {
    of(Kind::Progress(v1::AttemptProgress { token: token.to_owned(), fraction, note }))
}

pub fn output(token: &str, stream: OutputStream, mut data: Vec<u8>, omitted: usize) -> v1::WorkerMessage {
    if omitted > 0 {
        data.extend_from_slice(format!("\n[{omitted} bytes of output could not be sent in time]\n").as_bytes());
    }
    let stream = match stream {
        OutputStream::Stdout => v1::OutputStream::Stdout,
        OutputStream::Stderr => v1::OutputStream::Stderr,
    };
    of(Kind::Output(v1::AttemptOutput { token: token.to_owned(), stream: stream.into(), data: data.into() }))
}

pub fn finished(token: &str, outcome: Outcome, artifacts: Vec<v1::Artifact>) -> v1::WorkerMessage {
    let (token, outcome) = (token.to_owned(), Some(outcome));
    of(Kind::Finished(v1::AttemptFinished { token, outcome, artifacts, ..v1::AttemptFinished::default() }))
}

/// The end of an attempt. The bytes of a large result follow in chunks when the server requests them.
pub fn finished_or_announced(token: &str, mut outcome: Outcome, artifacts: Vec<v1::Artifact>) -> v1::WorkerMessage {
    let mut result_bytes = 0;
    if let Outcome::Result(result) = &mut outcome
        && let Some(v1::payload::Kind::Data(data)) = &result.kind
        && data.len() > limits::INLINE_BYTES_MAX
    {
        result_bytes = i64::try_from(data.len()).unwrap_or(i64::MAX);
        result.kind = None;
    }
    let (token, outcome) = (token.to_owned(), Some(outcome));
    let finished = v1::AttemptFinished { token, outcome, result_bytes, artifacts, ..v1::AttemptFinished::default() };
    of(Kind::Finished(finished))
}

pub fn chunk(token: &str, offset: usize, data: bytes::Bytes) -> v1::WorkerMessage {
    let offset = i64::try_from(offset).unwrap_or(i64::MAX);
    of(Kind::Chunk(v1::AttemptChunk { token: token.to_owned(), offset, data }))
}

pub fn cancel_acknowledged(token: &str) -> v1::WorkerMessage {
    of(Kind::CancelAcknowledged(v1::CancelAcknowledged { token: token.to_owned() }))
}

pub fn suspended(token: &str) -> v1::WorkerMessage {
    of(Kind::Suspended(v1::AttemptSuspended { token: token.to_owned() }))
}

pub fn resuming(token: &str) -> v1::WorkerMessage {
    of(Kind::Resuming(v1::AttemptResuming { token: token.to_owned() }))
}

/// The server would cut longer texts off as well.
pub fn failure(failure: Failure) -> v1::Failure {
    let shortened = |mut text: String, bytes_max: usize| {
        text.truncate(text.floor_char_boundary(bytes_max));
        text
    };
    v1::Failure {
        reason: i32::from(failure.reason as u8),
        message: shortened(failure.message, limits::FAILURE_MESSAGE_BYTES_MAX),
        detail: shortened(failure.detail, limits::FAILURE_DETAIL_BYTES_MAX),
        retryable: failure.retryable,
        ..v1::Failure::default()
    }
}
