//! What a response means for its attempt.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderMap, HeaderName, RETRY_AFTER};
use hyper::{Response, StatusCode};
use tokio::time::timeout;

use super::handler::HttpHandler;
use crate::model::spec::{OCTET_STREAM, is_content_type};
use crate::model::{Clock, Failure, FailureReason, SystemClock};
use crate::runners::result::ResultBuffer;
use crate::runners::{Outcome, ResultMemory, RunReport};

/// Bytes of the body of an error that a failure contains.
const DETAIL_BYTES: usize = 2_048;
/// Time for that body to arrive.
const DETAIL_TIMEOUT: Duration = Duration::from_secs(1);
/// A service cannot defer a task for longer.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);

/// # Errors
/// When the connection fails before the response is complete.
pub(super) async fn report(
    handler: &HttpHandler,
    response: Response<Incoming>,
    memory: ResultMemory,
) -> Result<RunReport, hyper::Error> {
    let status = response.status();
    if handler.success.iter().any(|known| known.contains(&status.as_u16())) {
        return result(response, ResultBuffer::new(memory)).await;
    }
    let mut failure = Failure::new(FailureReason::HandlerError, message(&handler.call.host, status));
    failure.retryable = handler.retry.iter().any(|known| known.contains(&status.as_u16()));
    failure.retry_after = retry_after(response.headers()).filter(|_| failure.retryable);
    failure.detail = detail(response).await;
    Ok(Outcome::Failed(failure).into())
}

fn message(host: &str, status: StatusCode) -> String {
    let hint = if status.is_redirection() { "; redirects are not followed" } else { "" };
    match status.canonical_reason() {
        Some(reason) => format!("`{host}` answered {} {reason}{hint}", status.as_u16()),
        None => format!("`{host}` answered {}{hint}", status.as_u16()),
    }
}

async fn result(response: Response<Incoming>, mut result: ResultBuffer) -> Result<RunReport, hyper::Error> {
    let (parts, mut body) = response.into_parts();
    let content_type = text(&parts.headers, &CONTENT_TYPE).filter(|found| is_content_type(found));
    let content_type = content_type.unwrap_or(OCTET_STREAM).into();
    if let Some(encoding) = text(&parts.headers, &CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        let message = format!("the response has the content encoding {encoding:?}, which was not requested");
        let failure = Failure { retryable: false, ..Failure::new(FailureReason::HandlerError, message) };
        return Ok(Outcome::Failed(failure).into());
    }
    if let Some(bytes) = body.size_hint().exact() {
        result.expect(bytes);
    }
    while !result.is_too_large()
        && let Some(frame) = body.frame().await
    {
        if let Ok(data) = frame?.into_data() {
            result.wait_for_room(data.len()).await;
            result.push(&data);
        }
    }
    Ok(result.into_report(content_type))
}

/// The beginning of the body, as far as it comes in time.
async fn detail(response: Response<Incoming>) -> String {
    let mut body = response.into_body();
    let mut data = Vec::new();
    let read = async {
        while let Some(Ok(frame)) = body.frame().await {
            if let Some(chunk) = frame.data_ref() {
                data.extend_from_slice(&chunk[..chunk.len().min(DETAIL_BYTES - data.len())]);
            }
            if data.len() == DETAIL_BYTES {
                return;
            }
        }
    };
    // What came in time is kept.
    let _ = timeout(DETAIL_TIMEOUT, read).await;
    String::from_utf8_lossy(&data).into_owned()
}

/// The delay that `Retry-After` names, as seconds or as a time on the clock of the service.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = text(headers, &RETRY_AFTER)?.trim();
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let delay = if is_number {
        // One that is too large for the type is still a delay.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let date = text(headers, &DATE).and_then(|date| httpdate::parse_http_date(date).ok());
        httpdate::parse_http_date(value).ok()?.duration_since(date.unwrap_or_else(now)).ok()?
    };
    // A delay of zero would leave out the back-off of the handler.
    Some(delay.min(RETRY_AFTER_MAX)).filter(|delay| !delay.is_zero())
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(SystemClock.now().as_micros())
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_a_number_of_seconds_or_a_date() {
        let date = ("date", "Sun, 06 Nov 1994 08:49:00 GMT");
        for (headers, expected) in [
            (vec![("retry-after", "120")], Some(120)),
            (vec![("retry-after", " 7 ")], Some(7)),
            (vec![date, ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")], Some(37)),
            // Later than the clock of this machine.
            (vec![("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT")], Some(24 * 3_600)),
            (vec![("retry-after", "99999999999")], Some(24 * 3_600)),
            (vec![("retry-after", "999999999999999999999999999999")], Some(24 * 3_600)),
            (vec![date, ("retry-after", "Sun, 06 Nov 1994 08:48:00 GMT")], None),
            (vec![("retry-after", "Sun, 06 Nov 1994 08:48:00 GMT")], None),
            (vec![("retry-after", "0")], None),
            (vec![("retry-after", "-1")], None),
            (vec![("retry-after", "soon")], None),
            (vec![("retry-after", "")], None),
            (vec![("retry-after", "1.5")], None),
            (vec![("retry-after", "Sun, 99 Nov 1994 08:49:37 GMT")], None),
            (vec![], None),
        ] {
            let pairs = headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
            let found = retry_after(&pairs.collect());
            assert_eq!(found, expected.map(Duration::from_secs), "{headers:?}");
        }
    }
}
