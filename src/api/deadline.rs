//! The caller's deadline, for bodies that are streamed: the framework applies it only until the headers.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;
use tonic::Request;

use crate::model::ErrorCode;

use super::status::{self, EdgeError};
use super::tasks::Body;

/// When the caller stops waiting, if it said so.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// From the `grpc-timeout` header.
    pub fn of<T>(request: &Request<T>) -> Self {
        let text = request.metadata().get("grpc-timeout").and_then(|value| value.to_str().ok());
        Self(text.and_then(parse).and_then(|span| Instant::now().checked_add(span)))
    }

    /// The same stream, ended at the deadline.
    pub fn bound<T: Send + 'static>(self, mut body: Body<T>) -> Body<T> {
        let Some(at) = self.0 else { return body };
        Box::pin(async_stream::stream! {
            loop {
                match tokio::time::timeout_at(at, body.next()).await {
                    Ok(Some(item)) => yield item,
                    Ok(None) => return,
                    Err(_) => {
                        let message = "the call's deadline has passed".to_owned();
                        yield Err(status::of(&EdgeError { code: ErrorCode::DeadlineExceeded, message }));
                        return;
                    }
                }
            }
        })
    }
}

/// At most eight digits and a unit, as the gRPC protocol has it.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_digits_and_a_unit() {
        assert_eq!(parse("300m"), Some(Duration::from_millis(300)));
        assert_eq!(parse("2H"), Some(Duration::from_secs(7_200)));
        for garbage in ["", "m", "5", "5x", "-5m", "123456789S", "5\u{e4}"] {
            assert_eq!(parse(garbage), None, "{garbage:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_goes_on_is_ended_at_the_deadline() {
        let mut request = Request::new(());
        request.metadata_mut().insert("grpc-timeout", "300m".parse().unwrap());
        let endless: Body<()> = Box::pin(futures_util::stream::pending());
        let mut bound = Deadline::of(&request).bound(endless);
        let last = bound.next().await.unwrap().unwrap_err();
        assert_eq!(last.code(), tonic::Code::DeadlineExceeded);
        assert!(bound.next().await.is_none());
    }
}
