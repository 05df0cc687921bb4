//! One request and its response.

use std::error::Error;
use std::io;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;

use super::guard::Refused;
use super::handler::{Attempt, HttpHandler};
use super::response;
use crate::model::error::innermost;
use crate::model::{Failure, FailureReason};
use crate::runners::{Outcome, ResultMemory, RunReport};

/// The end of an attempt that is not stopped.
pub(super) async fn run(
    handler: &HttpHandler,
    attempt: &Attempt,
    payload: Bytes,
    content_type: &str,
    memory: ResultMemory,
) -> RunReport {
    match handler.request(&handler.call, attempt, Some((payload, content_type))).await {
        Ok(request) => call(handler, request, memory).await,
        Err(outcome) => outcome.into(),
    }
}

async fn call(handler: &HttpHandler, request: Request<Full<Bytes>>, memory: ResultMemory) -> RunReport {
    let host = &handler.call.host;
    let response = match handler.call.client.request(request).await {
        Ok(response) => response,
        Err(error) => return transport_failure(host, &error, error.is_connect()).into(),
    };
    match response::report(handler, response, memory).await {
        Ok(report) => report,
        Err(error) => transport_failure(host, &error, false).into(),
    }
}

/// The attempt is not spent if this machine has run out of something that a connection needs.
fn transport_failure(host: &str, error: &(dyn Error + 'static), is_connect: bool) -> Outcome {
    let cause = innermost(error);
    if find::<Refused>(error).is_some() {
        return Outcome::Failed(Failure { retryable: false, ..Failure::new(FailureReason::HandlerError, cause) });
    }
    if !is_connect {
        let message = format!("the call of `{host}` broke off: {cause}");
        return Outcome::Failed(Failure::new(FailureReason::HandlerError, message));
    }
    let message = format!("failed to connect to `{host}`: {cause}");
    match find::<io::Error>(error).and_then(io::Error::raw_os_error) {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS) => Outcome::Unavailable(message.into()),
        _ => Outcome::Failed(Failure::new(FailureReason::HandlerError, message)),
    }
}

/// The error itself or a cause of it.
fn find<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
