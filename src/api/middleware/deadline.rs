//! The caller's deadline, from the `grpc-timeout` header.
//!
//! The framework applies it only until the headers are out; `guard` applies it to the whole call.

use std::time::Duration;

use tokio::time::Instant;
use tonic::codegen::http::HeaderMap;

/// When the caller stops waiting, if it said so.
pub fn of(headers: &HeaderMap) -> Option<Instant> {
    let span = headers.get("grpc-timeout")?.to_str().ok().and_then(parse)?;
    Instant::now().checked_add(span)
}

/// At most eight digits and a unit, as the gRPC protocol has it.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
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
        assert_eq!(parse("2H"), Some(Duration::from_hours(2)));
        assert_eq!(parse("99999999H"), Some(Duration::from_hours(99_999_999)));
        for garbage in ["", "m", "5", "5x", "-5m", "+5m", "123456789S", "5\u{e4}", "5 S"] {
            assert_eq!(parse(garbage), None, "{garbage:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_cannot_be_read_is_no_deadline() {
        let mut headers = HeaderMap::new();
        assert_eq!(of(&headers), None);
        headers.insert("grpc-timeout", "soon".parse().unwrap());
        assert_eq!(of(&headers), None);
        headers.insert("grpc-timeout", "2S".parse().unwrap());
        assert_eq!(of(&headers), Some(Instant::now() + Duration::from_secs(2)));
    }
}
